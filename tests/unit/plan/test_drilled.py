"""What is remembered of drills, and what a person is told of it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drbd_offsite.model import Flavour
from drbd_offsite.plan import drilled
from drbd_offsite.plan.drilled import Count, Outcome
from drbd_offsite.remembered import LastDrill

from .. import make

NOW = datetime(2026, 1, 15, 12, 0, tzinfo=UTC)
SITE = make.site(Flavour.BACKUP)


def ago(**span: float) -> str:
    return (NOW - timedelta(**span)).isoformat(timespec="seconds")


def test_one_that_was_just_seen_has_had_none_and_lacks_none() -> None:
    known = drilled.last(drilled.first_seen(ago(hours=1)), NOW)
    assert known == LastDrill("", "", "", "", 3600.0)
    assert list(drilled.troubles(SITE, "test_a", known)) == []


@pytest.mark.parametrize("entry", [{}, {"since": 1}, drilled.first_seen("yesterday"), drilled.first_seen("2026-01-01")])
def test_what_cannot_be_understood_is_nothing(entry: dict[str, object]) -> None:
    assert drilled.last(entry, NOW) is None


@pytest.mark.parametrize(
    ("outcome", "counts"), [("passed", True), ("warned", True), ("untested", False), ("failed", False)]
)
def test_which_outcome_proves_something(outcome: str, counts: bool) -> None:
    entry = drilled.with_result(drilled.first_seen(ago(days=20)), ago(days=1), Outcome(outcome), "why", None)
    known = drilled.last(entry, NOW)
    assert known is not None
    assert (known.at, known.outcome, known.reason) == (ago(days=1), outcome, "why")
    assert known.passed == (ago(days=1) if counts else "")
    assert drilled.overdue(SITE, known) is not counts


def test_a_failure_does_not_undo_what_passed_before() -> None:
    entry = drilled.with_result({}, ago(days=9), Outcome.PASSED, "", Count(3, 4))
    entry = drilled.with_result(entry, ago(days=2), Outcome.FAILED, "bad", None)
    known = drilled.last(entry, NOW)
    assert known is not None
    assert known.passed == ago(days=9)
    assert known.unproven_seconds == 9 * 86400
    assert drilled.counted(entry) == (ago(days=9), Count(3, 4)), "the last count, not the last drill"


@pytest.mark.parametrize("count", [None, 1, {"at": "", "files": "3", "bytes": 1}])
def test_a_count_that_is_none(count: object) -> None:
    assert drilled.counted({"count": count}) is None


FINE = LastDrill(ago(days=1), "passed", "It is good.", ago(days=1), 86400.0)


def keys(known: LastDrill, days: int = 14) -> list[str]:
    return [trouble.key for trouble in drilled.troubles(replace(SITE, drill_days=days), "test_a", known)]


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        (FINE, []),
        (replace(FINE, outcome="failed"), ["drill-failed"]),
        (replace(FINE, outcome="warned"), ["drill-findings"]),
        (replace(FINE, outcome="untested"), []),
        (replace(FINE, outcome="untested", unproven_seconds=15 * 86400.0), ["drill-overdue"]),
        (replace(FINE, outcome="failed", unproven_seconds=15 * 86400.0), ["drill-failed", "drill-overdue"]),
        (replace(FINE, outcome="of another version"), []),
    ],
)
def test_what_is_told(known: LastDrill, expected: list[str]) -> None:
    assert keys(known) == expected


def test_nobody_is_told_who_does_not_want_to_be() -> None:
    assert keys(replace(FINE, unproven_seconds=1e9), days=0) == []
    assert keys(replace(FINE, outcome="failed", unproven_seconds=1e9), days=0) == ["drill-failed"]


@given(st.integers(1, 3650), st.floats(0, 4000))
def test_overdue_is_what_is_older_than_so_many_days(limit: int, days: float) -> None:
    known = replace(FINE, unproven_seconds=days * 86400)
    assert (keys(known, limit) == ["drill-overdue"]) == (days > limit)


def test_each_says_what_happened_what_it_means_and_what_to_do() -> None:
    known = replace(FINE, outcome="failed", reason="Blue smoke.", passed="", unproven_seconds=20 * 86400.0)
    failed, overdue = drilled.troubles(SITE, "test_a", known)
    assert failed.happened.endswith("has failed: Blue smoke.")
    assert "no use after a disaster" in failed.means
    assert "/var/lib/drbd-offsite/drills/test_a/" in failed.to_do
    assert overdue.happened == (
        f"No drill has passed for 20 days. None ever has. The last one, at {known.at}, failed: Blue smoke."
    )
    assert "drbd-offsite drill test_a" in overdue.to_do
