"""The watcher's duty of telling the kernel what no file says, because it changes: with the hour, and with the state."""

from datetime import datetime

from ..errors import ToolFailed
from ..execute import execute
from ..model import Site
from ..observed import Host
from ..plan import congestion, schedule
from ..run import run
from ..tools import drbd_dump


def keep(site: Site, host: Host) -> None:
    """A resource that was attached since the last look has what its file says: the limits of the whole line.

    Raises ToolFailed.
    """
    if not host.drbd:
        return
    shown = run(drbd_dump.RUNNING).stdout
    try:
        limits = drbd_dump.parse_rates(shown)
    except ValueError as error:
        raise ToolFailed(f"What drbdsetup shows is not understood: {error}.") from error
    # The hours of [schedule] are those of the clock on the wall.
    for step in schedule.steps(site, limits, datetime.now().astimezone()):
        execute(step, site)
    for step in congestion.steps(site, host, drbd_dump.parse_on_congestion(shown)):
        execute(step, site)
