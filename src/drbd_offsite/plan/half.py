"""Making one machine's half of a resource: the steps that are left, from the task and one look.

Nothing remembers how far an earlier run came, but for one note: every step's need is seen on the machine. So a
run that was killed anywhere is finished by the next one.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from .. import config
from ..errors import Refused
from ..messages import Half, Replicate
from ..model import Flavour, Resource, Site
from ..observed import DiskState, DrbdResource, Forbidden, Host, Operation, Role
from ..render import Credentials, Rendered, render
from ..tools import drbd, filesystem, lvm, systemd
from ..tools.drbd import Identifiers
from . import circle, guards
from .actions import Action, AskPeer, Note, Once, Run, SkipSync, WriteFile
from .order import reordered, tell_kernel
from .task import Task, metadata_bytes


@dataclass(frozen=True, slots=True)
class Findings:
    """What a look for an operation that makes or ends a resource adds to `Host`."""

    config: str
    """The text of drbd-offsite.conf."""
    fstab: str
    files: Mapping[str, str]
    """Rendered files as they are now, by path; one that is not there is not in it."""
    credentials: Mapping[str, Credentials]
    unit_enabled: bool
    metadata: Identifiers | None = None
    """What the metadata place holds; looked for only while it is not in use, and of interest."""
    unit_active: bool = False
    """Looked for only where the resource ends."""
    blank: bool = False
    """The whole volume holds nothing but zeros; looked for only while its first sync is `avoidable`."""


def remaining(site: Site, host: Host, operation: Operation, found: Findings) -> Iterator[Action]:
    """What is left to do, in order. Only the first is sure: carry it out, look, ask again.

    Raises Refused on a backup where another volume has taken the copy's place.
    """
    task = Task.of(operation)
    backup = site.flavour is Flavour.BACKUP
    seen = host.drbd.get(task.name)
    if backup and task.here.volume not in host.volumes:
        yield make_volume(task)
    elif backup and task.copy_tag and not host.attached(task.name):
        guards.enforce(made_here(host, task))
    yield from _metadata_volume(host, task)
    resource = task.resource
    if resource is None:
        yield AskPeer(task.peer, replicate(task), "the backup makes its half")
        return  # which minor, slot and port it has is in its answer
    text = config.updated(found.config, config.resource_keys(resource))
    if text != found.config:
        yield WriteFile(str(config.PATH), text, 0o644, f"{task.name} is replicated")
    whole = config.parse(text)
    yield from outdated(render(whole, found.credentials, host.hostname), found.files)
    if not task.metadata_created:
        yield from _create_metadata(operation, found)
    if not host.drbd_version:
        yield circle.MODPROBE
    if not backup:
        yield from _unmount(host, task)
    if seen is None or seen.disk is DiskState.DISKLESS:
        yield from circle.introduce(resource, seen)
        yield circle.attach(resource)
    if not backup and task.blank and _new(seen):
        # Tried once, and what was seen is not kept: whoever is interrupted here looks again.
        tried = Note(operation, "blank", False, "the rest is up to its first sync")
        yield Once(SkipSync(task.name, "neither copy holds anything"), tried) if found.blank else tried
    if not backup:
        yield from _serve(host, task, resource, seen, found)
    yield from _reorder(host, operation, whole)
    yield from _connect(site, host, task, seen)
    if not found.unit_enabled:
        # Not waited for: the unit runs the circle, which waits for the lock that is held now. Enabling has
        # systemd read its files and fstab again.
        unit = systemd.resource_unit(task.name)
        yield Run(systemd.systemctl("enable", "--now", "--no-block", unit), "it comes up at boot")


def _create_metadata(operation: Operation, found: Findings) -> Iterator[Action]:
    name = operation.resource
    if found.metadata is not None and not found.metadata.just_created:
        yield Run(drbd.wipe_metadata(name), "the slot's old metadata may go")
    if found.metadata is None or not found.metadata.just_created:
        yield Run(drbd.adm("create-md", name, "--force"), "its metadata is new", timeout=300.0)
    yield Note(operation, "metadata_created", True, "from here on the metadata is this resource's own")


def replicate(task: Task, only_check: bool = False) -> Replicate:
    """What the server asks of the backup."""
    return Replicate(
        task.name, task.size_bytes, Half.of(task.here), task.overwrite_metadata, only_check, task.blank, task.seed
    )


def make_volume(task: Task) -> Run:
    """The backup's own."""
    argv = lvm.create(task.here.volume, task.size_bytes, task.copy_tag)
    return Run(argv, f"the copy of {task.name} needs a volume", timeout=300.0)


