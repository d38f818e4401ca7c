"""Which slice is due, night by night; simulated with a line that does what it is told, and with one that does not."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drbd_offsite.model import Flavour, Hours, Site, Verification
from drbd_offsite.observed import ConnectionState, DiskState, DrbdResource, Host, ReplicationState, Role
from drbd_offsite.plan import slices
from drbd_offsite.plan.findings import BLOCK_SECTORS, Cause, Check, Outcome
from drbd_offsite.plan.slices import Slice
from drbd_offsite.remembered import Round

from .. import make

NIGHTLY = Verification(30, Hours.parse("mon-sun 01:00-05:00"), 20)
ONE = datetime(2026, 11, 23, 1, tzinfo=UTC)
"""On a Monday."""
A_DAY = timedelta(days=1)
END = make.GIB // 512
"""Of the volume of `make.seen`."""
MIB = 2048
NEW = Round(ONE - A_DAY)


def host(known: Round = NEW, seen: DrbdResource | None = None, **changes: object) -> Host:
    return make.host(**{"drbd": [seen or make.seen()], "rounds": {"test_a": known}, **changes})


def due(known: Round = NEW, at: datetime = ONE, verify: Verification = NIGHTLY, **changes: object) -> Slice | None:
    return slices.due(make.site(verify=verify), host(known, **changes), "backup", {"test_a"}, at)  # type: ignore[arg-type]


def of_size(mebibytes: int, name: str = "test_a", minor: int = 0) -> DrbdResource:
    seen = make.seen(name, minor=minor)
    return replace(seen, volumes=(replace(seen.volumes[0], size_bytes=mebibytes * make.MIB),))


def compared(piece: Slice, at: datetime) -> Round:
    """After a slice that was compared as it was meant."""
    check = Check("", piece.start, piece.stop, cause=Cause.SLICE, reached=piece.stop)
    return slices.after(piece.round, check, Outcome.EQUAL, at)


def night(known: Round, begin: datetime, seen: DrbdResource, verify: Verification = NIGHTLY) -> Round:
    """What all looks of one night's hours make of a round; the next slice begins a minute after the last one."""
    at = begin
    while at < begin + timedelta(hours=5):
        piece = due(known, at, verify, seen=seen)
        if piece is not None:
            at += timedelta(seconds=(piece.stop - piece.start) / MIB / verify.rate)
            known = compared(piece, at)
        if slices.whole(known, seen):
            known = slices.ended(known, at)
        at += timedelta(minutes=1)
    return known


# -- how much, and when ------------------------------------------------------------------------------


