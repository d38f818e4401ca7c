"""Files that are whole or not there, and locks that end with their process."""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import Refused

LOCKS = Path("/run/drbd-offsite")


def read(path: Path) -> str | None:
    """The text of a file; None where it is not there."""
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:
        return None


def write(path: Path, text: str, mode: int) -> None:
    """Replace a file in one step; after a power cut there is the old text or the new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode)
    try:
        with open(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
            os.fchmod(descriptor, mode)
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_directory(path.parent)


def remove(path: Path) -> None:
    """Remove a file for good; one that is not there is no error."""
    path.unlink(missing_ok=True)
    if path.parent.exists():
        _sync_directory(path.parent)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def lock(
    name: str,
    wait: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[None]:
    """Hold the lock ``name``, waiting at most ``wait`` seconds for another process (Refused)."""
    LOCKS.mkdir(mode=0o700, exist_ok=True)
    path = LOCKS / f"{name}.lock"
    with path.open("a", encoding="ascii") as file:
        until = clock() + wait
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if clock() >= until:
                    raise Refused(
                        f"Another drbd-offsite command is at work on {name}.",
                        "Wait for it to end; drbd-offsite status shows operations under way.",
                    ) from None
                sleep(0.1)
        yield
