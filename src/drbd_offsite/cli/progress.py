"""A first sync, or any resync, as a bar on a terminal and as plain lines elsewhere."""

import sys
import time
from collections.abc import Callable, Sequence
from functools import partial

from ..errors import ExitCode
from ..host import observe
from ..model import Site
from ..observed import DiskState, DrbdResource, Host, Progress, ReplicationState

SECONDS = 1.0
LINE_SECONDS = 30.0
"""Between two lines where there is no terminal."""

WIDTH = 30


Describe = Callable[[DrbdResource | None, Progress | None], tuple[str, bool]]


def await_sync(site: Site, *names: str) -> int:
    """Follow resources until all of their copies are up to date; Ctrl-C leaves the syncs running."""
    _show(site, partial(together, names))
    return ExitCode.DONE


def follow(site: Site, name: str, say: Describe) -> None:
    """Show what ``say`` makes of a resource, until it says that there is nothing more to wait for."""

    def of_one(host: Host) -> tuple[str, bool]:
        line, finished = _said(host, name, say)
        return f"{name}: {line}", finished

    _show(site, of_one)


class Line:
    """One line that says how far something is: always the same one on a terminal, now and then a new one elsewhere."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._last = -LINE_SECONDS
        self._open = False

    def show(self, text: str, *, last: bool = False) -> None:
        if self._terminal:
            sys.stderr.write(f"\r\x1b[K{text}")
            sys.stderr.flush()
            self._open = True
        elif last or time.monotonic() - self._last >= LINE_SECONDS:
            print(text, file=sys.stderr, flush=True)
            self._last = time.monotonic()

    def end(self) -> None:
        """What comes next begins a line of its own."""
        if self._open:
            print(file=sys.stderr)
            self._open = False


def _show(site: Site, say: Callable[[Host], tuple[str, bool]]) -> None:
    line = Line()
    host = observe(site)
    while True:
        text, finished = say(host)
        line.show(text, last=finished)
        if finished:
            line.end()
            return
        time.sleep(SECONDS)
        host = observe(site)


def _said(host: Host, name: str, say: Describe) -> tuple[str, bool]:
    seen = host.drbd.get(name)
    return say(seen, host.progress.get(seen.volumes[0].minor) if seen and seen.volumes else None)


def together(names: Sequence[str], host: Host) -> tuple[str, bool]:
    """One line about several syncs, and whether there is nothing more to wait for in any of them.

    It is about the one that runs, or the first that waits for something; at last about all.
    """
    said = {name: _said(host, name, describe) for name in names}
    waiting = [name for name, (_, finished) in said.items() if not finished]
    if not waiting:
        lines = dict.fromkeys(line for line, _ in said.values())
        return "; ".join(f"{', '.join(n for n in names if said[n][0] == line)}: {line}" for line in lines), True
    first = next((name for name in waiting if _runs(host.drbd[name])), waiting[0])
    others = len(waiting) - 1
    return f"{first}: {said[first][0]}" + (f"; {others} more to come" if others else ""), False


def _runs(seen: DrbdResource) -> bool:
    device = seen.peer_device
    return device is not None and device.replication in (ReplicationState.SYNC_SOURCE, ReplicationState.SYNC_TARGET)


def describe(seen: DrbdResource | None, progress: Progress | None) -> tuple[str, bool]:
    """One line about a sync, and whether there is nothing more to wait for."""
    if seen is None:
        return "it is not up", True
    device = seen.peer_device
    if device is None or seen.connection is None or seen.standalone:
        return "not connected; the sync goes on once it is, and drbd-offsite status says what keeps it", True
    if seen.disk is DiskState.UP_TO_DATE and device.disk is DiskState.UP_TO_DATE:
        return "both copies are up to date", True
    if device.replication.resyncing:
        percent = progress.done_percent if progress else device.done_percent
        return bar(percent, device.out_of_sync_bytes, progress), False
    return f"{seen.connection.state}, {device.replication}; the backup's copy is {device.disk}", False


def bar(percent: float | None, left: int, progress: Progress | None) -> str:
    """What is done, and how many bytes are left."""
    share = min(max((percent or 0.0) / 100, 0.0), 1.0)
    text = f"[{'=' * int(share * WIDTH):<{WIDTH}}] {share:6.1%}, {left / 2**20:,.0f} MiB left"
    if progress and progress.speed_bytes:
        text += f", {progress.speed_bytes / 2**20:.1f} MiB/s"
    if progress and progress.finish_seconds is not None:
        hours, rest = divmod(progress.finish_seconds, 3600)
        text += f", {hours}:{rest // 60:02}:{rest % 60:02} to go"
    return text
