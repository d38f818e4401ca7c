"""The machine that serves asks, the other one answers, and both remember up to when the copy has everything."""

import time
from pathlib import Path

import pytest

from drbd_offsite import config, host, journal, messages, protocol
from drbd_offsite.errors import OffsiteError, Refused, ToolFailed
from drbd_offsite.host import COMPLETE, observe
from drbd_offsite.model import Flavour, Site
from drbd_offsite.observed import Host
from drbd_offsite.operations import marks
from drbd_offsite.tools import sockets
from drbd_offsite.tools.sockets import Socket

from .. import make
from ..conftest import Answer, Programs

SERVER, BACKUP = make.site(), make.site(Flavour.BACKUP)
PEER = SERVER.peers["backup"]
T1, T2, T3 = (f"2026-01-01T12:00:{second}0+00:00" for second in range(3))
OPEN = (
    Socket("10.89.33.1:39247", "10.89.33.2:7789", 1000, 5),
    Socket("10.89.33.1:7789", "10.89.33.2:36707", 50, 60),
)


def lines_of(read: int) -> str:
    """What ss says on the backup, which has read so much of the data."""
    return (
        f"0 0 10.89.33.2:7789 10.89.33.1:39247 cubic bytes_received:{read}\n"
        "0 0 10.89.33.2:36707 10.89.33.1:7789 cubic bytes_received:50\n"
    )


class Backup:
    """At the other end of the line."""

    def __init__(self, programs: Programs) -> None:
        self.programs, self.read = programs, 0
        self.refuses: OffsiteError | None = None
        self.asked: list[list[str]] = []
        self.begun = self.closed = 0

    def __call__(self, argv: tuple[str, ...]) -> "Backup":
        assert argv[-1] == protocol.LINES
        self.begun += 1
        return self

    def ask(self, line: str, seconds: float) -> str:
        assert seconds > 0
        if self.refuses:
            return protocol.encode_error(self.refuses)
        request = protocol.decode_request(line)
        assert isinstance(request, messages.Marks)
        self.asked.append([mark.at for mark in request.marks])
        self.programs.allow(sockets.established([7789]), lines_of(self.read))
        answer = protocol.encode_answer(marks.pass_by(BACKUP, "server", request))
        journal.forget(COMPLETE, "server")  # that machine's own, and this one is the server
        return answer

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def backup(programs: Programs, root: Path, monkeypatch: pytest.MonkeyPatch) -> Backup:
    del root
    found = Backup(programs)
    monkeypatch.setattr(marks, "Dialogue", found)
    return found


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def line(said: list[str]) -> marks.Line:
    return marks.Line(said.append)


def machine(**changes: object) -> Host:
    return make.host(drbd=[make.seen(**changes)])


def ask(line: marks.Line, at: str, *, written: int = 1000, seen: Host | None = None, site: Site = SERVER) -> None:
    now = (Socket(OPEN[0].local, OPEN[0].remote, written, 5), OPEN[1])
    line.ask(site, PEER, at, seen or machine(), now)


def known() -> dict[str, str]:
    return journal.remembered(COMPLETE).get("backup", {})


def test_what_was_passed_is_remembered_and_what_was_not_is_asked_again(backup: Backup, line: marks.Line) -> None:
    backup.read = 1500
    ask(line, T1, written=1000)
    assert known() == {"test_a": T1}
    ask(line, T2, written=2000)
    assert known() == {"test_a": T1}
    backup.read = 2500
    ask(line, T3, written=3000)
    assert known() == {"test_a": T2}
    assert backup.asked == [[T1], [T2], [T2, T3]]
    assert backup.begun == 1
    assert observe(SERVER).complete == {"test_a": T2}


