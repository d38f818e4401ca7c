"""Online verify: blocks that differ are found, recorded, sent and compared again, with no hand on the machines."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from . import product
from .stages import REPLICATING, VOLUME_MB

if TYPE_CHECKING:
    from collections.abc import Callable

    from .lab import Lab
    from .machine import Machine

BLOCK = 5000
"""Of 4 KiB; in the middle of the volume."""

LAST_BLOCKS = VOLUME_MB * 256 - 100

SECTOR = BLOCK * 8

SPOIL = "dd if=/dev/urandom of=/dev/local/test_a bs=4096 seek={} count={} conv=notrunc oflag=direct status=none"
"""Below DRBD, which knows nothing of it; direct, because DRBD reads past the page cache."""

FAILED, UNREACHABLE = 1, 4
A_VERIFY, A_REPAIR = 600.0, 240.0
"""Seconds. A repair takes as long as three full looks of the watcher, a resync and a short verify."""


def _events(machine: Machine, *kinds: str) -> list[dict[str, Any]]:
    lines = machine.run("drbd-offsite events --json test_a").stdout.splitlines()
    return [entry for entry in map(json.loads, lines) if entry["event"] in kinds]


def _remarks(lab: Lab) -> set[str]:
    return {hold["set_by"] for hold in product.resource(lab.server)["holds"]}


def _ranges(entry: dict[str, Any]) -> list[tuple[int, int]]:
    return [(found["start"], found["sectors"]) for found in entry.get("ranges", ())]


def _found(lab: Lab) -> list[dict[str, Any]]:
    """The finds with their sectors; the handler's own event, which comes first, has none."""
    return [entry for entry in _events(lab.server, "out-of-sync") if "ranges" in entry]


def _at_rest(lab: Lab) -> bool:
    seen = product.resource(lab.server)
    return (seen["connection"], seen["replication"], seen["out_of_sync_bytes"]) == ("Connected", "Established", 0)


def _no_remark(lab: Lab) -> Callable[[], bool]:
    return lambda: not _remarks(lab) and _at_rest(lab)


def _same(lab: Lab) -> bool:
    return product.checksum(lab.server, product.VOLUME) == product.checksum(lab.backup, product.VOLUME)


@pytest.mark.thorough
def test_equal_copies_are_found_equal(lab: Lab) -> None:
    lab.enter(REPLICATING)
    done = lab.server.run("drbd-offsite verify test_a", timeout=A_VERIFY)
    assert "are the same" in done.stdout
    assert [entry["event"] for entry in _events(lab.server, "verify-begun", "verify-clean", "out-of-sync")] == [
        "verify-begun",
        "verify-clean",
    ]
    assert not _remarks(lab)


def test_blocks_that_differ_are_recorded_sent_and_compared_again(lab: Lab) -> None:
    lab.enter(REPLICATING)
    good = product.checksum(lab.server, product.VOLUME)
    restore_points = len(_events(lab.backup, "before-resync-target"))
    lab.backup.run(SPOIL.format(BLOCK, 2))
    assert not _same(lab)
    done = lab.server.run("drbd-offsite verify test_a", check=False, timeout=A_VERIFY)
    assert done.returncode == FAILED, done.stdout + done.stderr
    assert "the copies differ" in done.stdout
    (found,) = _found(lab)
    assert found["marked_bytes"] == 2 * 4096
    assert all(start >= SECTOR and start + sectors <= SECTOR + 16 for start, sectors in _ranges(found)), found
    assert any("online verify found" in entry["text"] for entry in _events(lab.server, "remark"))
    lab.server.wait_for("it was sent", lambda: _events(lab.server, "repaired"), A_REPAIR)
    lab.server.wait_for("the remark is gone", _no_remark(lab), A_REPAIR)
    product.await_up_to_date(lab)
    assert product.checksum(lab.server, product.VOLUME) == good
    assert product.checksum(lab.backup, product.VOLUME) == good
    kinds = [entry["event"] for entry in _events(lab.server, "repair", "repaired", "verify-clean", "failed")]
    assert kinds == ["repair", "repaired", "verify-clean"]
    assert len(_events(lab.backup, "before-resync-target")) == restore_points + 1


@pytest.mark.thorough
def test_what_is_written_at_the_very_end_before_a_restart_reaches_the_backup(lab: Lab) -> None:
    """DRBD 8.4 forgets at every attach what differs in the last 256 KiB (plan/repair.py, TAIL_SECTORS)."""
    lab.enter(REPLICATING)
    server = lab.server
    lab.cut_link()
    server.wait_for("the line is known to be dead", "! grep -q cs:Connected /proc/drbd")
    server.run(f"dd if=/dev/urandom of={product.DEVICE} bs=4096 seek={VOLUME_MB * 256 - 1} count=1 oflag=direct")
    server.run("drbd-offsite down test_a && drbd-offsite up test_a")
    lab.mend_link()
    product.await_tunnel(lab)
    server.wait_for("the copies are the same", lambda: _same(lab), A_REPAIR)
    server.wait_for("nothing is left to say of it", _no_remark(lab), A_REPAIR)
    product.await_up_to_date(lab)


