"""Mounts that nobody else sees, and that go with the processes that see them."""

import ctypes
import os

from .errors import ToolFailed
from .run import run

CLONE_NEWNS = 0x00020000
"""linux/sched.h; Python has os.unshare since 3.12."""

TAKE_ONLY = ("mount", "--make-rslave", "/")
"""What is unmounted elsewhere is so here too, and nothing of ours is seen there."""


def private() -> None:
    """From now on this process mounts for itself and for what it starts. Raises ToolFailed."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS) != 0:
        reason = os.strerror(ctypes.get_errno())
        raise ToolFailed(f"No place can be made where only drbd-offsite sees what it mounts: {reason}.")
    run(TAKE_ONLY)
