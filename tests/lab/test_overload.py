"""More is written than the line takes: nobody on the server waits, and the backup always has something to offer."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from . import product
from .stages import REPLICATING
from .test_failover import CONF, IN_USE, WHERE
from .test_healing import _slow_link

if TYPE_CHECKING:
    from .lab import Lab
    from .machine import Machine

GUEST = Path(__file__).with_name("load_guest.py")
MBIT = 8
LINE = MBIT * 125_000
"""Bytes a second of `_slow_link`."""
TWO_LOOKS = 130
"""The watcher looks each minute."""


def _link_speed(lab: Lab) -> None:
    """Both know what the line carries."""
    for machine, peer in ((lab.server, "backup"), (lab.backup, "server")):
        machine.run(
            f"sed -i '/link_speed/d; /^ *\\[\\[{peer}\\]\\]/a link_speed = {MBIT}' {CONF} && "
            "drbd-offsite render && drbdadm adjust test_a"
        )


def begin_load(machine: Machine, where: str, rate: int, seconds: int) -> None:
    """Write so many bytes a second, each piece on the disk before the next one."""
    machine.copy_to(GUEST, "/root/load.py")
    machine.run(f"setsid python3 /root/load.py {where} {rate} {seconds} >/root/load.json 2>/root/load.err &")


def end_of_load(machine: Machine) -> dict[str, Any]:
    """What `begin_load` has come to."""
    machine.wait_for("all is written", "test -s /root/load.json || ! pgrep -f '[l]oad.py'", 400)
    found: dict[str, Any] = json.loads(machine.run("cat /root/load.json").stdout)
    print("load:", found)
    return found


def _exposed(backup: Machine) -> bool:
    """In the middle of a resync, before this look and after it, and without a restore point."""
    look = "grep -c Inconsistent/ /proc/drbd"
    before, points, after = backup.run(f"{look}; ls /dev/local | grep -c restore_point; {look}; true").stdout.split()
    return before == after == "1" and points == "0"


@pytest.mark.thorough
def test_an_overload_stalls_nobody_and_is_made_up_for_as_foretold(lab: Lab) -> None:
    lab.enter(IN_USE)
    server, backup = lab.machines
    server.run("drbd-offsite grow test_a +420M", timeout=600)
    product.await_up_to_date(lab, deadline=300)
    _link_speed(lab)
    _slow_link(lab)
    begin_load(server, WHERE, 5 * LINE, 80)
    said = ""
    while not server.run("cat /root/load.json").stdout:
        assert not _exposed(backup)
        said = said or next((s for s in product.resource(server)["sentences"] if "More is written" in s), "")
        time.sleep(2)
    load = end_of_load(server)
    assert load["bytes"] > 0.9 * 5 * LINE * 80, "the writer got what it wanted, five times what the line takes"
    assert "the server has gone ahead of the backup" in said
    # At rest: what is foretold after two looks is what comes.
    foretold: list[tuple[float, int]] = []

    def caught_up() -> bool:
        assert not _exposed(backup)
        seen = product.resource(server)
        pace = seen["pace"]
        if pace["eta_seconds"] is not None:
            foretold.append((time.monotonic(), pace["eta_seconds"]))
        return (seen["peer_disk"], seen["replication"]) == ("UpToDate", "Established")

    begun = time.monotonic()
    outstanding = product.resource(server)["out_of_sync_bytes"]
    server.wait_for("the backup has caught up", caught_up, 900)
    end = time.monotonic()
    print(f"{outstanding} bytes in {end - begun:.0f} s, {(end - begun) * LINE / outstanding:.2f} of the line's time")
    errors = [(round(eta), round(end - at - eta)) for at, eta in foretold]
    print("foretold and how much later it was:", errors)
    at, eta = next((at, eta) for at, eta in foretold if at > begun + TWO_LOOKS)
    assert abs(end - at - eta) <= 0.25 * (end - at)
    events = server.run("drbd-offsite events test_a").stdout
    assert "overload: More is written than the line takes" in events
    assert "caught-up: The backup has caught up" in events
    backup.wait_for("no restore point is left", lambda: "restore_point" not in backup.run("lvs").stdout, 120)
    assert product.checksum(server, product.VOLUME) == product.checksum(backup, product.VOLUME)


@pytest.mark.thorough
def test_a_first_sync_ends_under_an_overload_and_no_write_waits_after_it(lab: Lab) -> None:
    lab.enter(REPLICATING)
    server = lab.server
    policy = "drbdsetup show second | grep on-congestion"
    server.run("lvcreate -q -y -L 64M -n second local && mkfs.ext4 -q /dev/local/second")
    server.run("mount /dev/local/second /mnt && dd if=/dev/urandom of=/mnt/a bs=1M count=30 conv=fsync status=none")
    server.run("umount /mnt")
    _slow_link(lab)
    server.run("drbd-offsite add --no-wait /dev/local/second", timeout=600)
    server.wait_for("writes wait for the line", f"! {policy}", 90)
    server.run("mount /dev/drbd1 /mnt")
    begin_load(server, "/mnt", 2 * LINE, 900)
    server.wait_for("the first sync has ended", "grep -q '^ 1: .*ds:UpToDate/UpToDate' /proc/drbd", 800)
    assert server.run("pgrep -f '[l]oad.py'").stdout, "while the load went on"
    server.wait_for("no write waits any more", f"{policy} | grep pull-ahead", 150)
    assert "other network options" not in server.run("drbd-offsite doctor", check=False).stdout
    server.run("pkill -f '[l]oad.py'")


@pytest.mark.thorough
def test_who_wants_no_write_to_wait_in_a_first_sync_says_so_while_it_runs(lab: Lab) -> None:
    lab.enter(REPLICATING)
    server = lab.server
    policy = "drbdsetup show second | grep on-congestion"
    server.run("lvcreate -q -y -L 96M -n second local && mkfs.ext4 -q /dev/local/second")
    _slow_link(lab)
    server.run("mount /dev/local/second /mnt && dd if=/dev/urandom of=/mnt/a bs=1M count=60 conv=fsync status=none")
    server.run("umount /mnt")
    server.run("drbd-offsite add --no-wait /dev/local/second", timeout=600)
    server.wait_for("writes wait for the line", f"! {policy}", 90)
    assert "other network options" not in server.run("drbd-offsite doctor", check=False).stdout
    server.run(f"sed -i '/^\\[site\\]/a first_sync = pull-ahead' {CONF}")
    server.wait_for("they do not any more", f"{policy} | grep pull-ahead", 90)
