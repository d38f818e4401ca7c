import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drbd_offsite.plan.alerts import SETTLED, Kind, Message, decide
from drbd_offsite.plan.assess import Level
from drbd_offsite.plan.condition import Condition

NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
DAY = timedelta(hours=24)
MINUTE = timedelta(minutes=1)
SPLIT = Condition("test_a split-brain", Level.BROKEN, "test_a on server: split brain", "Both have changes.\n")
SLOW = Condition("backup silent", Level.UNPROTECTED, "backup is silent", "Nothing.\n", timedelta(hours=12))


class Story:
    """One look after the other, a minute apart unless it is said otherwise; memory goes through JSON as on disk."""

    def __init__(self) -> None:
        self.now = NOW
        self.memory: Mapping[str, Any] = {}
        self.sent: list[Message] = []

    def look(self, *found: Condition, after: timedelta = MINUTE, **how: Any) -> list[str]:
        self.now += after
        options: dict[str, Any] = {"remind": DAY, "boot": "one"} | how
        messages, memory = decide(found, self.memory, self.now, **options)
        self.memory = json.loads(json.dumps(memory))
        self.sent += messages
        return [message.kind for message in messages]


def test_a_condition_is_told_once() -> None:
    story = Story()
    assert story.look(SPLIT) == [Kind.RAISED]
    assert [story.look(SPLIT) for _ in range(100)] == [[]] * 100
    (message,) = story.sent
    assert (message.key, message.subject, message.at) == (SPLIT.key, SPLIT.subject, "2026-01-01T12:01:00+00:00")
    assert message.text == "Both have changes.\nSeen first: 2026-01-01T12:01:00+00:00\n"


def test_who_wants_no_alert_gets_none_and_no_all_clear_for_what_is_not_over() -> None:
    story = Story()
    quiet = replace(SPLIT, muted=True)
    assert story.look(quiet) == []
    assert story.look(SPLIT) == [Kind.RAISED], "and all of it once it is wanted"
    assert story.look(quiet, after=DAY) == []
    assert story.look(quiet, after=SETTLED) == []
    assert story.look(after=SETTLED) == []
    assert story.memory == {}


def test_a_reminder_comes_every_so_many_hours() -> None:
    story = Story()
    story.look(SPLIT)
    assert story.look(SPLIT, after=DAY - MINUTE) == []
    assert story.look(SPLIT) == [Kind.REMINDER]
    assert story.look(SPLIT, after=DAY - MINUTE) == []
    assert story.look(SPLIT) == [Kind.REMINDER]
    assert story.sent[-1].subject == "Reminder: test_a on server: split brain"
    assert "still so, since 2026-01-01T12:01:00+00:00 (48 h 0 min)" in story.sent[-1].text
    assert story.sent[-1].text.endswith(SPLIT.text)


def test_the_hours_are_those_of_the_configuration_now() -> None:
    story = Story()
    story.look(SPLIT)
    assert story.look(SPLIT, after=timedelta(hours=1), remind=timedelta(hours=1)) == [Kind.REMINDER]


def test_an_all_clear_comes_when_it_is_over_for_good_and_says_how_long_it_was() -> None:
    story = Story()
    story.look(SPLIT)
    assert story.look(after=timedelta(hours=3)) == []
    assert story.look(after=SETTLED - MINUTE) == []
    assert story.look() == [Kind.CLEARED]
    assert story.sent[-1].subject == "Over: test_a on server: split brain"
    assert "It is over since 2026-01-01T15:01:00+00:00" in story.sent[-1].text
    assert "lasted 3 h 0 min" in story.sent[-1].text
    assert story.look(after=DAY) == []
    assert story.look(SPLIT) == [Kind.RAISED], "the next one is a new one"


def test_one_that_flaps_is_a_single_one_that_lasts() -> None:
    story = Story()
    kinds = [kind for number in range(400) for kind in story.look(*([SPLIT] if number % 4 == 0 else []))]
    assert kinds == [Kind.RAISED]
    assert [kind for _ in range(10) for kind in story.look()] == [Kind.CLEARED]


