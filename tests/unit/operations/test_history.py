"""A sample a minute of each resource, by one program, and what becomes of a history that cannot be gone on with."""

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest

from drbd_offsite import journal
from drbd_offsite.errors import Refused, ToolFailed
from drbd_offsite.journal import HISTORY
from drbd_offsite.observed import DrbdResource, Host
from drbd_offsite.operations import history
from drbd_offsite.plan import pace
from drbd_offsite.remembered import Averages, Rates
from drbd_offsite.tools import rrdtool

from .. import make
from ..conftest import Answer, Programs

SITE = make.site(resources=("test_a", "test_b"))
AVERAGES = "0x0\n100.000000\n200.000000\n-nan\n400.000000\n1.000000\n0.200000\nOK u:0.00 s:0.00 r:0.00\n"
KNOWN = Averages(100.0, 200.0, None, 400.0)
DONE = "OK u:0.00 s:0.00 r:0.00\n"


class Rrdtool:
    """Does what it is told, but for what the test has it say."""

    def __init__(self, programs: Programs) -> None:
        self.commands: list[str] = []
        self.says: dict[str, str] = {}
        """By the file's name and the command."""
        self.dies_at = ""
        programs.allow(rrdtool.CONTROL, self.answer)

    def answer(self, text: str) -> Answer:
        said = ""
        for line in text.splitlines():
            word, *rest = line.split()
            self.commands.append(line)
            name = next(w for w in " ".join(rest).replace("=", " ").replace(":", " ").split() if w.endswith(".rrd"))
            key = f"{word} {Path(name).stem}"
            if key == self.dies_at:
                return Answer(said, -11)
            if word == "create" and key not in self.says:
                Path(name).touch()
            said += self.says.get(key, AVERAGES if word == "graph" else DONE)
        return Answer(said)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1_800_000_000.0]
    monkeypatch.setattr(time, "time", lambda: now[0])
    return now


@pytest.fixture
def tool(programs: Programs, root: Path, clock: list[float]) -> Rrdtool:
    del root, clock
    history.PROGRAM.parent.mkdir(parents=True, exist_ok=True)
    history.PROGRAM.touch()
    return Rrdtool(programs)


def machine(*seen: DrbdResource, **changes: object) -> Host:
    return make.host(drbd=seen or [make.seen(), make.seen("test_b", out_of_sync_bytes=4096)], **changes)


def known(name: str = "test_a") -> Rates | None:
    entry = journal.remembered(HISTORY).get(name)
    return pace.rates(entry, time.time()) if entry else None


def test_the_first_look_begins_a_history_of_each_by_one_program(tool: Rrdtool, programs: Programs) -> None:
    history.keep(SITE, machine(ages={"test_a": 12.5}))
    assert programs.ran == [rrdtool.CONTROL]
    assert sorted(line.split()[0] for line in tool.commands) == [*["create"] * 2, *["graph"] * 2, *["update"] * 2]
    path = journal.history("test_a")
    assert f"update {path} 1800000000:0:U:0:12" in tool.commands
    assert f"update {journal.history('test_b')} 1800000000:0:U:4096:U" in tool.commands
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert known() == Rates(KNOWN, None)


def test_each_minute_it_goes_on(tool: Rrdtool, clock: list[float]) -> None:
    history.keep(SITE, machine())
    tool.commands.clear()
    clock[0] += 60.0
    history.keep(SITE, machine(make.seen(out_of_sync_bytes=6000), make.seen("test_b")))
    assert {line.split()[0] for line in tool.commands} == {"update", "graph"}
    assert known() == Rates(KNOWN, -100.0)
    clock[0] += 300.0
    assert known() is None, "that was too long ago"


def test_a_look_in_between_is_none_of_its(tool: Rrdtool, clock: list[float]) -> None:
    history.keep(SITE, machine())
    tool.commands.clear()
    clock[0] += history.LEAST_SECONDS - 1
    history.keep(SITE, machine())
    assert tool.commands == []


@pytest.mark.usefixtures("root", "clock")
def test_without_rrdtool_there_is_no_history_and_a_pace(clock: list[float]) -> None:
    history.keep(SITE, machine(make.seen(out_of_sync_bytes=6000)))
    clock[0] += 60.0
    history.keep(SITE, machine(make.seen(out_of_sync_bytes=0)))
    assert known() == Rates(Averages(), 100.0)
    assert not journal.history("test_a").exists()
    with pytest.raises(Refused, match="rrdtool is not installed") as refused:
        history.draw("test_a", Path("test.png"), 0.0, 1.0)
    assert refused.value.hint == "apt install rrdtool"


def test_what_is_not_up_has_no_sample(tool: Rrdtool) -> None:
    history.keep(SITE, machine(make.seen()))
    assert not any("test_b" in line for line in tool.commands)
    assert known("test_b") is None
    tool.commands.clear()
    history.keep(SITE, make.host(blind=True))
    assert tool.commands == []


@pytest.mark.parametrize("command", ["update", "graph"])
def test_a_damaged_history_is_set_aside_and_said_once(tool: Rrdtool, clock: list[float], command: str) -> None:
    history.keep(SITE, machine())
    path = journal.history("test_a")
    path.write_text("damaged")
    tool.says[f"{command} test_a"] = "ERROR: 'test_a.rrd' is not an RRD file\n"
    clock[0] += 60.0
    with pytest.raises(ToolFailed) as failed:
        history.keep(SITE, machine())
    aside = path.with_name("test_a.rrd.damaged")
    assert failed.value.message == (
        "The history of test_a cannot be gone on with ('test_a.rrd' is not an RRD file). It is kept as "
        f"{aside}; a new one is begun."
    )
    assert aside.read_text() == "damaged"
    assert not path.exists()
    assert known("test_b") == Rates(KNOWN, 0.0), "the other one is not concerned"
    tool.says.clear()
    clock[0] += 60.0
    history.keep(SITE, machine())
    assert path.exists()
    assert known() == Rates(KNOWN, 0.0)


