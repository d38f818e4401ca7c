"""``grow`` on the server, and ``enlarge``, what it asks of the backup."""

import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace

from .. import journal, messages, peer, protocol
from ..errors import Refused, ToolFailed, UsageError
from ..execute import execute
from ..host import identity, look_again, survey
from ..model import Flavour, Resource, Site
from ..observed import Host, Operation
from ..plan import grow as plan
from ..plan import guards
from ..plan.actions import Action, Run, describe
from ..plan.grow import Growth
from ..tools import lvm
from . import seed
from .catch_up import behind, catch_up
from .drive import drive
from .half import locked

RESIZE_SECONDS = 60.0
"""So long the device may have its old size after ``drbdadm resize``: it grows when the peer has answered with the size
of its volume (drbd_nl.c, drbd_adm_resize; drbd_receiver.c, receive_sizes), and drbdadm does not wait for that."""

RESYNC_TRIES = 60
"""A second apart: how long the backup waits for a resync to end, whose restore point is in the way. While the server
is written to, one may begin at any moment."""

UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def size(text: str, now_bytes: int) -> int:
    """``+10G`` (more) or ``20G`` (in all) as bytes in all. Raises UsageError."""
    match = re.fullmatch(r"(\+?)(\d{1,15}(?:\.\d{1,9})?)([KMGT])(?:i?B)?", text, re.IGNORECASE | re.ASCII)
    if match is None:
        raise UsageError(f"{text[:80]!r} is no size.", "Write +10G for 10 GiB more, 20G for 20 GiB in all.")
    number = int(float(match[2]) * UNITS[match[3].upper()])
    return now_bytes + number if match[1] else number


def grow(site: Site, resource: Resource, asked: str, dry_run: bool, tell: Callable[[str], None]) -> str:
    """Enlarge a resource, or finish doing so (``asked`` may be empty then); returns what is left to the admin.

    Raises Refused before anything is begun, and where the backup has to be there to go on; PeerUnreachable.
    """
    guards.enforce(guards.flavour(site, Flavour.SERVER, "grow"))
    with locked(resource.name):
        unfinished = journal.operations().get(f"grow-{resource.name}")
        growth = _resume(resource, unfinished, asked) if unfinished else _decide(site, resource, asked, tell)
        if dry_run:
            operation = Operation("grow", resource.name, journal.now(), asdict(growth))
            for action in _steps(site, survey(site), operation):
                tell(describe(action))
            return ""
        operation = journal.begin("grow", resource.name, asdict(growth))
        drive(operation, _steps, tell, _answered, patience=RESIZE_SECONDS)
        return plan.left_to_the_admin(survey(site), resource, _fstype(resource))


def give_up(site: Site, resource: Resource) -> str:
    """Forget an unfinished ``grow`` whose device has its old size; returns which volumes stay larger than it.

    Raises Refused where the device has the new one, or cannot be seen.
    """
    guards.enforce(guards.flavour(site, Flavour.SERVER, "grow"))
    with locked(resource.name):
        operation = journal.operations().get(f"grow-{resource.name}")
        if operation is None:
            raise Refused(f"No grow of {resource.name} is unfinished.", "drbd-offsite status shows what is.")
        host, growth = survey(site), Growth.of(operation)
        guards.enforce(plan.undecided(host, resource, growth))
        journal.end(operation, "was given up")
        return plan.left_larger(site, host, resource, growth)


def _resume(resource: Resource, unfinished: Operation, asked: str) -> Growth:
    """What an earlier command has decided. The backup is asked anew: it may be another machine since then."""
    growth = Growth.of(unfinished)
    if asked not in ("", growth.asked):
        raise Refused(
            f"{resource.name} is being enlarged by an earlier grow ({growth.asked}).",
            f"Finish that first: drbd-offsite grow {resource.name}",
        )
    return replace(growth, there_bytes=0)


def _decide(site: Site, resource: Resource, asked: str, tell: Callable[[str], None]) -> Growth:
    """Everything that can be refused is refused here, with nothing changed on either machine."""
    name = resource.name
    if not asked:
        raise UsageError(f"No grow of {name} is unfinished, so it needs a size.", f"drbd-offsite grow {name} +10G")
    host = survey(site)
    for operation in host.operations.values():
        if operation.resource == name and operation.verb != seed.EXPORT:  # which is of a volume of that name
            raise Refused(f"{operation.verb} of {name} is not finished.", "Finish that first: drbd-offsite status")
    if behind(host, name):
        # A server that is written to all the time is often a little ahead.
        catch_up(site, name, tell)
        host = look_again(site, host)
    guards.enforce(plan.in_step(site, host, resource))
    volume = host.volumes.get(resource.here.volume)
    if volume is None:
        raise Refused(f"There is no volume {resource.here.volume} on this machine.", "See 'vgs' and 'lvs'.")
    # The device's and not the volume's, which may have room from a grow that was given up.
    now = plan.device_bytes(host, resource)
    wanted = lvm.rounded(size(asked, now), host.groups[volume.name.group].extent_bytes)
    if wanted <= now:
        raise Refused(
            f"{name} has {guards.mebibytes(now)} already, and nothing is ever made smaller.",
            f"For more write it with a plus: drbd-offsite grow {name} +{asked.lstrip('+')}",
        )
    guards.enforce(plan.enough_room(host, resource.here, wanted))
    peer.ask(site, site.peer_of(resource), messages.Enlarge(name, wanted, only_check=True), messages.Enlarged)
    return Growth(wanted, asked)


def _steps(site: Site, host: Host, operation: Operation) -> Iterator[Action]:
    return plan.remaining(site, host, operation, _fstype(site.resources[operation.resource]))


def _answered(operation: Operation, answer: messages.Enlarged) -> dict[str, object]:
    if answer.size_bytes < Growth.of(operation).size_bytes:
        raise Refused(
            f"The backup's volume has {answer.size_bytes} bytes; {Growth.of(operation).size_bytes} are needed.",
            f"See 'lvs' and 'drbd-offsite events' there, then: drbd-offsite grow {operation.resource}",
        )
    return {"there_bytes": answer.size_bytes}


def _fstype(resource: Resource) -> str:
    return identity(resource.here.device).get("TYPE", "")


def enlarge(site: Site, requester: str, request: messages.Enlarge) -> messages.Enlarged:
    """The backup's part of a peer's ``grow``: the same request again finds it done."""
    guards.enforce(guards.flavour(site, Flavour.BACKUP, "enlarge"))
    resource = protocol.resource_of(site, requester, request.name)
    with locked(resource.name):
        host = survey(site)
        guards.enforce(plan.enough_room(host, resource.here, request.size_bytes))
        guards.enforce(plan.restorable(site, host, resource, request.size_bytes))
        if not request.only_check:
            # Each of them leaves the next one to do, so a second request needs no note of the first.
            for step in plan.enlarge(host, resource.here, request.size_bytes, tries=RESYNC_TRIES):
                _extend(site, resource, step)
            host = survey(site)
        return messages.Enlarged(host.volumes[resource.here.volume].size_bytes)


def _extend(site: Site, resource: Resource, step: Run) -> None:
    try:
        execute(step, site)
    except ToolFailed:
        guards.enforce(plan.undisturbed(survey(site), resource.here))
        raise
    journal.record("enlarged", resource.name, describe(step))
