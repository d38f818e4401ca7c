"""What DRBD does when the line is full: while a copy is made for the first time, and after. Pure.

With ``pull-ahead`` (what the resource's file says) no write waits for the line: the server goes ahead, and the resync
that makes up for it begins anew each time. As long as more is written than the line takes, no resync comes to its
end. The backup has a restore point then; before its first sync it has nothing.

With ``block`` a first sync ends whatever is written, and what is written waits. Seen with 3 MB/s for a line of
1 MB/s (DRBD 8.4.11): 96 MiB were there after 132 s, and the writer got a quarter of what it wanted, with single
writes of 17 s; with ``pull-ahead`` it got all of it, and the sync ended a minute after the writer.
"""

from collections.abc import Iterator, Mapping

from ..model import Congestion, Resource, Site
from ..observed import DiskState, Host, Role
from ..render import limits
from ..tools import drbd
from ..tools.drbd_dump import OnCongestion
from .actions import Run

_WHY = {
    Congestion.BLOCK: "its first sync comes to an end, for what is written waits for the line",
    Congestion.PULL_AHEAD: "no write waits for the line",
}


def first_sync(host: Host, resource: Resource) -> bool:
    """Whether the peer's copy is being made, as the side sees it that serves."""
    seen = host.drbd.get(resource.name)
    device = seen.peer_device if seen is not None and seen.connected and seen.role is Role.PRIMARY else None
    return device is not None and device.disk is DiskState.INCONSISTENT and resource.name not in host.complete


def steps(site: Site, host: Host, running: Mapping[str, OnCongestion]) -> Iterator[Run]:
    """What brings each connection that the kernel has (``running``: what it does now) to what it should do.

    One that never is congested has the options of files that were here before ours, until it is next brought up.
    """
    for resource in site.resources.values():
        seen, now = host.drbd.get(resource.name), running.get(resource.name)
        if seen is None or not seen.connected or now is None or now.fill == 0:
            continue
        peer = site.peer_of(resource)
        policy = site.first_sync if first_sync(host, resource) else Congestion.PULL_AHEAD
        wanted = OnCongestion(policy, limits(peer.link_speed).congestion_fill)
        if now != wanted:
            here = f"ipv4:{site.address_here(peer)}:{resource.here.port}"
            there = f"ipv4:{site.address_there(peer)}:{resource.there.port}"
            yield Run(drbd.on_congestion(here, there, *wanted), f"{resource.name}: {_WHY[policy]}")
