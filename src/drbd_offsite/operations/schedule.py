"""The watcher's duty of limiting resyncs to what the schedule leaves them, also while one runs."""

from collections.abc import Iterator
from datetime import datetime

from ..errors import ToolFailed
from ..execute import execute
from ..model import Site
from ..observed import Host
from ..plan import schedule as plan
from ..plan.actions import Run
from ..run import run
from ..tools import drbd_dump


def keep(site: Site, host: Host) -> None:
    """A resource that was attached since the last look has the limits of its file, which are those of the whole line.

    Raises ToolFailed.
    """
    for step in remaining(site, host):
        execute(step, site)


def remaining(site: Site, host: Host) -> Iterator[Run]:
    """What brings the kernel's limits to those of this hour. Raises ToolFailed."""
    if not host.drbd:
        return
    try:
        running = drbd_dump.parse_rates(run(drbd_dump.RUNNING).stdout)
    except ValueError as error:
        raise ToolFailed(f"What drbdsetup shows is not understood: {error}.") from error
    # The hours of [schedule] are those of the clock on the wall.
    yield from plan.steps(site, running, datetime.now().astimezone())
