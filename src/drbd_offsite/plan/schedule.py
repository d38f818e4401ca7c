"""What share of a line resyncs may take now, at which rate slices are compared, and what tells the kernel so."""

from collections.abc import Collection, Iterator, Mapping
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


def slice_limits(site: Site, resource: Resource, share: int) -> ResyncLimits:
    """A verify reads no more than c-max-rate of the machine that has begun it (drbd_worker.c, make_ov_request).

    Above c-min-rate the application's I/O goes first in any case.
    """
    return resync_limits(site, resource, share)._replace(max_rate=site.verify.rate * 1024)


def steps(site: Site, running: Mapping[int, ResyncLimits], at: datetime, sliced: Collection[str] = ()) -> Iterator[Run]:
    """What brings the limits that the kernel has (by minor; of what is attached) to those of this time of the week.

    ``sliced`` names the resources of which a slice is being compared, or is about to be.
    """
    share = site.line_share(at)
    for resource in site.resources.values():
        why = f"{resource.name}: resyncs may take {share} % of the line now"
        wanted = resync_limits(site, resource, share)
        if resource.name in sliced:
            why = f"{resource.name}: a slice is compared at {site.verify.rate} MiB/s at most"
            wanted = slice_limits(site, resource, share)
        if running.get(resource.here.minor, wanted) != wanted:
            yield Run(drbd.resync_rate(resource.here.minor, *wanted), why)