@pytest.mark.thorough
def test_a_verify_by_hand_has_the_same_consequences(lab: Lab) -> None:
    lab.enter(REPLICATING)
    lab.backup.run(SPOIL.format(BLOCK, 1))
    lab.server.run("drbdadm verify test_a", check=False)  # drbdadm waits 5 seconds; it begins all the same
    lab.server.wait_for("it was found", lambda: _found(lab), A_VERIFY)
    assert _ranges(_found(lab)[0]) == [(SECTOR, 8)]
    lab.server.wait_for("it was repaired", _no_remark(lab), A_REPAIR)
    assert _same(lab)


@pytest.mark.thorough
def test_a_block_that_differs_again_and_again_is_suspicious(lab: Lab) -> None:
    lab.enter(REPLICATING)
    # As a bad disk would: whatever is written there, it soon reads as something else.
    lab.backup.run(f"systemd-run --unit=bad-disk sh -c 'while sleep 0.5; do {SPOIL.format(BLOCK, 1)}; done'")
    lab.server.run("drbd-offsite verify test_a", check=False, timeout=A_VERIFY)
    lab.server.wait_for("it is suspicious", lambda: "suspicious" in _remarks(lab), 3 * A_REPAIR)
    assert [entry["ranges"][0]["seen"] for entry in _found(lab)] == [1, 2, 3]
    assert "smartctl" in lab.server.run("drbd-offsite status", check=False).stdout
    lab.backup.run("systemctl stop bad-disk")
    lab.server.wait_for("it was sent all the same", lambda: _at_rest(lab) and "out-of-sync" not in _remarks(lab), 240)
    begun = len(_events(lab.server, "verify-begun"))
    # The last write of the bad disk may have come after the last resync: then this verify finds it once more.
    lab.server.run("drbd-offsite verify test_a", check=False, timeout=A_VERIFY)
    lab.server.wait_for("nothing is marked", lambda: _at_rest(lab), A_REPAIR)
    assert len(_events(lab.server, "verify-begun")) == begun + 1, "by itself it is not compared any more"
    lab.server.run("drbd-offsite verify test_a", timeout=A_VERIFY)
    assert not _remarks(lab)
    assert _same(lab)


@pytest.mark.thorough
def test_a_verify_that_loses_its_connection_is_no_clean_one_and_goes_on(lab: Lab) -> None:
    lab.enter(REPLICATING)
    lab.backup.run(SPOIL.format(LAST_BLOCKS, 1))
    # Slow enough to be cut off in the middle.
    lab.server.run("drbdsetup disk-options 0 --c-max-rate=400k")
    lab.server.run("drbd-offsite verify --no-wait test_a")
    # What /proc/drbd shows of so small a volume is up to 8 MiB ahead.
    lab.server.wait_for("some is compared", "grep -Eq 'verified: *(1[2-9]|[2-9][0-9])[.]' /proc/drbd", A_VERIFY)
    lab.cut_link()
    lab.server.wait_for("it is broken off", lambda: _events(lab.server, "verify-broken-off"), A_REPAIR)
    assert not _events(lab.server, "verify-clean")
    lab.server.run("drbdsetup disk-options 0 --c-max-rate=9000k")
    lab.mend_link()
    lab.server.wait_for("it goes on to the end", lambda: _found(lab), A_VERIFY)
    begun = _events(lab.server, "verify-begun")
    assert [entry["start"] > 0 for entry in begun[:2]] == [False, True]
    lab.server.wait_for("it was repaired", _no_remark(lab), A_REPAIR)
    assert _same(lab)


@pytest.mark.thorough
def test_a_hold_of_a_person_keeps_the_repair_back(lab: Lab) -> None:
    lab.enter(REPLICATING)
    lab.backup.run(SPOIL.format(BLOCK, 1))
    lab.server.run("drbd-offsite hold test_a --reason 'the array is being rebuilt'")
    done = lab.server.run("drbd-offsite verify test_a", check=False, timeout=A_VERIFY)
    assert done.returncode == FAILED
    assert "out-of-sync" in _remarks(lab)
    # When it starts it looks at everything; nothing can be waited for, because nothing may happen.
    lab.server.run("systemctl restart drbd-offsite-watch")
    time.sleep(45)
    assert product.resource(lab.server)["connection"] == "Connected"
    assert not _events(lab.server, "repair")
    lab.server.run("drbd-offsite up test_a")
    lab.server.wait_for("it was repaired", _no_remark(lab), A_REPAIR)
    assert _same(lab)
