"""``history``: sentences, rates, charts, a picture and JSON."""

import json
import time
from pathlib import Path

import pytest

from drbd_offsite import config, journal
from drbd_offsite.cli.history import chart
from drbd_offsite.errors import ExitCode
from drbd_offsite.operations import history

from .. import make
from ..conftest import Answer, Programs
from ..operations.world import World
from ..plan.machine import Kernel
from ..test_config import two
from .conftest import Command


@pytest.fixture
def behind(server: World) -> World:
    """Not connected, and a minute ago 60 MiB less were outstanding."""
    config.PATH.write_text(make.CONFIG)
    server.machine.config = make.CONFIG
    server.machine.kernel = Kernel(0, attached=True, primary=True, connected=True)
    server.machine.synced = True
    server.publish()
    looks = [[time.time() - 60, 0], [time.time(), 60 * make.MIB]]
    averages = [2.0 * make.MIB, 1024.0, None, None]
    entry = {"at": time.time(), "serving": True, "connected": False, "looks": looks, "averages": averages}
    journal.remember(journal.HISTORY, "test_a", entry)
    return server


@pytest.fixture
def kept(behind: World, programs: Programs) -> list[tuple[str, ...]]:
    """A history of forty minutes, and the calls of rrdtool."""
    del behind
    history.PROGRAM.parent.mkdir(parents=True, exist_ok=True)
    history.PROGRAM.touch()
    journal.history("test_a").touch()
    called: list[tuple[str, ...]] = []
    others = programs.machine

    def rrdtool(argv: tuple[str, ...], stdin: str) -> Answer | None:
        if argv[0] != "rrdtool":
            return others(argv, stdin)
        called.append(argv)
        if argv[1] == "graph":
            Path(argv[2]).write_bytes(b"picture")
            return Answer("881x368")
        rows = [[f"{1_800_000_000 + 60 * n}", None if n == 3 else n * 1e6, 5e5, n * 1e8, n * 60.0] for n in range(40)]
        return Answer(json.dumps({"data": rows}))

    programs.machine = rrdtool
    return called


def test_it_says_how_things_stand_what_was_written_and_how_that_was(
    command: Command, kept: list[tuple[str, ...]]
) -> None:
    said = command("history")
    assert said.code == ExitCode.DONE
    first, head, rates, outstanding, written, sent, ends = said.out.splitlines()
    assert first.startswith("test_a: Not connected:")
    assert head.split() == ["last", "minute", "last", "hour", "last", "day"]
    assert rates == "  written      2.0 MiB/s        1.0 KiB/s        not known"
    assert head.index("last hour") == rates.index("1.0 KiB/s")
    assert outstanding.startswith("  outstanding  ▁")
    assert outstanding.endswith("█  3.6 GiB at most")
    assert written.endswith("37.2 MiB/s at most")
    assert sent.split()[1] == "█" * 40
    assert ends == "  from 2027-01-15 08:00 to 2027-01-15 08:39 UTC; each block the average of 60 s"
    assert all(len(line) <= 80 for line in said.out.splitlines()[1:])
    assert kept[0][kept[0].index("--maxrows") + 1] == "43"


def test_a_span_is_what_it_is_for_events(command: Command, kept: list[tuple[str, ...]]) -> None:
    command("history", "test_a", "--since", "7d")
    argv = kept[0]
    assert int(argv[argv.index("--end") + 1]) - int(argv[argv.index("--start") + 1]) == 7 * 86400
    said = command("history", "--since", "yesterday")
    assert said.code == ExitCode.USAGE
    assert "--since yesterday is no instant" in said.err
    assert "is not over yet" in command("history", "--since", "2999-01-01").err


def test_a_picture_is_of_one_resource(command: Command, kept: list[tuple[str, ...]], tmp_path: Path) -> None:
    target = tmp_path / "test.png"
    said = command("history", "test_a", "--png", f"{target}")
    assert (said.code, said.out) == (ExitCode.DONE, "")
    assert target.read_bytes() == b"picture"
    assert kept[0][1] == "graph"
    config.PATH.write_text(two())
    assert "--png draws one resource" in command("history", "--png", f"{target}").err


@pytest.mark.usefixtures("kept")
def test_json_has_every_number(command: Command) -> None:
    found = json.loads(command("history", "--json").out)
    assert (found["schema"], found["kept"]) == (1, True)
    (resource,) = found["resources"]
    assert resource["pace"]["verdict"] == "not connected"
    assert len(resource["samples"]) == 40
    assert resource["samples"][3] == {
        "at": "2027-01-15T08:03:00+00:00", "written": None, "sent": 5e5, "outstanding": 3e8, "age": 180.0,
    }  # fmt: skip


@pytest.mark.usefixtures("behind")
def test_without_rrdtool_the_pace_is_said_and_what_to_install(command: Command, tmp_path: Path) -> None:
    said = command("history")
    assert said.code == ExitCode.DONE
    assert said.out.startswith("test_a: Not connected")
    assert said.out.endswith("No history is kept, because rrdtool is not installed: apt install rrdtool\n")
    found = json.loads(command("history", "--json").out)
    assert (found["kept"], found["resources"][0]["samples"]) == (False, [])
    refused = command("history", "test_a", "--png", f"{tmp_path}/test.png")
    assert refused.code == ExitCode.REFUSED
    assert "apt install rrdtool" in refused.err


def test_what_has_no_history_yet_says_so(command: Command, kept: list[tuple[str, ...]], behind: World) -> None:
    journal.history("test_a").unlink()
    behind.machine.kernel = None
    said = command("history")
    assert said.out == ("test_a: It is not up.\n  There is no history yet; the watcher adds to it each minute.\n")
    assert kept == []


@pytest.mark.parametrize(
    ("values", "drawn"),
    [
        ([], ""),
        ([None, None], "  "),
        ([0.0, 0.0], "▁▁"),
        ([0.0, None, 7.0], "▁ █"),
        ([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], "▁▂▃▄▅▆▇█"),
        ([1e-9, 1e12], "▂█"),
    ],
)
def test_a_chart_has_a_block_a_value(values: list[float | None], drawn: str) -> None:
    assert chart(values) == drawn
