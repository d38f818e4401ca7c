import errno
import io
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from drbd_offsite import config, journal, messages, peer_service, protocol
from drbd_offsite.errors import ExitCode, Refused, ToolFailed
from drbd_offsite.model import Flavour
from drbd_offsite.operations import enrol, half, measure, share

from .conftest import Programs
from .operations.test_half import REQUEST, bare
from .operations.world import World
from .test_protocol import ENROL, REQUESTS

CONNECT = messages.Connect("test_a")
ENLARGE = messages.Enlarge("test_a", REQUEST.size_bytes, only_check=False)
RENAME = messages.Rename("test_a", "test_b", REQUEST.server, only_check=True)
RELEASE = messages.Release("test_a", REQUEST.server, delete_copy=False, only_check=False)


@pytest.fixture
def backup(programs: Programs, root: Path) -> World:
    return World(bare(Flavour.BACKUP), programs, root)


def serve(
    request: messages.Request | str | bytes, peer: str = "server", *, enrolling: bool = False
) -> tuple[int, dict[str, object]]:
    """The exit code and the one JSON object that was answered."""
    raw = request if isinstance(request, str | bytes) else protocol.encode_request(request)
    stdin = SimpleNamespace(buffer=io.BytesIO(raw if isinstance(raw, bytes) else raw.encode()))
    stdout = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", stdin)
        patch.setattr(sys, "stdout", stdout)
        code = peer_service.serve(peer, enrolling=enrolling)
    return code, json.loads(stdout.getvalue())


def refused(request: messages.Request | str | bytes, peer: str = "server", *, enrolling: bool = False) -> str:
    before = config.PATH.read_text()
    code, said = serve(request, peer, enrolling=enrolling)
    assert code == ExitCode.REFUSED
    assert said["error"]["exit_code"] == ExitCode.REFUSED
    assert config.PATH.read_text() == before
    assert journal.operations() == {}
    return str(said["error"]["message"])


def test_a_report_says_who_is_there_and_what_it_has(backup: World) -> None:
    code, said = serve(messages.Report())
    assert code == ExitCode.DONE
    report = protocol.decode_answer(messages.MachineReport, json.dumps(said))
    assert (report.drbd_version, report.resources) == ("8.4.11", [])
    assert backup.machine.log == []


def test_a_replica_is_made_on_request(backup: World) -> None:
    code, said = serve(REQUEST)
    assert code == ExitCode.DONE
    made = protocol.decode_answer(messages.Replicated, json.dumps(said))
    assert made.half.volume == "local/test_a"
    assert backup.machine.kernel is not None


def test_a_refusal_is_an_answer_with_its_exit_code(backup: World) -> None:
    backup.machine.volumes[REQUEST.server.replica().volume] = 1
    assert "exists already" in refused(REQUEST)


@pytest.mark.parametrize(
    "request_", [messages.Hello(), messages.Report(), REQUEST, ENLARGE, RELEASE, CONNECT], ids=lambda r: r.VERB
)
@pytest.mark.usefixtures("backup")
def test_an_invitation_s_key_can_only_enrol(request_: messages.Request) -> None:
    assert "may enrol and nothing else" in refused(request_, enrolling=True)


@pytest.mark.usefixtures("backup")
def test_no_other_key_can_enrol() -> None:
    assert "no other key may" in refused(ENROL)


@pytest.mark.usefixtures("backup")
def test_a_peer_that_is_not_configured_is_refused_whatever_it_asks() -> None:
    assert "no peer stranger" in refused(messages.Hello(), "stranger")


def test_a_peer_connects_its_own_resources_only(backup: World) -> None:
    serve(REQUEST)
    second = {"hostname": "second", "device": "tun1", "server_address": "10.89.34.1", "backup_address": "10.89.34.2"}
    changes = {f"peers.second.{key}": value for key, value in second.items()}
    config.PATH.write_text(config.updated(config.PATH.read_text(), changes))
    assert "has no resource test_a" in refused(CONNECT, "second")
    assert "has no resource other" in refused(messages.Connect("other"))
    assert serve(CONNECT)[0] == ExitCode.DONE
    assert backup.machine.kernel.connected


