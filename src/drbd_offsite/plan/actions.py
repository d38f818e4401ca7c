"""Actions as data: what a plan is made of, what ``--dry-run`` prints and `execute` carries out."""

from dataclasses import dataclass

from ..messages import Enlarge, Release, Rename, Replicate, SetSpeed, Tune
from ..observed import Hold, Operation
from ..tools import drbd


@dataclass(frozen=True, slots=True)
class Run:
    argv: tuple[str, ...]
    why: str
    timeout: float = 60.0
    """Seconds."""
    tries: int = 1
    """A second apart; more than one where what makes it refuse passes by itself."""
    accept: tuple[int, ...] = (0,)
    """Exit codes that are no failure."""


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
    request: Replicate | Enlarge | Release | Tune | SetSpeed | Rename
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
class Disconnect:
    """End the connection of a resource that is up."""

    resource: str
    why: str


@dataclass(frozen=True, slots=True)
class SkipSync:
    """Connect, and have DRBD take two copies that nothing was ever written to as equal.

    One that cannot be brought to that in a bounded time is left to its first sync: no failure.
    """

    resource: str
    why: str


@dataclass(frozen=True, slots=True)
class SetHold:
    """Keep everything automatic from some steps, or say anew why."""

    hold: Hold
    """Its ``since`` is the moment at which it is set."""
    why: str


@dataclass(frozen=True, slots=True)
class Serve:
    """A resource is served by this machine, the backup, from now on: also after a reboot."""

    resource: str
    why: str


@dataclass(frozen=True, slots=True)
class Lift:
    """Take away a hold whose end has come."""

    resource: str
    set_by: str
    """Empty for all of the resource's holds."""
    why: str


@dataclass(frozen=True, slots=True)
class CarryOver:
    """Have the holds of a resource under another name as well, and what is remembered of it there alone."""

    resource: str
    to: str
    kinds: tuple[str, ...]
    """Under which something is remembered."""
    why: str


@dataclass(frozen=True, slots=True)
class Note:
    """Put on disk what an operation under way now knows."""

    operation: Operation
    key: str
    value: object
    why: str


@dataclass(frozen=True, slots=True)
class Once:
    """A step whose effect cannot be seen: it is noted after it, and taken again where the note is lost."""

    step: Run | SkipSync
    note: Note


Action = (
    Run
    | WriteFile
    | RemoveFile
    | AskPeer
    | Consult
    | Promote
    | Disconnect
    | SkipSync
    | SetHold
    | Serve
    | Lift
    | CarryOver
    | Note
    | Once
)


def describe(action: Action) -> str:
    """One line for a person; no file's text and so no secret is in it."""
    if isinstance(action, Once):
        return describe(action.step)
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
        case Promote(resource=resource) | Disconnect(resource=resource):
            what = " ".join(drbd.adm("primary" if isinstance(action, Promote) else "disconnect", resource))
        case SkipSync(resource=resource):
            what = " ".join(drbd.skip_sync(resource))
        case SetHold() | Serve() | Lift() | CarryOver() | Note():
            what = _written_down(action)
    return f"{what}  # {action.why}"


def _written_down(action: SetHold | Serve | Lift | CarryOver | Note) -> str:
    match action:
        case SetHold(hold=hold):
            words = " or ".join(sorted(hold.forbids))
            return f"hold {hold.resource}: nothing will {words} it by itself"
        case Serve(resource=resource):
            return f"serve {resource} from here, also after a reboot"
        case Lift(resource=resource, set_by=set_by):
            return f"lift the hold of {set_by} on {resource}" if set_by else f"lift the holds on {resource}"
        case CarryOver(resource=resource, to=to):
            return f"carry what is held and remembered of {resource} over to {to}"
        case Note(key=key, value=value):
            return f"note {key} = {value}"
