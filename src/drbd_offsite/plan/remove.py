"""Ending a resource: ``remove`` on the server, ``release`` on the backup. The volume stays, as what it was before.

From the first step on the resource is not brought up again (`circle`). Who has served the volume without DRBD
cannot say any more what the other copy lacks, so the metadata go with it.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from .. import config
from ..errors import Refused
from ..messages import Half, Release
from ..model import Flavour, Replica, Resource, Site
from ..observed import DiskState, Host, Operation, Role
from ..render import render, resource_drop_in, resource_file
from ..tools import drbd, filesystem, lvm, systemd
from . import guards
from .actions import Action, AskPeer, Lift, RemoveFile, Run, WriteFile
from .half import Findings, outdated
from .leave import leave, let_go
from .order import relink
from .task import Task


@dataclass(frozen=True, slots=True)
class Removal:
    """What an unfinished ``remove`` or ``release`` has decided; it lives in the journal."""

    name: str
    peer: str
    here: Replica
    mounts: tuple[str, ...] = ()
    """Where the device was mounted; the volume is to be mounted there."""
    own_metadata: bool = True
    """Whether the metadata place holds this resource's metadata; not so in the first steps of an ``add``."""
    delete_copy: bool = False
    asked_peer: bool = False
    """Whether the backup has released its half."""
    relink: tuple[str, ...] = ()
    """Resources that wait for another one's first sync from now on, and whose kernel state says so not yet."""
    copy_tag: str = ""
    """Of the volume that an unfinished ``replicate`` has made: one of that name without it is somebody's."""

    def parameters(self) -> dict[str, object]:
        """As JSON, for `journal.begin`."""
        return {
            "peer": self.peer,
            "here": asdict(Half.of(self.here)),
            "mounts": list(self.mounts),
            "own_metadata": self.own_metadata,
            "delete_copy": self.delete_copy,
            "asked_peer": self.asked_peer,
            "relink": list(self.relink),
            "copy_tag": self.copy_tag,
        }

    @classmethod
    def of(cls, operation: Operation) -> "Removal":
        """What `parameters` put on disk."""
        values: dict[str, Any] = dict(operation.parameters)
        return cls(
            operation.resource,
            values["peer"],
            Half(**values["here"]).replica(),
            tuple(values["mounts"]),
            values["own_metadata"],
            values["delete_copy"],
            values["asked_peer"],
            tuple(values["relink"]),
            values.get("copy_tag", ""),  # one that an earlier version has begun does not know of it
        )

    @property
    def resource(self) -> Resource:
        """For what concerns this machine alone: the other half is not known any more."""
        return Resource(self.name, self.peer, self.here, self.here)

    @classmethod
    def of_task(cls, task: Task) -> "Removal":
        """Back from an ``add`` or ``replicate`` that has not come to its end."""
        return cls(
            task.name, task.peer, task.here, task.mounts, own_metadata=task.metadata_created, copy_tag=task.copy_tag
        )


def files_of(resource: Resource) -> tuple[str, str]:
    """The files that only this resource has."""
    return resource_file(resource), resource_drop_in(resource)


def device_names(resource: Resource) -> frozenset[str]:
    """How fstab may name its device: by itself or by drbd-utils' links, also those from before it was adopted."""
    volume = resource.here.volume
    by_disk = f"/dev/drbd/by-disk/{volume.mapper_path.removeprefix('/dev/')}"
    by_hand = {f"/dev/drbd/by-res/{resource.name}", by_disk, f"/dev/drbd_{resource.name}"}
    return resource.device_names | by_hand


