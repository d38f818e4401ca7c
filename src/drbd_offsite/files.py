"""Files that are whole or not there, and locks that end with their process."""

import fcntl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from . import durable
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
    durable.replace(str(path), text.encode("utf-8", errors="surrogateescape"), mode)


def remove(path: Path) -> None:
    """Remove a file for good; one that is not there is no error."""
    path.unlink(missing_ok=True)
    if path.parent.exists():
        durable.sync_directory(str(path.parent))


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
    with path.open("a", encoding="utf-8") as file:
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