def serve_lines(monkeypatch: pytest.MonkeyPatch, *lines: str) -> tuple[int, list[str]]:
    """The exit code and the lines that were answered."""
    stdout = io.StringIO()
    monkeypatch.setenv("SSH_ORIGINAL_COMMAND", protocol.LINES)
    raw = "".join(f"{line}\n" for line in lines).encode()
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(raw)))
    monkeypatch.setattr(sys, "stdout", stdout)
    code = peer_service.serve("server", enrolling=False)
    return code, stdout.getvalue().splitlines()


@pytest.mark.usefixtures("backup")
def test_many_requests_have_an_answer_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    code, said = serve_lines(monkeypatch, *[protocol.encode_request(messages.Report())] * 3)
    assert code == ExitCode.DONE
    assert [protocol.decode_answer(messages.MachineReport, line).drbd_version for line in said] == ["8.4.11"] * 3


@pytest.mark.usefixtures("backup")
def test_after_one_that_is_refused_no_more_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    code, said = serve_lines(monkeypatch, "reboot", protocol.encode_request(messages.Report()))
    assert code == ExitCode.REFUSED
    assert len(said) == 1
    with pytest.raises(Refused):
        protocol.decode_answer(messages.MachineReport, said[0])


@pytest.mark.usefixtures("backup")
def test_a_line_may_be_no_longer_than_a_request(monkeypatch: pytest.MonkeyPatch) -> None:
    code, said = serve_lines(monkeypatch, "x" * 70000)
    assert (code, len(said)) == (ExitCode.REFUSED, 1)


BAD = [
    b"", b"{", b"null", b"\xff\xfe", b"[" * 60000, b"x" * 70000, b'{"version": 1, "verb": "reboot"}',
    b'{"version": 1, "verb": "hello", "more": 1}', b'{"version": 2, "verb": "hello"}', b"GET / HTTP/1.0\r\n\r\n",
]  # fmt: skip


@pytest.mark.parametrize("raw", BAD, ids=lambda raw: repr(raw[:12]))
def test_anything_else_is_logged_and_refused_and_changes_nothing(backup: World, raw: bytes) -> None:
    refused(raw)
    assert backup.machine.log == []
    (event,) = journal.events()
    assert event["event"] == "bad-request"
    assert "server" in event["text"]
    assert len(event["text"]) < 300


def test_no_more_is_read_than_a_request_can_have(backup: World) -> None:
    del backup
    endless = SimpleNamespace(read=lambda limit: b" " * limit)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", SimpleNamespace(buffer=endless))
        patch.setattr(sys, "stdout", io.StringIO())
        assert peer_service.serve("server", enrolling=False) == ExitCode.REFUSED


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(raw=st.binary(max_size=200) | REQUESTS.map(lambda r: protocol.encode_request(r)[:-1].encode()))
def test_any_bytes_get_one_json_answer(backup: World, raw: bytes) -> None:
    code, said = serve(raw)
    assert code != ExitCode.DONE
    assert set(said) == {"version", "error"}
    assert backup.machine.log == []


def test_a_machine_that_is_not_configured_answers_too() -> None:
    code, said = serve(messages.Hello())
    assert code == ExitCode.FAILED
    assert "not configured" in said["error"]["message"]


def test_a_refusal_of_the_operation_is_no_bad_request(backup: World, monkeypatch: pytest.MonkeyPatch) -> None:
    del backup

    def no(*_: object) -> None:
        raise Refused("no", "but")

    monkeypatch.setattr(half, "replicate", no)
    assert refused(REQUEST) == "no"
    assert journal.events() == []


