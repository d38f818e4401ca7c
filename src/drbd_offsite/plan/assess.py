"""What the state of a resource means for its data, in plain words. Pure; ``status`` prints it."""

from dataclasses import dataclass
from enum import IntEnum

from ..errors import ExitCode
from ..model import Flavour, Resource, Site
from ..observed import ConnectionState, DiskState, DrbdResource, Hold, Host, PeerDevice, ReplicationState, Role
from . import drilled


class Level(IntEnum):
    """How much a person should care, in rising order."""

    OK = 0
    CATCHING_UP = 1
    HELD = 2
    UNPROTECTED = 3
    BROKEN = 4

    @property
    def exit_code(self) -> ExitCode:
        match self:
            case Level.OK | Level.CATCHING_UP:
                return ExitCode.DONE
            case Level.HELD:
                return ExitCode.HELD
            case Level.UNPROTECTED:
                return ExitCode.PEER_UNREACHABLE
            case Level.BROKEN:
                return ExitCode.FAILED


@dataclass(frozen=True, slots=True)
class Assessment:
    resource: str
    level: Level
    sentences: tuple[str, ...]
    """The most important first."""


ASKED_FOR = frozenset({"disconnect", "down", "hold", "handed-over"})
"""Holds that a person has set, and that are no fault."""

_WAY_ON = {
    "split-brain": (
        "Decide which copy is to be kept. On the machine whose changes may go: "
        "drbd-offsite connect --discard-here {0}; then on the other: drbd-offsite connect {0}."
    ),
    "local-io-error": "See the kernel's log for the disk. When it is sound again: drbd-offsite up {0}.",
    "failover": "Nothing is replicated meanwhile. When the server is back: drbd-offsite failback {0}.",
    "handed-over": "To serve it from here again: drbd-offsite failback {0}.",
    "taken-over": (
        "To get the newer data back here: drbd-offsite failback {0}. The backup serves until both are the same."
    ),
    "returning": (
        "When both copies are up to date, stop using it on the backup (umount it, drbdadm secondary {0}): it is then "
        "served from here by itself."
    ),
    "restore-point": "Give its volume group more room (vgextend); drbd-offsite connect {0} tries again.",
    "out-of-sync": (
        "Nothing has to be done: they are sent to the backup at a quiet moment and then compared again, and this "
        "goes when they are the same. drbd-offsite events {0} has the sectors."
    ),
    "suspicious": (
        "Each time they had been sent again. That points at bad memory, a bad disk or a bad controller on one of the "
        "two machines, or at software that changes what it is writing (swap, some databases with direct I/O), which is "
        "harmless. See smartctl -a and journalctl -k on both, and test their memory (memtest86+). By themselves "
        "they are not compared again: drbd-offsite verify {0} does that, and this goes when they are the same; "
        "drbd-offsite verify --forget {0} drops it."
    ),
    "disconnect": "To end that: drbd-offsite connect {0}.",
    "down": "To end that: drbd-offsite up {0}.",
    "hold": "When the work is done: drbd-offsite up {0}.",
}


def explain(hold: Hold) -> list[str]:
    """What a hold or a remark says, what it means, and what to do about it."""
    reason = hold.reason[:1].upper() + hold.reason[1:]
    since = f" (since {hold.since})" if hold.since else ""
    words = " or ".join(sorted(hold.forbids))
    sentences = [f"{reason}{since}."]
    if words:
        sentences.append(f"Held: nothing will {words} it by itself.")
    if way_on := _WAY_ON.get(hold.set_by):
        sentences.append(way_on.format(hold.resource))
    return sentences


_WORTH = {
    DiskState.UP_TO_DATE: "up to date",
    DiskState.CONSISTENT: "consistent; whether it is the newest is not known while the peer is away",
    DiskState.OUTDATED: "consistent, but older than the other",
    DiskState.INCONSISTENT: "not usable before a sync has been completed",
    DiskState.DISKLESS: "detached from its volume",
    DiskState.FAILED: "failed with an I/O error",
    DiskState.UNKNOWN: "not visible from here",
}


def worth(disk: DiskState) -> str:
    """What a copy in that state is good for; a state we do not know is shown as it is."""
    return f"{_WORTH[disk]} ({disk})" if disk in _WORTH else f"in the state {disk}"


