"""The one place where actions are carried out."""

from pathlib import Path

from . import files, journal, peer
from .model import Site
from .plan.actions import Action, AskPeer, Note, RemoveFile, Run, WriteFile
from .protocol import Replicated
from .run import run


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
        case Note(operation=operation):
            journal.begin(operation.verb, operation.resource, {**operation.parameters, action.key: action.value})
    return None
