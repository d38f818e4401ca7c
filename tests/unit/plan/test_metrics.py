"""The figures of one look. What cannot be seen must not look like a good value."""

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import MappingProxyType

import pytest

from drbd_offsite.model import Flavour, Site
from drbd_offsite.observed import ConnectionState, DiskState, Forbidden, Host, Progress, ReplicationState, Role
from drbd_offsite.plan import metrics
from drbd_offsite.plan.assess import Level
from drbd_offsite.plan.metrics import Kind, figures
from drbd_offsite.remembered import LastDrill, Round

from .. import make

NOW = datetime(2026, 1, 15, 12, 0, tzinfo=UTC)
SITE = make.site()
BACKUP = make.site(Flavour.BACKUP)
WELL = make.host(drbd=[make.well(Flavour.SERVER)])
TEST_A: Mapping[str, str] = MappingProxyType({"resource": "test_a", "peer": "backup"})
DRILLED = LastDrill("2026-01-14T12:00:00+00:00", "passed", "", "2026-01-14T12:00:00+00:00", 86400.0)


def of(host: Host, site: Site = SITE) -> dict[str, float]:
    """The figures that have one sample, by their names without the prefix."""
    found = figures(site, host, "0.1.0", NOW)
    return {metric.name.removeprefix(metrics.PREFIX): s.value for metric in found for s in metric.samples}


def labels(host: Host, name: str, site: Site = SITE) -> list[Mapping[str, str]]:
    found = figures(site, host, "0.1.0", NOW)
    return [sample.labels for metric in found if metric.name == metrics.PREFIX + name for sample in metric.samples]


def test_a_server_with_which_all_is_well() -> None:
    found = of(replace(WELL, complete={"test_a": "2026-01-15T11:59:50+00:00"}))
    assert found == {
        "info": 1,
        "look_timestamp_seconds": NOW.timestamp(),
        "blind": 0,
        "tunnel_up": 1,
        "level": 0,
        "disk_state": 1,
        "peer_disk_state": 1,
        "connection_state": 1,
        "replication_state": 1,
        "primary": 1,
        "connected": 1,
        "up_to_date": 1,
        "peer_up_to_date": 1,
        "out_of_sync_bytes": 0,
        "sent_bytes_total": 0,
        "received_bytes_total": 0,
        "complete_timestamp_seconds": NOW.timestamp() - 10,
        "holds": 0,
        "unfinished_operations": 0,
    }


def test_labels_say_which_machine_resource_and_peer() -> None:
    assert labels(WELL, "info") == [{"version": "0.1.0", "flavour": "server", "drbd_version": "8.4.11"}]
    assert labels(WELL, "look_timestamp_seconds") == [{}]
    assert labels(WELL, "tunnel_up") == [{"peer": "backup"}]
    assert labels(WELL, "level") == [TEST_A]


@pytest.mark.parametrize("name", metrics.HELP)
def test_names_and_help_are_as_prometheus_wants_them(name: str) -> None:
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", name)
    assert re.fullmatch(r"[A-Z1].*[^.]\.", metrics.HELP[name])
    assert not re.search(r"percent|minutes|hours|days|kib|gauge|counter", name)


def test_counters_are_those_that_count() -> None:
    kinds = {metric.name.removeprefix(metrics.PREFIX): metric.kind for metric in figures(SITE, WELL, "", NOW)}
    assert {name for name, kind in kinds.items() if kind is Kind.COUNTER} == {
        "sent_bytes_total",
        "received_bytes_total",
    }


def test_what_goes_over_the_line_is_counted() -> None:
    found = of(make.host(drbd=[make.seen(sent_bytes=5 * make.MIB, received_bytes=make.MIB)]))
    assert (found["sent_bytes_total"], found["received_bytes_total"]) == (5 * make.MIB, make.MIB)


