from dataclasses import replace

import pytest
from hypothesis import given

from drbd_offsite.errors import BadRequest, ExitCode, PeerUnreachable
from drbd_offsite.model import Flavour, TunnelMode
from drbd_offsite.observed import Forbidden
from drbd_offsite.plan.diagnosis import Finding, Severity
from drbd_offsite.plan.examine import (
    CLOCK_SECONDS,
    DRILL_TIMER,
    MARKER,
    WATCHER,
    Facts,
    PeerState,
    enabled_units,
    examine,
    units,
)
from drbd_offsite.plan.measure import Measured
from drbd_offsite.tools import lvm_filter

from .. import make
from .test_circle import hosts

WELL = Facts(
    versions={"drbd-utils": "9.22.0", "openvpn": "2.6.14"},
    inactive=frozenset(),
    readable_keys=(),
    outdated=(),
    silent_peers=frozenset(),
)
ENROLLED = make.site(peers={"backup": make.peer(hostname="backup")})
UP = make.host(drbd=[make.well(Flavour.SERVER)])


def look(site: object = ENROLLED, host: object = UP, **facts: object) -> list[Finding]:
    return list(examine(site, host, replace(WELL, **facts)))


def test_a_line_of_its_own_has_no_unit_whose_log_would_tell() -> None:
    backup = ENROLLED.peers["backup"]
    line = replace(backup, tunnel=replace(backup.tunnel, mode=TunnelMode.NONE))
    findings = look(replace(ENROLLED, peers={"backup": line}), silent_peers=frozenset({"backup"}))
    (remedy,) = (finding.remedy for finding in findings if "does not answer through" in finding.what)
    assert "None" not in remedy


def test_a_machine_that_is_well_has_no_finding() -> None:
    assert look() == []


@pytest.mark.parametrize(
    ("facts", "what"),
    [
        ({"inactive": frozenset({WATCHER})}, f"{WATCHER} does not run"),
        ({"readable_keys": ("/etc/drbd-offsite/keys/x",)}, "/etc/drbd-offsite/keys/x can be read by others"),
        ({"outdated": ("/etc/drbd.d/0_test_a.res",)}, "is not what the configuration says"),
        ({"silent_peers": frozenset({"backup"})}, "10.89.33.2 (backup) does not answer"),
        ({"handlers": (("Nobody is called.", "Call somebody."),)}, "Nobody is called"),
        ({"disabled": frozenset({WATCHER})}, f"{WATCHER} is not enabled, so nothing starts it at the next boot"),
        ({"passes_us_by": True}, "drbd.service is enabled"),
        ({"strangers": frozenset({"backup"})}, "has no key of backup"),
        ({"versions": {"openvpn": "2.6.14"}}, "drbd-utils is not installed"),
        ({"versions": {"drbd-utils": "9.22.0", "openvpn": "2.5.1"}}, "openvpn 2.5.1 is older than 2.6"),
        ({"versions": {"drbd-utils": "8.9.10", "openvpn": "2.7.8"}}, "drbd-utils 8.9.10 is older"),
        ({"problems": ("lvmconfig could not be started",)}, "lvmconfig could not be started"),
        ({"alerts": (("Nobody can be told.", "Tell somebody."),)}, "Nobody can be told"),
        ({"adjustments": None}, "drbdadm refuses"),
        ({"lvm": lvm_filter.Settings()}, "LVM's commands read the DRBD devices"),
        ({"peers": {"backup": PeerUnreachable("no route", "again")}}, "a request was not answered: no route"),
        ({"peers": {"backup": BadRequest("not of version 1")}}, "a request was not answered: not of version 1"),
        ({"peers": {"backup": PeerState("8.4.11", 61.0)}}, "backup is 61 s ahead of this machine's"),
        ({"peers": {"backup": PeerState("8.4.11", -7200.0)}}, "backup is 2 h 0 min behind this machine's"),
        ({"peers": {"backup": PeerState("9.2.8", 0.0)}}, "backup has DRBD 9.2.8, this machine 8.4.11"),
    ],
)
def test_each_fault_is_found_alone_and_has_a_remedy(facts: dict[str, object], what: str) -> None:
    (finding,) = look(**facts)
    assert what in finding.what
    assert finding.remedy


def test_what_is_only_good_to_know_is_no_failure() -> None:
    (note,) = look(lvm=lvm_filter.Settings())
    (warning,) = look(outdated=("/etc/drbd.d/0_test_a.res",))
    (fault,) = look(inactive=frozenset({WATCHER}))
    assert note.severity < warning.severity < fault.severity
    codes = [finding.severity.exit_code for finding in (note, warning, fault)]
    assert codes == [ExitCode.DONE, ExitCode.WARNED, ExitCode.FAILED]


def test_drbd_utils_own_unit_is_disabled_without_stopping_what_runs() -> None:
    (finding,) = look(passes_us_by=True)
    assert finding.severity is Severity.WARNING
    assert "held" in finding.what
    assert "systemctl disable drbd.service, and not --now" in finding.remedy


@pytest.mark.parametrize(
    ("flavour", "verb", "way_on"),
    [
        (Flavour.SERVER, "add", "the same drbd-offsite add again;"),
        (Flavour.BACKUP, "replicate", "the same drbd-offsite add again on the server;"),
        (Flavour.BACKUP, "release", "the same drbd-offsite remove again on the server;"),
        (Flavour.BACKUP, "rename", "the same drbd-offsite rename again on the server;"),
        (Flavour.SERVER, "link-speed", "the same drbd-offsite measure-link --apply again;"),
        (Flavour.BACKUP, "join", "the same drbd-offsite join again;"),
        (Flavour.BACKUP, "adopt", "the same drbd-offsite adopt again;"),
    ],
)
def test_what_is_unfinished_is_finished_by_a_command_that_there_is(flavour: Flavour, verb: str, way_on: str) -> None:
    host = make.host(flavour, operations={f"{verb}-x": make.operation(verb, {}, "x")})
    (finding,) = look(make.site(flavour, (), peers={}), host)
    assert way_on in finding.remedy


