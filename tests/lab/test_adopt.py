"""Two machines that were set up by hand, line by line after the how-to, are taken over while they run."""

from __future__ import annotations

from pathlib import Path

import pytest

from . import product, volume
from .lab import Lab, Stage
from .machine import Machine
from .recipe import WAN_ADDRESSES
from .stages import INSTALLED, VG, VOLUME, VOLUME_MB

HOWTO = Path(__file__).parents[1] / "data/adopt/howto"
SECRET = "some-shared-secret-of-your-choice"

FSTAB_LINE = "/dev/drbd/by-res/test_a\t/srv/data ext4 noatime,x-systemd.requires=drbd.service 0 2\n"
MOUNTED = "/dev/drbd0 /srv/data ext4 noatime,nofail,x-systemd.requires=drbd-offsite@test_a.service 0 2"


def _by_hand(lab: Lab) -> None:
    lab.both(_tunnel)
    key = lab.server.run("openvpn --genkey secret /etc/openvpn/static.key && cat /etc/openvpn/static.key").stdout
    lab.backup.run("umask 077; cat >/etc/openvpn/static.key", input=key)
    lab.both(lambda machine: machine.run("systemctl enable --quiet --now openvpn@server"))
    product.await_tunnel(lab)
    lab.backup.run(f"lvcreate --quiet --yes --size {VOLUME_MB}M --name {VOLUME} {VG}")
    lab.both(_resource)
    lab.server.run("drbdadm primary --force test_a")
    _await_both_copies(lab)


def _tunnel(machine: Machine) -> None:
    text = (HOWTO / machine.name / "server.conf").read_text().replace("server.ip.address", WAN_ADDRESSES["server"])
    # Without it OpenVPN 2.6 takes BF-CBC for a static key, and OpenSSL 3 no longer has that.
    machine.run("cat >/etc/openvpn/server.conf", input=text + "cipher AES-256-CBC\n")


def _resource(machine: Machine) -> None:
    common = (HOWTO / "drbd.d/global_common.conf").read_text().replace("csum-alg", "csums-alg")
    machine.run("cat >/etc/drbd.d/global_common.conf", input="global { usage-count no; }\n" + common)
    machine.run("cat >/etc/drbd.d/0_test_a.res", input=(HOWTO / "drbd.d/0_test_a.res").read_text())
    machine.run(f"lvcreate --quiet --yes --size 128M --name drbd_meta {VG} && modprobe drbd")
    machine.run("drbdadm create-md --force test_a </dev/null && drbdadm up test_a")


def _await_both_copies(lab: Lab) -> None:
    both = "grep -q 'cs:Connected ro:Primary/Secondary ds:UpToDate/UpToDate' /proc/drbd"
    lab.server.wait_for("both copies are up to date", both, 120)


BY_HAND = Stage("by-hand", _by_hand, INSTALLED, _await_both_copies)
"""The how-to has been followed; the packages are installed, and know nothing of it."""


def _connection(machine: Machine) -> str:
    """Both ends of DRBD's TCP connections; others after every reconnect."""
    return machine.run(
        "ss -Htn state established '( sport = 7789 or dport = 7789 )' | awk '{print $3, $4}' | sort"
    ).stdout


def _adopt(lab: Lab) -> None:
    for machine in lab.machines:
        said = machine.run("drbd-offsite adopt --yes 2>&1", timeout=120).stdout
        assert "Adopted: test_a" in said
        assert SECRET not in said


@pytest.mark.thorough
def test_what_the_how_to_has_made_is_adopted_without_a_reconnect(lab: Lab) -> None:
    lab.enter(BY_HAND)
    lab.both(lambda machine: machine.run("systemctl enable --quiet drbd.service"))
    lab.server.run("mkdir /srv/data && cat >>/etc/fstab", input=FSTAB_LINE)
    lab.server.run("systemctl daemon-reload && mount /srv/data")
    before = {machine.name: _connection(machine) for machine in lab.machines}
    assert before["server"]
    plan = lab.server.run("drbd-offsite adopt --dry-run").stdout
    assert "c-max-rate" in plan
    assert MOUNTED in plan
    lab.server.run("test ! -e /etc/drbd-offsite/keys/backup/drbd.secret")
    _adopt(lab)
    for machine in lab.machines:
        machine.wait_for("its unit is up", "systemctl is-active --quiet drbd-offsite@test_a")
        assert _connection(machine) == before[machine.name]
        machine.run("drbdadm dump test_a >/dev/null && test -s /var/lib/drbd-offsite/adopted/0_test_a.res")
        assert "nothing to adopt" in machine.run("drbd-offsite adopt --yes 2>&1").stdout
        machine.run("! systemctl is-enabled --quiet drbd.service")
        # From here on udev knows the device by the names that our file gives it.
        machine.run("udevadm trigger --settle --action=change /dev/drbd0")
        machine.run("test -b /dev/drbd/by-res/test_a/0")
    product.await_up_to_date(lab)
    assert product.resource(lab.backup)["level"] == "ok"
    assert lab.server.run("grep -A1 '^# before drbd-offsite: ' /etc/fstab").stdout == (
        f"# before drbd-offsite: {FSTAB_LINE}{MOUNTED}\n"
    )
    volume.check(lab.server, "/srv/data")
    # Nothing waits for a backup that cannot be reached.
    lab.cut_link()
    lab.server.reboot()
    lab.server.wait_for("it is mounted", "findmnt -n -o SOURCE -M /srv/data | grep -q /dev/drbd0", 120)
    volume.check(lab.server, "/srv/data")
    lab.mend_link()
    product.await_up_to_date(lab, deadline=180)


@pytest.mark.thorough
def test_what_was_adopted_is_enrolled_and_comes_back_after_a_reboot_of_both(lab: Lab) -> None:
    lab.enter(BY_HAND)
    before = _connection(lab.server)
    _adopt(lab)
    product.enrol(lab)
    assert _connection(lab.server) == before
    for machine in lab.machines:
        assert machine.run("cat /etc/drbd-offsite/keys/*/drbd.secret").stdout.strip() == SECRET
    lab.each(lab.machines, Machine.reboot)
    product.await_up_to_date(lab, deadline=180)
    for machine in lab.machines:
        machine.run("drbdsetup show test_a | grep -q 'csums-alg.*sha1'")
    lab.server.run(f"mount {product.DEVICE} /mnt")
    volume.check(lab.server, "/mnt")


@pytest.mark.thorough
def test_one_machine_that_reboots_finds_the_other_by_itself_once_both_are_adopted(lab: Lab) -> None:
    lab.enter(BY_HAND)
    _adopt(lab)
    # The server comes back with csums-alg and verify-alg of ours, and the backup's kernel still has the how-to's.
    lab.server.reboot()
    product.await_up_to_date(lab, deadline=180)