def test_a_blind_look_gives_nothing_of_drbd() -> None:
    """Above all no zero that could be taken for "nothing is out of sync"."""
    blind = replace(WELL, drbd={}, blind=True, problems=("drbdsetup failed.",))
    found = of(blind)
    assert found["blind"] == 1
    assert found.keys() == {"info", "look_timestamp_seconds", "blind", "tunnel_up", "holds", "unfinished_operations"}


def test_a_resource_that_is_not_up_is_broken_and_not_connected() -> None:
    found = of(make.host())
    assert found["level"] == Level.BROKEN
    assert (found["primary"], found["connected"], found["up_to_date"]) == (0, 0, 0)
    assert not {"peer_up_to_date", "out_of_sync_bytes", "disk_state", "connection_state"} & found.keys()


AWAY = make.seen(state=ConnectionState.CONNECTING, replication=ReplicationState.OFF, peer_disk=DiskState.UNKNOWN)


def test_a_peer_that_is_away_has_no_state_of_its_own() -> None:
    found = of(make.host(drbd=[AWAY], tunnel=False))
    assert (found["tunnel_up"], found["connected"], found["level"]) == (0, 0, Level.UNPROTECTED)
    assert "peer_up_to_date" not in found
    assert labels(make.host(drbd=[AWAY]), "peer_disk_state") == [{**TEST_A, "state": "DUnknown"}]


@pytest.mark.parametrize(
    ("role", "disk", "connected", "known"),
    [
        (Role.PRIMARY, DiskState.UP_TO_DATE, True, True),
        (Role.PRIMARY, DiskState.UP_TO_DATE, False, True),
        (Role.SECONDARY, DiskState.INCONSISTENT, True, True),
        (Role.SECONDARY, DiskState.UP_TO_DATE, False, False),
        (Role.PRIMARY, DiskState.DISKLESS, True, False),
        (Role.PRIMARY, DiskState.FAILED, True, False),
    ],
)
def test_what_differs_is_given_by_whom_knows_it(role: Role, disk: DiskState, connected: bool, known: bool) -> None:
    """A copy that is away from its server cannot know what that one writes: its own count stays at 0."""
    state = ConnectionState.CONNECTED if connected else ConnectionState.CONNECTING
    seen = make.seen(role=role, disk=disk, state=state, out_of_sync_bytes=4096)
    found = of(make.host(drbd=[seen]))
    assert found.get("out_of_sync_bytes") == (4096 if known else None)


def test_a_state_is_the_label_of_one_sample() -> None:
    syncing = make.seen(replication=ReplicationState.SYNC_SOURCE, peer_disk=DiskState.INCONSISTENT)
    host = make.host(drbd=[syncing])
    states = {name: labels(host, name) for name in ("disk_state", "peer_disk_state", "connection_state")}
    assert states == {
        "disk_state": [{**TEST_A, "state": "UpToDate"}],
        "peer_disk_state": [{**TEST_A, "state": "Inconsistent"}],
        "connection_state": [{**TEST_A, "state": "Connected"}],
    }
    assert labels(host, "replication_state") == [{**TEST_A, "state": "SyncSource"}]
    alone = make.host(drbd=[make.seen(state=None)])
    assert labels(alone, "connection_state") == [{**TEST_A, "state": "StandAlone"}]


def test_how_far_a_resync_is() -> None:
    syncing = make.seen(replication=ReplicationState.SYNC_SOURCE, done_percent=40.0)
    host = make.host(drbd=[syncing])
    assert of(host)["resync_done_ratio"] == 0.4
    assert of(replace(host, progress={0: Progress(41.0, None, None)}))["resync_done_ratio"] == 0.41
    comparing = make.seen(replication=ReplicationState.VERIFY_SOURCE, done_percent=40.0)
    assert "resync_done_ratio" not in of(make.host(drbd=[comparing])), "a comparison is no resync"
    silent = make.host(drbd=[make.seen(replication=ReplicationState.PAUSED_SYNC_SOURCE)])
    assert "resync_done_ratio" not in of(silent), "nobody says how far it is"


