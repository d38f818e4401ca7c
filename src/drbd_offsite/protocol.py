"""What two machines say to each other: one JSON request, one JSON answer, and nothing else.

The peer is not trusted. A message with a word too many, a word too few, a wrong type or a value out of
range is a BadRequest as a whole, and whoever reads it has changed nothing by then.
"""

import dataclasses
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, Self, TypeVar, get_args, get_origin, get_type_hints

from .errors import BadRequest, ExitCode, Held, OffsiteError, PeerUnreachable, Refused
from .model import RESOURCE_NAME, TUNABLE, MetadataPlace, Replica, Resource, Site, VolumeName

_A = TypeVar("_A")

VERSION = 1
MAX_BYTES = 65536
"""Of a request or an answer."""

_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
HOSTNAME = re.compile(rf"(?=.{{1,64}}\Z){_LABEL}(?:\.{_LABEL})*\Z")
"""At most HOST_NAME_MAX, and nothing that the configuration would refuse."""
TOKEN = re.compile(r"[0-9a-f]{64}\Z")
FINGERPRINT = re.compile(r"(?:(?:[0-9A-F]{2}:){31}[0-9A-F]{2}|[A-Za-z0-9+/]{43}=|)\Z")
SSH_PUBLIC_KEY = re.compile(r"ssh-ed25519 [A-Za-z0-9+/]{68}={0,2}\Z")
SEED_PATH = re.compile(r"(?:/[\x20-\x7e]{1,1000})?\Z")
TUNED = re.compile(r"[a-z0-9-]{1,20}\Z")
_WORD = re.compile(r"[\x20-\x7e]{0,200}\Z")
_MAX_VOLUME = 2**60


# Any, because a field's declared type is the checker's business and its value never this function's result.


def _checked(check: Callable[[Any], object], default: Any = dataclasses.MISSING) -> Any:
    """A default is for whoever makes a message; one that arrives has every field."""
    return dataclasses.field(metadata={"check": check}, default=default)


def _text(pattern: re.Pattern[str]) -> Any:
    return _checked(lambda v: isinstance(v, str) and bool(pattern.match(v)))


def _nested() -> Any:
    return dataclasses.field()


def _whole(low: int, high: int, default: Any = dataclasses.MISSING) -> Any:
    def check(value: object) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high

    return _checked(check, default)


def _noun(parse: Callable[[str], object]) -> Any:
    def check(value: object) -> bool:
        try:
            return isinstance(value, str) and bool(parse(value))
        except ValueError:
            return False

    return _checked(check)


def _instant(text: str) -> datetime:
    """Raises ValueError for anything but an instant with its zone."""
    instant = datetime.fromisoformat(text)
    if instant.tzinfo is None:
        raise ValueError(text)
    return instant


@dataclass(frozen=True, slots=True)
class Half:
    """A `Replica` as it travels."""

    volume: str = _noun(VolumeName.parse)
    metadata: str = _noun(MetadataPlace.parse)
    minor: int = _whole(0, 1048575)
    port: int = _whole(1, 65535)

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
    token: str = _text(TOKEN)
    hostname: str = _text(HOSTNAME)
    fingerprint: str = _text(FINGERPRINT)
    ssh_key: str = _text(SSH_PUBLIC_KEY)
    ssh_host_key: str = _text(SSH_PUBLIC_KEY)


@dataclass(frozen=True, slots=True)
class Report:
    """What a look at that machine shows."""

    VERB: ClassVar[str] = "report"


@dataclass(frozen=True, slots=True)
class Replicate:
    """Become the copy of a volume of ``size_bytes``: make the volume, the slot, the files; attach; connect."""

    VERB: ClassVar[str] = "replicate"
    name: str = _text(RESOURCE_NAME)
    size_bytes: int = _whole(1, _MAX_VOLUME)
    server: Half = _nested()
    overwrite_metadata: bool = _checked(lambda v: isinstance(v, bool))
    only_check: bool = _checked(lambda v: isinstance(v, bool))
    """Refuse what would be refused, and do nothing."""
    blank: bool = _checked(lambda v: isinstance(v, bool), default=False)
    """The server's volume holds nothing but zeros, and so shall the copy's."""
    seed: str = _checked(lambda v: isinstance(v, str) and bool(SEED_PATH.match(v)), default="")
    """A file there to fill the copy's volume from; empty for none."""


@dataclass(frozen=True, slots=True)
class Enlarge:
    """Make room for a resource of ``size_bytes``: enlarge the copy's volume, and metadata of its own."""

    VERB: ClassVar[str] = "enlarge"
    name: str = _text(RESOURCE_NAME)
    size_bytes: int = _whole(1, _MAX_VOLUME)
    only_check: bool = _checked(lambda v: isinstance(v, bool))
    """Refuse what would be refused, and do nothing."""


@dataclass(frozen=True, slots=True)
class Release:
    """The server replicates a volume no more: take the copy's resource down and forget it; the volume stays."""

    VERB: ClassVar[str] = "release"
    name: str = _text(RESOURCE_NAME)
    server: Half = _nested()
    """Tells this resource from an earlier or later one of that name."""
    delete_copy: bool = _checked(lambda v: isinstance(v, bool))
    """The volume goes too."""
    only_check: bool = _checked(lambda v: isinstance(v, bool))
    """Refuse what would be refused, and do nothing."""


