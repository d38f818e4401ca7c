import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from drbd_offsite import files, journal
from drbd_offsite.errors import ConfigError
from drbd_offsite.observed import Forbidden, Hold

CONNECT, ATTACH = Forbidden.CONNECT, Forbidden.ATTACH


def write(kind: str, name: str, text: str, place: Path | None = None) -> None:
    path = (place or journal.STATE) / kind / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_events_come_back_in_order_with_their_details() -> None:
    journal.record("one", "test_a", "First.", answer=42)
    journal.record("two", "", "Second: ü\u2028 \n.")
    first, second = journal.events()
    assert (first["event"], first["resource"], first["text"], first["answer"]) == ("one", "test_a", "First.", 42)
    assert second["text"] == "Second: ü\u2028 \n."
    assert first["at"].endswith("+00:00")


def test_nothing_has_happened_yet() -> None:
    assert journal.events() == []
    assert journal.holds() == {}
    assert journal.operations() == {}


@pytest.mark.parametrize("torn", ['{"at": "2026', "\x00\x00\x00", "[1, 2", '"text"', "[]", "{"])
def test_a_line_torn_by_a_power_cut_costs_that_line_alone(torn: str) -> None:
    journal.record("before", "", "x")
    with (journal.STATE / "events.jsonl").open("a") as file:
        file.write(torn)
    journal.record("after", "", "y")
    assert [e["event"] for e in journal.events()] == ["before", "after"]


def test_the_journal_is_for_root_alone() -> None:
    journal.record("x", "", "x")
    journal.hold("test_a", "x", frozenset({CONNECT}), "test")
    for path in journal.STATE.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def held(resource: str = "test_a") -> tuple[Hold, ...]:
    return journal.holds().get(resource, ())


def forbidden(resource: str = "test_a") -> set[Forbidden]:
    return {word for hold in held(resource) for word in hold.forbids}


def test_a_hold_lasts_until_it_is_lifted_and_both_are_events() -> None:
    journal.hold("test_a", "split brain", frozenset({CONNECT}), "split-brain")
    (hold,) = held()
    assert (hold.reason, hold.forbids, hold.set_by) == ("split brain", {CONNECT}, "split-brain")
    journal.lift("test_a", "connect")
    assert journal.holds() == {}
    assert [e["event"] for e in journal.events()] == ["hold", "hold-lifted"]


def test_lifting_what_is_not_held_is_no_event() -> None:
    journal.lift("test_a", "connect")
    assert journal.events() == []


def test_holds_of_several_setters_stand_side_by_side_and_are_lifted_one_by_one() -> None:
    journal.hold("test_a", "io", frozenset({ATTACH}), "local-io-error")
    journal.hold("test_a", "split", frozenset({CONNECT}), "split-brain")
    assert {(hold.set_by, hold.reason, hold.forbids) for hold in held()} == {
        ("local-io-error", "io", frozenset({ATTACH})),
        ("split-brain", "split", frozenset({CONNECT})),
    }
    journal.lift("test_a", "connect", set_by="split-brain")
    assert forbidden() == {ATTACH}
    journal.lift("test_a", "connect", set_by="nobody")
    assert forbidden() == {ATTACH}
    journal.lift("test_a", "a person")
    assert journal.holds() == {}


def test_the_oldest_hold_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    for hour, setter in (("03", "b"), ("01", "c"), ("02", "a")):
        monkeypatch.setattr(journal, "now", lambda at=hour: f"2026-01-01T{at}:00:00+00:00")
        journal.hold("test_a", "x", frozenset({CONNECT}), setter)
    assert [hold.set_by for hold in held()] == ["c", "a", "b"]


def test_a_hold_that_is_set_again_keeps_its_beginning_and_is_no_second_event(monkeypatch: pytest.MonkeyPatch) -> None:
    journal.hold("test_a", "split", frozenset({CONNECT}), "split-brain")
    since = held()[0].since
    monkeypatch.setattr(journal, "now", lambda: "2099-01-01T00:00:00+00:00")
    journal.hold("test_a", "split", frozenset({CONNECT}), "split-brain")
    assert [e["event"] for e in journal.events()] == ["hold"]
    journal.hold("test_a", "split; the server has changed 3 MiB", frozenset({CONNECT}), "split-brain")
    (hold,) = held()
    assert (hold.since, hold.reason) == (since, "split; the server has changed 3 MiB")
    assert len(journal.events()) == 2


def test_a_remark_is_told_and_forbids_nothing() -> None:
    journal.hold("test_a", "there was no room", frozenset(), "restore-point")
    assert forbidden() == set()
    assert held()[0].reason == "there was no room"
    assert [e["event"] for e in journal.events()] == ["remark"]


