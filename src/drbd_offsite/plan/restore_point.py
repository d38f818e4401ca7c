"""The snapshot that keeps the last usable state of a copy while a resync overwrites it."""

from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import Refused
from ..model import VolumeName
from ..observed import DiskState, LogicalVolume, VolumeGroup
from ..tools import lvm
from .actions import Run

TAG = "drbd_offsite_restore_point"
SUFFIX = "_restore_point"

CHANGED_SHARE = 10
"""One part in so many of a volume is what a resync should find room to keep."""

NEARLY_FULL_PERCENT = 70.0
OVERFLOWED_PERCENT = 100.0

_MARGIN_BYTES = 16 * 2**20
_TABLE_SHARE = 128
"""A snapshot notes 16 bytes for each chunk of 4 KiB that it keeps (dm-snap-persistent.c): one part in 256, doubled."""


def place(volume: VolumeName) -> VolumeName:
    """The snapshot's name; it lies in its volume's group."""
    return VolumeName(volume.group, volume.name + SUFFIX)


def place_of_discarded(volume: VolumeName) -> VolumeName:
    """The same for what a person has given up."""
    return VolumeName(volume.group, volume.name + "_discarded")


@dataclass(frozen=True, slots=True)
class Storage:
    """What LVM has on this machine."""

    volumes: Mapping[VolumeName, LogicalVolume]
    groups: Mapping[str, VolumeGroup]


def take(
    storage: Storage, volume: VolumeName, snapshot: VolumeName, disk: DiskState, behind_bytes: int
) -> tuple[Run, ...]:
    """The steps to a snapshot before a resync of ``behind_bytes``; none where nothing usable would be kept.

    Raises Refused where there is no room for one.
    """
    if disk is DiskState.INCONSISTENT:
        return ()  # an interrupted resync goes on: the restore point from before it, if any, stays the one
    found = storage.volumes.get(volume)
    if found is None:
        raise Refused(f"LVM knows no volume {volume}.")
    old = storage.volumes.get(snapshot)
    if old is not None and TAG not in old.tags:
        raise Refused(f"There is a volume {old.name} already, and it is no restore point of drbd-offsite's.")
    steps = []
    freed = 0
    if old is not None:
        steps.append(drop(old.name))
        freed = old.size_bytes
    size = None
    if not found.pool:
        group = storage.groups[volume.group]
        size = _room(group, group.free_bytes + freed, found.size_bytes, behind_bytes)
    steps.append(
        Run(lvm.snapshot(volume, snapshot, TAG, size), "a resync is about to overwrite the copy", timeout=120.0)
    )
    return tuple(steps)


def _room(group: VolumeGroup, free_bytes: int, volume_bytes: int, behind_bytes: int) -> int:
    """The snapshot's size: the blocks that the resync overwrites, and a tenth of all for what is written meanwhile.

    Raises Refused where the group has not even room for the former.
    """
    least, most = least_bytes(behind_bytes), least_bytes(volume_bytes)
    wanted = lvm.rounded(min(least + volume_bytes // 10, most), group.extent_bytes)
    available = free_bytes // group.extent_bytes * group.extent_bytes
    if available < min(least, most):
        raise Refused(
            f"The volume group {group.name} has {free_bytes / 2**20:,.0f} MiB free, and a restore point needs "
            f"{min(least, most) / 2**20:,.0f} MiB."
        )
    return min(wanted, available)


def least_bytes(behind_bytes: int) -> int:
    """What a group has to have free for a restore point before a resync of ``behind_bytes``."""
    return behind_bytes + behind_bytes // _TABLE_SHARE + _MARGIN_BYTES


def drop(volume: VolumeName) -> Run:
    return Run(lvm.remove(volume), "the restore point is not needed any more", timeout=120.0)


def grow(storage: Storage, snapshot: LogicalVolume) -> Run | None:
    """One that fills up is given half its size again, as far as its group has it."""
    group = storage.groups[snapshot.name.group]
    more = min(lvm.rounded(snapshot.size_bytes // 2, group.extent_bytes), group.free_bytes)
    filling = NEARLY_FULL_PERCENT <= (snapshot.data_percent or 0.0) < OVERFLOWED_PERCENT
    if snapshot.pool or not filling or more < group.extent_bytes:
        return None
    return Run(lvm.extend(snapshot.name, snapshot.size_bytes + more), "the restore point fills up")


def too_small(snapshot: LogicalVolume, to_come_bytes: int) -> bool:
    """Whether one that fills up has no room for what the resync has yet to overwrite."""
    filled = snapshot.data_percent or 0.0
    if snapshot.pool or not NEARLY_FULL_PERCENT <= filled < OVERFLOWED_PERCENT:
        return False
    left = snapshot.size_bytes * (OVERFLOWED_PERCENT - filled) / 100
    return left < to_come_bytes + to_come_bytes // _TABLE_SHARE


def overflowed(snapshot: LogicalVolume) -> bool:
    """LVM shows an invalid one as full, too (lib/metadata/lv.c, lvseg_percent_with_info_and_seg_status)."""
    return not snapshot.pool and (snapshot.data_percent or 0.0) >= OVERFLOWED_PERCENT
