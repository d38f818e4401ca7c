"""What was seen: of DRBD in the kernel's own words, of LVM, and of our own notes on disk.

Every sequence is in the order of the tool that printed it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Self

from .model import VolumeName
from .remembered import LastDrill, Overload, Rates, Round

DRBD_MAJOR = 147
"""Block major of DRBD's devices (Documentation/admin-guide/devices.txt, and drbd.h)."""


class KernelWord(StrEnum):
    """A word the kernel prints. One we do not know is kept as it is and equals none of ours."""

    @classmethod
    def _missing_(cls, value: object) -> Self:
        word = str.__new__(cls, str(value))
        word._name_ = "UNRECOGNISED"
        word._value_ = str(value)
        return word

    def __deepcopy__(self, _: object) -> Self:
        """As members of newer Pythons' enumerations: asdict copies, and would look for a member of that name."""
        return self


class Role(KernelWord):
    PRIMARY = "Primary"
    SECONDARY = "Secondary"
    UNKNOWN = "Unknown"


class DiskState(KernelWord):
    DISKLESS = "Diskless"
    ATTACHING = "Attaching"
    DETACHING = "Detaching"
    FAILED = "Failed"
    NEGOTIATING = "Negotiating"
    INCONSISTENT = "Inconsistent"
    OUTDATED = "Outdated"
    UNKNOWN = "DUnknown"
    CONSISTENT = "Consistent"
    UP_TO_DATE = "UpToDate"


class ConnectionState(KernelWord):
    STANDALONE = "StandAlone"
    DISCONNECTING = "Disconnecting"
    UNCONNECTED = "Unconnected"
    TIMEOUT = "Timeout"
    BROKEN_PIPE = "BrokenPipe"
    NETWORK_FAILURE = "NetworkFailure"
    PROTOCOL_ERROR = "ProtocolError"
    TEAR_DOWN = "TearDown"
    CONNECTING = "Connecting"
    CONNECTED = "Connected"


class ReplicationState(KernelWord):
    OFF = "Off"
    ESTABLISHED = "Established"
    STARTING_SYNC_SOURCE = "StartingSyncS"
    STARTING_SYNC_TARGET = "StartingSyncT"
    BITMAP_SOURCE = "WFBitMapS"
    BITMAP_TARGET = "WFBitMapT"
    WAITING_FOR_SYNC_UUID = "WFSyncUUID"
    SYNC_SOURCE = "SyncSource"
    SYNC_TARGET = "SyncTarget"
    PAUSED_SYNC_SOURCE = "PausedSyncS"
    PAUSED_SYNC_TARGET = "PausedSyncT"
    VERIFY_SOURCE = "VerifyS"
    VERIFY_TARGET = "VerifyT"
    AHEAD = "Ahead"
    BEHIND = "Behind"

    @property
    def sent_at_once(self) -> bool:
        """What is written is on its way to the other copy when it is acknowledged; a verify changes nothing of that."""
        return self in (
            ReplicationState.ESTABLISHED,
            ReplicationState.VERIFY_SOURCE,
            ReplicationState.VERIFY_TARGET,
        )

    @property
    def resyncing(self) -> bool:
        """Blocks are on their way, or queued behind another resource's resync."""
        return self in (
            ReplicationState.SYNC_SOURCE,
            ReplicationState.SYNC_TARGET,
            ReplicationState.PAUSED_SYNC_SOURCE,
            ReplicationState.PAUSED_SYNC_TARGET,
        )

    @property
    def one_is_ahead(self) -> bool:
        """What is written is noted and not sent, for the line is too slow for it (``on-congestion pull-ahead``)."""
        return self in (ReplicationState.AHEAD, ReplicationState.BEHIND)


class Forbidden(StrEnum):
    """What a hold may keep everything automatic from doing."""

    ATTACH = "attach"
    PROMOTE = "promote"
    CONNECT = "connect"


