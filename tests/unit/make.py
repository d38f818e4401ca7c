"""Nouns to test with: the how-to's two machines and its volume."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from drbd_offsite.model import (
    Congestion,
    Flavour,
    Hours,
    MetadataPlace,
    Peer,
    Replica,
    Resource,
    RestorePoint,
    Site,
    Tunnel,
    TunnelMode,
    Verification,
    VolumeName,
)
from drbd_offsite.observed import (
    ConnectionState,
    DiskState,
    DrbdConnection,
    DrbdResource,
    DrbdVolume,
    Forbidden,
    Hold,
    Host,
    LogicalVolume,
    Mount,
    Operation,
    PeerDevice,
    ReplicationState,
    Role,
    VolumeGroup,
)

MIB = 2**20
GIB = 2**30
FINGERPRINT = ":".join(["AB"] * 32)
SECRET = "0123456789abcdef" * 3
SSH_KEY = "ssh-ed25519 " + "A" * 68
TUNNEL = Tunnel(TunnelMode.OPENVPN, "tun0", Flavour.BACKUP, "server.example.org", 1194, "10.89.33.1", "10.89.33.2")

CONFIG = """\
# Who we are
[site]
  flavour = server
  volume_group = local

[peers]
  [[backup]]
    # enrolled by hand
    hostname = backup
    link_speed = 100
    reachable_as = server.example.org

[resources]
  [[test_a]]
    peer = backup
    volume = local/test_a
    peer_volume = local/test_a
    metadata = local/drbd_meta[0]
    peer_metadata = local/drbd_meta[0]
    minor = 0
    peer_minor = 0
    port = 7789
    peer_port = 7789
"""
"""A whole file; `site` is what it says."""


def replica(number: int = 0, name: str = "test_a", group: str = "local") -> Replica:
    place = MetadataPlace(VolumeName(group, "drbd_meta"), number)
    return Replica(VolumeName(group, name), place, number, 7789 + number)


def resource(name: str = "test_a", number: int = 0, peer: str = "backup") -> Resource:
    return Resource(name, peer, replica(number, name), replica(number, name))


def peer(flavour: Flavour = Flavour.SERVER, tunnel: Tunnel = TUNNEL, **changes: Any) -> Peer:
    """The machine that a machine of this flavour talks to."""
    return replace(Peer(flavour.other, flavour.other, "", 100, tunnel), **changes)


def site(
    flavour: Flavour = Flavour.SERVER,
    resources: Iterable[str] | Mapping[str, Resource] = ("test_a",),
    tunnel: Tunnel = TUNNEL,
    **changes: Any,
) -> Site:
    other = peer(flavour, tunnel)
    if not isinstance(resources, Mapping):
        resources = {name: resource(name, number, other.name) for number, name in enumerate(resources)}
    usual = Site(
        flavour=flavour,
        volume_group="local",
        metadata_volume="drbd_meta",
        battery_backed_cache=False,
        alert_address="root",
        unprotected_minutes=15,
        age_minutes=0,
        remind_hours=24,
        silence_hours=12,
        schedule=(),
        verify=Verification(30, Hours.parse("mon-sun 01:00-05:00"), 20),
        keep_discarded_days=14,
        resync_snapshot=RestorePoint.PREFER,
        first_sync=Congestion.BLOCK,
        drill_days=14,
        drill_minutes=60,
        boot_wait=20.0,
        service_port=7788,
        peers={other.name: other},
        resources=resources,
    )
    return replace(usual, **changes)


def volume(name: str = "test_a", size: int = GIB, minor: int = 0, **changes: Any) -> LogicalVolume:
    return replace(LogicalVolume(VolumeName("local", name), size, True, False, (253, minor)), **changes)


def host(
    flavour: Flavour = Flavour.SERVER,
    drbd: Iterable[DrbdResource] = (),
    volumes: Iterable[LogicalVolume] = (),
    tunnel: bool = True,
    **changes: Any,
) -> Host:
    """A machine with the volumes of `resource`, DRBD's module, and the tunnel's address."""
    there = list(volumes) or [volume(), volume("drbd_meta", 128 * MIB, 1)]
    usual = Host(
        hostname=flavour,
        drbd_version="8.4.11",
        active=frozenset(v.name for v in there if v.active),
        addresses=frozenset({TUNNEL.address_of(flavour)} if tunnel else ()),
        drbd={seen.name: seen for seen in drbd},
        progress={},
        in_flight={},
        mounts=(),
        holds={},
        operations={},
        volumes={v.name: v for v in there},
        groups={"local": VolumeGroup("local", 100 * GIB, 50 * GIB, 4 * MIB)},
    )
    return replace(usual, **changes)


def seen(
    name: str = "test_a",
    role: Role = Role.PRIMARY,
    disk: DiskState = DiskState.UP_TO_DATE,
    state: ConnectionState | None = ConnectionState.CONNECTED,
    replication: ReplicationState = ReplicationState.ESTABLISHED,
    peer_disk: DiskState = DiskState.UP_TO_DATE,
    minor: int = 0,
    **device: Any,
) -> DrbdResource:
    """A resource as DRBD shows it; without a connection where ``state`` is None."""
    other = Role.SECONDARY if role is Role.PRIMARY else Role.PRIMARY
    line = DrbdConnection("backup", state or "", other, (PeerDevice(0, replication, peer_disk, **device),))
    return DrbdResource(name, role, False, (DrbdVolume(0, minor, disk, GIB),), (line,) if state is not None else ())


def well(flavour: Flavour) -> DrbdResource:
    """A resource that lacks nothing."""
    return seen(role=Role.PRIMARY if flavour is Flavour.SERVER else Role.SECONDARY)


def hold(
    *forbids: Forbidden, name: str = "test_a", set_by: str = "test", reason: str = "somebody said so"
) -> Mapping[str, tuple[Hold, ...]]:
    """One that forbids nothing is a remark."""
    return {name: (Hold(name, reason, frozenset(forbids), "2026-01-01T00:00:00+00:00", set_by),)}


def operation(verb: str, parameters: Mapping[str, object], name: str = "test_a") -> Operation:
    return Operation(verb, name, "2026-01-01T00:00:00+00:00", parameters)


def mount(devno: tuple[int, int], target: str) -> Mount:
    return Mount(devno, target, "ext4", "/dev/whatever")
