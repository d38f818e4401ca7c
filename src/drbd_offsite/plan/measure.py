"""What was measured of a line, whether its configured speed fits that, and when measuring would do harm. Pure."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from ..model import LINK_SPEEDS, Peer, Site
from ..observed import Host, ReplicationState

KIND = "measured"
"""Of each peer (`journal.remembered`): what was measured last."""

TOLERANCE = 1.5
"""So many times as fast or as slow as it was measured a line may be configured, and nobody is told."""

SSH_WINDOW_BYTES = 2 * 2**20
"""So much one channel of OpenSSH has under way at most (channels.h, CHAN_SES_WINDOW_DEFAULT)."""

_NEAR = 0.7
"""Of what the window allows: more of it no measurement reaches for certain."""


@dataclass(frozen=True, slots=True)
class Measured:
    at: str
    """ISO 8601, UTC."""
    there: float
    """Mbit/s, to the peer."""
    here: float
    """Mbit/s, from the peer."""
    round_trip: float
    """Seconds."""

    @property
    def slower(self) -> float:
        return min(self.there, self.here)


class Verdict(StrEnum):
    """The words are an interface: the JSON has them."""

    FITS = "fits"
    TOO_HIGH = "too high"
    TOO_LOW = "too low"
    NOT_KNOWN = "not known"
    """It is more than was measured, and the line may carry more than that."""


def mbit(size_bytes: int, seconds: float) -> float:
    return size_bytes * 8 / 1_000_000 / seconds


def fitting(measured: Measured) -> int:
    """The link_speed that was measured: its first two digits, and at least 1."""
    whole = int(measured.slower)
    step: int = 10 ** max(len(str(whole)) - 2, 0)
    return min(max(whole // step * step, LINK_SPEEDS[0]), LINK_SPEEDS[-1])


def judge(link_speed: int, measured: Measured) -> Verdict:
    fits = fitting(measured)
    if link_speed > fits * TOLERANCE:
        most = mbit(SSH_WINDOW_BYTES, measured.round_trip) if measured.round_trip > 0 else math.inf
        return Verdict.NOT_KNOWN if measured.slower > most * _NEAR else Verdict.TOO_HIGH
    return Verdict.TOO_LOW if fits > link_speed * TOLERANCE else Verdict.FITS


def advice(peer: Peer, measured: Measured) -> str:
    """What it means for resyncs, and what to do."""
    fits = fitting(measured)
    carries = f"link_speed is {peer.link_speed}, and the slower direction carries {rounded(measured.slower)} Mbit/s"
    take = f"drbd-offsite measure-link {peer.name} --apply"
    match judge(peer.link_speed, measured):
        case Verdict.FITS:
            return f"{carries}: that fits, and nothing has to be done."
        case Verdict.TOO_HIGH:
            return f"{carries}: a resync would take all of the line. To make it {fits} on both machines: {take}"
        case Verdict.TOO_LOW:
            return (
                f"{carries}: a resync takes longer than it has to. Unless the rest of the line is kept free for "
                f"something else, make it {fits} on both machines: {take}"
            )
        case Verdict.NOT_KNOWN:
            return f"link_speed is {peer.link_speed}. {LIMITED}"


LIMITED = (
    "What was measured is about all that one connection of ssh carries over such a round trip, so the line may carry "
    "more than that."
)


def rounded(speed: float) -> str:
    """Mbit/s for a person."""
    return f"{speed:.1f}" if speed < 100 else f"{speed:.0f}"


def busy(site: Site, host: Host, peer: str) -> str:
    """What the line to a peer is needed for now, beside what is being written; empty for nothing."""
    for resource in site.resources.values():
        seen = host.drbd.get(resource.name)
        device = seen.peer_device if seen and seen.connected and resource.peer == peer else None
        if device is None or device.replication is ReplicationState.ESTABLISHED:
            continue
        state = device.replication
        if state.resyncing:
            return f"{resource.name} is being synced ({state})"
        if state.sent_at_once:
            return f"both copies of {resource.name} are being compared ({state})"
        return f"{resource.name} is {state}, so a resync follows"
    return ""


def from_entry(entry: Mapping[str, Any]) -> Measured | None:
    """What `dataclasses.asdict` of one put on disk; None for what cannot be understood."""
    match entry:
        case {"at": str(at), "there": float(there), "here": float(here), "round_trip": float(round_trip)}:
            return Measured(at, there, here, round_trip)
    return None
