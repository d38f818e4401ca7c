"""What several verbs share: resource names, progress on a terminal, reports in JSON."""

import argparse
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from ..errors import ExitCode, UsageError
from ..model import Resource, Site
from ..plan import instant
from ..plan.pace import Pace

STOPPED = 128 + signal.SIGTERM


def tell(line: str) -> None:
    """Progress, on standard error: standard output belongs to the result."""
    print(line, file=sys.stderr, flush=True)


def resources_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("resources", metavar="RESOURCE", nargs="*", help="resources to act on; all if none is named")


def chosen(site: Site, names: Sequence[str]) -> list[Resource]:
    """The named resources, or all. Raises UsageError for a name that is not configured."""
    unknown = [name for name in names if name not in site.resources]
    if unknown:
        known = ", ".join(site.resources) or "none"
        raise UsageError(f"There is no resource {', '.join(unknown)}.", f"Configured: {known}.")
    return [site.resources[name] for name in names] if names else list(site.resources.values())


def instant_of(since: str, now: datetime) -> datetime:
    """What ``--since`` says. Raises UsageError."""
    try:
        return instant.parse(since, now)
    except ValueError:
        raise UsageError(
            f"--since {since} is no instant.", "For example: --since 2h, --since 2026-11-22, --since 2026-11-22T08:30"
        ) from None


def pace_json(pace: Pace | None) -> dict[str, Any] | None:
    """The rates are in bytes a second."""
    if pace is None:
        return None
    averages = pace.rates.averages
    return {
        "verdict": pace.verdict,
        "sentence": pace.sentence,
        "age_seconds": None if pace.age is None else int(pace.age),
        "outstanding_bytes": pace.outstanding,
        "written_minute": averages.written_minute,
        "written_hour": averages.written_hour,
        "written_day": averages.written_day,
        "carried": averages.carried,
        "drained": pace.rates.drained,
        "eta_seconds": pace.eta,
    }


def worst(codes: Sequence[int]) -> int:
    """The one exit code of several results."""
    return max(codes, default=ExitCode.DONE)


@contextmanager
def in_order() -> Iterator[None]:
    """Whoever ends it (systemctl stop, a terminal that goes away) lets it clean up first."""
    signals = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, lambda *_: sys.exit(STOPPED)) for number in signals]
    try:
        yield
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)
