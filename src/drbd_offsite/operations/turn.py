"""One step of a ``failback`` or ``switchover`` on this machine, and how a resource stands here before and after it.

A step that the peer asks for and that mounts or unmounts is taken by a unit of its own: the service that answers the
peer may do neither.
"""

from collections.abc import Callable

from .. import doorbell, files, journal, messages, protocol
from ..errors import OffsiteError, Refused
from ..execute import execute
from ..host import SERVING, observe
from ..model import Flavour, Resource, Site, Turn
from ..observed import ConnectionState, DiskState, DrbdResource, Forbidden, Hold, Host, ReplicationState, Role
from ..plan import handover as plan
from ..plan.actions import Disconnect
from ..reconcile import reconcile
from ..run import run
from ..tools import drbd, filesystem, systemd
from . import deputy, repair, restore_point, serve
from .half import FSTAB
from .restore_point import DISCARDS, KEPT, nothing_kept

TURNED = "turned"
"""The last step that was taken here and cannot be seen (`journal.remembered`)."""
SETTLED = (TURNED, DISCARDS)
"""Under which nothing is remembered any more when it is over."""
ANSWERS = "turn-answers"
"""Why a step has failed that a unit of its own has taken for the peer."""
UNIT_SECONDS = 900.0

LOCK_SECONDS = 60.0

UNSEEN = frozenset({Turn.RECEIVE, Turn.DISCARD})
IN_THE_OPEN = frozenset({Turn.YIELD, Turn.SERVE})
"""Steps that mount, unmount, or run what the admin has written."""

Tell = Callable[[str], None]


def stance(site: Site, resource: Resource) -> messages.Stance:
    host = observe(site)
    if host.blind:
        raise OffsiteError(f"{host.hostname} cannot see DRBD's state: {host.problems[0]}")
    seen = host.drbd.get(resource.name)
    connection = seen.connection if seen else None
    device = seen.peer_device if seen else None
    settled = repair.settled(resource.name)
    if not settled and seen is not None and seen.role is Role.PRIMARY:
        doorbell.ring()  # the watcher compares what has to be compared, and need not wait for its minute
    return messages.Stance(
        role=seen.role if seen else Role.UNKNOWN,
        disk=seen.disk if seen else DiskState.DISKLESS,
        connection=connection.state if connection else ConnectionState.STANDALONE,
        replication=device.replication if device else ReplicationState.OFF,
        changed_bytes=device.out_of_sync_bytes if device else 0,
        identifiers="" if seen is not None and seen.connected else _identifiers(seen, resource),
        turned=str(journal.remembered(TURNED).get(resource.name, {}).get("turn", "")),
        settled=settled,
        leftovers=_leftovers(site, host, resource),
        blocked=_reason(host, resource, lambda hold: hold.set_by not in plan.CONNECTING | plan.PROMOTING),
        kept=str(journal.remembered(KEPT).get(resource.name, {}).get("volume", "")),
        hindered=_reason(host, resource, lambda hold: hold.set_by == restore_point.SETTER),
    )


def _identifiers(seen: DrbdResource | None, resource: Resource) -> str:
    if seen is None or seen.disk in (DiskState.DISKLESS, DiskState.ATTACHING, DiskState.FAILED):
        return ""
    text = run(drbd.adm("get-gi", resource.name)).stdout.strip()
    return text.splitlines()[-1] if text else ""


def _leftovers(site: Site, host: Host, resource: Resource) -> bool:
    """What is noted here of a handover, as far as it has no meaning once it is over."""
    seen = host.drbd.get(resource.name)
    serves = seen is not None and seen.role is Role.PRIMARY
    setters = {hold.set_by for hold in host.holds.get(resource.name, ())}
    noted = any(resource.name in journal.remembered(kind) for kind in SETTLED)
    return noted or bool(setters & _settling(site, serves))


def _settling(site: Site, serves: bool) -> frozenset[str]:
    """The setters whose holds end when it is over. A server that has given it away keeps its own: it is what keeps it
    from serving at the next boot.
    """
    return plan.CONNECTING | (plan.PROMOTING if serves or site.flavour is Flavour.BACKUP else frozenset({"taken-over"}))


def _reason(host: Host, resource: Resource, concerned: Callable[[Hold], bool]) -> str:
    """Of the first such hold that forbids anything; empty where there is none."""
    holds = (hold for hold in host.holds.get(resource.name, ()) if hold.forbids and concerned(hold))
    return next((hold.reason for hold in holds), "").encode("ascii", "replace").decode()[:200]


def take(site: Site, resource: Resource, turn: Turn, keep: bool, tell: Tell) -> None:
    """One step, on this machine; taken twice it does no harm. Raises Refused where it is not possible."""
    with files.lock(f"resource-{resource.name}", LOCK_SECONDS):
        if turn in UNSEEN:
            journal.remember(TURNED, resource.name, {"turn": turn})
        match turn:
            case Turn.YIELD:
                _yield(site, resource, tell)
            case Turn.RECEIVE | Turn.DISCARD:
                _receive(site, resource, turn is Turn.DISCARD, keep)
            case Turn.BEGIN:
                run(drbd.begin_generation(resource.name))
            case Turn.CONNECT:
                _lift(resource, plan.CONNECTING, turn)
                _connect(site, resource)
            case Turn.SETTLE:
                _lift(resource, _settling(site, _primary(site, resource)), turn)
                for kind in SETTLED:
                    journal.forget(kind, resource.name)
            case Turn.SERVE:
                pass
    if turn is Turn.SERVE:
        _serve(site, resource, tell)
    journal.record("handover", resource.name, f"{turn.capitalize()}, for a handover.", turn=turn)


