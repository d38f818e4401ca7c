"""What one look at this machine asks for: every resource attached, in its role, and connected."""

from dataclasses import dataclass
from math import inf

from ..model import Flavour, Peer, Resource, Site
from ..observed import ConnectionState, DiskState, DrbdResource, Forbidden, Host, Operation, ReplicationState, Role
from ..tools import drbd
from .actions import Action, Consult, Lift, Promote, Run

MODPROBE = Run(("modprobe", "drbd"), "the kernel module is not loaded")

MAKING = frozenset({"add", "replicate"})
"""Operations that bring a resource up."""
ENDING = frozenset({"remove", "release"})
"""Operations after which it must not come up again."""
RENAMING = "rename"
"""From one name to another: it is served under that which the configuration has, once drbdadm knows it by that."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do for a resource, in order, and why there is not more to do."""

    resource: str
    actions: tuple[Action, ...]
    reason: str
    soon: bool = False
    """What is waited for comes without an event that everybody can see; look again in a moment."""


@dataclass(frozen=True, slots=True)
class _Stage:
    """One part of the way up."""

    actions: tuple[Action, ...] = ()
    reason: str = ""
    """Why this part ends short of its aim."""
    soon: bool = False
    last: bool = False
    """The parts after it have to wait."""


def decide(site: Site, host: Host, resource: Resource) -> Decision:
    """The steps that bring one resource where the configuration wants it, as far as they can be taken now.

    Promise 1: on the server, attaching and promoting look at nothing but the local disk; what they ask the
    peer, they ask for a bounded time.
    """
    stages: list[_Stage] = []
    for look in (_sight, _operation, _disk, _role, _connection):
        stage = look(site, host, resource)
        stages.append(stage)
        if stage.last:
            break
    actions = tuple(action for stage in stages for action in stage.actions)
    reasons = [stage.reason for stage in stages if stage.reason]
    return Decision(resource.name, actions, "; ".join(reasons) or "nothing to do", any(stage.soon for stage in stages))


def _sight(_: Site, host: Host, resource: Resource) -> _Stage:
    del resource
    return _Stage(reason="DRBD's state cannot be seen, so nothing is changed", last=True) if host.blind else _Stage()


def _operation(_: Site, host: Host, resource: Resource) -> _Stage:
    """What is being made is made by the operation; once it is in the kernel, it is served as any other."""
    for operation in host.operations.values():
        if _is_left_to(operation, host, resource.name):
            where = operation.finished_where
            reason = f"{operation.verb} is under way; {operation.finished_by}{where}, run again, finishes it"
            return _Stage(reason=reason, last=True)
    return _Stage(() if host.drbd_version else (MODPROBE,))


def _is_left_to(operation: Operation, host: Host, name: str) -> bool:
    if operation.verb == RENAMING:
        return operation.parameters.get("new") == name and not operation.parameters.get("settled")
    making = operation.verb in MAKING and name not in host.drbd
    return operation.resource == name and (operation.verb in ENDING or making)


def _disk(_: Site, host: Host, resource: Resource) -> _Stage:
    seen = host.drbd.get(resource.name)
    disk = seen.disk if seen else DiskState.DISKLESS
    if disk in (DiskState.ATTACHING, DiskState.DETACHING, DiskState.FAILED):
        return _Stage(reason=f"its disk is {disk}", soon=True, last=True)
    if disk is not DiskState.DISKLESS:
        return _Stage()
    # A Primary without its disk lives on the peer's copy and has to stay connected.
    last = seen is None or seen.role is not Role.PRIMARY
    if reason := _held(host, resource, Forbidden.ATTACH):
        # Not even introduced: whoever took it down wants it out of the kernel.
        return _Stage(reason=reason, last=last)
    if reason := missing_volume(host, resource):
        return _Stage(introduce(resource, seen), reason, last=last)
    return _Stage((*introduce(resource, seen), attach(resource)))


def _role(site: Site, host: Host, resource: Resource) -> _Stage:
    seen = host.drbd.get(resource.name)
    server = site.flavour is Flavour.SERVER
    if not (server or resource.name in host.serving) or (seen and seen.role is Role.PRIMARY):
        return _Stage()
    if _caught_up(host, resource, seen):
        return _Stage((Lift(resource.name, RETURNING, "it has the newest data, and the backup serves it no more"),))
    if reason := _held(host, resource, Forbidden.PROMOTE):
        return _Stage(reason=reason)
    # One that is about to be attached is looked at again before it is promoted.
    if seen and seen.disk not in (DiskState.UP_TO_DATE, DiskState.CONSISTENT, DiskState.DISKLESS):
        return _Stage(reason=f"its copy here is {seen.disk}, which nothing automatic promotes")
    peer = site.peer_of(resource)
    connection = seen.connection if seen else None
    if connection is not None and connection.state is ConnectionState.CONNECTED:
        if connection.role is Role.PRIMARY:
            return _Stage(reason=f"{peer.name} serves it (Primary)")
    elif server and site.boot_wait and not _heard(site, host, resource):
        return _consult(site, host, resource, peer)
    return _Stage((Promote(resource.name, "it is served from here"),))


