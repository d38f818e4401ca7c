"""What the state of a resource means for its data, in plain words. Pure; ``status`` prints it."""

from dataclasses import dataclass
from enum import IntEnum

from ..errors import ExitCode
from ..model import (
    ConnectionState,
    DiskState,
    DrbdResource,
    Flavour,
    Host,
    PeerDevice,
    ReplicationState,
    Resource,
    Role,
    Site,
)


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
                f"{operation.verb} was begun at {operation.since} and is not finished: run it again on the "
                f"{Flavour.SERVER}, it goes on where it was."
            )
    hold = host.holds.get(resource.name)
    if hold is not None:
        level = max(level, Level.HELD)
        words = " or ".join(sorted(hold.forbids))
        sentences.append(f"Held since {hold.since}: {hold.reason}. Nothing will {words} it by itself.")
    if seen is None:
        return Assessment(resource.name, Level.BROKEN, (*sentences, "It is not up: nothing is served or replicated."))
    here, there = _copies(site, seen)
    level = max(level, here)
    if here is Level.BROKEN:
        gone = seen.disk in (DiskState.DISKLESS, DiskState.FAILED)
        sentences.append(
            f"The copy here is {worth(seen.disk)}." if gone else f"It is not served: its role here is {seen.role}."
        )
    device = seen.peer_device
    sentences += _connection(site, host, resource, seen)
    connected = seen.connection is not None and seen.connection.state is ConnectionState.CONNECTED
    if not connected:
        level = max(level, Level.UNPROTECTED) if hold is None else level
    elif device and device.replication is ReplicationState.ESTABLISHED and device.out_of_sync_bytes:
        level = Level.BROKEN
    elif there is not Level.OK or (device and device.replication is not ReplicationState.ESTABLISHED):
        level = max(level, Level.CATCHING_UP)
    return Assessment(resource.name, level, tuple(sentences))


def _copies(site: Site, seen: DrbdResource) -> tuple[Level, Level]:
    """How bad the state of the copy here is, and that of the peer's."""
    here = Level.OK
    serving = site.flavour is Flavour.BACKUP or seen.role is Role.PRIMARY
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
    if not host.has_address(address):
        lines.append(f"The tunnel is down: {peer.tunnel.device} has no address {address}.")
    elif state is ConnectionState.STANDALONE:
        lines.append("Not connected, and not trying to (StandAlone).")
    else:
        lines.append(f"Waiting for {peer.name} ({state}).")
    if device and device.out_of_sync_bytes:
        lines.append(f"{_bytes(device.out_of_sync_bytes)} changed since; they are noted and will be sent.")
    else:
        lines.append("What changes meanwhile is noted and will be sent.")
    return lines


def _replication(host: Host, seen: DrbdResource, device: PeerDevice) -> str:
    left = f"{_bytes(device.out_of_sync_bytes)} left"
    progress = host.progress.get(seen.volumes[0].minor) if seen.volumes else None
    if progress is not None:
        left += f", {progress.done_percent:.0f} % done"
        if progress.speed_bytes:
            left += f", {_bytes(progress.speed_bytes)}/s"
        if progress.finish_seconds is not None:
            left += f", about {duration(progress.finish_seconds)} to go"
    match device.replication:
        case ReplicationState.ESTABLISHED if device.out_of_sync_bytes:
            return (
                f"{_bytes(device.out_of_sync_bytes)} are known to differ between the copies; what is written now is "
                "replicated. To send them: drbd-offsite disconnect, then connect."
            )
        case ReplicationState.ESTABLISHED if DiskState.UP_TO_DATE is seen.disk is device.disk:
            return "Both copies are up to date; every write is replicated."
        case ReplicationState.ESTABLISHED:
            return f"Connected; the copy here is {seen.disk}, the other one {device.disk}."
        case ReplicationState.SYNC_SOURCE | ReplicationState.SYNC_TARGET:
            return f"Syncing: {left}."
        case ReplicationState.PAUSED_SYNC_SOURCE | ReplicationState.PAUSED_SYNC_TARGET:
            return f"The sync waits for another resource's: {left}."
        case ReplicationState.AHEAD | ReplicationState.BEHIND:
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


def _bytes(count: int) -> str:
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"
