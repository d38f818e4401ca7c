"""mountinfo, fstab(5), blkid(8), mount(8)."""

import re
from collections.abc import Iterable

from ..observed import Mount

Argv = tuple[str, ...]


def parse_mountinfo(text: str) -> tuple[Mount, ...]:
    """/proc/self/mountinfo (proc(5)); octal escapes in paths are undone."""
    mounts = []
    for line in text.splitlines():
        words = line.split(" ")
        if "-" not in words[6:]:
            continue
        dash = words.index("-", 6)
        major, _, minor = words[2].partition(":")
        devno, source = (int(major), int(minor)), _plain(words[dash + 2])
        mounts.append(Mount(devno, _plain(words[4]), words[dash + 1], source, _plain(words[3])))
    return tuple(mounts)


def _plain(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


IDENTITY_KEYS = ("UUID", "LABEL", "PARTUUID", "PARTLABEL")


def identity(path: str) -> Argv:
    """What is on a device, straight from the device and not from blkid's cache; exit code 2: nothing."""
    return ("blkid", "--probe", "--output", "export", path)


def forget_cached(path: str) -> Argv:
    """Drop what the page cache has of a device: DRBD writes to the volume under it past that cache."""
    return ("blockdev", "--flushbufs", path)


def parse_identity(text: str) -> dict[str, str]:
    """blkid's ``KEY=value`` lines (TYPE, UUID, LABEL …), without the backslashes that are meant for a shell."""
    return dict(re.sub(r"\\(.)", r"\1", line).split("=", 1) for line in text.splitlines() if "=" in line)


def zero(path: str, start: int, length: int) -> Argv:
    """Make a part of a device zeros, in bytes; refused for one that is in use (blkdiscard(8), since 2.36)."""
    return ("blkdiscard", "--zeroout", "--offset", f"{start}", "--length", f"{length}", path)


def flush(path: str) -> Argv:
    """What was written to a device is on the medium when this ends: fsync, which empties the disk's cache too."""
    return ("sync", path)


def mount(source: str, target: str) -> Argv:
    return ("mount", source, target)


def mount_made(source: str, target: str, *, listed: bool) -> Argv:
    """As `mount`, or where fstab has it as `mount_from_fstab`; a target that is missing is made (mount(8))."""
    return ("mount", "-o", "X-mount.mkdir", *(() if listed else (source,)), target)


def mount_from_fstab(target: str) -> Argv:
    return ("mount", target)


def flush_mounted(target: str) -> Argv:
    """To the disk with what is written to a mounted filesystem and still in memory."""
    return ("sync", "--file-system", target)


def unmount(target: str) -> Argv:
    return ("umount", target)


def check_before_mount(fstype: str, device: str) -> Argv | None:
    """Replay the journal and mend what is safe to mend, as at boot (e2fsck(8), -p: 0 and 1 are good, 4 is not).

    None for one that does so when it is mounted (fsck.xfs(8), fsck.btrfs(8)).
    """
    return ("e2fsck", "-p", device) if fstype in ("ext2", "ext3", "ext4") else None


def enlarge(fstype: str, device: str, target: str) -> Argv | None:
    """Let a mounted filesystem fill its device; None for one that cannot be enlarged while it is mounted."""
    match fstype:
        case "ext2" | "ext3" | "ext4":
            return ("resize2fs", device)
        case "xfs":
            return ("xfs_growfs", target)
        case "btrfs":
            return ("btrfs", "filesystem", "resize", "max", target)
        case _:
            return None


def fstab_sources(paths: Iterable[str], identity: dict[str, str]) -> frozenset[str]:
    """Every way in which fstab(5) may name a device that has these paths and this identity."""
    names = set(paths)
    for key in IDENTITY_KEYS:
        if value := identity.get(key):
            names |= {f"{key}={value}", f'{key}="{value}"', f"/dev/disk/by-{key.lower()}/{value}"}
    return frozenset(names)


def fstab_targets(text: str, sources: frozenset[str], unit: str = "") -> tuple[str, ...]:
    """Where fstab mounts any of ``sources``, or anything that requires ``unit``."""
    lines = map(str.split, text.splitlines())
    return tuple(_plain(words[1]) for words in lines if _names(words, sources) or _requires(words, unit))


WAS = "# before drbd-offsite: "
"""Begins a comment of fstab that keeps the line below it as it was."""


def fstab_mounts(text: str, target: str) -> bool:
    """Whether fstab says what is mounted at ``target``."""
    lines = (line.split() for line in text.splitlines() if not line.startswith("#"))
    return any(len(words) >= 3 and _plain(words[1]) == target for words in lines)


def fstab_automatic(text: str, target: str) -> bool:
    """Whether fstab has ``target`` mounted at boot."""
    lines = (line.split() for line in text.splitlines() if not line.startswith("#"))
    found = [words for words in lines if len(words) >= 3 and _plain(words[1]) == target]
    return any(len(words) < 4 or "noauto" not in words[3].split(",") for words in found)


def fstab_moved(text: str, sources: frozenset[str], device: str, unit: str) -> str:
    """fstab with the lines of ``sources`` mounting ``device`` instead, after ``unit`` has made it.

    ``nofail`` because a machine whose volume cannot be served must still boot and be repaired;
    the ordering because the device exists before it may be opened (systemd.mount(5)).
    """
    lines = text.splitlines(keepends=True)
    for number, line in enumerate(lines):
        words = line.split()
        if not _names(words, sources):
            continue
        options = [o for o in words[3].split(",") if o != "defaults"] if len(words) > 3 else []
        options += [o for o in ("nofail", _requirement(unit)) if o not in options]
        rest = words[4:] or ["0", "2"]
        moved = " ".join([device, *words[1:3], ",".join(options), *rest])
        lines[number] = WAS + line.removesuffix("\n") + "\n" + moved + "\n"
    return "".join(lines)


STARTS_DRBD = re.compile(r"x-systemd\.requires=drbd(?:\.service|@.+)\Z")
"""Has drbd-utils' own units started at boot, enabled or not; they know no hold."""


def fstab_restored(text: str, devices: frozenset[str], path: str, unit: str) -> str:
    """`fstab_moved` undone: the lines that it kept are back, and what else mounts a device of ours mounts ``path``.

    Nor does any other line require ``unit``, be it by UUID or for a bind mount: without its resource the unit fails,
    and with it every mount that requires it (systemd.mount(5)).
    """
    restored: list[str] = []
    for line in text.splitlines(keepends=True):
        words = line.split()
        if _names(words, devices):
            kept = restored and restored[-1].startswith(WAS)
            restored.append(_without_drbd(restored.pop().removeprefix(WAS) if kept else line, unit, path))
        else:
            restored.append(_without_drbd(line, unit) if _requires(words, unit) else line)
    return "".join(restored)


def _without_drbd(line: str, unit: str, path: str = "") -> str:
    """With ``path`` in the place of a DRBD device: one that was adopted had names that only its own file gave it."""
    words = line.split()
    options = words[3].split(",") if len(words) > 3 else []
    kept = [o for o in options if o != _requirement(unit) and not STARTS_DRBD.match(o)]
    replaced = path and line.lstrip().startswith("/dev/drbd")
    if kept == options and not replaced:
        return line
    return " ".join([path if replaced else words[0], *words[1:3], ",".join(kept or ["defaults"]), *words[4:]]) + "\n"


def fstab_replaced(text: str, old: str, new: str) -> str:
    """fstab with a device, or an option, for another one in all of its lines but comments; the rest stays as it is."""
    word = re.compile(rf"(?<![^\s,=]){re.escape(old)}(?![^\s,])")
    lines = text.splitlines(keepends=True)
    return "".join(line if line.startswith("#") else word.sub(lambda _: new, line) for line in lines)


def _names(words: list[str], sources: frozenset[str]) -> bool:
    return len(words) >= 3 and not words[0].startswith("#") and _plain(words[0]) in sources


def _requirement(unit: str) -> str:
    return f"x-systemd.requires={unit}"


def _requires(words: list[str], unit: str) -> bool:
    return len(words) > 3 and not words[0].startswith("#") and _requirement(unit) in words[3].split(",")
