"""A volume's life after ``add``: it grows while it is written to, and becomes a plain volume again."""

from __future__ import annotations

import pytest

from . import product, volume
from .lab import Lab
from .machine import Machine
from .stages import ENROLLED, REPLICATING
from .test_bad_days import REFUSED, UNREACHABLE, USAGE, refused

MIB = 2**20


def size_of_device(machine: Machine) -> int:
    """Of /dev/drbd0, in MiB."""
    return int(machine.run("cat /sys/block/drbd0/size").stdout) * 512 // MIB


def size_of_volume(machine: Machine, name: str = "test_a") -> int:
    """In MiB."""
    return int(float(machine.run(f"lvs --noheadings --nosuffix --units m -o lv_size local/{name}").stdout))


def write_all_the_time(machine: Machine) -> None:
    """Files in /mnt/busy, until /root/stop is there."""
    machine.run("mkdir /mnt/busy")
    machine.run(
        "(n=0; while ! test -e /root/stop; do n=$((n+1)); cp /bin/ls /mnt/busy/$((n % 20)) || touch /root/failed; "
        "sleep 0.1; "  # more than the emulated line carries would be another test
        "done; touch /root/stopped) >/dev/null 2>&1 &"
    )


def stop_writing(machine: Machine) -> None:
    machine.run("touch /root/stop")
    machine.wait_for("the writer has ended", "test -e /root/stopped")
    machine.run("! test -e /root/failed && cd /mnt/busy && for file in *; do cmp $file /bin/ls || exit 1; done")


def copies_are_equal(lab: Lab) -> None:
    lab.server.run("umount /mnt")
    product.await_up_to_date(lab)
    assert product.checksum(lab.server, product.VOLUME) == product.checksum(lab.backup, product.VOLUME)


def test_a_volume_grows_on_both_machines_while_it_is_written_to(lab: Lab) -> None:
    lab.enter(REPLICATING)
    lab.server.run(f"mount {product.DEVICE} /mnt")
    write_all_the_time(lab.server)
    lab.server.run("drbd-offsite grow test_a +40M", timeout=300)
    stop_writing(lab.server)
    for machine in lab.machines:
        assert size_of_device(machine) == size_of_volume(machine) == 136
    assert int(lab.server.run("df -m --output=size /mnt | tail -1").stdout) > 110
    volume.check(lab.server, "/mnt")
    copies_are_equal(lab)
    lab.server.run(f"e2fsck -fn {product.DEVICE}")


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("fstype", "before", "asked", "after"),
    # btrfs is resized to no less than 256 MiB (fs/btrfs/ioctl.c)
    [
        ("ext2", 64, "+64M", 128),
        ("ext3", 64, "+64M", 128),
        ("xfs", 320, "+64M", 384),
        ("btrfs", 256, "+64M", 320),
        ("none", 64, "128M", 128),
    ],
)
def test_what_is_on_it_grows_too(lab: Lab, fstype: str, before: int, asked: str, after: int) -> None:
    lab.enter(ENROLLED)
    server = lab.server
    server.run(f"lvcreate -q -y -L {before}M -n other local")
    if fstype != "none":
        server.run(f"mkfs.{fstype} -q /dev/local/other")
    server.run("drbd-offsite add local/other", timeout=600)
    if fstype != "none":
        server.run("mount /dev/drbd0 /mnt && cp /bin/bash /mnt/")
    df = "df -m --output=size /mnt | tail -1"
    smaller = int(server.run(df).stdout)
    said = server.run(f"drbd-offsite grow other {asked}", timeout=600)
    if fstype == "none":
        assert "no filesystem" in said.stderr
    else:
        # What ext2 and ext3 take for their inodes grows with it.
        assert int(server.run(df).stdout) >= smaller + (after - before) * 0.9
        server.run("cmp /bin/bash /mnt/bash")
    for machine in lab.machines:
        assert size_of_device(machine) == size_of_volume(machine, "other") == after


@pytest.mark.thorough
def test_growing_is_refused_before_anything_is_touched(lab: Lab) -> None:
    lab.enter(REPLICATING)
    before = {machine.name: machine.run("lvs; cat /etc/drbd.d/*").stdout for machine in lab.machines}
    refused(lab.server, "drbd-offsite grow test_a", USAGE, "needs a size")
    refused(lab.server, "drbd-offsite grow test_a 10G0", USAGE, "no size")
    refused(lab.server, "drbd-offsite grow test_a 64M", REFUSED, "nothing is ever made smaller")
    refused(lab.server, "drbd-offsite grow test_a +900G", REFUSED, "volume group local on server", "vgextend")
    refused(lab.backup, "drbd-offsite grow test_a +8M", REFUSED, "is for the server")
    lab.backup.run("lvcreate -q -y -l 100%FREE -n full local")
    refused(lab.server, "drbd-offsite grow test_a +8M", REFUSED, "volume group local on backup")
    lab.backup.run("lvremove -q -y local/full && lvcreate -q -y -s -L 8M -n old local/test_a")
    refused(lab.server, "drbd-offsite grow test_a +8M", REFUSED, "local/old on backup is a snapshot")
    lab.backup.run("lvremove -q -y local/old && drbd-offsite disconnect test_a")
    refused(lab.server, "drbd-offsite grow test_a +8M", REFUSED, "both copies up to date")
    for machine in lab.machines:
        assert machine.run("lvs; cat /etc/drbd.d/*").stdout == before[machine.name]
        assert product.status(machine)["operations"] == []


