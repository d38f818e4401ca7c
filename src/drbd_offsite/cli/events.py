"""``events``: the journal, for a person or as JSON."""

import argparse
import json
import os
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from .. import journal
from ..errors import ExitCode
from .common import instant_of, resources_argument

FOLLOW_SECONDS = 0.5
"""Between two looks for new events."""


def arguments(parser: argparse.ArgumentParser) -> None:
    resources_argument(parser)
    parser.add_argument(
        "--since", metavar="WHEN", default="", help="only from then on: 2h, 30min, 7d, a date, or an instant (UTC)"
    )
    parser.add_argument("--follow", action="store_true", help="go on with what happens, until Ctrl-C")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")


def run(options: argparse.Namespace) -> int:
    since = instant_of(options.since, datetime.now(UTC)).isoformat(timespec="seconds") if options.since else ""
    try:
        for entry in _following() if options.follow else journal.events():
            # Instants of the journal are all written in one way, so that they can be compared as text.
            if str(entry.get("at")) >= since and (not options.resources or entry.get("resource") in options.resources):
                print(json.dumps(entry) if options.json else _line(entry), flush=options.follow)
    except KeyboardInterrupt:
        if not options.follow:
            raise
    return ExitCode.DONE


def _line(entry: dict[str, Any]) -> str:
    return f"{entry.get('at')}  {entry.get('resource') or '-':12}  {entry.get('event')}: {entry.get('text')}"


def _following() -> Iterator[dict[str, Any]]:
    """What has happened, and then what happens."""
    tail = Tail()
    while True:
        yield from filter(None, map(journal.event, tail.lines()))
        time.sleep(FOLLOW_SECONDS)


class Tail:
    """The journal's lines, each once, whatever is moved away meanwhile."""

    def __init__(self) -> None:
        self._open: list[_File] = []

    def lines(self) -> list[str]:
        """The whole lines that have come since the last call, the oldest first."""
        # The newer name first: a file that gets its other name between the two looks is found twice, and not missed.
        there: list[_File] = []
        for name in (journal.EVENTS, journal.EVENTS_BEFORE):
            file = _File.at(journal.STATE / name, (*self._open, *there))
            if file is not None and file not in there:
                there.insert(0, file)
        gone = [file for file in self._open if file not in there]
        # One that was moved away may still get the line of a writer that had opened it before.
        lines = [line for file in (*gone, *there) for line in file.lines()]
        for file in gone:
            file.content.close()
        self._open = there
        return lines


class _File:
    """A file that others append to, by whatever name."""

    def __init__(self, content: BinaryIO) -> None:
        self.content = content
        self._rest = b""

    @classmethod
    def at(cls, path: Path, known: Iterable["_File"]) -> "_File | None":
        """The one of that name now: one of the ``known``, a new one, or None."""
        try:
            content = path.open("rb")
        except FileNotFoundError:
            return None
        for file in known:
            if os.path.sameopenfile(file.content.fileno(), content.fileno()):
                content.close()
                return file
        return cls(content)

    def lines(self) -> list[str]:
        *whole, self._rest = (self._rest + self.content.read()).split(b"\n")
        return [line.decode(errors="replace") for line in whole]
