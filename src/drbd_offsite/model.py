"""The nouns: what a site is configured to be."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

RESOURCE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}\Z")
"""It goes into file names, unit names (which have no "+") and the kernel's handler command lines."""

METADATA_SLOT_BYTES = 128 * 2**20
"""Size of one slot of indexed external metadata (drbd.conf(5), ``meta-disk``)."""

MAX_INDEXED_BYTES = (METADATA_SLOT_BYTES - 36 * 2**10) * 8 * 4096
"""The largest volume that one such slot can describe, a little less than 4 TiB: a bit for 4 KiB, and the slot
holds 36 KiB beside the bitmap (drbd_int.h, DRBD_MAX_SECTORS_BM). The kernel cuts a larger one off silently."""

PRIORITIES = range(-100, 101)

RESYNC_RATES = range(250, 4 * 2**20 + 1)
"""KiB a second that DRBD takes as a limit (drbd_limits.h, C_MAX_RATE); a resource with another one is not read."""

LINK_SPEEDS = range(1, 100001)
"""Mbit/s."""

TUNABLE = ("priority", "resync_rate", "alerts")
"""Keys of a resource that ``set`` changes while it is in use, on both machines."""


class Flavour(StrEnum):
    SERVER = "server"
    BACKUP = "backup"

    @property
    def other(self) -> "Flavour":
        return Flavour.BACKUP if self is Flavour.SERVER else Flavour.SERVER


class TunnelMode(StrEnum):
    OPENVPN = "openvpn"
    STATIC_KEY = "static-key"
    WIREGUARD = "wireguard"
    NONE = "none"


class RestorePoint(StrEnum):
    """Whether a resync may overwrite the copy here without a snapshot of it."""

    REQUIRE = "require"
    PREFER = "prefer"
    NEVER = "never"


class Congestion(StrEnum):
    """What becomes of a write when the line is full (drbd.conf(5), ``on-congestion``)."""

    BLOCK = "block"
    """It waits."""
    PULL_AHEAD = "pull-ahead"
    """It is noted, and sent later."""


class Turn(StrEnum):
    """A step by which who serves a resource is changed, on one of the two machines."""

    YIELD = "yield"
    """Serve it no more: unmounted and Secondary."""
    RECEIVE = "receive"
    """Connect, to take what the other copy has more by its generation."""
    DISCARD = "discard"
    """Connect, to take the other copy in place of what was written here."""
    BEGIN = "begin"
    """Begin a generation, so that what is here counts as changed, and can be given."""
    CONNECT = "connect"
    """Connect, to give."""
    SERVE = "serve"
    """Primary, and mounted where it is to be."""
    SETTLE = "settle"
    """It is over: forget what was noted for it."""


class Alerts(StrEnum):
    """Which alerts of a resource are sent."""

    ALL = "all"
    FAULTS = "faults"
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
            parts = re.split(r"(?<!-)-(?!-)", text.removeprefix("/dev/mapper/"))
            text = "/".join(part.replace("--", "-") for part in parts)
        match = cls.PATTERN.match(text.removeprefix("/dev/"))
        if match is None:
            raise ValueError(f"{text[:200]!r} is not a logical volume (expected GROUP/NAME)")
        return cls(match[1], match[2])

    @property
    def path(self) -> str:
        return f"/dev/{self.group}/{self.name}"

    @property
    def mapper_path(self) -> str:
        """Device-mapper doubles the hyphens of the two names and joins them by a single one."""
        return "/dev/mapper/" + "-".join(part.replace("-", "--") for part in (self.group, self.name))

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
    priority: int = 0
    """One of `PRIORITIES`; of two that need a resync, the higher one has it first."""
    resync_rate: int = 0
    """One of `RESYNC_RATES`; 0 for what follows from the link's speed."""
    alerts: Alerts = Alerts.ALL
    mount: str = ""
    """Where a backup that serves it mounts it; empty for nowhere."""
    drill_command: tuple[str, ...] = ()
    """What the admin has a drill run; of this machine alone, and never the peer's to set."""

    @property
    def by_res(self) -> str:
        """The link that drbd-utils' udev rule makes for volume 0."""
        return f"/dev/drbd/by-res/{self.name}/0"

    @property
    def device_names(self) -> frozenset[str]:
        """The device, and the links that drbd-utils' udev rule makes from a file of ours."""
        return frozenset({self.here.device, self.by_res, f"/dev/drbd/by-disk/{self.here.volume}"})


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
    """One of `LINK_SPEEDS`, of the slower direction."""
    tunnel: Tunnel

    @property
    def enrolled(self) -> bool:
        return bool(self.hostname)


