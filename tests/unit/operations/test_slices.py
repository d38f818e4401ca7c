"""Slices, night by night, with a module that does what the real one does."""

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from drbd_offsite import files, host, journal
from drbd_offsite.errors import Refused, ToolFailed
from drbd_offsite.host import observe
from drbd_offsite.model import Flavour, Hours, Verification
from drbd_offsite.operations import repair, schedule, slices
from drbd_offsite.plan import slices as plan
from drbd_offsite.reconcile import reconcile
from drbd_offsite.remembered import Round
from drbd_offsite.tools import drbd_dump

from .. import make
from ..conftest import Answer, Programs
from .test_repair import BLOCKS, Killed, Pair, by_hand, remarks, told

ALWAYS = Hours.parse("mon-sun 00:00-24:00")
SITE = make.site(verify=Verification(4, ALWAYS, 20))
RESOURCE = SITE.resources["test_a"]
SHOWN = (Path(__file__).parents[2] / "data/adopt/show.txt").read_text()
QUARTER = BLOCKS * 8 // 4
"""Of the volume, in sectors: what one of four days compares."""


class Line(Pair):
    """With the limits that the kernel has, and a clock."""

    def __init__(self, programs: Programs) -> None:
        self.limit = "9155k"
        self.rates: list[str] = []
        """Limit of each verify that has begun."""
        self.now = datetime(2026, 11, 22, 1, tzinfo=UTC)
        super().__init__(programs)

    def answer(self, argv: tuple[str, ...], stdin: str) -> Answer | None:
        if argv == drbd_dump.RUNNING:
            return Answer(SHOWN.replace("9155k", self.limit))
        if argv[:2] == ("drbdsetup", "disk-options"):
            self.limit = next(word.partition("=")[2] for word in argv if word.startswith("--c-max-rate="))
            return Answer()
        return super().answer(argv, stdin)

    def verify(self, argv: tuple[str, ...]) -> None:
        self.rates.append(self.limit)
        super().verify(argv)

    def look(self) -> None:
        """What the watcher does at each full look, a minute after the last one."""
        self.now += timedelta(minutes=1)
        reconcile(SITE, ["test_a"], lambda _: None)
        seen = observe(SITE)
        schedule.keep(SITE, seen)
        repair.follow_up(SITE, seen)
        slices.follow_up(SITE, seen)

    def night(self) -> None:
        """A day of looks, in which every verify comes to its end."""
        for _ in range(12):
            self.look()
            if self.verifying:
                self.runs_to()
        self.now = self.now.replace(hour=1, minute=0) + timedelta(days=1)

    @property
    def known(self) -> Round:
        return observe(SITE).rounds["test_a"]


@pytest.fixture
def line(programs: Programs, root: Path, monkeypatch: pytest.MonkeyPatch) -> Line:
    host.PROC_DRBD.parent.mkdir(exist_ok=True)
    for volume in ("test_a", "drbd_meta"):
        path = root / f"dev/local/{volume}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    made = Line(programs)
    monkeypatch.setattr(journal, "now", lambda: made.now.isoformat(timespec="seconds"))
    monkeypatch.setattr(repair.time, "sleep", lambda _: None)
    return made


def test_in_so_many_nights_all_of_the_volume_is_compared(line: Line) -> None:
    for _ in range(4):
        line.night()
    assert line.changes == [
        f"drbdadm -- --start=0 --stop={QUARTER} verify test_a",
        f"drbdadm -- --start={QUARTER} --stop={2 * QUARTER} verify test_a",
        f"drbdadm -- --start={2 * QUARTER} --stop={3 * QUARTER} verify test_a",
        f"drbdadm -- --start={3 * QUARTER} verify test_a",
    ]
    assert line.known.ended is not None
    assert told() == ["verify-round"], "and no word of each slice"
    line.night()
    assert line.changes[-1] == f"drbdadm -- --start=0 --stop={QUARTER} verify test_a"


def test_a_slice_has_its_rate_from_its_first_sector_on_and_a_resync_has_its_own_again(line: Line) -> None:
    line.look()
    line.look()
    assert line.verifying
    assert line.rates == [line.limit] == ["20480k"]
    line.look()
    assert line.limit == "20480k"
    line.runs_to()
    line.look()
    assert line.limit == "12207k"


def test_what_a_slice_has_found_is_told_sent_and_compared_again(line: Line) -> None:
    line.differing = {100}
    line.look()
    line.look()
    line.runs_to()
    line.look()
    assert remarks() == {"out-of-sync"}
    assert line.known.covered == QUARTER
    line.night()
    assert (line.differing, remarks()) == (set(), set())
    assert line.changes[1:] == [
        "drbdadm disconnect test_a",
        "drbdadm connect test_a",
        "drbdadm -- --start=800 --stop=808 verify test_a",
    ]
    assert {"out-of-sync", "remark", "repair", "repaired"} <= set(told())


