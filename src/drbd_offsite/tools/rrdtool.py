"""rrdtool(1): databases of a fixed size, one a resource, and what is read out of them."""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ..remembered import Averages

Argv = tuple[str, ...]

CONTROL: Argv = ("rrdtool", "-")
"""Commands from standard input, one a line, until that ends ("REMOTE CONTROL")."""

STEP_SECONDS = 60
_SILENT_SECONDS = 180
"""What two samples further apart than this have between them is not known."""

SOURCES = ("written", "sent", "outstanding", "age")

_MOST_A_SECOND = 100_000_000_000
"""Bytes. A counter that begins anew runs backwards, which the least of 0 takes out; this takes out the rest."""

_ARCHIVES = (
    "RRA:AVERAGE:0.5:1:2880",  # a minute, for two days; the highest of one minute is its average
    "RRA:AVERAGE:0.5:10:5040",  # ten minutes, for five weeks
    "RRA:MAX:0.5:10:5040",
    "RRA:AVERAGE:0.5:360:2920",  # six hours, for two years
    "RRA:MAX:0.5:360:2920",
)


@dataclass(frozen=True, slots=True)
class Sample:
    """What one look has found of a resource; None for what it could not know."""

    written: int | None
    """Bytes, counted from some time on: put on the device by its users."""
    sent: int | None
    """Likewise: to the other machine, or from it."""
    outstanding: int | None
    """Bytes."""
    age: float | None
    """Seconds."""


def create(path: str, at: int) -> str:
    """A new database whose first sample is of ``at`` (seconds since 1970)."""
    rates = (f"DS:{name}:DERIVE:{_SILENT_SECONDS}:0:{_MOST_A_SECOND}" for name in SOURCES[:2])
    levels = (f"DS:{name}:GAUGE:{_SILENT_SECONDS}:0:U" for name in SOURCES[2:])
    begin = f"create {path} --no-overwrite --start {at - 1} --step {STEP_SECONDS}"
    return " ".join((begin, *rates, *levels, *_ARCHIVES))


def update(path: str, at: int, sample: Sample) -> str:
    age = None if sample.age is None else int(sample.age)
    values = (sample.written, sample.sent, sample.outstanding, age)
    return f"update {path} {at}:" + ":".join("U" if value is None else f"{value}" for value in values)


def averages(path: str) -> str:
    """What `parse_averages` reads. A graph that has nothing to draw prints and writes no file (rrdgraph(1)).

    What is finer than its pixels it would first make coarser, so it has one a minute.
    """
    minutes = f"AVERAGE:step={STEP_SECONDS}"
    spans = {"minute": "5min", "hour": "1h", "day": "1d"}
    words = [f"DEF:{name}={path}:written:{minutes}:start=now-{span}" for name, span in spans.items()]
    words += ["VDEF:m=minute,LAST", "VDEF:h=hour,AVERAGE", "VDEF:d=day,AVERAGE"]
    words += [f"DEF:sent={path}:sent:{minutes}", "VDEF:s=sent,MAXIMUM"]
    for name in ("hour", "day"):
        words += [f"CDEF:{name}-known={name},UN,0,1,IF", f"VDEF:{name[0]}k={name}-known,AVERAGE"]
    graph = f"graph /dev/null --width {86400 // STEP_SECONDS} --start now-1d --end now"
    return " ".join((graph, *words, *(f"PRINT:{name}:%lf" for name in ("m", "h", "d", "s", "hk", "dk"))))


@dataclass(frozen=True, slots=True)
class Answer:
    """To one of the commands."""

    lines: tuple[str, ...] = ()
    error: str = ""
    """Why it was not done; empty where it was."""


def parse_answers(text: str) -> tuple[Answer, ...]:
    """Of `CONTROL`, in the order of the commands. One that dies in the middle has answered fewer."""
    answers: list[Answer] = []
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith("ERROR:"):
            answers.append(Answer((), line.removeprefix("ERROR:").strip()))
            lines = []
        elif line.startswith("OK u:"):
            answers.append(Answer(tuple(lines)))
            lines = []
        else:
            lines.append(line)
    return tuple(answers)


def parse_averages(lines: Sequence[str]) -> Averages:
    """After the size of an image that there is not, a number each, which may be none. Raises ValueError."""
    numbers = [None if math.isnan(number := float(line)) else number for line in lines[1:]]
    if len(numbers) != 6:
        raise ValueError("it has not printed every average")
    minute, hour, day, carried, hour_known, day_known = numbers
    return Averages(minute, _if_known(hour, hour_known), _if_known(day, day_known), carried)


_ENOUGH = 0.5


def _if_known(average: float | None, share: float | None) -> float | None:
    """Of a history that has just begun, the average of a few minutes is not that of a day."""
    return average if share is not None and share >= _ENOUGH else None


SET_BACK = "illegal attempt to update using time"
"""Begins, after the file's name, the error for a sample that is not newer than the last one."""


def last_update(error: str) -> int | None:
    """When the last sample was taken, of an error that says so; None for another one."""
    words = error.partition(SET_BACK)[2].partition("when last update time is ")[2].split()
    return int(words[0]) if words and words[0].isdecimal() else None


@dataclass(frozen=True, slots=True)
class Row:
    """An interval that ends ``at`` (seconds since 1970), by the names of `SOURCES`; None for what is not known."""

    at: int
    values: dict[str, float | None]


def export(path: str, start: int, end: int, rows: int) -> Argv:
    """About so many rows at most (rrdtool takes 10 for fewer), for `parse_export`."""
    words = [word for name in SOURCES for word in (f"DEF:{name}={path}:{name}:AVERAGE", f"XPORT:{name}:{name}")]
    span = ("--start", f"{start}", "--end", f"{end}", "--maxrows", f"{max(rows, 10)}")
    return ("rrdtool", "xport", "--json", "--showtime", *span, *words)


def parse_export(text: str) -> tuple[Row, ...]:
    """Raises ValueError for what is no export."""
    match json.loads(text):
        case {"data": list(rows)}:
            return tuple(map(_row, rows))
    raise ValueError("rrdtool has exported no rows")


def _row(values: Any) -> Row:
    at, *numbers = values
    return Row(int(at), dict(zip(SOURCES, numbers, strict=True)))


_DRAWN = (
    ("outstanding", "AREA", "#c9d6e8", "outstanding (bytes)"),
    ("written", "LINE1", "#c0392b", "written (bytes/s)"),
    ("sent", "LINE1", "#1e8449", "sent (bytes/s)"),
    ("age", "LINE1", "#7d3c98", "age (seconds)"),
)


def draw(path: str, target: str, title: str, start: int, end: int) -> Argv:
    """A PNG. A logarithmic scale is the one in which bytes, rates and seconds can all be read."""
    words: list[str] = []
    for name, kind, colour, legend in _DRAWN:
        words += [f"DEF:{name}={path}:{name}:AVERAGE", f"{kind}:{name}{colour}:{legend}"]
    scale = ("--logarithmic", "--units=si", "--lower-limit", "1")
    size = ("--imgformat", "PNG", "--width", "800", "--height", "300")
    return (
        "rrdtool",
        "graph",
        target,
        "--title",
        title,
        "--start",
        f"{start}",
        "--end",
        f"{end}",
        *size,
        *scale,
        *words,
    )


def input_of(commands: Iterable[str]) -> str:
    """The standard input of `CONTROL`."""
    return "".join(f"{command}\n" for command in commands)
