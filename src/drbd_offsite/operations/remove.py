"""``remove`` on the server, and ``release``, what it asks of the backup."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace

from .. import config, files, journal, keys, messages, peer
from ..errors import BadRequest, OffsiteError, PeerUnreachable, Refused
from ..host import metadata_found, observe, survey, unit_is
from ..model import Flavour, Site
from ..observed import Host, Operation
from ..plan import guards
from ..plan import remove as plan
from ..plan.actions import Action, describe
from ..plan.half import Findings
from ..plan.order import reordered
from ..plan.remove import Removal
from ..plan.rename import finished
from ..plan.task import Task
from ..render import render
from ..tools import filesystem, systemd
from . import half
from .apply import config_text, current
from .drive import drive

Tell = Callable[[str], None]


def remove(
    site: Site, name: str, *, remount: bool = False, delete_copy: bool = False, dry_run: bool = False, tell: Tell
) -> None:
    """Make a plain volume of a resource again, or finish doing so; also what an ``add`` has left unfinished.

    Raises Refused before anything is begun, PeerUnreachable when all is done here and the backup's half is left; the
    watcher sees to that when the backup is there again.
    """
    guards.enforce(guards.flavour(site, Flavour.SERVER, "remove"))
    guards.enforce(_known(site, name))
    with half.locked(name):
        operation = journal.operations().get(f"remove-{name}")
        if operation is None:
            removal = replace(_decide(site, name, remount), delete_copy=delete_copy)
            _ask_first(site, removal)
            operation = Operation("remove", name, journal.now(), removal.parameters())
            if not dry_run:
                operation = journal.begin("remove", name, removal.parameters())
        elif delete_copy and not Removal.of(operation).delete_copy:
            raise Refused(
                f"{name} is being removed by an earlier command, which keeps the backup's copy.",
                f"Finish it with 'drbd-offsite remove {name}'; then the copy is an ordinary volume there (lvremove).",
            )
        if dry_run:
            for action in _steps(site, survey(site), operation):
                tell(describe(action))
            return
        _supersede(name, ("add", "grow", "set", "replace-backup"))
        drive(operation, _steps, tell, _answered)


def give_up(site: Site, name: str) -> None:
    """Forget an unfinished ``remove`` whose resource is still as it was. Raises Refused for any other."""
    guards.enforce(_known(site, name))
    with half.locked(name):
        operation = journal.operations().get(f"remove-{name}")
        if operation is None:
            raise Refused(f"No removal of {name} is unfinished.", "drbd-offsite status shows what is.")
        if not observe(site).attached(name):
            raise Refused(
                f"{name} is down already, and its volume may have been written to without DRBD.",
                f"Only forward is safe: drbd-offsite remove {name}. Then it can be added again.",
            )
        journal.end(operation, "was given up")


def _known(site: Site, name: str) -> Refused | None:
    """Asked before anything is locked: a name that nobody has checked would become part of a path."""
    if name in site.resources or {f"add-{name}", f"remove-{name}"} & journal.operations().keys():
        return None
    return Refused(f"There is no resource {name[:80]}.", f"Configured: {', '.join(site.resources) or 'none'}.")


def _ask_first(site: Site, removal: Removal) -> None:
    """What the backup would refuse is refused before anything is begun; one that is away is asked at the end."""
    with suppress(PeerUnreachable):
        peer.ask(site, site.peers[removal.peer], plan.release(removal, only_check=True), messages.Done)


def _decide(site: Site, name: str, remount: bool) -> Removal:
    """Everything that can be refused is refused here, with nothing changed on either machine."""
    guards.enforce(_known(site, name))  # again: what was unfinished then may have come to its end
    host = survey(site)
    guards.enforce(finished(host, name))
    unfinished = host.operations.get(f"add-{name}")
    if unfinished is not None:
        removal = Removal.of_task(Task.of(unfinished))
    else:
        guards.enforce(plan.removable(host, name))
        resource = site.resources[name]
        removal = Removal(name, resource.peer, resource.here, host.mounted_at(resource.here.minor))
    names, unit = plan.device_names(removal.resource), systemd.resource_unit(name)
    listed = filesystem.fstab_targets(files.read(half.FSTAB) or "", names, unit)
    guards.enforce(_free_to_leave(removal, host, listed, remount))
    return replace(removal, relink=_relink(site, name))


def _relink(site: Site, name: str) -> tuple[str, ...]:
    if name not in site.resources:
        return ()
    without = config.parse(config.updated(config_text(), {f"resources.{name}": None}))
    return reordered(site, without)


def _free_to_leave(removal: Removal, host: Host, listed: tuple[str, ...], remount: bool) -> Refused | None:
    mounted = host.mounted_at(removal.here.minor)
    if remount or not (mounted or listed):
        return None
    where = f"is mounted at {', '.join(mounted)}" if mounted else f"is in /etc/fstab, for {', '.join(listed)}"
    return Refused(
        f"{removal.here.device} {where}, and it goes away.",
        "Stop what uses it, umount it and change fstab; or let --remount mount the volume itself there, now and in "
        "fstab (a short interruption for its users).",
    )


def _supersede(name: str, verbs: tuple[str, ...]) -> None:
    """What is removed need not be finished first."""
    for verb in verbs:
        if unfinished := journal.operations().get(f"{verb}-{name}"):
            journal.end(unfinished, "was given up")


def _steps(site: Site, host: Host, operation: Operation) -> Iterator[Action]:
    return plan.remaining(site, host, operation, _findings(site, host, Removal.of(operation)))


def _answered(_: Operation, __: messages.Done) -> dict[str, object]:
    return {"asked_peer": True}


def _findings(site: Site, host: Host, removal: Removal) -> Findings:
    credentials = keys.credentials(site)
    paths = [file.path for file in render(site, credentials, host.hostname)]
    unit = systemd.resource_unit(removal.name)
    metadata = None
    if removal.own_metadata and removal.name not in host.drbd and removal.here.metadata.volume in host.volumes:
        metadata = metadata_found(removal.here.metadata, removal.here.minor)
    return Findings(
        config=config_text(),
        fstab=files.read(half.FSTAB) or "",
        files=current((*paths, *plan.files_of(removal.resource))),
        credentials=credentials,
        unit_enabled=unit_is("enabled", unit),
        metadata=metadata,
        unit_active=unit_is("active", unit),
    )


def follow_up(site: Site, host: Host) -> None:
    """A duty of the watcher: the backup's half of what is removed here already, once the backup can be asked."""
    failed: OffsiteError | None = None
    for operation in host.operations.values():
        if operation.verb != "remove" or operation.resource in site.resources or operation.resource in host.drbd:
            continue
        there = site.peers.get(Removal.of(operation).peer)
        if there is not None and site.address_here(there) not in host.addresses:
            continue
        try:
            with half.locked(operation.resource):
                # A command that had the lock may have finished it.
                if left := journal.operations().get(operation.key):
                    drive(left, _steps, half.silent, _answered)
        except (PeerUnreachable, Refused):
            pass  # tried again at the next look; status says that it is unfinished
        except OffsiteError as error:
            failed = error
    if failed is not None:
        raise failed