def test_a_full_disk_is_an_answer_too(backup: World, monkeypatch: pytest.MonkeyPatch) -> None:
    del backup

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(half, "replicate", full)
    code, said = serve(REQUEST)
    assert code == ExitCode.FAILED
    assert "No space left" in said["error"]["message"]
    monkeypatch.setattr(journal, "record", full)
    assert refused("no request at all"), "what cannot be noted is refused all the same"


def test_a_key_is_set_on_request_and_nothing_else_is(backup: World) -> None:
    serve(REQUEST)
    tune = messages.Tune("test_a", "alerts", "none", only_check=False)
    assert serve(tune)[0] == ExitCode.DONE
    assert config.load().resources["test_a"].alerts == "none"
    log = list(backup.machine.log)
    assert "alerts cannot be 'loud'" in refused(replace(tune, value="loud"))
    assert "has no resource other" in refused(replace(tune, name="other"))
    assert journal.events()[-1]["event"] == "bad-request"
    assert backup.machine.log == log


def test_a_peer_enlarges_and_releases_its_own_resources_only(backup: World) -> None:
    serve(REQUEST)
    second = {"hostname": "second", "device": "tun1", "server_address": "10.89.34.1", "backup_address": "10.89.34.2"}
    changes = {f"peers.second.{key}": value for key, value in second.items()}
    config.PATH.write_text(config.updated(config.PATH.read_text(), changes))
    log = list(backup.machine.log)
    assert "has no resource test_a" in refused(ENLARGE, "second")
    assert "has no such resource test_a" in refused(RELEASE, "second")
    assert [e["event"] for e in journal.events()][-2:] == ["bad-request"] * 2
    assert backup.machine.log == log
    assert serve(RELEASE)[0] == ExitCode.DONE
    assert backup.machine.kernel is None


# -- what rsync has to say instead of a request -------------------------------------------------------


def stream(command: str, peer: str = "server", *, enrolling: bool = False) -> tuple[int, str]:
    """The exit code and what is said on standard error, which is all that is said of errors."""
    stderr = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSH_ORIGINAL_COMMAND", command)
        patch.setattr(sys, "stdin", SimpleNamespace(fileno=lambda: 7))
        patch.setattr(sys, "stdout", SimpleNamespace(fileno=lambda: 8))
        patch.setattr(sys, "stderr", stderr)
        code = peer_service.serve(peer, enrolling=enrolling)
    return code, stderr.getvalue()


@pytest.mark.usefixtures("backup")
def test_the_bytes_of_files_are_relayed(monkeypatch: pytest.MonkeyPatch) -> None:
    relayed: list[object] = []
    monkeypatch.setattr(share, "relay", lambda _, *what: relayed.append(what))
    assert stream("files test_a") == (ExitCode.DONE, "")
    assert relayed == [("server", "test_a", 7, 8)]


@pytest.mark.usefixtures("backup")
@pytest.mark.parametrize(
    ("command", "peer", "enrolling", "why"),
    [
        ("files test_a", "server", True, "may enrol and nothing else"),
        ("files test_a", "stranger", False, "no peer stranger"),
        ("files test_z", "server", False, "has no resource test_z"),
    ],
)
def test_files_are_for_a_peer_that_shares_them(command: str, peer: str, enrolling: bool, why: str) -> None:
    code, said = stream(command, peer, enrolling=enrolling)
    assert (code, why in said) == (ExitCode.REFUSED, True)
    assert journal.events()[-1]["event"] == "bad-request"


def test_what_is_not_shared_now_is_said(backup: World) -> None:
    del backup
    assert serve(REQUEST)[0] == ExitCode.DONE
    code, said = stream("files test_a")
    assert code == ExitCode.REFUSED
    assert said == "No look at test_a is shared by the backup now. Run it again.\n"


