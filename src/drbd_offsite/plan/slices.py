"""Comparing volumes slice by slice, in rounds from beginning to end: what is due, and what has come of it. Pure.

Sectors are of 512 bytes. A slice is a verify like any other, so `findings` and `repair` see to what it finds.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from math import ceil
from typing import Any

from ..model import Site, Verification, Window
from ..observed import DrbdResource, Host, ReplicationState, Role
from ..remembered import Round
from .drilled import DAY_SECONDS, Trouble
from .findings import BLOCK_SECTORS, SECTOR_BYTES, Check, Outcome
from .repair import pause_seconds

KIND = "slices"
"""By resource (`journal.remembered`)."""

LONGEST = timedelta(minutes=4)
"""Of a slice, at its rate. The line may be slower than that, and a handover waits five minutes for the end of one."""

MOST_HALVINGS = 4
"""Of a slice that is broken off: it is to fit between two failures of the line."""

MIB_SECTORS = 2**20 // SECTOR_BYTES

OVERDUE = 2
"""So many times ``days``."""


@dataclass(frozen=True, slots=True)
class Slice:
    """A part of a volume that is to be compared now."""

    resource: str
    start: int
    stop: int
    last: bool
    """It ends where the volume does."""
    behind: float
    """What the round lacks by the next hours, as a share of the volume."""
    round: Round


def due(site: Site, host: Host, peer: str, idle: Collection[str], at: datetime) -> Slice | None:
    """The slice of one of a peer's resources that is to be compared now, of the one that is farthest behind.

    ``idle`` are those for which `repair` has nothing to do; ``at`` is now, by the clock on the wall.
    """
    window = site.verify.hours.around(at)
    if not site.verify.days or window is None or host.operations or _line_taken(site, host, peer):
        return None
    found = []
    for name, resource in site.resources.items():
        known, seen = host.rounds.get(name), host.drbd.get(name)
        if resource.peer == peer and name in idle and known is not None and seen is not None and _served(seen):
            found.append(_next(site.verify, name, known, size_sectors(seen), window, at))
    return max(filter(None, found), key=lambda piece: piece.behind, default=None)


def size_sectors(seen: DrbdResource) -> int:
    """0 where it is not known. The last block of a volume may be a part of one."""
    size = seen.volumes[0].size_bytes if seen.volumes else 0
    return _border(size / SECTOR_BYTES)


def _line_taken(site: Site, host: Host, peer: str) -> bool:
    """Whether DRBD is at work on any resource of a peer: a resync, a verify, or the server is ahead of its backup."""
    for name, resource in site.resources.items():
        seen = host.drbd.get(name)
        if resource.peer == peer and seen is not None and seen.connected:
            device = seen.peer_device
            if device is None or device.replication is not ReplicationState.ESTABLISHED:
                return True
    return False


def _served(seen: DrbdResource) -> bool:
    return seen.role is Role.PRIMARY and seen.connection is not None and seen.connection.role is Role.SECONDARY


def _next(verify: Verification, name: str, known: Round, end: int, window: Window, at: datetime) -> Slice | None:
    """What is due of a volume that ends at a sector."""
    if known.covered >= end:
        return None
    if known.ended is not None and window.opened <= known.ended <= at:
        return None  # the next round begins with the next hours
    if known.broken_off_at is not None:
        waited = (at - known.broken_off_at).total_seconds()
        if 0 <= waited < pause_seconds(known.broken_off):
            return None
    period = timedelta(days=verify.days)
    since = known.since
    if since is None or since > at:  # the clock was wrong, then or now
        since = (window.opened - period * (known.covered / end)).astimezone(UTC)
    goal = min(end, _border(end * ((window.reopens - since) / period)))
    lasting = min(window.closes - at, LONGEST / 2 ** min(known.broken_off, MOST_HALVINGS))
    reach = known.covered + int(lasting.total_seconds()) * verify.rate * MIB_SECTORS
    stop = min(goal, reach)
    if stop <= known.covered:
        return None
    behind = (goal - known.covered) / end
    return Slice(name, known.covered, stop, stop == end, behind, replace(known, since=since))


def _border(sectors: float) -> int:
    """The next border of blocks."""
    return ceil(sectors / BLOCK_SECTORS) * BLOCK_SECTORS


def after(known: Round, check: Check, outcome: Outcome, now: datetime) -> Round:
    """What is known when a slice has ended. What was broken off is compared again from the slice's beginning."""
    if outcome is Outcome.BROKEN_OFF:
        return replace(known, broken_off=known.broken_off + 1, broken_off_at=now)
    covered = check.reached if check.start == known.covered else known.covered
    return replace(known, covered=covered, broken_off=0, broken_off_at=None)


