import json
import stat

import pytest

from drbd_offsite import journal
from drbd_offsite.errors import ConfigError
from drbd_offsite.model import Forbidden

CONNECT, ATTACH = Forbidden.CONNECT, Forbidden.ATTACH


def write(kind: str, name: str, text: str) -> None:
    path = journal.STATE / kind / name
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


def test_a_hold_lasts_until_it_is_lifted_and_both_are_events() -> None:
    journal.hold("test_a", "split brain", frozenset({CONNECT}), "split-brain")
    held = journal.holds()["test_a"]
    assert (held.reason, held.forbids, held.set_by) == ("split brain", {CONNECT}, "split-brain")
    journal.lift("test_a", "connect")
    assert journal.holds() == {}
    assert [e["event"] for e in journal.events()] == ["hold", "hold-lifted"]


def test_lifting_what_is_not_held_is_no_event() -> None:
    journal.lift("test_a", "connect")
    assert journal.events() == []


def test_holds_of_several_setters_add_up_and_are_lifted_one_by_one() -> None:
    journal.hold("test_a", "io", frozenset({ATTACH}), "local-io-error")
    journal.hold("test_a", "split", frozenset({CONNECT}), "split-brain")
    both = journal.holds()["test_a"]
    assert both.forbids == {ATTACH, CONNECT}
    assert "io" in both.reason
    assert "split" in both.reason
    journal.lift("test_a", "connect", set_by="split-brain")
    assert journal.holds()["test_a"].forbids == {ATTACH}
    journal.lift("test_a", "connect", set_by="nobody")
    assert journal.holds()["test_a"].forbids == {ATTACH}
    journal.lift("test_a", "a person")
    assert journal.holds() == {}


def entry(**changes: object) -> str:
    return json.dumps({"x": {"reason": "r", "since": "s", "forbids": ["attach"]} | changes})


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "{}", "1", '{"reason": "x"}', '{"x": 1}', '{"x": {}}', "\x00" * 9, entry(forbids="attach"),
     entry(forbids=["fly"]), entry(forbids=[[]]), entry(forbids=[{}]), entry(forbids=[1]), entry(forbids=None),
     entry(reason=1), entry(since=None), entry()[:-2]],
)  # fmt: skip
def test_a_hold_that_cannot_be_read_holds_everything(text: str) -> None:
    write("holds", "test_a.json", text)
    held = journal.holds()["test_a"]
    assert held.forbids == set(Forbidden)
    assert "cannot be read" in held.reason


def test_a_hold_that_cannot_be_read_is_lifted_only_as_a_whole() -> None:
    write("holds", "test_a.json", "{")
    journal.lift("test_a", "connect", set_by="disconnect")
    assert journal.holds()["test_a"].forbids == set(Forbidden)
    journal.lift("test_a", "a person")
    assert journal.holds() == {}


def test_a_new_hold_on_one_that_cannot_be_read_forbids_no_less_than_it_says() -> None:
    write("holds", "test_a.json", "{")
    journal.hold("test_a", "split", frozenset({CONNECT}), "split-brain")
    assert CONNECT in journal.holds()["test_a"].forbids


def test_a_file_that_is_being_written_is_no_hold() -> None:
    write("holds", ".test_a.json.123.new", "{")
    write("holds", ".hidden.json", "{")
    assert journal.holds() == {}


def test_a_resource_with_dots_in_its_name_is_held_by_that_name() -> None:
    journal.hold("a.b.json", "x", frozenset({CONNECT}), "test")
    assert list(journal.holds()) == ["a.b.json"]


def test_an_operation_goes_on_where_it_was_and_keeps_its_beginning() -> None:
    begun = journal.begin("add", "test_a", {"peer": "backup"})
    again = journal.begin("add", "test_a", {"peer": "backup", "there": 1})
    assert again.since == begun.since
    assert journal.operations() == {"add-test_a": again}
    assert [e["event"] for e in journal.events()] == ["operation-begun"], "it was begun once"
    journal.end(again)
    assert journal.operations() == {}
    assert journal.events()[-1]["event"] == "operation-ended"


def test_operations_of_one_resource_are_told_apart_by_their_verb() -> None:
    journal.begin("add", "x", {})
    journal.begin("join", "x", {})
    assert set(journal.operations()) == {"add-x", "join-x"}


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"verb": "add"}'])
def test_an_operation_that_cannot_be_read_is_named_and_not_forgotten(text: str) -> None:
    write("operations", "add-test_a.json", text)
    with pytest.raises(ConfigError, match=r"add-test_a\.json"):
        journal.operations()


def test_a_journal_of_another_program_s_lines_does_no_harm() -> None:
    journal.STATE.mkdir(parents=True)
    (journal.STATE / "events.jsonl").write_bytes(b"\xff\xfe\n" + json.dumps({"event": "x"}).encode() + b"\n\n")
    assert journal.events() == [{"event": "x"}]
