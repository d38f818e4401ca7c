"""The words of failover, failback and switchover."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from drbd_offsite import config, host
from drbd_offsite.cli import consent, failback, failover, handing, looking, switchover
from drbd_offsite.errors import ExitCode, Refused
from drbd_offsite.model import Flavour, VolumeName
from drbd_offsite.observed import ConnectionState, Role
from drbd_offsite.operations.failover import TakenOver
from drbd_offsite.operations.handover import Outcome
from drbd_offsite.operations.inspect import Look
from drbd_offsite.plan.look import Check, Place, Source, Verdict

from .. import make
from .conftest import Command


@pytest.fixture(autouse=True)
def site() -> None:
    config.PATH.write_text(make.CONFIG.replace("flavour = server", "flavour = backup"))


def test_what_is_taken_over_is_named(command: Command) -> None:
    assert command("failover").code == ExitCode.USAGE
    assert command("failover", "--all", "test_a").code == ExitCode.USAGE


def test_where_it_is_served_is_said(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failover, "failover", lambda *_, **__: TakenOver(12.3, "", "/srv/a"))
    said = command("failover", "--yes", "test_a")
    assert said.code == ExitCode.DONE
    assert said.out == "test_a: served from this machine, mounted at /srv/a; that took 12 s.\n"


def test_nobody_at_the_terminal_says_no(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(*_: object, consent: object, **__: object) -> None:
        assert callable(consent)
        assert not consent(("all of it is lost",))

    monkeypatch.setattr(failover, "failover", ask)
    said = command("failover", "test_a")
    assert said.code == ExitCode.REFUSED
    assert "test_a: all of it is lost" in said.err
    assert "nothing was changed" in said.err


def test_of_all_one_that_cannot_be_taken_over_does_not_keep_the_others_back(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise Refused("It is not attached.", "See to that.")

    monkeypatch.setattr(failover, "failover", refuse)
    said = command("failover", "--all", "--yes")
    assert said.code == ExitCode.REFUSED
    assert "test_a: It is not attached. See to that." in said.err


@pytest.mark.parametrize(
    ("typed", "expected"), [("y\n", True), ("YES\n", True), ("\n", False), ("n\n", False), ("", False)]
)
def test_only_a_yes_is_a_yes(typed: str, expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consent.sys, "stdin", SimpleNamespace(isatty=lambda: True, readline=lambda: typed))
    assert consent.asked("Really?") is expected


@pytest.mark.parametrize(
    ("outcome", "code", "word"),
    [
        (Outcome(True, 3.25), ExitCode.DONE, "It stood still for 3.2 s."),
        (Outcome(True), ExitCode.DONE, "served by the server, and both copies are up to date."),
        (Outcome(False), ExitCode.HELD, "drbd-offsite failback --yes test_a"),
    ],
)
def test_how_a_failback_ended(
    command: Command, monkeypatch: pytest.MonkeyPatch, outcome: Outcome, code: ExitCode, word: str
) -> None:
    asked: dict[str, object] = {}

    def hand_over(_site: object, _resource: object, want: Flavour, **options: object) -> Outcome:
        asked.update(options, want=want)
        return outcome

    monkeypatch.setattr(handing, "hand_over", hand_over)
    said = command("failback", "--keep", "backup", "--without-safety-net", "test_a")
    assert (said.code, word in said.out) == (code, True)
    assert (asked["want"], asked["keep"], asked["safety_net"]) == (Flavour.SERVER, Flavour.BACKUP, False)
    assert failback is not None


@pytest.mark.parametrize(
    ("role", "want"), [(Role.PRIMARY, Flavour.SERVER), (Role.SECONDARY, Flavour.BACKUP)], ids=["here", "there"]
)
def test_switchover_gives_it_to_whoever_does_not_serve_it(
    command: Command, monkeypatch: pytest.MonkeyPatch, role: Role, want: Flavour
) -> None:
    wanted: list[Flavour] = []
    monkeypatch.setattr(switchover, "observe", lambda _: make.host(Flavour.BACKUP, drbd=[make.seen(role=role)]))
    monkeypatch.setattr(switchover, "hand", lambda _s, _r, want, *_: wanted.append(want) or 0)
    assert command("switchover", "--yes", "test_a").code == ExitCode.DONE
    assert wanted == [want]


def test_switchover_of_what_is_not_connected_is_refused(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = make.host(Flavour.BACKUP, drbd=[make.seen(state=ConnectionState.STANDALONE)])
    monkeypatch.setattr(switchover, "observe", lambda _: alone)
    said = command("switchover", "test_a")
    assert said.code == ExitCode.REFUSED
    assert "cannot be handed over with nothing lost" in said.err


CHECK = Check("filesystem", Verdict.GOOD, "It has no errors.")
SEEN = Look(
    "test_a", Place.of("test_a", VolumeName("local", "test_a")), Source.COPY, "", "2026-01-01T00:00:00+00:00", 1,
    "ext4", Path("/run/looks/test_a"), (CHECK,),
)  # fmt: skip


@pytest.mark.parametrize(("directory", "code"), [(SEEN.directory, ExitCode.DONE), (None, ExitCode.FAILED)])
def test_a_look_tells_where_it_is(
    command: Command, monkeypatch: pytest.MonkeyPatch, directory: Path | None, code: ExitCode
) -> None:
    monkeypatch.setattr(looking.inspect, "stay", lambda *_: replace(SEEN, directory=directory))
    said = command("failover", "--read-only", "test_a")
    assert said.code == code
    assert "It has no errors." in said.err
    assert ("mounted read-only at /run/looks/test_a" in said.out) is (directory is not None)


def test_a_look_is_ended_by_failback(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failback.inspect, "close", lambda _: True)
    said = command("failback", "test_a")
    assert said.code == ExitCode.DONE
    assert "nothing else was changed" in said.out


@pytest.mark.parametrize(("directory", "code"), [(SEEN.directory, ExitCode.DONE), (None, ExitCode.FAILED)])
def test_a_failover_is_rehearsed_on_a_snapshot(
    command: Command, monkeypatch: pytest.MonkeyPatch, directory: Path | None, code: ExitCode
) -> None:
    monkeypatch.setattr(looking.inspect, "opened", lambda *_: nullcontext(replace(SEEN, directory=directory)))
    said = command("failover", "--test", "--all")
    assert said.code == code
    assert ("would be served as a device" in said.out) is (directory is not None)


def test_a_rehearsal_ends_where_something_else_has_the_place(command: Command) -> None:
    conf = config.PATH.read_text()
    config.PATH.write_text(conf.replace("[[test_a]]", "[[test_a]]\nmount = /srv/a", 1))
    host.MOUNTINFO.write_text("30 1 0:55 / /srv/a rw - tmpfs none rw\n")
    said = command("failover", "--test", "test_a")
    assert said.code == ExitCode.REFUSED
    assert "none is mounted there" in said.err


def test_a_look_and_a_test_are_two_things(command: Command) -> None:
    assert command("failover", "--test", "--read-only", "test_a").code == ExitCode.USAGE


def test_a_step_that_is_none_is_a_usage_error(command: Command) -> None:
    for step in ("yield", "discard:test_a", "yield:"):
        assert command("turn", step).code == ExitCode.USAGE
