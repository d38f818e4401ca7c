"""What must hold on a machine, and what to do about what does not. Pure; ``doctor`` prints it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from debian.debian_support import Version

from ..errors import OffsiteError
from ..model import Flavour, MetadataPlace, Peer, Site
from ..observed import Host
from ..tools import drbd, lvm_filter, systemd
from . import examine_resources, guards
from .assess import Level, assess, duration
from .diagnosis import Finding, Severity
from .measure import Measured, Verdict, judge, rounded

OLDEST_TOOLS = {"drbd-utils": Version("9.15"), "openvpn": Version("2.6")}
"""drbd-utils: events2 in the form that is read here; openvpn: peer-fingerprint."""

WATCHER = "drbd-offsite-watch.service"
MARKER = "drbd-offsite-mark.service"
DRILL_TIMER = "drbd-offsite-drill.timer"
DRBD_UTILS_UNIT = "drbd.service"
"""Brings up every resource of DRBD's files at boot, where it is enabled."""

CLOCK_SECONDS = 30.0
"""Asking the peer takes a part of that."""


@dataclass(frozen=True, slots=True)
class _BadPair:
    """DRBD's module from one version on, and drbd-utils from one up to another, that do not go well together."""

    module: Version
    tools: tuple[Version, Version]
    severity: Severity
    means: str


BAD_PAIRS = (
    _BadPair(
        Version("9"),
        (Version("0"), Version("9.28")),
        Severity.NOTE,
        "its events may come out of order, and what is done about them comes later",
    ),
    _BadPair(
        Version("9"),
        (Version("9.33"), Version("9.34")),
        Severity.WARNING,
        "drbdadm adjust does not do what it should with resource files that DRBD 8.4 can read too, as ours",
    ),
)
"""Those that LINBIT has named: in the announcement of DRBD 9.2.9 and the change logs of drbd-utils 9.28.0 (events2)
and 9.34.0 (adjust). The module of 8.4 has none: "the utils version is independent of" it (LINBIT/drbd-utils, issue 10),
and 8.4.11 with 9.22, Debian's own pair, is what this was tried with."""


@dataclass(frozen=True, slots=True)
class PeerState:
    """What a peer says of itself."""

    drbd_version: str
    """Empty where no module is loaded."""
    ahead_seconds: float
    """How much later it is by its clock; negative for earlier."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a look for the doctor adds to `Host`."""

    versions: dict[str, str]
    """Of the tools in `OLDEST_TOOLS` that are there."""
    inactive: frozenset[str]
    """Units of ours that do not run."""
    readable_keys: tuple[str, ...]
    """Files with a secret that others than root may read."""
    outdated: tuple[str, ...]
    """Rendered files that differ from what the configuration says."""
    silent_peers: frozenset[str]
    """Peers that do not answer through the tunnel."""
    disabled: frozenset[str] = frozenset()
    """Units of ours that are not started at boot."""
    passes_us_by: bool = False
    """`DRBD_UTILS_UNIT` is started at boot."""
    strangers: frozenset[str] = frozenset()
    """Enrolled peers whose key is not here: after an adoption, until the two machines get to know each other."""
    handlers: tuple[tuple[str, str], ...] = ()
    """Why the kernel may not reach our handler, or somebody else in its place, each with its remedy."""
    alerts: tuple[tuple[str, str], ...] = ()
    """Why an alert may not reach anybody, each with its remedy."""
    scripts: tuple[tuple[str, str], ...] = ()
    """Why what an admin wants run would not be, each with its remedy."""
    problems: tuple[str, ...] = ()
    """What could not be seen, and why."""
    peers: Mapping[str, PeerState | OffsiteError] = field(default_factory=dict)
    """Of those that are not silent, what they say, or why they do not."""
    measured: Mapping[str, Measured] = field(default_factory=dict)
    """What was measured last of the lines to the peers."""
    adjustments: tuple[drbd.Adjustment, ...] | None = ()
    """None where drbdadm refuses the resource files."""
    lvm: lvm_filter.Settings | None = None
    """None where LVM reads nothing but the devices in a file, or does not say."""
    unowned: Mapping[MetadataPlace, drbd.Identifiers] = field(default_factory=dict)
    """What slots of the metadata volume hold that nobody owns."""


def units(site: Site, strangers: frozenset[str] = frozenset()) -> tuple[str, ...]:
    """Every unit that has to be active on this site."""
    return (*_tunnels(site), *_started_at_boot(site, strangers))


def enabled_units(site: Site, strangers: frozenset[str] = frozenset()) -> tuple[str, ...]:
    """Every unit that has to be enabled."""
    starter = [systemd.TUNNEL_STARTER] if _tunnels(site) else []
    return (*starter, *_started_at_boot(site, strangers))