def test_between_two_slices_whoever_waits_has_a_turn(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "MIB_SECTORS", 1)
    line.look()
    line.look()
    line.runs_to()
    line.look()
    assert not line.verifying
    assert repair.settled("test_a")
    line.look()
    assert line.verifying


def test_a_person_s_comparison_is_refused_for_some_minutes(line: Line) -> None:
    line.look()
    line.look()
    with pytest.raises(Refused, match="over in a few minutes"):
        repair.begin(SITE, RESOURCE)
    line.runs_to()
    line.look()
    assert repair.begin(SITE, RESOURCE)
    assert line.known.covered == QUARTER, "which has nothing to do with the round"
    line.runs_to()
    line.look()
    assert line.known.covered == QUARTER


def test_a_slice_that_loses_its_connection_is_begun_anew_later(line: Line) -> None:
    line.look()
    line.look()
    line.runs_to(300)
    line.disconnect()
    line.publish()
    line.look()
    assert line.known.covered == 0
    assert told("verify-broken-off") == [
        "A slice from sector 0 on was broken off; it is begun anew in the hours of [verify]."
    ]
    assert repair.settled("test_a"), "nobody has to wait for it"
    line.night()
    assert line.changes[-1] == f"drbdadm -- --start=0 --stop={QUARTER} verify test_a"
    assert line.known.covered == QUARTER


def test_one_that_cannot_be_begun_is_tried_later_each_time(line: Line) -> None:
    line.refuse = {"verify"}
    line.look()
    for _ in range(2):
        with pytest.raises(ToolFailed, match="could not be started"):
            line.look()
    line.look()
    assert len(line.changes) == 2
    line.refuse = set()
    line.night()
    assert line.known.covered == QUARTER


def test_another_command_at_work_is_not_waited_for(line: Line) -> None:
    line.look()
    with files.lock("resource-test_a", 0.0):
        line.look()
    assert line.changes == []


def test_what_differs_comes_first(line: Line) -> None:
    line.look()
    line.differing = {3000}
    by_hand(line)
    line.look()
    assert line.changes == ["drbdadm disconnect test_a", "drbdadm connect test_a"]
    line.look()
    assert re.search("start=24000 --stop=24008", line.changes[-1])


def test_with_zero_days_nothing_is_compared_nor_remembered(line: Line) -> None:
    line.look()
    assert plan.KIND in {path.name for path in journal.STATE.iterdir()}
    never = replace(SITE, verify=replace(SITE.verify, days=0))
    for _ in range(3):
        slices.follow_up(never, observe(never))
    assert line.changes == []
    assert journal.remembered(plan.KIND) == {}


def test_what_is_removed_leaves_nothing_and_a_backup_waits_for_no_rounds(line: Line) -> None:
    line.look()
    gone = make.site(resources=())
    slices.follow_up(gone, observe(gone))
    assert journal.remembered(plan.KIND) == {}
    backup = make.site(Flavour.BACKUP)
    slices.follow_up(backup, observe(backup))
    assert journal.remembered(plan.KIND) == {}
    journal.remember(host.SERVING, "test_a", {})
    slices.follow_up(backup, observe(backup))
    assert set(journal.remembered(plan.KIND)) == {"test_a"}


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("at", range(1, 5))
def test_killed_anywhere_it_goes_on(line: Line, at: int, before: bool) -> None:
    line.differing = {100}
    line.kill_at = at if before else -at
    for _ in range(8):
        try:
            line.night()
        except Killed:
            line.kill_at = None
    assert line.kill_at is None, "there are so many commands"
    assert line.known.ended is not None
    assert (line.differing, remarks()) == (set(), set())


@pytest.mark.parametrize(
    ("what", "at"), [*(("remember", at) for at in range(1, 13)), *(("record", at) for at in range(1, 8))]
)
def test_killed_between_any_two_notes_it_goes_on(
    line: Line, what: str, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    line.differing = {100}
    really: Callable[..., None] = getattr(journal, what)
    left = at

    def noting(*words: object, **details: object) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise Killed
        really(*words, **details)

    monkeypatch.setattr(journal, what, noting)
    for _ in range(8):
        with suppress(Killed):
            line.night()
    assert left < 0
    assert line.known.ended is not None
    assert (line.differing, remarks()) == (set(), set())
