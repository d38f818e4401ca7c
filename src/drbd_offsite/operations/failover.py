"""``failover``: the backup takes over from a server that is gone."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .. import files, journal, messages, peer
from ..errors import OffsiteError, PeerUnreachable, Refused, ToolFailed
from ..host import observe, survey
from ..model import Flavour, Resource, Site
from ..observed import ConnectionState, Host, Operation, Role
from ..plan import failover as plan
from ..plan import guards
from ..plan.actions import Action, describe
from ..plan.failover import Server
from ..run import run
from ..tools import iproute
from .drive import drive
from .report import LOST
from .serve import found, to_run

LOCK_SECONDS = 60.0
ANSWER_SECONDS = 15.0
PING_SECONDS = 3

Tell = Callable[[str], None]
Consent = Callable[[tuple[str, ...]], bool]
"""Whether a person wants it, having read what is lost."""


@dataclass(frozen=True, slots=True)
class TakenOver:
    seconds: float
    """From the decision to the end, the person's time not among them."""
    as_of: str
    mounted_at: str
    """Empty where it is not mounted."""


def failover(
    site: Site, resource: Resource, *, force: bool, consent: Consent, dry_run: bool = False, tell: Tell
) -> TakenOver | None:
    """Serve a resource from here, or finish doing so; None where nobody wanted it, or it was a dry run.

    Raises Refused before anything is changed; ToolFailed where a step fails, and the same again goes on.
    """
    guards.enforce(guards.flavour(site, Flavour.BACKUP, "failover"))
    name = resource.name
    with files.lock(f"resource-{name}", LOCK_SECONDS):
        operation = journal.operations().get(f"{plan.VERB}-{name}")
        if operation is None:
            guards.enforce(_unfinished(name))
            host = survey(site)
            guards.enforce(_served_here(host, resource))
            server = look_for_server(site, resource, host)
            guards.enforce(plan.refusal(resource, host, server, force))
            guards.enforce(mountable(host, resource))
            to_run()  # what must not be run is refused now, and not at the end
            copy = plan.copy(resource, host, str(journal.remembered(LOST).get(name, {}).get("since", "")))
            lines = plan.loss(resource, server, copy, journal.now())
            if dry_run:
                _show(site, host, Operation(plan.VERB, name, "", plan.parameters(copy)), lines, tell)
                return None
            if not consent(lines):
                return None
            operation = journal.begin(plan.VERB, name, plan.parameters(copy))
        started = time.monotonic()
        _carry_out(operation, tell)
        seconds = time.monotonic() - started
        mounted = observe(site).mounted_at(resource.here.minor)
        as_of = str(operation.parameters["as_of"])
        known = f" with all that the server had acknowledged before {as_of}" if as_of else ""
        text = f"This machine serves it{known}; that took {seconds:.0f} s."
        journal.record("failover", name, text, as_of=as_of, seconds=round(seconds, 1))
        return TakenOver(seconds, as_of, mounted[0] if mounted else "")


def _unfinished(name: str) -> Refused | None:
    """Of what is half done nobody knows what it is good for."""
    others = [o for o in journal.operations().values() if o.resource == name and o.verb in ("replicate", "release")]
    if not others:
        return None
    return Refused(
        f"{others[0].finished_by} of {name} is not finished, so what is here is no copy that could take over.",
        f"drbd-offsite status {name} has more.",
    )


def _served_here(host: Host, resource: Resource) -> Refused | None:
    seen = host.drbd.get(resource.name)
    if seen is None or seen.role is not Role.PRIMARY:
        return None
    where = f" and mounted at {', '.join(m)}" if (m := host.mounted_at(resource.here.minor)) else ""
    return Refused(
        f"{resource.name} is served by this machine already (Primary{where}).",
        f"The way back is: drbd-offsite failback {resource.name}",
    )


def mountable(host: Host, resource: Resource) -> Refused | None:
    """Whether something else is at the place where it is to be mounted."""
    other = [m for m in host.mounts if m.target == resource.mount]
    if not resource.mount or not other:
        return None
    return Refused(
        f"{resource.name} is to be mounted at {resource.mount}, and {other[-1].source} is mounted there.",
        f"umount {resource.mount}, or change the mount of {resource.name} in drbd-offsite.conf; then again.",
    )


def look_for_server(site: Site, resource: Resource, host: Host) -> Server:
    """Is it gone, or is it only the tunnel. Takes `ANSWER_SECONDS` at most, and a ping."""
    seen = host.drbd.get(resource.name)
    connection = seen.connection if seen else None
    if connection is not None and connection.state is ConnectionState.CONNECTED:
        return Server.SERVING if connection.role is Role.PRIMARY else Server.IDLE
    there = site.peer_of(resource)
    if site.address_here(there) in host.addresses:
        try:
            answer = peer.ask(site, there, messages.Report(), messages.MachineReport, seconds=ANSWER_SECONDS)
        except PeerUnreachable:
            pass
        except OffsiteError:
            return Server.OUTSIDE  # something answers, and what it says of its state is not understood
        else:
            served = journal.by_any_name(r.name for r in answer.resources if r.role == Role.PRIMARY)
            return Server.SERVING if resource.name in served else Server.IDLE
    outside = there.tunnel.reachable_as if there.tunnel.dials is Flavour.BACKUP else ""
    if outside and run(iproute.ping(outside, seconds=PING_SECONDS), accept=None).returncode == 0:
        return Server.OUTSIDE
    return Server.SILENT


def _show(site: Site, host: Host, operation: Operation, lines: tuple[str, ...], tell: Tell) -> None:
    for line in lines:
        tell(line)
    for action in _steps(site, host, operation):
        tell(describe(action))


def _carry_out(operation: Operation, tell: Tell) -> None:
    try:
        drive(operation, _steps, tell)
    except ToolFailed as error:
        name = operation.resource
        error.hint = error.hint or (
            f"What was done up to here stays: drbd-offsite status {name}. If it is the filesystem that is damaged, "
            "make a snapshot of the volume before you repair it. Then the same command again: it goes on from here."
        )
        raise


def _steps(site: Site, host: Host, operation: Operation) -> Iterator[Action]:
    return plan.remaining(site, host, operation, found(host, site.resources[operation.resource]))
