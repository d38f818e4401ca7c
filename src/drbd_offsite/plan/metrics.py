"""A look at this machine as figures for Prometheus. Pure.

What cannot be seen is left out: a figure that is missing must not look like a good one.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from ..model import Flavour, Resource, Site
from ..observed import ConnectionState, DiskState, DrbdResource, Host, PeerDevice, Role
from ..remembered import LastDrill
from . import drilled
from .assess import assess

PREFIX = "drbd_offsite_"


class Kind(StrEnum):
    GAUGE = "gauge"
    COUNTER = "counter"


@dataclass(frozen=True, slots=True)
class Sample:
    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True, slots=True)
class Metric:
    name: str
    help: str
    kind: Kind
    samples: tuple[Sample, ...]
    """At least one, and all with the same labels."""


HELP: Mapping[str, str] = {
    "info": "Always 1; the labels say which version, flavour and DRBD module this machine has.",
    "look_timestamp_seconds": "When this machine was looked at.",
    "blind": "Whether DRBD's state could not be seen; all that is of DRBD is then left out.",
    "tunnel_up": "Whether this machine has its address in the tunnel to the peer.",
    "level": "How bad it is: 0 ok, 1 catching up, 2 held, 3 unprotected, 4 broken.",
    "disk_state": "1 for the state that the copy here is in.",
    "peer_disk_state": "1 for the state that the copy there is in.",
    "connection_state": "1 for the state that the connection is in.",
    "replication_state": "1 for what is done over the connection.",
    "primary": "Whether it is served from this machine.",
    "connected": "Whether the two copies are connected.",
    "up_to_date": "Whether the copy here is up to date.",
    "peer_up_to_date": "Whether the copy there is up to date.",
    "out_of_sync_bytes": "What is known to differ between the copies.",
    "sent_bytes_total": "What was sent to the other copy.",
    "received_bytes_total": "What was received from the other copy.",
    "resync_done_ratio": "How much of the running resync is done.",
    "complete_timestamp_seconds": "Up to when the copy that is not in use has everything, by the other one's clock.",
    "holds": "Holds and remarks.",
    "unfinished_operations": "Commands that were begun and are not finished.",
    "verify_timestamp_seconds": "When the last whole round of comparisons ([verify]) has ended.",
    "drill_timestamp_seconds": "When the last drill began.",
    "drill_passed_timestamp_seconds": "When the last drill began that has passed.",
    "drill_failed": "Whether the last drill has failed.",
    "drill_overdue": "Whether no drill has passed for drill_days.",
}
"""Of each metric, by its name without the prefix. A name that ends in _total is a counter's."""

NAMES = frozenset(PREFIX + name for name in HELP)

_Figure = tuple[str, Mapping[str, str], float]


def figures(site: Site, host: Host, version: str, now: datetime) -> tuple[Metric, ...]:
    """All that one look says. ``version`` is this program's, ``now`` when the look was taken."""
    samples: dict[str, list[Sample]] = {}
    for name, labels, value in _all(site, host, version, now):
        samples.setdefault(name, []).append(Sample(labels, float(value)))
    return tuple(
        Metric(PREFIX + name, text, Kind.COUNTER if name.endswith("_total") else Kind.GAUGE, tuple(samples[name]))
        for name, text in HELP.items()
        if name in samples
    )


def _all(site: Site, host: Host, version: str, now: datetime) -> Iterator[_Figure]:
    yield "info", {"version": version, "flavour": site.flavour, "drbd_version": host.drbd_version}, 1
    yield "look_timestamp_seconds", {}, now.timestamp()
    yield "blind", {}, host.blind
    for peer in site.peers.values():
        if peer.enrolled:
            yield "tunnel_up", {"peer": peer.name}, site.address_here(peer) in host.addresses
    for resource in site.resources.values():
        labels = {"resource": resource.name, "peer": resource.peer}
        for name, value in (*_of_drbd(site, host, resource), *_of_notes(site, host, resource)):
            yield name, labels, value
        for name, state in _states(host.drbd.get(resource.name)):
            yield name, {**labels, "state": state}, 1
    # One that makes a resource, or joins, is of nothing that is configured yet.
    for other in {operation.resource for operation in host.operations.values()} - site.resources.keys():
        yield "unfinished_operations", {"resource": other, "peer": ""}, _operations(host, other)


