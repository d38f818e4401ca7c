"""Enlarging a resource while it is in use: the backup's volume, ours, DRBD, and at last the filesystem.

In this order DRBD never has less room below it than it offers, and an interruption anywhere leaves a larger volume
under a resource that goes on at its old size. The next run finishes it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from ..errors import Refused
from ..messages import Enlarge
from ..model import MAX_INDEXED_BYTES, Replica, Resource, RestorePoint, Site, VolumeName
from ..observed import DiskState, Host, Operation, ReplicationState, Role
from ..tools import drbd, filesystem, lvm
from . import guards, look, restore_point
from .actions import Action, AskPeer, Note, Once, Run
from .task import metadata_bytes


@dataclass(frozen=True, slots=True)
class Growth:
    """What an unfinished ``grow`` has decided; it lives in the journal."""

    size_bytes: int
    """Of the volume here when it is done, a whole number of its group's extents."""
    asked: str
    """The size as the admin wrote it."""
    there_bytes: int = 0
    """Of the backup's volume; 0 until it has answered the command that runs."""
    filesystem_enlarged: bool = False

    @classmethod
    def of(cls, operation: Operation) -> "Growth":
        """What `dataclasses.asdict` of one put on disk."""
        return cls(**operation.parameters)  # type: ignore[arg-type]


def remaining(site: Site, host: Host, operation: Operation, fstype: str) -> Iterator[Action]:
    """What is left to do on the server, in order; ``fstype`` is the filesystem on the device, "" for none.

    Raises Refused where the backup has to be there first.
    """
    growth = Growth.of(operation)
    resource = site.resources[operation.resource]
    if device_bytes(host, resource) < growth.size_bytes and growth.there_bytes < growth.size_bytes:
        request = Enlarge(resource.name, growth.size_bytes, only_check=False)
        yield AskPeer(resource.peer, request, "the copy needs the room first")
    guards.enforce(enough_room(host, resource.here, growth.size_bytes))
    yield from enlarge(host, resource.here, growth.size_bytes)
    if device_bytes(host, resource) < growth.size_bytes:
        seen = host.drbd.get(resource.name)
        if not seen or not seen.catching_up:
            guards.enforce(in_step(site, host, resource))
        # Refused while anything is sent that the peer lacks (drbd_nl.c, ERR_RESIZE_RESYNC): on a server that is
        # written to all the time, again and again for a moment.
        yield Run(drbd.adm("resize", resource.name), "both volumes are large enough", timeout=120.0, tries=60)
    if growth.filesystem_enlarged:
        return
    guards.enforce(_served(host, resource))
    if step := _filesystem(host, resource, fstype):
        yield Once(step, Note(operation, "filesystem_enlarged", True, step.why))


def enlarge(host: Host, here: Replica, size_bytes: int, tries: int = 1) -> Iterator[Run]:
    """The same on both machines: metadata that have a volume of their own, and the volume."""
    for volume, size in _wanted(host, here, size_bytes).items():
        yield Run(lvm.extend(volume, size), f"{size_bytes} bytes are to be replicated", tries=tries)


def _wanted(host: Host, here: Replica, size_bytes: int) -> dict[VolumeName, int]:
    """The volumes that are too small, with the size that they need."""
    wanted = {}
    place = here.metadata
    # Made for twice the volume's size, so they seldom lack room.
    if place.index is None and host.volumes[place.volume].size_bytes < metadata_bytes(place, size_bytes) // 2:
        wanted[place.volume] = metadata_bytes(place, size_bytes)
    if host.volumes[here.volume].size_bytes < size_bytes:
        wanted[here.volume] = size_bytes
    return wanted


def _served(host: Host, resource: Resource) -> Refused | None:
    """Nothing reads a Secondary, so what is on it would count as nothing (drbd_main.c, drbd_open: EMEDIUMTYPE)."""
    seen = host.drbd.get(resource.name)
    if seen is not None and seen.role is Role.PRIMARY:
        return None
    return Refused(
        f"{resource.name} has its new size, but is not served here, so a filesystem on it still has the old one.",
        f"drbd-offsite status {resource.name} says why. Once it is served and mounted, run the same command.",
    )


def _filesystem(host: Host, resource: Resource, fstype: str) -> Run | None:
    mounted = host.mounted_at(resource.here.minor)
    argv = filesystem.enlarge(fstype, resource.here.device, mounted[0]) if mounted else None
    return Run(argv, "the filesystem fills its device", timeout=3600.0) if argv else None


def left_to_the_admin(host: Host, resource: Resource, fstype: str) -> str:
    """What is not done by itself, and how it is; empty where nothing is left."""
    if not fstype or fstype == "swap":
        return "There is no filesystem on it; what uses the device sees the new size."
    if filesystem.enlarge(fstype, resource.here.device, "") is None:
        return f"What is on it ({fstype}) is not enlarged by itself; the device has the new size."
    if not host.mounted_at(resource.here.minor):
        command = " ".join(filesystem.enlarge(fstype, resource.here.device, "MOUNTPOINT") or ())
        return f"Its {fstype} is not mounted, so it keeps its size; mount it, then: {command}"
    return ""


def undecided(host: Host, resource: Resource, growth: Growth) -> Refused | None:
    """Whether a grow can still be given up: DRBD itself must not have the new size, and has to be seen."""
    size = device_bytes(host, resource)
    if not size:
        return Refused(
            f"{resource.name} is not up, so it cannot be seen whether its device has the new size.",
            f"drbd-offsite up {resource.name}, then the same command.",
        )
    if size >= growth.size_bytes:
        return Refused(
            f"{resource.name}'s device has the new size already, and its users may count on it.",
            f"Nothing is ever made smaller, so only forward is safe: drbd-offsite grow {resource.name}",
        )
    return None


