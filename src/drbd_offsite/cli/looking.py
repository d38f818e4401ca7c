"""``failover --read-only`` and ``--test``: what would be served, on a snapshot."""

from ..errors import ExitCode
from ..model import Flavour, Resource, Site
from ..operations import inspect
from ..operations.inspect import Look
from ..plan import guards
from .common import tell


def look(site: Site, resource: Resource) -> int:
    """Mount a snapshot of a copy read-only, for as long as a person wants it."""
    guards.enforce(guards.flavour(site, Flavour.BACKUP, "failover"))
    found = inspect.stay(site, resource, tell)
    _report(found)
    if found.directory is None:
        print(f"{resource.name}: it could not be mounted, and nothing of it is left.")
        return ExitCode.FAILED
    print(
        f"{resource.name}: mounted read-only at {found.directory}, {_with(found)}. Nothing is promoted and replication "
        f"goes on. To end it: drbd-offsite failback {resource.name}"
    )
    return ExitCode.DONE


def rehearse(site: Site, resource: Resource) -> int:
    """The steps of a failover on a snapshot, which is gone afterwards."""
    guards.enforce(guards.flavour(site, Flavour.BACKUP, "failover"))
    from ..host import observe
    from ..operations.failover import mountable
    from ..operations.serve import to_run

    guards.enforce(mountable(observe(site), resource))
    hooks = to_run()
    with inspect.opened(site, resource, "test of a failover", tell) as found:
        _report(found)
        usable = found.directory is not None
    where = f"mounted at {resource.mount}" if resource.mount else "as a device, for no mount is configured"
    if not usable:
        print(f"{resource.name}: a failover would stop here, with the resource Primary and not mounted.")
        return ExitCode.FAILED
    print(f"{resource.name}: it would be served {where}, {_with(found)}.")
    for hook in hooks:
        print(f"{resource.name}: {hook} start would be run.")
    return ExitCode.DONE


def _with(found: Look) -> str:
    return (
        f"with all that was written before {found.as_of}"
        if found.as_of
        else "up to when it has everything is not known"
    )


def _report(found: Look) -> None:
    for check in found.checks:
        tell(f"{found.resource}: {check.text}")