def _of_drbd(site: Site, host: Host, resource: Resource) -> Iterator[tuple[str, float]]:
    """What the kernel says, and what follows from it."""
    if host.blind:
        return
    yield "level", assess(site, host, resource).level
    seen = host.drbd.get(resource.name)
    yield "primary", seen is not None and seen.role is Role.PRIMARY
    yield "connected", seen is not None and seen.connected
    yield "up_to_date", seen is not None and seen.disk is DiskState.UP_TO_DATE
    device = seen.peer_device if seen else None
    if seen is None or device is None:
        return
    if device.disk is not DiskState.UNKNOWN:
        yield "peer_up_to_date", device.disk is DiskState.UP_TO_DATE
    if (lacking := differing(seen)) is not None:
        yield "out_of_sync_bytes", lacking
    yield "sent_bytes_total", device.sent_bytes
    yield "received_bytes_total", device.received_bytes
    done = _done_percent(host, resource, device)
    if done is not None:
        yield "resync_done_ratio", done / 100


def differing(seen: DrbdResource) -> int | None:
    """Bytes that are known to differ between the copies; None where this machine cannot know.

    The bitmap is on the disk here. Away from the machine that serves, what that one writes is not in it.
    """
    attached = seen.disk not in (DiskState.DISKLESS, DiskState.FAILED)
    knows = attached and (seen.connected or seen.role is Role.PRIMARY)
    return seen.peer_device.out_of_sync_bytes if knows and seen.peer_device else None


def _done_percent(host: Host, resource: Resource, device: PeerDevice) -> float | None:
    if not device.replication.resyncing:
        return None
    progress = host.progress.get(resource.here.minor)
    return progress.done_percent if progress else device.done_percent


def _of_notes(site: Site, host: Host, resource: Resource) -> Iterator[tuple[str, float]]:
    """What is remembered on disk."""
    complete = instant(host.complete.get(resource.name, ""))
    if complete is not None:
        yield "complete_timestamp_seconds", complete.timestamp()
    yield "holds", len(host.holds.get(resource.name, ()))
    yield "unfinished_operations", _operations(host, resource.name)
    if (compared := host.rounds.get(resource.name)) and compared.ended is not None:
        yield "verify_timestamp_seconds", compared.ended.timestamp()
    if site.flavour is Flavour.BACKUP and (known := host.drills.get(resource.name)):
        yield from _of_drills(site, known)


def _of_drills(site: Site, known: LastDrill) -> Iterator[tuple[str, float]]:
    if (at := instant(known.at)) is not None:
        yield "drill_timestamp_seconds", at.timestamp()
        yield "drill_failed", known.outcome == drilled.Outcome.FAILED
    if (passed := instant(known.passed)) is not None:
        yield "drill_passed_timestamp_seconds", passed.timestamp()
    yield "drill_overdue", drilled.overdue(site, known)


def _operations(host: Host, name: str) -> int:
    return sum(operation.resource == name for operation in host.operations.values())


def _states(seen: DrbdResource | None) -> Iterator[tuple[str, str]]:
    if seen is None:
        return
    yield "disk_state", seen.disk
    yield "connection_state", seen.connection.state if seen.connection else ConnectionState.STANDALONE
    if device := seen.peer_device:
        yield "peer_disk_state", device.disk
        yield "replication_state", device.replication


def instant(text: str) -> datetime | None:
    """What a note of ours calls an instant; None where it is none, or names no zone."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else None
