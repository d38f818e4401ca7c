"""Looking into a copy while replication goes on: a snapshot, its journal replayed, checked, mounted read-only.

Whatever ends it, nothing of it stays: what it makes is noted before it is made, and the watcher removes what a process
has left that was killed. It is no operation under way: nothing has to be finished, and nothing waits for its end.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import files, host, journal, namespace
from ..errors import OffsiteError, Refused, ToolFailed
from ..model import Resource, Site, VolumeName
from ..observed import Host
from ..plan import look as plan
from ..plan import restore_point
from ..plan.look import Check, Place, Source, Verdict
from ..plan.restore_point import Storage
from ..run import Completed, run
from ..tools import contained, dmsetup, filesystem, fsck, lvm
from .restore_point import TAKEN

DIRECTORY = Path("/run/drbd-offsite/looks")
"""What is mounted below it, only the process that has mounted it sees, and what that has started."""

STAYS = "stays"
"""In what is remembered of a look: it does not end with the process that has begun it."""

MAPPER = Path("/dev/mapper")

TRIES = 3
"""Where a resync begins in the middle of a snapshot."""
SETTLE_TRIES = 60
"""A second apart: how long a restore point may take that is about to be taken."""
RELEASE_TRIES = 5
"""A second apart: udev may look at what is to go."""
RELEASE_SECONDS = 120.0

CHECK_SECONDS = 24 * 3600.0
"""A check reads all of a filesystem's tables, on whatever disks."""
MOUNT_SECONDS = 3600.0
"""A mount may have a journal to replay."""

MOST_LINES = 20
"""Of what a program said; the first of them name the damage."""

Tell = Callable[[str], None]


class Busy(Refused):
    """Another look at the same resource is open."""


@dataclass(frozen=True, slots=True)
class Look:
    resource: str
    place: Place
    source: Source
    taken: str
    """When; ISO 8601, UTC."""
    as_of: str
    """Up to when it has what was written; empty where that is not known."""
    size_bytes: int
    fstype: str
    """Empty for none that is known here."""
    directory: Path | None
    """Where it is mounted; None where it could not be, and ``checks`` say why."""
    checks: tuple[Check, ...]


@contextmanager
def opened(site: Site, resource: Resource, label: str, tell: Tell) -> Iterator[Look]:
    """A look at what a resource's copy is worth now; it ends with the context.

    Raises Busy, Refused where there is nothing to look at or no room, ToolFailed where this machine cannot do it. What
    is wrong with the data raises nothing.
    """
    with _alone(resource.name):
        _clear(resource.name)
        namespace.private()
        try:
            yield _open(site, resource, label, tell)
        finally:
            _leave(resource.name, tell)


def stay(site: Site, resource: Resource, tell: Tell) -> Look:
    """A look that everybody sees, until `close` or a reboot; one that cannot be mounted ends at once.

    Raises as `opened` does.
    """
    with _alone(resource.name):
        _clear(resource.name)
        mounted = False
        try:
            look = _open(site, resource, "look of a person", tell, stays=True)
            mounted = look.directory is not None
            return look
        finally:
            if not mounted:
                _leave(resource.name, tell)


def close(name: str) -> bool:
    """End what `stay` has begun; whether there was one. Raises ToolFailed while somebody uses it."""
    known = journal.remembered(plan.KIND).get(name)
    if known is None or not known.get(STAYS):
        return False
    with _alone(name):
        _remove_known(name, known)
        journal.forget(plan.KIND, name)
    return True


@contextmanager
def _alone(name: str) -> Iterator[None]:
    with ExitStack() as locked:
        try:
            locked.enter_context(files.lock(f"look-{name}", 0.0))
        except Refused as error:
            raise Busy(f"The copy of {name} is being looked at already.", "Wait for that to end.") from error
        yield


def sweep(_: Site, __: Host) -> None:
    """A duty of the watcher: remove what a look has left that was killed, or that a reboot has ended."""
    for name in journal.remembered(plan.KIND):
        try:
            with files.lock(f"look-{name}", 0.0):
                _clear(name)
        except Refused:
            pass  # it is open


def exhausted(look: Look) -> str:
    """Why what was read may be wrong without the data's fault; empty where it is right. Raises ToolFailed."""
    laid_over = (MAPPER / look.place.overlay).exists()
    state = dmsetup.parse_status(run(dmsetup.status(look.place.overlay)).stdout) if laid_over else None
    return plan.exhausted(_storage(), look.place, state)