def whole(known: Round, seen: DrbdResource | None) -> bool:
    """Whether a round has come to the end of the volume, also because that was made smaller."""
    return seen is not None and 0 < size_sectors(seen) <= known.covered


def ended(known: Round, now: datetime) -> Round:
    """With the round as the last whole one."""
    return replace(known, since=None, covered=0, ended=now)


# -- what is kept ----------------------------------------------------------------------------------


def as_entry(known: Round) -> dict[str, object]:
    return {
        "first": text(known.first),
        "since": text(known.since),
        "covered": known.covered,
        "ended": text(known.ended),
        "broken_off": known.broken_off,
        "broken_off_at": text(known.broken_off_at),
    }


def from_entry(entry: Mapping[str, Any], now: datetime) -> Round | None:
    """What `as_entry` has made; None for what cannot be understood."""
    try:
        first, since, ended, broken_off_at = (
            datetime.fromisoformat(entry[key]).astimezone(UTC) if entry[key] else None
            for key in ("first", "since", "ended", "broken_off_at")
        )
        covered, broken_off = max(0, int(entry["covered"])), max(0, int(entry["broken_off"]))
    except (KeyError, TypeError, ValueError):
        return None
    if first is None:
        return None
    # An end that is still to come was noted by a clock that was wrong.
    proven = max((at for at in (first, ended) if at is not None and at <= now), default=now)
    return Round(first, since, covered, ended, broken_off, broken_off_at, (now - proven).total_seconds())


def text(at: datetime | None) -> str:
    """ISO 8601 to the second; empty for none."""
    return at.isoformat(timespec="seconds") if at else ""


# -- what a person is told -------------------------------------------------------------------------


def share(known: Round, seen: DrbdResource) -> float:
    """How much of the volume the round has compared, in percent; 0 where its size is not known."""
    end = size_sectors(seen)
    return min(known.covered / end, 1.0) * 100 if end else 0.0


def describe(known: Round, seen: DrbdResource) -> str:
    """How far the round is, and when the last whole one has ended."""
    now = "the next slice is compared in the hours of [verify]"
    if known.since is not None:
        now = f"{share(known, seen):.0f} % since {text(known.since)}"
    before = f"the last whole round ended at {text(known.ended)}" if known.ended else "no whole round has ended yet"
    return f"{now}; {before}"


def overdue(site: Site, known: Round) -> bool:
    days = site.verify.days
    return days > 0 and known.unproven_seconds > OVERDUE * days * DAY_SECONDS


def troubles(site: Site, host: Host, name: str) -> Iterator[Trouble]:
    known, seen = host.rounds.get(name), host.drbd.get(name)
    if known is None or seen is None or seen.role is not Role.PRIMARY or not overdue(site, known):
        return
    verify = site.verify
    yield Trouble(
        "verify-overdue",
        "its copies have not been compared for a long time",
        f"No round of comparisons has come to its end for {int(known.unproven_seconds // DAY_SECONDS)} days; "
        f"{verify.days} are intended (days in [verify]). So far: {describe(known, seen)}.",
        "What is served and replicated is not affected. Whether the copy is the same in every block is not proven.",
        f"drbd-offsite verify {name} compares all of it now. If the hours of [verify] in drbd-offsite.conf are too "
        f"short for {verify.rate} MiB/s, make them longer, or give it a higher rate or more days. drbd-offsite events "
        f"{name} says what has broken slices off.",
    )
