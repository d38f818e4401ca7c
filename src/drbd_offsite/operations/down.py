"""Taking a resource down in order: the backup gets what it lacks, then it leaves the kernel."""

import time
from collections.abc import Callable

from .. import journal
from ..errors import Refused, ToolFailed
from ..execute import execute
from ..host import end_consultation, observe
from ..model import Flavour, Resource, Site
from ..observed import Forbidden, Host, Role
from ..plan.actions import Disconnect
from ..run import run
from ..tools import drbd, filesystem
from .catch_up import catch_up

UNMOUNT_SECONDS = 30.0
"""With CATCH_UP_SECONDS well below the unit's TimeoutStopSec. What is not sent by then is noted, and sent later."""


def down(site: Site, resource: Resource, shutdown: bool, tell: Callable[[str], None]) -> None:
    """Demote and remove a resource from the kernel. Raises Refused while it is mounted.

    At ``shutdown`` it is unmounted first, as systemd does with mounts that it knows to need the unit;
    otherwise a hold keeps the resource down.
    """
    host = observe(site)
    if shutdown:
        host = _unmount(site, resource, host)
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


def _unmount(site: Site, resource: Resource, host: Host) -> Host:
    """Unmount it wherever it is mounted; what still uses it is given a moment to end."""
    until = time.monotonic() + UNMOUNT_SECONDS
    while mounted := host.mounted_at(resource.here.minor):
        busy = run(filesystem.unmount(mounted[-1]), accept=None).returncode != 0
        if busy and time.monotonic() >= until:
            break
        time.sleep(0.5 if busy else 0.0)
        host = observe(site)
    return host