def test_while_something_is_missing_there_is_no_new_mark_and_the_old_ones_count(
    backup: Backup, line: marks.Line
) -> None:
    ask(line, T1)
    backup.read = 1000
    ask(line, T2, seen=machine(out_of_sync_bytes=4096))
    assert backup.asked == [[T1], [T1]]
    assert known() == {"test_a": T1}
    ask(line, T3, seen=machine(out_of_sync_bytes=4096))
    assert (len(backup.asked), backup.closed) == (2, 1), "there is nothing to ask"


def test_a_peer_that_cannot_be_understood_is_left_alone_for_a_while_and_said_once(
    backup: Backup, line: marks.Line, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    backup.refuses = Refused("The request's verb is none that is known here.")
    ask(line, T1)
    ask(line, T2)
    assert (backup.begun, backup.closed) == (1, 1)
    clock[0] += marks.AGAIN_SECONDS
    ask(line, T3)
    assert len(said) == 1
    assert "backup does not say what it has: The peer says: The request's verb" in said[0]
    clock[0] += marks.AGAIN_SECONDS
    backup.refuses, backup.read = None, 1000
    ask(line, T3)
    assert known() == {"test_a": T3}


@pytest.mark.usefixtures("root")
def test_a_line_that_ends_is_begun_anew(
    line: marks.Line, said: list[str], programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(_: object) -> None:
        raise ToolFailed("ssh has ended.")

    monkeypatch.setattr(marks, "Dialogue", away)
    ask(line, T1)
    assert said == ["backup does not say what it has: ssh has ended."]
    found = Backup(programs)
    monkeypatch.setattr(marks, "Dialogue", found)
    ask(line, T2)
    assert found.asked == [[T1, T2]], "the next time it is tried again"


def test_what_is_replicated_no_more_is_forgotten(backup: Backup, line: marks.Line) -> None:
    journal.remember(COMPLETE, "backup", {"gone": T1})
    backup.read = 1000
    ask(line, T2)
    assert known() == {"test_a": T2}


def test_a_look_takes_its_instant_first(programs: Programs, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    del root
    host.PROC_DRBD.parent.mkdir(exist_ok=True)
    host.PROC_DRBD.write_text("")
    order: list[str] = []
    monkeypatch.setattr(journal, "now", lambda: order.append("instant") or T1)
    monkeypatch.setattr(marks, "observe", lambda _: order.append("state") or machine())

    def listed(_: str) -> Answer:
        order.append("connections")
        return Answer()

    programs.allow(sockets.established([7789]), listed)
    at, _, found = marks.look(SERVER)
    assert (at, found) == (T1, ())
    assert order == ["instant", "state", "connections"]


# -- the other machine ---------------------------------------------------------------------------------


def request_of(name: str, written: int) -> messages.Marks:
    places = [
        messages.Place("10.89.33.1:39247", "10.89.33.2:7789", written),
        messages.Place("10.89.33.1:7789", "10.89.33.2:36707", 50),
    ]
    return messages.Marks([messages.Mark(name, T1, places)])


@pytest.fixture
def following(programs: Programs, root: Path) -> None:
    del root
    config.PATH.write_text(make.CONFIG)
    programs.allow(sockets.established([7789]), lines_of(1000))


@pytest.mark.usefixtures("following")
def test_the_backup_remembers_too() -> None:
    passed = marks.pass_by(BACKUP, "server", request_of("test_a", 1000))
    assert passed.complete == [messages.Complete("test_a", T1)]
    assert journal.remembered(COMPLETE) == {"server": {"test_a": T1}}
    assert marks.pass_by(BACKUP, "server", request_of("test_a", 2000)).complete == []
    assert journal.remembered(COMPLETE) == {"server": {"test_a": T1}}


@pytest.mark.usefixtures("following")
def test_of_what_is_not_shared_it_says_nothing() -> None:
    assert marks.pass_by(BACKUP, "server", request_of("other", 10)).complete == []
    assert marks.pass_by(BACKUP, "stranger", request_of("test_a", 10)).complete == []
    assert journal.remembered(COMPLETE) == {}
