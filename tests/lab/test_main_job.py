"""The main job: from two installed machines to a volume that is replicated, and through every reboot."""

from __future__ import annotations

import pytest

from . import product, volume
from .lab import Lab
from .machine import Machine
from .stages import ENROLLED, INSTALLED, REPLICATING


def test_an_invitation_brings_the_tunnel_up(lab: Lab) -> None:
    lab.enter(INSTALLED)
    product.carry_invitation(lab)
    assert lab.server.run("stat -c %a /root/backup.invite").stdout.strip() == "600"
    provisional = lab.server.run("cat /etc/openvpn/server/drbd-offsite-backup.conf").stdout
    lab.backup.run("drbd-offsite join /root/backup.invite", timeout=180)
    lab.server.run("ping -c 1 -W 5 10.89.33.2")
    lab.backup.run("ping -c 1 -W 5 10.89.33.1")
    # From now on the backup shows a key of its own, and the invitation's are gone on both.
    assert lab.server.run("cat /etc/openvpn/server/drbd-offsite-backup.conf").stdout != provisional
    lab.server.run("test ! -e /etc/drbd-offsite/keys/backup/invitation.json")
    lab.backup.run("test ! -e /etc/drbd-offsite/keys/server/invitation")
    assert lab.server.run("drbd-offsite doctor", check=False).stdout.startswith("Everything")


def test_add_replicates_a_volume_with_its_files(lab: Lab) -> None:
    lab.enter(ENROLLED)
    said = lab.server.run(f"drbd-offsite add {product.VOLUME}", timeout=600).stderr
    assert "MiB left" in said, "progress of the first sync"
    product.await_up_to_date(lab)
    for machine in lab.machines:
        assert "up to date" in machine.run("drbd-offsite status").stdout
    lab.server.run(f"mount {product.DEVICE} /mnt")
    volume.check(lab.server, "/mnt")
    lab.server.run("umount /mnt && test -e /dev/drbd/by-disk/local/test_a")


def test_the_copy_is_the_same_bit_by_bit(lab: Lab) -> None:
    lab.enter(REPLICATING)
    lab.server.run(f"mount {product.DEVICE} /mnt && cp -a /usr/share/zoneinfo /mnt/ && sync && umount /mnt")
    lab.server.run("systemctl stop drbd-offsite@test_a")
    lab.backup.run("drbd-offsite down test_a")
    assert product.checksum(lab.server, product.VOLUME) == product.checksum(lab.backup, product.VOLUME)


SUMS = "cd /mnt && find . -xdev -type f | sort | xargs sha256sum | sha256sum"


def _files_in_the_copy(lab: Lab) -> str:
    """The checksum of all files in the backup's copy, seen through a snapshot that replays the journal."""
    lab.backup.run("lvcreate -q -y -s -n look -L 64M local/test_a && mount /dev/local/look /mnt")
    sums = lab.backup.run(SUMS).stdout
    lab.backup.run("umount /mnt && lvremove -q -y local/look")
    return sums


def _transferred(machine: Machine, counter: str) -> str:
    return machine.run(f"drbdsetup events2 --now --statistics | grep -o '{counter}:[0-9]*'").stdout.partition(":")[2]


def test_an_unplugged_server_leaves_a_copy_with_all_that_had_arrived(lab: Lab) -> None:
    lab.enter(REPLICATING)
    lab.server.run(f"mount {product.DEVICE} /mnt && cp -a /usr/share/zoneinfo /mnt/ && sync")
    sums = lab.server.run(SUMS).stdout
    product.await_up_to_date(lab)
    # Protocol A: a write is done when it is in the send buffer, so only the other end knows when it is there.
    lab.server.wait_for(
        "the backup has all of it", lambda: _transferred(lab.server, "sent") == _transferred(lab.backup, "received")
    )
    lab.server.power_off()
    lab.backup.wait_for("the loss is noticed", lambda: product.resource(lab.backup)["connection"] != "Connected")
    assert _files_in_the_copy(lab) == sums


def test_a_server_that_is_stopped_in_order_leaves_a_complete_copy(lab: Lab) -> None:
    lab.enter(REPLICATING)
    lab.server.run(f"mount {product.DEVICE} /mnt && cp -a /usr/share/zoneinfo /mnt/ && sync")
    sums = lab.server.run(SUMS).stdout
    lab.server.run("systemctl poweroff", check=False)
    lab.backup.wait_for("the server is gone", lambda: product.resource(lab.backup)["connection"] != "Connected")
    assert _files_in_the_copy(lab) == sums


def test_writes_while_the_link_is_cut_reach_the_backup_later(lab: Lab) -> None:
    lab.enter(REPLICATING)
    lab.server.run(f"mount {product.DEVICE} /mnt")
    lab.cut_link()
    lab.server.wait_for(
        "the server sees that the backup is away", lambda: product.resource(lab.server)["level"] == "unprotected"
    )
    lab.server.run("cp -a /usr/share/zoneinfo /mnt/ && sync")
    assert product.resource(lab.server)["out_of_sync_bytes"] > 0
    lab.mend_link()
    product.await_up_to_date(lab)
    assert product.resource(lab.server)["out_of_sync_bytes"] == 0


@pytest.fixture
def mounted_at_boot(lab: Lab) -> Lab:
    """Replicating, with the filesystem in the server's fstab as ``add --remount`` writes it."""
    lab.enter(ENROLLED)
    lab.server.run("mkdir /srv/data && echo '/dev/local/test_a /srv/data ext4 defaults 0 2' >>/etc/fstab")
    lab.server.run("systemctl daemon-reload && mount /srv/data")
    lab.server.run(f"drbd-offsite add --remount {product.VOLUME}", timeout=600)
    product.await_up_to_date(lab)
    return lab


def _served(lab: Lab) -> None:
    lab.server.wait_for("the filesystem is mounted from DRBD", "findmnt -n -o SOURCE -M /srv/data | grep -q /dev/drbd0")
    volume.check(lab.server, "/srv/data")


def test_remount_moves_a_mounted_filesystem_and_its_fstab_line(mounted_at_boot: Lab) -> None:
    _served(mounted_at_boot)
    line = mounted_at_boot.server.run("grep '^[^#].*/srv/data' /etc/fstab").stdout.split()
    assert line[0] == product.DEVICE
    assert {"nofail", "x-systemd.requires=drbd-offsite@test_a.service"} <= set(line[3].split(","))


def test_every_order_of_reboots_ends_in_replication(mounted_at_boot: Lab) -> None:
    lab = mounted_at_boot
    for machines in ((lab.server,), (lab.backup,), lab.machines):
        lab.each(machines, Machine.reboot)
        product.await_up_to_date(lab, deadline=180)
        _served(lab)


def test_a_power_cut_of_both_ends_in_replication(mounted_at_boot: Lab) -> None:
    lab = mounted_at_boot
    lab.both(lambda machine: machine.reset())
    product.await_up_to_date(lab, deadline=180)
    _served(lab)


def test_the_server_serves_without_backup_tunnel_or_network(mounted_at_boot: Lab) -> None:
    lab = mounted_at_boot
    lab.backup.power_off()
    lab.server.run("systemctl mask openvpn-server@drbd-offsite-backup")
    lab.server.set_link(False)
    lab.server.reboot()
    _served(lab)
    assert "tun0" not in lab.server.run("ip -br link").stdout
    assert product.resource(lab.server)["role"] == "Primary"
