"""What must hold for the resources: what runs, room for restore points, metadata, and LVM's hands off. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

from ..errors import Refused
from ..model import METADATA_SLOT_BYTES, Flavour, MetadataPlace, Resource, RestorePoint, Site
from ..observed import DiskState, DrbdResource, Host
from ..tools import drbd, lvm_filter
from . import restore_point
from .diagnosis import Finding, Severity
from .task import MINORS, half_of

MOST_SLOTS = 16
"""Each has to be looked at by a program of its own."""


@dataclass(frozen=True, slots=True)
class _Difference:
    what: str
    remedy: str


_ONLINE = "drbdadm adjust {0} puts it into effect, and what is written goes on. It refuses while the tunnel is down."
_ANEW = "drbdadm adjust {0} breaks the connection and makes it anew, and what is written meanwhile is sent then."
_MINOR = (
    "If drbdsetup show {0} has the volume and the metadata place of its file: stop what uses it, then drbd-offsite "
    "down {0} and drbd-offsite up {0}. If it has others, see first which are right; what comes up is what the file has."
)
_PLACE = (
    "Find out which of the two is right before you take it down or restart this machine: it would come up with what "
    "the file has, as up to date where its metadata say so, and without what was written to the other volume. "
    "drbdsetup show {0} has what runs. If that is right, correct drbd-offsite.conf, then: drbd-offsite render. If the "
    "file is right, its metadata know nothing of that volume. So they have to be made anew, and all of it is then sent "
    "from the other machine, which has to be up to date: drbd-offsite down {0}; drbdadm create-md {0}; drbd-offsite up "
    "{0}."
)

_DIFFERENCES = {
    "resource-options": _Difference("other options", _ONLINE),
    "disk-options": _Difference("other disk options", _ONLINE),
    "peer-device-options": _Difference("other resync options", _ONLINE),
    "net-options": _Difference("other network options", _ONLINE),
    "connect": _Difference("other addresses", _ANEW),
    "new-minor": _Difference("another minor", _MINOR),
    "detach": _Difference("another volume or metadata place", _PLACE),
}
"""By the command of drbdsetup that shows them, the ones with the harmless remedy first."""


def running(site: Site, host: Host, adjustments: Iterable[drbd.Adjustment]) -> Iterator[Finding]:
    """Where the kernel runs something else than the resource files say."""
    wanted = {(adjustment.command, adjustment.target) for adjustment in adjustments}
    for resource in site.resources.values():
        seen = host.drbd.get(resource.name)
        if seen is None:
            continue
        address = f"ipv4:{site.address_here(site.peer_of(resource))}:{resource.here.port}"
        targets = (resource.name, f"{resource.here.minor}", address)
        found = [
            difference
            for command, difference in _DIFFERENCES.items()
            if any((command, target) in wanted for target in targets) and not _absent(command, seen)
        ]
        if found:
            yield Finding(
                Severity.WARNING,
                f"{resource.name} runs with {' and '.join(d.what for d in found)} than its file says.",
                found[-1].remedy.format(resource.name),
            )


def _absent(command: str, seen: DrbdResource) -> bool:
    """Whether the command would make something that is not there at all, which says nothing about the file."""
    match command:
        case "connect":
            return seen.standalone
        case "new-minor":
            return not seen.volumes
    return False


def restore_points(site: Site, host: Host) -> Iterator[Finding]:
    """Where the backup has no room to keep what a resync overwrites."""
    if site.flavour is not Flavour.BACKUP or site.resync_snapshot is RestorePoint.NEVER:
        return
    if site.resync_snapshot is RestorePoint.REQUIRE:
        then = "The resync would be refused, and nothing replicated any more."
    else:
        then = "The resync would go on, and until its end there would be no usable copy here."
    storage = restore_point.Storage(host.volumes, host.groups)
    for resource in site.resources.values():
        volume = resource.here.volume
        if volume not in host.volumes or volume.group not in host.groups:
            continue
        changed = host.volumes[volume].size_bytes // restore_point.CHANGED_SHARE
        try:
            restore_point.take(storage, volume, restore_point.place(volume), DiskState.UP_TO_DATE, changed)
        except Refused as error:
            yield Finding(
                Severity.WARNING,
                f"There could be no restore point of {resource.name} before a resync of a tenth of it. "
                f"{error.message} {then}",
                f"See what the group holds (lvs {volume.group}) and make room in it, or give it another disk "
                f"(vgextend {volume.group} DEVICE).",
            )


def free_minor(site: Site, host: Host) -> int:
    """One that is nobody's: drbdmeta wants one."""
    taken = {resource.here.minor for resource in site.resources.values()}
    taken |= {volume.minor for seen in host.drbd.values() for volume in seen.volumes}
    return next(minor for minor in range(MINORS) if minor not in taken)


def unowned_slots(site: Site, host: Host) -> tuple[MetadataPlace, ...]:
    """The first slots of the metadata volume that belong to no resource and to no unfinished operation.

    None where DRBD is not seen, or runs a resource that the configuration does not know: any slot may be its. Nor
    where the volume is one resource's metadata, without slots: drbdmeta takes their beginning for slot 0.
    """
    pool = host.volumes.get(site.metadata_pool)
    known = site.resources.keys() | {operation.resource for operation in host.operations.values()}
    if pool is None or not pool.active or host.blind or not host.drbd.keys() <= known:
        return ()
    owned = {resource.here.metadata for resource in site.resources.values()}
    owned |= {half.metadata for operation in host.operations.values() if (half := half_of(operation))}
    if MetadataPlace(pool.name, None) in owned:
        return ()
    slots = (MetadataPlace(pool.name, index) for index in range(pool.size_bytes // METADATA_SLOT_BYTES))
    return tuple(islice((slot for slot in slots if slot not in owned), MOST_SLOTS))


def unowned(site: Site, host: Host, found: Mapping[MetadataPlace, drbd.Identifiers]) -> Iterator[Finding]:
    """Metadata in slots that nobody owns. ``found`` is what they hold."""
    for slot, identifiers in found.items():
        if not identifiers.just_created:
            wipe = " ".join(drbd.meta(slot, free_minor(site, host), "wipe-md"))
            yield Finding(
                Severity.NOTE,
                f"{slot} holds DRBD metadata (current generation {identifiers.current:016X}), and no resource here "
                "owns it. An add that comes to this slot is refused.",
                "It may be the only record of what another copy lacks. Only if no copy of a volume that was removed "
                f"here, and no file in /etc/drbd.d, needs it: {wipe}",
            )


def lvm_reads(resources: Iterable[Resource], settings: lvm_filter.Settings) -> Iterator[Finding]:
    """Whether LVM looks for physical volumes on DRBD's devices. Their links are those of drbd-utils' udev rule."""
    names = [(r.here.device, r.by_res, f"/dev/drbd/by-disk/{r.here.volume}") for r in resources]
    if any(settings.reads(aliases) for aliases in names):
        yield Finding(
            Severity.NOTE,
            "LVM's commands read the DRBD devices to see whether they are physical volumes. One that does so while a "
            "resync begins can hang, and the resync with it. drbd-offsite's own do not read them.",
            f"In the section devices of /etc/lvm/lvm.conf: {settings.line_past_drbd}",
        )
