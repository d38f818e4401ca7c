"""Taking a resource down in order: the backup gets what it lacks, then it leaves the kernel."""

from collections.abc import Callable

from .. import journal
from ..errors import Refused, ToolFailed
from ..execute import execute
from ..host import end_consultation, observe
from ..model import Flavour, Resource, Site
from ..observed import Forbidden, Role
from ..plan.actions import Disconnect
from ..run import run
from ..tools import drbd
from .catch_up import catch_up
from .mounts import unmount


def down(site: Site, resource: Resource, shutdown: bool, tell: Callable[[str], None]) -> None:
    """Demote and remove a resource from the kernel. Raises Refused while it is mounted.

    At ``shutdown`` it is unmounted first, as systemd does with mounts that it knows to need the unit;
    otherwise a hold keeps the resource down.
    """
    if shutdown:
        unmount(site, resource)
    host = observe(site)
    if mounted := host.mounted_at(resource.here.minor):
        raise Refused(f"{resource.name} is mounted at {', '.join(mounted)}.", f"umount {mounted[0]}, then again.")
    if not shutdown:
        journal.hold(resource.name, "it was taken down by hand", frozenset(Forbidden), "down")
    end_consultation(resource.name)
    seen = host.drbd.get(resource.name)
    if seen is None:
        return
    try:
        if seen.role is Role.PRIMARY:
            run(drbd.adm("secondary", resource.name))
        if site.flavour is Flavour.SERVER and catch_up(site, resource.name, tell):
            tell(f"{resource.name}: the backup still lacks changes; they are noted, and sent when both are up again")
        if seen.connection is not None:
            execute(Disconnect(resource.name, "it is taken down"), site)
        run(drbd.adm("down", resource.name))
    except ToolFailed as error:
        error.hint = error.hint or f"See what uses it: fuser -v {resource.here.device}"
        raise
    journal.record("down", resource.name, "It was taken down.")
    tell(f"{resource.name}: down; its data stays on {resource.here.volume}")