RETURNING = "returning"
"""Sets the hold on a server's copy that is older than the one of a backup that has taken over (cli/up.py)."""


def _caught_up(host: Host, resource: Resource, seen: DrbdResource | None) -> bool:
    """Whether a server that waits for the newer data has it, and nobody else serves it."""
    if not any(hold.set_by == RETURNING for hold in host.holds.get(resource.name, ())):
        return False
    connection, device = (seen.connection, seen.peer_device) if seen else (None, None)
    return (
        seen is not None
        and connection is not None
        and device is not None
        and connection.state is ConnectionState.CONNECTED
        and connection.role is Role.SECONDARY
        and device.replication is ReplicationState.ESTABLISHED
        and seen.disk is DiskState.UP_TO_DATE is device.disk
    )


def _heard(site: Site, host: Host, resource: Resource) -> bool:
    """Whether the peer has said that it does not serve the resource, or had its time to say otherwise."""
    consultation = host.consulted.get(resource.name)
    return consultation is not None and (consultation.free or consultation.seconds >= site.boot_wait)


def _consult(site: Site, host: Host, resource: Resource, peer: Peer) -> _Stage:
    begun = host.consulted.get(resource.name)
    wait = "until it answers" if site.boot_wait == inf else f"at most {site.boot_wait:.0f} s"
    reason = f"asking {peer.name} whether it has taken over ({wait})"
    ask = begun is None or site.address_here(peer) in host.addresses
    actions = (Consult(resource.name, peer.name, "it is not served before the peer had its time to speak"),)
    return _Stage(actions if ask else (), reason, soon=True, last=True)


def _connection(site: Site, host: Host, resource: Resource) -> _Stage:
    seen = host.drbd.get(resource.name)
    peer = site.peer_of(resource)
    connection = seen.connection if seen else None
    if reason := _held(host, resource, Forbidden.CONNECT):
        return _Stage(reason=reason)
    if connection is not None and connection.state is ConnectionState.CONNECTED:
        return _Stage()
    if connection is not None and connection.state is not ConnectionState.STANDALONE:
        return _Stage(reason=f"{connection.state}: waiting for {peer.name}")
    address = site.address_here(peer)
    if address not in host.addresses:
        # Connecting now would end in StandAlone: the kernel cannot bind an address that is not there.
        return _Stage(reason=f"{peer.tunnel.device} has no address {address} yet")
    state = "StandAlone" if connection else "not connected"
    step = Run(drbd.adm("connect", resource.name), f"{state}, and {address} is there")
    return _Stage((step,), f"then waiting for {peer.name}")


def _held(host: Host, resource: Resource, step: Forbidden) -> str:
    """Why a hold forbids a step, in words; empty where none does."""
    hold = host.held(resource.name, step)
    return f"held: {hold.reason}" if hold else ""


def introduce(resource: Resource, seen: DrbdResource | None) -> tuple[Run, ...]:
    """The steps of ``drbdadm up`` that need neither network nor disk: the kernel gets to know the resource."""
    steps = []
    if seen is None:
        steps.append(Run(drbd.adm("new-resource", resource.name), "the kernel does not know it"))
    if seen is None or not seen.volumes:
        steps.append(Run(drbd.adm("new-minor", resource.name), f"it has no {resource.here.device}"))
    return tuple(steps)


def attach(resource: Resource) -> Run:
    """The step of ``drbdadm up`` that needs the disk; ``up`` itself refuses while tun0 is absent."""
    return Run(drbd.adm("attach", resource.name), f"{resource.here.volume} is there", timeout=120.0)


def missing_volume(host: Host, resource: Resource) -> str:
    """Which of a resource's volumes has no device, in words; empty where both have one."""
    for volume in (resource.here.volume, resource.here.metadata.volume):
        if volume not in host.active:
            return f"there is no {volume.path} (lvs {volume} tells whether it exists; lvchange -ay activates it)"
    return ""
