"""``measure-link`` as it is called: what it shows, what it changes, and how it ends."""

import json
import re
import sys
from pathlib import Path

import pytest

from drbd_offsite import config, journal
from drbd_offsite.cli.progress import Line as Shown
from drbd_offsite.errors import ExitCode, Refused
from drbd_offsite.model import Flavour, Peer, Site
from drbd_offsite.operations import measure
from drbd_offsite.plan.measure import Measured

from ..conftest import Programs
from ..operations.test_speed import Line
from ..operations.test_tune import GONE
from .conftest import Command

SLOW = Measured("2026-11-22T12:00:00+00:00", 7.43, 41.88, 0.0402)


@pytest.fixture
def line(programs: Programs, root: Path, monkeypatch: pytest.MonkeyPatch) -> Line:
    found = Line(Flavour.SERVER, programs, root)
    measures(monkeypatch, SLOW)
    return found


def measures(monkeypatch: pytest.MonkeyPatch, found: Measured | Refused) -> None:
    """What comes of the measuring itself, which has tests of its own."""

    def stand_in(_: Site, to: Peer, progress: measure.Progress) -> Measured:
        assert to.name == "backup"
        for way in ("to backup", "from backup"):
            for tenth in range(30):
                progress(way, tenth / 10, tenth * 2**20)
        if isinstance(found, Refused):
            raise found
        return found

    monkeypatch.setattr(measure, "measure", stand_in)


def test_both_directions_the_round_trip_and_what_to_do_are_said(command: Command, line: Line) -> None:
    before = line.state()
    said = command("measure-link")
    assert said.code == ExitCode.DONE
    assert said.out == (
        "to backup    7.4 Mbit/s\n"
        "from backup  41.9 Mbit/s\n"
        "round trip   40.2 ms\n"
        "configured   100 Mbit/s (link_speed)\n"
        "What was being written meanwhile went on, and is not counted in.\n"
        "link_speed is 100, and the slower direction carries 7.4 Mbit/s: a resync would take all of the line. To make "
        "it 7 on both machines: drbd-offsite measure-link backup --apply\n"
    )
    assert said.err == "to backup: 0 s, 0 B\n", "elsewhere than on a terminal there is a line each half minute"
    assert line.state() == before


def test_on_a_terminal_one_line_shows_each_second(
    command: Command, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    del line
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(Shown, "__init__", lambda self: vars(self).update(_terminal=True, _last=0.0, _open=False))
    said = command("measure-link")
    shown = re.findall(r"\r\x1b\[K([^\r\n]*)", said.err)
    assert [text.partition(",")[0] for text in shown] == [
        f"{way}: {second} s" for way in ("to backup", "from backup") for second in range(4)
    ]
    assert said.err.endswith("\n")


def test_the_json_has_every_number(command: Command, line: Line) -> None:
    del line
    said = command("measure-link", "backup", "--json")
    assert json.loads(said.out) == {
        "schema": 1,
        "peer": "backup",
        "at": SLOW.at,
        "to_peer_mbit": 7.43,
        "from_peer_mbit": 41.88,
        "round_trip_ms": 40.2,
        "link_speed": 100,
        "verdict": "too high",
        "fitting": 7,
    }


def test_what_was_measured_is_applied_on_both_machines(command: Command, line: Line) -> None:
    said = command("measure-link", "--apply")
    assert said.code == ExitCode.DONE, said.err
    assert "link_speed of backup is 7 on both machines" in said.err
    assert "--apply" not in said.out
    line.is_everywhere(7)
    assert line.speed_there == 7


def test_where_ssh_may_have_been_the_limit_nothing_is_lowered(
    command: Command, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    measures(monkeypatch, Measured(SLOW.at, 30.0, 30.0, 0.5))
    before = line.state()
    assert "may carry more" in command("measure-link").out
    said = command("measure-link", "--apply")
    assert said.code == ExitCode.REFUSED
    assert "link_speed of backup stays 100" in said.err
    assert (line.state(), line.speed_there) == (before, 100)


def test_what_is_refused_changes_nothing(command: Command, line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    before = line.state()
    measures(monkeypatch, Refused("The line is not measured now: test_a is being synced.", "Later."))
    said = command("measure-link", "--apply")
    assert (said.code, said.out) == (ExitCode.REFUSED, "")
    assert "is being synced" in said.err
    assert (line.state(), journal.operations()) == (before, {})


def test_a_backup_that_has_gone_since_is_said_and_nothing_was_begun(command: Command, line: Line) -> None:
    before = line.state()
    line.answers = lambda _: GONE
    said = command("measure-link", "--apply")
    assert said.code == ExitCode.PEER_UNREACHABLE
    assert (line.state(), journal.operations()) == (before, {})


@pytest.mark.usefixtures("line")
def test_a_peer_that_there_is_not_is_a_usage_error(command: Command) -> None:
    said = command("measure-link", "other")
    assert said.code == ExitCode.USAGE
    assert "There is: backup." in said.err


def test_on_the_backup_it_is_refused(command: Command, programs: Programs, root: Path) -> None:
    Line(Flavour.BACKUP, programs, root)
    said = command("measure-link", "--apply")
    assert said.code == ExitCode.REFUSED
    assert "measure-link is for the server" in said.err
    assert config.load().peers["server"].link_speed == 100
