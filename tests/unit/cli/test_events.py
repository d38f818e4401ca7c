"""``events``: what is shown, since when, and what comes while it is followed."""

import json
import time
from collections.abc import Callable
from datetime import datetime, tzinfo
from pathlib import Path

import pytest

from drbd_offsite import journal
from drbd_offsite.cli import events
from drbd_offsite.errors import ExitCode

from .conftest import Command


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Set the hour at which what follows is recorded."""

    def at(hour: str) -> None:
        monkeypatch.setattr(journal, "now", lambda: f"2026-11-22T{hour}:00+00:00")

    return at


@pytest.fixture
def day(clock: Callable[[str], None]) -> None:
    """Three events of one day."""
    for hour, name in (("08:00", "test_a"), ("10:00", ""), ("12:00", "test_b")):
        clock(hour)
        journal.record(f"event-{hour[:2]}", name, f"What happened at {hour}.")


@pytest.mark.usefixtures("day")
def test_a_person_gets_a_line_an_event_the_newest_last(command: Command) -> None:
    assert command("events").out == (
        "2026-11-22T08:00:00+00:00  test_a        event-08: What happened at 08:00.\n"
        "2026-11-22T10:00:00+00:00  -             event-10: What happened at 10:00.\n"
        "2026-11-22T12:00:00+00:00  test_b        event-12: What happened at 12:00.\n"
    )


@pytest.mark.usefixtures("day")
def test_a_program_gets_an_object_a_line(command: Command) -> None:
    found = [json.loads(line) for line in command("events", "--json").out.splitlines()]
    assert found == journal.events()


@pytest.mark.usefixtures("day")
def test_only_what_is_asked_for_is_shown(command: Command) -> None:
    out = command("events", "test_a", "test_b").out
    assert "event-08" in out
    assert "event-12" in out
    assert "event-10" not in out


@pytest.mark.usefixtures("day")
@pytest.mark.parametrize(
    ("since", "count"),
    [("2026-11-22", 3), ("2026-11-22T10:00", 2), ("2026-11-22T13:00+02:00", 1), ("2026-11-22T12:00:01", 0)],
)
def test_since_leaves_out_what_was_before(command: Command, since: str, count: int) -> None:
    said = command("events", "--since", since)
    assert (said.code, len(said.out.splitlines())) == (ExitCode.DONE, count)


def test_since_a_span_counts_from_now(command: Command) -> None:
    journal.record("just-now", "", "x")
    assert "just-now" in command("events", "--since", "1min").out


def test_since_what_is_no_instant_is_a_usage_error_with_examples(command: Command) -> None:
    said = command("events", "--since", "yesterday")
    assert said.code == ExitCode.USAGE
    assert "--since yesterday is no instant." in said.err
    assert "--since 2h" in said.err


@pytest.mark.usefixtures("day")
def test_an_event_without_a_readable_instant_is_not_hidden(command: Command) -> None:
    with (journal.STATE / journal.EVENTS).open("a") as file:
        file.write('{"event": "strange"}\n')
    assert "strange" in command("events", "--since", "0s").out


# -- following -----------------------------------------------------------------------------------


def test_following_shows_what_was_and_what_comes_until_ctrl_c(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = iter(["second", "third"])

    def sleep(_: float) -> None:
        name = next(steps, None)
        if name is None:
            raise KeyboardInterrupt
        journal.record(name, "", "x")

    monkeypatch.setattr(time, "sleep", sleep)
    journal.record("first", "", "x")
    said = command("events", "--follow", "--json")
    assert [json.loads(line)["event"] for line in said.out.splitlines()] == ["first", "second", "third"]
    assert (said.code, said.err) == (ExitCode.DONE, "")


def test_following_begins_before_there_is_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "STATE", tmp_path / "later")
    tail = events.Tail()
    assert tail.lines() == []
    journal.record("first", "", "x")
    assert len(tail.lines()) == 1
    assert tail.lines() == []


def numbered(tail: events.Tail) -> list[int]:
    return [entry["number"] for line in tail.lines() if (entry := journal.event(line))]


def test_a_rotation_neither_loses_nor_repeats_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "EVENTS_BYTES", 500)  # some five events
    seen: list[int] = []
    tail = events.Tail()
    for number in range(100):
        journal.record("x", "", "x", number=number)
        if number % 4 == 0:
            seen += numbered(tail)
    seen += numbered(tail)
    assert seen == list(range(100))


def test_a_line_that_is_still_being_written_waits_for_its_end() -> None:
    journal.record("x", "", "x", number=1)
    tail = events.Tail()
    with (journal.STATE / journal.EVENTS).open("a") as file:
        file.write('{"number": 2')
        file.flush()
        assert numbered(tail) == [1]
        file.write("}\n")
    assert numbered(tail) == [2]


def test_a_writer_that_was_overtaken_by_the_rotation_is_heard() -> None:
    journal.record("x", "", "x", number=1)
    tail = events.Tail()
    assert numbered(tail) == [1]
    path = journal.STATE / journal.EVENTS
    with path.open("a") as late:
        path.replace(journal.STATE / journal.EVENTS_BEFORE)
        journal.record("x", "", "x", number=2)
        assert numbered(tail) == [2]
        late.write('{"number": 3}\n')
    assert numbered(tail) == [3]


def test_a_rotation_between_the_two_looks_is_no_second_file(monkeypatch: pytest.MonkeyPatch) -> None:
    journal.record("x", "", "x", number=1)
    at = events._File.at
    path = journal.STATE / journal.EVENTS

    def rotated_after(name: Path, known: object) -> events._File | None:
        file = at(name, known)  # type: ignore[arg-type]
        if name == path and path.exists():
            path.replace(journal.STATE / journal.EVENTS_BEFORE)
        return file

    monkeypatch.setattr(events._File, "at", rotated_after)
    tail = events.Tail()
    assert numbered(tail) == [1]
    monkeypatch.setattr(events._File, "at", at)
    journal.record("x", "", "x", number=2)
    assert numbered(tail) == [2]


def test_files_that_are_gone_are_closed() -> None:
    tail = events.Tail()
    for number in range(50):
        journal.record("x", "", "x", number=number)
        tail.lines()
        (journal.STATE / journal.EVENTS).replace(journal.STATE / journal.EVENTS_BEFORE)
    assert len(tail._open) <= 2


def test_now_is_taken_in_utc(command: Command, clock: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    class At(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> "At":
            return cls(2026, 11, 22, 12, 30, tzinfo=tz)

    monkeypatch.setattr(events, "datetime", At)
    for hour in ("12:00", "12:29"):
        clock(hour)
        journal.record(f"event-{hour[3:]}", "", "x")
    out = command("events", "--since", "10min").out
    assert "event-29" in out
    assert "event-00" not in out
