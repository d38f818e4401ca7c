from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drbd_offsite.errors import ExitCode
from drbd_offsite.model import Flavour
from drbd_offsite.observed import (
    ConnectionState,
    DiskState,
    DrbdResource,
    Forbidden,
    Host,
    Progress,
    ReplicationState,
    Role,
)
from drbd_offsite.plan.assess import Assessment, Level, assess, duration, worth
from drbd_offsite.remembered import Overload

from .. import make
from .test_circle import FLAVOURS, SEEN, hosts

SERVER, BACKUP = Flavour.SERVER, Flavour.BACKUP
SYNCING = {"replication": ReplicationState.SYNC_SOURCE, "peer_disk": DiskState.INCONSISTENT}
ALONE = {
    "state": ConnectionState.STANDALONE, "replication": ReplicationState.OFF, "peer_disk": DiskState.UNKNOWN,
}  # fmt: skip
WAITING = ALONE | {"state": ConnectionState.CONNECTING}


def look(host: Host, flavour: Flavour = SERVER) -> Assessment:
    site = make.site(flavour)
    return assess(site, host, site.resources["test_a"])


def at(*seen: DrbdResource, **changes: object) -> Assessment:
    return look(make.host(drbd=seen, **changes))


@pytest.mark.parametrize(
    ("level", "exit_code"),
    [
        (Level.OK, ExitCode.DONE),
        (Level.CATCHING_UP, ExitCode.DONE),
        (Level.HELD, ExitCode.HELD),
        (Level.UNPROTECTED, ExitCode.PEER_UNREACHABLE),
        (Level.BROKEN, ExitCode.FAILED),
    ],
)
def test_each_level_has_its_exit_code(level: Level, exit_code: ExitCode) -> None:
    assert level.exit_code is exit_code


@pytest.mark.parametrize("flavour", Flavour)
def test_all_is_well(flavour: Flavour) -> None:
    found = look(make.host(flavour, drbd=[make.well(flavour)]), flavour)
    assert found == Assessment("test_a", Level.OK, ("Both copies are up to date; every write is replicated.",))


def test_a_sync_says_how_much_is_left_how_fast_and_how_long() -> None:
    seen = make.seen(**SYNCING, out_of_sync_bytes=10 * make.GIB)
    found = at(seen, progress={0: Progress(37.4, 5 * make.MIB, 7500)})
    assert found.level is Level.CATCHING_UP
    assert found.sentences == ("Syncing: 10.0 GiB left, 37 % done, 5.0 MiB/s, about 2 h 5 min to go.",)


def test_a_sync_of_drbd_9_says_what_is_known() -> None:
    assert at(make.seen(**SYNCING, out_of_sync_bytes=1536)).sentences == ("Syncing: 1.5 KiB left.",)


@pytest.mark.parametrize(
    ("replication", "words"),
    [
        ("PausedSyncS", "waits for another resource's"),
        ("Ahead", "too slow for what is being written"),
        ("Behind", "too slow for what is being written"),
        ("VerifyS", "are being compared"),
        ("WFBitMapS", "Connected, WFBitMapS"),
        ("Frobnicating", "Connected, Frobnicating"),
    ],
)
def test_what_a_connection_is_doing_is_said_in_plain_words(replication: str, words: str) -> None:
    found = at(make.seen(replication=ReplicationState(replication)))
    assert words in found.sentences[0]
    assert found.level is Level.CATCHING_UP


@pytest.mark.parametrize("replication", ["Ahead", "Behind", "SyncSource", "PausedSyncS"])
def test_one_sentence_tells_of_an_overload_whatever_the_state_of_the_moment(replication: str) -> None:
    seen = make.seen(replication=ReplicationState(replication), out_of_sync_bytes=make.MIB)
    lasting = Overload("2026-11-22T12:00:00+00:00", 14, "2026-11-22T12:02:00+00:00")
    (said,) = at(seen, overloads={"test_a": lasting}).sentences
    assert said.startswith("More is written than the line takes")
    assert "14 times since 2026-11-22T12:00:00+00:00" in said
    assert said.endswith("1.0 MiB left.")
    burst = at(seen, overloads={"test_a": replace(lasting, turns=1)})
    assert burst == at(seen)


def test_a_missing_tunnel_is_told_from_a_missing_peer() -> None:
    away = make.seen(**WAITING, out_of_sync_bytes=3 * make.MIB)
    there = at(away)
    assert there.level is Level.UNPROTECTED
    assert "Waiting for backup (Connecting)." in there.sentences
    assert "3.0 MiB changed since; they are noted and will be sent." in there.sentences
    assert "tun0 has no address 10.89.33.1" in at(away, tunnel=False).sentences[0]


def test_blocks_that_are_known_to_differ_are_trouble_although_all_is_connected() -> None:
    found = at(make.seen(out_of_sync_bytes=4096))
    assert found.level is Level.BROKEN
    assert "4.0 KiB are known to differ" in found.sentences[0]


def test_standalone_is_said_to_be_for_good() -> None:
    assert "not trying" in at(make.seen(**ALONE)).sentences[0]
    assert at(make.seen(state=None)).level is Level.UNPROTECTED