def assess(site: Site, host: Host, resource: Resource) -> Assessment:
    """One resource as this machine sees it."""
    seen = host.drbd.get(resource.name)
    sentences: list[str] = []
    level = Level.OK
    for operation in host.operations.values():
        if operation.resource == resource.name:
            level = Level.BROKEN
            sentences.append(
                f"{operation.verb} was begun at {operation.since} and is not finished: run {operation.finished_by} "
                f"again{operation.finished_where}, it goes on where it was."
            )
    holds = host.holds.get(resource.name, ())
    for hold in holds:
        level = max(level, Level.HELD if hold.set_by in ASKED_FOR else Level.BROKEN)
        sentences += explain(hold)
    if drill := host.drills.get(resource.name):
        for trouble in drilled.troubles(site, resource.name, drill):
            level = Level.BROKEN
            sentences += [trouble.happened, trouble.means, trouble.to_do]
    if seen is None:
        down = "Whether it is up cannot be seen." if host.blind else "It is not up: nothing is served or replicated."
        return Assessment(resource.name, Level.BROKEN, (*sentences, down))
    here, there = _copies(site, seen)
    level = max(level, here)
    if here is Level.BROKEN:
        gone = seen.disk in (DiskState.DISKLESS, DiskState.FAILED)
        sentences.append(
            f"The copy here is {worth(seen.disk)}." if gone else f"It is not served: its role here is {seen.role}."
        )
    if site.flavour is Flavour.BACKUP and seen.role is Role.PRIMARY:
        sentences.append("It is served from this machine.")
    device = seen.peer_device
    sentences += _connection(site, host, resource, seen)
    if not seen.connected:
        level = max(level, Level.UNPROTECTED) if not holds else level
    elif device and device.replication is ReplicationState.ESTABLISHED and device.out_of_sync_bytes:
        level = Level.BROKEN
    elif there is not Level.OK or (device and device.replication is not ReplicationState.ESTABLISHED):
        level = max(level, Level.CATCHING_UP)
    return Assessment(resource.name, level, tuple(sentences))


def _copies(site: Site, seen: DrbdResource) -> tuple[Level, Level]:
    """How bad the state of the copy here is, and that of the peer's."""
    here = Level.OK
    there_too = seen.connection is not None and seen.connection.role is Role.PRIMARY
    serving = site.flavour is Flavour.BACKUP or seen.role is Role.PRIMARY or there_too
    if seen.disk in (DiskState.DISKLESS, DiskState.FAILED) or not serving:
        here = Level.BROKEN
    elif seen.disk is not DiskState.UP_TO_DATE:
        here = Level.CATCHING_UP
    device = seen.peer_device
    there = Level.OK if device and device.disk is DiskState.UP_TO_DATE else Level.UNPROTECTED
    return here, there


def _connection(site: Site, host: Host, resource: Resource, seen: DrbdResource) -> list[str]:
    peer = site.peer_of(resource)
    device, connection = seen.peer_device, seen.connection
    state = connection.state if connection else ConnectionState.STANDALONE
    if state is ConnectionState.CONNECTED:
        return [_replication(host, seen, device)] if device else []
    lines = []
    address = site.address_here(peer)
    if address not in host.addresses:
        lines.append(f"The tunnel is down: {peer.tunnel.device} has no address {address}.")
    elif state is ConnectionState.STANDALONE:
        lines.append("Not connected, and not trying to (StandAlone).")
    else:
        lines.append(f"Waiting for {peer.name} ({state}).")
    if device and device.out_of_sync_bytes:
        lines.append(f"{amount(device.out_of_sync_bytes)} changed since; they are noted and will be sent.")
    else:
        lines.append("What changes meanwhile is noted and will be sent.")
    return lines


def _replication(host: Host, seen: DrbdResource, device: PeerDevice) -> str:
    comparing = device.replication in (ReplicationState.VERIFY_SOURCE, ReplicationState.VERIFY_TARGET)
    left = f"{amount(device.out_of_sync_bytes)} {'differ so far' if comparing else 'left'}"
    progress = host.progress.get(seen.volumes[0].minor) if seen.volumes else None
    if progress is not None:
        left += f", {progress.done_percent:.0f} % done"
        if progress.speed_bytes:
            left += f", {amount(progress.speed_bytes)}/s"
        if progress.finish_seconds is not None:
            left += f", about {duration(progress.finish_seconds)} to go"
    overload = host.overloads.get(seen.name)
    match device.replication:
        case state if overload and overload.lasting and (state.resyncing or state.one_is_ahead):
            return (
                f"More is written than the line takes: the server has gone ahead of the backup {overload.turns} times "
                f"since {overload.since}. The backup catches up when less is written: {left}."
            )
        case ReplicationState.ESTABLISHED if device.out_of_sync_bytes:
            return (
                f"{amount(device.out_of_sync_bytes)} are known to differ between the copies; what is written now is "
                "replicated. They are sent by themselves at a quiet moment."
            )
        case ReplicationState.ESTABLISHED if DiskState.UP_TO_DATE is seen.disk is device.disk:
            return "Both copies are up to date; every write is replicated."
        case ReplicationState.ESTABLISHED:
            return f"Connected; the copy here is {seen.disk}, the other one {device.disk}."
        case ReplicationState.SYNC_SOURCE | ReplicationState.SYNC_TARGET:
            return f"Syncing: {left}."
        case ReplicationState.PAUSED_SYNC_SOURCE | ReplicationState.PAUSED_SYNC_TARGET:
            return f"The sync waits for another resource's: {left}."
        case state if state.one_is_ahead:
            return f"The link is too slow for what is being written; the backup catches up later: {left}."
        case ReplicationState.VERIFY_SOURCE | ReplicationState.VERIFY_TARGET:
            return f"Both copies are being compared: {left}."
        case other:
            return f"Connected, {other}: {left}."


def duration(seconds: int) -> str:
    """``seconds`` in the largest units that matter."""
    if seconds < 120:
        return f"{seconds} s"
    if seconds < 7200:
        return f"{seconds // 60} min"
    return f"{seconds // 3600} h {seconds % 3600 // 60} min"


def amount(count: int) -> str:
    """A number of bytes for a person."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"
