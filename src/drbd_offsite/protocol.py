"""What two machines say to each other: one JSON request, one JSON answer, and nothing else.

The peer is not trusted. A message with a word too many, a word too few, a wrong type or a value out of
range is a BadRequest as a whole, and whoever reads it has changed nothing by then.
"""

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self, TypeVar, get_args

from . import wire
from .errors import BadRequest, ExitCode, Held, OffsiteError, PeerUnreachable, Refused
from .model import RESOURCE_NAME, TUNABLE, MetadataPlace, Replica, Resource, Site, Turn, VolumeName

_A = TypeVar("_A")

VERSION = 1
MAX_BYTES = 65536
"""Of a request or an answer."""

FILES = "files"
"""In the place of a request, as the command for sshd and with a resource's name: the bytes that rsync exchanges."""

_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
HOSTNAME = re.compile(rf"(?=.{{1,64}}\Z){_LABEL}(?:\.{_LABEL})*\Z")
"""At most HOST_NAME_MAX, and nothing that the configuration would refuse."""
TOKEN = re.compile(r"[0-9a-f]{64}\Z")
FINGERPRINT = re.compile(r"(?:(?:[0-9A-F]{2}:){31}[0-9A-F]{2}|[A-Za-z0-9+/]{43}=|)\Z")
SSH_PUBLIC_KEY = re.compile(r"ssh-ed25519 [A-Za-z0-9+/]{68}={0,2}\Z")
SEED_PATH = re.compile(r"(?:/[\x20-\x7e]{1,1000})?\Z")
TUNED = re.compile(r"[a-z0-9-]{1,20}\Z")
IDENTIFIERS = re.compile(r"(?:[0-9A-F]{16}(?::[0-9A-F]{16}){3}:[0-9:]{0,40})?\Z")
_WORD = re.compile(r"[\x20-\x7e]{0,200}\Z")
_MAX_VOLUME = 2**60


@dataclass(frozen=True, slots=True)
class Half:
    """A `Replica` as it travels."""

    volume: str = wire.noun(VolumeName.parse)
    metadata: str = wire.noun(MetadataPlace.parse)
    minor: int = wire.whole(0, 1048575)
    port: int = wire.whole(1, 65535)

    @classmethod
    def of(cls, replica: Replica) -> Self:
        return cls(str(replica.volume), str(replica.metadata), replica.minor, replica.port)

    def replica(self) -> Replica:
        return Replica(VolumeName.parse(self.volume), MetadataPlace.parse(self.metadata), self.minor, self.port)


@dataclass(frozen=True, slots=True)
class Hello:
    """Is anybody there, and who; also what ends an enrolment."""

    VERB: ClassVar[str] = "hello"


@dataclass(frozen=True, slots=True)
class Enrol:
    """The backup presents the token of its invitation and the public halves of its own keys."""

    VERB: ClassVar[str] = "enrol"
    token: str = wire.text(TOKEN)
    hostname: str = wire.text(HOSTNAME)
    fingerprint: str = wire.text(FINGERPRINT)
    ssh_key: str = wire.text(SSH_PUBLIC_KEY)
    ssh_host_key: str = wire.text(SSH_PUBLIC_KEY)


@dataclass(frozen=True, slots=True)
class Report:
    """What a look at that machine shows."""

    VERB: ClassVar[str] = "report"


@dataclass(frozen=True, slots=True)
class Replicate:
    """Become the copy of a volume of ``size_bytes``: make the volume, the slot, the files; attach; connect."""

    VERB: ClassVar[str] = "replicate"
    name: str = wire.text(RESOURCE_NAME)
    size_bytes: int = wire.whole(1, _MAX_VOLUME)
    server: Half = wire.nested()
    overwrite_metadata: bool = wire.checked(lambda v: isinstance(v, bool))
    only_check: bool = wire.checked(lambda v: isinstance(v, bool))
    """Refuse what would be refused, and do nothing."""
    blank: bool = wire.checked(lambda v: isinstance(v, bool), default=False)
    """The server's volume holds nothing but zeros, and so shall the copy's."""
    seed: str = wire.checked(lambda v: isinstance(v, str) and bool(SEED_PATH.match(v)), default="")
    """A file there to fill the copy's volume from; empty for none."""


@dataclass(frozen=True, slots=True)
class Enlarge:
    """Make room for a resource of ``size_bytes``: enlarge the copy's volume, and metadata of its own."""

    VERB: ClassVar[str] = "enlarge"
    name: str = wire.text(RESOURCE_NAME)
    size_bytes: int = wire.whole(1, _MAX_VOLUME)
    only_check: bool = wire.checked(lambda v: isinstance(v, bool))
    """Refuse what would be refused, and do nothing."""