def made_here(host: Host, task: Task) -> Refused | None:
    """Whether the copy's volume is the one that this operation has made: a name alone may be somebody's data."""
    volume = task.here.volume
    if task.copy_tag and task.copy_tag in host.volumes[volume].tags:
        return None
    return Refused(
        f"{volume} on {host.hostname} was not made by this add, so it is not touched.",
        f"Rename it there (lvrename {volume.group} {volume.name} …), or remove it if nobody needs it "
        f"(lvremove {volume}). Then run the same command again.",
    )


def avoidable(site: Site, host: Host, task: Task) -> bool:
    """Whether a look at all of the volume can save the first sync.

    DRBD has it, so nothing else can write to it; it has not served it, and nothing keeps it from the backup.
    """
    found = host.volumes.get(task.here.volume)
    return (
        task.blank
        and found is not None
        and found.size_bytes == task.size_bytes  # of one that is larger now the copy's end was not made zeros
        and _new(host.drbd.get(task.name))
        and site.address_here(site.peers[task.peer]) in host.addresses
        and host.held(task.name, Forbidden.CONNECT) is None
    )


def _new(seen: DrbdResource | None) -> bool:
    """Whether it is attached and was never served."""
    return seen is not None and seen.role is Role.SECONDARY and seen.disk is DiskState.INCONSISTENT


def outdated(wanted: tuple[Rendered, ...], files: Mapping[str, str]) -> Iterator[WriteFile]:
    """The rendered files that are not there or differ."""
    for file in wanted:
        current = files.get(file.path)
        if current != file.text:
            why = "not there yet" if current is None else "the configuration has changed"
            yield WriteFile(file.path, file.text, file.mode, why)


def _metadata_volume(host: Host, task: Task) -> Iterator[Run]:
    place = task.here.metadata
    size = metadata_bytes(place, task.size_bytes)
    volume = host.volumes.get(place.volume)
    if volume is None:
        yield Run(lvm.create(place.volume, size), "DRBD's metadata needs a volume", timeout=300.0)
    elif volume.size_bytes < size:
        yield Run(lvm.extend(place.volume, size), f"it has no room for {place}")


def _unmount(host: Host, task: Task) -> Iterator[Run]:
    volume = host.volumes.get(task.here.volume)
    for mount in reversed(host.mounts):
        if volume is not None and mount.devno == volume.devno:
            yield Run(filesystem.unmount(mount.target), "DRBD goes between the volume and its filesystem")


def _serve(host: Host, task: Task, resource: Resource, seen: DrbdResource | None, found: Findings) -> Iterator[Action]:
    # Also where fstab names it and nothing is mounted now. Before it is promoted: from then on it may be copied, and a
    # boot that mounted the volume itself would write past DRBD.
    moved = filesystem.fstab_moved(found.fstab, task.fstab_sources, resource.by_res, systemd.resource_unit(task.name))
    if moved != found.fstab:
        yield WriteFile("/etc/fstab", moved, 0o644, "it mounts the DRBD device from now on")
    if seen is None or seen.role is not Role.PRIMARY:
        fresh = seen is None or seen.disk in (DiskState.DISKLESS, DiskState.INCONSISTENT)
        # New metadata knows of no data. On the server, and only while adding, what is on the volume is the data.
        force = ("--force",) if fresh else ()
        yield Run(drbd.adm("primary", task.name, *force), "the server's volume holds the data")
    in_fstab = filesystem.fstab_targets(moved, frozenset({resource.by_res}))
    mounted = host.mounted_at(task.here.minor)
    for target in task.mounts:
        if target not in mounted:
            argv = (
                filesystem.mount_from_fstab(target)
                if target in in_fstab
                else filesystem.mount(task.here.device, target)
            )
            yield Run(argv, "its filesystem was mounted there")


def _reorder(host: Host, operation: Operation, whole: Site) -> Iterator[Once]:
    """Before its own first sync begins: what comes after it in the order may be up, and waits for another one."""
    task = Task.of(operation)
    if task.reordered:
        return
    without = replace(whole, resources={name: r for name, r in whole.resources.items() if name != task.name})
    for name in reordered(without, whole):
        if host.attached(name):
            step = tell_kernel(whole, name)
            yield Once(step, Note(operation, "reordered", True, step.why))


def _connect(site: Site, host: Host, task: Task, seen: DrbdResource | None) -> Iterator[Run]:
    address = site.address_here(site.peers[task.peer])
    present = address in host.addresses
    if host.held(task.name, Forbidden.CONNECT):
        return  # the circle connects it once the hold is lifted
    if present and (seen is None or seen.standalone):
        yield Run(drbd.adm("connect", task.name), f"{address} is there")
