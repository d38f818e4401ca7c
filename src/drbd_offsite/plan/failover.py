"""The backup takes over: what speaks against it, what is lost by it, and the steps. Pure.

A copy that a broken-off resync has left Inconsistent is not promoted: the restore point from before it is merged back
into the volume. DRBD's bitmap knows nothing of that, so all of it is marked to be sent to the server later.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from ..errors import Refused
from ..model import Resource, Site, VolumeName
from ..observed import DiskState, Forbidden, Hold, Host, Operation, Role
from ..tools import drbd, lvm
from . import circle, restore_point, serve
from .actions import Action, Disconnect, Note, Once, Run, SetHold
from .assess import amount, duration

VERB = "failover"
"""Of the operation, and the setter of the hold that ends with failback."""

ON_ITS_WAY_BYTES = 10 * 2**20
"""The most that the server holds for the line (templates/resource.res.j2, sndbuf-size)."""

USABLE = frozenset({DiskState.UP_TO_DATE, DiskState.CONSISTENT, DiskState.OUTDATED})


class Server(Enum):
    """What is known of the server, in rising order of what speaks against a failover."""

    SILENT = "it answers neither through the tunnel nor outside of it"
    IDLE = "it answers, and does not serve it"
    OUTSIDE = "it answers outside the tunnel, so it may be alive and serving"
    SERVING = "it is alive and serves it (Primary)"


@dataclass(frozen=True, slots=True)
class Copy:
    """What is here to take over with."""

    restore_point: VolumeName | None
    """Takes the copy's place; None where the copy itself is usable."""
    as_of: str
    """ISO 8601: what the server had acknowledged before is in it; empty where that is not known."""
    lost: str
    """ISO 8601: since when nothing has arrived; empty where that is not known."""
    known_missing_bytes: int
    """Written by the server before that and never sent, as far as it had told."""


def refusal(resource: Resource, host: Host, server: Server, force: bool) -> Refused | None:
    """Why the backup does not take over, if it does not."""
    seen = host.drbd.get(resource.name)
    name = resource.name
    if seen is None or not host.attached(name):
        return Refused(
            f"{name} is not attached here, so there is nothing to take over with.",
            f"drbd-offsite plan {name} says what is in the way; drbd-offsite up {name} tries again.",
        )
    if seen.connected and server is not Server.SERVING:
        return Refused(
            f"{name} is connected to {resource.peer}, so nothing has to be lost.",
            f"drbd-offsite switchover {name} hands it over in order.",
        )
    if server in (Server.SERVING, Server.OUTSIDE) and not force:
        return Refused(
            f"{name} is not taken over: of {resource.peer} it is known that {server.value}. If both were written to, "
            "one of the two would have to be given up later.",
            f"If {resource.peer} is reachable, drbd-offsite switchover {name} loses nothing. If what answers is not "
            "the server, or it has to be done all the same: --force-split-brain.",
        )
    return None


def copy(resource: Resource, host: Host, lost: str) -> Copy:
    """What would be served; ``lost``: since when it is not connected. Raises Refused where there is nothing usable.

    While a resync runs no mark is passed, so what is known of the copy then is known of its restore point.
    """
    seen = host.drbd[resource.name]
    device = seen.peer_device
    as_of = host.complete.get(resource.name, "")
    if seen.disk in USABLE:
        missing = device.out_of_sync_bytes if device and seen.role is not Role.PRIMARY else 0
        return Copy(None, as_of, lost, missing)
    place = restore_point.place(resource.here.volume)
    found = host.volumes.get(place)
    ours = found is not None and restore_point.TAG in found.tags
    if found is None or not ours or restore_point.overflowed(found):
        why = f"{place} has overflowed and keeps nothing" if ours else "there is no restore point"
        raise Refused(
            f"The copy of {resource.name} is {seen.disk}: a resync was broken off in the middle, and {why}. Nothing "
            "here can be served.",
            f"If {resource.peer} comes back, the resync goes on by itself. If it is lost for good, what is on "
            f"{resource.here.volume} is a mixture of old and new: make a snapshot of it before anything is tried.",
        )
    return Copy(place, as_of, lost, 0)


def loss(resource: Resource, server: Server, found: Copy, now: str) -> tuple[str, ...]:
    """What is lost, and what not, for the question to a person; a sentence each."""
    lines = [f"{resource.peer}: {server.value}."]
    if found.restore_point is not None:
        lines.append(
            f"The copy here is Inconsistent, because a resync was broken off. {found.restore_point} from before that "
            "takes its place."
        )
    if found.as_of:
        seconds = int((datetime.fromisoformat(now) - datetime.fromisoformat(found.as_of)).total_seconds())
        ago = f"{found.as_of}, {duration(max(seconds, 0))} ago"
        lines.append(f"What is served has all that the server had acknowledged before {ago}.")
    else:
        since = f" Nothing has arrived since {found.lost}." if found.lost else ""
        lines.append(f"Up to when the server's writes are here is not known.{since}")
    if found.known_missing_bytes:
        lines.append(
            f"{amount(found.known_missing_bytes)} that the server had written before are known to be missing here."
        )
    lines.append(
        "Of what it wrote after that the beginning may be here, and not the end: at most "
        f"{amount(ON_ITS_WAY_BYTES)} may have been on their way, and nothing of what came later was sent. It stays on "
        "the server's volume, if that still exists."
    )
    return tuple(lines)


def parameters(found: Copy) -> dict[str, object]:
    """Of the operation, as JSON."""
    place = str(found.restore_point) if found.restore_point else ""
    return {"restore_point": place, "as_of": found.as_of, "marked": False, **serve.PARAMETERS}


def remaining(site: Site, host: Host, operation: Operation, found: serve.Found) -> Iterator[Action]:
    """What is left to do, in order."""
    resource = site.resources[operation.resource]
    seen = host.drbd.get(resource.name)
    if not any(hold.set_by == VERB for hold in host.holds.get(resource.name, ())):
        reason = f"this machine has taken over from {resource.peer}; failback decides what becomes of the two copies"
        hold = Hold(resource.name, reason, frozenset({Forbidden.CONNECT}), "", VERB)
        yield SetHold(hold, "the two must not connect before a person knows which has what")
    if seen is not None and not seen.standalone:
        yield Disconnect(resource.name, "it is served from here, apart from the server")
    if operation.parameters["restore_point"]:
        yield from _put_back(host, resource, operation)
    else:
        yield from _attached(host, resource)
    yield from serve.remaining(site, host, operation, found)


def _attached(host: Host, resource: Resource) -> Iterator[Action]:
    if not host.attached(resource.name):
        yield from (*circle.introduce(resource, host.drbd.get(resource.name)), circle.attach(resource))


def _put_back(host: Host, resource: Resource, operation: Operation) -> Iterator[Action]:
    """The restore point in the place of the copy."""
    place = VolumeName.parse(str(operation.parameters["restore_point"]))
    if place in host.volumes:
        if resource.name in host.drbd:
            yield Run(drbd.adm("down", resource.name), "its volume is put back to the restore point")
        yield Run(lvm.merge(place), "the last consistent state takes the copy's place", timeout=300.0)
    yield from _attached(host, resource)
    if not operation.parameters["marked"]:
        why = "DRBD's bitmap does not know what was put back, so all is sent at failback"
        # After the attach, which makes 8.4 forget the last bits (plan/repair.py, TAIL_SECTORS).
        step = Run(drbd.adm("invalidate", resource.name), why, timeout=300.0)
        yield Once(step, Note(operation, "marked", value=True, why=why))
