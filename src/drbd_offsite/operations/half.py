"""Making a resource: ``add`` on the server, ``replicate`` on the backup, both by the one planner."""

import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TypedDict, Unpack

from .. import config, files, journal, keys, messages, peer
from ..errors import Refused, ToolFailed
from ..execute import execute
from ..host import identity, look_again, metadata_found, observe, survey, unit_is
from ..model import Flavour, Replica, Resource, Site, VolumeName
from ..observed import DiskState, Host, Operation
from ..plan import circle, guards
from ..plan.actions import Action
from ..plan.half import Findings, avoidable, made_here, make_volume, remaining
from ..plan.half import replicate as request_for
from ..plan.task import Task, allocate, foreign, half_of, metadata_bytes
from ..render import render
from ..run import run
from ..tools import drbd_dump, filesystem, systemd
from . import seed
from .apply import config_text, current
from .blank import PROBE_BYTES, only_zeros, share, zero
from .drive import drive

FSTAB = Path("/etc/fstab")
LOCK_SECONDS = 5.0

Tell = Callable[[str], None]


class Wishes(TypedDict, total=False):
    """What else than the volume an add can be told."""

    name: str
    """The resource's; the volume's if it is not given."""
    peer_name: str
    remount: bool
    overwrite_metadata: bool
    priority: int
    seed: str
    """A file on the backup that export-seed has written here."""


def add(site: Site, volume: VolumeName, *, tell: Tell, **wishes: Unpack[Wishes]) -> str:
    """Replicate a volume of this server, or finish doing so; returns the resource's name.

    Raises Refused before anything is begun, PeerUnreachable when the backup is lost on the way.
    """
    guards.enforce(guards.flavour(site, Flavour.SERVER, "add"))
    name = _name(journal.operations(), volume, wishes)
    guards.enforce(guards.resource_name(name))
    with files.lock(f"resource-{name}", LOCK_SECONDS):
        with files.lock("site", LOCK_SECONDS):
            operation = check(site, host_with_drbd(site), volume, **wishes)
            operation = journal.begin("add", name, operation.parameters)
        blank = Task.of(operation).blank
        operation = _with_prepared_copy(site, operation, tell)  # for hours: other resources can be changed meanwhile
        with files.lock("site", LOCK_SECONDS):
            drive(operation, partial(steps, tell=tell), tell, answered)
        if blank and not _equal(name):
            tell(f"{name}: its first sync could not be avoided; drbd-offsite events has the reason.")
    return name


def _with_prepared_copy(site: Site, operation: Operation, tell: Tell) -> Operation:
    """Have the backup make its half with a volume of zeros, or of a seed; asked until that is done."""
    task = Task.of(operation)
    if not (task.blank or task.seed) or task.there is not None:
        return operation
    if task.blank:
        tell(f"{task.here.volume} seems to be empty. If it is, nothing has to be sent: the backup's is made empty too.")
    while True:
        answer = peer.ask(site, site.peers[task.peer], request_for(task), messages.Replicated)
        if answer.made:
            return journal.begin("add", task.name, {**operation.parameters, **answered(operation, answer)})
        what = "makes its volume zeros" if task.blank else "fills its volume from the seed"
        tell(f"{task.peer} {what}: {share(answer.prepared_bytes, task.size_bytes)}")


def _equal(name: str) -> bool:
    seen = observe(config.load()).drbd.get(name)
    device = seen.peer_device if seen else None
    return device is not None and device.disk is DiskState.UP_TO_DATE


def check(site: Site, host: Host, volume: VolumeName, **wishes: Unpack[Wishes]) -> Operation:
    """The add of a volume: the one that was begun, or what would be. Nothing is changed on either machine.

    ``host`` is a `host_with_drbd`. Raises Refused, PeerUnreachable.
    """
    name = _name(host.operations, volume, wishes)
    # A removal before the add that it gives up.
    for operation in sorted(host.operations.values(), key=lambda operation: operation.verb == "add"):
        half = half_of(operation)
        if operation.key == f"add-{name}" and half and half.volume == volume:
            return operation
        if half and (operation.resource == name or half.volume == volume):
            what = half.volume if operation.verb == "add" else operation.resource
            raise Refused(
                f"{operation.verb} of {half.volume} as {operation.resource} is under way.",
                f"Finish it first: drbd-offsite {operation.verb} {what}",
            )
    task = _decide_add(site, host, volume, name, wishes)
    return Operation("add", name, journal.now(), task.parameters())


