"""``rename`` on the server, and the same on the backup, which it asks for it."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import replace

from .. import config, files, journal, keys, messages, peer, protocol
from ..errors import BadRequest, OffsiteError, Refused
from ..execute import execute
from ..host import SERVING, consult, end_consultation, observe, unit_is
from ..model import Flavour, Resource, Site
from ..observed import Host, Operation, Role
from ..plan import drilled, guards, overload, slices
from ..plan import rename as plan
from ..plan.actions import Action, describe
from ..plan.circle import RENAMING
from ..plan.order import reordered
from ..plan.remove import files_of
from ..plan.rename import Findings, Renaming
from ..reconcile import LOCK_SECONDS
from ..render import render
from . import evidence, half, repair, report, restore_point, turn
from .apply import config_text, current
from .drive import drive

KINDS = (
    journal.HISTORY,
    report.LOST,
    overload.KIND,
    restore_point.TAKEN,
    restore_point.DISCARDS,
    restore_point.KEPT,
    repair.KIND,
    repair.TAILS,
    evidence.KIND,
    SERVING,
    turn.TURNED,
    drilled.KIND,
    slices.KIND,
)
"""All that is remembered of a resource by its name."""

Tell = Callable[[str], None]


def rename(site: Site, name: str, new: str, *, remount: bool = False, dry_run: bool = False, tell: Tell) -> None:
    """Give a resource another name on both machines, or finish doing so.

    Raises Refused and PeerUnreachable before anything is begun; PeerUnreachable also where the backup is lost after
    that. ToolFailed where somebody uses the device, OffsiteError where a file cannot be written: as long as the
    configuration has the old name, it then is served and mounted as it was.
    """
    guards.enforce(guards.flavour(site, Flavour.SERVER, RENAMING))
    guards.enforce(_known(site, name))
    guards.enforce(plan.named(name, new))
    with half.locked(name, new):
        operation = journal.operations().get(f"{RENAMING}-{name}")
        renaming = Renaming.of(operation) if operation else _decide(site, name, new, remount)
        guards.enforce(_same(renaming, new))
        asked = _ask_first(site, renaming, begun=operation is not None)
        if dry_run:
            planned = operation or Operation(RENAMING, name, journal.now(), renaming.parameters())
            for action in _steps(site, observe(site), planned):
                tell(describe(action))
            return
        if asked:
            # It has not taken over, and need not be asked again while it is down here.
            consult(new, free=True)
        try:
            _carry_out(operation or journal.begin(RENAMING, name, renaming.parameters()), asked, tell)
        finally:
            end_consultation(new)
        journal.record("renamed", new, f"It was {name} until now.")


def _known(site: Site, name: str) -> Refused | None:
    """Asked before anything is locked: a name that nobody has checked would become part of a path."""
    if name in site.resources or f"{RENAMING}-{name}" in journal.operations():
        return None
    return Refused(f"There is no resource {name[:80]}.", f"Configured: {', '.join(site.resources) or 'none'}.")


def _decide(site: Site, name: str, new: str, remount: bool) -> Renaming:
    """Everything that can be refused here is, with nothing changed on either machine."""
    guards.enforce(_known(site, name))  # again: what was unfinished then may have come to its end
    host = observe(site)
    guards.enforce(plan.free(site, host, name, new))
    here = site.resources[name].here
    mounted = host.mounted_at(here.minor)
    if mounted and not remount:
        raise Refused(
            f"{here.device} is mounted at {', '.join(mounted)}, and has to go down for a moment to get another name.",
            f"Stop what uses it and umount {mounted[-1]}; or let --remount unmount it and mount it again (a short "
            "interruption for its users).",
        )
    return _renaming(site, site.resources[name], new, mounted)


def _renaming(site: Site, resource: Resource, new: str, mounted: tuple[str, ...] = ()) -> Renaming:
    here = resource.here
    fstab = files.read(half.FSTAB) or ""
    free = (d for d in (here.device, f"/dev/drbd/by-disk/{here.volume}") if d not in fstab.split())
    others = {name: other for name, other in site.resources.items() if name != resource.name}
    waiting = reordered(replace(site, resources=others), site)
    return Renaming(resource.name, new, here, mounted, next(free, here.device), relink=waiting)


def _same(renaming: Renaming, new: str) -> Refused | None:
    if renaming.new == new:
        return None
    return Refused(
        f"{renaming.name} is being renamed to {renaming.new} by an earlier command.",
        f"Finish that first: drbd-offsite rename {renaming.name} {renaming.new}",
    )


def _ask_first(site: Site, renaming: Renaming, begun: bool) -> bool:
    """Whether the backup has nothing against it. Raises its refusal, and PeerUnreachable, where nothing is begun.

    Later neither keeps the data from being served (promise 1): it is asked again at the end.
    """
    there = site.peer_of(plan.under(site, renaming))
    try:
        peer.ask(site, there, plan.request(renaming, only_check=True), messages.Done)
    except OffsiteError:
        if not begun:
            raise
        return False
    return True


def _carry_out(operation: Operation, asked: bool, tell: Tell) -> None:
    renaming = Renaming.of(operation)

    def steps(site: Site, host: Host, begun: Operation) -> Iterator[Action]:
        if asked and renaming.name in host.drbd:
            # The peer's word is about what goes down here, and an umount before that may outlast it.
            consult(renaming.new, free=True)
        return _steps(site, host, begun)

    try:
        drive(operation, steps, tell, lambda _, __: {"asked_peer": True})
    except (OffsiteError, OSError) as error:
        try:
            _serve(operation.key, tell)
        except (OffsiteError, OSError) as another:
            tell(f"{renaming.name}: it could not be brought back: {another}")
        if isinstance(error, OSError):  # a full disk, above all
            raise OffsiteError(f"{error}.", "Once that is put right, run the same command again.") from error
        raise


def _serve(key: str, tell: Tell) -> None:
    """What one that cannot go on has taken down is served under the name that the configuration has."""
    operation = journal.operations()[key]
    renaming = Renaming.of(operation)
    site = config.load()
    if renaming.name in site.resources:
        _go_back(site, operation, tell)
    elif renaming.new in site.resources:
        for start in plan.start(operation):
            tell(describe(start))
            execute(start.step, site)  # not noted: the same command finds out whether it is served


def _go_back(site: Site, operation: Operation, tell: Tell) -> None:
    """Served and mounted again as it was; and forgotten, if nothing is prepared for the new name yet."""
    renaming = Renaming.of(operation)
    previous: Action | None = None
    while True:
        host = observe(site)
        step = next(plan.back(site, host, renaming, files.read(half.FSTAB) or ""), None)
        if step is None or step == previous:
            break
        tell(describe(step))
        execute(step, site)
        previous = step
    seen = host.drbd.get(renaming.name)
    served = step is None and seen is not None and seen.role is Role.PRIMARY
    if served and renaming.new not in host.holds and not unit_is("enabled", renaming.units[1]):
        journal.end(operation, "was given up")


def _steps(site: Site, host: Host, operation: Operation) -> Iterator[Action]:
    return plan.remaining(site, host, operation, _findings(site, host, Renaming.of(operation)))


def _findings(site: Site, host: Host, renaming: Renaming) -> Findings:
    credentials = keys.credentials(site)
    resource = plan.under(site, renaming)
    paths = [file.path for file in render(site, credentials, host.hostname)]
    for name in (renaming.name, renaming.new):
        paths += files_of(replace(resource, name=name))
    old, new = renaming.units
    return Findings(
        config=config_text(),
        fstab=files.read(half.FSTAB) or "",
        files=current(tuple(paths)),
        credentials=credentials,
        unit_enabled=unit_is("enabled", old),
        unit_active=unit_is("active", old),
        new_enabled=unit_is("enabled", new),
        kinds=tuple(kind for kind in KINDS if renaming.name in journal.remembered(kind)),
    )


def settle(names: Collection[str]) -> None:
    """Before names (all, if none is given) come up: what a rename has left that got just past the configuration.

    Raises Refused where that one is still at work.
    """
    for begun in journal.operations().values():
        if begun.verb != RENAMING or (names and Renaming.of(begun).new not in names):
            continue
        if not _unsettled(config.load(), begun.key):
            continue
        with half.locked(begun.resource, Renaming.of(begun).new, wait=LOCK_SECONDS):
            site = config.load()
            while operation := _unsettled(site, begun.key):
                host = observe(site)
                seen = host.drbd.get(begun.resource)
                if host.blind or (seen is not None and seen.role is not Role.SECONDARY):
                    break  # somebody uses it by its old name
                execute(next(plan.settle(site, host, operation, _findings(site, host, Renaming.of(operation)))), site)


def _unsettled(site: Site, key: str) -> Operation | None:
    """One that is still under way, has changed the configuration and not yet the files."""
    operation = journal.operations().get(key)
    if operation is None or Renaming.of(operation).settled or Renaming.of(operation).new not in site.resources:
        return None
    return operation


def follow(site: Site, requester: str, request: messages.Rename) -> messages.Done:
    """The backup's half of a peer's ``rename``: the same request again finishes it, or finds it done."""
    guards.enforce(guards.flavour(site, Flavour.BACKUP, "what a server asks for"))
    guards.enforce(plan.named(request.name, request.new))
    with half.locked(request.name, request.new):
        site = config.load()
        name = request.name if request.name in site.resources else request.new
        resource = protocol.resource_of(site, requester, name)
        if resource.there != request.server.replica():
            raise BadRequest(f"{requester} has no such resource {name} here.")
        host = observe(site)
        for each in (request.name, request.new):
            guards.enforce(guards.copy_unused(host, each, resource.here, "it cannot go down for a moment", RENAMING))
        operation = journal.operations().get(f"{RENAMING}-{request.name}")
        if operation is None and name == request.new:
            return messages.Done()
        if operation is None:
            guards.enforce(plan.free(site, host, request.name, request.new))
        renaming = Renaming.of(operation) if operation else _renaming(site, resource, request.new)
        guards.enforce(_same(renaming, request.new))
        if request.only_check:
            return messages.Done()
        operation = operation or journal.begin(RENAMING, request.name, renaming.parameters())
        drive(operation, _steps, half.silent)
        journal.record("renamed", request.new, f"It was {request.name} until now.")
    return messages.Done()
