"""``verify`` as a shell sees it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from drbd_offsite import config, host, journal
from drbd_offsite.cli import progress
from drbd_offsite.cli.verify import describe
from drbd_offsite.errors import ExitCode
from drbd_offsite.observed import Progress, ReplicationState

from .. import make
from ..conftest import Programs
from ..operations.test_repair import Pair, told
from .conftest import Command


class Clock:
    """Time in which the verify goes on."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.happens: Callable[[], None] = lambda: None

    def monotonic(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds
        self.happens()


@pytest.fixture
def pair(programs: Programs, root: Path) -> Pair:
    del root
    host.PROC_DRBD.parent.mkdir(exist_ok=True)
    config.PATH.write_text(make.CONFIG)
    return Pair(programs)


@pytest.fixture
def clock(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> Clock:
    stand_in = Clock()
    stand_in.happens = pair.runs_to
    monkeypatch.setattr(progress, "time", stand_in)
    return stand_in


@pytest.mark.usefixtures("clock")
def test_equal_copies(command: Command, pair: Pair) -> None:
    said = command("verify", "test_a")
    assert said.code == ExitCode.DONE
    assert said.out == "test_a: the copies were compared from beginning to end, and are the same.\n"
    assert "comparing" in said.err
    assert pair.changes == ["drbdadm -- --start=0 verify test_a"]


@pytest.mark.usefixtures("clock")
def test_copies_that_differ(command: Command, pair: Pair) -> None:
    pair.differing = {100, 101, 2000}
    said = command("verify", "test_a")
    assert said.code == ExitCode.FAILED
    assert "differ in 2 places" in said.out
    assert "sent again by themselves" in said.out
    assert "drbd-offsite status test_a" in said.out
    status = command("status", "test_a")
    assert "Online verify found 12.0 KiB that differ between the copies, in 2 places from sector 800 on" in status.out
    assert "Nothing has to be done" in status.out
    assert "12.0 KiB are known to differ" in status.out


def test_a_lost_connection_is_said_to_say_nothing(command: Command, clock: Clock, pair: Pair) -> None:
    clock.happens = pair.disconnect
    said = command("verify", "test_a")
    assert said.code == ExitCode.PEER_UNREACHABLE
    assert "nothing about the rest" in said.out
    assert told()[-1] == "verify-broken-off"


def test_a_stop_sector_of_somebody_else_s(command: Command, clock: Clock, pair: Pair) -> None:
    def stop() -> None:
        pair.runs_to(1000)
        pair.says("Online verify done (total 1 sec; paused 0 sec; 8 K/sec)")
        pair.end_of_verify()

    clock.happens = stop
    said = command("verify", "test_a")
    assert said.code == ExitCode.FAILED
    assert "stopped before its end" in said.out


def test_without_a_wait(command: Command, pair: Pair) -> None:
    said = command("verify", "--no-wait", "test_a")
    assert said.code == ExitCode.DONE
    assert "drbd-offsite events test_a" in said.err
    assert pair.verifying


@pytest.mark.usefixtures("pair")
def test_a_second_one_at_the_same_time_is_refused(command: Command) -> None:
    command("verify", "--no-wait", "test_a")
    said = command("verify", "test_a")
    assert said.code == ExitCode.REFUSED
    assert "being compared already" in said.err


def test_not_connected_is_refused(command: Command, pair: Pair) -> None:
    pair.disconnect()
    said = command("verify", "test_a")
    assert said.code == ExitCode.REFUSED
    assert "not connected" in said.err
    assert pair.changes == []


def test_the_backup_is_told_where(command: Command, pair: Pair) -> None:
    config.PATH.write_text(make.CONFIG.replace("flavour = server", "flavour = backup"))
    said = command("verify", "test_a")
    assert said.code == ExitCode.REFUSED
    assert "Run it on the server" in said.err
    assert pair.changes == []


@pytest.mark.usefixtures("pair")
def test_an_unknown_resource(command: Command) -> None:
    assert command("verify", "test_b").code == ExitCode.USAGE
    assert command("verify").code == ExitCode.USAGE


def test_what_was_found_can_be_dropped(command: Command, pair: Pair) -> None:
    journal.hold("test_a", "the copies differ again and again", frozenset(), "suspicious")
    said = command("verify", "--forget", "test_a")
    assert said.code == ExitCode.DONE
    assert "forgotten" in said.err
    assert journal.holds() == {}
    assert pair.changes == []


def test_a_line_of_progress() -> None:
    seen = make.seen(replication=ReplicationState.VERIFY_SOURCE)
    line, ended = describe(seen, Progress(25.0, 2 * make.MIB, 384))
    assert not ended
    assert "25.0%" in line
    assert "768 MiB left, 2.0 MiB/s, 0:06:24 to go" in line
    assert describe(make.seen(), None)[1]
    assert describe(None, None)[1]