def test_a_night_compares_its_share_of_the_volume() -> None:
    piece = due()
    assert piece is not None
    assert (piece.resource, piece.start) == ("test_a", 0)
    assert 0 <= piece.stop - END / 30 < BLOCK_SECTORS
    known = compared(piece, ONE)
    assert due(known, ONE + timedelta(minutes=5)) is None, "enough for tonight"
    following = due(known, ONE + A_DAY)
    assert following is not None
    assert (following.start, following.stop) == (piece.stop, -(-END * 2 // 30 // 8) * 8)


def test_each_volume_is_covered_once_in_so_many_days_and_then_again() -> None:
    known, ends = NEW, []
    for number in range(61):
        before, known = known, night(known, ONE + A_DAY * number, make.seen())
        if known.ended != before.ended:
            ends.append(number)
    assert ends == [29, 59]


@pytest.mark.parametrize(
    ("hours", "days", "nights"),
    [("mon-sun 01:00-05:00", 1, 1), ("mon 01:00-05:00", 30, 5), ("mon-sun 00:00-24:00", 7, 7)],
)
def test_few_days_or_few_hours_mean_more_at_a_time(hours: str, days: int, nights: int) -> None:
    verify, known = Verification(days, Hours.parse(hours), 20), NEW
    midnight = ONE.replace(hour=0)
    worked = 0
    for number in range(40):
        begin = midnight + A_DAY * number + timedelta(hours=0 if "24:00" in hours else 1)
        after = night(known, begin, make.seen(), verify)
        worked += after != known
        known = after
        if known.ended is not None:
            break
    assert worked == nights


def test_missed_nights_are_made_up() -> None:
    known = night(NEW, ONE, make.seen())
    piece = due(known, ONE + A_DAY * 9)
    assert piece is not None
    assert piece.stop == -(-END * 10 // 30 // 8) * 8


def test_a_slice_is_no_longer_than_the_hours_nor_than_whoever_waits_for_it_does() -> None:
    large = of_size(10 * 2**20)
    piece = due(seen=large)
    assert piece is not None
    assert piece.stop == slices.LONGEST.seconds * 20 * MIB
    piece = due(seen=large, at=ONE + timedelta(hours=3, minutes=59))
    assert piece is not None
    assert piece.stop == 60 * 20 * MIB
    assert due(seen=large, at=ONE + timedelta(hours=4)) is None
    assert due(seen=large, at=ONE - timedelta(minutes=1)) is None


def test_a_volume_that_its_hours_are_too_short_for_is_compared_all_the_same_and_takes_longer() -> None:
    large, known = of_size(10 * 2**20), NEW
    for number in range(30):
        known = night(known, ONE + A_DAY * number, large)
    assert 0.5 < slices.share(known, large) / 100 < 1


def test_zero_days_are_never() -> None:
    assert due(verify=replace(NIGHTLY, days=0)) is None


def test_the_volume_farthest_behind_comes_first() -> None:
    site = make.site(resources=("test_a", "test_b"))
    drbd = [make.seen(), make.seen("test_b", minor=1)]
    rounds = {"test_a": replace(NEW, since=ONE, covered=8), "test_b": replace(NEW, since=ONE - A_DAY, covered=8)}
    seen = make.host(drbd=drbd, rounds=rounds)
    piece = slices.due(site, seen, "backup", {"test_a", "test_b"}, ONE)
    assert piece is not None
    assert piece.resource == "test_b"
    assert slices.due(site, seen, "elsewhere", {"test_a", "test_b"}, ONE) is None


# -- when not ----------------------------------------------------------------------------------------

AT_WORK = sorted({*ReplicationState} - {ReplicationState.ESTABLISHED, ReplicationState.OFF})


@pytest.mark.parametrize("state", AT_WORK)
def test_never_while_anything_of_that_peer_is_at_work(state: ReplicationState) -> None:
    site = make.site(resources=("test_a", "test_b"))
    other = make.seen("test_b", minor=1, replication=state)
    seen = make.host(drbd=[make.seen(), other], rounds={"test_a": NEW})
    assert slices.due(site, seen, "backup", {"test_a"}, ONE) is None


def test_another_resource_that_is_away_takes_no_line() -> None:
    site = make.site(resources=("test_a", "test_b"))
    other = make.seen("test_b", minor=1, state=ConnectionState.CONNECTING, replication=ReplicationState.OFF)
    seen = make.host(drbd=[make.seen(), other], rounds={"test_a": NEW})
    assert slices.due(site, seen, "backup", {"test_a"}, ONE) is not None


@pytest.mark.parametrize(
    "changes",
    [
        {"seen": make.seen(role=Role.SECONDARY)},
        {"seen": make.seen(state=None)},
        {"operations": {"grow-test_a": make.operation("grow", {})}},
        {"rounds": {}},
        {"drbd": []},
    ],
)
def test_only_what_is_served_from_here_and_at_rest(changes: dict[str, object]) -> None:
    assert due(**changes) is None  # type: ignore[arg-type]


def test_what_has_to_be_repaired_or_is_held_is_left_alone() -> None:
    assert slices.due(make.site(verify=NIGHTLY), host(), "backup", frozenset(), ONE) is None


# -- broken off --------------------------------------------------------------------------------------


def broken_off(known: Round, at: datetime) -> Round:
    piece = due(known, at, seen=of_size(2**20))
    assert piece is not None
    check = Check("", piece.start, piece.stop, cause=Cause.SLICE, reached=piece.stop - 8)
    return slices.after(piece.round, check, Outcome.BROKEN_OFF, at)


def test_a_slice_that_was_broken_off_counts_for_nothing_and_is_begun_anew_shorter_each_time() -> None:
    large = of_size(2**20)
    first = due(seen=large)
    known = broken_off(NEW, ONE)
    assert due(known, ONE + timedelta(seconds=59), seen=large) is None
    again = due(known, ONE + timedelta(minutes=1), seen=large)
    assert first is not None
    assert again is not None
    assert (again.start, again.stop) == (0, first.stop // 2)
    known = broken_off(known, ONE + timedelta(minutes=1))
    assert due(known, ONE + timedelta(minutes=2), seen=large) is None, "it may be the verify that breaks the line"
    again = due(known, ONE + timedelta(minutes=3), seen=large)
    assert again is not None
    known = compared(again, ONE)
    assert (known.covered, known.broken_off) == (again.stop, 0)


@given(st.integers(1, 5000))
def test_however_often_it_was_broken_off_it_is_tried_again(times: int) -> None:
    known = replace(NEW, broken_off=times, broken_off_at=ONE - A_DAY)
    piece = due(known, seen=of_size(2**20), verify=replace(NIGHTLY, rate=1))
    assert piece is not None
    assert piece.stop >= 8 * MIB


def test_what_was_stopped_by_somebody_is_gone_on_with() -> None:
    piece = due()
    assert piece is not None
    check = Check("", piece.start, piece.stop, cause=Cause.SLICE, reached=800)
    assert slices.after(piece.round, check, Outcome.STOPPED, ONE).covered == 800


def test_a_slice_of_a_round_that_is_over_moves_nothing() -> None:
    check = Check("", 800, 1600, cause=Cause.SLICE, reached=1600)
    assert slices.after(NEW, check, Outcome.EQUAL, ONE).covered == 0


# -- volumes and clocks that change ------------------------------------------------------------------

HALFWAY = replace(NEW, since=ONE - A_DAY * 15, covered=END // 2)


def test_a_volume_that_has_grown_is_gone_on_with_to_its_new_end() -> None:
    piece = due(replace(HALFWAY, since=ONE - A_DAY * 60), seen=of_size(2048))
    assert piece is not None
    assert (piece.start, piece.stop, piece.last) == (END // 2, 2 * END, True)


def test_of_a_volume_that_has_shrunk_all_that_is_left_was_compared() -> None:
    small = of_size(256)
    assert due(HALFWAY, seen=small) is None
    assert slices.whole(HALFWAY, small)
    known = slices.ended(HALFWAY, ONE)
    assert (known.covered, known.since, known.ended) == (0, None, ONE)


def test_of_a_volume_without_a_size_nothing_is_known() -> None:
    assert due(seen=of_size(0)) is None
    assert not slices.whole(HALFWAY, of_size(0))
    assert not slices.whole(HALFWAY, None)


def test_the_last_block_of_a_volume_may_be_a_part_of_one() -> None:
    seen = of_size(1)
    seen = replace(seen, volumes=(replace(seen.volumes[0], size_bytes=make.MIB + 512),))
    piece = due(replace(NEW, since=ONE - A_DAY * 60), seen=seen)
    assert piece is not None
    assert (piece.stop, piece.last) == (MIB + 8, True)


@pytest.mark.parametrize("jump", [-A_DAY * 20000, -timedelta(hours=30), A_DAY * 3, A_DAY * 20000])
def test_a_clock_that_jumps_costs_no_round(jump: timedelta) -> None:
    known = night(HALFWAY, ONE + jump, make.seen())
    assert known.covered >= HALFWAY.covered or known.ended is not None
    for number in range(1, 35):
        known = night(known, ONE + A_DAY * number, make.seen())
    assert known.ended is not None
    assert ONE < known.ended < ONE + A_DAY * 36


# -- what is kept and told ---------------------------------------------------------------------------

INSTANTS = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1)).map(  # noqa: DTZ001
    lambda at: at.replace(microsecond=0, tzinfo=UTC)
)
ROUNDS = st.builds(
    Round,
    first=INSTANTS,
    since=st.none() | INSTANTS,
    covered=st.integers(0, 2**33).map(lambda blocks: blocks * BLOCK_SECTORS),
    ended=st.none() | INSTANTS,
    broken_off=st.just(0),
)
SIZES = st.integers(0, 2**44).map(lambda size: size // 512 * 512)


@given(ROUNDS, INSTANTS)
def test_what_is_kept_is_what_was_known(known: Round, now: datetime) -> None:
    found = slices.from_entry(slices.as_entry(known), now)
    assert found is not None
    assert replace(found, unproven_seconds=0.0) == known
    assert found.unproven_seconds >= 0


@pytest.mark.parametrize("changes", [{"first": ""}, {"first": 1}, {"since": "in May"}, {"covered": "x"}])
def test_a_file_that_says_nothing_is_nothing_known(changes: dict[str, object]) -> None:
    assert slices.from_entry(slices.as_entry(NEW) | changes, ONE) is None


@given(ROUNDS, SIZES, INSTANTS)
def test_a_slice_is_always_of_whole_blocks_of_the_volume(known: Round, size: int, at: datetime) -> None:
    seen = of_size(1)
    seen = replace(seen, volumes=(replace(seen.volumes[0], size_bytes=size),))
    piece = due(known, at.replace(hour=3), seen=seen)
    if piece is not None:
        assert piece.start == known.covered < piece.stop < size / 512 + BLOCK_SECTORS
        assert piece.stop % BLOCK_SECTORS == 0
        assert piece.last == (piece.stop * 512 >= size)


def look(known: Round, seen: DrbdResource | None = None, days: int = 30) -> tuple[Site, Host]:
    return make.site(verify=replace(NIGHTLY, days=days)), host(known, seen)


def test_a_round_is_overdue_after_twice_its_days() -> None:
    late = replace(HALFWAY, unproven_seconds=61 * 86400.0)
    (trouble,) = slices.troubles(*look(late), "test_a")
    assert "for 61 days; 30 are intended" in trouble.happened
    assert "50 % since" in trouble.happened
    assert "drbd-offsite verify test_a" in trouble.to_do
    for site, seen in (
        look(replace(late, unproven_seconds=59 * 86400.0)),
        look(late, days=0),
        look(late, make.seen(role=Role.SECONDARY)),
    ):
        assert not list(slices.troubles(site, seen, "test_a"))


def test_an_end_that_is_still_to_come_proves_nothing() -> None:
    entry = slices.as_entry(replace(NEW, ended=ONE + A_DAY * 5000))
    found = slices.from_entry(entry, ONE + A_DAY * 99)
    assert found is not None
    assert found.unproven_seconds == 100 * 86400


def test_a_person_is_told_how_far_it_is() -> None:
    assert slices.describe(HALFWAY, make.seen()) == (
        "50 % since 2026-11-08T01:00:00+00:00; no whole round has ended yet"
    )
    assert slices.describe(slices.ended(HALFWAY, ONE), make.seen()) == (
        "the next slice is compared in the hours of [verify]; the last whole round ended at 2026-11-23T01:00:00+00:00"
    )


def test_the_machine_that_serves_compares() -> None:
    site = make.site(Flavour.BACKUP, verify=NIGHTLY)
    seen = make.host(Flavour.BACKUP, drbd=[make.seen(peer_disk=DiskState.UP_TO_DATE)], rounds={"test_a": NEW})
    assert slices.due(site, seen, "server", {"test_a"}, ONE) is not None
