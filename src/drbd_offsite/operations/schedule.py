"""The watcher's duty of telling the kernel what no file says, because it changes: with the hour, and with the state."""

from collections.abc import Iterator
from datetime import datetime

from ..errors import ToolFailed
from ..execute import execute
from ..model import Site
from ..observed import Host
from ..plan import congestion, schedule
from ..plan.actions import Run
from ..run import run
from ..tools import drbd_dump


def keep(site: Site, host: Host) -> None:
    """A resource that was attached since the last look has what its file says: the limits of the whole line.

    Raises ToolFailed.
    """
    for step in remaining(site, host):
        execute(step, site)


def remaining(site: Site, host: Host) -> Iterator[Run]:
    """What brings the kernel's limits to those of this hour. Raises ToolFailed."""
    if not host.drbd:
        return
    shown = run(drbd_dump.RUNNING).stdout
    try:
        limits = drbd_dump.parse_rates(shown)
    except ValueError as error:
        raise ToolFailed(f"What drbdsetup shows is not understood: {error}.") from error
    # The hours of [schedule] are those of the clock on the wall.
    yield from schedule.steps(site, limits, datetime.now().astimezone())
    yield from congestion.steps(site, host, drbd_dump.parse_on_congestion(shown))