def _tunnels(site: Site) -> list[str]:
    units = [systemd.tunnel_unit(peer) for peer in site.peers.values() if peer.enrolled]
    return [unit for unit in units if unit]


def _started_at_boot(site: Site, strangers: frozenset[str]) -> list[str]:
    known = [peer for peer in site.peers.values() if peer.enrolled and peer.name not in strangers]
    drills = [DRILL_TIMER] if site.flavour is Flavour.BACKUP and site.drill_days else []
    return [
        WATCHER,
        MARKER,
        *drills,
        *([systemd.PEER_SOCKET] if known else []),
        *map(systemd.resource_unit, site.resources),
    ]


def examine(site: Site, host: Host, facts: Facts) -> Iterator[Finding]:
    """Everything that is not as it must be, or that is good to know."""
    for problem in (*host.problems, *facts.problems):
        yield Finding(Severity.FAULT, problem, "Run the program by hand and see what it says.")
    refusal = guards.drbd_version(host.drbd_version)
    if refusal is not None:
        yield Finding(Severity.FAULT, refusal.message, refusal.hint)
    if site.volume_group not in host.groups:
        yield Finding(
            Severity.FAULT,
            f"There is no volume group {site.volume_group}.",
            "Correct volume_group in drbd-offsite.conf ('vgs' shows what there is), or create the group.",
        )
    yield from _versions(site, facts)
    yield from _pair(host.drbd_version, facts.versions.get("drbd-utils", ""))
    yield from _files(facts)
    for unit in sorted(facts.inactive):
        yield Finding(
            Severity.FAULT,
            f"{unit} does not run.",
            f"systemctl start {unit}; systemctl status {unit} says why it did not.",
        )
    yield from _boot(facts)
    for what, remedy in (*facts.alerts, *facts.scripts):
        yield Finding(Severity.WARNING, what, remedy)
    for peer in site.peers.values():
        yield from _peer(site, host, peer, facts)
        if peer.name in facts.measured:
            yield from _line(peer, facts.measured[peer.name])
    for operation in host.operations.values():
        where = "" if site.flavour is Flavour.SERVER else operation.finished_where
        yield Finding(
            Severity.FAULT,
            f"{operation.verb} of {operation.resource} was begun at {operation.since} and is not finished.",
            f"Run the same drbd-offsite {operation.finished_by} again{where}; it goes on where it was.",
        )
    yield from _resources(site, host, facts)


def _boot(facts: Facts) -> Iterator[Finding]:
    for unit in sorted(facts.disabled):
        yield Finding(
            Severity.WARNING,
            f"{unit} is not enabled, so nothing starts it at the next boot.",
            f"systemctl enable {unit}",
        )
    if facts.passes_us_by:
        yield Finding(
            Severity.WARNING,
            f"{DRBD_UTILS_UNIT} is enabled. At boot it connects every resource, also one that is held, and waits for "
            "the other machine before the data is served; as drbd-utils ships it, without limit.",
            f"systemctl disable {DRBD_UTILS_UNIT}, and not --now: stopping it takes down what runs. drbd-offsite's "
            "units bring its resources up; one that is left to drbdadm gets its own: systemctl enable drbd@NAME.target",
        )


def _files(facts: Facts) -> Iterator[Finding]:
    for path in facts.readable_keys:
        remedy = f"chown root {path}; chmod go= {path}"
        yield Finding(Severity.FAULT, f"{path} can be read by others than root.", remedy)
    for path in facts.outdated:
        yield Finding(
            Severity.WARNING,
            f"{path} is not what the configuration says.",
            "drbd-offsite render --diff shows how; render mends it.",
        )
    for what, remedy in facts.handlers:
        yield Finding(Severity.FAULT, what, remedy)


def _resources(site: Site, host: Host, facts: Facts) -> Iterator[Finding]:
    for resource in site.resources.values():
        assessment = assess(site, host, resource)
        if assessment.level > Level.CATCHING_UP:
            yield Finding(
                Severity.WARNING if assessment.level is Level.HELD else Severity.FAULT,
                f"{resource.name}: {' '.join(assessment.sentences)}",
                f"drbd-offsite status {resource.name}",
            )
    here = {site.address_here(peer) for peer in site.peers.values()}
    if facts.adjustments is not None:
        yield from examine_resources.running(site, host, facts.adjustments)
    elif here <= host.addresses:
        # Without a tunnel's address it may refuse for that alone.
        yield Finding(
            Severity.FAULT,
            "drbdadm refuses what is in /etc/drbd.d. What runs goes on, and nothing can be brought up or connected.",
            "drbdadm dump > /dev/null says where and why.",
        )
    yield from examine_resources.restore_points(site, host)
    yield from examine_resources.unowned(site, host, facts.unowned)
    if facts.lvm is not None:
        yield from examine_resources.lvm_reads(site.resources.values(), facts.lvm)


