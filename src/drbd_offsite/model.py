"""The nouns: what a site is configured to be, and what a host was seen to be."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Self

RESOURCE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}\Z")
"""It goes into file names, unit names (which have no "+") and the kernel's handler command lines."""

METADATA_SLOT_BYTES = 128 * 2**20
"""Size of one slot of indexed external metadata (drbd.conf(5), ``meta-disk``)."""

MAX_INDEXED_BYTES = (METADATA_SLOT_BYTES - 36 * 2**10) * 8 * 4096
"""The largest volume that one such slot can describe, a little less than 4 TiB: a bit for 4 KiB, and the slot
holds 36 KiB beside the bitmap (drbd_int.h, DRBD_MAX_SECTORS_BM). The kernel cuts a larger one off silently."""


class KernelWord(StrEnum):
    """A word the kernel prints. One we do not know is kept as it is and equals none of ours."""

    @classmethod
    def _missing_(cls, value: object) -> Self:
        word = str.__new__(cls, str(value))
        word._name_ = "UNRECOGNISED"
        word._value_ = str(value)
        return word


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
    def resyncing(self) -> bool:
        """Blocks are on their way, or queued behind another resource's resync."""
        return self in (
            ReplicationState.SYNC_SOURCE,
            ReplicationState.SYNC_TARGET,
            ReplicationState.PAUSED_SYNC_SOURCE,
            ReplicationState.PAUSED_SYNC_TARGET,
        )


class Flavour(StrEnum):
    SERVER = "server"
    BACKUP = "backup"

    @property
    def other(self) -> "Flavour":
        return Flavour.BACKUP if self is Flavour.SERVER else Flavour.SERVER


class Forbidden(StrEnum):
    """What a hold may keep everything automatic from doing."""

    ATTACH = "attach"
    PROMOTE = "promote"
    CONNECT = "connect"


class TunnelMode(StrEnum):
    OPENVPN = "openvpn"
    STATIC_KEY = "static-key"
    WIREGUARD = "wireguard"
    NONE = "none"


@dataclass(frozen=True, slots=True, order=True)
class VolumeName:
    """A logical volume, written ``group/name`` as LVM does."""

    group: str
    name: str

    # lvm(8): letters, digits and + _ . -; not starting with a hyphen, and not . or ..
    PATTERN = re.compile(r"(?!-|\.{1,2}(?:/|\Z))([A-Za-z0-9+_.-]+)/(?!-|\.{1,2}\Z)([A-Za-z0-9+_.-]+)\Z")

    @classmethod
    def parse(cls, text: str) -> "VolumeName":
        """``/dev/local/test_a``, ``local/test_a`` or ``/dev/mapper/local-test_a``.

        Raises ValueError for anything else.
        """
        if text.startswith("/dev/mapper/"):
            # device-mapper doubles the hyphens of the two names and joins them by a single one.
            parts = re.split(r"(?<!-)-(?!-)", text.removeprefix("/dev/mapper/"))
            text = "/".join(part.replace("--", "-") for part in parts)
        match = cls.PATTERN.match(text.removeprefix("/dev/"))
        if match is None:
            raise ValueError(f"{text!r} is not a logical volume (expected GROUP/NAME)")
        return cls(match[1], match[2])

    @property
    def path(self) -> str:
        return f"/dev/{self.group}/{self.name}"

    def __str__(self) -> str:
        return f"{self.group}/{self.name}"


@dataclass(frozen=True, slots=True)
class MetadataPlace:
    """Where DRBD keeps its bitmap: a slot of a shared volume, or (no index) a volume of its own."""

    volume: VolumeName
    index: int | None

    @classmethod
    def parse(cls, text: str) -> "MetadataPlace":
        """``local/drbd_meta[3]`` or ``local/big_meta``. Raises ValueError for anything else."""
        match = re.match(r"([^\[\]]+)(?:\[(\d{1,4})\])?\Z", text)
        if match is None:
            raise ValueError(f"{text!r} is not a metadata place (expected GROUP/NAME[SLOT])")
        return cls(VolumeName.parse(match[1]), None if match[2] is None else int(match[2]))

    def __str__(self) -> str:
        return str(self.volume) if self.index is None else f"{self.volume}[{self.index}]"


