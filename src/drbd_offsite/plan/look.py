"""A look at a copy while replication goes on: what it is taken of, at which moments, and the room that it gets. Pure.

What is looked at is a snapshot. While a resync overwrites the copy that is one of its restore point.
"""

from dataclasses import dataclass
from enum import StrEnum

from ..errors import Refused
from ..model import Resource, RestorePoint, Site, VolumeName
from ..observed import DiskState, DrbdResource, Host, LogicalVolume, ReplicationState, Role
from ..tools import dmsetup, lvm
from . import restore_point
from .actions import Run
from .restore_point import Storage

KIND = "looks"
"""Those that are open, by resource (`journal.remembered`): on disk before the first volume is made."""

TAG = "drbd_offsite_look"

RESYNC_EVENT = "before-resync-target"
"""The handler's, which has recorded it before the first block is overwritten."""

FULL_POOL_PERCENT = 90.0
"""A thin pool that overflows takes the copy with it."""

_MARGIN_BYTES = 16 * 2**20
_WRITTEN_SHARE = 10
"""One part in so many of a volume is what may be written to the copy during a look."""
_LEAST_SHARE = 100
"""The same, for the journal alone."""


class Source(StrEnum):
    COPY = "copy"
    RESTORE_POINT = "restore point"


class Verdict(StrEnum):
    """What one part of a look has come to."""

    GOOD = "good"
    FINDING = "finding"
    """It can be used, and a person should know of this."""
    BAD = "bad"
    UNKNOWN = "not done"
    """Which says nothing about the data."""


@dataclass(frozen=True, slots=True)
class Check:
    name: str
    verdict: Verdict
    text: str
    """One sentence."""
    seconds: int = 0
    output: tuple[str, ...] = ()
    """What the program said."""


@dataclass(frozen=True, slots=True)
class Place:
    """The names of all that a look makes."""

    volume: VolumeName
    look: VolumeName
    room: VolumeName
    """Of a device that is laid over a restore point."""
    overlay: str

    @classmethod
    def of(cls, resource: str, volume: VolumeName) -> "Place":
        look = VolumeName(volume.group, volume.name + "_look")
        return cls(volume, look, VolumeName(volume.group, look.name + "_cow"), overlay(resource))


def overlay(resource: str) -> str:
    """Of device-mapper. No volume's is written so: it has a hyphen after its group (dmsetup(8))."""
    return f"drbd_offsite_look_{resource}"


_WHOLE = (DiskState.UP_TO_DATE, DiskState.CONSISTENT, DiskState.OUTDATED)
_TO_BE_OVERWRITTEN = (
    ReplicationState.STARTING_SYNC_TARGET,
    ReplicationState.BITMAP_TARGET,
    ReplicationState.WAITING_FOR_SYNC_UUID,
    ReplicationState.SYNC_TARGET,
    ReplicationState.PAUSED_SYNC_TARGET,
)


def whole(seen: DrbdResource | None) -> bool:
    """Whether the copy is that of one instant, and stays so for now."""
    return seen is not None and seen.disk in _WHOLE and not _awaits_a_resync(seen)


def unsettled(seen: DrbdResource | None) -> bool:
    """A resync is about to begin, and its restore point about to be taken."""
    return seen is not None and seen.disk in _WHOLE and _awaits_a_resync(seen)


def _awaits_a_resync(seen: DrbdResource) -> bool:
    device = seen.peer_device
    return device is not None and device.replication in _TO_BE_OVERWRITTEN


def source(host: Host, resource: Resource, restorable: bool) -> Source:
    """What can be looked at now; ``restorable`` says that a restore point is known of. Raises Refused."""
    name, seen = resource.name, host.drbd.get(resource.name)
    if host.blind:
        raise Refused(f"DRBD's state cannot be seen: {'; '.join(host.problems)}.", "drbd-offsite doctor says more.")
    if whole(seen):
        return Source.COPY
    if seen is None or seen.disk not in (*_WHOLE, DiskState.INCONSISTENT):
        state = f"its disk here is {seen.disk}" if seen else "it is not up here"
        raise Refused(
            f"Whether the copy of {name} is whole is not known: {state}.",
            f"drbd-offsite status {name} says what is in the way; drbd-offsite up {name} tries to attach it.",
        )
    snapshot = restore_point.place(resource.here.volume)
    found = host.volumes.get(snapshot)
    if found is None or not restorable or restore_point.TAG not in found.tags:
        why = "and there is no restore point"
    elif restore_point.overflowed(found):
        why = f"and its restore point {snapshot} has overflowed and keeps nothing"
    else:
        return Source.RESTORE_POINT
    raise Refused(
        f"The copy of {name} is being overwritten by a resync, {why}: there is nothing usable of it here to look at.",
        f"When the resync has ended there is; drbd-offsite status {name} shows how far it is.",
    )


def as_of(host: Host, resource: Resource, taken: str) -> str:
    """Up to when what is ``taken`` now has everything; empty where that is not known.

    While a resync runs no mark is passed, so what is known of the copy then is known of its restore point.
    """
    seen = host.drbd.get(resource.name)
    if seen is not None and seen.role is Role.PRIMARY:
        return taken  # it is written to here
    return host.complete.get(resource.name, "")