def remaining(site: Site, host: Host, operation: Operation, found: Findings) -> Iterator[Action]:
    """What is left to do on this machine, in order; at last, on the server, the backup's half.

    Raises Refused where the backup works with its copy.
    """
    removal = Removal.of(operation)
    server = site.flavour is Flavour.SERVER
    if server:  # it may have taken over since this was begun
        guards.enforce(_served_there(host, removal.name))
    yield from let_go(site, host, removal.name, removal.here, "DRBD leaves from between the volume and its filesystem")
    yield from leave(host, removal.name, "it is replicated no more")
    if server:
        yield from _hand_back(host, removal, found)
    else:
        yield from _disable(removal, found)
    yield from _forget_metadata(host, removal, found)
    text = found.config
    if removal.name in site.resources:
        text = config.updated(text, {f"resources.{removal.name}": None})
        yield WriteFile(str(config.PATH), text, 0o644, f"{removal.name} is replicated no more")
    without = config.parse(text)
    # Before its own: drbdadm complains of a resync-after that names nobody.
    yield from outdated(render(without, found.credentials, host.hostname), found.files)
    for path in files_of(removal.resource):
        if path in found.files:
            yield RemoveFile(path, f"{removal.name} is replicated no more")
    yield from relink(without, host, operation, removal.relink)
    if removal.name in host.holds:
        yield Lift(removal.name, "", "there is nothing left to hold")
    copy = host.volumes.get(removal.here.volume)
    if removal.delete_copy and not server and copy and (not removal.copy_tag or removal.copy_tag in copy.tags):
        yield Run(lvm.remove(removal.here.volume), "the server wants no copy kept", timeout=300.0)
    if server and not removal.asked_peer and removal.peer in site.peers:
        request = release(removal)
        yield AskPeer(removal.peer, request, "its half is of no use any more")


def release(removal: Removal, only_check: bool = False) -> Release:
    """What the server asks of the backup."""
    return Release(removal.name, Half.of(removal.here), removal.delete_copy, only_check)


def _hand_back(host: Host, removal: Removal, found: Findings) -> Iterator[Action]:
    """The volume mounted where its device was, now and at the next boot: as soon as it can be."""
    unit = systemd.resource_unit(removal.name)
    path = removal.here.volume.path
    restored = filesystem.fstab_restored(found.fstab, device_names(removal.resource), path, unit)
    if restored != found.fstab:
        yield WriteFile("/etc/fstab", restored, 0o644, "it mounts the volume itself from now on")
    yield from _disable(removal, found)  # which has systemd read fstab again
    volume = host.volumes.get(removal.here.volume)
    mounted = {mount.target for mount in host.mounts if volume and mount.devno == volume.devno}
    for target in removal.mounts:
        if target not in mounted:
            listed = filesystem.fstab_mounts(restored, target)
            argv = filesystem.mount_from_fstab(target) if listed else filesystem.mount(path, target)
            yield Run(argv, "its filesystem was mounted there")


def _disable(removal: Removal, found: Findings) -> Iterator[Run]:
    if found.unit_enabled or found.unit_active:
        unit = systemd.resource_unit(removal.name)
        yield Run(systemd.systemctl("disable", "--now", unit), "there is nothing left to bring up")


def _forget_metadata(host: Host, removal: Removal, found: Findings) -> Iterator[Run]:
    place = removal.here.metadata
    if not removal.own_metadata:
        return
    if place.index is None and place.volume in host.volumes:
        yield Run(lvm.remove(place.volume), "its own metadata describe nothing any more")
    elif found.metadata is not None and place.volume in host.volumes:
        yield Run(drbd.wipe_metadata(removal.name), "the slot is free for another volume")


UNSETTLED = frozenset({"taken-over", "returning", "split-brain", "local-io-error", "restore-point", "discards"})
"""Setters of holds that say that the other copy may have what this one has not."""


def _served_there(host: Host, name: str) -> Refused | None:
    seen = host.drbd.get(name)
    if seen is None or seen.connection is None or seen.connection.role is not Role.PRIMARY:
        return None
    return Refused(
        f"{name} is Primary on the backup: what is written there from now on would be missing here.",
        f"End what uses it there; then, there: drbdadm secondary {name}. Once it is served here again "
        f"(drbd-offsite status {name}), remove it.",
    )


def removable(host: Host, name: str) -> Refused | None:
    """On the server: whether the volume has all of the data, so that it can do without the other copy."""
    if refusal := _served_there(host, name):
        return refusal
    seen = host.drbd.get(name)
    holds = [hold for hold in host.holds.get(name, ()) if hold.forbids]
    unsettled = [hold.reason for hold in holds if hold.set_by in UNSETTLED]
    if seen is not None and seen.disk is DiskState.UP_TO_DATE and not unsettled:
        return None
    # One that is down is so because of a hold.
    reasons = unsettled or [hold.reason for hold in holds] or [f"its disk is {seen.disk}" if seen else "it is not up"]
    return Refused(
        f"It cannot be seen that {name} has all of its data here: {reasons[0]}.",
        f"drbd-offsite status {name} says what to do about that; then remove it.",
    )
