"""Bytes through a line, as many as it takes for a while: one machine sends them, the other one counts what arrives.

What was sent would say little: buffers on the way take megabytes at once.
"""

import os
import select
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from ..errors import ToolFailed

SECONDS = 10.0
MOST_BYTES = 128 * 2**20
"""So long and so much either machine sends or takes at most, whatever the other one does."""

WARM_UP_SECONDS = 2.0
WARM_UP_BYTES = MOST_BYTES // 4
"""Not counted, whichever is over first: TCP begins slowly (RFC 5681, slow start), and empty buffers take a burst."""

SILENCE_SECONDS = 15.0
"""Without a byte: then the other machine, or the line, is gone."""

PROBES = 8

_CHUNK = 2**16
_BLOCK = 2**18
"""Repeated, and larger than what deflate, LZO and LZ4 look back (32 to 64 KiB), so that nothing makes less of it."""

Progress = Callable[[float, int], None]
"""Is told again and again how many seconds have passed, and how many bytes were moved."""


@dataclass(frozen=True, slots=True)
class Counted:
    size_bytes: int
    seconds: float
    """More than 0."""


def silent(_: float, __: int) -> None:
    pass


def send(
    sink: int, answer: int | None = None, progress: Progress = silent, clock: Callable[[], float] = time.monotonic
) -> int:
    """Send until it was long or much enough, the other end has gone, or there is something to be read from ``answer``.

    Returns how many bytes were sent.
    """
    block = memoryview(os.urandom(_BLOCK))
    os.set_blocking(sink, False)
    poller = select.poll()
    poller.register(sink, select.POLLOUT)
    if answer is not None:
        poller.register(answer, select.POLLIN)
    sent, begun = 0, clock()
    with suppress(BrokenPipeError, ConnectionResetError):
        while sent < MOST_BYTES and (passed := clock() - begun) < SECONDS:
            progress(passed, sent)
            ready = {descriptor for descriptor, _ in poller.poll((SECONDS - passed) * 1000)}
            if answer in ready:
                break
            if sink in ready:
                at = sent % _BLOCK
                with suppress(BlockingIOError):
                    sent += os.write(sink, block[at : at + MOST_BYTES - sent])
    return sent


def receive(source: int, progress: Progress = silent, clock: Callable[[], float] = time.monotonic) -> Counted:
    """Take what comes until it was long or much enough, or there is no more; what came after the warm-up.

    Raises ToolFailed where nothing comes, or too little to tell.
    """
    total = len(_read(source, _CHUNK))
    begun = last = clock()
    warm: tuple[int, float] | None = None
    while 0 < total < MOST_BYTES and last - begun < SECONDS:
        progress(last - begun, total)
        data = _read(source, min(_CHUNK, MOST_BYTES - total))
        if not data:
            break
        total += len(data)
        last = clock()
        if warm is None and (last - begun >= WARM_UP_SECONDS or total >= WARM_UP_BYTES):
            warm = total, last
    if warm is None or last <= warm[1]:
        raise ToolFailed(f"it ended after {total} bytes, too few to tell")
    return Counted(total - warm[0], last - warm[1])


def round_trip(source: int, sink: int, clock: Callable[[], float] = time.monotonic) -> float:
    """Seconds that the quickest of some single bytes took there and back. Raises ToolFailed, ConnectionError."""
    trips = []
    for _ in range(PROBES):
        sent = clock()
        os.write(sink, b".")
        _byte(source)
        trips.append(clock() - sent)
    return min(trips)


def echo(source: int, sink: int) -> None:
    """The other end of `round_trip`."""
    for _ in range(PROBES):
        os.write(sink, _byte(source))


def _byte(source: int) -> bytes:
    data = _read(source, 1)
    if not data:
        raise ToolFailed("it ended before it began")
    return data


def _read(source: int, most: int) -> bytes:
    """Empty at the end."""
    ready, _, _ = select.select([source], [], [], SILENCE_SECONDS)
    if not ready:
        raise ToolFailed(f"for {SILENCE_SECONDS:.0f} s nothing came through")
    return os.read(source, most)
