"""A drill's result: what was looked at, what was checked, what was found, and what follows from it. Pure."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from ..observed import ConnectionState, DrbdResource
from .assess import amount, duration
from .drilled import Count, Outcome
from .look import Check, Source, Verdict

SCHEMA = 1
"""Of the JSON; a number is only raised when something is taken away or changes its meaning."""


@dataclass(frozen=True, slots=True)
class Line:
    """How replication goes at one instant."""

    state: str
    """In the kernel's words."""
    received_bytes: int = 0
    """Since the connection was made."""
    lacking_bytes: int | None = None
    """What the server says is not here yet; None where it was not asked or did not answer."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What was looked at."""

    source: Source
    taken: str
    as_of: str
    """Up to when it has what was written; empty where that is not known."""
    fstype: str
    """Empty for none that is known here."""
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Result:
    resource: str
    hostname: str
    peer: str
    volume: str
    outcome: Outcome
    reason: str
    """One sentence, or a few."""
    begun: str
    ended: str
    seconds: int
    line_before: Line
    line_after: Line
    seen: Seen | None = None
    """None where it did not come to that."""
    checks: tuple[Check, ...] = ()
    count: Count | None = None
    """None where the files were not all counted."""
    count_before: Count | None = None
    counted_before: str = ""
    """When."""

    @property
    def age_seconds(self) -> int | None:
        """How old the data was when it was looked at; None where that is not known."""
        return _seconds_between(self.seen.as_of, self.seen.taken) if self.seen else None

    @property
    def received_bytes(self) -> int | None:
        """What has come in meanwhile; None where the connection was made anew."""
        received = self.line_after.received_bytes - self.line_before.received_bytes
        return received if received >= 0 else None


def _seconds_between(earlier: str, later: str) -> int | None:
    if not earlier or not later:
        return None
    return max(int((datetime.fromisoformat(later) - datetime.fromisoformat(earlier)).total_seconds()), 0)


def line(seen: DrbdResource | None, lacking_bytes: int | None) -> Line:
    if seen is None:
        return Line("not up")
    device = seen.peer_device
    state = seen.connection.state if seen.connection else ConnectionState.STANDALONE
    words = ", ".join([state, *([device.replication] if device and seen.connected else []), f"{seen.disk} here"])
    return Line(words, device.received_bytes if device else 0, lacking_bytes)


def compared(before: Count | None, at: str, now: Count) -> Check:
    """The count of this drill against the one before it: less than a half of it is a finding."""
    found = f"{now.files:,} files, {amount(now.size_bytes)}"
    if before is None:
        return Check("files", Verdict.GOOD, f"{found}. There is no earlier count to compare with.")
    then = f"at {at} there were {before.files:,} files, {amount(before.size_bytes)}"
    if now.files * 2 < before.files:
        return Check("files", Verdict.FINDING, f"{found}: far fewer files than at the last count; {then}.")
    if now.size_bytes * 2 < before.size_bytes:
        return Check("files", Verdict.FINDING, f"{found}: far less in the files than at the last count; {then}.")
    return Check("files", Verdict.GOOD, f"{found}; {then}.")


def conclude(checks: Iterable[Check], exhausted: str) -> tuple[Outcome, str]:
    """What the checks come to. ``exhausted``: why none of them counts."""
    if exhausted:
        return Outcome.UNTESTED, exhausted
    by_verdict: dict[Verdict, list[Check]] = {}
    for check in checks:
        by_verdict.setdefault(check.verdict, []).append(check)
    for verdict, outcome in (
        (Verdict.BAD, Outcome.FAILED),
        (Verdict.UNKNOWN, Outcome.UNTESTED),
        (Verdict.FINDING, Outcome.WARNED),
    ):
        if found := by_verdict.get(verdict):
            return outcome, " ".join(f"{check.name}: {check.text}" for check in found)
    if not by_verdict:
        return Outcome.UNTESTED, "Nothing was checked."
    return Outcome.PASSED, "The copy can be used: it was mounted, and all that was checked is good."


def facts(result: Result) -> Iterator[tuple[str, str]]:
    """What there is to say beside the checks, each with its name; the text and the page have the same."""
    yield "machine", f"{result.hostname}, the backup of {result.peer}"
    seen = result.seen
    if seen is None:
        yield "looked at", f"nothing; it would have been {result.volume}"
    else:
        filesystem = seen.fstype or "no filesystem that is known here"
        yield "looked at", f"a snapshot of the {seen.source} ({result.volume}, {amount(seen.size_bytes)}, {filesystem})"
        yield "taken", seen.taken
        age = result.age_seconds
        if age is None:
            yield "data up to", "not known"
        else:
            yield "data up to", f"{seen.as_of} ({duration(age)} before that)" if age else f"{seen.as_of} (that instant)"
    yield "duration", f"{duration(result.seconds)}, from {result.begun} to {result.ended}"
    before, after = result.line_before, result.line_after
    if before.state == after.state:
        yield "replication", f"{before.state}, before and after"
    else:
        yield "replication", f"{before.state}; afterwards {after.state}"
    if result.received_bytes is not None:
        yield "came meanwhile", amount(result.received_bytes)
    if after.lacking_bytes is not None:
        earlier = "" if before.lacking_bytes is None else f"; {amount(before.lacking_bytes)} when it began"
        yield "lag", f"{amount(after.lacking_bytes)} of the server's changes were not here yet when it ended{earlier}"


def as_text(result: Result) -> str:
    lines = [f"{result.resource}: {result.outcome.in_words}. {result.reason}"]
    lines += [f"  {name:15} {text}" for name, text in facts(result)]
    for check in result.checks:
        took = f" ({duration(check.seconds)})" if check.seconds else ""
        lines.append(f"  {check.verdict:8} {check.name}: {check.text}{took}")
        lines += [f"           | {line}" for line in check.output]
    return "\n".join(lines)


def as_json(result: Result) -> dict[str, Any]:
    """With the fields of `Result`, and what follows from them."""
    derived = {"age_seconds": result.age_seconds, "received_bytes": result.received_bytes}
    return {"schema": SCHEMA, **asdict(result), **derived}
