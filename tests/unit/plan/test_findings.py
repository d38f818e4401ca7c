"""What is made of what the kernel has logged about blocks that differ."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drbd_offsite.plan.findings import (
    BLOCK_SECTORS,
    MOST_RANGES,
    MOST_SENDS,
    WINDOW_SECTORS,
    Cause,
    Check,
    Findings,
    Outcome,
    Range,
    Taken,
    Verdict,
    as_entry,
    describe,
    from_entry,
    remarks,
    take_in,
)
from drbd_offsite.tools.drbd_log import Verify

NOW = "2026-11-22T12:00:00+00:00"
BEGUN = "2026-11-22T11:00:00+00:00"
ASKED = Check(BEGUN, cause=Cause.ASKED)
KIB = 1024

SECTORS = st.integers(0, 2**30)
RANGES = st.builds(
    Range,
    start=SECTORS,
    sectors=st.integers(1, 2**20),
    seen=st.integers(1, 5),
    sent=st.booleans(),
    slack=st.integers(0, 2**20),
)
CHECKS = st.builds(
    Check,
    since=st.just(BEGUN),
    start=SECTORS,
    stop=st.none() | SECTORS,
    cause=st.sampled_from(Cause),
    running=st.booleans(),
    reached=SECTORS,
    found=st.integers(0, 9),
    broken_off=st.integers(0, 5000),
    broken_off_at=st.sampled_from(["", BEGUN]),
)
FINDINGS = st.builds(
    Findings,
    ranges=st.lists(RANGES, max_size=5).map(tuple),
    check=st.none() | CHECKS,
    differing_bytes=st.integers(0, 2**40),
    differing_since=st.sampled_from(["", BEGUN]),
    found_bytes=st.integers(0, 2**40),
    sends=st.integers(0, 9),
    cursor=st.text(max_size=5),
    verdict=st.none() | st.builds(Verdict, st.just(BEGUN), st.sampled_from(list(Outcome)), st.integers(0, 9)),
)
VERIFIES = st.builds(
    Verify,
    start=st.none() | SECTORS,
    differing=st.lists(st.tuples(SECTORS, st.integers(1, 2**20)), max_size=5).map(tuple),
    reached=st.none() | SECTORS,
    done=st.booleans(),
    resent=st.booleans(),
)


def whole(*differing: tuple[int, int], **changes: object) -> Verify:
    return replace(Verify(0, differing, done=True), **changes)


def taken(known: Findings, *verifies: Verify, marked: int | None = 0) -> Taken:
    return take_in(known, verifies, marked, NOW)


# -- ranges --------------------------------------------------------------------------------------


def test_what_is_found_is_kept_with_its_sectors() -> None:
    found = taken(Findings(), whole((40000, 16), (80000, 8)), marked=12 * KIB)
    assert found.found == found.findings.ranges == (Range(40000, 16), Range(80000, 8))
    assert found.findings.differing_bytes == found.findings.found_bytes == 12 * KIB
    assert found.findings.differing_since == NOW
    assert found.check is found.outcome is None, "nobody here had begun it"


def test_lines_that_touch_are_one_place() -> None:
    assert taken(Findings(), whole((16, 8), (8, 8)), marked=8 * KIB).found == (Range(8, 16),)


def test_found_again_before_it_was_sent_is_the_same_find() -> None:
    known = Findings((Range(8, 8),), differing_bytes=4 * KIB)
    assert taken(known, whole((8, 8)), marked=4 * KIB).findings.ranges == (Range(8, 8),)


def test_found_again_after_it_was_sent_counts() -> None:
    known = Findings((Range(8, 8, sent=True), Range(800, 8, sent=True)))
    assert taken(known, whole((8, 8)), marked=4 * KIB).findings.ranges == (Range(8, 8, seen=2),)


def test_two_places_that_were_one_have_both_been_seen() -> None:
    known = Findings((Range(8, 64, seen=2, sent=True),))
    found = taken(known, whole((8, 8), (40, 8)), marked=8 * KIB)
    assert [r.seen for r in found.findings.ranges] == [3, 3]


@pytest.mark.parametrize(
    ("verify", "left"),
    [
        (Verify(0, done=True), []),
        (Verify(0, done=True, reached=500), [800]),
        (Verify(0, reached=500), [800]),
        (Verify(500, done=True), [8]),
        (Verify(None, done=True), [8, 800]),
        (Verify(0), [8, 800]),
        (Verify(0, reached=804), [800]),
    ],
)
def test_only_what_was_compared_is_known_to_be_equal(verify: Verify, left: list[int]) -> None:
    known = Findings((Range(8, 8, sent=True), Range(800, 8, sent=True)))
    assert [r.start for r in taken(known, verify).findings.ranges] == left


def test_what_was_found_and_sent_since_is_only_to_be_compared_again() -> None:
    found = taken(Findings(), whole((8, 8), resent=True))
    assert found.findings.ranges == (Range(8, 8, sent=True),)


def test_places_that_the_log_has_lost_are_in_reach() -> None:
    # Four blocks differ, and the log names the last one: the answers came in another order.
    found = taken(Findings(), whole((1_000_024, 8)), marked=16 * KIB).findings.ranges[0]
    assert found.slack == 24 + WINDOW_SECTORS
    low, high = found.reach
    assert low <= 1_000_000
    assert high >= 1_000_032 + WINDOW_SECTORS


def test_a_log_that_has_lost_nothing_needs_no_more_than_the_place() -> None:
    assert taken(Findings(), whole((40000, 16)), marked=8 * KIB).findings.ranges[0].reach == (40000, 40016)
    assert Range(4, 7).reach == (0, 16)


def test_very_many_places_are_kept_as_fewer() -> None:
    places = tuple((number * 1000, 8) for number in range(5000))
    ranges = taken(Findings(), whole(*places), marked=5000 * 4 * KIB).findings.ranges
    assert 0 < len(ranges) <= MOST_RANGES
    assert all(any(r.start <= start < r.stop for r in ranges) for start, _ in places)


def test_a_new_find_is_not_added_to_one_that_is_over() -> None:
    over = Findings(found_bytes=1000 * KIB)
    assert taken(over, whole((8, 8)), marked=4 * KIB).findings.found_bytes == 4 * KIB


# -- how a comparison ends -----------------------------------------------------------------------


def test_the_same_from_beginning_to_end() -> None:
    found = taken(Findings(check=ASKED), whole())
    assert found.outcome is Outcome.EQUAL
    assert found.findings.check is None
    assert found.findings.verdict == Verdict(BEGUN, Outcome.EQUAL, 0)


def test_different() -> None:
    found = taken(Findings(check=ASKED), whole((8, 8)), marked=4 * KIB)
    assert found.outcome is Outcome.DIFFERENT
    assert found.findings.verdict == Verdict(BEGUN, Outcome.DIFFERENT, 1)


def test_what_is_marked_is_different_even_where_the_log_has_lost_it() -> None:
    assert taken(Findings(check=ASKED), whole(), marked=4 * KIB).outcome is Outcome.DIFFERENT


@pytest.mark.parametrize("verify", [Verify(0, reached=4096), Verify(0), None])
def test_a_lost_connection_is_never_taken_for_equal(verify: Verify | None) -> None:
    found = taken(Findings(check=ASKED), *filter(None, [verify]), marked=None)
    assert found.outcome is Outcome.BROKEN_OFF
    check = found.findings.check
    assert check is not None
    assert (check.running, check.broken_off, check.broken_off_at) == (False, 1, NOW)
    assert check.reached == (4096 if verify and verify.reached else 0)
    assert found.findings.verdict is None


def test_where_the_log_does_not_tell_it_goes_on_where_it_certainly_was() -> None:
    found = taken(Findings(check=replace(ASKED, reached=800)), Verify(0), marked=None)
    assert found.findings.check is not None
    assert found.findings.check.reached == 800


def test_what_was_found_before_it_was_broken_off_counts_at_the_end() -> None:
    first = taken(Findings(check=ASKED), Verify(0, ((8, 8),), reached=4096), marked=None).findings
    assert first.check is not None
    again = replace(first, check=replace(first.check, start=4096, running=True))
    found = taken(again, Verify(4096, done=True))
    assert found.findings.verdict == Verdict(BEGUN, Outcome.DIFFERENT, 1)


def test_stopped_by_somebody_is_not_the_whole() -> None:
    found = taken(Findings(check=ASKED), Verify(0, done=True, reached=4096))
    assert found.outcome is Outcome.STOPPED
    assert found.findings.check is None


def test_its_own_stop_sector_is_its_end() -> None:
    again = Check(BEGUN, 800, 808)
    found = taken(Findings((Range(800, 8, sent=True),), again), Verify(800, done=True, reached=816))
    assert found.outcome is Outcome.EQUAL
    assert found.findings.ranges == ()
    assert found.findings.verdict is None, "nobody had asked"


SLICE = Check(BEGUN, 80000, 160000, cause=Cause.SLICE, reached=80000)


@pytest.mark.parametrize(
    ("verify", "outcome", "reached"),
    [
        (Verify(80000, reached=160000, done=True), Outcome.EQUAL, 160000),
        (Verify(80000, done=True), Outcome.EQUAL, 160000),
        (Verify(80000, ((90000, 8),), reached=160000, done=True), Outcome.DIFFERENT, 160000),
        # The answers about some blocks had not come when that about the last one did.
        (Verify(80000, reached=159960, done=True), Outcome.STOPPED, 159960 - WINDOW_SECTORS),
        (Verify(80000, reached=80008, done=True), Outcome.STOPPED, 80000),
    ],
)
def test_how_far_a_slice_has_come_when_it_has_ended_in_order(verify: Verify, outcome: Outcome, reached: int) -> None:
    found = taken(Findings(check=SLICE), verify)
    assert found.outcome is outcome
    assert found.check is not None
    assert found.check.reached == reached
    assert found.findings.check is None


def test_a_slice_that_was_broken_off_keeps_nobody_waiting() -> None:
    found = taken(Findings(check=SLICE), Verify(80000, ((90000, 8),), reached=100000), marked=4 * KIB)
    assert found.outcome is Outcome.BROKEN_OFF
    assert found.findings.check is None
    assert [place.start for place in found.findings.unsent] == [90000], "what it has found is sent all the same"


def test_another_verify_in_the_log_says_nothing_about_this_one() -> None:
    found = taken(Findings(check=replace(ASKED, start=4096, reached=4096)), whole())
    assert found.outcome is Outcome.BROKEN_OFF


@given(FINDINGS, st.lists(VERIFIES, max_size=3), st.none() | st.integers(0, 2**40))
def test_whatever_the_log_says(known: Findings, verifies: list[Verify], marked: int | None) -> None:
    found = take_in(known, verifies, marked, NOW)
    check = found.findings.check
    assert check is None or not check.running, "what has ended is not waited for"
    assert len(found.findings.ranges) <= max(MOST_RANGES, len(known.ranges))
    for place in found.found:
        assert any(r.start <= place.start and place.stop <= r.stop for r in found.findings.ranges) or len(verifies) > 1
    if found.outcome is Outcome.EQUAL:
        assert not found.found
        assert not found.findings.differing_bytes
        own = [verify for verify in verifies if known.check and verify.start == known.check.start]
        assert own[-1].done
    assert all(r.reach[0] % BLOCK_SECTORS == r.reach[1] % BLOCK_SECTORS == 0 for r in found.findings.ranges)
    remarks(found.findings)


# -- on disk ---------------------------------------------------------------------------------------


@given(FINDINGS)
def test_what_is_kept_is_what_was_known(known: Findings) -> None:
    assert from_entry(json.loads(json.dumps(as_entry(known)))) == known


@pytest.mark.parametrize(
    "entry", [{}, {"ranges": 3}, {"ranges": [], "check": None}, as_entry(Findings()) | {"check": {"x": 1}}]
)
def test_a_file_that_says_nothing_is_nothing_known(entry: dict[str, object]) -> None:
    assert from_entry(entry) == Findings()


def test_a_file_of_a_later_version_is_nothing_known() -> None:
    assert from_entry(as_entry(Findings(cursor="s=1")) | {"new": 1}) == Findings()


# -- for a person ------------------------------------------------------------------------------------

HERE = Range(40000, 16)
AGAIN = Range(40000, 16, seen=3)


def test_no_remark_where_nothing_differs() -> None:
    assert remarks(Findings()) == {}
    assert remarks(Findings(check=ASKED, found_bytes=8 * KIB)) == {}


def test_a_remark_says_how_much_and_where() -> None:
    said = remarks(Findings((HERE, Range(80000, 8)), differing_bytes=12 * KIB, found_bytes=12 * KIB))
    assert said == {
        "out-of-sync": "online verify found 12.0 KiB that differ between the copies, in 2 places from sector 40000 on"
    }


def test_it_stays_until_what_was_sent_was_compared_again() -> None:
    assert "at sector 40000" in remarks(Findings((replace(HERE, sent=True),), found_bytes=8 * KIB))["out-of-sync"]


def test_what_no_verify_has_found_is_not_said_to_be_found_by_one() -> None:
    assert "does not say where" in remarks(Findings(differing_bytes=8 * KIB, found_bytes=8 * KIB))["out-of-sync"]


def test_sending_in_vain_is_said() -> None:
    vain = Findings((HERE,), differing_bytes=8 * KIB, sends=MOST_SENDS + 1)
    assert remarks(vain)["out-of-sync"].endswith("sending them has not helped")


def test_found_for_the_third_time_is_suspicious() -> None:
    assert "suspicious" not in remarks(Findings((replace(AGAIN, seen=2),), differing_bytes=8 * KIB))
    unsent = remarks(Findings((AGAIN,), differing_bytes=8 * KIB))
    assert unsent.keys() == {"out-of-sync", "suspicious"}
    sent = remarks(Findings((replace(AGAIN, sent=True),)))
    assert sent == {"suspicious": "the copies differ again and again, at sector 40000, 3 times so far"}


def test_the_journal_says_that_it_is_not_the_first_time() -> None:
    assert describe([HERE]) == "Online verify found 8.0 KiB that differ between the copies, at sector 40000."
    assert describe([replace(HERE, seen=2)]).endswith("They had been sent once before.")
    assert describe([AGAIN]).endswith("They had been sent 2 times before.")