@dataclass(frozen=True, slots=True)
class Release:
    """The server replicates a volume no more: take the copy's resource down and forget it; the volume stays."""

    VERB: ClassVar[str] = "release"
    name: str = wire.text(RESOURCE_NAME)
    server: Half = wire.nested()
    """Tells this resource from an earlier or later one of that name."""
    delete_copy: bool = wire.checked(lambda v: isinstance(v, bool))
    """The volume goes too."""
    only_check: bool = wire.checked(lambda v: isinstance(v, bool))
    """Refuse what would be refused, and do nothing."""


@dataclass(frozen=True, slots=True)
class Tune:
    """Give a key of a resource another value, in the configuration, the rendered files and the kernel."""

    VERB: ClassVar[str] = "tune"
    name: str = wire.text(RESOURCE_NAME)
    key: str = wire.checked(lambda v: v in TUNABLE)
    value: str = wire.text(TUNED)
    only_check: bool = wire.checked(lambda v: isinstance(v, bool))
    """Refuse what would be refused, and do nothing."""


@dataclass(frozen=True, slots=True)
class Rename:
    """Let a resource have another name; its volume, slot, minor and port stay."""

    VERB: ClassVar[str] = "rename"
    name: str = wire.text(RESOURCE_NAME)
    new: str = wire.text(RESOURCE_NAME)
    server: Half = wire.nested()
    """Tells this resource from an earlier or later one of either name."""
    only_check: bool = wire.checked(lambda v: isinstance(v, bool))
    """Refuse what would be refused, and do nothing."""


@dataclass(frozen=True, slots=True)
class Connect:
    """Connect a resource unless a hold forbids it."""

    VERB: ClassVar[str] = "connect"
    name: str = wire.text(RESOURCE_NAME)


@dataclass(frozen=True, slots=True)
class Stand:
    """How a resource stands there, for a handover."""

    VERB: ClassVar[str] = "stand"
    name: str = wire.text(RESOURCE_NAME)


@dataclass(frozen=True, slots=True)
class Take:
    """Take one step of a handover there."""

    VERB: ClassVar[str] = "take"
    name: str = wire.text(RESOURCE_NAME)
    turn: str = wire.checked(lambda v: v in list(Turn))
    keep: bool = wire.checked(lambda v: isinstance(v, bool))
    """What is overwritten there is kept in a snapshot; without room for one it is refused."""


@dataclass(frozen=True, slots=True)
class Share:
    """Mount a snapshot of the copy there read-only, as it is now, so that its files can be read from here."""

    VERB: ClassVar[str] = "share"
    name: str = wire.text(RESOURCE_NAME)


@dataclass(frozen=True, slots=True)
class Unshare:
    """End that; where nothing is shared there is nothing to do."""

    VERB: ClassVar[str] = "unshare"
    name: str = wire.text(RESOURCE_NAME)


Request = (
    Hello | Enrol | Report | Replicate | Enlarge | Release | Tune | Rename | Connect | Stand | Take | Share | Unshare
)


@dataclass(frozen=True, slots=True)
class Greeting:
    hostname: str = wire.text(HOSTNAME)
    flavour: str = wire.text(_WORD)
    drbd_version: str = wire.text(_WORD)
    now: str = wire.noun(wire.instant)
    """By the clock there: ISO 8601, UTC."""


@dataclass(frozen=True, slots=True)
class ResourceReport:
    """One of the asking peer's resources as it is seen on the answering machine."""

    name: str = wire.text(RESOURCE_NAME)
    role: str = wire.text(_WORD)
    disk: str = wire.text(_WORD)
    connection: str = wire.text(_WORD)
    changed_bytes: int = wire.whole(0, _MAX_VOLUME)
    """Known to differ from the other copy; while not connected: written here since."""
    disconnected_since: str = wire.text(_WORD)
    """ISO 8601, UTC; empty while connected, and where it is not known."""


@dataclass(frozen=True, slots=True)
class MachineReport:
    hostname: str = wire.text(HOSTNAME)
    drbd_version: str = wire.text(_WORD)
    resources: list[ResourceReport] = wire.nested()


@dataclass(frozen=True, slots=True)
class Replicated:
    half: Half = wire.nested()
    size_bytes: int = wire.whole(1, _MAX_VOLUME)
    made: bool = wire.checked(lambda v: isinstance(v, bool), default=True)
    """False while the copy's volume is being prepared, which outlasts a request: the same one again goes on."""
    prepared_bytes: int = wire.whole(0, _MAX_VOLUME, default=0)
    """Of the copy's volume, from its start, what holds zeros or the seed, whichever was asked for."""


@dataclass(frozen=True, slots=True)
class Enlarged:
    size_bytes: int = wire.whole(1, _MAX_VOLUME)
    """Of the copy's volume, in all."""


