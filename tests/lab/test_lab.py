"""The lab itself: whether the machines do what all other tests build on."""

from __future__ import annotations

import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from . import volume
from .machine import DeadlinePassedError
from .recipe import WAN_ADDRESSES

if TYPE_CHECKING:
    from pathlib import Path

    from .lab import Lab

pytestmark = pytest.mark.lab

PING_BACKUP = f"ping -c 1 -W 2 {WAN_ADDRESSES['backup']}"


def test_both_are_up_and_know_who_they_are(clean_lab: Lab) -> None:
    ids = set()
    for machine in clean_lab.machines:
        assert machine.run("uname -n; cat /etc/hostname").stdout.split() == [machine.name] * 2
        assert machine.run("systemctl is-system-running").stdout.strip() == "running"
        ids.add(machine.run("cat /etc/machine-id").stdout)
    assert len(ids) == 2


def test_modules_load(clean_lab: Lab) -> None:
    for machine in clean_lab.machines:
        machine.run("modprobe -a drbd dm-snapshot dm-thin-pool dm-flakey tun wireguard sch_netem")
        assert "version: 8.4.11" in machine.run("cat /proc/drbd").stdout


@pytest.mark.thorough
def test_volume_holds_the_known_files(clean_lab: Lab) -> None:
    server = clean_lab.server
    server.run("mount -o ro /dev/local/test_a /mnt")
    volume.check(server, "/mnt")
    assert server.run("blkid -o value -s LABEL /dev/local/test_a").stdout.strip() == "test_a"
    assert "local" in clean_lab.backup.run("vgs --noheadings").stdout


def test_link_is_cut_and_mended(clean_lab: Lab) -> None:
    server = clean_lab.server
    server.run(PING_BACKUP)
    clean_lab.cut_link()
    assert server.run(PING_BACKUP, check=False).returncode == 1
    assert WAN_ADDRESSES["server"] in server.run("ip -br address").stdout
    clean_lab.mend_link()
    server.wait_for("the backup answers again", PING_BACKUP, 20)


@pytest.mark.thorough
def test_rewind_brings_a_deleted_file_back(clean_lab: Lab) -> None:
    for machine in clean_lab.machines:
        machine.run("rm /etc/hostname && sync")
    clean_lab.rewind("clean")
    for machine in clean_lab.machines:
        assert machine.run("cat /etc/hostname").stdout.strip() == machine.name
        assert abs(float(machine.run("date +%s.%N").stdout) - time.time()) < 3


@pytest.mark.thorough
def test_rewind_revives_a_machine_that_is_off(clean_lab: Lab) -> None:
    clean_lab.backup.power_off()
    clean_lab.rewind("clean")
    clean_lab.server.wait_for("the backup answers", PING_BACKUP, 20)


@pytest.mark.thorough
def test_reboot_gives_a_new_boot_and_keeps_the_disks(clean_lab: Lab) -> None:
    server = clean_lab.server
    old = server.boot_id()
    server.run("touch /root/kept")
    server.reboot()
    assert server.boot_id() != old
    server.run("test -e /root/kept && test -e /dev/local/test_a")
    server.wait_for("the backup answers", PING_BACKUP, 20)


@pytest.mark.thorough
def test_power_cut_loses_what_was_not_synced(clean_lab: Lab) -> None:
    backup = clean_lab.backup
    backup.run("echo kept >/root/kept && sync && echo lost >/root/lost")
    backup.power_off()
    backup.start()
    backup.run("grep kept /root/kept && test ! -s /root/lost")
    clean_lab.server.wait_for("the backup answers", PING_BACKUP, 20)


@pytest.mark.expects("Kernel panic")
@pytest.mark.thorough
def test_a_panicked_kernel_starts_again(clean_lab: Lab) -> None:
    backup = clean_lab.backup
    old = backup.boot_id()
    backup.run("(sleep 1; echo c >/proc/sysrq-trigger) >/dev/null 2>&1 &")
    backup.qmp.wait_event("RESET")
    backup.await_boot(after=old)


def test_local_package_installs_with_no_network(clean_lab: Lab, tmp_path: Path) -> None:
    control = tmp_path / "tree/DEBIAN/control"
    control.parent.mkdir(parents=True)
    control.write_text(
        "Package: lab-trial\nVersion: 1\nArchitecture: all\nDepends: python3-configobj\n"
        "Maintainer: The lab <root@localhost>\nDescription: a package to try apt with\n"
    )
    deb = tmp_path / "lab-trial.deb"
    subprocess.run(["dpkg-deb", "--build", "--root-owner-group", tmp_path / "tree", deb], check=True)
    clean_lab.server.copy_to(deb, "/root/")
    clean_lab.server.run("apt-get install --yes /root/lab-trial.deb")
    assert "ii  lab-trial" in clean_lab.server.run("dpkg --list lab-trial").stdout


@pytest.mark.thorough
def test_wait_for_tells_what_it_saw_last(clean_lab: Lab) -> None:
    with pytest.raises(DeadlinePassedError, match=r"(?s)the impossible.*no such luck"):
        clean_lab.server.wait_for("the impossible", "echo no such luck; false", 1)