def test_patience_counts_from_when_it_was_seen_first() -> None:
    story = Story()
    assert story.look(SLOW) == []
    assert story.look(SLOW, after=SLOW.patience - MINUTE) == []
    assert story.look(SLOW) == [Kind.RAISED]


def test_what_ends_before_anybody_was_told_is_no_message_at_all() -> None:
    story = Story()
    story.look(SLOW)
    assert story.look() == []
    assert story.memory == {}
    assert story.look(SLOW, after=SLOW.patience) == [], "it begins anew"


def test_what_gets_worse_is_told_again_and_what_gets_better_is_not() -> None:
    def at(level: Level) -> Condition:
        return Condition("test_a x", level, "x", "x\n")

    story = Story()
    assert story.look(at(Level.HELD)) == [Kind.RAISED]
    assert story.look(at(Level.BROKEN)) == [Kind.RAISED]
    assert story.look(at(Level.HELD)) == []
    assert story.look(at(Level.BROKEN)) == [], "that was said"
    assert story.look(at(Level.BROKEN), after=DAY) == [Kind.REMINDER]


def test_while_the_machine_was_off_nothing_can_have_been_seen_to_last() -> None:
    story = Story()
    story.look(SLOW)
    story.look(SLOW, SPLIT)
    assert story.look(SLOW, SPLIT, after=SLOW.patience - MINUTE, boot="two") == [], "what was said is not said again"
    assert story.look(SLOW, SPLIT, after=SLOW.patience - MINUTE, boot="two") == []
    assert story.look(SLOW, SPLIT, boot="two") == [Kind.RAISED]


def test_what_cannot_be_seen_is_not_over() -> None:
    story = Story()
    story.look(SPLIT, SLOW)
    assert story.look(sure=False, after=timedelta(hours=12)) == []
    assert story.look(SPLIT, SLOW) == [Kind.RAISED], "the one that nobody knew of yet"
    story.look()
    story.look(sure=False, after=timedelta(hours=1))
    assert story.look() == [Kind.CLEARED, Kind.CLEARED]


def test_a_clock_that_was_ahead_makes_nobody_wait_for_it() -> None:
    story = Story()
    story.now = NOW + 1000 * DAY
    story.look(SPLIT, SLOW)
    story.now = NOW
    story.look(SPLIT, SLOW)
    assert story.look(SPLIT, SLOW, after=DAY) == [Kind.REMINDER, Kind.RAISED]


ENTRY = {"subject": "s", "level": 4, "first": NOW.isoformat(), "sent": NOW.isoformat(), "gone": ""}


@pytest.mark.parametrize(
    "memory",
    [
        {},
        {"known": []},
        {"boot": 1, "known": {"test_a split-brain": None}},
        *({"boot": "one", "known": {SPLIT.key: ENTRY | wrong}} for wrong in (
            {"level": "4"}, {"first": "yesterday"}, {"sent": "2026-01-01T00:00:00"}, {"gone": None},
        )),
    ],
)  # fmt: skip
def test_a_memory_that_cannot_be_understood_has_somebody_told_once_more(memory: Mapping[str, Any]) -> None:
    story = Story()
    story.memory = memory
    assert story.look(SPLIT) == [Kind.RAISED]
    assert story.look(SPLIT) == []


def test_a_memory_that_can_be_understood_is_used() -> None:
    story = Story()
    story.memory = {"boot": "one", "known": {SPLIT.key: ENTRY}}
    assert story.look(SPLIT) == []


LOOKS = st.lists(st.tuples(st.booleans(), st.integers(0, 30), st.booleans()), max_size=60)


@given(LOOKS)
def test_whatever_happens_messages_come_in_an_order_that_makes_sense(looks: list[tuple[bool, int, bool]]) -> None:
    story = Story()
    for wrong, minutes, sure in looks:
        story.look(*([SPLIT] if wrong else []), after=timedelta(minutes=minutes), sure=sure)
    told = False
    for message in story.sent:
        assert (message.kind is Kind.RAISED) != told
        told = message.kind is not Kind.CLEARED
    raised = [datetime.fromisoformat(message.at) for message in story.sent if message.kind is Kind.RAISED]
    assert all(later - earlier >= SETTLED for earlier, later in pairwise(raised))
