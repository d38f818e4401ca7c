from dataclasses import replace

import pytest

from drbd_offsite.model import Congestion, Flavour
from drbd_offsite.observed import DiskState, ReplicationState, Role
from drbd_offsite.plan.congestion import first_sync, steps
from drbd_offsite.tools.drbd_dump import OnCongestion

from .. import make

SYNCING = {"replication": ReplicationState.SYNC_SOURCE, "peer_disk": DiskState.INCONSISTENT}
ONCE_COMPLETE = {"test_a": "2026-11-22T12:00:00+00:00"}


def told(running: str, complete: dict[str, str] | None = None, **state: object) -> list[tuple[str, ...]]:
    host = make.host(drbd=[make.seen(**state)], complete=complete or {})
    return [step.argv for step in steps(make.site(), host, {"test_a": OnCongestion(running, 6144)})]


def net_options(policy: str) -> tuple[str, ...]:
    addresses = ("ipv4:10.89.33.1:7789", "ipv4:10.89.33.2:7789")
    return ("drbdsetup", "net-options", *addresses, f"--on-congestion={policy}", "--congestion-fill=6144k")


def test_a_first_sync_comes_to_its_end_because_writes_wait_for_the_line() -> None:
    assert told("pull-ahead", **SYNCING) == [net_options("block")]
    assert told("block", **SYNCING) == []


def test_a_copy_that_was_complete_once_is_brought_up_to_date_without_a_write_waiting() -> None:
    assert told("block", ONCE_COMPLETE, **SYNCING) == [net_options("pull-ahead")]
    assert told("pull-ahead", ONCE_COMPLETE, **SYNCING) == []


def test_who_wants_no_write_to_wait_has_a_first_sync_that_ends_later() -> None:
    host = make.host(drbd=[make.seen(**SYNCING)])
    (step,) = steps(make.site(first_sync=Congestion.PULL_AHEAD), host, {"test_a": OnCongestion("block", 6144)})
    assert step.argv == net_options("pull-ahead")


def test_no_write_waits_once_the_first_sync_is_done() -> None:
    assert told("block") == [net_options("pull-ahead")]


@pytest.mark.parametrize("state", [{"state": None}, {"role": Role.SECONDARY, **SYNCING}])
def test_where_nothing_is_sent_from_here_there_is_no_first_sync(state: dict[str, object]) -> None:
    assert not first_sync(make.host(drbd=[make.seen(**state)]), make.resource())


def test_a_connection_that_does_not_exist_is_told_nothing() -> None:
    assert told("block", state=None) == []
    host = make.host(Flavour.SERVER)
    assert not list(steps(make.site(), host, {}))


def test_what_the_kernel_did_not_show_is_left_alone() -> None:
    host = make.host(drbd=[make.seen(**SYNCING)])
    assert not list(steps(make.site(), host, {}))


def test_a_line_that_has_become_slower_may_have_less_on_its_way() -> None:
    site = make.site(peers={"backup": replace(make.site().peers["backup"], link_speed=8)})
    (step,) = steps(site, make.host(drbd=[make.seen()]), {"test_a": OnCongestion("pull-ahead", 6144)})
    assert step.argv[-1] == "--congestion-fill=976k"


def test_what_was_adopted_keeps_its_options_until_it_is_brought_up_anew() -> None:
    assert not list(steps(make.site(), make.host(drbd=[make.seen()]), {"test_a": OnCongestion("block", 0)}))