def release(site: Site, requester: str, request: messages.Release) -> messages.Done:
    """The backup's half of a peer's ``remove``: the same request again finishes it, or finds it done."""
    guards.enforce(guards.flavour(site, Flavour.BACKUP, "release"))
    with half.locked(request.name):
        operation = journal.operations().get(f"release-{request.name}")
        if operation is None:
            removal = _decide_release(site, requester, request)
            if removal is None or request.only_check:
                return messages.Done()
            operation = journal.begin("release", request.name, removal.parameters())
        elif Removal.of(operation).peer != requester:
            raise BadRequest(f"{requester} has no resource {request.name} here.")
        elif request.only_check:
            return messages.Done()
        _supersede(request.name, ("replicate",))
        drive(operation, _steps, half.silent)
        kept = "" if request.delete_copy else f"; the copy stays on {Removal.of(operation).here.volume}"
        journal.record("released", request.name, f"{requester} replicates it no more{kept}.")
    return messages.Done()


def _decide_release(site: Site, requester: str, request: messages.Release) -> Removal | None:
    """None where there is nothing to release."""
    host = survey(site)
    unfinished = host.operations.get(f"replicate-{request.name}")
    resource = site.resources.get(request.name)
    if unfinished is not None:
        task = Task.of(unfinished)
        removal, theirs, owner = Removal.of_task(task), task.there, task.peer
    elif resource is not None:
        removal = Removal(resource.name, resource.peer, resource.here)
        theirs, owner = resource.there, resource.peer
    else:
        return None
    if (owner, theirs) != (requester, request.server.replica()):
        raise BadRequest(f"{requester} has no such resource {request.name} here.")
    guards.enforce(guards.copy_unused(host, removal.name, removal.here, "its copy is not given up", "remove"))
    return replace(removal, delete_copy=request.delete_copy, relink=_relink(site, request.name))