def _yield(site: Site, resource: Resource, tell: Tell) -> None:
    if not _primary(site, resource):
        return
    serve.release(site, resource, tell)  # what is refused here leaves everything as it is
    reason = f"it was handed over to {resource.peer}, and is not served from here before that is undone"
    if site.flavour is Flavour.SERVER:
        journal.hold(resource.name, reason, frozenset({Forbidden.PROMOTE}), plan.SETTER)
    try:
        serve.demote(site, resource)
    except OffsiteError:
        _lift(resource, frozenset({plan.SETTER}), Turn.YIELD)
        if site.flavour is Flavour.BACKUP:
            serve.serve(resource, tell)
        else:
            _mount_from_fstab(site, resource)
        raise
    journal.forget(SERVING, resource.name)


def _receive(site: Site, resource: Resource, discard: bool, keep: bool) -> None:
    """As `discard.discard_here`, whatever the reason."""
    name = resource.name
    if keep:
        nothing_kept(site, resource)
    if _primary(site, resource):
        serve.demote(site, resource)  # what a person has demoted, the circle may have promoted again a moment ago
    if site.flavour is Flavour.SERVER:
        reason = f"the copy of {resource.peer} is taken over; it is not served from here before that is done"
        journal.hold(name, reason, frozenset({Forbidden.PROMOTE}), plan.SETTER)
    journal.forget(SERVING, name)
    # What was said of it the last time, when there was no room for a snapshot, may be said otherwise now.
    if keep or discard or name in journal.remembered(DISCARDS):
        journal.remember(DISCARDS, name, {"safety_net": keep})
    _lift(resource, plan.CONNECTING, Turn.RECEIVE)
    seen = observe(site).drbd.get(name)
    if seen is not None and not seen.standalone:
        execute(Disconnect(name, "it connects anew, to receive"), site)
    _connect(site, resource, *(("--discard-my-data",) if discard else ()))


def _connect(site: Site, resource: Resource, *options: str) -> None:
    seen = observe(site).drbd.get(resource.name)
    if seen is not None and seen.standalone:
        run(drbd.adm("connect", resource.name, *options))


def _serve(site: Site, resource: Resource, tell: Tell) -> None:
    _lift(resource, plan.PROMOTING, Turn.SERVE)
    if site.flavour is Flavour.BACKUP:
        with files.lock(f"resource-{resource.name}", LOCK_SECONDS):
            serve.serve(resource, tell)
        return
    for outcome in reconcile(site, [resource.name], tell):
        if outcome.failed is not None:
            raise outcome.failed
    if not _primary(site, resource):
        raise Refused(
            f"The server did not become Primary for {resource.name}.",
            f"There: drbd-offsite plan {resource.name} says why.",
        )
    # One that was held at boot has failed, and what has failed is not taken down in order at shutdown.
    run(systemd.systemctl("start", systemd.resource_unit(resource.name)), timeout=300.0, accept=None)
    _mount_from_fstab(site, resource)


def _mount_from_fstab(site: Site, resource: Resource) -> None:
    """What fstab mounts at boot, which a person has stopped for the handover or a boot without it has left out."""
    text = files.read(FSTAB) or ""
    mounted = observe(site).mounted_at(resource.here.minor)
    unit = systemd.resource_unit(resource.name)
    for target in filesystem.fstab_targets(text, resource.device_names, unit):
        if target not in mounted and filesystem.fstab_automatic(text, target):
            run(filesystem.mount_from_fstab(target), timeout=600.0)


def _primary(site: Site, resource: Resource) -> bool:
    seen = observe(site).drbd.get(resource.name)
    return seen is not None and seen.role is Role.PRIMARY


def _lift(resource: Resource, setters: frozenset[str], turn: Turn) -> None:
    for setter in sorted(setters):
        journal.lift(resource.name, f"a handover ({turn})", set_by=setter)


# -- what the peer asks for ------------------------------------------------------------------------


def answer(site: Site, requester: str, request: messages.Stand | messages.Take) -> messages.Stance | messages.Done:
    """Raises BadRequest for a resource that is not shared with that peer, Refused."""
    resource = protocol.resource_of(site, requester, request.name)
    if isinstance(request, messages.Stand):
        return stance(site, resource)
    turn = Turn(request.turn)
    _guard(site, resource, turn)
    # The server's data are never given up without a net because the other machine says so.
    keep = request.keep or (site.flavour is Flavour.SERVER and turn is Turn.DISCARD)
    if turn in IN_THE_OPEN:
        _take_in_the_open(resource, turn)
    else:
        take(site, resource, turn, keep, lambda _: None)
    return messages.Done()


def _guard(site: Site, resource: Resource, turn: Turn) -> None:
    """The backup takes nothing away from the server that is in use there."""
    mounted = observe(site).mounted_at(resource.here.minor)
    if site.flavour is Flavour.SERVER and turn is Turn.YIELD and mounted:
        raise Refused(
            f"{resource.name} is mounted at {', '.join(mounted)} on the server.",
            f"Stop what uses it and umount {mounted[0]} there; or run the command on the server, which does that.",
        )


def _take_in_the_open(resource: Resource, turn: Turn) -> None:
    name = resource.name
    deputy.have("start", systemd.turn_unit(turn, name), ANSWERS, name, f"{turn} of {name}", UNIT_SECONDS)


def take_for_peer(site: Site, resource: Resource, turn: Turn, tell: Tell) -> None:
    """In a unit of its own; how it ends is left for whoever has started that."""
    with deputy.leaving_word(ANSWERS, resource.name):
        take(site, resource, turn, True, tell)
