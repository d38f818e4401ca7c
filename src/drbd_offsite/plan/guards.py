"""Why something must not be done: each guard returns the refusal, or None."""

from collections.abc import Iterable, Mapping

from debian.debian_support import Version

from ..errors import Refused
from ..model import RESOURCE_NAME, Flavour, Replica, Site, VolumeName
from ..observed import Host, LogicalVolume, Role
from ..tools import lvm
from ..tools.drbd import Identifiers
from .task import Task, metadata_bytes

OLDEST_DRBD = Version("8.4.0")
TOO_NEW_DRBD = Version("10")


def enforce(refusal: Refused | None) -> None:
    """Raise what a guard returned, if it is a refusal."""
    if refusal is not None:
        raise refusal


def flavour(site: Site, needed: Flavour, verb: str) -> Refused | None:
    if site.flavour is needed:
        return None
    return Refused(f"{verb} is for the {needed}; this machine is the {site.flavour}.", f"Run it on the {needed}.")


def drbd_version(version: str) -> Refused | None:
    """``version`` of the loaded module; empty where none could be loaded."""
    if not version:
        return Refused(
            "This kernel has no DRBD module, so nothing can be replicated.",
            "Boot one of Debian's kernels (linux-image-amd64); the cloud kernels have none. Then: modprobe drbd.",
        )
    try:
        known = OLDEST_DRBD <= Version(version) < TOO_NEW_DRBD
    except ValueError:  # no version at all
        known = False
    if not known:
        return Refused(
            f"The kernel's DRBD module is version {version}, which drbd-offsite does not know.",
            f"Versions from {OLDEST_DRBD} up to 9 are known to work as needed.",
        )
    return None


def copy_unused(host: Host, name: str, here: Replica, consequence: str, verb: str) -> Refused | None:
    """On the backup, for what the server asks: whether nobody works with the copy."""
    seen = host.drbd.get(name)
    mounted = host.mounted_at(here.minor)
    if mounted or (seen is not None and seen.role is Role.PRIMARY):
        where = f"mounted at {mounted[0]}" if mounted else "Primary"
        return Refused(
            f"{name} is in use on {host.hostname} ({where}), so {consequence}.",
            f"If that is no longer wanted, there: drbdadm secondary {name}; then run {verb} again.",
        )
    return None


def resource_name(name: str) -> Refused | None:
    """It becomes part of file, unit and lock names, so this is asked before any of them is made."""
    if RESOURCE_NAME.fullmatch(name):
        return None
    return Refused(f"{name[:80]!r} cannot be a resource's name.", "Choose one with --name (letters, digits and _ . -).")


def adoptable(site: Site, host: Host, volume: VolumeName, name: str) -> Refused | None:
    """Whether a volume can become a resource of that name, whatever it is being used for."""
    for resource in site.resources.values():
        if resource.here.volume == volume:
            return Refused(
                f"{volume} is replicated already, as {resource.name}.", f"drbd-offsite status {resource.name}"
            )
    if refusal := resource_name(name):
        return refusal
    if name in site.resources or name in host.drbd:
        return Refused(f"There is a resource {name} already.", "Choose another name with --name.")
    found = host.volumes.get(volume)
    if found is None:
        if volume.group not in host.groups:
            return Refused(f"There is no volume group {volume.group} on this machine.", "See 'vgs' for what there is.")
        return Refused(f"There is no volume {volume} on this machine.", f"See 'lvs {volume.group}' for what there is.")
    if not found.active or found.devno is None:
        return Refused(f"{volume} is not active.", f"Activate it: lvchange -ay {volume}")
    return None


def free_to_take(
    volume: LogicalVolume, mounted_at: Iterable[str], fstab_at: Iterable[str], remount: bool
) -> Refused | None:
    """DRBD needs the volume for itself; what is mounted from it has to go, or to be moved."""
    mounted, listed = list(mounted_at), list(fstab_at)
    if remount and (mounted or not volume.open):
        return None
    if mounted:
        return Refused(
            f"{volume.name} is mounted at {', '.join(mounted)}, and DRBD needs it for itself.",
            f"Stop what uses it, then 'umount {mounted[0]}' and change its line in /etc/fstab; "
            "or let --remount do both (a short interruption for its users).",
        )
    if volume.open:
        return Refused(
            f"{volume.name} is in use by something else than a mount (swap, a virtual machine, another device on it).",
            f"See 'lsblk {volume.name.path}' and 'fuser -v {volume.name.path}', end that, and run add again.",
        )
    if listed:
        return Refused(
            f"/etc/fstab mounts {volume.name} at {', '.join(listed)}; the next boot would bypass the replication.",
            "Take the line out, or let --remount move it over to the replicated device.",
        )
    return None


def metadata_unowned(place: object, found: Identifiers | None, overwrite: bool) -> Refused | None:
    if found is None or found.just_created or overwrite:
        return None
    return Refused(
        f"{place} already holds DRBD metadata (current generation {found.current:016X}), "
        "which may be the only record of what another copy lacks.",
        "If no resource needs it, run the command again with --overwrite-metadata.",
    )


def room(host: Host, task: Task, with_volume: bool) -> Refused | None:
    """Whether this machine's groups have room for the metadata (and, on the backup, for the copy)."""
    needed: dict[str, int] = {}
    place = task.here.metadata
    pool = host.volumes.get(place.volume)
    wanted = [(place.volume, metadata_bytes(place, task.size_bytes) - (pool.size_bytes if pool else 0))]
    if with_volume and task.here.volume not in host.volumes:
        wanted.append((task.here.volume, task.size_bytes))
    for volume, size in wanted:
        group = host.groups.get(volume.group)
        if group is None:
            return Refused(
                f"There is no volume group {volume.group} on {host.hostname}.",
                "Correct volume_group in drbd-offsite.conf there ('vgs' shows what there is), or create the group.",
            )
        needed[volume.group] = needed.get(volume.group, 0) + lvm.rounded(max(size, 0), group.extent_bytes)
    return fits(host, needed)


def fits(host: Host, needed: Mapping[str, int]) -> Refused | None:
    """Whether the groups have so many bytes free."""
    for name, size in needed.items():
        free = host.groups[name].free_bytes
        if size > free:
            return Refused(
                f"The volume group {name} on {host.hostname} has {mebibytes(free)} free; {mebibytes(size)} are needed.",
                f"Add a disk to it (vgextend {name} DEVICE) or free space, and run the command again.",
            )
    return None


def copy_is_new(host: Host, volume: VolumeName) -> Refused | None:
    """On the backup: a volume that is there already may be somebody's data."""
    if volume in host.volumes:
        return Refused(
            f"{volume} exists already on {host.hostname}, and a copy would overwrite it.",
            f"If nobody needs it, remove or rename it there (lvrename {volume.group} {volume.name} …).",
        )
    return None


def mebibytes(size_bytes: int) -> str:
    return f"{size_bytes / 2**20:,.0f} MiB"
