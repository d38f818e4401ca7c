"""How each filesystem is looked at without a word of the admin's: its journal, its check, and how it is mounted."""

import re
from dataclasses import dataclass

from .contained import Argv, mortal

_LOCKED_UP = "nodev,nosuid,noexec"
"""It is data: nothing of it is run here, and none of its device nodes is one."""


@dataclass(frozen=True, slots=True)
class Way:
    """Of one filesystem on one device. What writes, writes to a snapshot."""

    check: Argv
    """Changes nothing; an exit code of 0 says that nothing is wrong."""
    options: str
    """To mount it with."""
    replay: Argv = ()
    """Brings what its journal has to its place; an exit code of 0 says that nothing else had to be done."""
    replaying_options: str = ""
    """The same by a mount, where there is no program for it."""


def way(fstype: str, device: str) -> Way | None:
    """None for a filesystem that is not known here."""
    match fstype:
        case "ext2" | "ext3" | "ext4":
            # -p refuses what -y would cover up (a journal that is no longer one), and with journal_only it repairs
            # nothing; it also removes the files that were deleted and still open, which a check takes for a fault.
            # errors=: the filesystem itself may say "panic".
            return Way(
                check=mortal(("e2fsck", "-f", "-n", device)),
                options=f"ro,errors=remount-ro,{_LOCKED_UP}",
                replay=mortal(("e2fsck", "-p", "-E", "journal_only", device)),
            )
        case "xfs":
            # nouuid: the volume itself has the same.
            return Way(
                check=mortal(("xfs_repair", "-n", device)),
                options=f"ro,nouuid,norecovery,{_LOCKED_UP}",
                replaying_options=f"nouuid,{_LOCKED_UP}",
            )
        case "btrfs":
            # It is whole without its log, which a mount replays, also a read-only one. The subvolume that holds all.
            return Way(check=mortal(("btrfs", "check", "--readonly", device)), options=f"ro,subvolid=5,{_LOCKED_UP}")
        case _:
            return None


def mount(fstype: str, device: str, directory: str, options: str) -> Argv:
    return ("mount", "-t", fstype, "-o", options, device, directory)


NOT_THE_DATA = (
    "unknown filesystem type", "permission denied", "must be superuser", "mount point does not exist",
    "unsupported feature", "allocate memory",
)  # fmt: skip
"""In what mount, or a check, says where the reason is this machine."""


def forget(device: str) -> Argv:
    """Have the kernel forget that btrfs is on a device: of two with one identity it takes the newer for the other
    (fs/btrfs/volumes.c, device_list_add). It fails for one that the kernel does not know.
    """
    return ("btrfs", "device", "scan", "--forget", device)


def super_block(device: str) -> Argv:
    return ("btrfs", "inspect-internal", "dump-super", device)


def parse_devices(text: str) -> int:
    """Over how many devices a btrfs goes, from `super_block`; 1 where it does not say."""
    match = re.search(r"^num_devices\s+(\d+)$", text, re.MULTILINE)
    return int(match[1]) if match else 1