def plain_again(lab: Lab, name: str = "test_a") -> None:
    """Nothing of the resource is left on either machine, but the volumes."""
    for machine in lab.machines:
        machine.run(f"! drbdsetup events2 --now | grep {name}")
        machine.run(f"! ls /etc/drbd.d/*_{name}.res /etc/systemd/system/drbd-offsite@{name}.service.d 2>/dev/null")
        machine.run(f"! grep '\\[\\[{name}\\]\\]' /etc/drbd-offsite/drbd-offsite.conf")
        machine.run(f"! systemctl is-enabled drbd-offsite@{name} && ! systemctl is-active drbd-offsite@{name}")
        state = product.status(machine)
        assert (state["resources"], state["operations"]) == ([], []), state
    lab.server.run("drbdmeta 0 v08 /dev/local/drbd_meta 0 get-gi; test $? = 1", check=True)


def test_a_mounted_volume_is_given_back_with_its_line_in_fstab(lab: Lab) -> None:
    lab.enter(ENROLLED)
    server = lab.server
    server.run("mkdir /srv/data && echo 'LABEL=test_a  /srv/data\text4 noatime 0 2 # ours' >>/etc/fstab")
    fstab = server.run("cat /etc/fstab").stdout
    server.run("systemctl daemon-reload && mount /srv/data")
    server.run(f"drbd-offsite add --remount {product.VOLUME}", timeout=600)
    product.await_up_to_date(lab)
    refused(server, "drbd-offsite remove test_a", REFUSED, "is mounted at /srv/data", "--remount")
    assert product.status(server)["operations"] == []
    server.run("drbd-offsite remove --remount test_a", timeout=300)
    plain_again(lab)
    assert server.run("cat /etc/fstab").stdout == fstab
    assert "noatime" in server.run("findmnt -n -o OPTIONS /srv/data").stdout
    volume.check(server, "/srv/data")
    # The copy is an ordinary volume there.
    lab.backup.run("mount -o ro /dev/local/test_a /mnt")
    volume.check(lab.backup, "/mnt")
    lab.backup.run("umount /mnt")
    server.reboot()
    volume.check(server, "/srv/data")
    # And all of it can be had again, in the same slot.
    product.await_tunnel(lab)
    lab.backup.run("lvremove -q -y local/test_a")
    server.run(f"drbd-offsite add --remount {product.VOLUME}", timeout=600)
    product.await_up_to_date(lab)
    assert "drbd_meta[0]" in server.run("cat /etc/drbd-offsite/drbd-offsite.conf").stdout


@pytest.mark.thorough
def test_what_is_removed_while_the_backup_is_away_is_released_when_it_returns(lab: Lab) -> None:
    lab.enter(REPLICATING)
    lab.backup.power_off()
    done = lab.server.run("drbd-offsite remove test_a --delete-backup-copy", timeout=300)
    assert "released by itself" in done.stderr
    assert "remove" in lab.server.run("drbd-offsite status", check=False).stdout
    refused(lab.server, f"drbd-offsite add {product.VOLUME}", REFUSED, "remove of", "is under way")
    lab.server.run(f"mount {product.VOLUME} /mnt")
    volume.check(lab.server, "/mnt")
    lab.backup.start()
    product.await_tunnel(lab)
    lab.backup.wait_for("its half is released", "! test -e /dev/local/test_a", 180)
    lab.server.wait_for("nothing is unfinished", lambda: product.status(lab.server)["operations"] == [])
    plain_again(lab)


@pytest.mark.thorough
def test_one_of_three_is_removed_and_the_order_of_first_syncs_is_right(lab: Lab) -> None:
    lab.enter(REPLICATING)
    for name in ("test_b", "test_c"):
        lab.server.run(f"lvcreate -q -y -L 8M -n {name} local && drbd-offsite add local/{name}", timeout=300)
    lab.server.run("drbd-offsite remove test_b", timeout=300)
    said = lab.server.run("drbdsetup show test_c").stdout
    assert int(said.partition("resync-after")[2].split()[0].rstrip(";")) == 0, said
    assert '"test_a/0"' in lab.server.run("cat /etc/drbd.d/*_test_c.res").stdout
    assert "resync-after" not in lab.backup.run("cat /etc/drbd.d/*_test_c.res").stdout
    product.await_up_to_date(lab, "test_c")
    lab.server.run("lvcreate -q -y -L 8M -n test_d local && drbd-offsite add local/test_d", timeout=300)
    assert product.resource(lab.server, "test_d")["device"] == "/dev/drbd1", "the freed minor is used again"


@pytest.mark.thorough
def test_a_new_backup_takes_the_place_of_a_lost_one_while_the_server_serves(lab: Lab) -> None:
    lab.enter(REPLICATING)
    server, backup = lab.machines
    server.run(f"mount {product.DEVICE} /mnt")
    write_all_the_time(server)
    refused(server, "drbd-offsite replace-backup", REFUSED, "nothing to replace")
    # A machine on which nothing of all this has ever been, with a name of its own.
    backup.rewind("clean")
    backup.run("hostnamectl set-hostname spare")
    product.install(backup)
    refused(server, "drbd-offsite replace-backup", UNREACHABLE)
    product.carry_invitation(lab)
    backup.run("drbd-offsite join /root/backup.invite", timeout=180)
    server.run("drbd-offsite replace-backup", timeout=300)
    stop_writing(server)
    product.await_up_to_date(lab)
    assert '"spare"' in server.run("cat /etc/drbd.d/0_test_a.res").stdout
    assert product.resource(server)["holds"] == []
    volume.check(server, "/mnt")
    copies_are_equal(lab)
    lab.both(Machine.reboot)
    product.await_up_to_date(lab, deadline=180)
