"""More is written than the line takes: again and again DRBD goes ahead, and tries to catch up. Pure.

With ``on-congestion pull-ahead`` the server goes ahead when so much is on its way that a write would have to wait,
and begins a resync a second after the last of it has arrived (drbd_req.c, maybe_pull_ahead; drbd_worker.c,
w_start_resync). While more is written than the line takes the one follows the other, every few seconds on a slow
line, and each time the backup says "catching up". One spell of that lasts until the copy is up to date.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

from ..observed import ReplicationState
from ..remembered import Overload

KIND = "overload"
"""`journal.remembered`, by resource."""


@dataclass(frozen=True, slots=True)
class Spell:
    """As the watcher follows it."""

    overload: Overload
    ahead: bool
    """At this moment; DRBD may say so more than once."""


def followed(before: Spell | None, replication: ReplicationState, now: str) -> Spell | None:
    """With a change that DRBD has announced (``now``: ISO 8601, UTC); None where there is no spell, or it is over.

    One that has lost its connection goes on: what was written meanwhile has still to pass the line.
    """
    if replication.one_is_ahead:
        if before is None:
            return Spell(Overload(now, 1, now), ahead=True)
        if before.ahead:
            return before
        return Spell(replace(before.overload, turns=before.overload.turns + 1, last=now), ahead=True)
    if before is None or replication is ReplicationState.ESTABLISHED:
        return None
    return replace(before, ahead=False)


def ended(overload: Overload) -> str:
    """For the journal."""
    times = "once" if overload.turns == 1 else f"{overload.turns} times"
    return f"The backup has caught up; since {overload.since} the server had gone ahead of it {times}."


def to_entry(spell: Spell) -> dict[str, object]:
    """As JSON has it."""
    return {**asdict(spell.overload), "ahead": spell.ahead}


def from_entry(entry: Mapping[str, Any] | None) -> Spell | None:
    """None for one that cannot be understood."""
    match entry:
        case {"since": str(since), "turns": int(turns), "last": str(last), "ahead": bool(ahead)} if _instant(last):
            return Spell(Overload(since, turns, last), ahead)
    return None


def _instant(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True