def entry(**changes: object) -> str:
    return json.dumps({"reason": "r", "since": "s", "forbids": ["attach"]} | changes)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "{}", "1", '{"reason": "x"}', '{"x": 1}', '{"x": {}}', "\x00" * 9, entry(forbids="attach"),
     entry(forbids=["fly"]), entry(forbids=[[]]), entry(forbids=[{}]), entry(forbids=[1]), entry(forbids=None),
     entry(reason=1), entry(since=None), entry()[:-2]],
)  # fmt: skip
def test_a_hold_that_cannot_be_read_holds_everything(text: str) -> None:
    write("holds", "test_a+split-brain.json", entry())
    assert forbidden() == {ATTACH}
    write("holds", "test_a+split-brain.json", text)
    assert forbidden() == set(Forbidden)
    assert "cannot be read" in held()[0].reason


def test_a_hold_that_cannot_be_read_is_lifted_by_who_may_lift_it() -> None:
    write("holds", "test_a+split-brain.json", "{")
    journal.lift("test_a", "connect", set_by="disconnect")
    assert forbidden() == set(Forbidden)
    journal.lift("test_a", "connect", set_by="split-brain")
    assert journal.holds() == {}


def test_a_file_that_names_no_setter_holds_everything_until_a_person_lifts_it() -> None:
    """So were they named before each setter had a file of its own, and an upgrade lifts no hold."""
    write("holds", "test_a.json", json.dumps({"split-brain": {"reason": "r", "since": "s", "forbids": ["connect"]}}))
    assert forbidden() == set(Forbidden)
    journal.lift("test_a", "connect", set_by="split-brain")
    assert forbidden() == set(Forbidden)
    journal.lift("test_a", "a person")
    assert journal.holds() == {}


def test_a_new_hold_beside_one_that_cannot_be_read_forbids_no_less() -> None:
    write("holds", "test_a+local-io-error.json", "{")
    journal.hold("test_a", "split", frozenset({CONNECT}), "split-brain")
    assert forbidden() == set(Forbidden)


def test_a_hold_set_where_the_disk_was_full_counts_and_is_lifted_as_any_other() -> None:
    write("holds", "test_a+split-brain.json", entry(forbids=["connect"]), journal.VOLATILE)
    assert forbidden() == {CONNECT}
    journal.hold("test_a", "more is known", frozenset({CONNECT}), "split-brain")
    assert [hold.reason for hold in held()] == ["more is known"], "one setter, one hold"
    journal.lift("test_a", "connect", set_by="split-brain")
    assert journal.holds() == {}


def test_a_file_that_is_being_written_is_no_hold() -> None:
    write("holds", ".test_a+x.json.123.new", "{")
    write("holds", ".hidden.json", "{")
    assert journal.holds() == {}


@pytest.mark.parametrize("name", ["a.b.json", "a-b", "a.json"])
def test_a_resource_is_held_by_its_own_name_and_no_other(name: str) -> None:
    journal.hold(name, "x", frozenset({CONNECT}), "split-brain")
    assert list(journal.holds()) == [name]
    journal.lift("a", "connect")
    assert list(journal.holds()) == [name]


def test_an_operation_goes_on_where_it_was_and_keeps_its_beginning() -> None:
    begun = journal.begin("add", "test_a", {"peer": "backup"})
    again = journal.begin("add", "test_a", {"peer": "backup", "there": 1})
    assert again.since == begun.since
    assert journal.operations() == {"add-test_a": again}
    assert [e["event"] for e in journal.events()] == ["operation-begun"], "it was begun once"
    journal.end(again)
    assert journal.operations() == {}
    assert journal.events()[-1]["event"] == "operation-ended"


def test_an_operation_may_end_otherwise_than_by_completion() -> None:
    journal.end(journal.begin("add", "test_a", {}))
    journal.end(journal.begin("remove", "test_a", {}), "was given up")
    assert journal.operations() == {}
    ended = [e["text"] for e in journal.events() if e["event"] == "operation-ended"]
    assert ended == ["add is complete.", "remove was given up."]


def test_operations_of_one_resource_are_told_apart_by_their_verb() -> None:
    journal.begin("add", "x", {})
    journal.begin("join", "x", {})
    assert set(journal.operations()) == {"add-x", "join-x"}


BROKEN = ["", "{", "[]", "{}", '{"verb": "add"}', '{"verb": 1, "resource": "x", "since": "s", "parameters": {}}']


@pytest.mark.parametrize("text", BROKEN)
def test_an_operation_that_cannot_be_read_is_named_not_forgotten_and_in_nobody_s_way(text: str) -> None:
    journal.begin("add", "test_b", {})
    write("operations", "add-test_a.json", text)
    assert set(journal.operations()) == {"add-test_b"}
    assert journal.operation_files()[1] == [str(journal.STATE / "operations/add-test_a.json")]
    with pytest.raises(ConfigError, match=r"add-test_a\.json"):
        journal.begin("add", "test_a", {})
    assert (journal.STATE / "operations/add-test_a.json").read_text() == text, "a person has to look at it"
    journal.begin("add", "test_c", {})


