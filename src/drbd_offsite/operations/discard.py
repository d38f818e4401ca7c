"""Giving up the changes on this machine after a split brain, so that the other copy is taken over."""

from collections.abc import Callable

from .. import files, journal
from ..errors import Refused
from ..host import observe
from ..model import Resource, Site
from ..observed import Forbidden, Role
from ..reconcile import LOCK_SECONDS
from ..run import run
from ..tools import drbd
from .evidence import SETTER
from .restore_point import DISCARDS, nothing_kept


def discard_here(site: Site, resource: Resource, safety_net: bool, tell: Callable[[str], None]) -> None:
    """Have the other copy overwrite what was changed here; what it overwrites is kept in a snapshot first.

    The snapshot is taken by before-resync-target, which alone knows how much will be overwritten, and refuses
    the resync where there is no room for it. Raises Refused where there is no split brain, or it is in use.
    """
    with files.lock(f"resource-{resource.name}", LOCK_SECONDS):
        host = observe(site)
        if not any(hold.set_by == SETTER for hold in host.holds.get(resource.name, ())):
            raise Refused(
                f"{resource.name} is in no split brain, so nothing here has to be discarded.",
                f"drbd-offsite status {resource.name} says how it is.",
            )
        if mounted := host.mounted_at(resource.here.minor):
            raise Refused(
                f"{resource.name} is mounted at {', '.join(mounted)}, and what is changed here is to be discarded.",
                f"Stop what uses it and umount {mounted[0]}, then again.",
            )
        nothing_kept(site, resource)
        journal.remember(DISCARDS, resource.name, {"safety_net": safety_net})
        # Or the circle would serve it again before the other copy is here.
        reason = "the changes here are given up; it is not served before the other copy has been taken over"
        journal.hold(resource.name, reason, frozenset({Forbidden.PROMOTE}), DISCARDS)
        seen = host.drbd.get(resource.name)
        if seen is not None and seen.role is Role.PRIMARY:
            run(drbd.adm("secondary", resource.name))
        run(drbd.adm("connect", resource.name, "--discard-my-data"))
        journal.lift(resource.name, "connect --discard-here", set_by=SETTER)
    tell(f"{resource.name}: waiting for the other copy; there: drbd-offsite connect {resource.name}")
