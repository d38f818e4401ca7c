import json
from dataclasses import asdict, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drbd_offsite.model import LINK_SPEEDS
from drbd_offsite.observed import ConnectionState, ReplicationState
from drbd_offsite.plan import measure
from drbd_offsite.plan.measure import Measured, Verdict

from .. import make

SLOW = Measured("2026-11-22T12:00:00+00:00", 7.4, 41.8, 0.04)
SPEED = st.floats(0.001, 1e7)
MEASURED = st.builds(Measured, st.just(SLOW.at), SPEED, SPEED, st.floats(1e-6, 10))


def of(speed: float, round_trip: float = 0.04) -> Measured:
    return Measured(SLOW.at, speed, speed * 2, round_trip)


@pytest.mark.parametrize(
    ("speed", "fits"),
    [(0.02, 1), (1.0, 1), (1.99, 1), (7.4, 7), (9.99, 9), (10.4, 10), (93.7, 93), (99.9, 99), (487.0, 480),
     (1234.5, 1200), (99999.0, 99000), (5e6, 100000)],
)  # fmt: skip
def test_the_speed_that_fits_has_two_digits_and_is_rounded_down(speed: float, fits: int) -> None:
    assert measure.fitting(of(speed)) == fits
    assert measure.fitting(Measured("", speed * 3, speed, 0.04)) == fits, "the slower direction counts"


@given(MEASURED)
def test_what_fits_can_be_configured_is_no_more_than_was_measured_and_is_found_to_fit(measured: Measured) -> None:
    fits = measure.fitting(measured)
    assert fits in LINK_SPEEDS
    assert fits <= max(1.0, measured.slower)
    assert measure.judge(fits, measured) is Verdict.FITS


@pytest.mark.parametrize(
    ("link_speed", "verdict"),
    [(100, "too high"), (11, "too high"), (10, "fits"), (7, "fits"), (5, "fits"), (4, "too low"), (1, "too low")],
)
def test_a_speed_fits_within_one_and_a_half_times_what_was_measured(link_speed: int, verdict: str) -> None:
    assert measure.judge(link_speed, SLOW) == verdict


def test_where_ssh_may_have_been_the_limit_a_higher_speed_is_not_called_wrong() -> None:
    """2 MiB in a tenth of a second are 168 Mbit/s."""
    assert measure.judge(1000, of(160.0, 0.1)) == "not known"
    assert measure.judge(1000, of(60.0, 0.1)) == "too high"
    assert measure.judge(1000, of(160.0, 0.01)) == "too high"
    assert measure.judge(10, of(160.0, 0.1)) == "too low", "it carries that much at least"
    assert measure.judge(150, of(160.0, 0.1)) == "fits"


def test_what_to_do_is_said_with_its_command() -> None:
    peer = make.peer()
    said = measure.advice(peer, SLOW)
    assert said == (
        "link_speed is 100, and the slower direction carries 7.4 Mbit/s: a resync would take all of the line. To make "
        "it 7 on both machines: drbd-offsite measure-link backup --apply"
    )
    assert "it 7 on both machines" in measure.advice(replace(peer, link_speed=2), SLOW)
    assert "nothing has to be done" in measure.advice(replace(peer, link_speed=8), SLOW)
    limited = measure.advice(replace(peer, link_speed=1000), of(160.0, 0.1))
    assert "may carry more" in limited
    assert "--apply" not in limited


@given(MEASURED)
def test_what_was_measured_is_remembered(measured: Measured) -> None:
    assert measure.from_entry(json.loads(json.dumps(asdict(measured)))) == measured


@pytest.mark.parametrize("entry", [{}, {"at": 5}, asdict(SLOW) | {"here": "fast"}, asdict(SLOW) | {"round_trip": None}])
def test_what_cannot_be_understood_was_not_measured(entry: dict[str, object]) -> None:
    assert measure.from_entry(entry) is None


# -- what else the line is needed for ----------------------------------------------------------------


def busy(replication: ReplicationState, state: ConnectionState | None = ConnectionState.CONNECTED) -> str:
    host = make.host(drbd=[make.seen(state=state, replication=replication)])
    return measure.busy(make.site(), host, "backup")


CALM = {ReplicationState.ESTABLISHED, ReplicationState.OFF}


@pytest.mark.parametrize("replication", [state for state in ReplicationState if state not in CALM])
def test_what_takes_of_the_line_beside_ordinary_writes_is_named(replication: ReplicationState) -> None:
    said = busy(replication)
    assert said.startswith(("test_a is ", "both copies of test_a are "))
    assert replication in said
    assert ("being synced" in said) == replication.resyncing
    assert ("compared" in said) == replication.startswith("Verify")


def test_ordinary_writes_and_what_is_not_connected_are_in_nobody_s_way() -> None:
    assert busy(ReplicationState.ESTABLISHED) == ""
    assert busy(ReplicationState.OFF, None) == ""
    assert busy(ReplicationState.OFF, ConnectionState.CONNECTING) == ""
    assert measure.busy(make.site(), make.host(), "backup") == ""


def test_another_peer_s_resync_takes_another_line() -> None:
    host = make.host(drbd=[make.seen(replication=ReplicationState.SYNC_SOURCE)])
    assert measure.busy(make.site(), host, "second") == ""
