"""An empty volume needs no first sync; one with anything on it has its own."""

from __future__ import annotations

import re

import pytest

from . import product
from .lab import Lab
from .machine import Machine
from .stages import ENROLLED

MIB = 2**20
SIZE = 64

SKIPPED = "Preparing to skip initial sync"
"""What the kernel says (drbd_nl.c)."""


def counted(machine: Machine, counter: str, minor: int = 0) -> int:
    """One of /proc/drbd's counters, in KiB (drbd.conf(5))."""
    line = machine.run(f"grep -A1 '^ *{minor}: ' /proc/drbd | tail -1").stdout
    return int(dict(word.split(":", 1) for word in line.split() if ":" in word)[counter])


def kernel_log(machine: Machine) -> str:
    return machine.run("journalctl --quiet --no-pager --output=cat --boot _TRANSPORT=kernel").stdout


def copies_are_equal(lab: Lab, name: str) -> None:
    lab.server.run(f"systemctl stop drbd-offsite@{name}")
    lab.backup.run(f"drbd-offsite down {name}")
    device = f"/dev/local/{name}"
    assert product.checksum(lab.server, device) == product.checksum(lab.backup, device)


def fill_with_garbage(machine: Machine, size: int) -> None:
    """What a later volume gets of the group holds an earlier one's data."""
    machine.run(f"lvcreate -q -y -L {size}M -n garbage local")
    machine.run(f"dd if=/dev/urandom of=/dev/local/garbage bs=1M count={size} oflag=direct status=none")
    machine.run("lvremove -q -y local/garbage")


@pytest.mark.thorough
def test_an_empty_volume_is_up_to_date_on_both_machines_with_nothing_sent(lab: Lab) -> None:
    lab.enter(ENROLLED)
    server, backup = lab.machines
    fill_with_garbage(backup, 2 * SIZE)
    server.run(f"lvcreate -q -y -L {SIZE}M -n empty local && blkdiscard --zeroout /dev/local/empty")
    said = server.run("drbd-offsite add local/empty", timeout=600).stderr
    assert "both copies are up to date" in said
    assert "MiB left" not in said, "no sync was to be seen"
    assert SKIPPED in kernel_log(server)
    assert "skip initial sync" in kernel_log(backup)
    for machine in lab.machines:
        assert "Began resync" not in kernel_log(machine)
    assert (counted(server, "ns"), counted(backup, "nr")) == (0, 0), "sent, received"
    seen = product.resource(server, "empty")
    assert (seen["role"], seen["disk"], seen["peer_disk"]) == ("Primary", "UpToDate", "UpToDate")
    assert product.status(server)["operations"] == product.status(backup)["operations"] == []
    # From here on it is a resource as any other.
    server.run("mkfs.ext4 -q /dev/drbd/by-res/empty/0 && mount /dev/drbd/by-res/empty/0 /mnt")
    server.run("cp -a /usr/share/zoneinfo /mnt/ && sync && umount /mnt")
    product.await_up_to_date(lab, "empty")
    copies_are_equal(lab, "empty")


@pytest.mark.thorough
def test_it_is_found_equal_by_a_verify_and_survives_reboots(lab: Lab) -> None:
    lab.enter(ENROLLED)
    fill_with_garbage(lab.backup, 2 * SIZE)
    lab.server.run(f"lvcreate -q -y -L {SIZE}M -n empty local && blkdiscard --zeroout /dev/local/empty")
    lab.server.run("drbd-offsite add local/empty", timeout=600)
    lab.server.run("drbd-offsite verify empty", timeout=600)
    assert product.resource(lab.server, "empty")["out_of_sync_bytes"] == 0
    lab.both(Machine.reboot)
    product.await_up_to_date(lab, "empty", deadline=180)
    # A Primary that sees the other go first begins a generation, and a resync of nothing makes the two one again.
    assert set(re.findall(r"will sync (\d+) KB", kernel_log(lab.server))) <= {"0"}
    assert (counted(lab.server, "ns"), counted(lab.backup, "nr")) == (0, 0), "sent, received"
    copies_are_equal(lab, "empty")


@pytest.mark.thorough
@pytest.mark.parametrize("what", ["a filesystem", "a byte at its end"])
def test_a_volume_that_holds_anything_has_its_first_sync(lab: Lab, what: str) -> None:
    lab.enter(ENROLLED)
    server = lab.server
    fill_with_garbage(lab.backup, 2 * SIZE)
    server.run(f"lvcreate -q -y -L {SIZE}M -n other local && blkdiscard --zeroout /dev/local/other")
    if what == "a filesystem":
        server.run("mkfs.ext4 -q /dev/local/other")
    else:
        server.run(f"printf x | dd of=/dev/local/other bs=1 seek={SIZE * MIB - 1} conv=notrunc,fsync status=none")
    server.run("drbd-offsite add local/other", timeout=600)
    product.await_up_to_date(lab, "other")
    assert SKIPPED not in kernel_log(server)
    assert "Began resync" in kernel_log(server)
    copies_are_equal(lab, "other")
