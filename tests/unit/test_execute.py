import re
import stat
from pathlib import Path
from typing import get_args

import pytest

from drbd_offsite import host, journal, messages, protocol
from drbd_offsite.errors import BadRequest, OffsiteError, Refused, ToolFailed
from drbd_offsite.execute import CONNECT_TRIES, LEAVE_TRIES, WORD_SECONDS, execute
from drbd_offsite.observed import Consultation, Forbidden
from drbd_offsite.plan.actions import (
    Action,
    AskPeer,
    CarryOver,
    Consult,
    Disconnect,
    Lift,
    Note,
    Once,
    Promote,
    RemoveFile,
    Run,
    SkipSync,
    WriteFile,
)
from drbd_offsite.tools import drbd

from . import make
from .conftest import Answer, Programs

SITE = make.site()
REQUEST = messages.Replicate("test_a", 1, messages.Half.of(make.replica()), overwrite_metadata=False, only_check=False)


def test_a_program_is_run_with_its_words(programs: Programs) -> None:
    programs.allow(("drbdadm", "attach", "test_a"))
    assert execute(Run(("drbdadm", "attach", "test_a"), "why"), SITE) is None
    assert programs.ran == [("drbdadm", "attach", "test_a")]


def test_a_program_that_fails_is_an_error(programs: Programs) -> None:
    programs.allow(("false",), Answer("", 1, "because"))
    with pytest.raises(ToolFailed, match="because"):
        execute(Run(("false",), "why"), SITE)


