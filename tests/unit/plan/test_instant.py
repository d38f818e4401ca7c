from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drbd_offsite.plan.instant import parse

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("45s", NOW - timedelta(seconds=45)),
        ("30min", NOW - timedelta(minutes=30)),
        ("2h", NOW - timedelta(hours=2)),
        ("2 h", NOW - timedelta(hours=2)),
        ("7d", NOW - timedelta(days=7)),
        ("3w", NOW - timedelta(weeks=3)),
        ("0s", NOW),
        ("2026-11-20", datetime(2026, 11, 20, tzinfo=UTC)),
        ("2026-11-20T08:30", datetime(2026, 11, 20, 8, 30, tzinfo=UTC)),
        ("2026-11-20 08:30:15", datetime(2026, 11, 20, 8, 30, 15, tzinfo=UTC)),
        ("2026-11-20T08:30:15Z", datetime(2026, 11, 20, 8, 30, 15, tzinfo=UTC)),
        ("2026-11-20T08:30:15+02:00", datetime(2026, 11, 20, 6, 30, 15, tzinfo=UTC)),
    ],
)
def test_an_instant_a_date_or_a_span(text: str, meant: datetime) -> None:
    assert parse(text, NOW) == meant


@pytest.mark.parametrize(
    "text",
    ["", "h", "2", "2m", "2 hours", "-2h", "2.5h", "2h ", "٢h", "9999999d", "9" * 5000 + "s", "yesterday", "12:00",
     "2026-13-01", "0001-01-01T00:00+14:00"],
)  # fmt: skip
def test_anything_else_is_none(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  the caller shows what may be written, and not this message
        parse(text, NOW)


@given(st.text(max_size=40))
def test_no_text_does_worse_than_to_be_refused(text: str) -> None:
    with suppress(ValueError):
        assert parse(text, NOW).utcoffset() == timedelta(0)


@given(st.integers(0, 10**4), st.sampled_from(["s", "min", "h", "d", "w"]))
def test_every_span_that_is_taken_lies_before_now(count: int, unit: str) -> None:
    assert parse(f"{count}{unit}", NOW) <= NOW


@given(st.datetimes(timezones=st.just(UTC)))
def test_what_the_journal_prints_can_be_given_back(at: datetime) -> None:
    assert parse(at.isoformat(timespec="seconds"), NOW) == at.replace(microsecond=0)
