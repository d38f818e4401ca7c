"""What saves an empty volume its first sync: proof that there is nothing but zeros here, and zeros made there."""

import os
import time
from collections.abc import Callable

from .. import host, journal
from ..model import VolumeName
from ..observed import Operation
from ..plan.task import Task
from ..run import run
from ..tools import filesystem

PROBE_BYTES = 64 * 2**20
"""What holds data shows it in the first of these, almost always."""

BLOCK = 4 * 2**20
TELL_SECONDS = 30.0

ZERO_BYTES = 256 * 2**20
ZERO_TIMEOUT = 120.0
"""For each of the two programs of a part."""

ZERO_SECONDS = 30.0
"""With one more part that takes its whole time, 270 s in all, a request stays far below `peer.ANSWER_SECONDS`."""


def share(done: int, size_bytes: int) -> str:
    return f"{done / size_bytes:.1%} of {size_bytes / 2**20:,.0f} MiB"


def only_zeros(volume: VolumeName, size_bytes: int, tell: Callable[[str], None]) -> bool:
    """Whether so many bytes of a volume can be read and are zeros; ends at the first other one.

    They are read from the disk: what the cache had is dropped first, and nothing is left in it.
    """
    zeros = bytes(BLOCK)
    told = time.monotonic()
    try:
        descriptor = os.open(host.DEVICES / volume.group / volume.name, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        for start in range(0, size_bytes, BLOCK):
            length = min(BLOCK, size_bytes - start)
            if os.pread(descriptor, length, start) != zeros[:length]:
                return False
            os.posix_fadvise(descriptor, start, length, os.POSIX_FADV_DONTNEED)
            if time.monotonic() - told >= TELL_SECONDS:
                told = time.monotonic()
                tell(f"{volume} is empty as far as it was read: {share(start, size_bytes)}")
    except OSError:  # what cannot be read is no proof
        return False
    finally:
        os.close(descriptor)
    return True


def zero(operation: Operation) -> Operation:
    """Go on making the copy's volume zeros for a bounded time; returns how the operation is now.

    What is noted is on the medium: after a power cut nothing of before comes back. Raises ToolFailed, also for a
    volume that somebody uses.
    """
    task = Task.of(operation)
    path = task.here.volume.path
    ends = time.monotonic() + ZERO_SECONDS
    done = task.zeroed_bytes
    while done < task.size_bytes and time.monotonic() < ends:
        length = min(ZERO_BYTES, task.size_bytes - done)
        run(filesystem.zero(path, done, length), timeout=ZERO_TIMEOUT)
        run(filesystem.flush(path), timeout=ZERO_TIMEOUT)
        done += length
        operation = journal.begin(operation.verb, task.name, {**operation.parameters, "zeroed_bytes": done})
    return operation
