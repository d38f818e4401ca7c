from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from drbd_offsite import alert, files, journal
from drbd_offsite.model import Flavour
from drbd_offsite.observed import ConnectionState, Forbidden, Host
from drbd_offsite.operations import alerting, duties
from drbd_offsite.plan.alerts import Kind

from .. import make
from ..conftest import Programs

NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
SITE = make.site()
WELL = make.host(drbd=[make.well(Flavour.SERVER)])
AWAY = make.host(drbd=[make.seen(state=ConnectionState.CONNECTING)])
START = ("systemctl", "--no-ask-password", "start", "--no-block", "drbd-offsite-alert.service")


class Clock:
    """Stands in for datetime."""

    def __init__(self) -> None:
        self.instant = NOW

    def now(self, zone: object) -> datetime:
        assert zone is UTC
        return self.instant


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch, programs: Programs) -> Clock:
    clock = Clock()
    monkeypatch.setattr(alerting, "datetime", clock)
    boot("one")
    programs.allow(START)
    return clock


def boot(name: str) -> None:
    alerting.BOOT_ID.parent.mkdir(parents=True, exist_ok=True)
    alerting.BOOT_ID.write_text(f"{name}\n")


def review(host: Host) -> None:
    alerting.review(SITE, host)


def review_held() -> None:
    """With the holds that there are."""
    review(replace(WELL, holds=journal.holds()))


def waiting() -> list[tuple[Kind, str]]:
    return [(letter.message.kind, letter.message.key) for letter in alert.waiting()]


def test_where_all_is_well_nothing_is_written_or_started(programs: Programs) -> None:
    review(WELL)
    assert alert.waiting() == []
    assert journal.remembered("alerts") == {}
    assert programs.ran == []


def test_a_new_hold_is_posted_recorded_and_handed_to_a_unit_of_its_own(programs: Programs) -> None:
    journal.hold("test_a", "split brain", frozenset({Forbidden.CONNECT}), "split-brain")
    review_held()
    review_held()
    assert waiting() == [(Kind.RAISED, "test_a split-brain")]
    assert programs.ran == [START, START], "it is due as long as nobody has taken it"
    event = journal.events()[-1]
    assert (event["event"], event["resource"], event["kind"]) == ("alert", "test_a", "raised")
    assert event["key"] == "test_a split-brain"


def test_the_reason_is_the_one_that_the_duties_before_have_found_out() -> None:
    journal.hold("test_a", "split brain: server has changed 3 MiB", frozenset({Forbidden.CONNECT}), "split-brain")
    stale = make.hold(Forbidden.CONNECT, set_by="split-brain", reason="split brain")
    review(replace(WELL, holds=stale))
    (letter,) = alert.waiting()
    assert "Split brain: server has changed 3 MiB" in letter.message.text
    assert duties.DUTIES[-2] is alerting.review


def test_what_was_set_since_the_others_looked_is_for_the_next_look() -> None:
    """They may still find out why: a split brain is told with what each side has changed."""
    journal.hold("test_a", "split brain", frozenset({Forbidden.CONNECT}), "split-brain")
    review(WELL)
    assert waiting() == []
    review_held()
    assert waiting() == [(Kind.RAISED, "test_a split-brain")]


def test_what_was_said_survives_a_restart_of_the_watcher_and_of_the_machine(clock: Clock) -> None:
    journal.hold("test_a", "split brain", frozenset({Forbidden.CONNECT}), "split-brain")
    review_held()
    boot("two")
    clock.instant += timedelta(hours=24)
    review_held()
    journal.lift("test_a", "connect")
    for _ in range(7):
        clock.instant += timedelta(minutes=1)
        review_held()
    assert [kind for kind, _ in waiting()] == [Kind.RAISED, Kind.REMINDER, Kind.CLEARED]
    assert [e["kind"] for e in journal.events() if e["event"] == "alert"] == ["raised", "reminder", "cleared"]


def test_a_lost_connection_is_told_after_the_configured_minutes_and_with_its_time(clock: Clock) -> None:
    journal.remember("lost", "test_a", {"since": "2026-01-01T11:59:58+00:00"})
    review(AWAY)
    clock.instant += timedelta(minutes=14)
    review(AWAY)
    assert waiting() == []
    clock.instant += timedelta(minutes=1)
    review(AWAY)
    assert waiting() == [(Kind.RAISED, "test_a unprotected")]
    assert "lost at 2026-01-01T11:59:58+00:00" in alert.waiting()[0].message.text


def test_while_the_machine_was_off_nothing_lasted(clock: Clock) -> None:
    review(AWAY)
    boot("two")
    clock.instant += timedelta(days=1)
    review(AWAY)
    assert waiting() == []


def test_a_blind_look_ends_nothing(clock: Clock) -> None:
    review(AWAY)
    clock.instant += timedelta(minutes=15)
    review(AWAY)
    blind = replace(AWAY, drbd={}, blind=True, problems=("drbdsetup failed.",))
    for _ in range(3):
        clock.instant += timedelta(minutes=10)
        review(blind)
    assert waiting() == [(Kind.RAISED, "test_a unprotected"), (Kind.RAISED, "problems")]
    assert journal.events()[-1]["resource"] == ""


def test_what_is_not_due_starts_nothing(programs: Programs, clock: Clock) -> None:
    journal.hold("test_a", "split brain", frozenset(), "split-brain")
    review_held()
    alert.deliver(SITE, lambda _: None)
    programs.ran.clear()
    review_held()
    assert programs.ran == []
    clock.instant = datetime.now(UTC) + timedelta(minutes=1)
    review_held()
    assert programs.ran == [START]


def test_on_a_full_disk_nobody_is_told_again_at_each_look(monkeypatch: pytest.MonkeyPatch) -> None:
    journal.hold("test_a", "split brain", frozenset(), "split-brain")
    really = files.write

    def almost_full(path: object, *rest: object) -> None:
        if "alerts" in str(path):
            raise OSError(28, "No space left on device")
        really(path, *rest)

    monkeypatch.setattr(files, "write", almost_full)
    told: list[str] = []
    monkeypatch.setattr(duties, "DUTIES", (alerting.review,))
    duties.see_to(SITE, replace(WELL, holds=journal.holds()), told.append)
    assert told == ["Not everything could be noted: [Errno 28] No space left on device."]
    assert alert.waiting() == []
