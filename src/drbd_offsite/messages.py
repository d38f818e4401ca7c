"""The words that two machines have for each other: every request and its answer, and what each field may hold."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

from . import wire
from .model import LINK_SPEEDS, RESOURCE_NAME, TUNABLE, MetadataPlace, Replica, Turn, VolumeName

_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
HOSTNAME = re.compile(rf"(?=.{{1,64}}\Z){_LABEL}(?:\.{_LABEL})*\Z")
"""At most HOST_NAME_MAX, and nothing that the configuration would refuse."""
TOKEN = re.compile(r"[0-9a-f]{64}\Z")
FINGERPRINT = re.compile(r"(?:(?:[0-9A-F]{2}:){31}[0-9A-F]{2}|[A-Za-z0-9+/]{43}=|)\Z")
SSH_PUBLIC_KEY = re.compile(r"ssh-ed25519 [A-Za-z0-9+/]{68}={0,2}\Z")
SEED_PATH = re.compile(r"(?:/[\x20-\x7e]{1,1000})?\Z")
TUNED = re.compile(r"[a-z0-9-]{1,20}\Z")
IDENTIFIERS = re.compile(r"(?:[0-9A-F]{16}(?::[0-9A-F]{16}){3}:[0-9:]{0,40})?\Z")
ENDPOINT = re.compile(r"[0-9a-fA-F.:\[\]]{3,60}\Z")
_WORD = re.compile(r"[\x20-\x7e]{0,200}\Z")
_MAX_VOLUME = 2**60
_MAX_STREAM = 2**64


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
class SetSpeed:
    """Give the line to the asking peer another speed, in the configuration, the rendered files and the kernel."""

    VERB: ClassVar[str] = "set-speed"
    link_speed: int = wire.whole(LINK_SPEEDS[0], LINK_SPEEDS[-1])
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


@dataclass(frozen=True, slots=True)
class Place:
    """A `plan.marks.Place` as it travels."""

    local: str = wire.text(ENDPOINT)
    remote: str = wire.text(ENDPOINT)
    written_bytes: int = wire.whole(0, _MAX_STREAM)


@dataclass(frozen=True, slots=True)
class Mark:
    """A `plan.marks.Mark` as it travels."""

    resource: str = wire.text(RESOURCE_NAME)
    at: str = wire.noun(wire.instant)
    places: list[Place] = wire.nested()


@dataclass(frozen=True, slots=True)
class Marks:
    """Which of these marks has that machine passed?"""

    VERB: ClassVar[str] = "marks"
    marks: list[Mark] = wire.nested()
    """Oldest first."""


Request = (
    Hello
    | Enrol
    | Report
    | Replicate
    | Enlarge
    | Release
    | Tune
    | SetSpeed
    | Rename
    | Connect
    | Stand
    | Take
    | Share
    | Unshare
    | Marks
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
class Complete:
    """That machine has all that was acknowledged before ``at``."""

    resource: str = wire.text(RESOURCE_NAME)
    at: str = wire.noun(wire.instant)


@dataclass(frozen=True, slots=True)
class Passed:
    """Of each resource the last mark that was passed; of one that has passed none, nothing."""

    complete: list[Complete] = wire.nested()


@dataclass(frozen=True, slots=True)
class Agreed:
    """That machine takes part in measuring the line, within bounds of its own (`protocol.TAKE`, `protocol.GIVE`)."""


@dataclass(frozen=True, slots=True)
class Arrived:
    """An `operations.flow.Counted` as it travels."""

    size_bytes: int = wire.whole(1, _MAX_VOLUME)
    microseconds: int = wire.whole(1, 10**9)


@dataclass(frozen=True, slots=True)
class Done:
    """It was done, or there was nothing to do."""


Answer = Greeting | MachineReport | Replicated | Enlarged | Stance | Passed | Agreed | Arrived | Done

ANSWERS: Mapping[type[Request], type[Answer]] = {
    Hello: Greeting,
    Enrol: Done,
    Report: MachineReport,
    Replicate: Replicated,
    Enlarge: Enlarged,
    Release: Done,
    Tune: Done,
    SetSpeed: Done,
    Rename: Done,
    Connect: Done,
    Stand: Stance,
    Take: Done,
    Share: Done,
    Unshare: Done,
    Marks: Passed,
}
