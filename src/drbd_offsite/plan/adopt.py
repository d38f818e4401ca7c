"""Taking over what was set up by hand: what DRBD's own files say, as our configuration, or why not."""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from .. import config
from ..errors import Refused, UsageError
from ..model import Flavour, Resource, Site, VolumeName
from ..observed import Role
from ..render import HEADER, KEYS
from ..tools.drbd_dump import DumpedResource, Half
from .adopt_found import Found, machine, own_file, replica, shape
from .adopt_fstab import Fstab, become

_SECRET = re.compile(r"[!#-\[\]-~]{1,64}\Z")
"""What a resource file holds without an escape, and an invitation carries."""


@dataclass(frozen=True, slots=True)
class Adoption:
    """What this machine is to be."""

    flavour: Flavour
    config: str
    """The new text of drbd-offsite.conf."""
    changes: Mapping[str, str]
    """What is new in it, by ``section.key``."""
    resources: tuple[Resource, ...]
    files: Mapping[str, str]
    """Each resource's file as it is named now."""
    secrets: Mapping[str, str] = field(repr=False)
    """The shared secret, by peer."""
    lines: Mapping[str, str]
    """OpenVPN's configuration of the line, by peer; empty where none has this machine's address."""
    fstab: Fstab
    standalone: tuple[str, ...]
    """Of the resources those that do not even try to connect; they stay so until a person connects them."""
    left: tuple[str, ...]
    """This machine's resources that nobody has adopted afterwards either."""


def decide(found: Found, names: Sequence[str], asked_for: Flavour | None) -> Adoption:
    """How the named resources, or all, are adopted. Raises Refused, UsageError and ConfigError."""
    unknown = [name for name in names if name not in found.dump]
    if unknown:
        known = ", ".join(found.dump) or "none"
        raise UsageError(f"DRBD's configuration has no resource {', '.join(unknown)}.", f"It has: {known}.")
    configured = config.parse(found.config) if found.config is not None else None
    # By name, on both machines: it is the order of their resyncs, which has to be the same.
    wanted = [found.dump[name] for name in sorted(names or found.dump) if not _ours(configured, found, name)]
    flavour = configured.flavour if configured else asked_for or _flavour(found, wanted)
    if asked_for not in (None, flavour):
        raise Refused(
            f"This machine is configured as the {flavour}, so it cannot be adopted as the {asked_for}.",
            f"Leave --flavour out, or install drbd-offsite-{asked_for} instead of drbd-offsite-{flavour}.",
        )
    draft = _Draft(found, flavour)
    refusals = {dumped.name: refusal for dumped in wanted if (refusal := draft.take(dumped))}
    if refusals:
        others = [dumped.name for dumped in wanted if dumped.name not in refusals]
        rest = f" The others can be adopted by name: drbd-offsite adopt {' '.join(others)}" if others else ""
        raise Refused(
            "\n".join(f"{name} cannot be adopted. {why.message} {why.hint}" for name, why in refusals.items()),
            f"Nothing was changed.{rest}",
        )
    return draft.adoption()


def _ours(site: Site | None, found: Found, name: str) -> bool:
    """Whether it was made here, or has been adopted."""
    rendered = found.files.get(found.file_of(name), "").startswith(HEADER)
    return site is not None and name in site.resources and rendered and name not in found.under_way


def _flavour(found: Found, wanted: Sequence[DumpedResource]) -> Flavour:
    """Which machine this is, by who serves the resources now."""
    seen = [found.running[dumped.name] for dumped in wanted if dumped.name in found.running]
    if all(resource.role is Role.PRIMARY for resource in seen):
        return Flavour.SERVER
    if all(resource.connection is not None and resource.connection.role is Role.PRIMARY for resource in seen):
        return Flavour.BACKUP
    raise Refused(
        "Whether this machine is the server or the backup cannot be told from who is Primary now.",
        "Say it: drbd-offsite adopt --flavour server (or backup).",
    )


