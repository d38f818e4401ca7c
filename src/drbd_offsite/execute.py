"""The one place where actions are carried out."""

from pathlib import Path

from . import files, host, journal, peer
from .errors import OffsiteError
from .model import Site
from .observed import Forbidden, Role
from .plan.actions import Action, AskPeer, Consult, Lift, Note, Promote, RemoveFile, Run, WriteFile
from .protocol import MachineReport, Replicated, Report
from .run import run
from .tools import drbd

WORD_SECONDS = 15.0
"""For the peer's word on whether it serves a resource; it is asked again."""


def execute(action: Action, site: Site) -> Replicated | None:
    """Carry out one action. Returns the peer's answer where it asked for one."""
    match action:
        case Run():
            run(action.argv, timeout=action.timeout)
        case WriteFile():
            path = Path(action.path)
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            files.write(path, action.text, action.mode)
        case RemoveFile():
            files.remove(Path(action.path))
        case AskPeer():
            return peer.ask(site, site.peers[action.peer], action.request, Replicated)
        case Consult():
            _consult(action, site)
        case Promote():
            run(drbd.adm("primary", action.resource))
            host.end_consultation(action.resource)
        case Lift():
            journal.lift(action.resource, action.why, set_by=action.set_by)
        case Note(operation=operation):
            journal.begin(operation.verb, operation.resource, {**operation.parameters, action.key: action.value})
    return None


def _consult(action: Consult, site: Site) -> None:
    """Silence, and an answer that makes no sense, are no reason not to serve: only a peer that serves is."""
    host.consult(action.resource, free=False)
    if not host.may_ask(action.peer):
        return
    try:
        report = peer.ask(site, site.peers[action.peer], Report(), MachineReport, seconds=WORD_SECONDS)
    except OffsiteError:
        return
    served = {theirs.name for theirs in report.resources if theirs.role == Role.PRIMARY}
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
