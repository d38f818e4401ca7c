"""What the watcher sees to beside the circle, at each full look and when a handler has rung."""

from collections.abc import Callable

from ..errors import OffsiteError
from ..model import Site
from ..observed import Host
from . import alerting, drill, evidence, history, inspect, metrics, remove, repair, restore_point, schedule, slices

DUTIES: tuple[Callable[[Site, Host], None], ...] = (
    evidence.gather,
    schedule.keep,
    restore_point.look_after,
    repair.follow_up,
    slices.follow_up,
    remove.follow_up,
    inspect.sweep,
    drill.follow_up,
    history.keep,
    alerting.review,
    metrics.leave,
)
"""In this order: an alert says what the ones before it have found out. It waits for nothing that nobody needs."""


def see_to(site: Site, host: Host, tell: Callable[[str], None]) -> None:
    """Each of them; one that fails does not keep the others back, and is tried again at the next look."""
    for duty in DUTIES:
        try:
            duty(site, host)
        except OffsiteError as error:
            tell(f"{error.message} {error.hint}")
        except OSError as error:  # a full disk, above all: the watcher goes on without its notes
            tell(f"Not everything could be noted: {error}.")
