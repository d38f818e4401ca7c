"""What each key of the configuration allows alone, and the file as a whole does not. Pure."""

import re
from collections.abc import Iterator, Mapping

from .model import RESOURCE_NAME, Site

_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
HOST = rf"{_LABEL}(?:\.{_LABEL})*\.?"

LVM_NAME = "a name that LVM takes: letters, digits and + _ . -"


def contradictions(site: Site) -> Iterator[str]:
    """Each in the words of the file."""
    if not site.volume_group:
        yield "[site] volume_group: missing (allowed: " + LVM_NAME + ")"
    if not site.metadata_volume:
        yield "[site] metadata_volume: empty (allowed: " + LVM_NAME + ")"
    for peer in site.peers.values():
        if not re.fullmatch(HOST, peer.name):
            yield f"[peers] [[{peer.name}]]: not a name for a peer (letters, digits, hyphens)"
        if peer.tunnel.server_address == peer.tunnel.backup_address:
            yield f"[peers] [[{peer.name}]] server_address and backup_address are the same"
    for resource in site.resources.values():
        place = f"[resources] [[{resource.name}]]"
        if not RESOURCE_NAME.fullmatch(resource.name):
            yield f"{place}: not a name for a resource (letters, digits and _ . -, at most 63)"
        if resource.peer not in site.peers:
            yield f"{place} peer = {resource.peer}: there is no such section in [peers]"
    halves = {name: resource.here for name, resource in site.resources.items()}
    yield from _shared("[peers]", "device", {n: p.tunnel.device for n, p in site.peers.items()})
    yield from _shared("[resources]", "minor", {n: r.minor for n, r in halves.items()})
    yield from _shared("[resources]", "port", {n: r.port for n, r in halves.items()})
    yield from _shared("[resources]", "volume", {n: str(r.volume) for n, r in halves.items()})
    yield from _shared("[resources]", "metadata", {n: str(r.metadata) for n, r in halves.items()})


def _shared(section: str, key: str, values: Mapping[str, object]) -> Iterator[str]:
    owners: dict[object, str] = {}
    for name, value in values.items():
        first = owners.setdefault(value, name)
        if first != name:
            yield f"{section} [[{name}]] {key} = {value}: [[{first}]] has the same"
