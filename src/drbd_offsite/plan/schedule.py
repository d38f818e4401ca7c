"""What share of a line resyncs may take now, and what tells the kernel so."""

from collections.abc import Iterator, Mapping
from datetime import datetime

from ..model import Site
from ..render import limits
from ..tools import drbd
from ..tools.drbd_dump import Rates
from .actions import Run


def steps(site: Site, running: Mapping[int, Rates], at: datetime) -> Iterator[Run]:
    """What brings the limits that the kernel has (by minor; of what is attached) to those of this time of the week."""
    share = site.line_share(at)
    for resource in site.resources.values():
        wanted = limits(site.peer_of(resource).link_speed, resource.resync_rate, share)
        rates = Rates(wanted.max_rate, wanted.min_rate, wanted.fill_target)
        if running.get(resource.here.minor, rates) != rates:
            argv = drbd.resync_rate(resource.here.minor, wanted.max_rate, wanted.min_rate, wanted.fill_target)
            yield Run(argv, f"{resource.name}: resyncs may take {share} % of the line now")
