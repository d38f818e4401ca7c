"""Looking, taking one step, and looking again, for any operation that is on disk."""

from collections.abc import Iterator, Sequence

import pytest

from drbd_offsite import config, journal, messages, protocol
from drbd_offsite.errors import OffsiteError, ToolFailed
from drbd_offsite.model import Site
from drbd_offsite.observed import Host, Operation
from drbd_offsite.operations import drive
from drbd_offsite.plan.actions import Action, AskPeer, Note, Once, Run
from drbd_offsite.tools import drbd, lvm

from .. import make
from ..conftest import Answer, Programs
from ..test_host import machine

STEP, GROWN = Run(("step",), "it is left"), Run(("lvextend", "x"), "it is too small")
REQUEST = messages.Enlarge("test_a", 1, only_check=False)


@pytest.fixture(autouse=True)
def _machine(programs: Programs) -> None:
    machine(programs)
    programs.allow(STEP.argv)
    programs.allow(GROWN.argv)
    config.PATH.write_text(make.CONFIG)


def begun() -> Operation:
    return journal.begin("grow", "test_a", {"asked": "x"})


def drive_through(*looks: Sequence[Action], patience: float = 0.0) -> list[str]:
    """What is told while each look finds these steps left, and the one after them none."""
    left = iter([*looks, ()])

    def steps(site: Site, host: Host, operation: Operation) -> Iterator[Action]:
        assert host.groups
        assert operation.resource in site.resources
        return iter(next(left))

    told: list[str] = []
    drive.drive(begun(), steps, told.append, patience=patience)
    return told


def test_only_the_first_step_of_each_look_is_taken_and_the_end_is_noted(programs: Programs) -> None:
    assert drive_through([STEP, GROWN], [GROWN]) == ["step  # it is left", "lvextend x  # it is too small"]
    assert [argv for argv in programs.ran if argv in (STEP.argv, GROWN.argv)] == [STEP.argv, GROWN.argv]
    assert journal.operations() == {}
    assert journal.events()[-1]["text"] == "grow is complete."


def test_lvm_is_asked_again_only_after_a_step_of_its_own(programs: Programs) -> None:
    """It takes its time."""
    drive_through([STEP], [GROWN], [STEP])
    assert programs.ran.count(lvm.REPORT) == 2


def test_each_look_reads_the_configuration_that_the_last_step_may_have_written() -> None:
    sites = []

    def steps(site: Site, _: Host, __: Operation) -> Iterator[Action]:
        sites.append(site)
        config.PATH.write_text(make.CONFIG.replace("link_speed = 100", "link_speed = 50"))
        return iter([STEP] if len(sites) == 1 else [])

    drive.drive(begun(), steps, lambda _: None)
    assert [site.peers["backup"].link_speed for site in sites] == [100, 50]


def test_a_step_without_effect_ends_the_run_and_says_which() -> None:
    with pytest.raises(OffsiteError, match="had no effect: step") as raised:
        drive_through([STEP], [STEP])
    assert "the same command goes on from here" in raised.value.hint
    assert list(journal.operations()) == ["grow-test_a"]


def test_a_step_may_have_some_time_to_take_effect(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    assert drive_through(*[[STEP]] * 10, [GROWN], patience=60.0) == [
        "step  # it is left",
        "lvextend x  # it is too small",
    ]
    assert programs.ran.count(STEP.argv) == 1
    assert journal.operations() == {}


def test_a_step_without_effect_ends_the_run_when_its_time_is_over(
    programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr("time.sleep", waited.append)
    monkeypatch.setattr("time.monotonic", lambda: sum(waited))
    with pytest.raises(OffsiteError, match="had no effect: step"):
        drive_through(*[[STEP]] * 1000, patience=60.0)
    assert sum(waited) == pytest.approx(60.0, abs=1.0)
    assert programs.ran.count(STEP.argv) == 1


def test_what_cannot_be_seen_any_more_is_not_waited_for(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = "exists -\n"
    monkeypatch.setattr("time.sleep", lambda _: programs.allow(drbd.EVENTS, Answer("", 5, "no answer")))
    programs.allow(drbd.EVENTS, seen)
    with pytest.raises(OffsiteError, match=r"cannot be seen: .*no answer"):
        drive_through(*[[STEP]] * 10, patience=60.0)


def test_steps_without_an_end_are_ended() -> None:
    with pytest.raises(OffsiteError, match="no end to the steps"):
        drive_through(*[[STEP], [GROWN]] * drive.STEPS)
    assert list(journal.operations()) == ["grow-test_a"]


def test_a_step_that_fails_leaves_the_operation_to_the_next_run(programs: Programs) -> None:
    programs.allow(STEP.argv, Answer("", 1, "because"))
    with pytest.raises(ToolFailed, match="because"):
        drive_through([STEP])
    assert list(journal.operations()) == ["grow-test_a"]


@pytest.mark.parametrize("look", [drbd.EVENTS, lvm.REPORT], ids=["drbd", "lvm"])
def test_what_cannot_be_seen_is_no_ground_to_go_on_from(programs: Programs, look: tuple[str, ...]) -> None:
    """A resource that is hidden looks like one that is down, and a volume like one that is gone."""
    programs.allow(look, Answer("", 5, "no answer"))
    with pytest.raises(OffsiteError, match=r"cannot be seen: .*no answer") as raised:
        drive_through([STEP])
    assert "same command" in raised.value.hint
    assert STEP.argv not in programs.ran
    assert list(journal.operations()) == ["grow-test_a"]


def test_what_the_peer_answers_is_noted_before_the_next_look(programs: Programs) -> None:
    answer = Answer(protocol.encode_answer(messages.Enlarged(7)))
    programs.machine = lambda argv, _: answer if argv[0] == "ssh" else None
    known = []

    def steps(_: Site, __: Host, operation: Operation) -> Iterator[Action]:
        known.append(dict(operation.parameters))
        return iter([AskPeer("backup", REQUEST, "why")] if len(known) == 1 else [])

    drive.drive(begun(), steps, lambda _: None, lambda _, answer: {"there_bytes": answer.size_bytes})
    assert known == [{"asked": "x"}, {"asked": "x", "there_bytes": 7}]


def test_what_is_noted_after_a_step_is_known_at_the_next_look() -> None:
    known = []

    def steps(_: Site, __: Host, operation: Operation) -> Iterator[Action]:
        known.append(dict(operation.parameters))
        return iter([Once(STEP, Note(operation, "done", True, "why"))] if len(known) == 1 else [])

    drive.drive(begun(), steps, lambda _: None)
    assert known == [{"asked": "x"}, {"asked": "x", "done": True}]