# -- what can be done without --------------------------------------------------------------------------


def test_what_is_held_and_remembered_is_carried_over_to_another_name_as_old_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as earlier:
        earlier.setattr(journal, "now", lambda: "2026-01-01T00:00:00+00:00")
        journal.hold("test_a", "wait", frozenset({CONNECT}), "disconnect")
    journal.hold("test_a2", "other", frozenset({CONNECT}), "disconnect")
    write("holds", "test_a+split-brain.json", "torn", journal.VOLATILE)
    journal.remember("lost", "test_a", {"since": "x"})
    for _ in range(2):
        journal.carry_over("test_a", "b", ("lost", "discards"))
        assert journal.remembered("lost") == {"b": {"since": "x"}}
    before, after = journal.holds()["test_a"], journal.holds()["b"]
    assert [(h.reason, h.forbids, h.since, h.set_by) for h in before] == [
        (h.reason, h.forbids, h.since, h.set_by) for h in after
    ], "under the old name they hold too, until they are lifted"
    journal.lift("test_a", "test")
    assert set(journal.holds()) == {"b", "test_a2"}
    assert journal.holds()["b"] == after


def test_what_is_being_renamed_is_known_by_either_name() -> None:
    assert journal.by_any_name(["x"]) == {"x"}
    journal.begin("rename", "test_a", {"new": "b"})
    journal.begin("grow", "x", {})
    assert journal.by_any_name(name for name in ["x", "b"]) == {"x", "b", "test_a"}
    assert journal.by_any_name(["test_a"]) == {"b", "test_a"}
    assert journal.by_any_name(["x"]) == {"x"}


def test_what_is_remembered_is_known_until_it_is_forgotten() -> None:
    journal.remember("lost", "test_a", {"since": "yesterday"})
    journal.remember("lost", "a.b-c", {"since": "today"})
    journal.remember("other", "test_a", {"x": [1]})
    assert journal.remembered("lost") == {"test_a": {"since": "yesterday"}, "a.b-c": {"since": "today"}}
    assert journal.remembered("other") == {"test_a": {"x": [1]}}
    journal.forget("lost", "test_a")
    journal.forget("lost", "test_a")
    assert list(journal.remembered("lost")) == ["a.b-c"]
    assert journal.events() == []


@pytest.mark.parametrize("text", ["", "{", "[]", "1", "\x00"])
def test_what_cannot_be_read_is_not_remembered(text: str) -> None:
    write("lost", "test_a.json", text)
    assert journal.remembered("lost") == {}
    journal.remember("lost", "test_a", {"since": "now"})
    assert "test_a" in journal.remembered("lost")


# -- a journal that grows ------------------------------------------------------------------------------


def test_the_journal_is_rotated_by_size_and_the_last_events_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "EVENTS_BYTES", 1000)
    for number in range(100):
        journal.record("x", "test_a", f"{number}")
    texts = [int(e["text"]) for e in journal.events()]
    assert texts == list(range(texts[0], 100)), "none is missing at the end, and they are in order"
    assert len(texts) >= 10
    kept = list(journal.STATE.iterdir())
    assert sorted(path.name for path in kept) == ["events.jsonl", "events.jsonl.1"]
    assert all(path.stat().st_size < 1200 for path in kept)


def test_two_that_find_the_journal_full_rotate_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second would throw away what the first has kept."""
    monkeypatch.setattr(journal, "EVENTS_BYTES", 100)
    real = files.lock

    @contextmanager
    def slow(name: str, wait: float) -> Iterator[None]:
        with real(name, wait):
            monkeypatch.setattr(files, "lock", real)
        journal.record("y", "", "another process was faster")  # and rotated
        with real(name, wait):
            yield

    monkeypatch.setattr(files, "lock", slow)
    journal.record("x", "", "long enough to fill it" * 9)
    assert [e["event"] for e in journal.events()] == ["x", "y"]


def test_a_handler_s_line_in_a_journal_that_is_being_rotated_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has the file open already when that gets its other name."""
    journal.record("x", "", "first")
    descriptor = os.open(journal.STATE / journal.EVENTS, os.O_WRONLY | os.O_APPEND)
    monkeypatch.setattr(journal, "EVENTS_BYTES", 1)
    journal.record("y", "", "this one rotates")
    os.write(descriptor, b'{"event": "z"}\n')
    os.close(descriptor)
    assert {e["event"] for e in journal.events()} == {"x", "y", "z"}


def test_a_journal_of_another_program_s_lines_does_no_harm() -> None:
    journal.STATE.mkdir(parents=True)
    (journal.STATE / "events.jsonl").write_bytes(b"\xff\xfe\n" + json.dumps({"event": "x"}).encode() + b"\n\n")
    assert journal.events() == [{"event": "x"}]