@pytest.mark.usefixtures("backup")
@pytest.mark.parametrize(
    "command", ["files", "files ", "files ../x", "files a b", "files test_a\n", "files -x", " files test_a", "sh", "x"]
)
def test_any_other_command_is_none(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_ORIGINAL_COMMAND", command)
    assert serve(messages.Report())[0] == ExitCode.DONE


# -- what the line is measured by ------------------------------------------------------------------------


def measuring(command: str, peer: str = "server", *, enrolling: bool = False) -> tuple[int, list[str]]:
    """The exit code and the lines that were answered."""
    stdout = SimpleNamespace(fileno=lambda: 8, flush=lambda: None)
    said = io.StringIO()
    stdout.write = said.write
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSH_ORIGINAL_COMMAND", command)
        patch.setattr(sys, "stdin", SimpleNamespace(fileno=lambda: 7))
        patch.setattr(sys, "stdout", stdout)
        code = peer_service.serve(peer, enrolling=enrolling)
    return code, said.getvalue().splitlines()


@pytest.mark.usefixtures("backup")
@pytest.mark.parametrize(("command", "gives"), [(protocol.TAKE, False), (protocol.GIVE, True)])
def test_it_takes_part_in_measuring_the_line_with_an_answer_a_line(
    command: str, gives: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts: list[object] = []

    def take_part(_: object, *ends: object, gives: bool) -> Iterator[messages.Answer]:
        parts.append((*ends, gives))
        yield messages.Agreed()
        yield messages.Arrived(1000, 10)

    monkeypatch.setattr(measure, "take_part", take_part)
    code, said = measuring(command)
    assert code == ExitCode.DONE
    assert parts == [("server", 7, 8, gives)]
    assert protocol.decode_answer(messages.Agreed, said[0]) == messages.Agreed()
    assert protocol.decode_answer(messages.Arrived, said[1]) == messages.Arrived(1000, 10)


@pytest.mark.usefixtures("backup")
@pytest.mark.parametrize(
    ("peer", "enrolling", "why"),
    [("server", True, "may enrol and nothing else"), ("stranger", False, "no peer stranger")],
)
def test_the_line_is_measured_with_a_peer_s_own_key_only(peer: str, enrolling: bool, why: str) -> None:
    code, said = measuring(protocol.GIVE, peer, enrolling=enrolling)
    assert (code, len(said)) == (ExitCode.REFUSED, 1)
    with pytest.raises(Refused, match=why):
        protocol.decode_answer(messages.Agreed, said[0])
    assert journal.events()[-1]["event"] == "bad-request"


@pytest.mark.usefixtures("backup")
@pytest.mark.parametrize(
    ("error", "code", "lines"),
    [
        (Refused("the line is needed"), ExitCode.REFUSED, 1),
        (ToolFailed("nothing came"), ExitCode.FAILED, 1),
        (OSError(errno.ENOSPC, "No space left"), ExitCode.FAILED, 1),
        (BrokenPipeError(), ExitCode.FAILED, 0),
    ],
)
def test_why_it_does_not_go_on_is_an_answer_too(
    error: Exception, code: ExitCode, lines: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def take_part(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(measure, "take_part", take_part)
    ended, said = measuring(protocol.TAKE)
    assert (ended, len(said)) == (code, lines)


@pytest.mark.usefixtures("backup")
def test_another_speed_of_the_line_is_the_asking_peer_s(backup: World) -> None:
    assert serve(messages.SetSpeed(7, only_check=False))[0] == ExitCode.DONE
    assert config.load().peers["server"].link_speed == 7
    assert backup.machine.log == []


def test_every_request_is_served(backup: World, monkeypatch: pytest.MonkeyPatch) -> None:
    del backup
    monkeypatch.setattr(enrol, "hello", lambda *_: messages.Greeting("backup", "backup", "", journal.now()))
    monkeypatch.setattr(enrol, "enrol", lambda *_: messages.Done())
    monkeypatch.setattr(share, "answer", lambda *_: messages.Done())
    looks = (messages.Share("test_a"), messages.Unshare("test_a"))
    for request in (messages.Hello(), messages.Report(), REQUEST, CONNECT, ENLARGE, RENAME, *looks, RELEASE):
        assert serve(request)[0] == ExitCode.DONE
    assert serve(ENROL, enrolling=True)[0] == ExitCode.DONE
