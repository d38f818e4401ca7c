"""Taking a resource out of the kernel, in the order in which nothing of it is lost."""

from collections.abc import Iterator

from ..errors import Refused
from ..model import Flavour, Replica, Site
from ..observed import Host, Role
from ..tools import drbd, filesystem
from .actions import Action, Disconnect, Run


def let_go(site: Site, host: Host, name: str, here: Replica, why: str) -> Iterator[Run]:
    """Nobody uses it any more. Raises Refused where it is mounted on the backup: that is somebody's work."""
    seen = host.drbd.get(name)
    if seen is None:
        return
    for target in reversed(host.mounted_at(here.minor)):
        if site.flavour is not Flavour.SERVER:
            raise Refused(f"{here.device} is mounted at {target} on {host.hostname}.", f"There: umount {target}")
        yield Run(filesystem.unmount(target), why)
    if seen.role is Role.PRIMARY:
        yield Run(drbd.adm("secondary", name), why)


def leave(host: Host, name: str, why: str) -> Iterator[Action]:
    """The kernel does not know it any more."""
    seen = host.drbd.get(name)
    if seen is None:
        return
    if not seen.standalone:
        yield Disconnect(name, why)
    yield Run(drbd.adm("down", name), why)
