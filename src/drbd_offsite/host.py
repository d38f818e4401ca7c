"""One look at this machine, by a constant number of programs however many resources there are."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from . import files, journal
from .errors import ToolFailed
from .model import DrbdResource, Host, MetadataPlace, Progress
from .run import run
from .tools import drbd, filesystem, iproute, lvm

PROC_DRBD = Path("/proc/drbd")
MOUNTINFO = Path("/proc/self/mountinfo")

_T = TypeVar("_T")


def observe() -> Host:
    """Everything that a decision may rest on. What cannot be seen is named in ``problems``."""
    problems: list[str] = []
    volumes, groups = _seen(lambda: lvm.parse_report(run(lvm.REPORT).stdout), problems) or ({}, {})
    addresses = _seen(lambda: iproute.parse_addresses(run(iproute.ADDRESSES).stdout), problems) or {}
    host = Host(
        hostname=os.uname().nodename,
        drbd_version="",
        volumes=volumes,
        groups=groups,
        addresses=addresses,
        drbd={},
        progress={},
        mounts=(),
        holds={},
        operations={},
        problems=tuple(problems),
    )
    return look_again(host)


def look_again(host: Host) -> Host:
    """The same look with what changes while a resource is worked on made new: DRBD, mounts, our own notes."""
    problems: list[str] = []
    proc = drbd.parse_proc(files.read(PROC_DRBD) or "")
    seen: dict[str, DrbdResource] = {}
    if proc.version:
        seen = _seen(lambda: drbd.parse_events(run(drbd.EVENTS).stdout.splitlines()), problems) or {}
    progress: dict[int, Progress] = {m: d.progress for m, d in proc.devices.items() if d.progress}
    known = (*host.problems, *(p for p in problems if p not in host.problems))
    return replace(
        host,
        drbd_version=proc.version,
        drbd=seen,
        progress=progress,
        mounts=filesystem.parse_mountinfo(MOUNTINFO.read_text(encoding="utf-8", errors="replace")),
        holds=journal.holds(),
        operations=journal.operations(),
        problems=known,
    )


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


def identity(path: str) -> dict[str, str]:
    """What blkid finds on a device (TYPE, UUID, LABEL …); empty for nothing."""
    return filesystem.parse_identity(run(filesystem.identity(path), accept=(0, 2)).stdout)