@dataclass(frozen=True, slots=True)
class DrbdVolume:
    number: int
    minor: int
    disk: DiskState
    size_bytes: int = 0
    """0 where it was not printed (no statistics, or nothing attached)."""
    written_bytes: int = 0
    """Since it was attached, be it by its users or for the peer."""


@dataclass(frozen=True, slots=True)
class PeerDevice:
    """What this machine knows of the peer's copy of one volume."""

    volume: int
    replication: ReplicationState
    disk: DiskState
    out_of_sync_bytes: int = 0
    resync_suspended: bool = False
    done_percent: float | None = None
    received_bytes: int = 0
    sent_bytes: int = 0
    """Of the 8.4 module both count from when the volume was attached (drbd_nl.c, drbd_adm_attach)."""


@dataclass(frozen=True, slots=True)
class DrbdConnection:
    peer: str
    """The peer's host name, or its address where the kernel knows no name."""
    state: ConnectionState
    role: Role
    devices: tuple[PeerDevice, ...] = ()


@dataclass(frozen=True, slots=True)
class DrbdResource:
    name: str
    role: Role
    suspended: bool = False
    volumes: tuple[DrbdVolume, ...] = ()
    connections: tuple[DrbdConnection, ...] = ()

    @property
    def disk(self) -> DiskState:
        """Of volume 0, the only one that our resources have."""
        return next((v.disk for v in self.volumes if v.number == 0), DiskState.DISKLESS)

    @property
    def connection(self) -> DrbdConnection | None:
        return self.connections[0] if self.connections else None

    @property
    def connected(self) -> bool:
        return self.connection is not None and self.connection.state is ConnectionState.CONNECTED

    @property
    def standalone(self) -> bool:
        """There is no connection, nor an attempt at one; 8.4 goes on listing one that has ended."""
        return self.connection is None or self.connection.state is ConnectionState.STANDALONE

    @property
    def peer_device(self) -> PeerDevice | None:
        connection = self.connection
        return connection.devices[0] if connection and connection.devices else None

    @property
    def catching_up(self) -> bool:
        """The peer is connected and lacks something that is sent by itself: waiting has a point."""
        device = self.peer_device
        return (
            self.connected
            and device is not None
            and (device.replication is not ReplicationState.ESTABLISHED or device.disk is not DiskState.UP_TO_DATE)
        )


@dataclass(frozen=True, slots=True)
class Progress:
    """Speed and estimate of a running resync, which only DRBD 8.4's /proc/drbd prints."""

    done_percent: float
    speed_bytes: int | None
    """Bytes a second."""
    finish_seconds: int | None


@dataclass(frozen=True, slots=True)
class LogicalVolume:
    name: VolumeName
    size_bytes: int
    active: bool
    open: bool
    devno: tuple[int, int] | None
    """Major and minor of the active device."""
    tags: frozenset[str] = frozenset()
    origin: str = ""
    """Of a snapshot: the name of the volume, in the same group, that it is one of."""
    pool: str = ""
    """Of a thin volume: the name of its pool."""
    data_percent: float | None = None
    """How full a snapshot or a pool is; 100 for a snapshot that has overflowed and is worth nothing."""


@dataclass(frozen=True, slots=True)
class VolumeGroup:
    name: str
    size_bytes: int
    free_bytes: int
    extent_bytes: int


@dataclass(frozen=True, slots=True)
class Mount:
    devno: tuple[int, int]
    target: str
    fstype: str
    source: str
    root: str = "/"
    """What of the filesystem is seen there."""


@dataclass(frozen=True, slots=True)
class Hold:
    """A reason on disk why nothing automatic may attach, promote or connect a resource.

    One that forbids nothing is a remark: something that a person has to know until it is over.
    """

    resource: str
    reason: str
    forbids: frozenset[Forbidden]
    since: str
    """ISO 8601, UTC."""
    set_by: str


