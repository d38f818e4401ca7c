"""What a boot needs beyond the circle."""

from dataclasses import replace
from math import inf

import pytest

from drbd_offsite.model import Flavour, Site, TunnelMode
from drbd_offsite.operations.boot import start_tunnels

from .. import make
from ..conftest import Answer, Programs

ENROLLED = make.peer(hostname="backup")
SECOND = replace(ENROLLED, name="second", tunnel=replace(make.TUNNEL, mode=TunnelMode.WIREGUARD, device="wg1"))
LINE = replace(ENROLLED, name="line", tunnel=replace(make.TUNNEL, mode=TunnelMode.NONE, device="eth1"))
NEW = make.peer(name="new", hostname="")
RESOURCES = {
    name: make.resource(name, number, peer)
    for number, (name, peer) in enumerate(
        {"a": "backup", "b": "second", "c": "line", "d": "new", "e": "backup"}.items()
    )
}


def site(**changes: object) -> Site:
    peers = {peer.name: peer for peer in (ENROLLED, SECOND, LINE, NEW)}
    return make.site(resources=RESOURCES, **{"peers": peers} | changes)


def started(programs: Programs, names: str, found: Site) -> list[str]:
    programs.machine = lambda argv, _: Answer("", 1, "no systemd here") if argv[0] == "systemctl" else None
    start_tunnels(found, names)
    assert len(programs.ran) <= 1
    assert all("--no-block" in argv for argv in programs.ran), "a tunnel waits for the network, and the disks do not"
    return [word for argv in programs.ran for word in argv if word.endswith(".service")]


@pytest.mark.parametrize(
    ("names", "units"),
    [
        ("a", ["openvpn-server@drbd-offsite-backup.service"]),
        ("ae", ["openvpn-server@drbd-offsite-backup.service"]),
        ("ab", ["openvpn-server@drbd-offsite-backup.service", "wg-quick@wg1.service"]),
        ("c", []),
        ("d", []),
        ("", []),
    ],
)
def test_the_tunnels_of_what_comes_up_are_started_first(programs: Programs, names: str, units: list[str]) -> None:
    assert started(programs, names, site()) == units


@pytest.mark.parametrize(("boot_wait", "asks"), [(0.0, False), (20.0, True), (inf, True)])
def test_a_server_that_asks_nobody_starts_nothing(programs: Programs, boot_wait: float, asks: bool) -> None:
    assert bool(started(programs, "a", site(boot_wait=boot_wait))) is asks


def test_a_backup_asks_nobody(programs: Programs) -> None:
    assert started(programs, "a", site(flavour=Flavour.BACKUP)) == []
