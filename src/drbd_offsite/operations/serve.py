"""The backup in the server's place: Primary, checked, mounted, failover.d started; and the reverse of it."""

import time
from collections.abc import Callable, Iterator

from .. import alert, files, hooks, journal
from ..errors import OffsiteError, Refused, ToolFailed
from ..host import SERVING, identity, identity_below, observe
from ..model import Flavour, Resource, Site
from ..observed import Host, Operation, Role
from ..plan import serve as plan
from ..plan.actions import Action
from ..run import run
from ..tools import drbd
from .drive import drive
from .half import FSTAB
from .mounts import unmount

HOOKS = "failover.d"
"""The directory of scripts, below the settings'."""
LOCK_SECONDS = 30.0

DRAIN_SECONDS = 60.0

Tell = Callable[[str], None]


def serve(resource: Resource, tell: Tell) -> None:
    """Serve a resource from this machine, the backup, or finish doing so; under the resource's lock."""
    operation = journal.operations().get(f"{plan.VERB}-{resource.name}")
    drive(operation or journal.begin(plan.VERB, resource.name, plan.PARAMETERS), _steps, tell)


def resume(site: Site, names: list[str], tell: Tell) -> None:
    """After a boot: what this machine serves is mounted again, and what belongs to it started."""
    for name in names:
        if name in journal.remembered(SERVING) and not _complete(site, name):
            with files.lock(f"resource-{name}", LOCK_SECONDS):
                serve(site.resources[name], tell)


def _complete(site: Site, name: str) -> bool:
    """Nothing is unfinished, and it is mounted if it is to be."""
    host = observe(site)
    resource = site.resources[name]
    seen = host.drbd.get(name)
    unfinished = any(operation.resource == name for operation in host.operations.values())
    primary = seen is not None and seen.role is Role.PRIMARY
    return not unfinished and primary and bool(not resource.mount or host.mounted_at(resource.here.minor))


def _steps(site: Site, host: Host, operation: Operation) -> Iterator[Action]:
    return plan.remaining(site, host, operation, found(host, site.resources[operation.resource]))


def found(host: Host, resource: Resource) -> plan.Found:
    """What the steps depend on beside a look."""
    return plan.Found(_fstype(host, resource), files.read(FSTAB) or "", to_run())


def _fstype(host: Host, resource: Resource) -> str:
    if not resource.mount or host.mounted_at(resource.here.minor):
        return ""
    seen = host.drbd.get(resource.name)
    if seen is not None and seen.role is Role.PRIMARY:
        return identity(resource.here.device).get("TYPE", "")
    return identity_below(resource.here.volume).get("TYPE", "")


def to_run() -> tuple[str, ...]:
    """The executables in failover.d. Raises Refused for one that others than root may change."""
    paths = []
    for path, why in hooks.scripts(alert.SETTINGS / HOOKS):
        if why:
            raise Refused(f"{path} is not run: {why}.", hooks.remedy(path))
        paths.append(str(path))
    return tuple(paths)


def release(site: Site, resource: Resource, tell: Tell) -> None:
    """What failover.d has started is stopped, and nothing of it is mounted; under the resource's lock.

    Raises Refused where something else uses it, ToolFailed where a script fails; what was stopped is started again.
    """
    stopped: list[str] = []
    try:
        for hook in reversed(to_run() if site.flavour is Flavour.BACKUP else ()):
            stopped.append(hook)
            tell(f"{hook} stop")
            run(plan.hook_call(hook, "stop", resource), timeout=plan.HOOK_SECONDS)
        if mounted := unmount(site, resource):
            raise Refused(
                f"{resource.name} is mounted at {mounted[-1]} and in use, so it goes on being served here.",
                f"See what uses it: fuser -vm {mounted[-1]}; end that, then the same command again.",
            )
    except OffsiteError:
        for hook in reversed(stopped):
            run(plan.hook_call(hook, "start", resource), timeout=plan.HOOK_SECONDS, accept=None)
        raise


def demote(site: Site, resource: Resource) -> None:
    """What `release` has left is Secondary, and the other machine has all of it. Raises Refused."""
    seen = observe(site).drbd.get(resource.name)
    if seen is not None and seen.role is Role.PRIMARY:
        try:
            run(drbd.adm("secondary", resource.name))
        except ToolFailed as error:
            raise Refused(
                f"{resource.name} is in use and stays as it is: {error.message}",
                f"See what uses it: fuser -v {resource.here.device}; end that, then the same command again.",
            ) from error
    _drained(site, resource)


def _drained(site: Site, resource: Resource) -> None:
    """The other machine has all of it: what was written last is on its disk before it serves."""
    until = time.monotonic() + DRAIN_SECONDS
    while True:
        host = observe(site)
        seen = host.drbd.get(resource.name)
        waits = seen is not None and seen.connected and (seen.catching_up or host.in_flight.get(resource.here.minor))
        if not waits:
            return
        if time.monotonic() >= until:
            raise Refused(
                f"{resource.name} is not handed over: within {DRAIN_SECONDS:.0f} s the other machine did not get all "
                "that was written last.",
                "The same command tries again.",
            )
        time.sleep(0.2)
