from dataclasses import replace

import pytest
from hypothesis import given

from drbd_offsite.model import Flavour, TunnelMode
from drbd_offsite.plan.examine import WATCHER, Facts, Finding, examine, units

from .. import make
from .test_circle import hosts

WELL = Facts(
    versions={"drbd-utils": "9.22.0", "openvpn": "2.6.14"},
    inactive=frozenset(),
    readable_keys=(),
    outdated=(),
    silent_peers=frozenset(),
    handler_runs=True,
)
ENROLLED = make.site(peers={"backup": make.peer(hostname="backup")})
UP = make.host(drbd=[make.well(Flavour.SERVER)])


def look(site: object = ENROLLED, host: object = UP, **facts: object) -> list[Finding]:
    return list(examine(site, host, replace(WELL, **facts)))


def test_a_machine_that_is_well_has_no_finding() -> None:
    assert look() == []


@pytest.mark.parametrize(
    ("facts", "what"),
    [
        ({"inactive": frozenset({WATCHER})}, f"{WATCHER} does not run"),
        ({"readable_keys": ("/etc/drbd-offsite/keys/x",)}, "/etc/drbd-offsite/keys/x can be read by others"),
        ({"outdated": ("/etc/drbd.d/0_test_a.res",)}, "is not what the configuration says"),
        ({"silent_peers": frozenset({"backup"})}, "10.89.33.2 (backup) does not answer"),
        ({"handler_runs": False}, "cannot be executed"),
        ({"versions": {"openvpn": "2.6.14"}}, "drbd-utils is not installed"),
        ({"versions": {"drbd-utils": "9.22.0", "openvpn": "2.5.1"}}, "openvpn 2.5.1 is older than 2.6"),
        ({"versions": {"drbd-utils": "8.9.10", "openvpn": "2.7.8"}}, "drbd-utils 8.9.10 is older"),
    ],
)
def test_each_fault_is_found_alone_and_has_a_remedy(facts: dict[str, object], what: str) -> None:
    (finding,) = look(**facts)
    assert what in finding.what
    assert finding.remedy


@pytest.mark.parametrize("version", ["x y", "", ":", "2.6_beta3"])
def test_a_version_that_is_too_old_or_none_at_all_is_a_finding(version: str) -> None:
    (finding,) = look(versions={"drbd-utils": "9.22.0", "openvpn": version})
    assert "openvpn" in finding.what


def test_a_release_candidate_has_openvpn_s_own_spelling() -> None:
    assert look(versions={"drbd-utils": "9.22.0", "openvpn": "2.7_rc1"}) == []


def test_openvpn_is_not_asked_for_where_it_is_not_used() -> None:
    tunnel = replace(make.TUNNEL, mode=TunnelMode.WIREGUARD)
    site = make.site(peers={"backup": make.peer(tunnel=tunnel, hostname="backup")})
    assert look(site, versions={"drbd-utils": "9.22.0"}) == []


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"problems": ("vgs failed",)}, "vgs failed"),
        ({"drbd_version": ""}, "no DRBD module"),
        ({"groups": {}}, "no volume group local"),
        ({"operations": {"add-x": make.operation("add", {}, "x")}}, "add of x was begun at"),
        ({"drbd": {}}, "test_a: It is not up"),
    ],
)
def test_what_the_machine_shows_is_examined(changes: dict[str, object], what: str) -> None:
    found = look(host=replace(UP, **changes))
    assert [f for f in found if what in f.what]
    assert all(f.remedy for f in found)


def test_a_peer_that_is_not_enrolled_is_told_how_to_be() -> None:
    (finding,) = look(make.site(peers={"backup": make.peer(hostname="")}, resources=()))
    assert "not enrolled" in finding.what
    assert "invite" in finding.remedy


def test_a_sync_is_no_fault() -> None:
    from .test_assess import SYNCING

    assert look(host=make.host(drbd=[make.seen(**SYNCING)])) == []


def test_the_units_that_have_to_run() -> None:
    assert units(ENROLLED) == (
        WATCHER,
        "openvpn-server@drbd-offsite-backup.service",
        "drbd-offsite-peer.socket",
        "drbd-offsite@test_a.service",
    )
    assert units(make.site(resources=(), peers={})) == (WATCHER,)


@given(hosts())
def test_every_state_can_be_examined(host: object) -> None:
    for finding in look(host=host):
        assert finding.what
        assert finding.remedy