@dataclass(frozen=True, slots=True)
class Stance:
    """A `plan.handover.Standing` as it travels."""

    role: str = wire.text(_WORD)
    disk: str = wire.text(_WORD)
    connection: str = wire.text(_WORD)
    replication: str = wire.text(_WORD)
    changed_bytes: int = wire.whole(0, _MAX_VOLUME)
    identifiers: str = wire.text(IDENTIFIERS)
    """As drbdsetup prints them; empty where it is not attached, and where the two are connected."""
    turned: str = wire.checked(lambda v: v == "" or v in list(Turn))
    settled: bool = wire.checked(lambda v: isinstance(v, bool))
    leftovers: bool = wire.checked(lambda v: isinstance(v, bool))
    blocked: str = wire.text(_WORD)
    kept: str = wire.text(_WORD)
    hindered: str = wire.text(_WORD)


@dataclass(frozen=True, slots=True)
class Done:
    """It was done, or there was nothing to do."""


Answer = Greeting | MachineReport | Replicated | Enlarged | Stance | Done

ANSWERS: Mapping[type[Request], type[Answer]] = {
    Hello: Greeting,
    Enrol: Done,
    Report: MachineReport,
    Replicate: Replicated,
    Enlarge: Enlarged,
    Release: Done,
    Tune: Done,
    Rename: Done,
    Connect: Done,
    Stand: Stance,
    Take: Done,
    Share: Done,
    Unshare: Done,
}

_REQUESTS: dict[str, type[Any]] = {request.VERB: request for request in get_args(Request)}
_ERRORS: dict[int, type[OffsiteError]] = {
    ExitCode.REFUSED: Refused,
    ExitCode.PEER_UNREACHABLE: PeerUnreachable,
    ExitCode.HELD: Held,
}


def resource_of(site: Site, requester: str, name: str) -> Resource:
    """The resource that a peer's request names. Raises BadRequest for one that is not replicated with that peer."""
    resource = site.resources.get(name)
    if resource is None or resource.peer != requester:
        raise BadRequest(f"{requester} has no resource {name} here.")
    return resource


def shared_files(command: str) -> str | None:
    """Of which resource that command asks for the files; None for any other command."""
    word, _, name = command.partition(" ")
    return name if word == FILES and RESOURCE_NAME.match(name) else None


def encode_request(request: Request) -> str:
    return json.dumps({"version": VERSION, "verb": request.VERB, **dataclasses.asdict(request)})


def decode_request(text: str) -> Request:
    """Raises BadRequest."""
    message = _message(text)
    verb = message.pop("verb", None)
    if not isinstance(verb, str) or verb not in _REQUESTS:
        raise BadRequest("The request's verb is none that is known here.")
    request: Request = wire.decode(_REQUESTS[verb], message, verb)
    return request


def encode_answer(answer: Answer) -> str:
    return json.dumps({"version": VERSION, "answer": dataclasses.asdict(answer)})


def encode_error(error: OffsiteError) -> str:
    body = {"exit_code": int(error.exit_code), "message": error.message, "hint": error.hint}
    return json.dumps({"version": VERSION, "error": body})


def decode_answer(kind: type[_A], text: str) -> _A:
    """The answer of the expected kind. Raises the peer's own error, or BadRequest."""
    message = _message(text)
    if "error" in message:
        raise _error(message["error"])
    answer = message.pop("answer", None)
    if message or not isinstance(answer, dict):
        raise BadRequest("The peer's answer has not the form that is agreed on.")
    return wire.decode(kind, answer, "answer")


def _error(body: object) -> OffsiteError:
    form = {"exit_code": int, "message": str, "hint": str}
    if not isinstance(body, dict) or {key: type(value) for key, value in body.items()} != form:
        return BadRequest("The peer reports an error in a form that is not agreed on.")
    kind = _ERRORS.get(body["exit_code"], OffsiteError)
    return kind(f"The peer says: {printable(body['message'])}", printable(body["hint"]))


def printable(text: str) -> str:
    """A peer's text must not be able to steer our terminal."""
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in text[:2000])


def _message(text: str) -> dict[str, Any]:
    if len(text) > MAX_BYTES:
        raise BadRequest(f"The message is longer than {MAX_BYTES} bytes.")
    try:
        message = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadRequest("The message is not JSON.") from error
    if not isinstance(message, dict):
        raise BadRequest("The message is not a JSON object.")
    version = message.pop("version", None)
    if version != VERSION or type(version) is not int:
        raise BadRequest(
            f"The message is not of version {VERSION} of the protocol.",
            "Install the same version of drbd-offsite on both machines.",
        )
    return message
