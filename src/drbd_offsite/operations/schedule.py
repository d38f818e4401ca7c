"""The watcher's duty of limiting resyncs to what the schedule leaves them, also while one runs."""

from collections.abc import Collection
from datetime import datetime

from ..errors import ToolFailed
from ..execute import execute
from ..model import Site
from ..observed import Host
from ..plan import schedule as plan
from ..plan.repair import verifying
from ..run import run
from ..tools import drbd_dump
from . import repair


def keep(site: Site, host: Host) -> None:
    """A resource that was attached since the last look has the limits of its file, which are those of the whole line;
    one of which a slice has come to its end has those of the slice.

    Raises ToolFailed.
    """
    if host.drbd:
        tell(site, slicing(host))


def slicing(host: Host) -> set[str]:
    """Resources of which a slice is being compared."""
    return {name for name, seen in host.drbd.items() if verifying(seen) and repair.compares_a_slice(name)}


def tell(site: Site, sliced: Collection[str]) -> None:
    """Tell the kernel what it does not know yet of this time's limits. Raises ToolFailed."""
    try:
        running = drbd_dump.parse_rates(run(drbd_dump.RUNNING).stdout)
    except ValueError as error:
        raise ToolFailed(f"What drbdsetup shows is not understood: {error}.") from error
    # The hours of [schedule] are those of the clock on the wall.
    for step in plan.steps(site, running, datetime.now().astimezone(), sliced):
        execute(step, site)
