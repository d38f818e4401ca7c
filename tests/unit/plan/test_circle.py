"""What the circle decides, over every state that a machine can be seen in."""

from dataclasses import replace
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drbd_offsite.model import Flavour
from drbd_offsite.observed import (
    ConnectionState,
    Consultation,
    DiskState,
    DrbdConnection,
    DrbdResource,
    DrbdVolume,
    Forbidden,
    Hold,
    Host,
    PeerDevice,
    ReplicationState,
    Role,
)
from drbd_offsite.plan import circle
from drbd_offsite.plan.actions import Action, Consult, Promote, Run
from drbd_offsite.plan.circle import Decision, decide

from .. import make

SERVER, BACKUP = Flavour.SERVER, Flavour.BACKUP
STRANGE = "Frobnicating"
HEARD = {"test_a": Consultation(20.0, free=False)}
"""The peer had its time, and was silent."""

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
HOLD = st.builds(
    Hold, st.just("test_a"), st.just("somebody said so"), st.frozensets(st.sampled_from(Forbidden)), st.just("2026"),
    st.sampled_from(["split-brain", "local-io-error", "taken-over", "down", "test"]),
)  # fmt: skip
HOLDS = st.lists(HOLD, max_size=2).map(lambda found: {"test_a": tuple(found)} if found else {})
"""Also one that forbids nothing, which is a remark."""
CONSULTED = st.none() | st.builds(Consultation, st.floats(0, 100), st.booleans())
WAITS = st.sampled_from([0.0, 20.0, inf])
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
    consulted = draw(CONSULTED)
    return make.host(
        drbd=[seen] if seen else [],
        volumes=draw(VOLUMES),
        tunnel=draw(st.booleans()),
        drbd_version=draw(st.sampled_from(["", "8.4.11", "9.1.7", "12.0"])),
        holds=draw(HOLDS),
        consulted={"test_a": consulted} if consulted else {},
    )


def look(flavour: Flavour, host: Host, boot_wait: float = 20.0) -> Decision:
    # The address of both machines is the server's in `make.host`: give each machine its own.
    addresses = frozenset({make.TUNNEL.address_of(flavour)} if host.addresses else ())
    site = make.site(flavour, boot_wait=boot_wait)
    return decide(site, replace(host, addresses=addresses), site.resources["test_a"])


def step(action: Action) -> str:
    """``attach`` for ``drbdadm attach test_a``."""
    match action:
        case Run(argv=("drbdadm", command, "test_a")):
            return command
        case Run(argv=("modprobe", "drbd")):
            return "modprobe"
        case Promote(resource="test_a"):
            return "primary"
        case Consult(resource="test_a", peer="backup"):
            return "consult"
    raise AssertionError(f"no step of the circle's: {action}")


def commands(decision: Decision) -> list[str]:
    return [step(action) for action in decision.actions]


def forbidden(host: Host) -> set[Forbidden]:
    return {word for hold in host.holds.get("test_a", ()) for word in hold.forbids}


@given(FLAVOURS, hosts(), WAITS)
def test_every_state_has_a_plan_and_a_reason_and_no_plan_has_force_in_it(
    flavour: Flavour, host: Host, boot_wait: float
) -> None:
    decision = look(flavour, host, boot_wait)
    assert decision.reason
    assert set(commands(decision)) <= {
        "modprobe", "new-resource", "new-minor", "attach", "consult", "primary", "connect"
    }  # fmt: skip
    programs = [action for action in decision.actions if isinstance(action, Run)]
    assert not any(word.startswith("-") for action in programs for word in action.argv)


@given(hosts(), WAITS)
def test_a_backup_is_never_promoted_and_asks_nobody(host: Host, boot_wait: float) -> None:
    assert not {"primary", "consult"} & set(commands(look(BACKUP, host, boot_wait)))


@given(FLAVOURS, hosts())
def test_nothing_is_ever_taken_down_or_demoted(flavour: Flavour, host: Host) -> None:
    assert not {"down", "detach", "disconnect", "secondary"} & set(commands(look(flavour, host)))


def serves_elsewhere(line: DrbdConnection) -> bool:
    return (line.state, line.role) == (ConnectionState.CONNECTED, Role.PRIMARY)


@given(hosts(), st.booleans(), st.lists(LINES, max_size=1).map(tuple))
def test_serving_the_data_depends_on_no_tunnel_and_no_peer(
    host: Host, tunnel: bool, connections: tuple[DrbdConnection, ...]
) -> None:
    """Promise 1: whatever is known of the other side, attaching is decided the same; so is promoting, once the peer
    had its time, but for a peer that is seen to serve."""
    here = replace(host, consulted=HEARD)
    elsewhere = replace(
        here,
        addresses=make.host(tunnel=tunnel).addresses,
        drbd={name: replace(seen, connections=connections) for name, seen in host.drbd.items()},
    )
    serving = any(serves_elsewhere(line) for h in (here, elsewhere) for r in h.drbd.values() for line in r.connections)
    ours = {"connect", "primary"} if serving else {"connect"}
    local = [[c for c in commands(look(SERVER, h)) if c not in ours] for h in (here, elsewhere)]
    assert local[0] == local[1]


