"""What one look at this machine asks for: every resource attached, in its role, and connected."""

from dataclasses import dataclass

from ..model import ConnectionState, DiskState, DrbdResource, Flavour, Forbidden, Host, Resource, Role, Site
from ..tools import drbd
from .actions import Action, Run

MODPROBE = Run(("modprobe", "drbd"), "the kernel module is not loaded")


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
    """One part of the way up; a reason ends it there."""

    actions: tuple[Action, ...] = ()
    reason: str = ""
    soon: bool = False


def decide(site: Site, host: Host, resource: Resource) -> Decision:
    """The steps that bring one resource where the configuration wants it, as far as they can be taken now.

    Promise 1: on the server, attaching and promoting look at nothing but the local disk.
    """
    actions: tuple[Action, ...] = ()
    stage = _Stage()
    for look in (_operation, _disk, _role, _connection):
        stage = look(site, host, resource)
        actions += stage.actions
        if stage.reason:
            break
    return Decision(resource.name, actions, stage.reason, stage.soon)


def _operation(_: Site, host: Host, resource: Resource) -> _Stage:
    """What is being made is made by the operation; once it is in the kernel, it is served as any other."""
    for operation in host.operations.values():
        if operation.resource == resource.name and resource.name not in host.drbd:
            return _Stage(reason=f"{operation.verb} is under way; run it again to finish it")
    return _Stage(() if host.drbd_version else (MODPROBE,))


def _disk(_: Site, host: Host, resource: Resource) -> _Stage:
    seen = host.drbd.get(resource.name)
    disk = seen.disk if seen else DiskState.DISKLESS
    if disk in (DiskState.ATTACHING, DiskState.DETACHING, DiskState.FAILED):
        return _Stage(reason=f"its disk is {disk}", soon=True)
    if disk is not DiskState.DISKLESS:
        return _Stage()
    reason = _held(host, resource, Forbidden.ATTACH) or missing_volume(host, resource)
    return _Stage(reason=reason) if reason else _Stage(attach(resource, seen))


def _role(site: Site, host: Host, resource: Resource) -> _Stage:
    seen = host.drbd.get(resource.name)
    if site.flavour is not Flavour.SERVER or (seen and seen.role is Role.PRIMARY):
        return _Stage()
    if reason := _held(host, resource, Forbidden.PROMOTE):
        return _Stage(reason=reason)
    # One that is about to be attached is looked at again before it is promoted.
    if seen and seen.disk not in (DiskState.UP_TO_DATE, DiskState.CONSISTENT, DiskState.DISKLESS):
        return _Stage(reason=f"its copy here is {seen.disk}, which nothing automatic promotes")
    return _Stage((Run(drbd.adm("primary", resource.name), "the server's data is served from here"),))


def _connection(site: Site, host: Host, resource: Resource) -> _Stage:
    seen = host.drbd.get(resource.name)
    peer = site.peer_of(resource)
    connection = seen.connection if seen else None
    if reason := _held(host, resource, Forbidden.CONNECT):
        return _Stage(reason=reason)
    if connection is not None and connection.state is ConnectionState.CONNECTED:
        return _Stage(reason="nothing to do")
    if connection is not None and connection.state is not ConnectionState.STANDALONE:
        return _Stage(reason=f"{connection.state}: waiting for {peer.name}")
    address = site.address_here(peer)
    if not host.has_address(address):
        # Connecting now would end in StandAlone: the kernel cannot bind an address that is not there.
        present = peer.tunnel.device in host.addresses
        return _Stage(reason=f"{peer.tunnel.device} has no address {address} yet", soon=present)
    state = "StandAlone" if connection else "not connected"
    step = Run(drbd.adm("connect", resource.name), f"{state}, and {address} is there")
    return _Stage((step,), f"then waiting for {peer.name}")


def _held(host: Host, resource: Resource, step: Forbidden) -> str:
    """Why a hold forbids a step, in words; empty where none does."""
    hold = host.holds.get(resource.name)
    return f"held: {hold.reason}" if hold and step in hold.forbids else ""


def attach(resource: Resource, seen: DrbdResource | None) -> tuple[Run, ...]:
    """The steps of ``drbdadm up`` that need no network: the others refuse while tun0 is absent."""
    steps = []
    if seen is None:
        steps.append(Run(drbd.adm("new-resource", resource.name), "the kernel does not know it"))
    if seen is None or not seen.volumes:
        steps.append(Run(drbd.adm("new-minor", resource.name), f"it has no {resource.here.device}"))
    steps.append(Run(drbd.adm("attach", resource.name), f"{resource.here.volume} is there", timeout=120.0))
    return tuple(steps)


def missing_volume(host: Host, resource: Resource) -> str:
    """Which of a resource's volumes is not there, in words; empty where both are."""
    for volume in (resource.here.volume, resource.here.metadata.volume):
        found = host.volumes.get(volume)
        if found is None:
            return f"the volume {volume} is not there"
        if not found.active:
            return f"the volume {volume} is not active (lvchange -ay {volume})"
    return ""