def test_a_program_that_refuses_for_a_moment_is_run_again_and_not_for_ever(
    programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen on a server that wrote all the time: behind again between the look and the command."""
    naps: list[float] = []
    monkeypatch.setattr("time.sleep", naps.append)
    resize = ("drbdadm", "resize", "test_a")
    refusal = Answer("", 10, "test_a: Failure: (130) Resize not allowed during resync.")
    programs.allow(resize, refusal, refusal, Answer())
    execute(Run(resize, "why", tries=3), SITE)
    assert naps == [1.0, 1.0]
    programs.allow(resize, refusal)
    programs.ran.clear()
    with pytest.raises(ToolFailed, match="not allowed during resync"):
        execute(Run(resize, "why", tries=3), SITE)
    assert len(programs.ran) == 3


def test_a_file_is_written_with_its_directories_and_taken_away(root: Path) -> None:
    path = root / "etc/systemd/system/x.service.d/y.conf"
    execute(WriteFile("/etc/systemd/system/x.service.d/y.conf", "text\n", 0o600, "why"), SITE)
    assert path.read_text() == "text\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    execute(RemoveFile("/etc/systemd/system/x.service.d/y.conf", "why"), SITE)
    assert not path.exists()


def test_a_unit_s_directory_of_drop_ins_goes_with_the_last_of_them(root: Path) -> None:
    ours, theirs = "/etc/systemd/system/x.service.d/volume.conf", "/etc/systemd/system/x.service.d/theirs.conf"
    for path in (ours, theirs):
        execute(WriteFile(path, "text\n", 0o644, "why"), SITE)
    execute(RemoveFile(ours, "why"), SITE)
    assert (root / theirs.lstrip("/")).exists()
    execute(RemoveFile(theirs, "why"), SITE)
    assert not (root / "etc/systemd/system/x.service.d").exists()
    execute(RemoveFile(theirs, "why"), SITE)


def test_the_directory_of_somebody_else_s_package_stays(root: Path) -> None:
    execute(WriteFile("/etc/drbd.d/0_test_a.res", "text\n", 0o600, "why"), SITE)
    execute(RemoveFile("/etc/drbd.d/0_test_a.res", "why"), SITE)
    assert list((root / "etc/drbd.d").iterdir()) == []


def test_a_step_without_a_trace_is_noted_after_it(programs: Programs) -> None:
    begun = journal.begin("grow", "test_a", {"done": False})
    once = Once(Run(("resize2fs", "/dev/drbd0"), "why"), Note(begun, "done", True, "why"))
    programs.allow(("resize2fs", "/dev/drbd0"), Answer("", 1, "no"), Answer())
    with pytest.raises(ToolFailed):
        execute(once, SITE)
    assert journal.operations()["grow-test_a"].parameters == {"done": False}
    execute(once, SITE)
    assert journal.operations()["grow-test_a"].parameters == {"done": True}


def test_all_holds_are_lifted_where_nobody_is_named() -> None:
    for setter in ("hold", "disconnect"):
        journal.hold("test_a", "because", frozenset({Forbidden.CONNECT}), setter)
    journal.hold("test_b", "because", frozenset({Forbidden.CONNECT}), "hold")
    execute(Lift("test_a", "", "it is gone"), SITE)
    assert list(journal.holds()) == ["test_b"]


# -- the end of a connection -----------------------------------------------------------------------


DISCONNECT = ("drbdadm", "disconnect", "test_a")


def connection(state: str) -> str:
    """The kernel goes on listing one that was ended."""
    line = f"exists connection name:test_a peer-node-id:0 connection:{state} role:Unknown\n" if state else ""
    return f"exists resource name:test_a role:Primary suspended:no\n{line}exists -\n"


@pytest.fixture
def _kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    host.PROC_DRBD.write_text("version: 8.4.11 (api:1/proto:86-101)\n")
    monkeypatch.setattr("time.sleep", lambda _: None)


@pytest.mark.parametrize("after", [connection("StandAlone"), connection(""), "exists -\n"])
@pytest.mark.parametrize(
    "end",
    [Answer(), Answer("", 5, "drbdsetup did not terminate within 5 seconds")],
    ids=["in time", "after drbdadm had lost its patience"],
)
@pytest.mark.usefixtures("_kernel")
def test_a_connection_is_ended_when_the_kernel_says_so(programs: Programs, after: str, end: Answer) -> None:
    programs.allow(drbd.EVENTS, after)
    programs.allow(DISCONNECT, end)
    execute(Disconnect("test_a", "why"), SITE)
    assert programs.ran.count(DISCONNECT) == 1


@pytest.mark.usefixtures("_kernel")
def test_a_peer_that_refuses_is_asked_again_and_not_for_ever(programs: Programs) -> None:
    """Two that leave at the same instant refuse each other."""
    refusal = Answer("", 11, "State change failed: (-10) State change was refused by peer node")
    programs.allow(DISCONNECT, refusal)
    programs.allow(drbd.EVENTS, connection("Connected"), connection("Connected"), connection("StandAlone"))
    execute(Disconnect("test_a", "why"), SITE)
    assert programs.ran.count(DISCONNECT) == 3
    programs.allow(drbd.EVENTS, connection("Connected"))
    programs.ran.clear()
    with pytest.raises(ToolFailed, match=r"could not be disconnected: .*refused by peer node"):
        execute(Disconnect("test_a", "why"), SITE)
    assert programs.ran.count(DISCONNECT) == LEAVE_TRIES


def test_the_peer_is_asked_and_its_answer_returned(programs: Programs) -> None:
    answer = messages.Replicated(messages.Half.of(make.replica(4)), 5)
    programs.machine = lambda argv, _: Answer(protocol.encode_answer(answer)) if argv[0] == "ssh" else None
    assert execute(AskPeer("backup", REQUEST, "why"), SITE) == answer
    assert protocol.decode_request(programs.inputs[0]) == REQUEST


def test_each_request_has_an_answer_of_its_own_kind(programs: Programs) -> None:
    half = messages.Half.of(make.replica())
    release = messages.Release("test_a", half, delete_copy=False, only_check=False)
    for request, answer in (
        (messages.Enlarge("test_a", 1, only_check=False), messages.Enlarged(7)),
        (release, messages.Done()),
    ):
        said = Answer(protocol.encode_answer(answer))
        programs.machine = lambda argv, _, said=said: said if argv[0] == "ssh" else None
        assert execute(AskPeer("backup", request, "why"), SITE) == answer
    with pytest.raises(BadRequest):
        execute(AskPeer("backup", messages.Enlarge("test_a", 1, only_check=False), "why"), SITE)


def test_a_note_is_on_disk() -> None:
    begun = journal.begin("add", "test_a", {"peer": "backup", "metadata_created": False})
    execute(Note(begun, "metadata_created", True, "why"), SITE)
    assert journal.operations()["add-test_a"].parameters == {"peer": "backup", "metadata_created": True}


# -- has the peer taken over? ----------------------------------------------------------------------


CONSULT = Consult("test_a", "backup", "why")


def said(*resources: messages.ResourceReport) -> str:
    return protocol.encode_answer(messages.MachineReport("backup", "8.4.11", list(resources)))


def one(name: str = "test_a", role: str = "Secondary") -> messages.ResourceReport:
    return messages.ResourceReport(name, role, "UpToDate", "Connecting", 0, "")


def consult(programs: Programs, answer: Answer | str) -> Consultation | None:
    programs.machine = lambda argv, _: (
        (answer if isinstance(answer, Answer) else Answer(answer)) if argv[0] == "ssh" else None
    )
    assert execute(CONSULT, SITE) is None
    return host.observe(SITE).consulted.get("test_a")


@pytest.mark.parametrize("role", ["Secondary", "Unknown", "Levitating"])
def test_a_peer_that_does_not_serve_leaves_the_way_free(programs: Programs, role: str) -> None:
    found = consult(programs, said(one("test_b", "Primary"), one(role=role)))
    assert found
    assert found.free
    assert journal.holds() == {}


def test_a_peer_that_does_not_know_the_resource_leaves_the_way_free(programs: Programs) -> None:
    found = consult(programs, said())
    assert found
    assert found.free


def test_a_peer_that_serves_is_not_served_against(programs: Programs) -> None:
    """Neither promoted nor connected: which copy is to go on is a person's decision."""
    assert consult(programs, said(one(role="Primary"))) is None, "it is settled, and asked anew when the hold is lifted"
    (hold,) = journal.holds()["test_a"]
    assert hold.forbids == {Forbidden.PROMOTE, Forbidden.CONNECT}
    assert hold.set_by == "taken-over"
    assert "backup has taken over" in hold.reason


def test_a_peer_that_serves_it_by_the_name_that_it_had_or_will_have_is_not_served_against(programs: Programs) -> None:
    journal.begin("rename", "test_a", {"new": "test_b"})
    assert consult(programs, said(one("test_b", "Primary"))) is None
    assert [hold.set_by for hold in journal.holds()["test_a"]] == ["taken-over"]


@pytest.mark.parametrize(
    "answer",
    [Answer("", 255, "No route to host"), Answer("Welcome!\n"), Answer(protocol.encode_error(Refused("no", "")), 3),
     Answer(protocol.encode_answer(messages.Done())), Answer("")],
)  # fmt: skip
def test_silence_and_nonsense_are_no_answer_and_no_error(programs: Programs, answer: Answer) -> None:
    found = consult(programs, answer)
    assert found
    assert not found.free, "its time runs"
    assert journal.holds() == {}


def test_the_peer_is_not_waited_for_longer_than_a_moment(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []

    def ask(*_: object, seconds: float) -> None:
        asked.append(seconds)
        raise OffsiteError("silence")

    monkeypatch.setattr("drbd_offsite.peer.ask", ask)
    execute(CONSULT, SITE)
    assert asked == [WORD_SECONDS]
    assert programs.ran == []


def test_holds_are_carried_over() -> None:
    journal.hold("test_a", "wait", frozenset({Forbidden.CONNECT}), "test")
    execute(CarryOver("test_a", "b", (), "why"), SITE)
    assert set(journal.holds()) == {"test_a", "b"}


def test_promoting_settles_the_question(programs: Programs) -> None:
    host.consult("test_a", free=True)
    programs.allow(("drbdadm", "primary", "test_a"), Answer("", 11, "need access to UpToDate data"), Answer())
    with pytest.raises(ToolFailed):
        execute(Promote("test_a", "why"), SITE)
    assert "test_a" in host.observe(SITE).consulted
    execute(Promote("test_a", "why"), SITE)
    assert host.observe(SITE).consulted == {}


# -- the first sync of an empty volume ---------------------------------------------------------------

NEW = "exists resource name:test_a role:Secondary suspended:no\nexists device name:test_a volume:0 minor:0 disk:{}\n"
LINE = "exists connection name:test_a conn-name:backup connection:{} role:{}\n"
COPY = "exists peer-device name:test_a conn-name:backup volume:0 replication:Established peer-disk:{}\n"
APART = NEW.format("Inconsistent")
WAITING = APART + LINE.format("Connecting", "Unknown")
UNTOUCHED = APART + LINE.format("Connected", "Secondary") + COPY.format("Inconsistent")


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    slept: list[float] = []
    monkeypatch.setattr("time.sleep", slept.append)
    return slept


def skip(programs: Programs, *looks: str) -> list[str]:
    """What is done with DRBD while it looks like this, one look after the other; the last for ever."""
    host.PROC_DRBD.parent.mkdir(exist_ok=True)
    host.PROC_DRBD.write_text("version: 8.4.11 (api:1/proto:86-101)\n")
    programs.allow(drbd.EVENTS, *looks)
    execute(SkipSync("test_a", "why"), SITE)
    return [argv[1] for argv in programs.ran if argv[0] == "drbdadm"]


def test_two_copies_that_nothing_was_written_to_are_taken_as_equal_once_they_are_connected(
    programs: Programs, naps: list[float]
) -> None:
    programs.allow(drbd.adm("connect", "test_a"))
    programs.allow(drbd.skip_sync("test_a"))
    assert skip(programs, APART, WAITING, WAITING, UNTOUCHED) == ["connect", "new-current-uuid"]
    assert naps == [1.0] * 3
    assert journal.events() == []


@pytest.mark.parametrize(
    "look",
    [
        WAITING,
        UNTOUCHED.replace("connection:Connected role:Secondary", "connection:Connected role:Primary"),
        UNTOUCHED.replace("disk:Inconsistent", "disk:UpToDate", 1),
        UNTOUCHED.replace("peer-disk:Inconsistent", "peer-disk:UpToDate"),
        UNTOUCHED.replace("Established", "SyncTarget"),
        UNTOUCHED.replace("role:Secondary suspended", "role:Primary suspended"),
        "exists -\n",
    ],
    ids=["not connected", "served there", "complete here", "complete there", "in a sync", "served here", "down"],
)
def test_what_does_not_get_there_is_left_to_its_first_sync(programs: Programs, naps: list[float], look: str) -> None:
    assert skip(programs, look) == []
    assert len(naps) == CONNECT_TRIES
    (event,) = journal.events()
    assert "could not be avoided: no new copy was connected within 60 s" in event["text"]


@pytest.mark.parametrize(
    ("argv", "look"), [(drbd.adm("connect", "test_a"), APART), (drbd.skip_sync("test_a"), UNTOUCHED)]
)
def test_what_drbd_refuses_is_recorded_and_left_to_its_first_sync(
    programs: Programs, naps: list[float], argv: tuple[str, ...], look: str
) -> None:
    programs.allow(argv, Answer("", 10, "Failure: (151)"))
    assert skip(programs, look) == [argv[1]]
    assert naps == []
    (event,) = journal.events()
    assert "Failure: (151)" in event["text"]


def test_every_kind_of_action_can_be_carried_out() -> None:
    import inspect

    source = inspect.getsource(execute)
    assert all(re.search(rf"(case|\|) {kind.__name__}\(", source) for kind in get_args(Action))


def test_one_answer_is_about_all_that_wait_for_it(programs: Programs) -> None:
    site = make.site(resources=("test_a", "test_b", "test_c"))
    for name in ("test_b", "test_c"):
        host.consult(name, free=False)
    answer = said(one(), one("test_b", "Primary"), one("test_c"))
    programs.machine = lambda argv, _: Answer(answer) if argv[0] == "ssh" else None
    execute(CONSULT, site)
    assert {name: found.free for name, found in host.consultations().items()} == {"test_a": True, "test_c": True}
    assert list(journal.holds()) == ["test_b"]


def test_a_peer_that_is_silent_costs_many_resources_the_time_of_one(
    programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = make.site(resources=("test_a", "test_b", "test_c"))
    programs.machine = lambda argv, _: Answer("", 255, "No route to host") if argv[0] == "ssh" else None
    for name in site.resources:
        execute(Consult(name, "backup", "why"), site)
    assert len(programs.ran) == 1
    assert set(host.consultations()) == set(site.resources), "the time of each runs"
    monkeypatch.setattr(host, "ASK_AGAIN_SECONDS", 0.0)
    execute(CONSULT, site)
    assert len(programs.ran) == 2
