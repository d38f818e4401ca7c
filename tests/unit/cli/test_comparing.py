"""The words of failback --diff and --copy, and of what they have run."""

import json
import os

import pytest

from drbd_offsite import config, peer
from drbd_offsite.cli import comparing, failback, files
from drbd_offsite.errors import ExitCode, Refused
from drbd_offsite.operations.compare import Brought
from drbd_offsite.plan.compare import Difference
from drbd_offsite.tools.rsync import Change, What

from .. import make
from .conftest import Command

FOUND = [Difference("a", "differs"), Difference("b\x1b", "only on the server"), Difference("c/", "only on the backup")]


@pytest.fixture(autouse=True)
def site() -> None:
    config.PATH.write_text(make.CONFIG)


def test_what_differs_is_listed(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparing.compare, "differences", lambda *_: FOUND)
    said = command("failback", "--diff", "test_a")
    assert said.code == ExitCode.WARNED
    assert said.out == (
        "differs             a\n"
        "only on the server  $'b\\033'\n"
        "only on the backup  c/\n"
        "test_a: only on the server: 1, only on the backup: 1, differs: 1.\n"
    )


def test_a_program_gets_a_list(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparing.compare, "differences", lambda *_: FOUND)
    said = command("failback", "--diff", "--json", "test_a")
    assert said.code == ExitCode.WARNED
    assert json.loads(said.out)[1] == {"path": "b\x1b", "how": "only on the server"}


@pytest.mark.parametrize(("words", "out"), [((), "test_a: nothing differs.\n"), (("--json",), "[]\n")])
def test_nothing_differs(command: Command, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], out: str) -> None:
    monkeypatch.setattr(comparing.compare, "differences", lambda *_: [])
    said = command("failback", "--diff", *words, "test_a")
    assert (said.code, said.out) == (ExitCode.DONE, out)


def test_what_came_is_listed(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted: list[list[str]] = []

    def bring(_site: object, _resource: object, paths: list[str], _tell: object) -> Brought:
        wanted.append(paths)
        return Brought("/srv/a", (Change(What.CONTENT, "a"),), ".before", "")

    monkeypatch.setattr(comparing.compare, "bring", bring)
    said = command("failback", "--copy", "a", "--copy", "two words/", "test_a")
    assert wanted == [["a", "two words"]]
    assert said.code == ExitCode.DONE
    assert said.out.startswith("a\ntest_a: 1 brought from the backup to /srv/a.")


def test_what_did_not_come_is_a_failure(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparing.compare, "bring", lambda *_: Brought("/srv/a", (), ".before", "rsync ended with 23"))
    said = command("failback", "--copy", "a", "test_a")
    assert said.code == ExitCode.FAILED
    assert "Not all of it came: rsync ended with 23" in said.err


@pytest.mark.parametrize(
    "words",
    [
        ("--copy", "../etc", "test_a"), ("--copy", "/etc/passwd", "test_a"), ("--copy", "", "test_a"),
        ("--diff", "--copy", "a", "test_a"), ("--diff", "--keep", "server", "test_a"), ("--json", "test_a"),
        ("--diff",), ("--diff", "other"),
    ],
)  # fmt: skip
def test_words_that_cannot_be_meant_are_refused_before_anything_else(command: Command, words: tuple[str, ...]) -> None:
    assert command("failback", *words).code == ExitCode.USAGE


def test_a_refusal_is_said(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def no(*_: object) -> None:
        raise Refused("no room", "make some")

    monkeypatch.setattr(comparing.compare, "differences", no)
    monkeypatch.setattr(failback.inspect, "close", lambda _: pytest.fail("a person's look is no matter of this"))
    said = command("failback", "--diff", "test_a")
    assert (said.code, said.err) == (ExitCode.REFUSED, "drbd-offsite: no room\nmake some\n")


def test_a_unit_is_told_when_it_can_be_read(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(files, "notify", told.append)
    monkeypatch.setattr(files, "share", lambda _site, _resource, _tell, ready: ready())
    assert command("files", "test_a").code == ExitCode.DONE
    assert told == ["READY=1"]


def test_rsync_s_remote_shell_becomes_ssh(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    became: list[list[str]] = []

    def become(_file: str, argv: list[str], environment: dict[str, str]) -> None:
        assert environment["LC_ALL"] == "C.UTF-8"
        became.append(argv)

    monkeypatch.setattr(os, "execvpe", become)
    command("peer-files", "test_a", "peer", "rsync", "--server", "--daemon", ".")
    (argv,) = became
    assert (argv[0], argv[-3:]) == ("ssh", ["root@10.89.33.2", "files", "test_a"])
    assert argv[argv.index("-i") + 1] == str(peer.KEYS / "backup/ssh")


def test_an_ssh_that_is_not_there(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> None:
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(os, "execvpe", missing)
    said = command("peer-files", "test_a", "peer", "rsync")
    assert said.code == ExitCode.FAILED
    assert "ssh could not be started" in said.err