@dataclass(frozen=True, slots=True)
class Operation:
    """A multi-step operation that was begun and has not ended."""

    verb: str
    resource: str
    since: str
    parameters: Mapping[str, object] = field(default_factory=dict)

    @property
    def key(self) -> str:
        return f"{self.verb}-{self.resource}"

    @property
    def finished_by(self) -> str:
        """The verb that a person runs again; the backup's own are halves of the server's."""
        by = {"replicate": "add", "release": "remove", "serve": "up", "link-speed": "measure-link --apply"}
        return by.get(self.verb, self.verb)

    @property
    def finished_where(self) -> str:
        """`` on the server``, or empty where it is the machine that it was begun on."""
        return "" if self.verb in ("adopt", "join", "failover", "serve") else " on the server"


@dataclass(frozen=True, slots=True)
class Consultation:
    """The question to a peer whether it serves a resource, before this machine does."""

    seconds: float
    """How long ago it was asked first."""
    free: bool
    """It has said, a moment ago, that it does not."""


@dataclass(frozen=True, slots=True)
class Host:
    """One look at this machine. A decision is taken on one look and never on two."""

    hostname: str
    drbd_version: str
    """Of the loaded kernel module; empty where none is loaded."""
    active: frozenset[VolumeName]
    """Of the site's volumes, those that have a device."""
    addresses: frozenset[str]
    """Of the site's own addresses in its tunnels, those that are there: DRBD can bind no other."""
    drbd: Mapping[str, DrbdResource]
    progress: Mapping[int, Progress]
    """By minor."""
    in_flight: Mapping[int, int]
    """Requests that are not finished, by minor."""
    mounts: tuple[Mount, ...]
    holds: Mapping[str, tuple[Hold, ...]]
    operations: Mapping[str, Operation]
    """By key."""
    serving: frozenset[str] = frozenset()
    """Resources that this machine serves though it is the backup, until it is told otherwise."""
    consulted: Mapping[str, "Consultation"] = field(default_factory=dict)
    """By resource; those of which the peer is being asked whether it serves them."""
    drills: Mapping[str, LastDrill] = field(default_factory=dict)
    """By resource; on the backup, those that the watcher has seen."""
    rounds: Mapping[str, Round] = field(default_factory=dict)
    """By resource; those that are compared from this machine."""
    complete: Mapping[str, str] = field(default_factory=dict)
    """By resource: up to when the copy that is not served from has everything, as far as it was told (plan/marks.py).
    ISO 8601, UTC, by the clock of the machine that serves.
    """
    ages: Mapping[str, float] = field(default_factory=dict)
    """`complete`, as seconds before this look."""
    rates: Mapping[str, Rates] = field(default_factory=dict)
    """By resource; those of which they were found a moment ago."""
    overloads: Mapping[str, Overload] = field(default_factory=dict)
    """By resource; until the copy has caught up."""
    problems: tuple[str, ...] = ()
    """What could not be seen, and why."""
    blind: bool = False
    """DRBD's state could not be seen, and ``drbd`` is empty for that reason."""
    volumes: Mapping[VolumeName, LogicalVolume] = field(default_factory=dict)
    """Every volume; empty where LVM was not asked."""
    groups: Mapping[str, VolumeGroup] = field(default_factory=dict)
    """Every group; empty where LVM was not asked."""

    def mounted_at(self, minor: int) -> tuple[str, ...]:
        """Where a DRBD device is mounted, in the order of the mounts."""
        return tuple(mount.target for mount in self.mounts if mount.devno == (DRBD_MAJOR, minor))

    def mounted_whole_at(self, minor: int) -> tuple[str, ...]:
        """The same, without those that show a part of it only."""
        return tuple(mount.target for mount in self.mounts if mount.devno == (DRBD_MAJOR, minor) and mount.root == "/")

    def attached(self, resource: str) -> bool:
        """Whether the kernel has the resource with its volume."""
        seen = self.drbd.get(resource)
        return seen is not None and seen.disk is not DiskState.DISKLESS

    def held(self, resource: str, step: Forbidden) -> Hold | None:
        """The first hold that forbids a step."""
        return next((hold for hold in self.holds.get(resource, ()) if step in hold.forbids), None)