def left_larger(site: Site, host: Host, resource: Resource, growth: Growth) -> str:
    """Which volumes a grow that was given up leaves larger than the device; empty for none."""
    size = device_bytes(host, resource)
    volume = host.volumes.get(resource.here.volume)
    larger = [f"{volume.name} here"] if volume and volume.size_bytes > size else []
    there = f"{resource.there.volume} on {site.peer_of(resource).name}"
    if growth.there_bytes > size:
        larger.append(there)
    elif not growth.there_bytes:
        larger.append(f"perhaps {there}, whose answer has not come")
    if not larger:
        return ""
    # drbd_nl.c, drbd_new_dev_size: the smaller of both volumes, at every connect.
    return (
        f"Larger than its device ({guards.mebibytes(size)}) are: {'; '.join(larger)}. That is harmless: the device "
        "gets what both have when they next connect, or by a later grow, which enlarges the filesystem too."
    )


def device_bytes(host: Host, resource: Resource) -> int:
    """What the kernel says; 0 where nothing is attached."""
    seen = host.drbd.get(resource.name)
    return seen.volumes[0].size_bytes if seen and seen.volumes else 0


def in_step(site: Site, host: Host, resource: Resource) -> Refused | None:
    """Whether it is served here, and both machines have all of it."""
    seen = host.drbd.get(resource.name)
    device = seen.peer_device if seen else None
    if (
        seen is not None
        and device is not None
        and seen.role is Role.PRIMARY
        and seen.disk is DiskState.UP_TO_DATE is device.disk
        and device.replication is ReplicationState.ESTABLISHED
    ):
        return None
    return Refused(
        f"{resource.name} is not served here with both copies up to date and {site.peer_of(resource).name} connected.",
        f"drbd-offsite status {resource.name} says what is the matter. Once that is over, run the same command.",
    )


def enough_room(host: Host, here: Replica, size_bytes: int) -> Refused | None:
    """Whether a machine can enlarge its half; both are asked before anything is changed."""
    for volume in (here.volume, here.metadata.volume):
        if volume not in host.volumes:
            return Refused(f"There is no volume {volume} on {host.hostname}.", "See 'vgs' and 'lvs' there.")
    if here.metadata.index is not None and size_bytes > MAX_INDEXED_BYTES:
        return Refused(
            f"The metadata slot of {here.volume} on {host.hostname} describes at most 4 TiB.",
            "remove, lvextend and add give it a metadata volume of its own; a first sync follows.",
        )
    wanted = _wanted(host, here, size_bytes)
    for snapshot in host.volumes.values():
        origin = VolumeName(snapshot.name.group, snapshot.origin)
        if snapshot.name == restore_point.place(here.volume):
            continue  # which comes and goes with every resync
        if look.TAG in snapshot.tags:
            continue  # as does a drill's
        if origin == here.volume and origin in wanted and not snapshot.pool:
            return Refused(
                f"{snapshot.name} on {host.hostname} is a snapshot of {here.volume}, "
                "and LVM enlarges no volume that has one.",
                f"If nobody needs it, there: lvremove {snapshot.name}. Then run the same command.",
            )
    return guards.fits(host, _needed(host, wanted))


def undisturbed(host: Host, here: Replica) -> Refused | None:
    """Whether no resync keeps a restore point of the volume, and nobody looks at a snapshot of it."""
    snapshot = restore_point.place(here.volume)
    found = host.volumes.get(look.Place.of("", here.volume).look)
    if found is not None and look.TAG in found.tags and not found.pool:
        return Refused(
            f"A drill goes on: it looks at {found.name} on {host.hostname}, and LVM enlarges no volume that has a "
            "snapshot.",
            "It goes by itself when the drill has ended. Then run the same command; it goes on from here.",
        )
    if snapshot not in host.volumes:
        return None
    return Refused(
        f"A resync goes on: {snapshot} on {host.hostname} keeps the copy from before it, and LVM enlarges no volume "
        "that has a snapshot.",
        "It goes by itself when both copies are up to date. Then run the same command; it goes on from here.",
    )


def _needed(host: Host, wanted: dict[VolumeName, int]) -> dict[str, int]:
    """The bytes that each group has to have free for that."""
    needed: dict[str, int] = {}
    for volume, size in wanted.items():
        if host.volumes[volume].pool:
            continue  # a thin volume has no room of its own: what is written takes it from the pool
        more = lvm.rounded(size, host.groups[volume.group].extent_bytes) - host.volumes[volume].size_bytes
        needed[volume.group] = needed.get(volume.group, 0) + more
    return needed


def restorable(site: Site, host: Host, resource: Resource, size_bytes: int) -> Refused | None:
    """On the backup, which has `enough_room`: whether it has it for the restore point too, where one is required.

    DRBD sends what is added in a resync, and without a restore point that ends with the connection and a hold.
    """
    volume = host.volumes[resource.here.volume]
    added = size_bytes - (device_bytes(host, resource) or volume.size_bytes)
    if site.resync_snapshot is not RestorePoint.REQUIRE or volume.pool or added <= 0:
        return None
    group = host.groups[volume.name.group]
    needed = _needed(host, _wanted(host, resource.here, size_bytes)).get(group.name, 0)
    needed += lvm.rounded(restore_point.least_bytes(added), group.extent_bytes)
    if needed <= group.free_bytes:
        return None
    return Refused(
        f"The volume group {group.name} on {host.hostname} has {guards.mebibytes(group.free_bytes)} free; "
        f"{guards.mebibytes(needed)} are needed, with the restore point that is required there before what is added "
        "is sent (resync_snapshot = require).",
        f"There: add a disk to it (vgextend {group.name} DEVICE) or free space. Then run the same command.",
    )
