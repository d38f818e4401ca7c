"""Making a resource: ``add`` on the server, ``replicate`` on the backup, both by the one planner."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from .. import config, files, journal, keys, peer, protocol
from ..errors import OffsiteError, Refused
from ..execute import execute
from ..host import identity, look_again, metadata_found, survey
from ..model import Flavour, Replica, Resource, Site, VolumeName
from ..observed import DiskState, Host, Operation
from ..plan import circle, guards
from ..plan.actions import Action, Run, describe
from ..plan.half import Findings, remaining
from ..plan.half import replicate as request_for
from ..plan.task import Task, allocate, metadata_bytes
from ..render import render
from ..run import run
from ..tools import filesystem, lvm, systemd
from .apply import config_text, current

FSTAB = Path("/etc/fstab")
LOCK_SECONDS = 5.0
STEPS = 60
"""Far more than there are; a machine that does not change under our hands ends the run."""

Tell = Callable[[str], None]


def add(
    site: Site,
    volume: VolumeName,
    *,
    name: str = "",
    peer_name: str = "",
    remount: bool = False,
    overwrite_metadata: bool = False,
    dry_run: bool = False,
    tell: Tell,
) -> str:
    """Replicate a volume of this server, or finish doing so; returns the resource's name.

    Raises Refused before anything is begun, PeerUnreachable when the backup is lost on the way.
    """
    name = name or volume.name
    guards.enforce(guards.resource_name(name))
    with ExitStack() as stack:
        if not dry_run:
            stack.enter_context(_locked(name))
        guards.enforce(guards.flavour(site, Flavour.SERVER, "add"))
        operation = journal.operations().get(f"add-{name}")
        if operation is None:
            task = _decide_add(site, volume, name, _peer(site, peer_name), remount, overwrite_metadata)
            operation = Operation("add", name, journal.now(), task.parameters())
            if not dry_run:
                operation = journal.begin("add", name, task.parameters())
        elif Task.of(operation).here.volume != volume:
            raise Refused(
                f"add of {Task.of(operation).here.volume} as {name} is under way.",
                f"Finish it first: drbd-offsite add {Task.of(operation).here.volume}",
            )
        if dry_run:
            host, task = survey(site), Task.of(operation)
            for action in remaining(site, host, operation, _findings(site, host, task)):
                tell(describe(action))
        else:
            drive(site, operation, tell)
    return name


def _peer(site: Site, name: str) -> str:
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


def _decide_add(site: Site, volume: VolumeName, name: str, to: str, remount: bool, overwrite: bool) -> Task:
    """Everything that can be refused is refused here, with nothing changed on either machine but a loaded module."""
    host = host_with_drbd(site)
    guards.enforce(guards.adoptable(site, host, volume, name))
    found = host.volumes[volume]
    mounted = [mount.target for mount in host.mounts if mount.devno == found.devno]
    sources = filesystem.fstab_sources(_names(volume), identity(volume.path))
    listed = filesystem.fstab_targets(files.read(FSTAB) or "", sources)
    guards.enforce(guards.free_to_take(found, mounted, listed, remount))
    task = Task(
        name,
        to,
        found.size_bytes,
        allocate(site, host, volume, found.size_bytes),
        overwrite_metadata=overwrite,
        mounts=tuple(mounted),
        fstab_sources=sources if remount else frozenset(),
    )
    guards.enforce(guards.room(host, task, with_volume=False))
    guards.enforce(_slot_taken(host, task))
    peer.ask(site, site.peers[to], request_for(task, only_check=True), protocol.Replicated)
    return task


def _names(volume: VolumeName) -> tuple[str, str]:
    mapper = f"{volume.group.replace('-', '--')}-{volume.name.replace('-', '--')}"
    return volume.path, f"/dev/mapper/{mapper}"


def replicate(site: Site, requester: str, request: protocol.Replicate) -> protocol.Replicated:
    """The backup's half of a peer's ``add``: the same request again finishes it, or finds it done."""
    guards.enforce(guards.flavour(site, Flavour.BACKUP, "replicate"))
    with _locked(request.name):
        existing = site.resources.get(request.name)
        operation = journal.operations().get(f"replicate-{request.name}")
        if operation is not None:
            task = Task.of(operation)
            guards.enforce(_same_request(task, requester, request))
        elif existing is not None:
            guards.enforce(_same_resource(existing, requester, request))
            return _made(site, existing.here)
        else:
            task = _decide_replicate(site, requester, request)
        if request.only_check:
            return protocol.Replicated(protocol.Half.of(task.here), task.size_bytes)
        drive(site, operation or journal.begin("replicate", request.name, task.parameters()), silent)
        return _made(site, task.here)


def _made(site: Site, here: Replica) -> protocol.Replicated:
    volume = survey(site).volumes.get(here.volume)
    if volume is None:
        raise Refused(f"The volume {here.volume} of the copy is not there.", "See 'vgs' and 'lvs' on the backup.")
    return protocol.Replicated(protocol.Half.of(here), volume.size_bytes)


def _decide_replicate(site: Site, requester: str, request: protocol.Replicate) -> Task:
    host = host_with_drbd(site)
    volume = VolumeName(site.volume_group, VolumeName.parse(request.server.volume).name)
    guards.enforce(guards.copy_is_new(host, volume))
    task = Task(
        request.name,
        requester,
        request.size_bytes,
        allocate(site, host, volume, request.size_bytes),
        there=request.server.replica(),
        overwrite_metadata=request.overwrite_metadata,
    )
    guards.enforce(guards.room(host, task, with_volume=True))
    guards.enforce(_slot_taken(host, task))
    return task


def _same_request(task: Task, requester: str, request: protocol.Replicate) -> Refused | None:
    if (task.peer, task.size_bytes, task.there) == (requester, request.size_bytes, request.server.replica()):
        return None
    return Refused(
        f"Another replication of a volume named {request.name} is under way on this machine.",
        "Finish that one first, or choose another name with --name.",
    )


def _same_resource(existing: Resource, requester: str, request: protocol.Replicate) -> Refused | None:
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


def drive(site: Site, operation: Operation, tell: Tell) -> None:
    """Look, take the first step that is left, look again, until none is; then the operation is over."""
    previous: Action | None = None
    host: Host | None = None
    for _ in range(STEPS):
        # LVM's part of the look is the slow one, and only our own steps change it here.
        stale = host is None or (isinstance(previous, Run) and previous.argv[0] in lvm.CHANGES)
        host = survey(site) if host is None or stale else look_again(site, host)
        task = Task.of(operation)
        action = next(remaining(site, host, operation, _findings(site, host, task)), None)
        if action is None:
            journal.end(operation)
            return
        if action == previous:
            raise OffsiteError(
                f"This step was carried out and had no effect: {describe(action)}",
                "drbd-offsite doctor looks for the reason; the same command goes on from here.",
            )
        tell(describe(action))
        answer = execute(action, site)
        if answer is not None:
            _check_size(task, answer)
            journal.begin(operation.verb, operation.resource, {**operation.parameters, "there": _half(answer)})
        operation = journal.operations()[operation.key]
        previous = action
    raise OffsiteError("There is no end to the steps of this operation.", "Report this with drbd-offsite events.")


def silent(_: str) -> None:
    """The peer gets one answer and no progress."""


def _half(answer: protocol.Replicated) -> dict[str, object]:
    half = answer.half
    return {"volume": half.volume, "metadata": half.metadata, "minor": half.minor, "port": half.port}


def _check_size(task: Task, answer: protocol.Replicated) -> None:
    if answer.size_bytes < task.size_bytes:
        raise Refused(
            f"The backup's volume has {answer.size_bytes} bytes, the server's {task.size_bytes}: too small for a copy.",
            f"Enlarge the backup's volume (lvextend --size {task.size_bytes}b {answer.half.volume}) and run add again.",
        )


def _findings(site: Site, host: Host, task: Task) -> Findings:
    text = config_text()
    resource = task.resource
    credentials = keys.credentials(site)
    now: dict[str, str] = {}
    metadata = None
    if resource is not None:
        whole = config.parse(config.updated(text, config.resource_keys(resource)))
        rendered = render(whole, credentials, host.hostname)
        now = current(tuple(file.path for file in rendered))
        seen = host.drbd.get(task.name)
        attached = seen is not None and seen.disk is not DiskState.DISKLESS
        if not task.metadata_created and not attached and task.here.metadata.volume in host.volumes:
            metadata = metadata_found(task.here.metadata, task.here.minor)
    unit = systemd.systemctl("is-enabled", "--quiet", systemd.resource_unit(task.name))
    return Findings(
        config=text,
        fstab=files.read(FSTAB) or "",
        files=now,
        credentials=credentials,
        unit_enabled=run(unit, accept=None).returncode == 0,
        metadata=metadata,
    )


def _locked(name: str) -> ExitStack:
    stack = ExitStack()
    stack.enter_context(files.lock("site", LOCK_SECONDS))
    stack.enter_context(files.lock(f"resource-{name}", LOCK_SECONDS))
    return stack
