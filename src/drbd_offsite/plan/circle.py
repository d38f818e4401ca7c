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


def decide(site: Site, host: Host, resource: Resource) -> Decision:
    """The steps that bring one resource where the configuration wants it, as far as they can be taken now.

    Promise 1: on the server, attaching and promoting look at nothing but the local disk.
    """
    seen = host.drbd.get(resource.name)
    hold = host.holds.get(resource.name)
    forbidden, held = (hold.forbids, f"held: {hold.reason}") if hold else (frozenset[Forbidden](), "")
    actions: list[Action] = []

    def rest(reason: str, soon: bool = False) -> Decision:
        return Decision(resource.name, tuple(actions), reason, soon)

    for operation in host.operations.values():
        if operation.resource == resource.name and seen is None:
            return rest(f"{operation.verb} is under way; run it again to finish it")
    if not host.drbd_version:
        actions.append(MODPROBE)
    disk = seen.disk if seen else DiskState.DISKLESS
    if disk is DiskState.DISKLESS:
        if Forbidden.ATTACH in forbidden:
            return rest(held)
        missing = missing_volume(host, resource)
        if missing:
            return rest(missing)
        actions += attach(resource, seen)
        disk = DiskState.UP_TO_DATE  # if it is not, the next look sees it before anything is promoted
    elif disk in (DiskState.ATTACHING, DiskState.DETACHING, DiskState.FAILED):
        return rest(f"its disk is {disk}", soon=True)

    if site.flavour is Flavour.SERVER and (seen is None or seen.role is not Role.PRIMARY):
        if Forbidden.PROMOTE in forbidden:
            return rest(held)
        if disk not in (DiskState.UP_TO_DATE, DiskState.CONSISTENT):
            return rest(f"its copy here is {disk}, which nothing automatic promotes")
        actions.append(Run(drbd.adm("primary", resource.name), "the server's data is served from here"))

    if Forbidden.CONNECT in forbidden:
        return rest(held)
    return _connect(site, host, resource, seen, actions)


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


def _connect(site: Site, host: Host, resource: Resource, seen: DrbdResource | None, actions: list[Action]) -> Decision:
    peer = site.peer_of(resource)
    connection = seen.connection if seen else None
    if connection is not None and connection.state is not ConnectionState.STANDALONE:
        if connection.state is ConnectionState.CONNECTED:
            return Decision(resource.name, tuple(actions), "nothing to do")
        return Decision(resource.name, tuple(actions), f"{connection.state}: waiting for {peer.name}")
    address = site.address_here(peer)
    if not any(address in addresses for addresses in host.addresses.values()):
        # Connecting now would end in StandAlone: the kernel cannot bind an address that is not there.
        present = peer.tunnel.device in host.addresses
        return Decision(
            resource.name, tuple(actions), f"{peer.tunnel.device} has no address {address} yet", soon=present
        )
    state = "StandAlone" if connection else "not connected"
    actions.append(Run(drbd.adm("connect", resource.name), f"{state}, and {address} is there"))
    return Decision(resource.name, tuple(actions), f"then waiting for {peer.name}")