def _versions(site: Site, facts: Facts) -> Iterator[Finding]:
    wanted = {"drbd-utils"} | {"openvpn" for p in site.peers.values() if p.tunnel.mode in ("openvpn", "static-key")}
    for tool in sorted(wanted):
        found = facts.versions.get(tool)
        if found is None:
            yield Finding(Severity.FAULT, f"{tool} is not installed.", f"apt install {tool}")
        elif _older(found, OLDEST_TOOLS[tool]):
            yield Finding(
                Severity.FAULT,
                f"{tool} {found} is older than {OLDEST_TOOLS[tool]}, with which drbd-offsite works.",
                f"Upgrade it: apt install {tool}",
            )


def _older(found: str, oldest: Version) -> bool:
    try:
        return Version(found.replace("_", "~")) < oldest  # openvpn writes 2.7_rc1
    except ValueError:  # no version at all
        return True


def _pair(module: str, tools: str) -> Iterator[Finding]:
    try:
        found, beside = Version(module), Version(tools)
    except ValueError:  # no version at all, which is a finding of its own
        return
    for pair in BAD_PAIRS:
        first, fixed = pair.tools
        if found >= pair.module and first <= beside < fixed:
            yield Finding(
                pair.severity,
                f"DRBD's module is {module} and drbd-utils {tools}; with that pair {pair.means}.",
                f"Upgrade drbd-utils to {fixed} or later.",
            )


_INTRODUCE = (
    "On the server: drbd-offsite invite > backup.invite; carry the file to the backup; there: drbd-offsite join "
    "backup.invite"
)


def _peer(site: Site, host: Host, peer: Peer, facts: Facts) -> Iterator[Finding]:
    if not peer.enrolled:
        yield Finding(
            Severity.WARNING,
            f"{peer.name} is not enrolled, so nothing can be replicated to it.",
            _INTRODUCE,
        )
        return
    if peer.name in facts.strangers:
        yield Finding(
            Severity.WARNING,
            f"This machine has no key of {peer.name}, so neither can ask the other for anything. What is replicated "
            "goes on.",
            _INTRODUCE,
        )
    if peer.name in facts.silent_peers:
        unit = systemd.tunnel_unit(peer)
        look = f"the tunnel's log: journalctl -u {unit}" if unit else f"the line: ip addr show {peer.tunnel.device}"
        yield Finding(
            Severity.FAULT,
            f"{site.address_there(peer)} ({peer.name}) does not answer through {peer.tunnel.device}.",
            f"See whether that machine runs, and {look}",
        )
    elif state := facts.peers.get(peer.name):
        yield from _answer(host, peer.name, state)


def _answer(host: Host, peer: str, state: PeerState | OffsiteError) -> Iterator[Finding]:
    if isinstance(state, OffsiteError):
        yield Finding(
            Severity.WARNING,
            f"The tunnel to {peer} is up, but a request was not answered: {state.message}",
            f"On that machine: systemctl status {systemd.PEER_SOCKET}, and drbd-offsite doctor. {state.hint}".strip(),
        )
        return
    if abs(state.ahead_seconds) > CLOCK_SECONDS:
        difference = duration(round(abs(state.ahead_seconds)))
        direction = "ahead of" if state.ahead_seconds > 0 else "behind"
        yield Finding(
            Severity.WARNING,
            f"The clock of {peer} is {difference} {direction} this machine's, so their events cannot be put in order.",
            "timedatectl on both shows which one is wrong, and whether a time server sets it; "
            "timedatectl set-ntp true has it set.",
        )
    if state.drbd_version and host.drbd_version and _major(state.drbd_version) != _major(host.drbd_version):
        yield Finding(
            Severity.NOTE,
            f"{peer} has DRBD {state.drbd_version}, this machine {host.drbd_version}.",
            "They connect only as long as the newer one speaks the older one's protocol (proto in /proc/drbd has the "
            "range of each). Bring both machines to the same release.",
        )


def _line(peer: Peer, measured: Measured) -> Iterator[Finding]:
    if judge(peer.link_speed, measured) is Verdict.TOO_HIGH:
        yield Finding(
            Severity.WARNING,
            f"link_speed of {peer.name} is {peer.link_speed}, and at {measured.at} the slower direction carried "
            f"{rounded(measured.slower)} Mbit/s. A resync would take all of the line.",
            f"drbd-offsite measure-link {peer.name} --apply measures it again and makes that the speed on both "
            "machines.",
        )


def _major(version: str) -> str:
    return version.partition(".")[0]
