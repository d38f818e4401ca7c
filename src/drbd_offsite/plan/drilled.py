"""What is remembered of a resource's drills, and what of it a person has to know. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from ..model import Site
from ..remembered import LastDrill

KIND = "drilled"
"""By resource (`journal.remembered`)."""

EVIDENCE = "drills"
"""The directory with a directory of results for each resource."""

DAY_SECONDS = 86400.0


class Outcome(StrEnum):
    """How a drill has ended, the best first."""

    PASSED = "passed"
    WARNED = "warned"
    """Passed, and something in it has to be seen to."""
    UNTESTED = "untested"
    """It could not be done, which says nothing about the data."""
    FAILED = "failed"

    @property
    def in_words(self) -> str:
        return {
            Outcome.PASSED: "passed",
            Outcome.WARNED: "passed, with findings",
            Outcome.UNTESTED: "could not be done",
            Outcome.FAILED: "failed",
        }[self]


@dataclass(frozen=True, slots=True)
class Count:
    """What is in a filesystem."""

    files: int
    size_bytes: int


def last(entry: Mapping[str, Any], now: datetime) -> LastDrill | None:
    """None for an entry that cannot be understood."""
    match entry:
        case {
            "since": str(since),
            "at": str(at),
            "outcome": str(outcome),
            "reason": str(reason),
            "passed": str(passed),
        }:
            try:
                unproven = (now - datetime.fromisoformat(passed or since)).total_seconds()
            except (ValueError, TypeError):  # no instant, or one without a zone
                return None
            return LastDrill(at, outcome, reason, passed, unproven)
    return None


def first_seen(now: str) -> dict[str, object]:
    """What is remembered of a resource that no drill was done of yet."""
    return {"since": now, "at": "", "outcome": "", "reason": "", "passed": "", "count": None}


def with_result(
    entry: Mapping[str, Any], at: str, outcome: Outcome, reason: str, count: Count | None
) -> dict[str, object]:
    """The entry after a drill."""
    passed = at if outcome in (Outcome.PASSED, Outcome.WARNED) else str(entry.get("passed", ""))
    counted = {"at": at, "files": count.files, "bytes": count.size_bytes} if count else entry.get("count")
    since = str(entry.get("since", at))
    return {"since": since, "at": at, "outcome": outcome, "reason": reason, "passed": passed, "count": counted}


def counted(entry: Mapping[str, Any]) -> tuple[str, Count] | None:
    """When files were counted last, and how many there were."""
    match entry.get("count"):
        case {"at": str(at), "files": int(files), "bytes": int(size)}:
            return at, Count(files, size)
    return None


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something about the drills of a resource that a person has to know for as long as it is so."""

    key: str
    title: str
    happened: str
    means: str
    to_do: str


def overdue(site: Site, known: LastDrill) -> bool:
    return site.drill_days > 0 and known.unproven_seconds > site.drill_days * DAY_SECONDS


def troubles(site: Site, name: str, known: LastDrill) -> Iterator[Trouble]:
    """The worst first."""
    evidence = f"All of it is in /var/lib/drbd-offsite/{EVIDENCE}/{name}/."
    if known.outcome == Outcome.FAILED:
        yield Trouble(
            "drill-failed",
            "its last drill has failed",
            f"The last drill, at {known.at}, has failed: {known.reason}",
            "The copy may be of no use after a disaster. What the server serves is not affected.",
            f"{evidence} drbd-offsite drill {name} tests it again; drbd-offsite verify {name} on the server compares "
            "the two copies and sends what differs.",
        )
    if known.outcome == Outcome.WARNED:
        yield Trouble(
            "drill-findings",
            "its last drill has found something",
            f"The last drill, at {known.at}, has passed with findings: {known.reason}",
            "The copy can be used. Whether what is in it is what should be in it, a person has to say.",
            f"{evidence} If it is as it should be: drbd-offsite drill {name} compares with what is there now.",
        )
    if overdue(site, known):
        days = int(known.unproven_seconds // DAY_SECONDS)
        before = f"The last one that has was at {known.passed}." if known.passed else "None ever has."
        why = f" The last one, at {known.at}, {ended(known)}: {known.reason}" if known.outcome else ""
        yield Trouble(
            "drill-overdue",
            "no drill has passed for a long time",
            f"No drill has passed for {days} days. {before}{why}",
            "Whether the copy could be used after a disaster is not proven.",
            f"drbd-offsite drill {name} does one now; each week drbd-offsite-drill.timer does.",
        )


def ended(known: LastDrill) -> str:
    """How the last one has, in words."""
    return Outcome(known.outcome).in_words if known.outcome in list(Outcome) else known.outcome
