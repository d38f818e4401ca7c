"""``replace-backup``: another machine has joined in the place of the backup, and gets every copy anew.

For each resource it is what ``add`` does after the server's own half is there. A hold keeps everything automatic from
connecting meanwhile: the kernel still has the lost machine's port.
"""

from collections.abc import Callable, Iterator

from .. import config, journal, messages
from ..errors import Refused
from ..host import observe, survey
from ..model import Flavour, Resource, Site
from ..observed import DiskState, Forbidden, Host, Operation, Role
from ..peer import ask
from ..plan import guards
from ..plan.actions import Action, Disconnect
from ..plan.task import Task
from ..reconcile import reconcile
from ..render import resync_order
from . import half, tune
from .drive import drive

SETTER = "replace-backup"


def replace_backup(site: Site, peer: str, tell: Callable[[str], None]) -> list[str]:
    """Have a newly enrolled backup make its half of all resources; returns their names.

    Those that are connected are as they must be, so the same again goes on after an interruption. Raises Refused
    before anything is begun, PeerUnreachable.
    """
    guards.enforce(guards.flavour(site, Flavour.SERVER, SETTER))
    peer = half.enrolled_peer(site, peer)
    host = observe(site)
    resources = [site.resources[name] for name in resync_order(site, peer)]
    apart = [resource for resource in resources if not _connected(host, resource)]
    for resource in apart:
        guards.enforce(_served(host, resource) or _held(host, resource))
    if not apart:
        raise Refused(f"{peer} has its half of every resource and is connected.", "There is nothing to replace.")
    ask(site, site.peers[peer], messages.Hello(), messages.Greeting)  # before anything is begun: is it there at all
    for resource in apart:
        with half.locked(resource.name):
            _replace(site, resource, tell)
        for outcome in reconcile(site, [resource.name], tell):
            if outcome.failed:
                raise outcome.failed
    return [resource.name for resource in apart]


def _replace(site: Site, resource: Resource, tell: Callable[[str], None]) -> None:
    reason = "another machine takes the backup's place; run drbd-offsite replace-backup again to finish it"
    operation = journal.operations().get(f"{SETTER}-{resource.name}")
    if operation is None:
        size = survey(site).volumes[resource.here.volume].size_bytes
        task = Task(
            resource.name, resource.peer, size, resource.here, metadata_created=True, priority=resource.priority
        )
        operation = journal.begin(SETTER, resource.name, task.parameters())
    journal.hold(resource.name, reason, frozenset({Forbidden.CONNECT}), SETTER)
    drive(operation, _steps, tell, half.answered)
    tune.hand_over(config.load(), resource, tell)
    journal.lift(resource.name, SETTER, set_by=SETTER)


def _steps(site: Site, host: Host, operation: Operation) -> Iterator[Action]:
    seen = host.drbd.get(operation.resource)
    if seen is not None and not seen.standalone:
        yield Disconnect(operation.resource, "the kernel still has the lost machine's port")
    yield from half.steps(site, host, operation)


def _connected(host: Host, resource: Resource) -> bool:
    seen = host.drbd.get(resource.name)
    return seen is not None and seen.connected


def _served(host: Host, resource: Resource) -> Refused | None:
    seen = host.drbd.get(resource.name)
    if seen is not None and seen.role is Role.PRIMARY and seen.disk is DiskState.UP_TO_DATE:
        return None
    return Refused(
        f"{resource.name} is not served here from a complete copy, and a new backup gets what is here.",
        f"drbd-offsite status {resource.name} says what is the matter. The lost backup may have had the newer data.",
    )


def _held(host: Host, resource: Resource) -> Refused | None:
    holds = host.holds.get(resource.name, ())
    hold = next((h for h in holds if Forbidden.CONNECT in h.forbids and h.set_by != SETTER), None)
    if hold is None:
        return None
    return Refused(
        f"{resource.name} is held: {hold.reason}. A new backup would get no copy of it.",
        f"If that was about the lost backup: drbd-offsite connect {resource.name} ends it. "
        f"Otherwise drbd-offsite status {resource.name} says what does.",
    )
