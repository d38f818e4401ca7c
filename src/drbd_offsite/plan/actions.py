"""Actions as data: what a plan is made of, what ``--dry-run`` prints and `execute` carries out."""

from dataclasses import dataclass

from ..observed import Operation
from ..protocol import Replicate
from ..tools import drbd


@dataclass(frozen=True, slots=True)
class Run:
    argv: tuple[str, ...]
    why: str
    timeout: float = 60.0
    """Seconds."""


@dataclass(frozen=True, slots=True)
class WriteFile:
    path: str
    text: str
    mode: int
    why: str


@dataclass(frozen=True, slots=True)
class RemoveFile:
    path: str
    why: str


@dataclass(frozen=True, slots=True)
class AskPeer:
    peer: str
    request: Replicate
    why: str


@dataclass(frozen=True, slots=True)
class Consult:
    """Ask the peer whether it serves a resource; if so, the resource is held here."""

    resource: str
    peer: str
    why: str


@dataclass(frozen=True, slots=True)
class Promote:
    """Serve a resource from here; what the peer was asked about it is settled."""

    resource: str
    why: str


@dataclass(frozen=True, slots=True)
class Lift:
    """Take away a hold whose end has come."""

    resource: str
    set_by: str
    why: str


@dataclass(frozen=True, slots=True)
class Note:
    """Put on disk what an operation under way now knows."""

    operation: Operation
    key: str
    value: object
    why: str


Action = Run | WriteFile | RemoveFile | AskPeer | Consult | Promote | Lift | Note


def describe(action: Action) -> str:
    """One line for a person; no file's text and so no secret is in it."""
    match action:
        case Run(argv=argv):
            what = " ".join(argv)
        case WriteFile(path=path):
            what = f"write {path}"
        case RemoveFile(path=path):
            what = f"remove {path}"
        case AskPeer(peer=peer, request=request):
            what = f"ask {peer} to {request.VERB}"
        case Consult(resource=resource, peer=peer):
            what = f"ask {peer} whether it serves {resource}"
        case Promote(resource=resource):
            what = " ".join(drbd.adm("primary", resource))
        case Lift(resource=resource, set_by=set_by):
            what = f"lift the hold of {set_by} on {resource}"
        case Note(key=key, value=value):
            what = f"note {key} = {value}"
    return f"{what}  # {action.why}"