def _name(operations: Mapping[str, Operation], volume: VolumeName, wishes: Wishes) -> str:
    """Of the resource: as it was asked for, as it was begun, or as the volume's."""
    begun = (o.resource for o in operations.values() if o.verb == "add" and Task.of(o).here.volume == volume)
    return wishes.get("name") or next(begun, volume.name)


def preflight(site: Site, volumes: Sequence[VolumeName], **wishes: Unpack[Wishes]) -> list[Operation]:
    """The adds of several volumes, those first that were begun, so that both machines get them in one order.

    Each is checked as if the ones before it were begun, so that their slots have room together. Whether the
    backup has room for all the copies together is found at each one's turn. Raises Refused with every volume's
    refusal, PeerUnreachable.
    """
    enrolled_peer(site, wishes.get("peer_name", ""))  # a reason that all would have
    host = host_with_drbd(site)
    begun = [half.volume for operation in host.operations.values() if (half := half_of(operation))]
    adds: dict[VolumeName, Operation] = {}
    refusals: dict[VolumeName, Refused] = {}
    for volume in sorted(volumes, key=lambda volume: volume not in begun):
        try:
            guards.enforce(_named_alike(volume, adds))
            adds[volume] = operation = check(site, host, volume, **wishes)
        except Refused as refusal:
            refusals[volume] = refusal
        else:
            host = replace(host, operations={**host.operations, operation.key: operation})
    if len(volumes) == 1:
        guards.enforce(refusals.get(volumes[0]))
    if refusals:
        reasons = "".join(f"\n- {volume}: {said.message}\n  {said.hint}" for volume, said in refusals.items())
        raise Refused(
            f"{len(refusals)} of {len(volumes)} volumes cannot be added, so nothing was done:{reasons}",
            "See to these, or leave them out, and run the command again.",
        )
    return list(adds.values())


def _named_alike(volume: VolumeName, others: Iterable[VolumeName]) -> Refused | None:
    other = next((other for other in others if other.name == volume.name), None)
    if other is None:
        return None
    return Refused(
        f"{other} has the same name, and the backup keeps all copies in one volume group.",
        f"Rename one of them first: lvrename {volume.group} {volume.name} …",
    )


def enrolled_peer(site: Site, name: str) -> str:
    """The named peer, or the only one. Raises Refused."""
    enrolled = [peer.name for peer in site.peers.values() if peer.enrolled]
    if not enrolled:
        raise Refused(
            "No backup is enrolled yet, so there is nowhere to copy to.",
            "drbd-offsite invite > backup.invite, carry the file to the backup, there: drbd-offsite join backup.invite",
        )
    if name and name not in enrolled:
        raise Refused(f"There is no enrolled peer {name}.", f"Enrolled: {', '.join(enrolled)}.")
    if not name and len(enrolled) > 1:
        raise Refused("There are several backups.", f"Say which with --peer ({', '.join(enrolled)}).")
    return name or enrolled[0]


def _decide_add(site: Site, host: Host, volume: VolumeName, name: str, wishes: Wishes) -> Task:
    """Everything that can be refused is refused here, with nothing changed on either machine."""
    to = enrolled_peer(site, wishes.get("peer_name", ""))
    remount = wishes.get("remount", False)
    guards.enforce(guards.adoptable(site, host, volume, name))
    others = _others(site, host, name)
    found = host.volumes[volume]
    mounted = [mount.target for mount in host.mounts if mount.devno == found.devno]
    known = identity(volume.path)
    sources = filesystem.fstab_sources((volume.path, volume.mapper_path), known)
    listed = filesystem.fstab_targets(files.read(FSTAB) or "", sources)
    guards.enforce(guards.free_to_take(found, mounted, listed, remount))
    task = Task(
        name,
        to,
        found.size_bytes,
        allocate(site, host, volume, found.size_bytes, others),
        overwrite_metadata=wishes.get("overwrite_metadata", False),
        mounts=tuple(mounted),
        fstab_sources=sources if remount else frozenset(),
        priority=wishes.get("priority", 0),
        seed=wishes.get("seed", ""),
        blank=not (mounted or known or wishes.get("seed"))
        and only_zeros(volume, min(PROBE_BYTES, found.size_bytes), silent),
    )
    guards.enforce(guards.room(host, task, with_volume=False))
    guards.enforce(_slot_taken(host, task))
    peer.ask(site, site.peers[to], request_for(task, only_check=True), messages.Replicated)
    return task