@dataclass(frozen=True, slots=True)
class Replica:
    """One machine's half of a resource; minors, slots and ports may differ between the halves."""

    volume: VolumeName
    metadata: MetadataPlace
    minor: int
    port: int

    @property
    def device(self) -> str:
        return f"/dev/drbd{self.minor}"


@dataclass(frozen=True, slots=True)
class Resource:
    """A volume that is replicated: our half, the peer's half, and whose half that is."""

    name: str
    peer: str
    here: Replica
    there: Replica

    @property
    def by_res(self) -> str:
        """The link that drbd-utils' udev rule makes for volume 0."""
        return f"/dev/drbd/by-res/{self.name}/0"


@dataclass(frozen=True, slots=True)
class Tunnel:
    """The encrypted point-to-point line to one peer."""

    mode: TunnelMode
    device: str
    dials: Flavour
    reachable_as: str
    port: int
    server_address: str
    backup_address: str

    def address_of(self, flavour: Flavour) -> str:
        return self.server_address if flavour is Flavour.SERVER else self.backup_address


@dataclass(frozen=True, slots=True)
class Peer:
    """The other machine; ``hostname`` and ``fingerprint`` are empty until it is enrolled."""

    name: str
    hostname: str
    fingerprint: str
    link_speed: int
    """Mbit/s, of the slower direction."""
    tunnel: Tunnel

    @property
    def enrolled(self) -> bool:
        return bool(self.hostname)


@dataclass(frozen=True, slots=True)
class Site:
    """This machine's configuration, validated."""

    flavour: Flavour
    volume_group: str
    metadata_volume: str
    battery_backed_cache: bool
    alert_address: str
    service_port: int
    peers: Mapping[str, Peer]
    resources: Mapping[str, Resource]

    def peer_of(self, resource: Resource) -> Peer:
        return self.peers[resource.peer]

    def address_here(self, peer: Peer) -> str:
        return peer.tunnel.address_of(self.flavour)

    def address_there(self, peer: Peer) -> str:
        return peer.tunnel.address_of(self.flavour.other)

    @property
    def metadata_pool(self) -> VolumeName:
        """The volume whose slots hold the metadata of all but the largest resources."""
        return VolumeName(self.volume_group, self.metadata_volume)


# What was seen. Every sequence is in the order of the tool that printed it.


@dataclass(frozen=True, slots=True)
class DrbdVolume:
    number: int
    minor: int
    disk: DiskState
    size_bytes: int = 0
    """0 where it was not printed (no statistics, or nothing attached)."""


@dataclass(frozen=True, slots=True)
class PeerDevice:
    """What this machine knows of the peer's copy of one volume."""

    volume: int
    replication: ReplicationState
    disk: DiskState
    out_of_sync_bytes: int = 0
    resync_suspended: bool = False
    done_percent: float | None = None


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
    def peer_device(self) -> PeerDevice | None:
        connection = self.connection
        return connection.devices[0] if connection and connection.devices else None


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


@dataclass(frozen=True, slots=True)
class Hold:
    """A reason on disk why nothing automatic may attach, promote or connect a resource."""

    resource: str
    reason: str
    forbids: frozenset[Forbidden]
    since: str
    """ISO 8601, UTC; of the first, where several have set one."""
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


@dataclass(frozen=True, slots=True)
class Host:
    """One look at this machine. A decision is taken on one look and never on two."""

    hostname: str
    drbd_version: str
    """Of the loaded kernel module; empty where none is loaded."""
    volumes: Mapping[VolumeName, LogicalVolume]
    groups: Mapping[str, VolumeGroup]
    addresses: Mapping[str, tuple[str, ...]]
    """Addresses by interface; an interface that is down is not in it."""
    drbd: Mapping[str, DrbdResource]
    progress: Mapping[int, Progress]
    """By minor."""
    mounts: tuple[Mount, ...]
    holds: Mapping[str, Hold]
    operations: Mapping[str, Operation]
    """By key."""
    problems: tuple[str, ...] = ()
    """What could not be seen, and why."""

    def has_address(self, address: str) -> bool:
        """Whether one of the interfaces that are up has it; DRBD can bind no other."""
        return any(address in addresses for addresses in self.addresses.values())