@pytest.mark.parametrize(
    ("hold", "severity"), [(make.hold(Forbidden.CONNECT, set_by="disconnect"), "warning"), ({}, "fault")]
)
def test_what_a_person_has_asked_for_is_no_fault(hold: dict[str, object], severity: str) -> None:
    host = make.host(drbd=[make.seen(state=None)], holds=hold)
    assert [str(finding.severity) for finding in look(host=host)] == [severity]


def test_a_line_that_is_slower_than_it_is_configured_is_named_with_what_measures_it_again() -> None:
    assert look(measured={"backup": Measured("2026-11-22T12:00:00+00:00", 70.0, 90.0, 0.04)}) == []
    (finding,) = look(measured={"backup": Measured("2026-11-22T12:00:00+00:00", 7.4, 90.0, 0.04)})
    assert finding.severity is Severity.WARNING
    assert "link_speed of backup is 100, and at 2026-11-22T12:00:00+00:00" in finding.what
    assert "carried 7.4 Mbit/s. A resync would take all of the line." in finding.what
    assert "drbd-offsite measure-link backup --apply" in finding.remedy


# -- the peer --------------------------------------------------------------------------------------


@pytest.mark.parametrize("ahead", [0.0, CLOCK_SECONDS, -CLOCK_SECONDS])
def test_a_small_difference_of_the_clocks_is_none(ahead: float) -> None:
    assert look(peers={"backup": PeerState("8.4.11", ahead)}) == []


@pytest.mark.parametrize("version", ["8.4.11", "8.4.7", ""])
def test_a_peer_with_the_same_drbd_or_none_loaded_is_nothing_to_tell(version: str) -> None:
    assert look(peers={"backup": PeerState(version, 0.0)}) == []


def test_a_peer_that_is_away_is_told_of_once() -> None:
    findings = look(silent_peers=frozenset({"backup"}), peers={"backup": PeerState("9.2.8", 999.0)})
    assert len(findings) == 1


# -- versions --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "tools", "expected"),
    [
        ("8.4.11", "9.22.0", []),
        ("8.4.11", "9.34.0", []),
        ("8.4.7", "9.15.0", []),
        ("9.2.8", "9.27.0", [(Severity.NOTE, "9.28")]),
        ("9.2.8", "9.28.0", []),
        ("9.3.0", "9.33.0", [(Severity.WARNING, "9.34")]),
        ("9.3.0", "9.34.0", []),
    ],
)
def test_the_pairs_that_are_known_to_be_bad(module: str, tools: str, expected: list[tuple[Severity, str]]) -> None:
    found = look(host=replace(UP, drbd_version=module), versions={"drbd-utils": tools, "openvpn": "2.6.14"}, peers={})
    assert [finding.severity for finding in found] == [severity for severity, _ in expected]
    for finding, (_, better) in zip(found, expected, strict=True):
        assert f"module is {module} and drbd-utils {tools}" in finding.what
        assert f"to {better} or later" in finding.remedy


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


def test_without_the_tunnel_s_address_drbdadm_s_refusal_says_nothing() -> None:
    waiting = make.seen(state=None)
    here, gone = (make.host(drbd=[waiting], tunnel=tunnel) for tunnel in (True, False))
    refuses = [[f for f in look(host=host, adjustments=None) if "refuses" in f.what] for host in (here, gone)]
    assert [len(findings) for findings in refuses] == [1, 0]


def test_a_peer_that_is_not_enrolled_is_told_how_to_be() -> None:
    (finding,) = look(make.site(peers={"backup": make.peer(hostname="")}, resources=()))
    assert "not enrolled" in finding.what
    assert "invite" in finding.remedy


def test_an_adopted_machine_is_to_get_to_know_its_peer() -> None:
    """Its line is there, and no key of the other machine: nothing that is started would let that in."""
    (finding,) = look(strangers=frozenset({"backup"}))
    assert finding.severity is Severity.WARNING
    assert "drbd-offsite invite" in finding.remedy
    assert "drbd-offsite join" in finding.remedy
    assert "drbd-offsite-peer.socket" not in units(ENROLLED, frozenset({"backup"}))


def test_a_sync_is_no_fault() -> None:
    from .test_assess import SYNCING

    assert look(host=make.host(drbd=[make.seen(**SYNCING)])) == []


def test_the_units_that_have_to_run() -> None:
    at_boot = (WATCHER, MARKER, "drbd-offsite-peer.socket", "drbd-offsite@test_a.service")
    assert units(ENROLLED) == ("openvpn-server@drbd-offsite-backup.service", *at_boot)
    assert enabled_units(ENROLLED) == ("drbd-offsite-tunnel.service", *at_boot), "which starts the tunnels"
    assert DRILL_TIMER in units(make.site(Flavour.BACKUP))
    assert DRILL_TIMER not in units(make.site(Flavour.BACKUP, drill_days=0))
    bare = make.site(resources=(), peers={})
    assert units(bare) == enabled_units(bare) == (WATCHER, MARKER)


@given(hosts())
def test_every_state_can_be_examined(host: object) -> None:
    for finding in look(host=host):
        assert finding.what
        assert finding.remedy
