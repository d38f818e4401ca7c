"""How far a copy is behind, and when it will have caught up."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drbd_offsite.model import Flavour, Site
from drbd_offsite.observed import ConnectionState, DiskState, DrbdResource, Host, Progress, ReplicationState, Role
from drbd_offsite.plan import pace
from drbd_offsite.plan.pace import Notes, Pace, Verdict
from drbd_offsite.remembered import Averages, Overload, Rates
from drbd_offsite.tools.rrdtool import Sample

from .. import make
from .test_circle import FLAVOURS, hosts

SITE = make.site()
SYNCING = {"replication": ReplicationState.SYNC_SOURCE, "peer_disk": DiskState.INCONSISTENT}
AHEAD = {"replication": ReplicationState.AHEAD, "peer_disk": DiskState.CONSISTENT}
AWAY = {"state": ConnectionState.CONNECTING, "peer_disk": DiskState.UNKNOWN, "replication": ReplicationState.OFF}
MIB, GIB = make.MIB, make.GIB


def found(seen: DrbdResource, rates: Rates | None = None, site: Site = SITE, **changes: object) -> Pace:
    host = make.host(drbd=[seen], rates={} if rates is None else {seen.name: rates}, **changes)
    result = pace.pace(site, host, site.resources[seen.name])
    assert result is not None
    return result


# -- verdicts ------------------------------------------------------------------------------------------


def test_what_lacks_nothing_is_up_to_date() -> None:
    assert found(make.seen(), ages={"test_a": 11.0}).sentence == "The copy is up to date."
    assert found(make.seen()).verdict is Verdict.UP_TO_DATE


def test_what_was_not_confirmed_for_a_while_is_said_to_be_so_old() -> None:
    result = found(make.seen(), ages={"test_a": 300.0})
    assert result.verdict is Verdict.KEEPING_PACE
    assert result.sentence == "What is written is sent at once. The copy has everything up to 5 min ago."


def test_blocks_that_differ_are_not_behind() -> None:
    result = found(make.seen(out_of_sync_bytes=4096))
    assert result.verdict is Verdict.KEEPING_PACE
    assert "4.0 KiB that differ" in result.sentence


def test_a_resync_has_an_end_when_two_looks_show_how_fast_it_goes() -> None:
    seen = make.seen(out_of_sync_bytes=GIB, **SYNCING)
    assert found(seen).sentence == "Catching up: 1.0 GiB left; how long that takes is not known yet."
    result = found(seen, Rates(drained=MIB), ages={"test_a": 7500.0})
    assert (result.verdict, result.eta) == (Verdict.CATCHING_UP, 1024)
    assert result.sentence == (
        "Catching up: 1.0 GiB left, 1.0 MiB/s, about 17 min to go. The copy has everything up to 2 h 5 min ago."
    )


def test_a_resync_that_is_given_up_again_and_again_catches_nothing_up() -> None:
    overloads = {"test_a": Overload("2026-11-22T12:00:00+00:00", 3, "2026-11-22T12:02:00+00:00")}
    result = found(make.seen(out_of_sync_bytes=GIB, **SYNCING), overloads=overloads)
    assert result.verdict is Verdict.FALLING_BEHIND
    assert result.sentence.startswith("Falling behind: 1.0 GiB outstanding")


@pytest.mark.parametrize(("kernel", "said"), [(None, False), (1000, False), (1900, False), (2100, True), (400, True)])
def test_the_kernel_s_own_estimate_is_said_where_it_is_another_one(kernel: int | None, said: bool) -> None:
    seen = make.seen(out_of_sync_bytes=GIB, **SYNCING)
    result = found(seen, Rates(drained=MIB), progress={0: Progress(10.0, MIB, kernel)})
    assert result.eta == 1024
    assert ("kernel" in result.sentence) is said


@pytest.mark.parametrize("replication", sorted(pace._QUEUED))
def test_a_resync_that_waits_for_another_has_no_end_yet(replication: ReplicationState) -> None:
    seen = make.seen(out_of_sync_bytes=GIB, replication=replication)
    for drained in (None, -5.0, 0.0, 5.0):
        result = found(seen, Rates(drained=drained))
        assert (result.verdict, result.eta) == (Verdict.CATCHING_UP, None)


@pytest.mark.parametrize(("drained", "words"), [(None, "not getting less"), (0.0, "not getting less")])
def test_a_line_that_is_too_slow_falls_behind(drained: float | None, words: str) -> None:
    result = found(make.seen(out_of_sync_bytes=GIB, **AHEAD), Rates(drained=drained))
    assert (result.verdict, result.eta) == (Verdict.FALLING_BEHIND, None)
    assert result.sentence == f"Falling behind: 1.0 GiB outstanding, {words}."


def test_a_line_between_being_too_slow_and_catching_up_is_judged_by_what_has_become_of_it() -> None:
    falling = found(make.seen(out_of_sync_bytes=GIB, **SYNCING), Rates(drained=-2.0 * MIB))
    assert falling.sentence == "Falling behind: 1.0 GiB outstanding, 2.0 MiB/s more."
    assert found(make.seen(out_of_sync_bytes=GIB, **AHEAD), Rates(drained=1.0)).verdict is Verdict.CATCHING_UP


def test_more_than_the_line_carries_is_never_caught_up_with() -> None:
    """It carries 100 Mbit/s by the configuration, which are 11.9 MiB/s."""
    rates = Rates(Averages(written_day=13_000_000.0), drained=-1.0)
    result = found(make.seen(out_of_sync_bytes=GIB, **AHEAD), rates)
    assert result.verdict is Verdict.NEVER
    assert result.sentence == (
        "It will never catch up at this rate: 12.4 MiB/s were written over the last day, and the line carries "
        "11.9 MiB/s."
    )
    less = replace(rates, averages=Averages(written_day=12_000_000.0))
    assert found(make.seen(out_of_sync_bytes=GIB, **AHEAD), less).verdict is Verdict.FALLING_BEHIND


def test_a_line_that_is_slower_than_the_configuration_says_shows_it() -> None:
    rates = Rates(Averages(written_day=3.0 * MIB, carried=2.0 * MIB), drained=-1.0)
    result = found(make.seen(out_of_sync_bytes=GIB, **AHEAD), rates)
    assert result.verdict is Verdict.NEVER
    assert "3.0 MiB/s were written over the last day, and the line carries 2.0 MiB/s." in result.sentence


def test_what_gets_less_now_is_not_given_up() -> None:
    rates = Rates(Averages(written_day=13_000_000.0), drained=1.0)
    assert found(make.seen(out_of_sync_bytes=GIB, **SYNCING), rates).verdict is Verdict.CATCHING_UP


def test_all_that_share_a_line_are_written_over_it() -> None:
    site = make.site(resources=("test_a", "test_b"))
    seen = make.seen(out_of_sync_bytes=GIB, **AHEAD)
    each = Rates(Averages(written_day=7_000_000.0), drained=-1.0)
    host = make.host(drbd=[seen], rates={"test_a": each, "test_b": each, "gone": each})
    result = pace.pace(site, host, site.resources["test_a"])
    assert result is not None
    assert result.verdict is Verdict.NEVER
    assert found(seen, each).verdict is Verdict.FALLING_BEHIND


@pytest.mark.parametrize(
    ("changes", "drained", "words"),
    [
        ({"out_of_sync_bytes": GIB}, -1.0 * MIB, "1.0 GiB outstanding, 1.0 MiB/s more."),
        ({"out_of_sync_bytes": GIB}, 0.0, "1.0 GiB outstanding, not getting less."),
        ({"out_of_sync_bytes": GIB}, None, "1.0 GiB outstanding, not getting less."),
        ({}, 0.0, "nothing is outstanding."),
        ({"role": Role.SECONDARY}, None, "what is outstanding is known where it is written."),
    ],
)
def test_without_a_connection_it_gets_more(changes: dict[str, object], drained: float | None, words: str) -> None:
    result = found(make.seen(**AWAY, **changes), Rates(drained=drained))
    assert (result.verdict, result.eta) == (Verdict.NOT_CONNECTED, None)
    assert result.sentence == f"Not connected: {words}"


def test_what_is_not_up_has_no_pace() -> None:
    assert pace.pace(SITE, make.host(), SITE.resources["test_a"]) is None
    assert found(make.seen(state=None)).verdict is Verdict.NOT_CONNECTED


@given(FLAVOURS, hosts(), st.none() | st.integers(-(2**40), 2**40).map(float), st.none() | st.floats(0, 1e9))
def test_whatever_is_seen_has_a_sentence(
    flavour: Flavour, host: Host, drained: float | None, age: float | None
) -> None:
    site = make.site(flavour)
    rates = {"test_a": Rates(Averages(written_day=1e12), drained)}
    host = replace(host, rates=rates, ages={} if age is None else {"test_a": age})
    result = pace.pace(site, host, site.resources["test_a"])
    assert (result is None) is ("test_a" not in host.drbd)
    if result is not None:
        assert result.sentence.endswith(".")
        assert result.eta is None or result.eta >= 0
        assert result.eta is None or result.verdict is Verdict.CATCHING_UP


# -- the time that is left -----------------------------------------------------------------------------

BYTES = st.integers(0, 2**50)
SPEED = st.integers(1, 2**33)


@given(st.integers(1, 2**40), st.integers(1, 2**20), st.integers(0, 2**20), st.integers(1, 5))
def test_it_takes_as_long_as_it_takes(left: int, line: int, written: int, looks: int) -> None:
    """A line and a rate of writes that stay the same, one second after the other."""
    left %= 500 * line
    if written >= line:
        assert pace.time_left(left, float(line - written)) is None
        return
    fall = line - written
    seen = tuple((60.0 * look, left + (looks - look) * 60 * fall) for look in range(looks + 1))
    seconds, rest = 0, left
    while rest > 0 and seconds < 3000:
        rest, seconds = rest - line + written, seconds + 1
    if rest <= 0:
        assert pace.time_left(left, pace.drained(seen)) == seconds


@given(BYTES, BYTES, st.floats(min_value=1e-3, max_value=1e12))
def test_more_takes_longer(less: int, more: int, drained: float) -> None:
    first, second = (pace.time_left(each, drained) for each in sorted((less, more)))
    assert first is not None
    assert second is not None
    assert 0 <= first <= second


@given(BYTES, st.floats(max_value=0.0, allow_nan=False))
def test_what_does_not_get_less_has_no_end(outstanding: int, drained: float) -> None:
    assert pace.time_left(outstanding, drained) is None
    assert pace.time_left(None, 1.0) is None
    assert pace.time_left(outstanding, None) is None


# -- notes ---------------------------------------------------------------------------------------------


def after(*looks: tuple[float, DrbdResource]) -> Notes:
    notes: Notes | None = None
    for at, seen in looks:
        notes = pace.noted(notes, seen, at)
    assert notes is not None
    return notes


def test_looks_show_how_fast_it_goes() -> None:
    syncing = [make.seen(out_of_sync_bytes=(10 - minute) * 60 * MIB, **SYNCING) for minute in range(10)]
    notes = after(*((60.0 * minute, seen) for minute, seen in enumerate(syncing)))
    assert len(notes.looks) == 6, "those of five minutes"
    assert pace.drained(notes.looks) == MIB
    assert pace.drained(notes.looks[:1]) is None
    assert pace.drained([(60.0, 5), (60.0, 4)]) is None


def test_a_resync_after_an_overload_is_told_by_what_it_does_since_then() -> None:
    left = (500, 600, 540, 480)
    notes = None
    for minute, amount in enumerate(left):
        seen = make.seen(out_of_sync_bytes=amount * MIB, **SYNCING)
        notes = pace.noted(notes, seen, 60.0 * minute, turned=50.0)
        if minute == 1:
            assert len(notes.looks) == 2, "one look at a resync says nothing yet"
    assert notes is not None
    assert pace.drained(notes.looks) == MIB


def test_a_connection_that_comes_or_goes_and_a_clock_that_is_set_back_begin_anew() -> None:
    away, back = make.seen(out_of_sync_bytes=GIB, **AWAY), make.seen(out_of_sync_bytes=GIB, **SYNCING)
    assert after((0.0, away), (60.0, away), (120.0, back)).looks == ((120.0, GIB),)
    assert after((60.0, back), (0.0, back)).looks == ((0.0, GIB),)
    assert after((0.0, make.seen(role=Role.SECONDARY, **AWAY))).looks == ()


COUNTED = make.seen(sent_bytes=30, received_bytes=4)
COUNTED = replace(COUNTED, volumes=(replace(COUNTED.volumes[0], written_bytes=200),))


def test_a_sample_is_of_what_is_written_here_and_sent() -> None:
    notes = after((0.0, COUNTED))
    assert pace.sample(notes, COUNTED, 12.0) == Sample(200, 30, 0, 12.0)
    assert pace.sample(None, COUNTED, None) == Sample(200, None, 0, None)


def test_what_the_other_machine_writes_is_received() -> None:
    behind = replace(COUNTED, role=Role.SECONDARY)
    assert pace.sample(after((0.0, behind)), behind, None) == Sample(None, 4, 0, None)


def test_what_was_received_and_what_is_sent_are_not_compared() -> None:
    assert pace.sample(after((0.0, replace(COUNTED, role=Role.SECONDARY))), COUNTED, None).sent is None


def test_notes_are_kept_as_json_and_rates_for_a_while() -> None:
    notes = replace(
        after((0.0, COUNTED), (60.0, make.seen(out_of_sync_bytes=600))), averages=Averages(1.0, 2.0, None, 4.0)
    )
    entry = json.loads(json.dumps(pace.to_entry(notes)))
    assert pace.from_entry(entry) == notes
    assert pace.rates(entry, 100.0) == Rates(Averages(1.0, 2.0, None, 4.0), -10.0)
    assert pace.rates(entry, 60.0 + pace.FRESH_SECONDS + 1) is None
    assert pace.rates(entry, 59.0) is None


@pytest.mark.parametrize(
    "change",
    [{"at": "now"}, {"looks": None}, {"averages": [1.0]}, {"averages": ["1", None, None, None]}, {"serving": 1}],
)
def test_what_cannot_be_understood_is_nothing(change: dict[str, object]) -> None:
    entry = pace.to_entry(after((0.0, COUNTED))) | change
    assert pace.from_entry(entry) is None
    assert pace.rates(entry, 0.0) is None
    assert pace.from_entry({}) is None


def test_a_look_that_cannot_be_understood_is_passed_over() -> None:
    entry = pace.to_entry(after((0.0, COUNTED))) | {"looks": [[0.0, 1], "x", [1], [0, None]]}
    notes = pace.from_entry(entry)
    assert notes is not None
    assert notes.looks == ((0.0, 1),)
