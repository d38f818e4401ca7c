"""What online verifies have found: blocks that differ, and how the comparisons ended. Pure.

Sectors are of 512 bytes. What is kept survives in a file between two looks; `repair` decides what follows.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from math import inf
from typing import Any

from ..tools.drbd_log import Verify
from .assess import amount

SECTOR_BYTES = 512
BLOCK_SECTORS = 8
"""DRBD compares blocks of 4 KiB (drbd_int.h, BM_BLOCK_SIZE)."""

WINDOW_SECTORS = 8 * 2**20 // SECTOR_BYTES
"""How far apart two blocks may be that are compared at the same time, generously."""

MOST_RANGES = 200
"""More are kept as fewer, larger ones."""

SUSPICIOUS = 3
"""Found so often: once, and again after each of two repairs."""

MOST_SENDS = 3
"""Repairs in a row after which something still differs. More of the same will not help."""


@dataclass(frozen=True, slots=True)
class Range:
    """A place where the copies differed."""

    start: int
    sectors: int
    seen: int = 1
    """How often it was found, each time after it had been sent."""
    sent: bool = False
    """The backup has got it since it was found last."""
    slack: int = 0
    """Sectors in front of it among which there are others that the kernel's log has lost."""

    @property
    def stop(self) -> int:
        return self.start + self.sectors

    @property
    def reach(self) -> tuple[int, int]:
        """Where comparing it again has to begin and to end; both are borders of blocks."""
        start = max(0, self.start - self.slack)
        stop = self.stop + min(self.slack, WINDOW_SECTORS)
        return start // BLOCK_SECTORS * BLOCK_SECTORS, -(-stop // BLOCK_SECTORS) * BLOCK_SECTORS

    @property
    def suspicious(self) -> bool:
        return self.seen >= SUSPICIOUS


class Cause(StrEnum):
    """Why two copies are compared."""

    ASKED = "asked"
    """A person wants to know how it ends."""
    REPAIRED = "repaired"
    SLICE = "slice"
    """It is the volume's turn (`slices`)."""
    TAIL = "tail"
    """DRBD may have forgotten what differs at the end (`repair.TAIL_SECTORS`)."""


@dataclass(frozen=True, slots=True)
class Check:
    """A verify that was begun from here and has not come to its end."""

    since: str
    """ISO 8601; also tells one from another."""
    start: int = 0
    stop: int | None = None
    """None for the end of the volume."""
    cause: Cause = Cause.REPAIRED
    running: bool = True
    """False while it waits to be resumed."""
    reached: int = 0
    """The sector that it has certainly come to; of one that has ended in order, where that was."""
    found: int = 0
    """Places that differ, also those from before it was broken off."""
    broken_off: int = 0
    """How often."""
    broken_off_at: str = ""


class Outcome(StrEnum):
    EQUAL = "equal"
    DIFFERENT = "different"
    STOPPED = "stopped"
    """Before its end, and in order: somebody has given it a stop sector (drbdsetup(8), "verify")."""
    BROKEN_OFF = "broken-off"
    """The connection was lost, or the server got ahead of its peer. Nothing is known of the rest."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a comparison ended that a person had asked for."""

    since: str
    outcome: str
    places: int


@dataclass(frozen=True, slots=True)
class Findings:
    """What is known of one resource."""

    ranges: tuple[Range, ...] = ()
    check: Check | None = None
    differing_bytes: int = 0
    """What DRBD had marked when the kernel's log was read last; 0 once it was sent."""
    differing_since: str = ""
    found_bytes: int = 0
    """The most of it, for a person."""
    sends: int = 0
    """Repairs of what differs now."""
    cursor: str = ""
    """How far the kernel's log was read."""
    verdict: Verdict | None = None

    @property
    def unsent(self) -> tuple[Range, ...]:
        return tuple(r for r in self.ranges if not r.sent)


def as_entry(findings: Findings) -> dict[str, object]:
    return asdict(findings)


def from_entry(entry: Mapping[str, Any]) -> Findings:
    """What `as_entry` has made; nothing known where it cannot be understood."""
    try:
        check, verdict = entry["check"], entry["verdict"]
        return replace(
            Findings(**entry),
            ranges=tuple(Range(**r) for r in entry["ranges"]),
            check=Check(**{**check, "cause": Cause(check["cause"])}) if check else None,
            verdict=Verdict(**verdict) if verdict else None,
        )
    except (KeyError, TypeError, ValueError):
        return Findings()


# -- what the kernel has logged ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Taken:
    findings: Findings
    found: tuple[Range, ...] = ()
    check: Check | None = None
    """The comparison that has ended, and how:"""
    outcome: Outcome | None = None


def take_in(known: Findings, verifies: Sequence[Verify], marked_bytes: int | None, now: str) -> Taken:
    """Add what verifies have found, at a time at which none runs.

    ``marked_bytes`` is what DRBD has marked; None while it marks what is written, too.
    """
    ranges, found = known.ranges, list[Range]()
    for verify in verifies:
        new = _found(ranges, verify)
        ranges = (*_not_looked_at(ranges, verify, new), *new)
        found += new
    earlier = known.found_bytes if known.ranges or known.differing_bytes else 0
    marked = known.differing_bytes if marked_bytes is None else marked_bytes
    ranges = _with_slack(_fewer(ranges), marked)
    findings = replace(
        known,
        ranges=ranges,
        differing_bytes=marked,
        differing_since=known.differing_since or (now if marked else ""),
        found_bytes=max(earlier, marked, sum(r.sectors for r in ranges) * SECTOR_BYTES),
    )
    if known.check is None or not known.check.running:
        return Taken(findings, tuple(found))
    return _concluded(findings, tuple(found), known.check, verifies, now)


