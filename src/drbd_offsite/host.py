"""One look at this machine, by a constant number of programs however many resources there are."""

import json
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from . import files, journal
from .errors import ToolFailed
from .model import MetadataPlace, Site, VolumeName
from .observed import Consultation, DrbdResource, Host, LogicalVolume, Mount, VolumeGroup
from .plan import drilled, overload, pace, slices
from .remembered import LastDrill, Overload, Rates, Round
from .run import run
from .tools import drbd, filesystem, lvm, systemd

PROC_DRBD = Path("/proc/drbd")
MOUNTINFO = Path("/proc/self/mountinfo")
DEVICES = Path("/dev")
CONSULTATIONS = Path("/run/drbd-offsite/consultations")

SERVING = "serving"
"""What this machine serves though it is the backup (`journal.remembered`)."""

COMPLETE = "complete"
"""Of each peer (`journal.remembered`): up to when the backup's copy of each resource has everything."""

_T = TypeVar("_T")


def observe(site: Site) -> Host:
    """Everything that the circle's decisions rest on, by one program. What cannot be seen is named in ``problems``."""
    blind: list[str] = []
    proc = drbd.parse_proc(files.read(PROC_DRBD) or "")
    seen: dict[str, DrbdResource] = {}
    if proc.version:
        seen = _seen(lambda: drbd.parse_events(run(drbd.EVENTS).stdout.splitlines()), blind) or {}
    operations, not_understood = journal.operation_files()
    unreadable = (f"{path} cannot be understood; it names an unfinished operation" for path in not_understood)
    complete = _complete()
    return Host(
        hostname=os.uname().nodename,
        drbd_version=proc.version,
        active=frozenset(volume for volume in site.volumes if _device(volume).exists()),
        addresses=frozenset(filter(_is_here, {site.address_here(peer) for peer in site.peers.values()})),
        drbd=seen,
        progress={minor: device.progress for minor, device in proc.devices.items() if device.progress},
        in_flight={minor: device.in_flight for minor, device in proc.devices.items()},
        mounts=tuple(
            map(_of_its_device, filesystem.parse_mountinfo(MOUNTINFO.read_text(encoding="utf-8", errors="replace")))
        ),
        holds=journal.holds(),
        operations=operations,
        serving=frozenset(journal.remembered(SERVING)),
        consulted=consultations(),
        drills=_drills(),
        rounds=_rounds(),
        complete=complete,
        ages=_ages(complete),
        rates=_rates(),
        overloads=_overloads(),
        problems=(*blind, *unreadable),
        blind=bool(blind),
    )


def _drills() -> dict[str, LastDrill]:
    now = datetime.now(UTC)
    found = {name: drilled.last(entry, now) for name, entry in journal.remembered(drilled.KIND).items()}
    return {name: last for name, last in found.items() if last is not None}


def _rounds() -> dict[str, Round]:
    now = datetime.now(UTC)
    found = {name: slices.from_entry(entry, now) for name, entry in journal.remembered(slices.KIND).items()}
    return {name: known for name, known in found.items() if known is not None}


def _complete() -> dict[str, str]:
    by_peer = journal.remembered(COMPLETE).values()
    return {str(name): str(at) for known in by_peer for name, at in known.items()}


def _ages(complete: Mapping[str, str]) -> dict[str, float]:
    now = datetime.now(UTC)
    found = {}
    for name, at in complete.items():
        with suppress(ValueError, TypeError):  # no instant, or one without a zone
            found[name] = max(0.0, (now - datetime.fromisoformat(at)).total_seconds())
    return found


def _rates() -> dict[str, Rates]:
    now = datetime.now(UTC).timestamp()
    found = {name: pace.rates(entry, now) for name, entry in journal.remembered(journal.HISTORY).items()}
    return {name: rates for name, rates in found.items() if rates is not None}


def _overloads() -> dict[str, Overload]:
    found = {name: overload.from_entry(entry) for name, entry in journal.remembered(overload.KIND).items()}
    return {name: spell.overload for name, spell in found.items() if spell is not None}


def _of_its_device(mount: Mount) -> Mount:
    """btrfs gives each mount a number of its own (0:N); which device it is, only its source says."""
    if mount.devno[0] != 0 or not mount.source.startswith("/dev/"):
        return mount
    try:
        number = Path(mount.source).stat().st_rdev
    except OSError:
        return mount
    return replace(mount, devno=(os.major(number), os.minor(number)))


