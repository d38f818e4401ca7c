"""Taking over what was set up by hand: what DRBD's own files say, as our configuration, or why not."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from .. import config
from ..errors import Refused, UsageError
from ..model import RESOURCE_NAME, Flavour, MetadataPlace, Replica, Resource, Site, VolumeName
from ..observed import DrbdResource, Role
from ..render import HEADER, KEYS, resource_file
from ..tools import drbd_dump, openvpn
from ..tools.drbd_dump import DumpedResource, Half

_SECRET = re.compile(r"[!#-\[\]-~]{1,64}\Z")
"""What a resource file holds without an escape, and an invitation carries."""


@dataclass(frozen=True, slots=True)
class Found:
    """One look at a machine that may have no configuration yet."""

    hostname: str
    config: str | None
    """The text of drbd-offsite.conf."""
    dump: Mapping[str, DumpedResource]
    files: Mapping[str, str] = field(repr=False)
    """Text of each file in /etc/drbd.d, by path."""
    running: Mapping[str, DrbdResource]
    volumes: Collection[VolumeName]
    addresses: Mapping[str, str]
    """The interface of each address of this machine."""
    lines: Mapping[str, openvpn.Setup]
    """OpenVPN's configurations, by path."""
    secrets: Mapping[str, str] = field(repr=False)
    """The shared secrets that our key directory has already, by peer."""
    under_way: frozenset[str]
    """The resources whose adoption was begun."""

    def file_of(self, name: str) -> str:
        """The file that defines a resource, and it alone; empty where there is none."""
        return next((path for path, text in self.files.items() if drbd_dump.resources_in(text) == (name,)), "")


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
        yield from _shape(dumped, self._found.hostname)
        here, there = _halves(dumped, self._found.hostname)
        yield from _machine(self._found, self._flavour, dumped.name, here)
        resource = self._resource(dumped.name, here, there)
        yield from self._line_objections(resource, here, there)
        yield from self._secret_objections(dumped, resource)
        yield from _file(self._found, resource)
        existing = self._site.resources.get(dumped.name, resource)
        if (existing.peer, existing.here, existing.there) != (resource.peer, resource.here, resource.there):
            yield Refused(
                f"{config.PATH} has a resource of that name which differs from this one.",
                "See which of the two is right, and correct the other by hand.",
            )

    def _resource(self, name: str, here: Half, there: Half) -> Resource:
        return Resource(name, self._section(there.hostname), _replica(here), _replica(there))

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
        )

    def _changes(self) -> dict[str, str]:
        changes: dict[str, str] = {}
        resources = list(self._resources.values())
        if resources and not self._site.resources:
            changes |= _storage(resources)
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


def _replica(half: Half) -> Replica:
    """Raises ValueError where something is no logical volume."""
    (volume,) = half.volumes
    return Replica(VolumeName.parse(volume.disk), MetadataPlace.parse(volume.metadata), volume.minor, half.port)


def _storage(resources: Sequence[Resource]) -> dict[str, str]:
    """The metadata volume, if all slots are in the same one."""
    pools = {resource.here.metadata.volume for resource in resources if resource.here.metadata.index is not None}
    if len(pools) == 1:
        (pool,) = pools
        return {"site.volume_group": pool.group, "site.metadata_volume": pool.name}
    return {"site.volume_group": resources[0].here.volume.group}


# -- why not --------------------------------------------------------------------------------------


def _shape(dumped: DumpedResource, hostname: str) -> Iterator[Refused]:
    """What drbd-offsite has no words for."""
    leave = "Leave it to drbdadm; what runs goes on as it is."
    if not RESOURCE_NAME.fullmatch(dumped.name):
        yield Refused("Its name has other characters than letters, digits and _ . - in it.", leave)
    if len(dumped.halves) != 2:
        yield Refused(f"It has {len(dumped.halves)} machines, and drbd-offsite knows a server and a backup.", leave)
    if hostname not in [half.hostname for half in dumped.halves]:
        named = ", ".join(half.hostname or "floating" for half in dumped.halves)
        yield Refused(
            f'It has no section "on {hostname}", which is this machine\'s name, but {named}.',
            "If the machine was renamed, correct its file on both machines, and run adopt again.",
        )
    for half in dumped.halves:
        if [volume.number for volume in half.volumes] != [0]:
            yield Refused(f"It has {len(half.volumes)} volumes, and drbd-offsite knows one in a resource.", leave)
        if half.family != "ipv4":
            yield Refused(f"Its section on {half.hostname} has no IPv4 address.", leave)
        if half.volumes[0].metadata == drbd_dump.INTERNAL:
            yield Refused(
                "Its metadata is internal; drbd-offsite keeps it in a volume of its own.",
                "Leave it to drbdadm, or copy its files to a new volume and replicate that one: drbd-offsite add.",
            )
        try:
            _replica(half)
        except ValueError as error:
            yield Refused(f"On {half.hostname}, {error}.", leave)


def _machine(found: Found, flavour: Flavour, name: str, here: Half) -> Iterator[Refused]:
    """What has to be so on this machine while it is taken over."""
    if here.address not in found.addresses:
        yield Refused(
            f"Its address {here.address} is not on this machine.",
            "Bring its line up ('ip address' shows what there is), and run adopt again.",
        )
    replica = _replica(here)
    for volume in (replica.volume, replica.metadata.volume):
        if volume not in found.volumes:
            yield Refused(f"There is no logical volume {volume} on this machine.", "See 'lvs' for what there is.")
    seen = found.running.get(name)
    if seen is None:
        yield Refused("It is not up.", f"Bring it up as before (drbdadm up {name}), and run adopt again.")
    elif flavour is Flavour.SERVER and seen.role is not Role.PRIMARY:
        yield Refused(
            f"It is {seen.role} here, and from now on a server would make it Primary by itself.",
            f"If its data here is the newest, drbdadm primary {name}, and run adopt again.",
        )
    elif flavour is Flavour.BACKUP and seen.role is Role.PRIMARY:
        yield Refused(
            "It is Primary here, and a backup only receives a copy.",
            f"Once the server serves it again, drbdadm secondary {name} here, and run adopt again.",
        )


def _file(found: Found, resource: Resource) -> Iterator[Refused]:
    """Ours takes its file's place in one step, which only a file of its own allows."""
    now, ours = found.file_of(resource.name), resource_file(resource)
    if not now:
        yield Refused(
            "It has no file of its own in /etc/drbd.d.",
            "Move its section, and nothing else, to such a file (drbdadm reads it as before), and run adopt again.",
        )
    if now != ours and ours in found.files:
        yield Refused(f"There is a file {ours} already, and it is not that of {resource.name}.", "Rename that one.")
