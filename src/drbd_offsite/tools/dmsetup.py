"""dmsetup(8), for the one device that LVM cannot make: a snapshot of a snapshot."""

from enum import StrEnum

Argv = tuple[str, ...]

SECTOR_BYTES = 512
CHUNK_SECTORS = 8
"""4 KiB, as LVM's own snapshots have it."""


class State(StrEnum):
    """What becomes of a snapshot (dm-snap.c, snapshot_status)."""

    WELL = "well"
    FULL = "full"
    """What did not fit any more is lost, and with it all of it."""
    WIPED = "wiped"
    """It has another table in its place, which fails every read."""


def path(name: str) -> str:
    return f"/dev/mapper/{name}"


def lay_over(name: str, origin: str, room: str, size_bytes: int) -> Argv:
    """A device that reads as ``origin`` does, and keeps in ``room`` what is written to it.

    N: what is in the room is known to the kernel alone, so that nobody finds it after a boot.
    """
    table = f"0 {size_bytes // SECTOR_BYTES} snapshot {origin} {room} N {CHUNK_SECTORS}"
    return ("dmsetup", "create", name, "--table", table)


def status(name: str) -> Argv:
    return ("dmsetup", "status", name)


def parse_status(text: str) -> State:
    """``0 196608 snapshot 16/8192 0``, with a word in the place of the numbers for one that is worth nothing."""
    words = text.split()
    if words[2:3] != ["snapshot"]:
        return State.WIPED
    # "Overflow": full, and not written to since. "Merge failed" cannot be.
    return State.FULL if words[3:4] in (["Invalid"], ["Overflow"]) else State.WELL


def wipe(name: str) -> Argv:
    """Let go of what lies below at once, whoever has it open or mounted: every read fails from then on."""
    return ("dmsetup", "wipe_table", "--noflush", "--nolockfs", name)


def remove(name: str) -> Argv:
    """``--retry``: udev may look at it yet."""
    return ("dmsetup", "remove", "--retry", name)