def test_one_that_rrdtool_dies_of_is_set_aside_and_the_others_are_not(tool: Rrdtool, clock: list[float]) -> None:
    history.keep(SITE, machine())
    tool.dies_at = "update test_a"
    clock[0] += 60.0
    with pytest.raises(ToolFailed, match="rrdtool has died of it"):
        history.keep(SITE, machine())
    assert not journal.history("test_a").exists()
    assert journal.history("test_b").exists()


def test_one_that_cannot_be_begun_is_said(tool: Rrdtool) -> None:
    tool.says["create test_a"] = "ERROR: creating 'test_a.rrd': No space left on device\n"
    tool.says["update test_a"] = tool.says["graph test_a"] = "ERROR: opening 'test_a.rrd': No such file\n"
    with pytest.raises(ToolFailed, match=r"No history of test_a could be begun: creating .*No space left"):
        history.keep(SITE, machine())


@pytest.mark.parametrize(("back", "waits"), [(60, True), (3000, True), (10_000_000, False)])
def test_a_clock_that_was_set_back_is_waited_for_unless_it_was_wrong_by_far(
    tool: Rrdtool, back: int, waits: bool
) -> None:
    history.keep(SITE, machine())
    journal.forget(HISTORY, "test_a")
    late = f"ERROR: a.rrd: illegal attempt to update using time 1800000000 when last update time is {1800000000 + back}"
    tool.says["update test_a"] = f"{late} (minimum one second step)\n"
    if waits:
        history.keep(SITE, machine())
        assert known() == Rates(KNOWN, None)
    else:
        with pytest.raises(ToolFailed, match="cannot be gone on with"):
            history.keep(SITE, machine())
    assert journal.history("test_a").exists() is waits


def test_what_is_not_understood_is_said(tool: Rrdtool) -> None:
    tool.says["graph test_a"] = "1x1\nOK u:0.00 s:0.00 r:0.00\n"
    with pytest.raises(ToolFailed, match="What rrdtool says of test_a is not understood"):
        history.keep(SITE, machine())


def test_what_is_replicated_no_more_has_no_history(tool: Rrdtool) -> None:
    history.keep(SITE, machine())
    one = replace(SITE, resources={"test_a": SITE.resources["test_a"]})
    unfinished = {"rename-test_b": make.operation("rename", {}, "test_b")}
    history.keep(one, machine(operations=unfinished))
    assert journal.history("test_b").exists(), "it may still get its new name"
    history.keep(one, machine())
    assert not journal.history("test_b").exists()
    assert set(journal.remembered(HISTORY)) == {"test_a"}
    assert tool.commands


@pytest.mark.usefixtures("tool")
def test_a_resource_that_is_renamed_takes_its_history_along() -> None:
    history.keep(SITE, machine())
    journal.history("test_a").write_text("years")
    journal.carry_over("test_a", "mail", [HISTORY])
    assert journal.history("mail").read_text() == "years"
    assert not journal.history("test_a").exists()
    assert "mail" in journal.remembered(HISTORY)
    journal.carry_over("test_b", "post", [])
    assert journal.history("test_b").exists()


# -- what is read out of it ----------------------------------------------------------------------------


def test_rows_are_read(tool: Rrdtool, programs: Programs) -> None:
    assert history.read("test_a", 0.0, 60.0, 80) == ()
    history.keep(SITE, machine())
    assert tool.commands
    argv = rrdtool.export(f"{journal.history('test_a')}", 0, 60, 80)
    programs.allow(argv, json.dumps({"data": [["60", 1.0, None, 3.0, 4.0]]}), "no JSON")
    (row,) = history.read("test_a", 0.5, 60.9, 80)
    assert (row.at, row.values["outstanding"]) == (60, 3.0)
    with pytest.raises(ToolFailed, match="cannot be read"):
        history.read("test_a", 0.5, 60.9, 80)


def drawn(programs: Programs, target: Path) -> list[Path]:
    """Where rrdtool has drawn to."""
    places: list[Path] = []

    def draw(argv: tuple[str, ...], _: str) -> Answer | None:
        if argv[:2] != ("rrdtool", "graph"):
            return None
        places.append(Path(argv[2]))
        places[0].write_bytes(b"new")
        return Answer("881x368", 1 if target.name == "fails.png" else 0)

    programs.machine = draw
    return places


@pytest.mark.usefixtures("tool")
def test_a_picture_is_drawn_beside_its_place(programs: Programs, tmp_path: Path) -> None:
    target = tmp_path / "test.png"
    with pytest.raises(Refused, match="no history of test_a yet"):
        history.draw("test_a", target, 0.0, 60.0)
    history.keep(SITE, machine())
    target.write_bytes(b"old")
    places = drawn(programs, target)
    history.draw("test_a", target, 0.0, 60.0)
    assert places[0].parent == tmp_path
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"new"]


@pytest.mark.usefixtures("tool")
def test_a_picture_that_cannot_be_drawn_leaves_what_was_there(programs: Programs, tmp_path: Path) -> None:
    target = tmp_path / "fails.png"
    history.keep(SITE, machine())
    target.write_bytes(b"old")
    drawn(programs, target)
    with pytest.raises(ToolFailed):
        history.draw("test_a", target, 0.0, 60.0)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]