def _open(site: Site, resource: Resource, label: str, tell: Tell, *, stays: bool = False) -> Look:
    name = resource.name
    place = Place.of(name, resource.here.volume)
    entry = {"label": label, "volume": str(place.volume), "since": journal.now(), "fstype": "", STAYS: stays}
    journal.remember(plan.KIND, name, entry)
    _remove(name, place, "")  # what was made and not noted any more, by somebody killed in the middle of lvcreate
    what, taken, as_of, size = _take(site, resource, place, tell)
    device = dmsetup.path(place.overlay) if (MAPPER / place.overlay).exists() else place.look.path
    found = host.identity(device)
    fstype = found.get("TYPE", "")
    way = fsck.way(fstype, device)
    if way is None:
        holds = fstype or (f"a partition table ({found['PTTYPE']})" if "PTTYPE" in found else "")
        text = f"There is {holds} on it, which is not known here." if holds else "There is no filesystem on it."
        checks: tuple[Check, ...] = (Check("filesystem", Verdict.UNKNOWN, f"{text} Nothing was checked."),)
        return Look(name, place, what, taken, as_of, size, "", None, checks)
    journal.remember(plan.KIND, name, {**entry, "fstype": fstype})
    checks, directory = _enter(resource, place, fstype, device, way, tell)
    return Look(name, place, what, taken, as_of, size, fstype, directory, checks)


def _take(site: Site, resource: Resource, place: Place, tell: Tell) -> tuple[Source, str, str, int]:
    """Make what is to be mounted, of one instant: what it is of, when it was taken, what it has, and its size."""
    name = resource.name
    for left in range(TRIES - 1, -1, -1):
        resyncs = _resyncs(name)
        seen = _settled(site, name)
        what = plan.source(seen, resource, name in journal.remembered(TAKEN))
        taken = journal.now()
        as_of = plan.as_of(seen, resource, taken)
        tell(f"{name}: taking a snapshot of the {what}")
        try:
            for step in plan.take(site, Storage(seen.volumes, seen.groups), resource, what):
                run(step.argv, timeout=step.timeout)
        except ToolFailed:
            # A restore point goes when its resync ends, also in the middle of this.
            if what is Source.COPY or not left:
                raise
        else:
            # A resync that has begun meanwhile may be in the snapshot, and may be over already.
            if what is Source.RESTORE_POINT or (
                _resyncs(name) == resyncs and plan.whole(host.observe(site).drbd.get(name))
            ):
                return what, taken, as_of, plan.size_bytes(seen, resource)
        tell(f"{name}: a resync has come in between; starting over")
        _remove(name, place, "")
    raise Refused(
        f"Resyncs of {name} begin faster than a snapshot can be taken.",
        f"drbd-offsite events {name} shows them; run it again when the line is steadier.",
    )


def _settled(site: Site, name: str) -> Host:
    """A look that is not in the moment between the end of an outage and the restore point before its resync."""
    for _ in range(SETTLE_TRIES):
        seen = host.survey(site)
        if not plan.unsettled(seen.drbd.get(name)):
            break
        time.sleep(1.0)
    return seen


def _resyncs(name: str) -> int:
    return sum(e.get("event") == plan.RESYNC_EVENT and e.get("resource") == name for e in journal.events())


def _enter(
    resource: Resource, place: Place, fstype: str, device: str, way: fsck.Way, tell: Tell
) -> tuple[tuple[Check, ...], Path | None]:
    """Replay, check and mount, as far as that goes: what each has come to, and where it is mounted."""
    checks: list[Check] = []
    directory = DIRECTORY / resource.name
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def good(check: Check) -> bool:
        checks.append(check)
        return check.verdict is Verdict.GOOD

    if fstype == "btrfs":
        over = fsck.parse_devices(run(fsck.super_block(device)).stdout)
        if over > 1:
            text = f"It is a btrfs over {over} devices, and a look at one of them shows nothing."
            return (Check("filesystem", Verdict.UNKNOWN, text),), None
    tell(f"{resource.name}: replaying the journal and checking the filesystem ({fstype})")
    if way.replay and not good(_program("journal", way.replay, "was replayed or had nothing")):
        return tuple(checks), None
    if way.replaying_options:
        if not good(_mount("journal", fstype, device, directory, way.replaying_options)):
            return tuple(checks), None
        run(filesystem.unmount(str(directory)))
    if not good(_program("filesystem", way.check, "has no errors")):
        return tuple(checks), None
    if fstype == "btrfs":
        kept = (restore_point.place(place.volume), restore_point.place_of_discarded(place.volume))
        for other in (place.volume.path, resource.here.device, *(volume.path for volume in kept), device):
            run(fsck.forget(other), accept=None)
    mounted = good(_mount("mount", fstype, device, directory, way.options))
    return tuple(checks), directory if mounted else None


def _program(name: str, argv: tuple[str, ...], well: str) -> Check:
    """Raises ToolFailed for a program that is not there or does not end."""
    begun = time.monotonic()
    done = run(argv, timeout=CHECK_SECONDS, accept=None)
    program = " ".join(argv[argv.index("--") + 1 :])
    if done.returncode in contained.NOT_RUN:
        raise ToolFailed(f"{program} could not be run: {done.complaint}", "Is the filesystem's package installed?")
    # Killed (for want of memory, above all), or not able to.
    if done.returncode < 0 or (done.returncode and any(words in done.complaint for words in fsck.NOT_THE_DATA)):
        raise ToolFailed(f"This machine cannot check it: {program} ended with {done.returncode}: {done.complaint}")
    if done.returncode:
        text = f"{program} has found errors (exit code {done.returncode})."
        return Check(name, Verdict.BAD, text, _since(begun), _told(done))
    return Check(name, Verdict.GOOD, f"It {well} ({program}).", _since(begun))


def _mount(name: str, fstype: str, device: str, directory: Path, options: str) -> Check:
    """Raises ToolFailed where the reason is this machine."""
    begun = time.monotonic()
    done = run(fsck.mount(fstype, device, str(directory), options), timeout=MOUNT_SECONDS, accept=None)
    if done.returncode == 0:
        text = "It was mounted read-only." if name == "mount" else "It was replayed by a mount, or had nothing."
        return Check(name, Verdict.GOOD, text, _since(begun))
    if any(words in done.complaint for words in fsck.NOT_THE_DATA):
        raise ToolFailed(f"This machine cannot mount it: {done.complaint}")
    return Check(name, Verdict.BAD, "It cannot be mounted.", _since(begun), _told(done))


def _told(done: Completed) -> tuple[str, ...]:
    lines = [line.rstrip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    left = len(lines) - MOST_LINES
    return (*lines[:MOST_LINES], *([f"… and {left} lines more"] if left > 0 else []))


def _since(begun: float) -> int:
    return int(time.monotonic() - begun)


def _leave(name: str, tell: Tell) -> None:
    try:
        known = journal.remembered(plan.KIND).get(name)
        if known is not None:
            _remove_known(name, known)
    except (OffsiteError, OSError) as error:
        text = f"What the look has made could not be removed: {error} The watcher tries again."
        tell(f"{name}: {text}")
        journal.record("failed", name, text)
    else:
        journal.forget(plan.KIND, name)


def _clear(name: str) -> None:
    """Under its lock: what an earlier look has left, if any. Raises ToolFailed."""
    known = journal.remembered(plan.KIND).get(name)
    if known is None:
        return
    if known.get(STAYS) and _mounts(name):
        raise Busy(f"{DIRECTORY / name} is open for a person.", f"drbd-offsite failback {name} ends that.")
    _remove_known(name, known)
    journal.forget(plan.KIND, name)
    journal.record("look-swept", name, f"A {known.get('label', 'look')} was broken off; what it had made was removed.")


def _remove_known(name: str, known: Mapping[str, Any]) -> None:
    try:
        place = Place.of(name, VolumeName.parse(str(known.get("volume"))))
    except ValueError:
        return  # a note that is none leads nowhere
    _remove(name, place, str(known.get("fstype")))


def _mounts(name: str) -> int:
    """How often something is mounted where a look at it is."""
    mounts = filesystem.parse_mountinfo(files.read(host.MOUNTINFO) or "")
    return sum(mount.target == str(DIRECTORY / name) for mount in mounts)


def _remove(name: str, place: Place, fstype: str) -> None:
    """All that a look makes, as far as it is there. Raises ToolFailed."""
    directory = DIRECTORY / name
    for _ in range(_mounts(name)):
        run(filesystem.unmount(str(directory)), timeout=RELEASE_SECONDS, tries=RELEASE_TRIES)
    laid_over = (MAPPER / place.overlay).exists()
    if fstype == "btrfs":
        device = dmsetup.path(place.overlay) if laid_over else place.look.path
        with suppress(ToolFailed):  # without its programs it was not mounted either
            run(fsck.forget(device), accept=None)
    if laid_over:
        run(dmsetup.remove(place.overlay), timeout=RELEASE_SECONDS, tries=RELEASE_TRIES)
    volumes = _storage().volumes
    for volume in (place.look, place.room):
        if volume in volumes and plan.TAG in volumes[volume].tags:
            run(lvm.remove(volume), timeout=RELEASE_SECONDS, tries=RELEASE_TRIES)
    if directory.is_dir():
        directory.rmdir()


def _storage() -> Storage:
    try:
        return Storage(*lvm.parse_report(run(lvm.REPORT).stdout))
    except ValueError as error:
        raise ToolFailed(f"LVM's report cannot be read: {error}") from error
