"""``history``: how far each copy is behind, whether it catches up, and what became of it over a while."""

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .. import config
from ..errors import ExitCode, UsageError
from ..host import observe
from ..model import Resource
from ..operations import history
from ..plan.assess import amount, duration
from ..plan.pace import Pace, pace
from ..remembered import Averages
from ..tools.rrdtool import SOURCES, Row
from .common import chosen, instant_of, pace_json, resources_argument

SCHEMA = 1
"""Of the JSON, as status has one."""

WIDTH = 80
"""Where there is no terminal."""

JSON_ROWS = 2000

BLOCKS = "▁▂▃▄▅▆▇█"
UNKNOWN = " "
CHARTS = {"outstanding": "", "written": "/s", "sent": "/s"}
"""What is shown, and what its bytes are to be read as."""


def arguments(parser: argparse.ArgumentParser) -> None:
    resources_argument(parser)
    parser.add_argument(
        "--since",
        metavar="WHEN",
        default="1d",
        help="from then on: 2h, 7d, a date, or an instant (UTC); a day if not given",
    )
    parser.add_argument("--png", metavar="FILE", type=Path, help="draw one resource's history to a file")
    parser.add_argument("--json", action="store_true", help="the same as JSON, with every number")


def run(options: argparse.Namespace) -> int:
    site = config.load()
    resources = chosen(site, options.resources)
    now = datetime.now(UTC)
    since = instant_of(options.since, now)
    if since >= now:
        raise UsageError(f"--since {options.since} is not over yet.", "For example: --since 7d")
    span = (since.timestamp(), now.timestamp())
    if options.png is not None:
        if len(resources) != 1:
            raise UsageError("--png draws one resource.", "drbd-offsite history RESOURCE --png FILE")
        history.draw(resources[0].name, options.png, *span)
        return ExitCode.DONE
    host = observe(site)
    found = [(resource, pace(site, host, resource)) for resource in resources]
    if options.json:
        print(json.dumps(_as_json(found, *span), indent=2))
        return ExitCode.DONE
    width = shutil.get_terminal_size((WIDTH, 24)).columns if sys.stdout.isatty() else WIDTH
    blocks = [_block(resource, known, width, *span) for resource, known in found]
    if not history.installed():
        blocks.append("No history is kept, because rrdtool is not installed: apt install rrdtool")
    print("\n\n".join(blocks))
    return ExitCode.DONE


def _block(resource: Resource, known: Pace | None, width: int, since: float, until: float) -> str:
    lines = [f"{resource.name}: {known.sentence if known else 'It is not up.'}"]
    if known is not None:
        lines += _table(known.rates.averages)
    if history.installed():
        columns = width - len(_line("", "", "1023.9 MiB/s at most"))
        rows = history.read(resource.name, since, until, columns)
        lines += _charts(rows, columns)
    return "\n".join(lines)


def _table(averages: Averages) -> list[str]:
    known = {"minute": averages.written_minute, "hour": averages.written_hour, "day": averages.written_day}
    told = [f"{amount(round(value))}/s" if value is not None else "not known" for value in known.values()]
    return [
        "               " + "".join(f"last {span:12}" for span in known).rstrip(),
        "  written      " + "".join(f"{text:17}" for text in told).rstrip(),
    ]


def _charts(rows: Sequence[Row], columns: int) -> list[str]:
    if not rows:
        return ["  There is no history yet; the watcher adds to it each minute."]
    shown = rows[-columns:]
    lines = []
    for name, unit in CHARTS.items():
        values = [row.values[name] for row in shown]
        known = [value for value in values if value is not None]
        most = f"{amount(round(max(known)))}{unit} at most" if known else "not known"
        lines.append(_line(name, chart(values), most))
    ends = [datetime.fromtimestamp(row.at, UTC).strftime("%Y-%m-%d %H:%M") for row in (shown[0], shown[-1])]
    each = f"; each block the average of {duration(rows[1].at - rows[0].at)}" if len(rows) > 1 else ""
    return [*lines, f"  from {ends[0]} to {ends[1]} UTC{each}"]


def _line(name: str, drawn: str, most: str) -> str:
    return f"  {name:11}  {drawn}  {most}"


def chart(values: Sequence[float | None]) -> str:
    """A block a value, the highest for the largest, the lowest for 0, and none for what is not known."""
    most = max((value for value in values if value is not None), default=0.0)
    steps = len(BLOCKS) - 1
    # What is more than nothing is seen.
    return "".join(
        UNKNOWN if value is None else BLOCKS[min(steps, -int(-value * steps // most)) if most else 0]
        for value in values
    )


def _as_json(found: Sequence[tuple[Resource, Pace | None]], since: float, until: float) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "kept": history.installed(),
        "resources": [
            {
                "name": resource.name,
                "pace": pace_json(known),
                "samples": [
                    {"at": datetime.fromtimestamp(row.at, UTC).isoformat(), **{key: row.values[key] for key in SOURCES}}
                    for row in (history.read(resource.name, since, until, JSON_ROWS) if history.installed() else ())
                ],
            }
            for resource, known in found
        ],
    }