SERVABLE = st.sampled_from([DiskState.UP_TO_DATE, DiskState.CONSISTENT])


@given(hosts(), SERVABLE, st.booleans(), st.floats(20, 10**6), st.booleans())
def test_with_the_peer_s_time_over_the_server_always_serves_what_can_be_served(
    host: Host, disk: DiskState, unasked: bool, seconds: float, free: bool
) -> None:
    """Promise 1: with no wait, or after it, there is no state of the peer or the tunnel that keeps it from it."""
    lines = tuple(
        replace(line, role=Role.SECONDARY) if serves_elsewhere(line) else line
        for seen in host.drbd.values()
        for line in seen.connections
    )
    seen = DrbdResource("test_a", Role.SECONDARY, False, (DrbdVolume(0, 0, disk),), lines)
    host = replace(host, drbd={"test_a": seen}, holds={}, consulted={"test_a": Consultation(seconds, free)})
    decision = look(SERVER, replace(host, consulted={}), 0.0) if unasked else look(SERVER, host)
    assert "primary" in commands(decision)


@given(hosts(), WAITS)
def test_nothing_is_promoted_that_the_backup_has_taken_over(host: Host, boot_wait: float) -> None:
    told = make.hold(Forbidden.PROMOTE, Forbidden.CONNECT, set_by="taken-over")
    decision = look(SERVER, replace(host, holds=told), boot_wait)
    assert not {"primary", "consult", "connect"} & set(commands(decision))


@given(FLAVOURS, hosts(), WAITS)
def test_what_is_not_seen_is_not_changed(flavour: Flavour, host: Host, boot_wait: float) -> None:
    """No state of DRBD is not the state of no resource."""
    decision = look(flavour, replace(host, drbd={}, blind=True), boot_wait)
    assert decision.actions == ()
    assert "cannot be seen" in decision.reason


@given(FLAVOURS, hosts(), WAITS)
def test_a_hold_is_respected(flavour: Flavour, host: Host, boot_wait: float) -> None:
    planned = set(commands(look(flavour, host, boot_wait)))
    for word, command in (("attach", "attach"), ("promote", "primary"), ("connect", "connect")):
        assert Forbidden(word) not in forbidden(host) or command not in planned


@given(FLAVOURS, hosts())
def test_a_hold_takes_away_and_never_adds(flavour: Flavour, host: Host) -> None:
    host = replace(host, consulted=HEARD)
    free = commands(look(flavour, replace(host, holds={})))
    assert [c for c in free if c in commands(look(flavour, host))] == commands(look(flavour, host))


@given(FLAVOURS, hosts(), WAITS)
def test_a_remark_changes_no_plan(flavour: Flavour, host: Host, boot_wait: float) -> None:
    remark = look(flavour, replace(host, holds=make.hold(set_by="restore-point")), boot_wait)
    assert remark == look(flavour, replace(host, holds={}), boot_wait)


@given(hosts(), WAITS)
def test_only_a_copy_that_can_be_served_is_promoted_or_asked_for(host: Host, boot_wait: float) -> None:
    seen = host.drbd.get("test_a")
    if seen and seen.disk not in (DiskState.UP_TO_DATE, DiskState.CONSISTENT, DiskState.DISKLESS):
        assert not {"primary", "consult"} & set(commands(look(SERVER, host, boot_wait)))


@given(FLAVOURS, hosts())
def test_what_is_there_is_not_made_again(flavour: Flavour, host: Host) -> None:
    seen, planned = host.drbd.get("test_a"), commands(look(flavour, host))
    if seen:
        assert "new-resource" not in planned
        assert not (seen.volumes and "new-minor" in planned)
        assert not (seen.role is Role.PRIMARY and {"primary", "consult"} & set(planned))
        assert seen.disk is DiskState.DISKLESS or "attach" not in planned
    assert ("modprobe" in planned) <= (not host.drbd_version)


@given(FLAVOURS, hosts())
def test_a_connection_is_made_only_from_standalone_or_nothing_and_only_with_the_address(
    flavour: Flavour, host: Host
) -> None:
    if "connect" in commands(look(flavour, host)):
        seen = host.drbd.get("test_a")
        assert host.addresses
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
    assert commands(look(flavour, make.host(), boot_wait=0.0)) == expected


