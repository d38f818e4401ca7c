"""What follows from blocks that differ, step by step."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
from drbd_offsite.plan.findings import MOST_SENDS, Cause, Check, Findings, Range
from drbd_offsite.plan.repair import IDLE, TAIL_SECTORS, Compare, Keep, ReadLog, Send, Sent, Step, Wait, begin, decide

from .. import make
from .test_circle import HOLDS, SEEN, hosts
from .test_findings import FINDINGS

NOW = "2026-11-22T12:00:00+00:00"
A_MOMENT_AGO = "2026-11-22T11:59:50+00:00"
AN_HOUR_AGO = "2026-11-22T11:00:00+00:00"
KIB = 1024

PLACE = Range(40000, 16)
FOUND = Findings((PLACE,), differing_bytes=8 * KIB, differing_since=A_MOMENT_AGO, found_bytes=8 * KIB)
SENT = Findings((replace(PLACE, sent=True),), found_bytes=8 * KIB)
DIFFERS = make.seen(out_of_sync_bytes=8 * KIB)
VERIFYING = make.seen(replication=ReplicationState.VERIFY_SOURCE)
ALONE = make.seen(state=ConnectionState.STANDALONE, replication=ReplicationState.OFF, peer_disk=DiskState.UNKNOWN)
ASKED = Check(AN_HOUR_AGO, cause=Cause.ASKED)
BROKEN_OFF = replace(ASKED, running=False, reached=4096, broken_off=1, broken_off_at=AN_HOUR_AGO)


def step(
    seen: DrbdResource,
    known: Findings = Findings(),  # noqa: B008  frozen
    *,
    tail_due: bool = False,
    **changes: object,
) -> Step:
    site = make.site()
    host = make.host(drbd=[seen], **changes)
    return decide(site, host, site.resources["test_a"], known, NOW, tail_due=tail_due)


def test_nothing_is_known_and_nothing_differs() -> None:
    assert step(make.seen()) == IDLE


def test_from_the_find_to_the_end() -> None:
    assert step(DIFFERS) == ReadLog()
    sending = step(DIFFERS, FOUND)
    assert sending == Send(replace(FOUND, sends=1))
    assert isinstance(sending, Send)
    for seen in (
        ALONE,
        make.seen(replication=ReplicationState.SYNC_SOURCE, peer_disk=DiskState.INCONSISTENT, out_of_sync_bytes=99),
    ):
        assert isinstance(step(seen, sending.findings), Wait)
    sent = step(make.seen(), sending.findings)
    assert sent == Sent(SENT, (PLACE,))
    assert isinstance(sent, Sent)
    comparing = step(make.seen(), sent.findings)
    assert comparing == Compare(replace(SENT, check=Check(NOW, 40000, 40016, reached=40000)), 40000, 40016)
    assert isinstance(comparing, Compare)
    assert isinstance(step(VERIFYING, comparing.findings), Wait)
    assert step(make.seen(), comparing.findings) == ReadLog()


def test_more_that_differs_is_read_about_before_it_is_sent() -> None:
    assert step(make.seen(out_of_sync_bytes=80 * KIB), FOUND) == ReadLog()


# -- sending -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seen", "changes"),
    [
        (make.seen(role=Role.SECONDARY, out_of_sync_bytes=8 * KIB), {}),
        (make.seen(disk=DiskState.DISKLESS, out_of_sync_bytes=8 * KIB), {}),
        (make.seen(peer_disk=DiskState.INCONSISTENT, out_of_sync_bytes=8 * KIB), {}),
        (make.seen(replication=ReplicationState.AHEAD, out_of_sync_bytes=8 * KIB), {}),
        (DIFFERS, {"holds": make.hold(Forbidden.CONNECT)}),
        (DIFFERS, {"holds": make.hold(*Forbidden)}),
        (DIFFERS, {"operations": {"grow-test_a": make.operation("grow", {})}}),
        (DIFFERS, {"tunnel": False}),
        (DIFFERS, {"in_flight": {0: 3}}),
        (DIFFERS, {"blind": True}),
    ],
)
def test_what_keeps_a_repair_back(seen: DrbdResource, changes: dict[str, object]) -> None:
    assert isinstance(step(seen, FOUND, **changes), Wait)


def test_both_primary_is_nothing_to_touch() -> None:
    line = replace(DIFFERS.connections[0], role=Role.PRIMARY)
    assert isinstance(step(replace(DIFFERS, connections=(line,)), FOUND), Wait)


def test_a_remark_keeps_nothing_back() -> None:
    assert isinstance(step(DIFFERS, FOUND, holds=make.hold(set_by="out-of-sync")), Send)


def test_a_resource_that_is_never_quiet_is_not_waited_for_for_ever() -> None:
    busy = {"in_flight": {0: 3}}
    assert isinstance(step(DIFFERS, FOUND, **busy), Wait)
    assert isinstance(step(DIFFERS, replace(FOUND, differing_since=AN_HOUR_AGO), **busy), Send)


@pytest.mark.parametrize(
    "other", [ReplicationState.SYNC_SOURCE, ReplicationState.PAUSED_SYNC_SOURCE, ReplicationState.VERIFY_SOURCE]
)
def test_one_after_the_other_on_a_line(other: ReplicationState) -> None:
    site = make.site(resources=("test_a", "test_b"))
    host = make.host(drbd=[DIFFERS, make.seen("test_b", minor=1, replication=other)])
    assert decide(site, host, site.resources["test_a"], FOUND, NOW, tail_due=False) == Wait(
        "test_b has the line to backup"
    )
    assert isinstance(decide(site, host, site.resources["test_a"], FOUND, NOW, tail_due=False), Wait)


def test_what_no_verify_has_found_is_sent_when_it_has_lasted() -> None:
    unexplained = replace(FOUND, ranges=())
    assert isinstance(step(DIFFERS, unexplained), Wait)
    assert isinstance(step(DIFFERS, replace(unexplained, differing_since=AN_HOUR_AGO)), Send)
    sent = step(make.seen(), unexplained)
    assert isinstance(sent, Sent)
    assert step(make.seen(), sent.findings) == Wait("nothing to do"), "nobody knows what to compare"


def test_sending_in_vain_has_an_end_that_is_told() -> None:
    known, sends = FOUND, 0
    while not isinstance(found := step(DIFFERS, known), Wait):
        assert isinstance(found, Send | Keep)
        sends += isinstance(found, Send)
        known = found.findings
    assert sends == MOST_SENDS
    assert known.sends == MOST_SENDS + 1
    again = step(make.seen(), known)
    assert isinstance(again, Sent)
    assert again.findings.sends == 0


# -- comparing -----------------------------------------------------------------------------------------


def places(*starts: int, **changes: object) -> Findings:
    return Findings(tuple(replace(Range(start, 8, sent=True), **changes) for start in starts))


def test_places_near_each_other_are_compared_in_one_go() -> None:
    found = step(make.seen(), places(800, 8000, 8_000_000))
    assert isinstance(found, Compare)
    assert (found.start, found.stop) == (800, 8008)


def test_what_is_suspicious_is_left_to_a_person() -> None:
    assert step(make.seen(), places(800, seen=3)) == Wait("nothing to do")


def test_what_is_suspicious_is_sent_all_the_same() -> None:
    assert isinstance(step(DIFFERS, replace(FOUND, ranges=(replace(PLACE, seen=3),))), Send)


@pytest.mark.parametrize("changes", [{"holds": make.hold(*Forbidden)}, {"operations": {"x": make.operation("x", {})}}])
def test_nothing_is_compared_behind_a_person_s_back(changes: dict[str, object]) -> None:
    assert isinstance(step(make.seen(), SENT, **changes), Wait)


def test_one_that_was_broken_off_goes_on_where_it_was() -> None:
    known = Findings(check=BROKEN_OFF)
    assert isinstance(step(ALONE, known), Wait)
    found = step(make.seen(), known)
    assert isinstance(found, Compare)
    assert (found.start, found.stop) == (4096, None)
    assert found.findings.check == replace(BROKEN_OFF, start=4096, running=True)


@pytest.mark.parametrize(("times", "seconds"), [(1, 60), (2, 120), (5, 960), (5000, 86400)])
def test_one_that_is_broken_off_again_and_again_is_tried_less_often(times: int, seconds: int) -> None:
    known = Findings(check=replace(BROKEN_OFF, broken_off=times, broken_off_at=NOW))
    site, host = make.site(), make.host(drbd=[make.seen()])

    def after(pause: int) -> Step:
        days, rest = divmod(pause + 12 * 3600, 86400)
        now = f"2026-11-{22 + days}T{rest // 3600:02}:{rest % 3600 // 60:02}:{rest % 60:02}+00:00"
        return decide(site, host, site.resources["test_a"], known, now, tail_due=False)

    assert isinstance(after(seconds - 1), Wait)
    assert isinstance(after(seconds), Compare)


def test_a_check_that_has_ended_is_read_about_whatever_became_of_the_connection() -> None:
    for seen in (make.seen(), ALONE, make.seen(replication=ReplicationState.AHEAD), DIFFERS):
        assert step(seen, Findings(check=ASKED)) == ReadLog()


def test_somebody_else_s_verify_is_waited_for() -> None:
    assert isinstance(step(VERIFYING, FOUND), Wait)


def test_how_far_it_has_come_is_noted_from_time_to_time() -> None:
    known = Findings(check=ASKED)
    assert isinstance(step(VERIFYING, known, progress={0: Progress(2.0, None, None)}), Wait)
    noted = step(VERIFYING, known, progress={0: Progress(50.0, None, None)})
    assert isinstance(noted, Keep)
    assert noted.findings.check is not None
    half = make.GIB // 512 // 2
    assert 0.9 * half < noted.findings.check.reached < half
    assert isinstance(step(VERIFYING, noted.findings, progress={0: Progress(50.4, None, None)}), Wait)


# -- attached ------------------------------------------------------------------------------------------

END = make.GIB // 512
TAIL = Check(NOW, END - TAIL_SECTORS, reached=END - TAIL_SECTORS, cause=Cause.TAIL)


def test_the_end_of_the_copies_is_compared_once_they_are_at_rest_after_an_attach() -> None:
    assert TAIL_SECTORS * 512 == 256 * KIB
    for seen in (ALONE, make.seen(replication=ReplicationState.SYNC_SOURCE)):
        assert isinstance(step(seen, tail_due=True), Wait)
    assert step(make.seen(), tail_due=True) == Compare(Findings(check=TAIL), TAIL.start, None)


def test_what_differs_already_is_sent_before_the_end_is_compared() -> None:
    assert isinstance(step(DIFFERS, FOUND, tail_due=True), Send)


def test_a_comparison_that_was_broken_off_comes_first() -> None:
    found = step(make.seen(), Findings(check=BROKEN_OFF), tail_due=True)
    assert isinstance(found, Compare)
    assert found.start == 4096


def test_the_end_of_the_copies_waits_for_no_other_resource_but_for_a_person() -> None:
    site = make.site(resources=("test_a", "test_b"))
    other = make.seen("test_b", minor=1, replication=ReplicationState.SYNC_SOURCE)
    host = make.host(drbd=[make.seen(), other])
    assert isinstance(decide(site, host, site.resources["test_a"], Findings(), NOW, tail_due=True), Compare)
    assert isinstance(step(make.seen(), tail_due=True, holds=make.hold(Forbidden.CONNECT)), Wait)
    assert isinstance(step(make.seen(), tail_due=True, operations={"grow-test_a": make.operation("grow", {})}), Wait)


def test_a_volume_smaller_than_that_is_compared_whole_and_one_without_a_size_not_at_all() -> None:
    volume = make.seen().volumes[0]
    small = replace(make.seen(), volumes=(replace(volume, size_bytes=128 * KIB),))
    found = step(small, tail_due=True)
    assert isinstance(found, Compare)
    assert found.start == 0
    assert isinstance(step(replace(small, volumes=(replace(volume, size_bytes=0),)), tail_due=True), Wait)


# -- asked for -----------------------------------------------------------------------------------------


def test_a_person_asks_for_all_of_it() -> None:
    found = begin(make.seen(), SENT, NOW)
    assert isinstance(found, Compare)
    assert (found.start, found.stop) == (0, None)
    assert found.findings == replace(SENT, check=Check(NOW, cause=Cause.ASKED))


@pytest.mark.parametrize(
    ("seen", "reason"),
    [
        (None, "not up"),
        (VERIFYING, "already"),
        (ALONE, "not connected"),
        (make.seen(replication=ReplicationState.SYNC_SOURCE), "at work"),
        (make.seen(disk=DiskState.DISKLESS), "Diskless"),
    ],
)
def test_why_not_now(seen: DrbdResource | None, reason: str) -> None:
    refusal = begin(seen, Findings(), NOW)
    assert isinstance(refusal, str)
    assert reason in refusal


# -- whatever is seen ------------------------------------------------------------------------------------


OFTEN_GOOD = st.builds(
    make.host,
    drbd=st.builds(
        make.seen,
        role=st.sampled_from(Role),
        disk=st.sampled_from([DiskState.UP_TO_DATE, DiskState.DISKLESS]),
        peer_disk=st.sampled_from([DiskState.UP_TO_DATE, DiskState.OUTDATED]),
        out_of_sync_bytes=st.sampled_from([0, 8 * KIB]),
    ).map(lambda seen: [seen]),
    holds=HOLDS,
    tunnel=st.booleans(),
    in_flight=st.sampled_from([{}, {0: 1}]),
)


@given(hosts() | OFTEN_GOOD, FINDINGS)
def test_nothing_is_disconnected_but_a_primary_with_two_good_copies(host: Host, known: Findings) -> None:
    site = make.site()
    found = decide(site, host, site.resources["test_a"], known, NOW, tail_due=False)
    seen = host.drbd.get("test_a")
    if isinstance(found, Send | Compare):
        assert not host.blind
        assert host.held("test_a", Forbidden.CONNECT) is None
        assert seen is not None
        assert seen.disk is DiskState.UP_TO_DATE
        assert seen.peer_device is not None
        assert seen.peer_device.disk is DiskState.UP_TO_DATE
        assert seen.peer_device.replication is ReplicationState.ESTABLISHED
    if isinstance(found, Send):
        assert seen is not None
        assert seen.role is Role.PRIMARY
        assert found.findings.sends == known.sends + 1 <= MOST_SENDS


@given(SEEN, FINDINGS)
def test_every_step_changes_what_the_next_one_follows_from(seen: DrbdResource | None, known: Findings) -> None:
    site = make.site()
    host = make.host(drbd=[seen] if seen else [])
    for _ in range(6):
        found = decide(site, host, site.resources["test_a"], known, NOW, tail_due=False)
        if isinstance(found, Wait | ReadLog | Send | Compare):
            return
        assert found.findings != known
        known = found.findings
    pytest.fail("there is no end")
