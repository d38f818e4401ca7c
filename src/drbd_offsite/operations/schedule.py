"""The watcher's duty of telling the kernel what no file says, because it changes: with the hour, and with the state."""

from collections.abc import Iterator
from datetime import datetime

from ..errors import ToolFailed
from ..execute import execute
from ..model import Site
from ..observed import Host
from ..plan import congestion, schedule
from ..plan.actions import Run
from ..plan.repair import verifying
from ..run import run
from ..tools import drbd_dump
from . import repair


def keep(site: Site, host: Host) -> None:
    """A resource that was attached since the last look has what its file says: the limits of the whole line.
    One of which a slice has come to its end has those of the slice.

    Raises ToolFailed.
    """
    tell(site, host)


def tell(site: Site, host: Host, slice_of: str = "") -> None:
    """Tell the kernel what it does not know yet of this moment's limits; with the resource of which a slice is about
    to begin. Raises ToolFailed.
    """
    for step in remaining(site, host, slice_of):
        execute(step, site)


def remaining(site: Site, host: Host, slice_of: str = "") -> Iterator[Run]:
    """What `tell` has still to do. Raises ToolFailed."""
    if not host.drbd:
        return
    shown = run(drbd_dump.RUNNING).stdout
    try:
        limits, on_congestion = drbd_dump.parse_rates(shown), drbd_dump.parse_on_congestion(shown)
    except ValueError as error:
        raise ToolFailed(f"What drbdsetup shows is not understood: {error}.") from error
    sliced = {name for name, seen in host.drbd.items() if verifying(seen) and repair.compares_a_slice(name)}
    # The hours of [schedule] are those of the clock on the wall.
    yield from schedule.steps(site, limits, datetime.now().astimezone(), sliced | {slice_of})
    yield from congestion.steps(site, host, on_congestion)
