"""What to do about blocks that differ between the copies. Pure.

They are sent by a disconnect and a connect (drbdsetup(8), "verify"), and then compared again. Each step follows
from what is seen and from what is on disk, so all of it can be broken off anywhere.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from math import inf

from ..model import Resource, Site
from ..observed import ConnectionState, DiskState, DrbdResource, Forbidden, Host, ReplicationState, Role
from .findings import BLOCK_SECTORS, MOST_SENDS, SECTOR_BYTES, WINDOW_SECTORS, Cause, Check, Findings, Range

NEIGHBOURS_SECTORS = 2**30 // SECTOR_BYTES
"""Places that are no farther apart are compared again in one go: each verify has to be waited for."""

PATIENCE_SECONDS = 3600.0
"""A resource that was busy at every look for so long has no quiet moment."""

UNEXPLAINED_SECONDS = 60.0
"""What no verify has found may be a passing state of DRBD's, until it has lasted for so long."""

PAUSE_SECONDS = 60.0
"""Before a verify that was broken off goes on. It doubles each time: it may be the verify that breaks the line."""

LONGEST_PAUSE_SECONDS = 86400.0

TAIL_SECTORS = 64 * BLOCK_SECTORS
"""What DRBD 8.4 forgets whenever it attaches: it clears the bits behind the end of its bitmap, and where there are
none, because the last word is full as it is for every LVM volume, it clears that word (drbd_bitmap.c,
bm_count_bits, with bits_in_last_word 0). Seen: after an outage and a restart of the server both copies are
UpToDate and nothing is marked, and the last blocks differ.
"""

VERIFYING = frozenset({ReplicationState.VERIFY_SOURCE, ReplicationState.VERIFY_TARGET})


# What a look asks for. The findings in a step have to be on disk before it is taken.


@dataclass(frozen=True, slots=True)
class Wait:
    reason: str


IDLE = Wait("nothing to do")
"""Both copies are up to date and at rest, and nothing is known or to be found out about them."""


@dataclass(frozen=True, slots=True)
class ReadLog:
    """Take in what the kernel has logged."""


@dataclass(frozen=True, slots=True)
class Keep:
    findings: Findings


@dataclass(frozen=True, slots=True)
class Sent:
    """The backup has got all of it, by whatever resync."""

    findings: Findings
    ranges: tuple[Range, ...]
    """Those that it has got since the last look."""


@dataclass(frozen=True, slots=True)
class Send:
    """Disconnect and connect."""

    findings: Findings


@dataclass(frozen=True, slots=True)
class Compare:
    findings: Findings
    start: int
    stop: int | None


Step = Wait | ReadLog | Keep | Sent | Send | Compare


def decide(site: Site, host: Host, resource: Resource, known: Findings, now: str, *, tail_due: bool) -> Step:
    """The next step for a resource, on its server.

    ``tail_due``: it was attached, or connected, and the end of its copies (`TAIL_SECTORS`) has not been compared since.
    """
    seen = host.drbd.get(resource.name)
    if host.blind or seen is None:
        return Wait("it cannot be seen")
    if verifying(seen):
        return _progress(host, seen, known)
    if known.check is not None and known.check.running:
        return ReadLog()
    if reason := _not_replicating(seen):
        return Wait(reason)
    marked = marked_bytes(seen) or 0
    if not marked:
        if known.differing_bytes or known.unsent:
            return _sent(known)
    elif marked != known.differing_bytes:
        return ReadLog()
    if reason := _hands_off(host, resource):
        return Wait(reason)
    if tail_due and not marked and known.check is None:
        return _compare_tail(seen, known, now)
    if reason := _line_taken(site, host, resource):
        return Wait(reason)
    return _send(site, host, resource, seen, known, now) if marked else _compare(known, now)


def begin(seen: DrbdResource | None, known: Findings, now: str) -> Compare | str:
    """The first step of a comparison of all, or why it cannot be taken."""
    if seen is None:
        return "it is not up"
    if verifying(seen):
        if known.check is not None and known.check.cause is Cause.SLICE:
            return "a slice of them is being compared ([verify]), which is over in a few minutes"
        return "they are being compared already"
    if reason := _not_replicating(seen):
        return reason
    check = Check(now, cause=Cause.ASKED)
    return Compare(replace(known, check=check, verdict=None), check.start, check.stop)


def verifying(seen: DrbdResource) -> bool:
    return seen.peer_device is not None and seen.peer_device.replication in VERIFYING


def marked_bytes(seen: DrbdResource) -> int | None:
    """What DRBD has marked as different; None while it marks what is written, too."""
    return None if _not_replicating(seen) or seen.peer_device is None else seen.peer_device.out_of_sync_bytes


def _not_replicating(seen: DrbdResource) -> str:
    """Why the copies can be neither compared nor repaired now; empty where they can."""
    connection, device = seen.connection, seen.peer_device
    if connection is None or connection.state is not ConnectionState.CONNECTED or device is None:
        return "the two are not connected"
    if device.replication is not ReplicationState.ESTABLISHED:
        return f"DRBD is at work on it ({device.replication})"
    if not seen.disk is device.disk is DiskState.UP_TO_DATE:
        return f"the copy here is {seen.disk}, the other one {device.disk}"
    return ""