def test_at_boot_without_a_tunnel_the_server_serves() -> None:
    decision = look(SERVER, make.host(tunnel=False, drbd_version=""), boot_wait=0.0)
    assert commands(decision) == ["modprobe", "new-resource", "new-minor", "attach", "primary"]
    assert "10.89.33.1" in decision.reason


# -- has the backup taken over? --------------------------------------------------------------------


READY = make.seen(role=Role.SECONDARY, state=None)
"""Attached, and nothing else yet."""


def asked(seconds: float, *, free: bool = False, **changes: object) -> Host:
    return make.host(drbd=[READY], consulted={"test_a": Consultation(seconds, free)}, **changes)


def test_a_server_that_boots_asks_before_it_serves_and_attaches_meanwhile() -> None:
    decision = look(SERVER, make.host())
    assert commands(decision) == ["new-resource", "new-minor", "attach", "consult"]
    assert "asking backup whether it has taken over (at most 20 s)" in decision.reason
    assert decision.soon, "its answer is no event"


@pytest.mark.parametrize("seconds", [0.0, 3.0, 19.9])
def test_a_peer_that_says_no_is_not_asked_again(seconds: float) -> None:
    assert commands(look(SERVER, asked(seconds, free=True))) == ["primary", "connect"]


def test_a_silent_peer_is_waited_for_as_long_as_configured_and_no_longer() -> None:
    assert commands(look(SERVER, asked(19.9))) == ["consult"]
    assert commands(look(SERVER, asked(20.0))) == ["primary", "connect"]
    assert commands(look(SERVER, asked(20.0), boot_wait=21.0)) == ["consult"]


def test_without_the_tunnel_the_time_runs_and_nobody_is_asked() -> None:
    first = look(SERVER, make.host(drbd=[READY], tunnel=False))
    assert commands(first) == ["consult"], "from now on the time runs"
    then = look(SERVER, asked(5.0, tunnel=False))
    assert (commands(then), then.soon) == ([], True)
    assert commands(look(SERVER, asked(20.0, tunnel=False))) == ["primary"]


def test_for_ever_means_that_only_the_peer_s_word_counts() -> None:
    silent = look(SERVER, asked(10.0**9), boot_wait=inf)
    assert commands(silent) == ["consult"]
    assert "until it answers" in silent.reason
    assert commands(look(SERVER, asked(1.0, free=True), boot_wait=inf)) == ["primary", "connect"]


def test_a_peer_that_is_connected_need_not_be_asked() -> None:
    """Its role is seen, and DRBD itself lets only one be Primary."""
    idle = replace(make.seen(role=Role.SECONDARY), connections=make.seen().connections)
    assert idle.connection
    assert idle.connection.role is Role.SECONDARY
    assert commands(look(SERVER, make.host(drbd=[idle]))) == ["primary"]
    served = look(SERVER, make.host(drbd=[make.seen(role=Role.SECONDARY)]))
    assert served.actions == ()
    assert "backup serves it (Primary)" in served.reason


@pytest.mark.parametrize("state", [None, ConnectionState.STANDALONE, ConnectionState.CONNECTING])
def test_one_that_serves_already_asks_nobody(state: ConnectionState | None) -> None:
    assert "consult" not in commands(look(SERVER, make.host(drbd=[make.seen(state=state)])))


# -- what is mended --------------------------------------------------------------------------------


def test_a_primary_without_its_disk_stays_connected() -> None:
    """It lives on the peer's copy."""
    alone = make.seen(disk=DiskState.DISKLESS, state=ConnectionState.STANDALONE)
    gone = make.host(drbd=[alone], volumes=[make.volume("drbd_meta")])
    assert commands(look(SERVER, gone)) == ["connect"]
    held = make.host(drbd=[alone], holds=make.hold(Forbidden.ATTACH, set_by="local-io-error"))
    assert commands(look(SERVER, held)) == ["connect"]


@pytest.mark.parametrize("flavour", Flavour)
def test_what_was_taken_down_stays_out_of_the_kernel(flavour: Flavour) -> None:
    """It is held down, not half up."""
    held = look(flavour, make.host(holds=make.hold(*Forbidden, set_by="down")))
    assert held.actions == ()
    assert "somebody said so" in held.reason
    # What is not held and only lacks its volume is ready for it.
    missing = look(flavour, make.host(volumes=[make.volume("drbd_meta")]))
    assert commands(missing) == ["new-resource", "new-minor"]


def test_a_secondary_without_its_disk_waits_for_it() -> None:
    alone = make.seen(role=Role.SECONDARY, disk=DiskState.DISKLESS, state=ConnectionState.STANDALONE)
    for flavour in Flavour:
        decision = look(flavour, make.host(drbd=[alone], volumes=[make.volume("drbd_meta")]))
        assert decision.actions == ()
        assert "/dev/local/test_a" in decision.reason


