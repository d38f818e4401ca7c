"""What the circle decides, over every state that a machine can be seen in."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drbd_offsite.model import (
    ConnectionState,
    DiskState,
    DrbdConnection,
    DrbdResource,
    DrbdVolume,
    Flavour,
    Forbidden,
    Host,
    PeerDevice,
    ReplicationState,
    Role,
)
from drbd_offsite.plan import circle
from drbd_offsite.plan.actions import Run
from drbd_offsite.plan.circle import Decision, decide

from .. import make

SERVER, BACKUP = Flavour.SERVER, Flavour.BACKUP
STRANGE = "Frobnicating"

ROLES = st.sampled_from([*Role, Role(STRANGE)])
DISKS = st.sampled_from([*DiskState, DiskState(STRANGE)])
STATES = st.sampled_from([*ConnectionState, ConnectionState(STRANGE)])
REPLICATIONS = st.sampled_from([*ReplicationState, ReplicationState(STRANGE)])
DEVICES = st.builds(PeerDevice, st.just(0), REPLICATIONS, DISKS, st.integers(0, 2**40))
LINES = st.builds(DrbdConnection, st.just("backup"), STATES, ROLES, st.lists(DEVICES, max_size=1).map(tuple))
SEEN = st.builds(
    DrbdResource,
    st.just("test_a"),
    ROLES,
    st.booleans(),
    st.lists(st.builds(DrbdVolume, st.just(0), st.just(0), DISKS), max_size=1).map(tuple),
    st.lists(LINES, max_size=1).map(tuple),
)
HOLDS = st.frozensets(st.sampled_from(Forbidden)).map(lambda forbids: make.hold(*forbids) if forbids else {})
VOLUMES = st.sampled_from(
    [
        [make.volume(), make.volume("drbd_meta", 128 * make.MIB, 1)],
        [make.volume("drbd_meta", 128 * make.MIB, 1)],
        [make.volume()],
        [make.volume(active=False, devno=None), make.volume("drbd_meta", 128 * make.MIB, 1)],
    ]
)
FLAVOURS = st.sampled_from(Flavour)


@st.composite
def hosts(draw: st.DrawFn) -> Host:
    seen = draw(st.none() | SEEN)
    return make.host(
        drbd=[seen] if seen else [],
        volumes=draw(VOLUMES),
        tunnel=draw(st.booleans()),
        drbd_version=draw(st.sampled_from(["", "8.4.11", "9.1.7", "12.0"])),
        holds=draw(HOLDS),
    )


def look(flavour: Flavour, host: Host) -> Decision:
    # The address of both machines is the server's in `make.host`: give each machine its own.
    addresses = {**host.addresses, "tun0": (make.TUNNEL.address_of(flavour),)} if "tun0" in host.addresses else {}
    site = make.site(flavour)
    return decide(site, replace(host, addresses=addresses), site.resources["test_a"])


def commands(decision: Decision) -> list[str]:
    """``attach`` for ``drbdadm attach test_a``; the plan of the circle is made of programs only."""
    assert all(isinstance(action, Run) for action in decision.actions)
    argvs = [action.argv for action in decision.actions]
    assert all((argv[0] == "drbdadm" and argv[-1] == "test_a") or argv == ("modprobe", "drbd") for argv in argvs)
    return [argv[1] if argv[0] == "drbdadm" else argv[0] for argv in argvs]


@given(FLAVOURS, hosts())
def test_every_state_has_a_plan_and_a_reason_and_no_plan_has_force_in_it(flavour: Flavour, host: Host) -> None:
    decision = look(flavour, host)
    assert decision.reason
    assert set(commands(decision)) <= {"modprobe", "new-resource", "new-minor", "attach", "primary", "connect"}
    assert not any(word.startswith("-") for action in decision.actions for word in action.argv)


@given(hosts())
def test_a_backup_is_never_promoted(host: Host) -> None:
    assert "primary" not in commands(look(BACKUP, host))


@given(FLAVOURS, hosts())
def test_nothing_is_ever_taken_down_or_demoted(flavour: Flavour, host: Host) -> None:
    assert not {"down", "detach", "disconnect", "secondary"} & set(commands(look(flavour, host)))


@given(hosts(), st.booleans(), st.lists(LINES, max_size=1).map(tuple))
def test_serving_the_data_depends_on_no_tunnel_and_no_peer(
    host: Host, tunnel: bool, connections: tuple[DrbdConnection, ...]
) -> None:
    """Promise 1: whatever is known of the other side, attaching and promoting are decided the same."""
    elsewhere = replace(
        host,
        addresses=make.host(tunnel=tunnel).addresses,
        drbd={name: replace(seen, connections=connections) for name, seen in host.drbd.items()},
    )
    local = [[c for c in commands(look(SERVER, h)) if c != "connect"] for h in (host, elsewhere)]
    assert local[0] == local[1]


@given(FLAVOURS, hosts())
def test_a_hold_is_respected(flavour: Flavour, host: Host) -> None:
    hold = host.holds.get("test_a")
    planned = set(commands(look(flavour, host)))
    for forbidden, command in (("attach", "attach"), ("promote", "primary"), ("connect", "connect")):
        if hold and Forbidden(forbidden) in hold.forbids:
            assert command not in planned


@given(FLAVOURS, hosts())
def test_a_hold_takes_away_and_never_adds(flavour: Flavour, host: Host) -> None:
    free = commands(look(flavour, replace(host, holds={})))
    assert [c for c in free if c in commands(look(flavour, host))] == commands(look(flavour, host))


@given(hosts())
def test_only_a_copy_that_can_be_served_is_promoted(host: Host) -> None:
    seen = host.drbd.get("test_a")
    if seen and seen.disk not in (DiskState.UP_TO_DATE, DiskState.CONSISTENT, DiskState.DISKLESS):
        assert "primary" not in commands(look(SERVER, host))


@given(FLAVOURS, hosts())
def test_what_is_there_is_not_made_again(flavour: Flavour, host: Host) -> None:
    seen, planned = host.drbd.get("test_a"), commands(look(flavour, host))
    if seen:
        assert "new-resource" not in planned
        assert not (seen.volumes and "new-minor" in planned)
        assert not (seen.role is Role.PRIMARY and "primary" in planned)
        assert seen.disk is DiskState.DISKLESS or "attach" not in planned
    assert ("modprobe" in planned) <= (not host.drbd_version)


@given(FLAVOURS, hosts())
def test_a_connection_is_made_only_from_standalone_or_nothing_and_only_with_the_address(
    flavour: Flavour, host: Host
) -> None:
    if "connect" in commands(look(flavour, host)):
        seen = host.drbd.get("test_a")
        assert "tun0" in host.addresses
        assert not seen or not seen.connection or seen.connection.state is ConnectionState.STANDALONE


@given(FLAVOURS, REPLICATIONS, DISKS, st.sampled_from([ConnectionState.CONNECTED, ConnectionState.CONNECTING]))
def test_nothing_is_done_when_all_is_well_here(
    flavour: Flavour, replication: ReplicationState, peer_disk: DiskState, state: ConnectionState
) -> None:
    seen = make.seen(role=make.well(flavour).role, state=state, replication=replication, peer_disk=peer_disk)
    assert look(flavour, make.host(drbd=[seen])).actions == ()


@pytest.mark.parametrize("flavour", Flavour)
def test_all_is_well(flavour: Flavour) -> None:
    assert look(flavour, make.host(drbd=[make.well(flavour)])) == Decision("test_a", (), "nothing to do")


@pytest.mark.parametrize(
    ("flavour", "expected"),
    [
        (SERVER, ["new-resource", "new-minor", "attach", "primary", "connect"]),
        (BACKUP, ["new-resource", "new-minor", "attach", "connect"]),
    ],
)
def test_from_nothing_to_replicating_in_the_order_that_drbd_takes(flavour: Flavour, expected: list[str]) -> None:
    assert commands(look(flavour, make.host())) == expected


def test_at_boot_without_a_tunnel_the_server_serves() -> None:
    decision = look(SERVER, make.host(tunnel=False, drbd_version=""))
    assert commands(decision) == ["modprobe", "new-resource", "new-minor", "attach", "primary"]
    assert "10.89.33.1" in decision.reason


def test_the_how_to_s_nudge() -> None:
    """A tunnel that vanished leaves StandAlone for good; its return is all that is needed."""
    alone = make.seen(state=ConnectionState.STANDALONE, replication=ReplicationState.OFF, peer_disk=DiskState.UNKNOWN)
    assert commands(look(SERVER, make.host(drbd=[alone]))) == ["connect"]
    assert commands(look(SERVER, make.host(drbd=[alone], tunnel=False))) == []
    held = look(SERVER, make.host(drbd=[alone], holds=make.hold(Forbidden.CONNECT)))
    assert commands(held) == []
    assert "somebody said so" in held.reason


def test_an_interface_without_its_address_is_looked_at_again_soon() -> None:
    site = make.site()
    host = make.host(drbd=[make.seen(state=None)], addresses={"tun0": ()})
    assert decide(site, host, site.resources["test_a"]).soon
    absent = make.host(drbd=[make.seen(state=None)], tunnel=False)
    assert not decide(site, absent, site.resources["test_a"]).soon, "its coming is an event"


@pytest.mark.parametrize(
    ("volumes", "reason"),
    [
        ([make.volume("drbd_meta")], "local/test_a is not there"),
        ([make.volume()], "local/drbd_meta is not there"),
        ([make.volume(active=False), make.volume("drbd_meta")], "lvchange -ay local/test_a"),
    ],
)
def test_a_volume_that_is_missing_is_named(volumes: list[object], reason: str) -> None:
    decision = look(SERVER, make.host(volumes=volumes))
    assert "attach" not in commands(decision)
    assert reason in decision.reason


def test_what_an_operation_is_making_is_left_to_it() -> None:
    under_way = {"add-test_a": make.operation("add", {})}
    decision = look(SERVER, make.host(operations=under_way))
    assert decision.actions == ()
    assert "add is under way" in decision.reason
    other = {"add-test_b": make.operation("add", {}, name="test_b")}
    assert commands(look(SERVER, make.host(operations=other)))


@pytest.mark.parametrize("disk", [DiskState.ATTACHING, DiskState.DETACHING, DiskState.FAILED])
def test_a_disk_that_is_on_its_way_is_waited_for(disk: DiskState) -> None:
    decision = look(SERVER, make.host(drbd=[make.seen(disk=disk)]))
    assert decision.actions == ()
    assert decision.soon


def test_a_copy_that_needs_a_sync_first_is_not_promoted_and_says_so() -> None:
    stale = make.seen(role=Role.SECONDARY, disk=DiskState.INCONSISTENT)
    assert "Inconsistent" in look(SERVER, make.host(drbd=[stale])).reason


def test_attaching_gets_more_time_than_a_usual_program() -> None:
    (*_, attach) = circle.attach(make.resource(), None)
    assert attach.argv == ("drbdadm", "attach", "test_a")
    assert attach.timeout > Run(("true",), "").timeout