@dataclass(frozen=True, slots=True)
class Tune:
    """Give a key of a resource another value, in the configuration, the rendered files and the kernel."""

    VERB: ClassVar[str] = "tune"
    name: str = _text(RESOURCE_NAME)
    key: str = _checked(lambda v: v in TUNABLE)
    value: str = _text(TUNED)
    only_check: bool = _checked(lambda v: isinstance(v, bool))
    """Refuse what would be refused, and do nothing."""


@dataclass(frozen=True, slots=True)
class Rename:
    """Let a resource have another name; its volume, slot, minor and port stay."""

    VERB: ClassVar[str] = "rename"
    name: str = _text(RESOURCE_NAME)
    new: str = _text(RESOURCE_NAME)
    server: Half = _nested()
    """Tells this resource from an earlier or later one of either name."""
    only_check: bool = _checked(lambda v: isinstance(v, bool))
    """Refuse what would be refused, and do nothing."""


@dataclass(frozen=True, slots=True)
class Connect:
    """Connect a resource unless a hold forbids it."""

    VERB: ClassVar[str] = "connect"
    name: str = _text(RESOURCE_NAME)


Request = Hello | Enrol | Report | Replicate | Enlarge | Release | Tune | Rename | Connect


@dataclass(frozen=True, slots=True)
class Greeting:
    hostname: str = _text(HOSTNAME)
    flavour: str = _text(_WORD)
    drbd_version: str = _text(_WORD)
    now: str = _noun(_instant)
    """By the clock there: ISO 8601, UTC."""


@dataclass(frozen=True, slots=True)
class ResourceReport:
    """One of the asking peer's resources as it is seen on the answering machine."""

    name: str = _text(RESOURCE_NAME)
    role: str = _text(_WORD)
    disk: str = _text(_WORD)
    connection: str = _text(_WORD)
    changed_bytes: int = _whole(0, _MAX_VOLUME)
    """Known to differ from the other copy; while not connected: written here since."""
    disconnected_since: str = _text(_WORD)
    """ISO 8601, UTC; empty while connected, and where it is not known."""


@dataclass(frozen=True, slots=True)
class MachineReport:
    hostname: str = _text(HOSTNAME)
    drbd_version: str = _text(_WORD)
    resources: list[ResourceReport] = _nested()


@dataclass(frozen=True, slots=True)
class Replicated:
    half: Half = _nested()
    size_bytes: int = _whole(1, _MAX_VOLUME)
    made: bool = _checked(lambda v: isinstance(v, bool), default=True)
    """False while the copy's volume is being prepared, which outlasts a request: the same one again goes on."""
    prepared_bytes: int = _whole(0, _MAX_VOLUME, default=0)
    """Of the copy's volume, from its start, what holds zeros or the seed, whichever was asked for."""


@dataclass(frozen=True, slots=True)
class Enlarged:
    size_bytes: int = _whole(1, _MAX_VOLUME)
    """Of the copy's volume, in all."""


@dataclass(frozen=True, slots=True)
class Done:
    """It was done, or there was nothing to do."""


Answer = Greeting | MachineReport | Replicated | Enlarged | Done

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


def encode_request(request: Request) -> str:
    return json.dumps({"version": VERSION, "verb": request.VERB, **dataclasses.asdict(request)})


def decode_request(text: str) -> Request:
    """Raises BadRequest."""
    message = _message(text)
    verb = message.pop("verb", None)
    if not isinstance(verb, str) or verb not in _REQUESTS:
        raise BadRequest("The request's verb is none that is known here.")
    request: Request = _decode(_REQUESTS[verb], message, verb)
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
    return _decode(kind, answer, "answer")


def _error(body: object) -> OffsiteError:
    form = {"exit_code": int, "message": str, "hint": str}
    if not isinstance(body, dict) or {key: type(value) for key, value in body.items()} != form:
        return BadRequest("The peer reports an error in a form that is not agreed on.")
    kind = _ERRORS.get(body["exit_code"], OffsiteError)
    return kind(f"The peer says: {_printable(body['message'])}", _printable(body["hint"]))


def _printable(text: str) -> str:
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


def _decode(kind: type[_A], fields: Mapping[str, Any], where: str) -> _A:
    hints = get_type_hints(kind)
    expected = dataclasses.fields(kind)  # type: ignore[arg-type]
    if fields.keys() != {field.name for field in expected}:
        raise BadRequest(f"{where}: the fields are not exactly the expected ones.")
    values = {}
    for field in expected:
        value, hint = fields[field.name], hints[field.name]
        nested = next((t for t in (hint, *get_args(hint)) if dataclasses.is_dataclass(t)), None)
        if get_origin(hint) is list:
            if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
                raise BadRequest(f"{where}: {field.name} is not a list of objects.")
            value = [_decode(nested, item, f"{where}.{field.name}") for item in value]  # type: ignore[arg-type]
        elif nested is not None:
            if isinstance(value, dict):
                value = _decode(nested, value, f"{where}.{field.name}")  # type: ignore[arg-type]
            elif value is not None or type(None) not in get_args(hint):
                raise BadRequest(f"{where}: {field.name} is not an object.")
        elif not field.metadata["check"](value):
            raise BadRequest(f"{where}: the value of {field.name} is not allowed.")
        values[field.name] = value
    return kind(**values)
