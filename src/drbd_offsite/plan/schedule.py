"""What share of a line resyncs may take now, and what tells the kernel so."""

from collections.abc import Iterator, Mapping
from datetime import datetime

from ..model import Resource, Site
from ..render import limits
from ..tools import drbd
from ..tools.drbd_dump import ResyncLimits
from .actions import Run


def resync_limits(site: Site, resource: Resource, share: int = 100) -> ResyncLimits:
    """With that many percent of the line."""
    wanted = limits(site.peer_of(resource).link_speed, resource.resync_rate, share)
    return ResyncLimits(wanted.max_rate, wanted.min_rate, wanted.fill_target)


def steps(site: Site, running: Mapping[int, ResyncLimits], at: datetime) -> Iterator[Run]:
    """What brings the limits that the kernel has (by minor; of what is attached) to those of this time of the week."""
    share = site.line_share(at)
    for resource in site.resources.values():
        wanted = resync_limits(site, resource, share)
        if running.get(resource.here.minor, wanted) != wanted:
            argv = drbd.resync_rate(resource.here.minor, *wanted)
            yield Run(argv, f"{resource.name}: resyncs may take {share} % of the line now")
