"""Waiting for the backup to have what is on its way to it."""

import time
from collections.abc import Callable

from ..host import observe
from ..model import Site
from ..observed import Host

CATCH_UP_SECONDS = 60.0


def behind(host: Host, name: str) -> bool:
    """Whether the backup lacks something, and waiting has a point."""
    seen = host.drbd.get(name)
    return seen is not None and seen.catching_up


def catch_up(site: Site, name: str, tell: Callable[[str], None]) -> bool:
    """Wait for the backup where that has a point; returns whether it did not get everything in time."""
    until = time.monotonic() + CATCH_UP_SECONDS
    told = False
    while behind(observe(site), name):
        if time.monotonic() >= until:
            return True
        if not told:
            tell(f"{name}: sending the backup what it lacks, at most {CATCH_UP_SECONDS:.0f} s …")
            told = True
        time.sleep(0.5)
    return False