class _Draft:
    """The resources that were found good; each further one has to go with them."""

    def __init__(self, found: Found, flavour: Flavour) -> None:
        self._found, self._flavour = found, flavour
        self._text = config.initial(flavour) if found.config is None else found.config
        # A new file lacks only the group, which follows from the resources.
        self._site = config.parse(found.config or config.updated(self._text, {"site.volume_group": "any"}))
        self._resources: dict[str, Resource] = {}
        self._peers: dict[str, tuple[str, Half, Half]] = {}
        """Section in the configuration, half here and half there of the first resource with a peer, by host name."""
        self._secrets: dict[str, str] = {}

    def take(self, dumped: DumpedResource) -> Refused | None:
        """Add a resource, or say why it cannot be."""
        refusal = next(self._objections(dumped), None)
        if refusal is None:
            here, there = _halves(dumped, self._found.hostname)
            resource = self._resource(dumped.name, here, there)
            self._peers.setdefault(there.hostname, (resource.peer, here, there))
            self._secrets[resource.peer] = dumped.secret
            self._resources[dumped.name] = resource
        return refusal

    def _objections(self, dumped: DumpedResource) -> Iterator[Refused]:
        """The first one counts: each takes for granted what the ones before it ask for."""
        yield from shape(dumped, self._found.hostname)
        here, there = _halves(dumped, self._found.hostname)
        yield from machine(self._found, self._flavour, dumped.name, here)
        resource = self._resource(dumped.name, here, there)
        yield from self._line_objections(resource, here, there)
        yield from self._secret_objections(dumped, resource)
        yield from own_file(self._found, resource)
        existing = self._site.resources.get(dumped.name, resource)
        if (existing.peer, existing.here, existing.there) != (resource.peer, resource.here, resource.there):
            yield Refused(
                f"{config.PATH} has a resource of that name which differs from this one.",
                "See which of the two is right, and correct the other by hand.",
            )

    def _resource(self, name: str, here: Half, there: Half) -> Resource:
        return Resource(name, self._section(there.hostname), replica(here), replica(there))

    def _section(self, hostname: str) -> str:
        """A peer's name in the configuration, the same that ``invite`` and ``join`` use."""
        if hostname in self._peers:
            return self._peers[hostname][0]
        known = [peer.name for peer in self._site.peers.values() if peer.hostname == hostname]
        nobody_s = [p.name for p in self._site.peers.values() if not p.enrolled and p.name not in self._secrets]
        label = hostname.partition(".")[0]
        return [*known, *nobody_s, hostname if label in self._site.peers else label][0]

    def _line_objections(self, resource: Resource, here: Half, there: Half) -> Iterator[Refused]:
        peer = self._site.peers.get(resource.peer)
        _, first_here, first_there = self._peers.get(there.hostname, ("", here, there))
        known = (first_here.address, first_there.address)
        if peer is not None and peer.enrolled:
            known = (self._site.address_here(peer), self._site.address_there(peer))
        if (here.address, there.address) != known:
            yield Refused(
                f"It goes from {here.address} to {there.address}, and the line to {there.hostname} is the one from "
                f"{known[0]} to {known[1]}; there is one line to a peer.",
                "Leave it to drbdadm, or give it the other addresses on both machines first.",
            )

    def _secret_objections(self, dumped: DumpedResource, resource: Resource) -> Iterator[Refused]:
        both = "in its file on both machines, 'drbdadm adjust' it on both, and run adopt again."
        if not dumped.secret:
            yield Refused(
                "It has no shared-secret, so DRBD lets anybody in who reaches its port.",
                f"Set cram-hmac-alg sha256 and a shared-secret {both}",
            )
        if not _SECRET.match(dumped.secret):
            yield Refused(
                "Its shared-secret has a blank, a quote, a backslash or a letter beyond ASCII, which drbd-offsite "
                "cannot carry over.",
                f"Set another one {both}",
            )
        known = self._secrets.get(resource.peer) or self._found.secrets.get(resource.peer) or dumped.secret
        if known != dumped.secret:
            yield Refused(
                f"Its shared-secret is not that of {KEYS}/{resource.peer}/drbd.secret, or of the resources before it "
                f"with {resource.peer}; there is one for each peer.",
                f"Set the same {both}",
            )

    def adoption(self) -> Adoption:
        changes = self._changes()
        return Adoption(
            flavour=self._flavour,
            config=config.updated(self._text, changes),
            changes={k: v for k, v in changes.items() if config.updated(self._text, {k: v}) != self._text},
            resources=tuple(self._resources.values()),
            files={name: self._found.file_of(name) for name in self._resources},
            secrets=self._secrets,
            lines={section: self._openvpn(here, there) for section, here, there in self._peers.values()},
            fstab=become(
                self._found.fstab,
                {resource: self._here(name).volumes[0] for name, resource in self._resources.items()},
                self._found.identities,
            ),
            standalone=tuple(name for name in self._resources if self._found.running[name].standalone),
            left=tuple(
                name
                for name, dumped in self._found.dump.items()
                if name not in self._resources
                and not _ours(self._site, self._found, name)
                and any(_may_be_of(half, self._found.hostname) for half in dumped.halves)
            ),
        )

    def _here(self, name: str) -> Half:
        return _halves(self._found.dump[name], self._found.hostname)[0]

    def _changes(self) -> dict[str, str]:
        changes: dict[str, str] = {}
        resources = list(self._resources.values())
        if resources and not self._site.resources:
            changes |= self._storage(resources)
            options = [self._found.dump[name].options for name in self._resources]
            if all(said.get("disk-flushes") == "no" == said.get("md-flushes") for said in options):
                changes["site.battery_backed_cache"] = "yes"
        ports = {half.port for resource in resources for half in (resource.here, resource.there)}
        if self._site.service_port in ports:  # 7788 is DRBD's own usual first port
            free = next(n for n in range(self._site.service_port, 0, -1) if n not in ports)
            changes["site.service_port"] = str(free)
        for section, here, there in self._peers.values():
            if not (section in self._site.peers and self._site.peers[section].enrolled):
                changes |= {f"peers.{section}.{key}": value for key, value in self._peer(here, there).items()}
        for resource in resources:
            changes |= config.resource_keys(resource)
        return changes

    def _storage(self, resources: Sequence[Resource]) -> dict[str, str]:
        """The metadata volume, if all slots are in the same one."""
        pools = {resource.here.metadata.volume for resource in resources if resource.here.metadata.index is not None}
        if len(pools) == 1:
            (pool,) = pools
            return {"site.volume_group": pool.group, "site.metadata_volume": pool.name}
        group, usual = resources[0].here.volume.group, self._site.metadata_volume
        # One without slots is one resource's own from its first byte on, which is that of slot 0 too.
        own = {resource.here.metadata.volume for resource in resources if resource.here.metadata.index is None}
        if VolumeName(group, usual) not in own:
            return {"site.volume_group": group}
        names = (f"{usual}_{number}" for number in itertools.count(1))
        free = next(name for name in names if VolumeName(group, name) not in self._found.volumes)
        return {"site.volume_group": group, "site.metadata_volume": free}

    def _peer(self, here: Half, there: Half) -> dict[str, str]:
        keys = {
            "hostname": there.hostname,
            "tunnel": "none",
            "device": self._found.addresses[here.address],
            f"{self._flavour}_address": here.address,
            f"{self._flavour.other}_address": there.address,
        }
        if path := self._openvpn(here, there):
            # Not used in this mode; for whoever changes it.
            setup = self._found.lines[path]
            keys["port"] = setup.port
            keys["dials"] = self._flavour if setup.remote else self._flavour.other
            if setup.remote:
                keys["reachable_as"] = setup.remote
        return keys

    def _openvpn(self, here: Half, there: Half) -> str:
        ends = (here.address, there.address)
        return next((p for p, setup in self._found.lines.items() if (setup.near_end, setup.far_end) == ends), "")


def _halves(dumped: DumpedResource, hostname: str) -> tuple[Half, Half]:
    here = next(half for half in dumped.halves if half.hostname == hostname)
    return here, next(half for half in dumped.halves if half is not here)


def _may_be_of(half: Half, hostname: str) -> bool:
    """Of a floating one no name is written, of a stacked one those of both machines."""
    return not half.hostname or hostname in half.hostname.split()