def test_a_hold_is_shown_with_its_reason_and_what_it_forbids() -> None:
    found = at(make.seen(**ALONE), holds=make.hold(Forbidden.CONNECT, Forbidden.PROMOTE))
    assert found.sentences[0] == "Somebody said so (since 2026-01-01T00:00:00+00:00)."
    assert found.sentences[1] == "Held: nothing will connect or promote it by itself."


@pytest.mark.parametrize(("setter", "verb"), [("disconnect", "connect"), ("down", "up")])
def test_what_a_person_asked_for_is_no_fault_and_says_how_to_end_it(setter: str, verb: str) -> None:
    found = at(make.seen(**ALONE), holds=make.hold(Forbidden.CONNECT, set_by=setter))
    assert found.level is Level.HELD
    assert f"drbd-offsite {verb} test_a" in found.sentences[2]


@pytest.mark.parametrize("setter", ["split-brain", "local-io-error", "taken-over", "restore-point"])
def test_what_went_wrong_is_broken_and_says_which_command_ends_it(setter: str) -> None:
    found = at(make.seen(**ALONE), holds=make.hold(Forbidden.CONNECT, set_by=setter))
    assert found.level is Level.BROKEN
    assert "drbd-offsite" in found.sentences[2]
    assert "test_a" in found.sentences[2]


def test_a_remark_is_told_and_holds_nothing() -> None:
    found = at(make.well(SERVER), holds=make.hold(set_by="restore-point", reason="there is no restore point"))
    assert found.level is Level.BROKEN
    assert "There is no restore point" in found.sentences[0]
    assert not any("Held" in sentence for sentence in found.sentences)


def test_a_fault_is_not_hidden_by_what_a_person_asked_for() -> None:
    asked, fault = (make.hold(Forbidden.CONNECT, set_by=setter)["test_a"] for setter in ("disconnect", "split-brain"))
    assert at(make.seen(**ALONE), holds={"test_a": asked + fault}).level is Level.BROKEN


def test_an_unfinished_operation_is_worse_than_anything_and_comes_first() -> None:
    found = at(make.well(SERVER), operations={"add-test_a": make.operation("add", {})})
    assert found.level is Level.BROKEN
    assert "not finished" in found.sentences[0]
    assert at(make.well(SERVER), operations={"x": make.operation("add", {}, "other")}).level is Level.OK


def test_a_half_that_is_not_finished_is_finished_by_the_server_s_verb() -> None:
    found = at(make.well(SERVER), operations={"release-test_a": make.operation("release", {})})
    assert "release was begun at" in found.sentences[0]
    assert "run remove again on the server" in found.sentences[0]


def test_a_resource_that_is_not_up_serves_nothing() -> None:
    found = at()
    assert found.level is Level.BROKEN
    assert "not up" in found.sentences[-1]


@pytest.mark.parametrize("disk", [DiskState.DISKLESS, DiskState.FAILED])
def test_a_detached_volume_is_broken_although_the_peer_serves(disk: DiskState) -> None:
    found = at(make.seen(disk=disk))
    assert found.level is Level.BROKEN
    assert str(disk) in found.sentences[0]


def test_a_server_that_does_not_serve_is_broken_and_says_so_first() -> None:
    line = replace(make.seen().connections[0], role=Role.SECONDARY)
    found = at(replace(make.seen(role=Role.SECONDARY), connections=(line,)))
    assert found.level is Level.BROKEN
    assert found.sentences[0] == "It is not served: its role here is Secondary."
    backup = look(make.host(BACKUP, drbd=[make.seen(role=Role.SECONDARY)]), BACKUP)
    assert backup.level is Level.OK


@given(FLAVOURS, hosts())
def test_every_state_can_be_told_in_sentences(flavour: Flavour, host: Host) -> None:
    found = look(host, flavour)
    assert found.resource == "test_a"
    assert found.level in Level
    assert all(sentence.endswith(".") for sentence in found.sentences)


@given(hosts())
def test_what_is_not_well_is_never_called_ok(host: Host) -> None:
    seen = host.drbd.get("test_a")
    device = seen.peer_device if seen else None
    if look(host).level is Level.OK:
        assert seen is not None
        assert device is not None
        assert seen.role is Role.PRIMARY
        assert seen.disk is DiskState.UP_TO_DATE
        assert device.disk is DiskState.UP_TO_DATE
        assert device.replication is ReplicationState.ESTABLISHED
        assert not host.holds


@given(SEEN, st.sampled_from(DiskState))
def test_every_disk_state_has_a_worth(seen: DrbdResource, disk: DiskState) -> None:
    assert str(disk) in worth(disk)
    assert str(seen.disk) in worth(seen.disk), "and one that is not known is shown as it is"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (119, "119 s"), (120, "2 min"), (7199, "119 min"), (7200, "2 h 0 min"), (90061, "25 h 1 min")],
)
def test_durations_are_in_units_that_matter(seconds: int, words: str) -> None:
    assert duration(seconds) == words