@dataclass(frozen=True, slots=True)
class Window:
    """One time that hours begin and end, by the clock on the wall."""

    opened: datetime
    closes: datetime
    reopens: datetime


DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


@dataclass(frozen=True, slots=True)
class Hours:
    """A part of the week, written ``mon-fri 08:00-18:00``; one that ends before it begins ends on the next day."""

    days: frozenset[int]
    """On which it begins; 0 is Monday, as in `datetime.weekday`."""
    begin: int
    """Minutes since midnight."""
    end: int

    PATTERN = re.compile(r"([a-z,-]+) (\d\d):([0-5]\d)-(\d\d):([0-5]\d)\Z")

    @classmethod
    def parse(cls, text: str) -> "Hours":
        """``sat,sun 00:00-24:00``. Raises ValueError for anything else."""
        match = cls.PATTERN.match(text)
        if match is None:
            raise ValueError(f"{text[:200]!r} is not a part of the week")
        days = frozenset(day for part in match[1].split(",") for day in _days(part))
        begin, end = (int(match[i]) * 60 + int(match[i + 1]) for i in (2, 4))
        if begin == end or begin >= 24 * 60 or end > 24 * 60:
            raise ValueError(f"{text[:200]!r}: no such hours")
        return cls(days, begin, end)

    def __contains__(self, at: datetime) -> bool:
        minute = at.hour * 60 + at.minute
        if self.begin < self.end:
            return at.weekday() in self.days and self.begin <= minute < self.end
        evening = at.weekday() in self.days and minute >= self.begin
        return evening or ((at.weekday() - 1) % 7 in self.days and minute < self.end)

    def around(self, at: datetime) -> Window | None:
        """When those have begun that are now, when they end, and when the next begin; None outside of them."""
        midnight = at.replace(hour=0, minute=0, second=0, microsecond=0)
        days = (midnight + timedelta(days=day) for day in range(-1, 8))
        opening = [day + timedelta(minutes=self.begin) for day in days if day.weekday() in self.days]
        lasting = timedelta(minutes=(self.end - self.begin) % (24 * 60) or 24 * 60)
        opened = max((begin for begin in opening if begin <= at < begin + lasting), default=None)
        if opened is None:
            return None
        return Window(opened, opened + lasting, min(begin for begin in opening if begin > at))


def _days(part: str) -> tuple[int, ...]:
    """``mon``, or ``fri-mon``, which are four. Raises ValueError."""
    first, _, last = part.partition("-")
    begin, end = DAYS.index(first), DAYS.index(last or first)
    return tuple((begin + day) % 7 for day in range((end - begin) % 7 + 1))


@dataclass(frozen=True, slots=True)
class Verification:
    """How the copies are compared by and by, with nobody asking for it."""

    days: int
    """In so many all of a volume; 0 for never."""
    hours: Hours
    rate: int
    """MiB a second that may be read of each copy."""


@dataclass(frozen=True, slots=True)
class Site:
    """This machine's configuration, validated."""

    flavour: Flavour
    volume_group: str
    metadata_volume: str
    battery_backed_cache: bool
    alert_address: str
    unprotected_minutes: int
    age_minutes: int
    """0 where nobody is told of a copy's age."""
    remind_hours: int
    silence_hours: int
    resync_snapshot: RestorePoint
    first_sync: Congestion
    keep_discarded_days: int
    """0 for ever."""
    drill_days: int
    """0 where nobody is told of drills that are overdue."""
    drill_minutes: int
    boot_wait: float
    """Seconds; infinite for ever."""
    service_port: int
    schedule: tuple[tuple[Hours, int], ...]
    """The share of each line, in percent, that resyncs may take; the first that fits counts."""
    verify: Verification
    peers: Mapping[str, Peer]
    resources: Mapping[str, Resource]

    def line_share(self, at: datetime) -> int:
        """Percent of each line that resyncs may take at that time of the week."""
        return next((percent for hours, percent in self.schedule if at in hours), 100)

    def peer_of(self, resource: Resource) -> Peer:
        return self.peers[resource.peer]

    def address_here(self, peer: Peer) -> str:
        return peer.tunnel.address_of(self.flavour)

    def address_there(self, peer: Peer) -> str:
        return peer.tunnel.address_of(self.flavour.other)

    @property
    def volumes(self) -> frozenset[VolumeName]:
        """Every volume here that a resource needs."""
        halves = [resource.here for resource in self.resources.values()]
        return frozenset(volume for half in halves for volume in (half.volume, half.metadata.volume))

    @property
    def metadata_pool(self) -> VolumeName:
        """The volume whose slots hold the metadata of all but the largest resources."""
        return VolumeName(self.volume_group, self.metadata_volume)
