"""``check``: status as a plugin for Nagios, Icinga and those that take the same.

Monitoring Plugins Development Guidelines: a line with the state, what it is and after a bar the figures, then any
number of lines; the state again as the exit code.
"""

import argparse
from collections.abc import Iterator
from enum import IntEnum

from .. import config
from ..errors import OffsiteError, SystemFailed
from ..host import observe
from ..observed import Host
from ..plan.assess import Assessment, Level, assess, duration
from ..plan.metrics import differing
from .common import chosen, resources_argument
from .status import unfinished

WARNING_SECONDS = 300
CRITICAL_SECONDS = 3600


class State(IntEnum):
    """Exit codes of this verb, which are not those of the others (`ExitCode`)."""

    OK = 0
    WARNING = 1
    CRITICAL = 2
    UNKNOWN = 3


def arguments(parser: argparse.ArgumentParser) -> None:
    resources_argument(parser)
    parser.add_argument(
        "--warning",
        metavar="SECONDS",
        type=int,
        default=WARNING_SECONDS,
        help=f"a copy that is older is a warning; {WARNING_SECONDS} if it is not given",
    )
    parser.add_argument(
        "--critical",
        metavar="SECONDS",
        type=int,
        default=CRITICAL_SECONDS,
        help=f"a copy that is older, and not catching up, is critical; {CRITICAL_SECONDS} if it is not given",
    )


def run(options: argparse.Namespace) -> int:
    try:
        return _check(options)
    except OffsiteError as error:
        trouble = error
    except OSError as error:
        trouble = SystemFailed(error)
    # Whatever it is: of the data it says nothing, and 1 would be a warning.
    print(f"{State.UNKNOWN.name}: {_plain(f'{trouble.message} {trouble.hint}')}")
    return State.UNKNOWN


def _check(options: argparse.Namespace) -> State:
    site = config.load()
    resources = chosen(site, options.resources)
    host = observe(site)
    found = sorted((assess(site, host, r) for r in resources), key=lambda a: (-a.level, a.resource))
    ages = {resource.name: host.ages.get(resource.name) for resource in resources}
    beside = [f"Cannot see everything: {problem}" for problem in host.problems]
    beside += [unfinished(o) for o in host.operations.values() if o.resource not in site.resources]
    if host.blind:
        state, said = State.UNKNOWN, beside
    elif not found and not beside:
        state, said = State.UNKNOWN, ["No volume is replicated yet."]
    else:
        states = [judge(a.level, ages[a.resource], options.warning, options.critical) for a in found]
        # As status has it: what is not finished, or cannot be seen, is broken.
        state = State.CRITICAL if host.problems or host.operations else max(states)
        said = [*beside, *(_in_short(a, ages[a.resource]) for a in found)]
    figures = " ".join(
        figure for r in resources for figure in _figures(host, r.name, ages[r.name], options.warning, options.critical)
    )
    print(f"{state.name}: {_plain('; '.join(said))}" + (f" | {figures}" if figures else ""))
    for assessment in found:
        print(_plain(f"{assessment.resource}: {' '.join(assessment.sentences)}"))
    return state


def judge(level: Level, age: float | None, warning: int, critical: int) -> State:
    """What a monitor is told of one resource. ``age``: seconds, None where it is not known."""
    match level:
        case Level.BROKEN:
            return State.CRITICAL
        case Level.HELD:
            return State.WARNING
    if age is None:
        return State.WARNING  # the copy may be worth nothing yet
    if age > critical and level is not Level.CATCHING_UP:
        return State.CRITICAL
    return State.WARNING if age > warning or level is Level.UNPROTECTED else State.OK


def _in_short(assessment: Assessment, age: float | None) -> str:
    level = assessment.level.name.lower().replace("_", " ")
    old = "how old the copy is is not known" if age is None else f"the copy is {duration(int(age))} old"
    return f"{assessment.resource} is {level}, {old}"


def _figures(host: Host, name: str, age: float | None, warning: int, critical: int) -> Iterator[str]:
    """What a monitor may draw; a resource's name needs no quotes."""
    if age is not None:
        yield f"{name}_age={age:.0f}s;{warning};{critical};0"
    seen = host.drbd.get(name)
    lacking = differing(seen) if seen else None
    if lacking is not None:
        yield f"{name}_out_of_sync={lacking}B;;;0"


def _plain(text: str) -> str:
    """On one line and without the bar, which begins the figures; a hold's reason may have either."""
    return " ".join(text.replace("|", "/").split())