def size_bytes(host: Host, resource: Resource) -> int:
    """Of what is seen. LVM shows the room of a thick snapshot, and not how much it reads as."""
    return host.volumes[resource.here.volume].size_bytes


def take(site: Site, storage: Storage, resource: Resource, what: Source) -> tuple[Run, ...]:
    """The steps to something that can be mounted. Raises Refused where there is no room."""
    place = Place.of(resource.name, resource.here.volume)
    copy = storage.volumes.get(place.volume)
    if copy is None:
        raise Refused(f"LVM knows no volume {place.volume}.", "lvs shows what there is.")
    for name in (place.look, place.room):
        if name in storage.volumes:
            raise Refused(f"There is a volume {name} already, and a look needs that name.", f"lvrename {name} …")
    origin = place.volume if what is Source.COPY else restore_point.place(place.volume)
    why = f"a look at the {what} of {resource.name}"
    if copy.pool:
        _enough_in_pool(storage, copy)
        return (
            Run(lvm.snapshot(origin, place.look, TAG, None), why, timeout=120.0),
            Run(lvm.activate(place.look), "a thin snapshot is not active when it is made"),
        )
    if what is Source.COPY:
        size = _room(site, storage, copy, copy.size_bytes // _WRITTEN_SHARE + _MARGIN_BYTES)
        return (Run(lvm.snapshot(origin, place.look, TAG, size), why, timeout=120.0),)
    size = _room(site, storage, copy, copy.size_bytes // _LEAST_SHARE + _MARGIN_BYTES)
    return (
        Run(lvm.create(place.room, size, TAG), f"room for {why}", timeout=120.0),
        Run(dmsetup.lay_over(place.overlay, origin.path, place.room.path, copy.size_bytes), why),
    )


def _enough_in_pool(storage: Storage, copy: LogicalVolume) -> None:
    pool = storage.volumes.get(VolumeName(copy.name.group, copy.pool))
    filled = pool.data_percent if pool else None
    if filled is not None and filled >= FULL_POOL_PERCENT:
        raise Refused(
            f"The thin pool {copy.name.group}/{copy.pool} is {filled:.0f} % full, and one that overflows takes the "
            "copy with it.",
            f"Give it more room: lvextend {copy.name.group}/{copy.pool}",
        )


def _room(site: Site, storage: Storage, copy: LogicalVolume, wanted: int) -> int:
    """For what is written while it is looked at: ``wanted``, or half of what is free if that will do."""
    group = storage.groups[copy.name.group]
    most = restore_point.least_bytes(copy.size_bytes)
    least = lvm.rounded(min(copy.size_bytes // _LEAST_SHARE + _MARGIN_BYTES, most), group.extent_bytes)
    kept = _kept_for_restore_points(site, storage, copy.name.group)
    free = max(group.free_bytes - kept, 0) // group.extent_bytes * group.extent_bytes
    if free < least:
        spared = f", of which {kept / 2**20:,.0f} MiB stay for restore points" if kept else ""
        raise Refused(
            f"The volume group {group.name} has {group.free_bytes / 2**20:,.0f} MiB free{spared}, and a look at "
            f"{copy.name} needs {least / 2**20:,.0f} MiB.",
            f"Give it another disk (vgextend {group.name} DEVICE), or make room in it (lvs {group.name}).",
        )
    half = free // 2 // group.extent_bytes * group.extent_bytes
    return max(min(lvm.rounded(min(wanted, most), group.extent_bytes), half), least)


def _kept_for_restore_points(site: Site, storage: Storage, group: str) -> int:
    """What resyncs that begin meanwhile should find: replication comes first."""
    if site.resync_snapshot is RestorePoint.NEVER:
        return 0
    extent = storage.groups[group].extent_bytes
    volumes = (storage.volumes.get(resource.here.volume) for resource in site.resources.values())
    return sum(
        lvm.rounded(restore_point.least_bytes(found.size_bytes // restore_point.CHANGED_SHARE), extent)
        for found in volumes
        if found and found.name.group == group and not found.pool
        if restore_point.place(found.name) not in storage.volumes
    )


def exhausted(storage: Storage, place: Place, state: dmsetup.State | None) -> str:
    """Why what was read may be wrong without the data's fault; empty where it is right. ``state``: of the overlay."""
    found, snapshot = storage.volumes.get(place.look), restore_point.place(place.volume)
    if state is dmsetup.State.WIPED:
        return "Another resync needed a restore point, and the look at the one before gave way to it."
    if state is dmsetup.State.FULL or (found and restore_point.overflowed(found)):
        return f"More was written meanwhile than the snapshot of {place.volume} had room for, so it reads as nothing."
    if state is not None:
        kept = storage.volumes.get(snapshot)
        if kept is None or restore_point.overflowed(kept):
            return f"The restore point {snapshot} has overflowed meanwhile and keeps nothing."
    elif found is None:
        return f"The snapshot of {place.volume} is gone: somebody has removed it."
    pool = storage.volumes.get(VolumeName(place.volume.group, found.pool)) if found and found.pool else None
    if pool is not None and (pool.data_percent or 0.0) >= restore_point.OVERFLOWED_PERCENT:
        return f"The thin pool {pool.name} has overflowed meanwhile."
    return ""
