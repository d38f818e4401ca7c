"""The watcher's duty of limiting resyncs to what the schedule leaves them, also while one runs."""

from datetime import datetime

from ..errors import ToolFailed
from ..execute import execute
from ..model import Site
from ..observed import Host
from ..plan import schedule as plan
from ..run import run
from ..tools import drbd_dump


def keep(site: Site, host: Host) -> None:
    """A resource that was attached since the last look has the limits of its file, which are those of the whole line.

    Raises ToolFailed.
    """
    if not host.drbd:
        return
    try:
        running = drbd_dump.parse_rates(run(drbd_dump.RUNNING).stdout)
    except ValueError as error:
        raise ToolFailed(f"What drbdsetup shows is not understood: {error}.") from error
    # The hours of [schedule] are those of the clock on the wall.
    for step in plan.steps(site, running, datetime.now().astimezone()):
        execute(step, site)
