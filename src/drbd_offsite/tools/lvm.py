"""lvm(8): one report for a whole look, and the few changes that we make."""

import json
from collections.abc import Mapping
from typing import Any

from ..model import VolumeName
from ..observed import LogicalVolume, VolumeGroup

Argv = tuple[str, ...]

_COLUMNS = {
    "vg": "vg_name,vg_size,vg_free,vg_extent_size",
    "lv": "lv_name,lv_size,lv_active,lv_device_open,lv_kernel_major,lv_kernel_minor,lv_tags,"
    "origin,pool_lv,data_percent",
    # fullreport prints these in any case; one column each keeps them short
    "pv": "pv_name",
    "pvseg": "pv_name",
    "seg": "lv_name",
}

PAST_DRBD = ("--config", 'devices/filter=["r|^/dev/drbd|"]')
"""Never read a DRBD device to see whether it is a physical volume. On a Primary that is about to be
resynced such a read waits for before-resync-target, whose own call of LVM would wait for the read: seen, and
nothing but a reset helps. Instead of a "filter" of the admin's (lvm.conf(5)); a "global_filter" stays."""

REPORT: Argv = (
    "lvm", "fullreport", *PAST_DRBD, "--reportformat", "json", "--units", "b", "--nosuffix",
    *(word for part, columns in _COLUMNS.items() for word in ("--configreport", part, "-o", columns)),
)  # fmt: skip
"""Groups and volumes in one process. Neither vgs nor lvs can do it: with columns of both, a group
without a volume is not listed."""


CHANGES = frozenset({"lvconvert", "lvcreate", "lvextend", "lvremove"})
"""The programs after which a report is no longer true."""


def create(volume: VolumeName, size_bytes: int, tag: str = "") -> Argv:
    """A new volume; LVM rounds up to whole extents and wipes what it recognises at the start."""
    words = ("--yes", "--wipesignatures", "y", *(("--addtag", tag) if tag else ()))
    return ("lvcreate", *PAST_DRBD, *words, "--size", f"{size_bytes}b", "--name", volume.name, volume.group)


def snapshot(origin: VolumeName, name: VolumeName, tag: str, size_bytes: int | None) -> Argv:
    """A snapshot with room for ``size_bytes`` of changes; without a size a thin one, in its origin's pool."""
    size = () if size_bytes is None else ("--size", f"{size_bytes}b")
    return ("lvcreate", *PAST_DRBD, "--yes", "--snapshot", *size, "--addtag", tag, "--name", name.name, str(origin))


def activate(snapshot: VolumeName) -> Argv:
    """A thin snapshot is not active when it is made (lvmthin(7), "activation skip")."""
    return ("lvchange", *PAST_DRBD, "--activate", "y", "--ignoreactivationskip", str(snapshot))


def remove(volume: VolumeName) -> Argv:
    return ("lvremove", *PAST_DRBD, "--yes", str(volume))


def merge(snapshot: VolumeName) -> Argv:
    """Put a volume back to its snapshot, which is gone then; what is read meanwhile is the snapshot's already.

    In the background, for the copying takes as long as it takes (lvconvert(8), "--merge"). Of a volume that is open
    it would begin at the next activation.
    """
    return ("lvconvert", *PAST_DRBD, "--yes", "--merge", "--background", str(snapshot))


def extend(volume: VolumeName, size_bytes: int) -> Argv:
    """Make a volume ``size_bytes`` large in all."""
    return ("lvextend", *PAST_DRBD, "--size", f"{size_bytes}b", str(volume))


def rounded(size_bytes: int, extent_bytes: int) -> int:
    """What `create` really allocates."""
    return -(-size_bytes // extent_bytes) * extent_bytes


def parse_report(text: str) -> tuple[dict[VolumeName, LogicalVolume], dict[str, VolumeGroup]]:
    """The output of `REPORT`, a report for each group. Raises ValueError for anything that is not LVM's JSON."""
    volumes: dict[VolumeName, LogicalVolume] = {}
    groups: dict[str, VolumeGroup] = {}
    try:
        for report in json.loads(text)["report"]:
            # Physical volumes that are in no group yet come as a report without a "vg".
            for row in report.get("vg", ()):
                group = VolumeGroup(
                    row["vg_name"], int(row["vg_size"]), int(row["vg_free"]), int(row["vg_extent_size"])
                )
                groups[group.name] = group
                for volume in (_volume(group.name, row) for row in report["lv"]):
                    volumes[volume.name] = volume
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"not a report of LVM: {error}") from error
    return volumes, groups


def _volume(group: str, row: Mapping[str, Any]) -> LogicalVolume:
    major, minor = int(row["lv_kernel_major"]), int(row["lv_kernel_minor"])
    return LogicalVolume(
        VolumeName(group, row["lv_name"]),
        int(row["lv_size"]),
        row["lv_active"] == "active",
        row["lv_device_open"] == "open",
        (major, minor) if major >= 0 else None,
        frozenset(tag for tag in row["lv_tags"].split(",") if tag),
        row["origin"],
        row["pool_lv"],
        float(row["data_percent"]) if row["data_percent"] else None,
    )