def _progress(host: Host, seen: DrbdResource, known: Findings) -> Keep | Wait:
    """How far a verify has certainly come. Where the server gets ahead of its peer, the kernel does not log it."""
    waiting = Wait("the copies are being compared")
    check, device = known.check, seen.peer_device
    end = seen.volumes[0].size_bytes // SECTOR_BYTES if seen.volumes else 0
    if check is None or not check.running or device is None or not end:
        return waiting
    shown = host.progress.get(seen.volumes[0].minor)
    percent = shown.done_percent if shown else device.done_percent or 0.0
    # /proc/drbd counts in units of 4 MiB and may be two of them ahead (drbd_proc.c, drbd_get_syncer_progress).
    sector = check.start + int((end - check.start) * percent / 100) - end // 100 - WINDOW_SECTORS
    reached = sector // BLOCK_SECTORS * BLOCK_SECTORS
    if reached < check.reached + max(end // 100, BLOCK_SECTORS):
        return waiting
    return Keep(replace(known, check=replace(check, reached=reached)))


def _sent(known: Findings) -> Sent:
    ranges = tuple(replace(r, sent=True) for r in known.ranges)
    findings = replace(known, ranges=ranges, differing_bytes=0, differing_since="", sends=0)
    return Sent(findings, known.unsent)


def _hands_off(host: Host, resource: Resource) -> str:
    """Why nothing may be begun now; empty where it may."""
    if hold := host.held(resource.name, Forbidden.CONNECT):
        return f"held: {hold.reason}"
    if any(operation.resource == resource.name for operation in host.operations.values()):
        return "an operation is under way"
    return ""


def _line_taken(site: Site, host: Host, resource: Resource) -> str:
    """Which other resource is being sent or compared; empty where none is."""
    for other in site.resources.values():
        seen = host.drbd.get(other.name)
        device = seen.peer_device if seen and other.peer == resource.peer else None
        if device and (device.replication.resyncing or device.replication in VERIFYING):
            return f"{other.name} has the line to {other.peer}"
    return ""


def _send(site: Site, host: Host, resource: Resource, seen: DrbdResource, known: Findings, now: str) -> Step:
    """DRBD sends what is marked only where the Primary has got a new generation meanwhile, as it does when it
    loses a Secondary (drbd_state.c, after_state_ch; drbd_receiver.c, "No resync, but … bits in bitmap").
    """
    connection = seen.connection
    if seen.role is not Role.PRIMARY or connection is None or connection.role is not Role.SECONDARY:
        return Wait("it is not served from here")
    if site.address_here(site.peer_of(resource)) not in host.addresses:
        return Wait("the tunnel is down")
    if known.sends > MOST_SENDS:
        return Wait("sending it has not helped")
    if known.sends == MOST_SENDS:
        return Keep(replace(known, sends=known.sends + 1))
    lasted = _seconds(known.differing_since, now)
    if not known.unsent and lasted < UNEXPLAINED_SECONDS:
        return Wait("it may pass")
    if host.in_flight.get(resource.here.minor) and lasted < PATIENCE_SECONDS:
        return Wait("a quiet moment is waited for")
    return Send(replace(known, sends=known.sends + 1))


def _compare_tail(seen: DrbdResource, known: Findings, now: str) -> Compare | Wait:
    """So little that it waits for nothing else on the line."""
    end = seen.volumes[0].size_bytes // SECTOR_BYTES if seen.volumes else 0
    if not end:
        return Wait("its size is not known")
    start = max(0, end - TAIL_SECTORS)
    return Compare(replace(known, check=Check(now, start, reached=start, cause=Cause.TAIL)), start, None)


def _compare(known: Findings, now: str) -> Compare | Wait:
    check = known.check
    again = [r.reach for r in known.ranges if r.sent and not r.suspicious]
    if check is not None:
        if _seconds(check.broken_off_at, now) < pause_seconds(check.broken_off):
            return Wait("the comparison goes on in a while")
        check = replace(check, start=check.reached, running=True)
    elif again:
        start, stop = again[0]
        for next_start, next_stop in again[1:]:
            if next_start <= stop + NEIGHBOURS_SECTORS:
                stop = max(stop, next_stop)
        check = Check(now, start, stop, reached=start)
    else:
        return IDLE
    return Compare(replace(known, check=check), check.start, check.stop)


def pause_seconds(broken_off: int) -> float:
    """After a verify was broken off for so many times."""
    return min(PAUSE_SECONDS * 2.0 ** min(broken_off - 1, 20), LONGEST_PAUSE_SECONDS)


def _seconds(since: str, now: str) -> float:
    """Between two instants in ISO 8601; infinitely many where the first is not known."""
    return (datetime.fromisoformat(now) - datetime.fromisoformat(since)).total_seconds() if since else inf
