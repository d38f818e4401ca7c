"""How far a copy is behind, and whether it will ever catch up. Pure.

What is outstanding is what DRBD has noted as out of sync. In a while the line takes some of it off (what it carries,
less the writes that go along with a resync), and writes that are not sent add to it (all of them while the line is too
slow or cut). Only the sum of both can be seen, as what is outstanding gets less or more from look to look, and only
the sum counts: ``drained`` is what the line takes off in a second, less what is newly added.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field
from enum import StrEnum
from typing import Any

from ..model import Resource, Site
from ..observed import DrbdResource, Host, PeerDevice, ReplicationState, Role
from ..remembered import Averages, Rates
from ..tools.rrdtool import Sample
from .assess import amount, duration

LOOKS_SECONDS = 300.0
"""By the looks of so long it is told how fast what is outstanding gets less."""

FRESH_SECONDS = 180.0
"""What was found longer ago says nothing about now."""

LAG_SECONDS = 60.0
"""A copy that is up to date is some ten seconds old (operations/marks.py)."""

BYTES_IN_MBIT = 125_000

_QUEUED = frozenset({ReplicationState.PAUSED_SYNC_SOURCE, ReplicationState.PAUSED_SYNC_TARGET})


class Verdict(StrEnum):
    """The words are an interface: the JSON has them."""

    UP_TO_DATE = "up to date"
    KEEPING_PACE = "keeping pace"
    CATCHING_UP = "catching up"
    FALLING_BEHIND = "falling behind"
    NEVER = "will never catch up"
    NOT_CONNECTED = "not connected"


@dataclass(frozen=True, slots=True)
class Pace:
    verdict: Verdict
    sentence: str
    age: float | None
    """Seconds since the copy had everything; None where that is not known."""
    outstanding: int | None
    """Bytes; None where only the other machine knows."""
    rates: Rates
    eta: int | None
    """Seconds until nothing is outstanding, where it gets less."""


def pace(site: Site, host: Host, resource: Resource) -> Pace | None:
    """None for a resource that is not up."""
    seen = host.drbd.get(resource.name)
    if seen is None:
        return None
    device = seen.peer_device if seen.connected else None
    rates = host.rates.get(resource.name, Rates())
    age = host.ages.get(resource.name)
    outstanding = _outstanding(seen)
    too_much = _too_much(site, host, resource)
    overload = host.overloads.get(resource.name)
    ahead = device is not None and (device.replication.one_is_ahead or (overload is not None and overload.lasting))
    verdict = _verdict(device, rates.drained, age, ahead=ahead, more_than_it_carries=too_much is not None)
    eta = time_left(outstanding, rates.drained) if verdict is Verdict.CATCHING_UP and _runs(device) else None
    match verdict:
        case Verdict.UP_TO_DATE:
            sentence = "The copy is up to date."
        case Verdict.KEEPING_PACE:
            sentence = _keeping(outstanding)
        case Verdict.CATCHING_UP:
            sentence = _catching_up(host, seen, outstanding, rates, eta)
        case Verdict.FALLING_BEHIND:
            sentence = f"Falling behind: {amount(outstanding or 0)} outstanding, {_more(rates.drained)}."
        case Verdict.NEVER:
            written, carried = too_much or (0.0, 0.0)
            sentence = (
                f"It will never catch up at this rate: {_rate(written)} were written over the last day, and the line "
                f"carries {_rate(carried)}."
            )
        case Verdict.NOT_CONNECTED:
            sentence = _not_connected(outstanding, rates.drained)
    if verdict is not Verdict.UP_TO_DATE and age is not None and age > LAG_SECONDS:
        sentence += f" The copy has everything up to {duration(int(age))} ago."
    return Pace(verdict, sentence, age, outstanding, rates, eta)


def time_left(outstanding: int | None, drained: float | None) -> int | None:
    """Seconds until nothing is outstanding: ``outstanding / drained``, and ``drained`` is what the line takes off in
    a second less what is newly added. None where it does not get less, or nothing is known.
    """
    if outstanding is None or drained is None or drained <= 0:
        return None
    return math.ceil(outstanding / drained)


def _outstanding(seen: DrbdResource) -> int | None:
    """Without a connection the copy that is not in use cannot know what it lacks."""
    device = seen.peer_device
    if device is None or (not seen.connected and seen.role is not Role.PRIMARY):
        return None
    return device.out_of_sync_bytes


def _verdict(
    device: PeerDevice | None, drained: float | None, age: float | None, *, ahead: bool, more_than_it_carries: bool
) -> Verdict:
    """``device`` is None without a connection; ``ahead``: at this moment, or again and again."""
    if device is None:
        return Verdict.NOT_CONNECTED
    if device.replication.sent_at_once:
        late = age is not None and age > LAG_SECONDS
        return Verdict.KEEPING_PACE if late or device.out_of_sync_bytes else Verdict.UP_TO_DATE
    unknown = drained is None and not ahead
    if unknown or device.replication in _QUEUED or (drained is not None and drained > 0):
        return Verdict.CATCHING_UP
    return Verdict.NEVER if more_than_it_carries else Verdict.FALLING_BEHIND


def _runs(device: PeerDevice | None) -> bool:
    return device is not None and device.replication not in _QUEUED


def _too_much(site: Site, host: Host, resource: Resource) -> tuple[float, float] | None:
    """What was written over the last day and what the line carries, in bytes a second, where the first is more.

    All resources of a line share what the configuration says that it carries. A line that is slower than that shows
    by the most that it has carried of one of them.
    """
    peer = site.peer_of(resource)
    found = {name: rates.averages for name, rates in host.rates.items()}
    on_line = (
        found[other.name] for other in site.resources.values() if other.peer == peer.name and other.name in found
    )
    written = sum(averages.written_day or 0.0 for averages in on_line)
    carries = float(peer.link_speed * BYTES_IN_MBIT)
    if written > carries:
        return written, carries
    own = found.get(resource.name, Averages())
    if own.written_day is not None and own.carried is not None and own.written_day > own.carried:
        return own.written_day, own.carried
    return None


def _keeping(outstanding: int | None) -> str:
    if outstanding:
        return f"What is written is sent at once; {amount(outstanding)} that differ are still to be sent."
    return "What is written is sent at once."


def _catching_up(host: Host, seen: DrbdResource, outstanding: int | None, rates: Rates, eta: int | None) -> str:
    left = f"Catching up: {amount(outstanding or 0)} left"
    if eta is None or rates.drained is None:
        return f"{left}; how long that takes is not known yet."
    text = f"{left}, {_rate(rates.drained)}, about {duration(eta)} to go"
    progress = host.progress.get(seen.volumes[0].minor) if seen.volumes else None
    kernel = progress.finish_seconds if progress else None
    if kernel is not None and max(eta, kernel) > 2 * max(min(eta, kernel), LAG_SECONDS):
        text += f" (by the kernel's last seconds {duration(kernel)})"
    return f"{text}."


def _not_connected(outstanding: int | None, drained: float | None) -> str:
    if outstanding is None:
        return "Not connected: what is outstanding is known where it is written."
    if not outstanding:
        return "Not connected: nothing is outstanding."
    return f"Not connected: {amount(outstanding)} outstanding, {_more(drained)}."


def _more(drained: float | None) -> str:
    return f"{_rate(-drained)} more" if drained is not None and drained < 0 else "not getting less"


def _rate(value: float) -> str:
    return f"{amount(round(value))}/s"


# What the watcher remembers of its looks, so that a pace can be told without asking anything.


@dataclass(frozen=True, slots=True)
class Notes:
    """Of a resource, at the last full look."""

    at: float
    """Seconds since 1970."""
    serving: bool
    connected: bool
    looks: tuple[tuple[float, int], ...]
    """When, and what was outstanding then: since it was connected or was not, and no longer than `LOOKS_SECONDS`."""
    averages: Averages = field(default_factory=Averages)


def noted(before: Notes | None, seen: DrbdResource, at: float, turned: float = 0.0) -> Notes:
    """With this look. A clock that was set back begins anew.

    ``turned`` is when the server has last gone ahead of the backup: what was seen before that says nothing of a
    resync that goes on since then, once two looks have seen it.
    """
    outstanding = _outstanding(seen)
    looks = before.looks if before and before.connected == seen.connected and before.at < at else ()
    looks = tuple((when, amount) for when, amount in looks if at - when <= LOOKS_SECONDS)
    if outstanding is not None:
        looks = (*looks, (at, outstanding))
        calm = tuple(look for look in looks if look[0] > turned)
        looks = calm if len(calm) > 1 else looks
    return Notes(at, seen.role is Role.PRIMARY, seen.connected, looks, before.averages if before else Averages())


def sample(before: Notes | None, seen: DrbdResource, age: float | None) -> Sample:
    """What goes into the history. A machine that has begun to serve, or ended that, counts something else: for one
    sample that is not known, or the difference between the two counts would look like a rate.
    """
    serving = seen.role is Role.PRIMARY
    volume = seen.volumes[0] if serving and seen.volumes else None
    device = seen.peer_device if before and before.serving == serving else None
    sent = None if device is None else device.sent_bytes if serving else device.received_bytes
    return Sample(volume.written_bytes if volume else None, sent, _outstanding(seen), age)


def drained(looks: Sequence[tuple[float, int]]) -> float | None:
    """Bytes by which what is outstanding has become less in a second; None from a single look."""
    if not looks or looks[-1][0] <= looks[0][0]:
        return None
    (begin, most), (end, left) = looks[0], looks[-1]
    return (most - left) / (end - begin)


def to_entry(notes: Notes) -> dict[str, object]:
    """As JSON has it."""
    return {
        "at": notes.at,
        "serving": notes.serving,
        "connected": notes.connected,
        "looks": [list(look) for look in notes.looks],
        "averages": list(astuple(notes.averages)),
    }


def from_entry(entry: Mapping[str, Any]) -> Notes | None:
    """None for one that cannot be understood."""
    match entry:
        case {
            "at": float(at),
            "serving": bool(serving),
            "connected": bool(connected),
            "looks": list(looks),
            "averages": [_, _, _, _] as averages,
        } if all(value is None or isinstance(value, float) for value in averages):
            known = tuple((when, count) for when, count in filter(_is_look, looks))
            return Notes(at, serving, connected, known, Averages(*averages))
    return None


def _is_look(look: object) -> bool:
    match look:
        case [float(), int()]:
            return True
    return False


def rates(entry: Mapping[str, Any], now: float) -> Rates | None:
    """None where they are not of a moment ago."""
    notes = from_entry(entry)
    if notes is None or not 0.0 <= now - notes.at <= FRESH_SECONDS:
        return None
    return Rates(notes.averages, drained(notes.looks))
