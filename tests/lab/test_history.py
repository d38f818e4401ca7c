"""What the server has acknowledged, and what of it is there after a failover: always a prefix.

``DRBD_OFFSITE_CUTS`` cuts (5) at random moments; ``DRBD_OFFSITE_SEED`` repeats those of an earlier run.
"""

from __future__ import annotations

import os
import random
import re
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from . import product
from .machine import DeadlinePassedError
from .test_failover import FAILOVER, IN_USE, WHERE, lose_the_server
from .test_healing import _fast_link, _slow_link
from .test_marks import await_mark

if TYPE_CHECKING:
    from .lab import Lab
    from .machine import Machine

CUTS = int(os.environ.get("DRBD_OFFSITE_CUTS", "5"))
SEED = int(os.environ.get("DRBD_OFFSITE_SEED", str(random.SystemRandom().randrange(10**6))))

GUEST = Path(__file__).with_name("history_guest.py")
LONGEST_SECONDS = 15.0
"""Of writing before a cut."""


@dataclass(frozen=True)
class Verdict:
    acknowledged: int
    present: int
    """Records 1 to this one; what comes after it is missing."""


def begin(machine: Machine) -> int:
    """Start to write; where the console is by then."""
    machine.copy_to(GUEST, "/root/history.py")
    start = machine.console.stat().st_size
    machine.run(f"rm -f /run/history-stop; setsid python3 /root/history.py write {WHERE} >/dev/null 2>&1 &")
    machine.wait_for("it writes", lambda: acknowledged(machine, start))
    return start


def acknowledged(machine: Machine, start: int) -> dict[int, float]:
    """The records that were said to be on the disk, and when (since the epoch). The last line may be half of one."""
    with machine.console.open("rb") as console:
        console.seek(start)
        text = console.read().decode(errors="replace")
    return {int(number): float(at) for number, at in re.findall(r"history (\d+) ([\d.]+)\r?\n", text)}


def stop(machine: Machine) -> None:
    machine.run("touch /run/history-stop")
    machine.wait_for("the writer has ended", "! pgrep -f '[h]istory.py'")


def judge(machine: Machine, said: int) -> Verdict:
    """Fail unless what is there is a prefix of what was written, and nothing of it is torn."""
    machine.copy_to(GUEST, "/root/history.py")
    lines = machine.run(f"python3 /root/history.py read {WHERE}").stdout.splitlines()
    assert not [line for line in lines if line.startswith("torn")], lines
    assert len(lines) <= 1, f"not a prefix: {lines}"
    low, high = map(int, lines[0].split()) if lines else (1, 0)
    assert low == 1, lines
    return Verdict(said, high)


def _idle(lab: Lab) -> None:
    del lab


def _saturated(lab: Lab) -> None:
    _slow_link(lab)
    lab.server.run(f"(while :; do dd if=/dev/urandom of={WHERE}/load bs=64k count=64 conv=fsync,notrunc status=none; "
                   "sleep 0.2; done) >/dev/null 2>&1 &")  # fmt: skip


def _ahead(lab: Lab) -> None:
    _slow_link(lab)
    lab.server.run(f"(while :; do dd if=/dev/urandom of={WHERE}/load bs=1M count=40 conv=fsync,notrunc status=none; "
                   "done) >/dev/null 2>&1 &")  # fmt: skip
    lab.server.wait_for("it is ahead", "grep -q cs:Ahead /proc/drbd", 150)


def _resync(lab: Lab) -> None:
    _slow_link(lab)
    lab.cut_link()
    lab.server.wait_for("the line is dead", "! grep -q cs:Connected /proc/drbd", 120)
    lab.server.run(f"dd if=/dev/urandom of={WHERE}/load bs=1M count=30 conv=fsync status=none")
    lab.mend_link()
    lab.backup.wait_for("the resync runs", "grep -q cs:SyncTarget /proc/drbd", 150)


def _grown(lab: Lab) -> None:
    lab.server.run("drbd-offsite grow test_a +16M", timeout=300)


MOMENTS = {
    "idle": _idle,
    "link saturated": _saturated,
    "ahead": _ahead,
    "in a resync": _resync,
    "right after grow": _grown,
}


def test_after_a_cut_the_backup_has_a_prefix_of_what_was_acknowledged(lab: Lab) -> None:
    chance = random.Random(SEED)
    print(f"DRBD_OFFSITE_SEED={SEED} DRBD_OFFSITE_CUTS={CUTS}", flush=True)
    names = list(MOMENTS)
    for number in range(CUTS):
        name = names[number % len(names)]
        seconds = chance.uniform(0.0, LONGEST_SECONDS)
        lab.enter(IN_USE)
        start = begin(lab.server)
        await_mark(lab)
        MOMENTS[name](lab)
        time.sleep(seconds)
        lab.server.power_off()
        said = acknowledged(lab.server, start)
        try:
            lose_the_server(lab)
            out = lab.backup.run(FAILOVER, timeout=600).stderr
            verdict = judge(lab.backup, max(said))
            claim = _claimed(out, said, verdict)
        except (AssertionError, DeadlinePassedError) as error:
            raise AssertionError(f"seed {SEED}, cut {number + 1}, {name}, after {seconds:.1f} s: {error}") from error
        missing = max(verdict.acknowledged - verdict.present, 0)
        print(f"cut {number + 1} ({name}, {seconds:.1f} s): {verdict.acknowledged} acknowledged, {missing} missing; "
              f"{claim}", flush=True)  # fmt: skip


def _claimed(out: str, said: dict[int, float], verdict: Verdict) -> str:
    """Up to when failover has said that it has everything. Fail if that is later than the first that is missing."""
    found = re.search(r"acknowledged before (\S+),", out)
    if found is None:
        return "up to when was not known"
    if verdict.present >= verdict.acknowledged:
        return f"said to be complete up to {found[1]}"
    early = said[verdict.present + 1] - datetime.fromisoformat(found[1]).timestamp()
    assert early >= 0, f"said to be complete up to {found[1]}, {-early:.1f} s later than it is"
    return f"said to be complete up to {found[1]}, {early:.1f} s before the first that is missing"


@pytest.mark.thorough
def test_a_switchover_loses_not_one_record(lab: Lab) -> None:
    lab.enter(IN_USE)
    server, backup = lab.machines
    start = begin(server)
    time.sleep(10)
    stop(server)
    said = max(acknowledged(server, start))
    server.run("drbd-offsite switchover --yes test_a", timeout=300)
    assert judge(backup, said) == Verdict(said, said)
    # And a busy one, whose writer is stopped with it.
    backup.run("drbd-offsite switchover --yes test_a", timeout=300)
    server.run(f"findmnt {WHERE} || mount {product.DEVICE} {WHERE}")
    _slow_link(lab)
    server.run(f"rm -f {WHERE}/history-*; sync")
    start = begin(server)
    server.run(f"dd if=/dev/urandom of={WHERE}/load bs=1M count=6 conv=fsync status=none")
    stop(server)
    said = max(acknowledged(server, start))
    server.run("drbd-offsite switchover --yes test_a", timeout=300)
    assert judge(backup, said) == Verdict(said, said)
    _fast_link(lab)
