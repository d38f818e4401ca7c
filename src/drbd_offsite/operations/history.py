"""What becomes of a resource over the years: a sample a minute, kept by rrdtool where that is installed."""

import os
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from .. import journal
from ..errors import Refused, ToolFailed
from ..journal import HISTORY
from ..model import Site
from ..observed import Host
from ..plan import pace
from ..remembered import Averages
from ..run import run
from ..tools import rrdtool
from ..tools.rrdtool import Answer, Row, Sample

PROGRAM = Path("/usr/bin/rrdtool")

LEAST_SECONDS = 30.0
"""From one sample to the next: the watcher looks more often when something happens."""

WAIT_SECONDS = 3600
"""A clock that was set back by less than this is waited for."""

DAMAGED = ".damaged"


def installed() -> bool:
    return PROGRAM.exists()


def keep(site: Site, host: Host) -> None:
    """A duty of the watcher: a sample of each resource that is up, and what follows from it for its pace.

    By one program however many there are. Raises ToolFailed for a history that could not be gone on with.
    """
    known = {name: pace.from_entry(entry) for name, entry in journal.remembered(HISTORY).items()}
    _forget(known.keys() - site.resources.keys() - {operation.resource for operation in host.operations.values()})
    at = time.time()
    notes, samples = {}, {}
    for name in site.resources.keys() & host.drbd.keys():
        before, seen = known.get(name), host.drbd[name]
        if before is None or not 0.0 <= at - before.at < LEAST_SECONDS:
            notes[name] = pace.noted(before, seen, at, _turned(host, name))
            samples[name] = pace.sample(before, seen, host.ages.get(name))
    found, troubles = _into_history(samples, int(at)) if samples and installed() else ({}, [])
    for name, noted in notes.items():
        averages = found.get(name, Averages())
        journal.remember(HISTORY, name, pace.to_entry(replace(noted, averages=averages)))
    if troubles:
        raise ToolFailed(" ".join(troubles))


def _turned(host: Host, name: str) -> float:
    """When its server has last gone ahead, in seconds since 1970; 0 where the line takes what is written."""
    overload = host.overloads.get(name)
    return datetime.fromisoformat(overload.last).timestamp() if overload else 0.0


def _forget(gone: set[str]) -> None:
    for name in gone:
        journal.history(name).unlink(missing_ok=True)
        _damaged(name).unlink(missing_ok=True)
        journal.forget(HISTORY, name)


def _damaged(name: str) -> Path:
    path = journal.history(name)
    return path.with_name(path.name + DAMAGED)


def _into_history(samples: Mapping[str, Sample], at: int) -> tuple[dict[str, Averages], list[str]]:
    """The averages by resource, and sentences about what went wrong."""
    journal.history("").parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    commands = {name: _commands(name, at, sample) for name, sample in samples.items()}
    text = rrdtool.input_of(command for each in commands.values() for command in each)
    # What it says of one of them is an answer, and not its exit code.
    answers = iter(rrdtool.parse_answers(run(rrdtool.CONTROL, stdin=text, accept=None).stdout))
    found: dict[str, Averages] = {}
    troubles: list[str] = []
    for name, each in commands.items():
        own = [answer for _, answer in zip(each, answers, strict=False)]
        died = len(own) < len(each)
        trouble = "rrdtool has died of it" if died else next((a.error for a in own if a.error and _counts(a, at)), "")
        if trouble:
            troubles.append(_set_aside(name, trouble))
        else:
            found[name] = _averages(name, own[-1])
        if died:
            break  # those after it were not looked at
    return found, troubles


def _commands(name: str, at: int, sample: Sample) -> tuple[str, ...]:
    path = journal.history(name)
    begin = () if path.exists() else (rrdtool.create(f"{path}", at),)
    return (*begin, rrdtool.update(f"{path}", at, sample), rrdtool.averages(f"{path}"))


def _averages(name: str, answer: Answer) -> Averages:
    try:
        return rrdtool.parse_averages(answer.lines)
    except ValueError as error:
        raise ToolFailed(f"What rrdtool says of {name} is not understood: {error}.") from error


def _counts(answer: Answer, at: int) -> bool:
    """Not where the clock was set back by a little: the history goes on when it has come to its end again."""
    last = rrdtool.last_update(answer.error)
    return last is None or last > at + WAIT_SECONDS


def _set_aside(name: str, why: str) -> str:
    """What became of a history that cannot be used; it is in nobody's way any more."""
    path = journal.history(name)
    if not path.exists():
        return f"No history of {name} could be begun: {why}."
    path.replace(_damaged(name))
    return f"The history of {name} cannot be gone on with ({why}). It is kept as {_damaged(name)}; a new one is begun."


def read(name: str, since: float, until: float, rows: int) -> tuple[Row, ...]:
    """A resource's history between two instants (seconds since 1970), oldest first; empty where there is none."""
    path = journal.history(name)
    if not path.exists():
        return ()
    done = run(rrdtool.export(f"{path}", int(since), int(until), rows))
    try:
        return rrdtool.parse_export(done.stdout)
    except ValueError as error:
        raise ToolFailed(f"The history of {name} cannot be read: {error}.") from error


def draw(name: str, target: Path, since: float, until: float) -> None:
    """A PNG of it, in one step. Raises Refused where there is nothing to draw, and ToolFailed."""
    enforce_installed()
    path = journal.history(name)
    if not path.exists():
        raise Refused(f"There is no history of {name} yet.", "The watcher begins it at its next look, within a minute.")
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.new")
    try:
        run(rrdtool.draw(f"{path}", f"{unfinished}", name, int(since), int(until)))
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)


def enforce_installed() -> None:
    if not installed():
        raise Refused("rrdtool is not installed, so no history is kept.", "apt install rrdtool")
