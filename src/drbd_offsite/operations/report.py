"""What this machine tells its peer about the resources that they share."""

from .. import journal, messages
from ..errors import OffsiteError
from ..host import observe
from ..model import Resource, Site
from ..observed import ConnectionState, DiskState, Host, Role

LOST = "lost"
"""Since when a resource is not connected (`journal.remembered`), as far as the watcher has seen it."""


def report(site: Site, peer: str) -> messages.MachineReport:
    host = observe(site)
    if host.blind:
        # "Unknown" would be taken for "not Primary", and a server that asks would serve.
        raise OffsiteError(f"{host.hostname} cannot see DRBD's state: {host.problems[0]}")
    shared = [resource for resource in site.resources.values() if resource.peer == peer]
    return messages.MachineReport(host.hostname, host.drbd_version, [of(host, resource) for resource in shared])


def of(host: Host, resource: Resource) -> messages.ResourceReport:
    """One resource as it is seen here."""
    seen = host.drbd.get(resource.name)
    connection = seen.connection if seen else None
    device = seen.peer_device if seen else None
    lost = journal.remembered(LOST).get(resource.name, {})
    return messages.ResourceReport(
        name=resource.name,
        role=seen.role if seen else Role.UNKNOWN,
        disk=seen.disk if seen else DiskState.DISKLESS,
        connection=connection.state if connection else ConnectionState.STANDALONE,
        changed_bytes=device.out_of_sync_bytes if device else 0,
        disconnected_since=str(lost.get("since", "")),
    )