def _others(site: Site, host: Host, name: str) -> list[drbd_dump.Half]:
    """What `allocate` leaves to resources that are not ours. Raises Refused where one has the name, or none is read."""
    done = run(drbd_dump.dump("/etc/drbd.conf"), accept=None)
    if done.returncode:  # its complaint may quote a secret
        raise Refused(
            f"drbdadm on {host.hostname} refuses what is in /etc/drbd.d, so nothing can be added. What runs goes on.",
            "There: drbdadm dump > /dev/null says where and why. Correct that, and run add again.",
        )
    try:
        dumped = drbd_dump.parse(done.stdout)
    except ValueError as error:
        raise ToolFailed(f"What drbdadm on {host.hostname} has read is not understood: {error}.") from error
    if name in dumped:
        raise Refused(
            f"DRBD's own files on {host.hostname} have a resource {name} already.",
            f"Choose another name with --name, or take that resource over: drbd-offsite adopt {name}",
        )
    return foreign(site, host, dumped.values())


def replicate(site: Site, requester: str, request: messages.Replicate) -> messages.Replicated:
    """The backup's half of a peer's ``add``: the same request again finishes it, or finds it done."""
    guards.enforce(guards.flavour(site, Flavour.BACKUP, "replicate"))
    with locked(request.name):
        existing = site.resources.get(request.name)
        operation = journal.operations().get(f"replicate-{request.name}")
        if operation is not None:
            task = Task.of(operation)
            guards.enforce(_same_request(task, requester, request))
        elif existing is not None:
            guards.enforce(_same_resource(existing, requester, request))
            return _made(site, existing.here)  # what it held when it was made, nobody knows any more
        else:
            task = _decide_replicate(site, requester, request)
        if request.only_check:
            return _begun(task)
        operation = operation or journal.begin("replicate", request.name, task.parameters())
        done = 0
        if request.blank or request.seed:
            host = survey(site)
            if not host.attached(request.name):  # then nobody may write to it any more
                operation = _prepare(site, host, operation, request)
            done = Task.of(operation).zeroed_bytes if request.blank else seed.done_bytes(operation)
            if done < task.size_bytes and not host.attached(request.name):
                return _begun(task, done)
        drive(operation, steps, silent)
        return _made(site, task.here, done)


def _prepare(site: Site, host: Host, operation: Operation, request: messages.Replicate) -> Operation:
    """Go on with what may outlast the request, in a volume that is made first; returns how the operation is now.

    Raises Refused for a volume that this operation has not made.
    """
    task = Task.of(operation)
    if task.here.volume in host.volumes:
        guards.enforce(made_here(host, task))
    else:
        # Noted first: what an earlier one held, which somebody has removed or renamed, says nothing of a new one.
        anew = {"zeroed_bytes": 0, seed.SEEDED: None, "copy_tag": _new_tag()}
        operation = journal.begin(operation.verb, task.name, {**operation.parameters, **anew})
        execute(make_volume(Task.of(operation)), site)
    return zero(operation) if request.blank else seed.fill(operation, request)


def _new_tag() -> str:
    return f"drbd_offsite_copy_{secrets.token_hex(8)}"


def _begun(task: Task, done: int = 0) -> messages.Replicated:
    return messages.Replicated(messages.Half.of(task.here), task.size_bytes, made=False, prepared_bytes=done)


def _made(site: Site, here: Replica, prepared_bytes: int = 0) -> messages.Replicated:
    volume = survey(site).volumes.get(here.volume)
    if volume is None:
        raise Refused(f"The volume {here.volume} of the copy is not there.", "See 'vgs' and 'lvs' on the backup.")
    return messages.Replicated(messages.Half.of(here), volume.size_bytes, prepared_bytes=prepared_bytes)


