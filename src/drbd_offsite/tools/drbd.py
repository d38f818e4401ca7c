"""drbdadm, drbdsetup, drbdmeta and /proc/drbd."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ..model import MetadataPlace
from ..observed import (
    ConnectionState,
    DiskState,
    DrbdConnection,
    DrbdResource,
    DrbdVolume,
    PeerDevice,
    Progress,
    ReplicationState,
    Role,
)

Argv = tuple[str, ...]

EVENTS: Argv = ("drbdsetup", "events2", "--now", "--statistics")
"""The one state dump that an 8.4 and a 9 module both give; 8.4 has no ``status --json``."""

CHANGES: Argv = ("drbdsetup", "events2")
"""The same, and then a line for every change."""

JUST_CREATED = 0x4
"""UUID_JUST_CREATED (drbd.h): metadata that has never described any data."""


NO_METADATA = (1, 10)
"""drbdmeta's exit codes for a place without metadata, and for one beyond the volume's end. 20 is a place that it
could not look at, which says nothing."""


def adm(command: str, resource: str, *options: str) -> Argv:
    """A drbdadm call, ``drbdadm COMMAND [OPTIONS] RESOURCE``."""
    return ("drbdadm", command, *options, resource)


def wipe_metadata(resource: str) -> Argv:
    """drbdadm takes no --force for wipe-md itself and hands what follows "--" on to drbdmeta."""
    return ("drbdadm", "--", "--force", "wipe-md", resource)


def skip_sync(resource: str) -> Argv:
    """Both copies, connected and with metadata that nothing was ever written under, count as equal and up to date.

    The kernel refuses where its own metadata are not new (drbd_nl.c, drbd_adm_new_c_uuid), and a peer whose are not
    does not get this far (drbd_receiver.c, drbd_uuid_compare). drbdsetup(8), "new-current-uuid"; 8.4's drbdadm wants
    the volume named.
    """
    return adm("new-current-uuid", f"{resource}/0", "--clear-bitmap")


def begin_generation(resource: str) -> Argv:
    """What is on a copy that is not connected counts as changed from here on (drbd_nl.c, drbd_adm_new_c_uuid)."""
    return adm("new-current-uuid", f"{resource}/0")


def verify(resource: str, start: int, stop: int | None) -> Argv:
    """Compare the copies from one sector (of 512 bytes) up to another one, or to the end.

    ``--start`` is always given: without it the 8.4 module goes on where the last verify had ended (drbd_nl.c,
    drbd_adm_start_ov). Its drbdadm knows neither option and hands on what follows "--".
    """
    until = () if stop is None else (f"--stop={stop}",)
    return ("drbdadm", "--", f"--start={start}", *until, "verify", resource)


def resync_after(minor: int, earlier: int | None) -> Argv:
    """Let an attached device wait for the resync of minor ``earlier``, or for none.

    Not by ``drbdadm disk-options``: that of 8.4 hands on nothing of the resource file (user/v84/drbdadm_main.c,
    adm_disk_options), and drbdsetup leaves what it is not given as it is.
    """
    return ("drbdsetup", "disk-options", f"{minor}", f"--resync-after={-1 if earlier is None else earlier}")


def resync_rate(minor: int, max_rate: int, min_rate: int, fill_target: int) -> Argv:
    """Limit the resyncs of an attached device, in KiB (a second); by drbdsetup for the same reason."""
    limits = (f"--c-max-rate={max_rate}k", f"--c-min-rate={min_rate}k", f"--c-fill-target={fill_target}k")
    return ("drbdsetup", "disk-options", f"{minor}", *limits)


def on_congestion(here: str, there: str, policy: str, fill: int) -> Argv:
    """``block`` or ``pull-ahead``, and from how many KiB on, for the connection between two addresses
    (``ipv4:ADDRESS:PORT``), as 8.4 has it.

    What drbdsetup is not given it leaves as it is, the shared secret too.
    """
    return ("drbdsetup", "net-options", here, there, f"--on-congestion={policy}", f"--congestion-fill={fill}k")


def meta(place: MetadataPlace, minor: int, *command: str) -> Argv:
    """A drbdmeta call on a metadata place that no configuration has to name.

    ``minor`` only has to be one that is not in use for something else (drbdmeta(8)).
    """
    index = "flex-external" if place.index is None else str(place.index)
    return ("drbdmeta", f"{minor}", "v08", place.volume.path, index, *command)


@dataclass(frozen=True, slots=True)
class Identifiers:
    """Generation identifiers of one copy, the history by which DRBD tells newer from diverged."""

    current: int
    bitmap: int
    history: tuple[int, ...]
    flags: tuple[str, ...] = ()

    @property
    def just_created(self) -> bool:
        return self.current == JUST_CREATED


def parse_identifiers(text: str) -> Identifiers | None:
    """``drbdmeta … get-gi``: ``CURRENT:BITMAP:HISTORY:HISTORY:flags…`` in hexadecimal; None if it is not that."""
    match = re.search(r"^([0-9A-F]{16}):([0-9A-F]{16}):([0-9A-F]{16}):([0-9A-F]{16}):([0-9:]*)", text, re.MULTILINE)
    if match is None:
        return None
    current, bitmap, *history = (int(match[i], 16) for i in range(1, 5))
    return Identifiers(current, bitmap, tuple(history), tuple(match[5].strip(":").split(":")))


@dataclass(slots=True)
class _Draft:
    role: Role = Role.UNKNOWN
    suspended: bool = False
    volumes: dict[int, DrbdVolume] = field(default_factory=dict)
    connections: dict[str, tuple[str, ConnectionState, Role]] = field(default_factory=dict)
    devices: dict[str, dict[int, PeerDevice]] = field(default_factory=dict)


def parse_events(lines: Iterable[str]) -> dict[str, DrbdResource]:
    """The objects that ``drbdsetup events2`` listed, by resource; kinds and keys we do not know are passed over.

    drbdsetup(8), "events2": ``exists KIND key:value …``; a value may itself hold colons.
    """
    drafts: dict[str, _Draft] = {}
    for line in lines:
        words = line.split()
        if len(words) < 3 or words[0] not in ("exists", "create", "change"):
            continue
        kind = words[1]
        keys = dict(word.split(":", 1) for word in words[2:] if ":" in word)
        if "name" not in keys:
            continue
        draft = drafts.setdefault(keys["name"], _Draft())
        if kind == "resource":
            draft.role = Role(keys.get("role", Role.UNKNOWN))
            draft.suspended = keys.get("suspended", "no") != "no"
        elif kind == "device":
            number = _number(keys.get("volume"))
            draft.volumes[number] = DrbdVolume(
                number,
                _number(keys.get("minor")),
                DiskState(keys.get("disk", DiskState.UNKNOWN)),
                _number(keys.get("size")) * 1024,
                _number(keys.get("written")) * 1024,
            )
        elif kind == "connection":
            state = ConnectionState(keys.get("connection", ConnectionState.UNCONNECTED))
            name = keys.get("conn-name") or keys.get("peer", "")
            draft.connections[_line_to(keys)] = (name, state, Role(keys.get("role", Role.UNKNOWN)))
        elif kind == "peer-device":
            number = _number(keys.get("volume"))
            draft.devices.setdefault(_line_to(keys), {})[number] = PeerDevice(
                number,
                ReplicationState(keys.get("replication", ReplicationState.OFF)),
                DiskState(keys.get("peer-disk", DiskState.UNKNOWN)),
                _number(keys.get("out-of-sync")) * 1024,
                keys.get("resync-suspended", "no") != "no",
                _percent(keys.get("done")),
                _number(keys.get("received")) * 1024,
                _number(keys.get("sent")) * 1024,
            )
    return {name: _resource(name, draft) for name, draft in drafts.items()}


@dataclass(frozen=True, slots=True)
class Change:
    """One line of `CHANGES`."""

    resource: str
    kind: str
    """``resource``, ``connection``, ``device``, ``peer-device`` …"""
    new: bool
    """False for what was there when the listing began."""
    keys: Mapping[str, str]


def parse_change(line: str) -> Change | None:
    """None for a line about no resource. A key that did not change may be left out by the kernel."""
    words = line.split()
    keys = dict(word.split(":", 1) for word in words[2:] if ":" in word)
    if len(words) < 3 or "name" not in keys:
        return None
    return Change(keys["name"], words[1], words[0] != "exists", keys)


def _line_to(keys: Mapping[str, str]) -> str:
    # DRBD 9 numbers its peers, 8.4 has one peer a resource and names the addresses.
    return keys.get("peer-node-id") or keys.get("peer") or keys.get("conn-name", "")


def _resource(name: str, draft: _Draft) -> DrbdResource:
    connections = tuple(
        DrbdConnection(peer, state, role, tuple(draft.devices.get(line, {}).values()))
        for line, (peer, state, role) in draft.connections.items()
    )
    return DrbdResource(name, draft.role, draft.suspended, tuple(draft.volumes.values()), connections)


def _number(text: str | None) -> int:
    return int(text) if text and text.isdecimal() else 0


def _percent(text: str | None) -> float | None:
    return float(text) if text and re.fullmatch(r"\d+(?:\.\d+)?", text) else None


@dataclass(frozen=True, slots=True)
class ProcDevice:
    """One device of /proc/drbd, in the words of DRBD 8."""

    minor: int
    connection: str
    role: Role
    peer_role: Role
    disk: DiskState
    peer_disk: DiskState
    counters: Mapping[str, str]
    progress: Progress | None = None

    @property
    def in_flight(self) -> int:
        """Requests of the application and of the peer that are not finished (drbd.conf(5), /proc/drbd's counters)."""
        return sum(_number(self.counters.get(key)) for key in ("ap", "pe", "ua"))

    @property
    def out_of_sync_bytes(self) -> int:
        return _number(self.counters.get("oos")) * 1024


@dataclass(frozen=True, slots=True)
class ProcDrbd:
    version: str
    devices: Mapping[int, ProcDevice]


def parse_proc(text: str) -> ProcDrbd:
    """/proc/drbd of DRBD 8.3, 8.4 and 9 (which prints its version alone)."""
    version = re.search(r"^version:\s*(\S+)", text, re.MULTILINE)
    devices = {}
    for block in re.split(r"^(?=\s*\d+: cs:)", text, flags=re.MULTILINE)[1:]:
        head = re.match(r"\s*(\d+): cs:(\w+)(?: ro:(\w+)/(\w+) ds:(\w+)/(\w+))?", block)
        if head is None:
            continue
        minor = int(head[1])
        devices[minor] = ProcDevice(
            minor,
            head[2],
            Role(head[3] or Role.UNKNOWN),
            Role(head[4] or Role.UNKNOWN),
            DiskState(head[5] or DiskState.UNKNOWN),
            DiskState(head[6] or DiskState.UNKNOWN),
            dict(re.findall(r"\b([a-z]{2,3}):(\w+)", block[head.end() :])),
            _progress(block),
        )
    return ProcDrbd(version[1] if version else "", devices)


def _progress(block: str) -> Progress | None:
    done = re.search(r"(?:sync'ed|verified):\s*(\d+(?:\.\d+)?)%", block)
    if done is None:
        return None
    finish = re.search(r"finish: (\d+):(\d+):(\d+)", block)
    speed = re.search(r"speed: (\d[\d,]*)", block)
    return Progress(
        float(done[1]),
        int(speed[1].replace(",", "")) * 1024 if speed else None,
        int(finish[1]) * 3600 + int(finish[2]) * 60 + int(finish[3]) if finish else None,
    )


DRY_ADJUST: Argv = ("drbdadm", "--dry-run", "adjust", "all")
"""What drbdadm would do to have the kernel run what the resource files say. It prints the shared secrets."""


@dataclass(frozen=True, slots=True)
class Adjustment:
    """One call of drbdsetup that `DRY_ADJUST` names."""

    command: str
    target: str
    """The first argument: a resource, a minor, or this side's address."""


def parse_adjustments(lines: Iterable[str]) -> tuple[Adjustment, ...]:
    """The output of `DRY_ADJUST`. What follows the first argument may hold a secret and is not kept."""
    found = (re.match(r"drbdsetup\S* (\S+) (\S+)", line) for line in lines)
    return tuple(Adjustment(match[1], match[2]) for match in found if match)