@pytest.mark.parametrize("noted", ["", "yesterday", "2026-01-15T11:59:50"])
def test_an_instant_that_is_none_is_left_out(noted: str) -> None:
    assert "complete_timestamp_seconds" not in of(replace(WELL, complete={"test_a": noted}))


def test_holds_remarks_and_unfinished_commands_are_counted() -> None:
    both = {"test_a": (*make.hold(Forbidden.CONNECT)["test_a"], *make.hold(set_by="restore-point")["test_a"])}
    found = of(replace(WELL, holds=both, operations={"grow-test_a": make.operation("grow", {})}))
    assert (found["holds"], found["unfinished_operations"], found["level"]) == (2, 1, Level.BROKEN)


def test_a_command_on_what_is_not_configured_yet_counts_too() -> None:
    host = replace(WELL, operations={"join-server": make.operation("join", {}, "server")})
    assert labels(host, "unfinished_operations") == [TEST_A, {"resource": "server", "peer": ""}]


def test_of_a_peer_that_is_not_enrolled_there_is_no_tunnel() -> None:
    nobody = replace(SITE.peers["backup"], hostname="")
    assert "tunnel_up" not in of(WELL, make.site(peers={"backup": nobody}))


def test_drills_are_the_backup_s() -> None:
    host = make.host(Flavour.BACKUP, drbd=[make.well(Flavour.BACKUP)], drills={"test_a": DRILLED})
    found = of(host, BACKUP)
    a_day_ago = NOW.timestamp() - 86400
    assert found["drill_timestamp_seconds"] == found["drill_passed_timestamp_seconds"] == a_day_ago
    assert (found["drill_failed"], found["drill_overdue"]) == (0, 0)
    assert not any(name.startswith("drill") for name in of(replace(host, hostname="server"), SITE))


def test_a_drill_that_failed_and_one_that_never_was() -> None:
    host = make.host(Flavour.BACKUP, drbd=[make.well(Flavour.BACKUP)])
    failed = of(replace(host, drills={"test_a": replace(DRILLED, outcome="failed", passed="")}), BACKUP)
    assert failed["drill_failed"] == 1
    assert "drill_passed_timestamp_seconds" not in failed
    never = of(replace(host, drills={"test_a": LastDrill("", "", "", "", 15 * 86400.0)}), BACKUP)
    assert never["drill_overdue"] == 1
    assert not {"drill_failed", "drill_timestamp_seconds"} & never.keys(), "nothing has passed"
    assert not any(name.startswith("drill") for name in of(host, BACKUP))


def test_each_metric_can_be_there() -> None:
    """A name that nothing gives would be documented, drawn and waited for in vain."""
    syncing = make.seen(role=Role.SECONDARY, replication=ReplicationState.SYNC_TARGET, done_percent=1.0)
    complete = {"test_a": "2026-01-15T11:59:50+00:00"}
    rounds = {"test_a": Round(NOW, ended=NOW)}
    host = make.host(Flavour.BACKUP, drbd=[syncing], drills={"test_a": DRILLED}, complete=complete, rounds=rounds)
    assert {metric.name for metric in figures(BACKUP, host, "", NOW)} == metrics.NAMES


def test_a_metric_has_samples_and_all_have_the_same_labels() -> None:
    for metric in figures(make.site(resources=("test_a", "test_b")), WELL, "", NOW):
        assert metric.samples
        assert len({frozenset(sample.labels) for sample in metric.samples}) == 1
        assert len({tuple(sample.labels.items()) for sample in metric.samples}) == len(metric.samples)


def test_when_the_last_whole_round_of_comparisons_has_ended() -> None:
    known = Round(NOW - timedelta(days=9))
    assert "verify_timestamp_seconds" not in of(replace(WELL, rounds={"test_a": known}))
    ended = replace(known, ended=NOW - timedelta(days=1))
    assert of(replace(WELL, rounds={"test_a": ended}))["verify_timestamp_seconds"] == NOW.timestamp() - 86400
