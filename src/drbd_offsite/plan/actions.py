"""Actions as data: what a plan is made of, what ``--dry-run`` prints and `execute` carries out."""

from dataclasses import dataclass

from ..model import Operation
from ..protocol import Replicate


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
class Note:
    """Put on disk what an operation under way now knows."""

    operation: Operation
    key: str
    value: object
    why: str


Action = Run | WriteFile | RemoveFile | AskPeer | Note


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
        case Note(key=key, value=value):
            what = f"note {key} = {value}"
    return f"{what}  # {action.why}"
