"""What rrdtool says, as it said it (data/rrdtool), and what the one of this machine does with a history."""

import os
import shutil
import subprocess
import time
from itertools import pairwise
from pathlib import Path

import pytest

from drbd_offsite.remembered import Averages
from drbd_offsite.tools import rrdtool
from drbd_offsite.tools.rrdtool import Answer, Sample

DATA = Path(__file__).parents[2] / "data/rrdtool"
VERSIONS = sorted(path for path in DATA.iterdir() if path.is_dir())

real = pytest.mark.skipif(shutil.which("rrdtool") is None, reason="rrdtool is not installed")

SAMPLE = Sample(1024, None, 0, 12.7)


@pytest.fixture(params=VERSIONS, ids=lambda path: path.name)
def said(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


def test_each_command_has_an_answer(said: Path) -> None:
    *done, averages, late, there, damaged, unreadable, begun, empty = rrdtool.parse_answers(
        (said / "control.txt").read_text()
    )
    assert done == [Answer()] * 13
    assert rrdtool.parse_averages(averages.lines) == Averages(100_000.0, None, None, 50_000.0)
    assert rrdtool.last_update(late.error)
    assert "File exists" in there.error
    assert damaged.error
    assert rrdtool.last_update(damaged.error) is None
    assert unreadable.error
    assert begun == Answer()
    assert rrdtool.parse_averages(empty.lines) == Averages()


def test_one_that_has_died_has_answered_fewer() -> None:
    assert rrdtool.parse_answers("OK u:0.00 s:0.01 r:0.00\n0x0\n") == (Answer(),)
    assert rrdtool.parse_answers("") == ()


@pytest.mark.parametrize("lines", [(), ("0x0",), ("0x0", "1", "2", "3", "4"), ("0x0", "1", "2", "3", "4", "5", "six")])
def test_what_are_no_averages_is_said(lines: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"average|six"):
        rrdtool.parse_averages(lines)


def test_an_average_is_known_where_half_of_its_span_is() -> None:
    lines = ("0x0", "1.0", "2.0", "3.0", "4.0", "0.5", "0.49")
    assert rrdtool.parse_averages(lines) == Averages(1.0, 2.0, None, 4.0)
    assert rrdtool.parse_averages((*lines[:5], "-nan", "1.0")) == Averages(1.0, None, 3.0, 4.0)


def test_rows_are_exported_with_what_is_not_known(said: Path) -> None:
    rows = rrdtool.parse_export((said / "export.json").read_text())
    assert {later.at - row.at for row, later in pairwise(rows)} == {60}
    assert rows[0].values == dict.fromkeys(rrdtool.SOURCES)
    assert rows[5].values == {"written": 100_000.0, "sent": 50_000.0, "outstanding": 4_500_000.0, "age": 180.0}
    assert rows[4].values["age"] is None
    # The counter has begun anew in that minute, and that is no rate.
    assert rows[8].values["written"] is None
    assert max(row.values["written"] or 0.0 for row in rows) == 100_000.0


@pytest.mark.parametrize("text", ["", "[]", '{"meta": {}}'])
def test_what_is_no_export_is_said(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        rrdtool.parse_export(text)


def test_a_sample_says_what_is_not_known() -> None:
    assert rrdtool.update("a.rrd", 60, SAMPLE) == "update a.rrd 60:1024:U:0:12"
    assert rrdtool.update("a.rrd", 60, Sample(None, 1, None, None)) == "update a.rrd 60:U:1:U:U"


def test_commands_are_lines() -> None:
    assert rrdtool.input_of(["a b", "c"]) == "a b\nc\n"
    assert "\n" not in rrdtool.create("a.rrd", 60) + rrdtool.averages("a.rrd")


@real
def test_the_rrdtool_of_this_machine(tmp_path: Path) -> None:
    """A history is begun, gone on with, averaged, exported and drawn."""
    now = int(time.time()) // 60 * 60
    path = tmp_path / "a.rrd"
    samples = (Sample(minute * 600_000, minute * 6000, minute * 60, None) for minute in range(60))
    commands = [
        rrdtool.create(f"{path}", now - 3600),
        *(rrdtool.update(f"{path}", now - 3600 + 60 * minute, sample) for minute, sample in enumerate(samples)),
        rrdtool.averages(f"{path}"),
    ]
    *done, averages = rrdtool.parse_answers(spoken(rrdtool.CONTROL, rrdtool.input_of(commands)))
    assert done == [Answer()] * 61
    assert rrdtool.parse_averages(averages.lines) == Averages(10_000.0, 10_000.0, None, 100.0), "a day is not known"
    assert path.stat().st_size < 2**20
    rows = rrdtool.parse_export(spoken(rrdtool.export(f"{path}", now - 1800, now - 120, 80)))
    assert {row.values["written"] for row in rows} == {10_000.0}
    coarse = rrdtool.parse_export(spoken(rrdtool.export(f"{path}", now - 86400, now, 80)))
    assert len(coarse) <= 82
    spoken(rrdtool.draw(f"{path}", f"{tmp_path}/a.png", "test_a", now - 3600, now))
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


@real
def test_a_history_without_anything_in_it_is_drawn_too(tmp_path: Path) -> None:
    now = int(time.time())
    path = tmp_path / "a.rrd"
    spoken(rrdtool.CONTROL, rrdtool.input_of([rrdtool.create(f"{path}", now)]))
    spoken(rrdtool.draw(f"{path}", f"{tmp_path}/a.png", "test_a", now - 3600, now))
    assert (tmp_path / "a.png").exists()


def spoken(argv: tuple[str, ...], text: str = "") -> str:
    environment = os.environ | {"LC_ALL": "C.UTF-8"}
    return subprocess.run(argv, input=text, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout
