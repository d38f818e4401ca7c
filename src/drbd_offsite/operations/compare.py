"""Both copies have data that the other lacks: what differs, file by file, and files brought from one to the other.

The other machine shares a look at its copy (share.py), which rsync reads through the tunnel. Looks are made for each
command, and are gone with it.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from .. import files, journal, messages, peer, protocol
from ..errors import OffsiteError, Refused, ToolFailed
from ..host import observe
from ..model import Resource, Site
from ..observed import Role
from ..plan import compare as plan
from ..plan.compare import Difference
from ..run import Completed, run
from ..tools import contained, rsync
from ..tools.rsync import Change
from . import inspect, share

UNSHARE_SECONDS = share.STOP_SECONDS + 30.0

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Brought:
    into: str
    changes: tuple[Change, ...]
    suffix: str
    """Of what was here before in the place of what came."""
    complaint: str
    """Why not all of it came; empty where it did."""


def differences(site: Site, resource: Resource, tell: Tell) -> list[Difference]:
    """What differs between the two copies as they are now, by path.

    Raises Refused where one of them cannot be looked at, ToolFailed where not all of them could be compared,
    PeerUnreachable.
    """
    with _alone(site, resource), share.looked_into(site, resource, tell) as look:
        directory = share.mounted(site, look)
        with _shared(site, resource, tell):
            tell(f"{resource.name}: comparing all files")
            # With all that rsync starts: what is left of it would keep the snapshot here in use.
            argv = contained.enclosed(rsync.compare(resource.name, str(directory)))
            done = run(argv, timeout=share.LONGEST_SECONDS, accept=None)
        if done.returncode:
            raise ToolFailed(
                f"Not all files could be compared, so what differs is not known: {_complaint(done)}",
                "Nothing was changed. The same command begins anew.",
            )
        if why := inspect.exhausted(look):
            raise ToolFailed(
                f"What differs is not known. {why}", "Nothing was changed. Run it again at a quieter time."
            )
        return plan.differences(rsync.parse_changes(done.stdout), site.flavour)


def bring(site: Site, resource: Resource, paths: list[str], tell: Tell) -> Brought:
    """Files and directories of the other machine's copy, with all that is in them, into what is mounted here.

    Raises Refused where it is not served from here, PeerUnreachable.
    """
    with _alone(site, resource):
        into = _served(site, resource)
        suffix = f"{plan.SUFFIX}-{datetime.fromisoformat(journal.now()):%Y%m%dT%H%M%SZ}"
        with _shared(site, resource, tell), _listed(resource.name, paths) as listed:
            tell(f"{resource.name}: bringing files to {into}")
            argv = rsync.bring(resource.name, str(listed), suffix, into)
            done = run(argv, timeout=share.LONGEST_SECONDS, accept=None)
    changes = tuple(rsync.parse_changes(done.stdout))
    journal.record(
        "files-brought",
        resource.name,
        f"From the {site.flavour.other} to {into}: {len(changes)}; what was there before has {suffix} behind its name.",
        paths=[plan.shown(path) for path in paths],
    )
    complaint = _complaint(done) if done.returncode else _nowhere(site, into, paths)
    return Brought(into, changes, suffix, complaint)


def _nowhere(site: Site, into: str, paths: list[str]) -> str:
    """What has not come and is not here either. rsync may end with 0 for it (seen, through the tunnel)."""
    missing = [plan.shown(path) for path in paths if not os.path.lexists(os.path.join(into, path))]  # noqa: PTH118
    return f"on the {site.flavour.other} there is no {', '.join(missing)}" if missing else ""


def lock(name: str) -> str:
    """Held as long as files of a resource go through the line."""
    return f"compare-{name}"


@contextmanager
def _alone(site: Site, resource: Resource) -> Iterator[None]:
    """The other machine shares one look at a resource, and begins it anew when it is asked to."""
    with files.lock(lock(resource.name), 0.0):
        share.installed(site)
        yield


@contextmanager
def _shared(site: Site, resource: Resource, tell: Tell) -> Iterator[None]:
    """While the other machine shares a look at its copy."""
    name, other = resource.name, site.flavour.other
    tell(f"{name}: having a look made on the {other}")
    there = site.peer_of(resource)
    try:
        peer.ask(site, there, messages.Share(name), messages.Done, seconds=share.LONGEST_SECONDS)
        yield
    finally:
        try:
            peer.ask(site, there, messages.Unshare(name), messages.Done, seconds=UNSHARE_SECONDS)
        except OffsiteError as error:
            minutes = share.IDLE_SECONDS / 60
            tell(f"{name}: a look on the {other} could not be ended: {error} It ends by itself in {minutes:.0f} min.")


@contextmanager
def _listed(name: str, paths: list[str]) -> Iterator[Path]:
    """In a file: as words of a command they would be patterns."""
    share.DIRECTORY.mkdir(mode=0o700, parents=True, exist_ok=True)
    listed = share.DIRECTORY / f"{name}.paths"
    files.write(listed, "".join(f"{path}\0" for path in paths), 0o600)
    try:
        yield listed
    finally:
        files.remove(listed)


def _served(site: Site, resource: Resource) -> str:
    """Where it is mounted here, all of it."""
    host, name = observe(site), resource.name
    seen = host.drbd.get(name)
    if seen is None or seen.role is not Role.PRIMARY:
        raise Refused(
            f"{name} is not served from this machine, so nothing can be brought into it here.",
            "Run it on the machine whose data are to be kept, where it is Primary and mounted.",
        )
    minor = resource.here.minor
    if not host.mounted_at(minor):
        raise Refused(f"{name} is not mounted here.", f"Mount it where it belongs: mount {resource.by_res} DIRECTORY")
    top = host.mounted_whole_at(minor)
    if not top:
        raise Refused(
            f"Of {name} only a part is mounted here, at {host.mounted_at(minor)[0]}.",
            f"Mount all of it, if only for this: mount {resource.by_res} DIRECTORY",
        )
    return top[0]


def _complaint(done: Completed) -> str:
    return f"rsync ended with {done.returncode}: {protocol.printable(done.complaint)}"
