"""Restore points: taken and dropped by the handlers around a resync, looked after by the watcher meanwhile.

What a resync overwrites because a person has given it up (``connect --discard-here``) is kept in the same way,
and stays until a person removes it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from .. import files, journal
from ..errors import OffsiteError, Refused
from ..model import Resource, RestorePoint, Site, VolumeName
from ..observed import DiskState, Forbidden, Host, LogicalVolume, ReplicationState
from ..plan import look
from ..plan import restore_point as plan
from ..plan.actions import Disconnect
from ..run import run
from ..tools import dmsetup, drbd, lvm

PROC_DRBD = Path("/proc/drbd")
MAPPER = Path("/dev/mapper")

TAKEN = "restore-points"
"""What was taken and not dropped yet, by resource."""

DISCARDS = "discards"
"""Resources whose changes here may go, and whether they have to be kept in a snapshot; until the resync is over."""

KEPT = "discarded"
"""Snapshots of what was given up, by resource."""

SETTER = "restore-point"

RECEIVING = (ReplicationState.SYNC_TARGET, ReplicationState.PAUSED_SYNC_TARGET)

Complain = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What is to be taken before a resync."""

    snapshot: VolumeName
    kind: str
    policy: RestorePoint

    @classmethod
    def of(cls, resource: str, volume: str, policy: str) -> "_Wanted":
        """Raises ValueError for a volume or a policy that is none."""
        origin = VolumeName.parse(volume)
        discard = journal.remembered(DISCARDS).get(resource)
        if discard is None:
            return cls(plan.place(origin), TAKEN, RestorePoint(policy))
        net = discard.get("safety_net", True)
        return cls(plan.place_of_discarded(origin), KEPT, RestorePoint.REQUIRE if net else RestorePoint.NEVER)


def before_resync(resource: str, minor: int, volume: str, policy: str, complain: Complain) -> int:
    """Take a restore point; the exit code of the handler. 1 makes DRBD drop the connection."""
    required = True
    try:
        wanted = _Wanted.of(resource, volume, policy)
        required = wanted.policy is RestorePoint.REQUIRE
        if wanted.policy is not RestorePoint.NEVER and _take(resource, minor, VolumeName.parse(volume), wanted):
            journal.lift(resource, "a new restore point", set_by=SETTER)
    except (OffsiteError, OSError, ValueError) as error:
        complain(f"no restore point for {resource}: {error}")
        return _without(resource, str(error), required, complain)
    return 0


def _without(resource: str, why: str, required: bool, complain: Complain) -> int:
    why = why.rstrip(".")  # a reason is a part of a sentence
    if required:
        reason = f"no resync without a restore point, and none could be taken: {why}"
    else:
        reason = f"there is no restore point, and until the resync ends no usable copy here: {why}"
    forbids = frozenset({Forbidden.CONNECT}) if required else frozenset[Forbidden]()
    try:
        journal.hold(resource, reason, forbids, SETTER)
    except OSError as error:
        complain(f"that could not be noted: {error.strerror}")
    return int(required)


def after_resync(resource: str, volume: str, complain: Complain) -> int:
    """Drop the restore point. What fails here is tried again by the watcher."""
    try:
        _drop(resource, VolumeName.parse(volume))
    except (OffsiteError, OSError, ValueError) as error:
        complain(f"the restore point of {resource} could not be dropped: {error}")
    return 0


def _take(resource: str, minor: int, volume: VolumeName, wanted: _Wanted) -> bool:
    """Whether one was taken; none is where a resync goes on that has overwritten the copy already."""
    disk, behind = _state(resource, minor)
    steps = plan.take(_storage(), volume, wanted.snapshot, disk, behind)
    if steps:
        # Noted first: one that nobody knows of would stay for ever.
        journal.remember(wanted.kind, resource, {"volume": str(wanted.snapshot), "taken": journal.now()})
        _end_look(resource)
    for step in steps:
        run(step.argv, timeout=step.timeout)
    if steps:
        journal.record("restore-point", resource, f"{wanted.snapshot} keeps what the resync overwrites.")
    return bool(steps)


def _end_look(resource: str) -> None:
    """A look at an older restore point gives way: while it is open that one cannot go."""
    if resource in journal.remembered(look.KIND) and (MAPPER / look.overlay(resource)).exists():
        run(dmsetup.wipe(look.overlay(resource)))


def _state(resource: str, minor: int) -> tuple[DiskState, int]:
    """Of the copy here: its disk, and how many bytes it is behind."""
    device = drbd.parse_proc(files.read(PROC_DRBD) or "").devices.get(minor)
    if device is not None:
        return device.disk, device.out_of_sync_bytes
    # DRBD 9 lists no devices there.
    seen = drbd.parse_events(run(drbd.EVENTS).stdout.splitlines()).get(resource)
    if seen is None:
        raise Refused(f"DRBD shows no resource {resource}.")
    return seen.disk, seen.peer_device.out_of_sync_bytes if seen.peer_device else 0


