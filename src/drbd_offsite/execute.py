"""The one place where actions are carried out."""

import time
from contextlib import suppress
from pathlib import Path

from . import files, host, journal, peer
from .errors import OffsiteError, ToolFailed
from .messages import ANSWERS, Answer, MachineReport, Report
from .model import Site
from .observed import DiskState, DrbdResource, Forbidden, ReplicationState, Role
from .plan.actions import (
    Action,
    AskPeer,
    CarryOver,
    Consult,
    Disconnect,
    Lift,
    Note,
    Once,
    Promote,
    RemoveFile,
    Run,
    Serve,
    SetHold,
    SkipSync,
    WriteFile,
)
from .run import run
from .tools import drbd

WORD_SECONDS = 15.0
"""For the peer's word on whether it serves a resource; it is asked again."""


CONNECT_TRIES = 60
"""A second apart: how long the backup, which has just answered, has to get connected."""

LEAVE_TRIES = 5
"""Two machines that leave at the same instant refuse each other (drbdsetup: -10, refused by peer node)."""


def execute(action: Action, site: Site) -> Answer | None:
    """Carry out one action. Returns the peer's answer where it asked for one."""
    match action:
        case Run():
            run(action.argv, timeout=action.timeout, accept=action.accept, tries=action.tries)
        case WriteFile():
            path = Path(action.path)
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            files.write(path, action.text, action.mode)
        case RemoveFile():
            _remove(Path(action.path))
        case AskPeer():
            return peer.ask(site, site.peers[action.peer], action.request, ANSWERS[type(action.request)])
        case Consult():
            _consult(action, site)
        case Promote():
            run(drbd.adm("primary", action.resource))
            host.end_consultation(action.resource)
        case Disconnect() | SkipSync():
            carry_out = _disconnect if isinstance(action, Disconnect) else _skip_sync
            carry_out(action.resource, site)
        case Once():
            execute(action.step, site)
            execute(action.note, site)
        case SetHold() | Serve() | Lift() | CarryOver() | Note():
            _write_down(action)
    return None


def _write_down(action: SetHold | Serve | Lift | CarryOver | Note) -> None:
    match action:
        case SetHold(hold=hold):
            journal.hold(hold.resource, hold.reason, hold.forbids, hold.set_by)
        case Serve():
            journal.remember(host.SERVING, action.resource, {"since": journal.now()})
        case Lift():
            journal.lift(action.resource, action.why, set_by=action.set_by)
        case CarryOver():
            journal.carry_over(action.resource, action.to, action.kinds)
        case Note(operation=operation):
            journal.begin(operation.verb, operation.resource, {**operation.parameters, action.key: action.value})


def _remove(path: Path) -> None:
    files.remove(path)
    if path.parent.suffix == ".d" and path.parent.parent.name == "system":
        with suppress(OSError):  # a unit's drop-ins of somebody else stay
            path.parent.rmdir()


def _disconnect(name: str, site: Site) -> None:
    """The peer agrees first, after the data that is on its way to it (drbd_receiver.c). Raises ToolFailed.

    drbdadm gives drbdsetup 5 seconds, and a peer that is slow to agree takes longer: what counts is the state.
    """
    complaint = ""
    for _ in range(LEAVE_TRIES):
        try:
            complaint = run(drbd.adm("disconnect", name), accept=None).complaint
        except ToolFailed as error:
            complaint = error.message
        seen = host.observe(site).drbd.get(name)
        if seen is None or seen.standalone:
            return
        time.sleep(1.0)
    raise ToolFailed(f"{name} could not be disconnected: {complaint}.")


def _skip_sync(name: str, site: Site) -> None:
    """Where it fails the first sync is what is left to do, so that is recorded and no more."""
    try:
        for _ in range(CONNECT_TRIES):
            seen = host.observe(site).drbd.get(name)
            if seen is not None and seen.standalone:
                run(drbd.adm("connect", name))
            elif seen is not None and _untouched(seen):
                run(drbd.skip_sync(name))
                return
            time.sleep(1.0)
        complaint = f"no new copy was connected within {CONNECT_TRIES} s."
    except ToolFailed as error:
        complaint = error.message
    journal.record("first-sync", name, f"The first sync could not be avoided: {complaint}")


def _untouched(seen: DrbdResource) -> bool:
    """Whether both machines have it and neither has ever served it."""
    connection, device = seen.connection, seen.peer_device
    return (
        seen.connected
        and connection is not None
        and device is not None
        and seen.role is Role.SECONDARY is connection.role
        and seen.disk is DiskState.INCONSISTENT is device.disk
        and device.replication is ReplicationState.ESTABLISHED
    )


def _consult(action: Consult, site: Site) -> None:
    """Silence, and an answer that makes no sense, are no reason not to serve: only a peer that serves is."""
    host.consult(action.resource, free=False)
    if not host.may_ask(action.peer):
        return
    try:
        report = peer.ask(site, site.peers[action.peer], Report(), MachineReport, seconds=WORD_SECONDS)
    except OffsiteError:
        return
    served = journal.by_any_name(theirs.name for theirs in report.resources if theirs.role == Role.PRIMARY)
    for name in host.consultations():
        if name in site.resources and site.resources[name].peer == action.peer:
            _settle(name, action.peer, served)


def _settle(name: str, peer_name: str, served: set[str]) -> None:
    if name in served:
        reason = f"{peer_name} has taken over: it is Primary there, so its copy has the newest data"
        journal.hold(name, reason, frozenset({Forbidden.PROMOTE, Forbidden.CONNECT}), "taken-over")
        host.end_consultation(name)
    else:
        host.consult(name, free=True)