def _decide_replicate(site: Site, requester: str, request: messages.Replicate) -> Task:
    host = host_with_drbd(site)
    volume = VolumeName(site.volume_group, VolumeName.parse(request.server.volume).name)
    guards.enforce(guards.copy_is_new(host, volume))
    others = _others(site, host, request.name)
    task = Task(
        request.name,
        requester,
        request.size_bytes,
        allocate(site, host, volume, request.size_bytes, others),
        there=request.server.replica(),
        overwrite_metadata=request.overwrite_metadata,
        copy_tag=_new_tag(),
    )
    if request.seed:
        seed.check(request)
    guards.enforce(guards.room(host, task, with_volume=True))
    guards.enforce(_slot_taken(host, task))
    return task


def _same_request(task: Task, requester: str, request: messages.Replicate) -> Refused | None:
    if (task.peer, task.size_bytes, task.there) == (requester, request.size_bytes, request.server.replica()):
        return None
    return Refused(
        f"Another replication of a volume named {request.name} is under way on this machine.",
        "Finish that one first, or choose another name with --name.",
    )


def _same_resource(existing: Resource, requester: str, request: messages.Replicate) -> Refused | None:
    if (existing.peer, existing.there) == (requester, request.server.replica()):
        return None
    return Refused(
        f"This machine has a resource {request.name} already, for another volume.",
        "Choose another name with --name.",
    )


def _slot_taken(host: Host, task: Task) -> Refused | None:
    place = task.here.metadata
    volume = host.volumes.get(place.volume)
    if volume is None or (place.index is not None and volume.size_bytes < metadata_bytes(place, task.size_bytes)):
        return None
    return guards.metadata_unowned(place, metadata_found(place, task.here.minor), task.overwrite_metadata)


def host_with_drbd(site: Site) -> Host:
    """A look at this machine with DRBD's module loaded. Raises Refused for no module, or one we do not know."""
    host = survey(site)
    if not host.drbd_version:
        # Its failure shows in the version that is still missing, which the guard explains.
        run(circle.MODPROBE.argv, accept=None)
        host = look_again(site, host)
    guards.enforce(guards.drbd_version(host.drbd_version))
    return host


def silent(_: str) -> None:
    """The peer gets one answer and no progress."""


def steps(site: Site, host: Host, operation: Operation, tell: Tell = silent) -> Iterator[Action]:
    """What is left to do of an add or a replicate, in order, as far as it can be known."""
    return remaining(site, host, operation, _findings(site, host, Task.of(operation), tell))


def answered(operation: Operation, answer: messages.Replicated) -> dict[str, object]:
    """The backup's half, for the operation's `Task`. Raises Refused where its volume is too small."""
    task = Task.of(operation)
    needed = task.size_bytes
    if answer.size_bytes < needed:
        raise Refused(
            f"The backup's volume has {answer.size_bytes} bytes, the server's {needed}: too small for a copy.",
            f"Enlarge the backup's volume (lvextend --size {needed}b {answer.half.volume}) and run add again.",
        )
    return {"there": asdict(answer.half), "blank": task.blank and answer.prepared_bytes >= needed}


def _findings(site: Site, host: Host, task: Task, tell: Tell) -> Findings:
    text = config_text()
    resource = task.resource
    credentials = keys.credentials(site)
    now: dict[str, str] = {}
    metadata = None
    if resource is not None:
        whole = config.parse(config.updated(text, config.resource_keys(resource)))
        rendered = render(whole, credentials, host.hostname)
        now = current(tuple(file.path for file in rendered))
        if not task.metadata_created and not host.attached(task.name) and task.here.metadata.volume in host.volumes:
            metadata = metadata_found(task.here.metadata, task.here.minor)
    return Findings(
        config=text,
        fstab=files.read(FSTAB) or "",
        files=now,
        credentials=credentials,
        unit_enabled=unit_is("enabled", systemd.resource_unit(task.name)),
        metadata=metadata,
        blank=avoidable(site, host, task)
        and only_zeros(task.here.volume, host.volumes[task.here.volume].size_bytes, tell),
    )


def locked(*names: str, wait: float = LOCK_SECONDS) -> ExitStack:
    """One operation at a time on a machine's configuration, and on resources. Raises Refused."""
    stack = ExitStack()
    for lock in ("site", *(f"resource-{name}" for name in names)):
        stack.enter_context(files.lock(lock, wait))
    return stack