def _drop(resource: str, volume: VolumeName) -> None:
    found = _storage().volumes.get(plan.place(volume))
    if found is not None and found.open and resource in journal.remembered(look.KIND):
        return  # somebody looks at it; the watcher drops it later
    if found is not None and plan.TAG in found.tags:
        run(plan.drop(found.name).argv, timeout=120.0)
    for kind in (TAKEN, DISCARDS):
        journal.forget(kind, resource)
    for setter in (SETTER, DISCARDS):
        journal.lift(resource, "the end of the resync", set_by=setter)


def _storage() -> plan.Storage:
    return plan.Storage(*lvm.parse_report(run(lvm.REPORT).stdout))


def nothing_kept(site: Site, resource: Resource) -> None:
    """Raises Refused where an earlier snapshot of what was given up is still there: there is one place for it."""
    if resource.name in journal.remembered(KEPT):
        kept = plan.place_of_discarded(resource.here.volume)
        raise Refused(
            f"{kept} on the {site.flavour} still keeps what was given up earlier, and would be overwritten.",
            f"If nobody needs it, there: lvremove {kept}; and again in a minute.",
        )


def look_after(site: Site, host: Host) -> None:
    """Drop what no resync needs any more, enlarge what fills up, say what has overflowed.

    Where a restore point is required and cannot be enlarged, the resync ends before it overflows. LVM is asked only
    while there is a snapshot. Raises ToolFailed.
    """
    taken, kept = journal.remembered(TAKEN), journal.remembered(KEPT)
    for resource in site.resources.values():
        if resource.name in taken and _over(host, resource):
            _drop(resource.name, resource.here.volume)
        elif resource.name in taken:
            _keep_usable(site, host, resource, plan.place(resource.here.volume))
        if resource.name in kept and not _keep_usable(
            site, host, resource, plan.place_of_discarded(resource.here.volume)
        ):
            journal.forget(KEPT, resource.name)
            if resource.name not in taken:
                journal.lift(resource.name, "its removal", set_by=SETTER)
        elif resource.name in kept and _kept_long_enough(site, resource.name, kept[resource.name]):
            _remove_kept(resource)


def _kept_long_enough(site: Site, name: str, entry: Mapping[str, object]) -> bool:
    """Not while it is being written to by a resync that goes on."""
    taken = str(entry.get("taken", ""))
    if not site.keep_discarded_days or not taken or name in journal.remembered(DISCARDS):
        return False
    age = datetime.fromisoformat(journal.now()) - datetime.fromisoformat(taken)
    return age > timedelta(days=site.keep_discarded_days)


def _remove_kept(resource: Resource) -> None:
    snapshot = plan.place_of_discarded(resource.here.volume)
    found = _storage().volumes.get(snapshot)
    if found is not None and plan.TAG in found.tags and not found.open:
        run(plan.drop(snapshot).argv, timeout=120.0)
        journal.record("discarded", resource.name, f"{snapshot}, which has kept what was given up, was removed.")


def _over(host: Host, resource: Resource) -> bool:
    """The copy is up to date, and no resync is about to begin."""
    seen = host.drbd.get(resource.name)
    if seen is None or seen.disk is not DiskState.UP_TO_DATE:
        return False
    return seen.peer_device is not None and seen.peer_device.replication is ReplicationState.ESTABLISHED


def _keep_usable(site: Site, host: Host, resource: Resource, snapshot: VolumeName) -> bool:
    """Whether there is such a snapshot."""
    storage = _storage()
    found: LogicalVolume | None = storage.volumes.get(snapshot)
    if found is None:
        return False
    # While it is overwritten, what a person has given up is kept whatever the policy: nothing else has it any more.
    given_up = snapshot == plan.place_of_discarded(resource.here.volume)
    required = site.resync_snapshot is RestorePoint.REQUIRE or (
        given_up and resource.name in journal.remembered(DISCARDS)
    )
    if plan.overflowed(found):
        journal.hold(resource.name, f"the snapshot {snapshot} has overflowed and keeps nothing", frozenset(), SETTER)
    elif step := plan.grow(storage, found):
        run(step.argv)
        journal.record("restore-point-grown", resource.name, f"{snapshot} was filling up and has been enlarged.")
    elif required and plan.too_small(found, _to_come(host, resource)):
        _stop(site, resource, snapshot)
    return True


def _to_come(host: Host, resource: Resource) -> int:
    """How many bytes the resync that runs has yet to overwrite here."""
    seen = host.drbd.get(resource.name)
    device = seen.peer_device if seen else None
    receives = device is not None and device.replication in RECEIVING
    return device.out_of_sync_bytes if device and receives else 0


def _stop(site: Site, resource: Resource, snapshot: VolumeName) -> None:
    """While the snapshot still has the last usable state. After a crash in between the next look sees it run yet."""
    from ..execute import execute  # the handlers, for which the kernel waits, do without

    reason = (
        f"the resync was stopped, because {snapshot} was about to overflow and its volume group has no room: it keeps "
        "the copy from before the resync"
    )
    try:
        with files.lock(f"resource-{resource.name}", 0.0):
            journal.hold(resource.name, reason, frozenset({Forbidden.CONNECT}), SETTER)
            execute(Disconnect(resource.name, "its restore point would overflow"), site)
    except Refused:
        pass  # another command is at work on it; there is a next look