def _found(known: Iterable[Range], verify: Verify) -> list[Range]:
    new = []
    for start, stop in _joined((start, start + sectors) for start, sectors in verify.differing):
        before = [r for r in known if r.reach[0] < stop and start < r.reach[1]]
        seen = max((r.seen + r.sent for r in before), default=1)
        new.append(Range(start, stop - start, seen, verify.resent))
    return new


def _not_looked_at(known: Iterable[Range], verify: Verify, new: Iterable[Range]) -> list[Range]:
    """The ranges that a verify has neither found equal nor found again."""
    low, high = 0.0, 0.0
    if verify.start is not None and (verify.done or verify.reached is not None):
        low, high = verify.start, inf if verify.reached is None else verify.reached
    return [
        r
        for r in known
        if not (low <= r.start and r.stop <= high) and not any(n.start < r.stop and r.start < n.stop for n in new)
    ]


def _joined(places: Iterable[tuple[int, int]], gap: int = 0) -> list[tuple[int, int]]:
    """Places as starts and stops, those as one that have no more than ``gap`` between them."""
    joined: list[tuple[int, int]] = []
    for start, stop in sorted(places):
        if joined and start <= joined[-1][1] + gap:
            joined[-1] = (joined[-1][0], max(stop, joined[-1][1]))
        else:
            joined.append((start, stop))
    return joined


def _fewer(ranges: Sequence[Range]) -> tuple[Range, ...]:
    gap = BLOCK_SECTORS
    while len(ranges) > MOST_RANGES:
        places = _joined(((r.start, r.stop) for r in ranges), gap)
        inside = [[r for r in ranges if start <= r.start < stop] for start, stop in places]
        ranges = [
            Range(start, stop - start, max(r.seen for r in those), all(r.sent for r in those))
            for (start, stop), those in zip(places, inside, strict=True)
        ]
        gap *= 2
    return tuple(sorted(ranges, key=lambda r: r.start))


def _with_slack(ranges: tuple[Range, ...], marked_bytes: int) -> tuple[Range, ...]:
    """Allow for what the log has lost (`drbd_log.parse_verifies`).

    A lost place has nothing equal between itself and a later one that was logged, but for what is compared at
    the same time. So it is no farther in front of that one than all that was lost is large.
    """
    lost = marked_bytes // SECTOR_BYTES - sum(r.sectors for r in ranges if not r.sent)
    slack = lost + WINDOW_SECTORS if lost > 0 else 0
    return tuple(r if r.sent else replace(r, slack=max(r.slack, slack)) for r in ranges)


def _concluded(
    findings: Findings, found: tuple[Range, ...], check: Check, verifies: Sequence[Verify], now: str
) -> Taken:
    own = next((verify for verify in reversed(verifies) if verify.start == check.start), None)
    check = replace(check, found=check.found + len(found), running=False)
    if own is not None and own.done:
        whole = own.reached is None or (check.stop is not None and own.reached >= check.stop)
        # The log may have lost the places; what DRBD has marked it has not.
        different = check.found or findings.differing_bytes
        outcome = Outcome.DIFFERENT if different else Outcome.EQUAL if whole else Outcome.STOPPED
        if not whole and own.reached is not None:
            # It ends with the answer about the last block, whatever others are missing (drbd_worker.c,
            # w_e_end_ov_reply).
            check = replace(check, reached=max(check.start, own.reached - WINDOW_SECTORS))
        elif check.stop is not None:
            check = replace(check, reached=check.stop)
        verdict = Verdict(check.since, outcome, check.found) if check.cause == Cause.ASKED else findings.verdict
        return Taken(replace(findings, check=None, verdict=verdict), found, check, outcome)
    # Also where the log has none of it: the machine went down, or the command had not come through.
    reached = check.reached if own is None or own.reached is None else own.reached
    check = replace(check, reached=reached, broken_off=check.broken_off + 1, broken_off_at=now)
    # A slice is begun anew, in its hours.
    kept = None if check.cause is Cause.SLICE else check
    return Taken(replace(findings, check=kept), found, check, Outcome.BROKEN_OFF)


# -- what a person has to know --------------------------------------------------------------------


def remarks(known: Findings) -> dict[str, str]:
    """The reasons of the remarks that have to be there, by their setter."""
    reasons = {}
    suspicious = [r for r in known.ranges if r.suspicious]
    if known.differing_bytes or len(suspicious) < len(known.ranges):
        total = amount(known.found_bytes)
        reasons["out-of-sync"] = (
            f"online verify found {total} that differ between the copies, {where(known.ranges)}"
            if known.ranges
            else f"{total} are marked as different between the copies, and the kernel's log does not say where"
        )
        if known.sends > MOST_SENDS:
            reasons["out-of-sync"] += "; sending them has not helped"
    if suspicious:
        times = max(r.seen for r in suspicious)
        reasons["suspicious"] = f"the copies differ again and again, {where(suspicious)}, {times} times so far"
    return reasons


def where(ranges: Iterable[Range]) -> str:
    starts = sorted(r.start for r in ranges)
    return f"at sector {starts[0]}" if len(starts) == 1 else f"in {len(starts)} places from sector {starts[0]} on"


def describe(found: Sequence[Range]) -> str:
    """What a verify has found, as a sentence."""
    total = amount(sum(r.sectors for r in found) * SECTOR_BYTES)
    before = max(r.seen for r in found) - 1
    again = f" They had been sent {'once' if before == 1 else f'{before} times'} before." if before else ""
    return f"Online verify found {total} that differ between the copies, {where(found)}.{again}"
