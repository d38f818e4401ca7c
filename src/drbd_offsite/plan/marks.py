"""Up to when the backup has everything: marks in the stream of writes. Pure.

With protocol A a write is acknowledged when it is in DRBD's connection, and what is put in there comes out in order
(drbd_req.c, HANDED_OVER_TO_NETWORK). So the machine that serves notes an instant and, after it, how much it has put
into the connection. When the other machine has taken so much out of it, it has all that was acknowledged before that
instant. No clock of one machine is compared with the other's.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..model import Resource, Site
from ..observed import DiskState, DrbdResource, Role
from ..tools.sockets import Socket

SYN_BYTES = 1
"""By so much an end may overstate what it has written (tools/sockets.py)."""

CONNECTIONS = 2
"""Of a resource: for data, and for what is urgent. Which is which cannot be seen, so a mark is for both."""

MOST_WAITING = 12
"""Marks of a resource that the other machine has not passed. With more, the oldest would never be passed."""


@dataclass(frozen=True, slots=True)
class Place:
    """Of a mark in one connection, as the machine sees it that has made the mark."""

    local: str
    remote: str
    written_bytes: int


@dataclass(frozen=True, slots=True)
class Mark:
    resource: str
    at: str
    """ISO 8601, by the clock of the machine that serves."""
    places: tuple[Place, ...]


def complete(seen: DrbdResource | None) -> bool:
    """Whether what is written on this machine, which serves, is sent at once and nothing else has to be."""
    device = seen.peer_device if seen and seen.connected else None
    return (
        seen is not None
        and device is not None
        and seen.role is Role.PRIMARY
        and device.disk is DiskState.UP_TO_DATE
        and device.replication.sent_at_once
        and not device.out_of_sync_bytes
    )


def make(site: Site, resource: Resource, at: str, sockets: Iterable[Socket]) -> Mark | None:
    """A mark for ``at``, of connections that were looked at later; None where they are not what they should be."""
    peer = site.peer_of(resource)
    here, there = site.address_here(peer), site.address_there(peer)
    listening = (f"{here}:{resource.here.port}", f"{there}:{resource.there.port}")
    places = tuple(
        Place(found.local, found.remote, found.written_bytes)
        for found in sockets
        if _address(found.local) == here and _address(found.remote) == there
        if found.local == listening[0] or found.remote == listening[1]
    )
    return Mark(resource.name, at, places) if len(places) >= CONNECTIONS else None


def passed(mark: Mark, sockets: Iterable[Socket]) -> bool:
    """Whether this machine, the other end, has taken all out of the connections that comes before the mark."""
    taken = {(found.remote, found.local): found.taken_bytes for found in sockets}
    return bool(mark.places) and all(
        taken.get((place.local, place.remote), -1) >= place.written_bytes - SYN_BYTES for place in mark.places
    )


def waiting(marks: Iterable[Mark], passed_at: Mapping[str, str], sockets: Iterable[Socket]) -> tuple[Mark, ...]:
    """Of the ``marks``, oldest first, those that are still to be passed and can be.

    ``passed_at``: of each resource the last that has been passed. One of a connection that has ended never is.
    """
    open_now = {(found.local, found.remote) for found in sockets}
    left: dict[str, list[Mark]] = {}
    for mark in marks:
        found = left.setdefault(mark.resource, [])
        if mark.at == passed_at.get(mark.resource):
            found.clear()
        elif len(found) < MOST_WAITING and all((place.local, place.remote) in open_now for place in mark.places):
            found.append(mark)
    return tuple(mark for found in left.values() for mark in found)


def _address(end: str) -> str:
    return end.rpartition(":")[0]