def survey(site: Site) -> Host:
    """With every volume and group of this machine, which LVM takes its time to list."""
    problems: list[str] = []
    volumes, groups = _seen(lambda: lvm.parse_report(run(lvm.REPORT).stdout), problems) or ({}, {})
    return _with_storage(observe(site), volumes, groups, problems)


def look_again(site: Site, host: Host) -> Host:
    """A new look that keeps what an earlier one had from LVM."""
    return _with_storage(observe(site), host.volumes, host.groups, host.problems)


def _with_storage(
    host: Host,
    volumes: Mapping[VolumeName, LogicalVolume],
    groups: Mapping[str, VolumeGroup],
    problems: Sequence[str],
) -> Host:
    known = (*host.problems, *(problem for problem in problems if problem not in host.problems))
    return replace(host, volumes=volumes, groups=groups, problems=known)


def _device(volume: VolumeName) -> Path:
    return DEVICES / volume.group / volume.name


def _is_here(address: str) -> bool:
    """Whether the kernel lets a socket have it: what DRBD will find when it connects."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


ANSWER_SECONDS = 30.0
"""So long a peer's answer counts."""

ASK_AGAIN_SECONDS = 5.0


def consult(resource: str, free: bool) -> None:
    """Note that a peer is being asked whether it serves a resource, and (``free``) that it has said no."""
    CONSULTATIONS.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = CONSULTATIONS / f"{resource}.json"
    # The monotonic clock is the same for every process, and no time server sets it.
    now = time.monotonic()
    entry = {"begun": _consultation(path).get("begun", now), "free": now if free else None}
    files.write(path, json.dumps(entry), 0o600)


def end_consultation(resource: str) -> None:
    (CONSULTATIONS / f"{resource}.json").unlink(missing_ok=True)


def may_ask(peer: str) -> bool:
    """Whether it is long enough since a peer was asked; if so, it counts as asked now.

    One answer is about all resources, and one that does not answer costs all of them the time.
    """
    CONSULTATIONS.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = CONSULTATIONS / f"{peer}.asked"
    now = time.monotonic()
    before = files.read(path)
    if before and 0.0 <= now - float(before) < ASK_AGAIN_SECONDS:
        return False
    files.write(path, f"{now}", 0o600)
    return True


def consultations() -> dict[str, Consultation]:
    """Those that have begun and not led to anything yet, by resource."""
    now = time.monotonic()
    entries = {path.stem: _consultation(path) for path in CONSULTATIONS.glob("[!.]*.json")}
    return {
        name: Consultation(now - entry["begun"], entry["free"] is not None and now - entry["free"] < ANSWER_SECONDS)
        for name, entry in entries.items()
        if entry
    }


def _consultation(path: Path) -> dict[str, Any]:
    try:
        entry = json.loads(files.read(path) or "{}")
    except ValueError:
        return {}
    match entry:
        case {"begun": float(), "free": float() | None}:
            return dict(entry)
    return {}


def _seen(look: Callable[[], _T], problems: list[str]) -> _T | None:
    try:
        return look()
    except (ToolFailed, ValueError) as error:
        problems.append(str(error))
        return None


def metadata_found(place: MetadataPlace, minor: int) -> drbd.Identifiers | None:
    """The generation identifiers that a metadata place holds; None where it holds no metadata.

    Only for a place whose device is not attached: drbdmeta opens it exclusively.
    """
    done = run(drbd.meta(place, minor, "get-gi"), accept=(0, *drbd.NO_METADATA))
    found = drbd.parse_identifiers(done.stdout)
    if found is None and done.returncode == 0:
        raise ToolFailed(f"drbdmeta says of {place} what is not understood: {done.stdout.strip()[:200]}")
    return found


def unit_is(state: str, unit: str) -> bool:
    """Whether systemd calls a unit ``enabled``, or ``active``."""
    return run(systemd.systemctl(f"is-{state}", "--quiet", unit), accept=None).returncode == 0


def identity(path: str) -> dict[str, str]:
    """What blkid finds on a device (TYPE, UUID, LABEL …); empty for nothing."""
    return filesystem.parse_identity(run(filesystem.identity(path), accept=(0, 2)).stdout)


def identity_below(volume: VolumeName) -> dict[str, str]:
    """As `identity`, of a volume that may be under an attached DRBD."""
    run(filesystem.forget_cached(volume.path))
    return identity(volume.path)