def test_a_server_with_half_a_copy_connects_to_get_the_other_half() -> None:
    stale = make.seen(role=Role.SECONDARY, disk=DiskState.INCONSISTENT, state=ConnectionState.STANDALONE)
    decision = look(SERVER, make.host(drbd=[stale]))
    assert commands(decision) == ["connect"]
    assert "Inconsistent, which nothing automatic promotes" in decision.reason


def test_the_how_to_s_nudge() -> None:
    """A tunnel that vanished leaves StandAlone for good; its return is all that is needed."""
    alone = make.seen(state=ConnectionState.STANDALONE, replication=ReplicationState.OFF, peer_disk=DiskState.UNKNOWN)
    assert commands(look(SERVER, make.host(drbd=[alone]))) == ["connect"]
    assert commands(look(SERVER, make.host(drbd=[alone], tunnel=False))) == []
    held = look(SERVER, make.host(drbd=[alone], holds=make.hold(Forbidden.CONNECT)))
    assert commands(held) == []
    assert "somebody said so" in held.reason


def test_an_address_that_is_not_there_is_named_and_its_coming_is_an_event() -> None:
    decision = look(SERVER, make.host(drbd=[make.seen(state=None)], tunnel=False))
    assert decision.reason == "tun0 has no address 10.89.33.1 yet"
    assert not decision.soon


@pytest.mark.parametrize(
    ("volumes", "reason"),
    [
        ([make.volume("drbd_meta")], "there is no /dev/local/test_a"),
        ([make.volume()], "there is no /dev/local/drbd_meta"),
        ([make.volume(active=False), make.volume("drbd_meta")], "lvchange -ay activates it"),
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


def test_what_an_operation_has_put_into_the_kernel_is_served_as_any_other() -> None:
    """An ``add`` that was interrupted after its first sync began must not keep the data from being served."""
    under_way = {"add-test_a": make.operation("add", {})}
    decision = look(SERVER, make.host(drbd=[READY], operations=under_way, consulted=HEARD))
    assert commands(decision) == ["primary", "connect"]


@pytest.mark.parametrize("disk", [DiskState.ATTACHING, DiskState.DETACHING, DiskState.FAILED])
def test_a_disk_that_is_on_its_way_is_waited_for(disk: DiskState) -> None:
    decision = look(SERVER, make.host(drbd=[make.seen(disk=disk)]))
    assert decision.actions == ()
    assert decision.soon


def test_a_copy_that_needs_a_sync_first_is_not_promoted_and_says_so() -> None:
    stale = make.seen(role=Role.SECONDARY, disk=DiskState.INCONSISTENT)
    assert "Inconsistent" in look(SERVER, make.host(drbd=[stale])).reason


def test_attaching_gets_more_time_than_a_usual_program() -> None:
    attach = circle.attach(make.resource())
    assert attach.argv == ("drbdadm", "attach", "test_a")
    assert attach.timeout > Run(("true",), "").timeout


@pytest.mark.parametrize(("flavour", "verb"), [(SERVER, "remove"), (BACKUP, "release")])
@pytest.mark.parametrize("seen", [[], [READY]], ids=["down", "still up"])
def test_what_is_being_taken_away_is_not_brought_up_again(flavour: Flavour, verb: str, seen: list) -> None:
    """From its first step on: its volume may have been written to without DRBD."""
    under_way = {f"{verb}-test_a": make.operation(verb, {})}
    decision = look(flavour, make.host(drbd=seen, operations=under_way, consulted=HEARD))
    assert decision.actions == ()
    assert decision.reason == f"{verb} is under way; remove on the server, run again, finishes it"
    others = {f"{verb}-test_b": make.operation(verb, {}, "test_b")}
    assert commands(look(flavour, make.host(operations=others, consulted=HEARD)))


@pytest.mark.parametrize("flavour", [SERVER, BACKUP])
def test_what_gets_another_name_comes_up_under_it_once_its_files_are_there(flavour: Flavour) -> None:
    for settled in (False, True):
        under_way = {"rename-old": make.operation("rename", {"new": "test_a", "settled": settled}, "old")}
        assert bool(look(flavour, make.host(operations=under_way, consulted=HEARD)).actions) is settled


def test_what_is_to_have_another_name_is_served_under_its_own_as_long_as_the_configuration_has_that() -> None:
    under_way = {"rename-test_a": make.operation("rename", {"new": "test_b", "settled": False})}
    assert commands(look(SERVER, make.host(operations=under_way, consulted=HEARD)))


@pytest.mark.parametrize("seen", [[], [READY]], ids=["down", "still up"])
def test_what_is_being_enlarged_is_served_all_the_time(seen: list) -> None:
    under_way = {"grow-test_a": make.operation("grow", {})}
    assert commands(look(SERVER, make.host(drbd=seen, operations=under_way, consulted=HEARD)))
