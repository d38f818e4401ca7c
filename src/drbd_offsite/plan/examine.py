"""What must hold on a machine, and what to do about what does not. Pure; ``doctor`` prints it."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import starmap

from debian.debian_support import Version

from ..model import Peer, Site
from ..observed import Host
from ..tools import systemd
from . import guards
from .assess import Level, assess

OLDEST_TOOLS = {"drbd-utils": Version("9.15"), "openvpn": Version("2.6")}
"""drbd-utils: events2 in the form that is read here; openvpn: peer-fingerprint."""

WATCHER = "drbd-offsite-watch.service"


@dataclass(frozen=True, slots=True)
class Finding:
    what: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Facts:
    """What a look for the doctor adds to `Host`."""

    versions: dict[str, str]
    """Of the tools in `OLDEST_TOOLS` that are there."""
    inactive: frozenset[str]
    """Units of ours that do not run."""
    readable_keys: tuple[str, ...]
    """Key files that others than root may read."""
    outdated: tuple[str, ...]
    """Rendered files that differ from what the configuration says."""
    silent_peers: frozenset[str]
    """Peers that do not answer through the tunnel."""
    handler_runs: bool
    alerts: tuple[tuple[str, str], ...] = ()
    """Why an alert may not reach anybody, each with its remedy."""


def units(site: Site) -> tuple[str, ...]:
    """Every unit that has to be active on this site."""
    tunnels = [systemd.tunnel_unit(peer) for peer in site.peers.values() if peer.enrolled]
    peers = [systemd.PEER_SOCKET] if any(peer.enrolled for peer in site.peers.values()) else []
    resources = [systemd.resource_unit(name) for name in site.resources]
    return (WATCHER, *(unit for unit in tunnels if unit), *peers, *resources)


def examine(site: Site, host: Host, facts: Facts) -> Iterator[Finding]:
    """Everything that is not as it must be."""
    for problem in host.problems:
        yield Finding(problem, "Run the program by hand and see what it says.")
    refusal = guards.drbd_version(host.drbd_version)
    if refusal is not None:
        yield Finding(refusal.message, refusal.hint)
    if site.volume_group not in host.groups:
        yield Finding(
            f"There is no volume group {site.volume_group}.",
            "Correct volume_group in drbd-offsite.conf ('vgs' shows what there is), or create the group.",
        )
    yield from _versions(site, facts)
    for path in facts.readable_keys:
        yield Finding(f"{path} can be read by others than root.", f"chmod go= {path}")
    for path in facts.outdated:
        yield Finding(
            f"{path} is not what the configuration says.", "drbd-offsite render --diff shows how; render mends it."
        )
    for unit in sorted(facts.inactive):
        yield Finding(f"{unit} does not run.", f"systemctl start {unit}; systemctl status {unit} says why it did not.")
    if not facts.handler_runs:
        yield Finding(
            "The handler that the kernel calls cannot be executed.", "Reinstall: apt reinstall drbd-offsite-common."
        )
    yield from starmap(Finding, facts.alerts)
    for peer in site.peers.values():
        yield from _peer(site, peer, facts)
    for operation in host.operations.values():
        yield Finding(
            f"{operation.verb} of {operation.resource} was begun at {operation.since} and is not finished.",
            "Run the same command again; it goes on where it was.",
        )
    for resource in site.resources.values():
        assessment = assess(site, host, resource)
        if assessment.level > Level.CATCHING_UP:
            yield Finding(f"{resource.name}: {' '.join(assessment.sentences)}", f"drbd-offsite status {resource.name}")


def _versions(site: Site, facts: Facts) -> Iterator[Finding]:
    wanted = {"drbd-utils"} | {"openvpn" for p in site.peers.values() if p.tunnel.mode in ("openvpn", "static-key")}
    for tool in sorted(wanted):
        found = facts.versions.get(tool)
        if found is None:
            yield Finding(f"{tool} is not installed.", f"apt install {tool}")
        elif _older(found, OLDEST_TOOLS[tool]):
            yield Finding(
                f"{tool} {found} is older than {OLDEST_TOOLS[tool]}, with which drbd-offsite works.",
                f"Upgrade it: apt install {tool}",
            )


def _older(found: str, oldest: Version) -> bool:
    try:
        return Version(found.replace("_", "~")) < oldest  # openvpn writes 2.7_rc1
    except ValueError:  # no version at all
        return True


def _peer(site: Site, peer: Peer, facts: Facts) -> Iterator[Finding]:
    if not peer.enrolled:
        yield Finding(
            f"{peer.name} is not enrolled, so nothing can be replicated to it.",
            "drbd-offsite invite > backup.invite; carry the file to the backup; there: drbd-offsite join backup.invite",
        )
    elif peer.name in facts.silent_peers:
        yield Finding(
            f"{site.address_there(peer)} ({peer.name}) does not answer through {peer.tunnel.device}.",
            f"See whether that machine runs, and the tunnel's log: journalctl -u {systemd.tunnel_unit(peer)}",
        )
