from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given

from drbd_offsite.model import Alerts, Flavour
from drbd_offsite.observed import ConnectionState, DiskState, DrbdResource, Forbidden, Host, ReplicationState, Role
from drbd_offsite.plan.assess import ASKED_FOR, Level, assess
from drbd_offsite.plan.condition import A_WHILE, Condition
from drbd_offsite.plan.conditions import conditions
from drbd_offsite.remembered import Averages, LastDrill, Overload, Rates, Round

from .. import make
from .test_circle import FLAVOURS, hosts

SERVER, BACKUP = Flavour.SERVER, Flavour.BACKUP
SINCE = "2026-01-01T06:00:00+00:00"
LOST = {"test_a": {"since": SINCE}}
AWAY = {"state": ConnectionState.CONNECTING, "peer_disk": DiskState.UNKNOWN, "replication": ReplicationState.OFF}
EVERYTHING = frozenset(Forbidden)


def look(
    *drbd: DrbdResource, flavour: Flavour = SERVER, lost: object = LOST, **changes: object
) -> dict[str, Condition]:
    host = make.host(flavour, drbd=drbd, **changes)
    return {condition.key: condition for condition in conditions(make.site(flavour), host, lost)}


@pytest.mark.parametrize("flavour", Flavour)
def test_where_all_is_well_nobody_is_told_of_anything(flavour: Flavour) -> None:
    assert look(make.well(flavour), flavour=flavour) == {}


SETTERS = ["split-brain", "local-io-error", "taken-over", "restore-point", "out-of-sync", "suspicious", "unheard-of"]


@pytest.mark.parametrize("setter", SETTERS)
@pytest.mark.parametrize("forbids", [EVERYTHING, frozenset()])
def test_what_a_machine_has_set_is_told_at_once_with_its_reason_and_its_meaning(
    setter: str, forbids: frozenset[Forbidden]
) -> None:
    (found,) = look(make.well(SERVER), holds=make.hold(*forbids, set_by=setter, reason="blue smoke")).values()
    assert found.key == f"test_a {setter}"
    assert found.level is Level.BROKEN
    assert found.patience == timedelta()
    assert found.subject.startswith("test_a on server: ")
    happened, *_, here = found.text.strip().split("\n\n")
    assert happened == "Blue smoke (since 2026-01-01T00:00:00+00:00)."
    assert here.startswith("This is server, the server. test_a is Primary, UpToDate here, UpToDate there, Connected.")
    assert here.endswith("drbd-offsite status test_a")
    assert found.text.count("\n\n") == (2 if setter == "unheard-of" else 3)


def test_a_split_brain_says_how_it_is_resolved() -> None:
    (found,) = look(make.well(SERVER), holds=make.hold(Forbidden.CONNECT, set_by="split-brain")).values()
    assert "nothing will connect it by itself" in found.text
    assert "connect --discard-here test_a" in found.text


@pytest.mark.parametrize("setter", sorted(ASKED_FOR))
@pytest.mark.parametrize("seen", [[], [make.seen(**AWAY)], [make.seen(disk=DiskState.DISKLESS, role=Role.SECONDARY)]])
def test_what_a_person_has_asked_for_is_no_news(setter: str, seen: list[DrbdResource]) -> None:
    assert look(*seen, holds=make.hold(*EVERYTHING, set_by=setter)) == {}


def test_what_a_person_has_just_given_up_is_told_when_it_is_forgotten() -> None:
    (found,) = look(make.well(SERVER), holds=make.hold(Forbidden.PROMOTE, set_by="discards")).values()
    assert found.patience == timedelta(minutes=15)


def test_a_hold_of_a_resource_that_is_configured_no_more_is_told_too() -> None:
    holds = make.hold(Forbidden.CONNECT, name="gone", set_by="split-brain")
    assert list(look(make.well(SERVER), holds=holds)) == ["gone split-brain"]


@pytest.mark.parametrize(
    ("flavour", "seen", "key", "level", "words"),
    [
        (SERVER, [], "not-up", Level.BROKEN, "Nobody can use the volume"),
        (BACKUP, [], "not-up", Level.BROKEN, "Nothing is copied to this machine"),
        (SERVER, [make.seen(disk=DiskState.DISKLESS)], "detached", Level.BROKEN, "from the other machine's copy"),
        (BACKUP, [make.seen(disk=DiskState.FAILED)], "detached", Level.BROKEN, "Nothing is copied"),
        (SERVER, [make.seen(role=Role.SECONDARY)], "not-served", Level.BROKEN, "Nobody can use the volume"),
        (SERVER, [make.seen(out_of_sync_bytes=4096)], "differs", Level.BROKEN, "wrong in some blocks"),
        (SERVER, [make.seen(replication=ReplicationState.AHEAD)], "unprotected", Level.UNPROTECTED, "would be lost"),
        (
            BACKUP,
            [make.seen(role=Role.SECONDARY, replication=ReplicationState.BEHIND)],
            "unprotected",
            Level.UNPROTECTED,
            "The copy here is as it was then",
        ),
    ],
)
def test_what_the_state_shows_is_told_after_a_while(
    flavour: Flavour, seen: list[DrbdResource], key: str, level: Level, words: str
) -> None:
    (found,) = look(*seen, flavour=flavour).values()
    assert (found.key, found.level) == (f"test_a {key}", level)
    assert found.patience >= A_WHILE
    assert words in found.text
    assert f"This is {flavour}, the {flavour}." in found.text
    assert "drbd-offsite status test_a" in found.text


@pytest.mark.parametrize(
    ("flavour", "states"), [(SERVER, ("Ahead", "SyncSource")), (BACKUP, ("Behind", "SyncTarget", "PausedSyncT"))]
)
def test_an_overload_is_one_condition_however_its_states_change(flavour: Flavour, states: Sequence[str]) -> None:
    """With one for each state, none would ever have lasted long enough to be told."""
    role = Role.PRIMARY if flavour is SERVER else Role.SECONDARY
    overloads = {"test_a": Overload("2026-11-22T12:00:00+00:00", 3, "2026-11-22T12:02:00+00:00")}
    for state in states:
        seen = make.seen(role=role, replication=ReplicationState(state), peer_disk=DiskState.UP_TO_DATE)
        (found,) = look(seen, flavour=flavour, overloads=overloads).values()
        assert (found.key, found.level) == ("test_a overload", Level.UNPROTECTED)
        assert found.patience == timedelta(minutes=15)
        assert "gone ahead of the backup 3 times" in found.text
        assert "restore point" in found.text


def test_a_lost_connection_is_told_of_the_resource_and_later_of_the_peer() -> None:
    found = look(make.seen(**AWAY, out_of_sync_bytes=3 * make.MIB))
    resource, peer = found["test_a unprotected"], found["backup silent"]
    assert resource.patience == timedelta(minutes=15)
    assert peer.patience == timedelta(hours=12)
    assert resource.level is peer.level is Level.UNPROTECTED
    assert "3.0 MiB changed since" in resource.text
    assert f"The connection was lost at {SINCE}." in resource.text
    assert f"since {SINCE}" in peer.text
    assert "ping 10.89.33.2" in peer.text


@pytest.mark.parametrize(
    ("flavour", "words"), [(SERVER, "Nobody can use the volume before"), (BACKUP, "this copy could not take over")]
)
def test_a_resync_that_was_broken_off_leaves_no_usable_copy(flavour: Flavour, words: str) -> None:
    role = Role.PRIMARY if flavour is SERVER else Role.SECONDARY
    found = look(make.seen(role=role, disk=DiskState.INCONSISTENT, **AWAY), flavour=flavour)
    assert list(found) == ["test_a unusable", f"{flavour.other} silent"]
    condition = found["test_a unusable"]
    assert condition.level is Level.BROKEN
    assert condition.patience == timedelta(minutes=15)
    assert words in condition.text
    syncing = make.seen(role=role, disk=DiskState.INCONSISTENT, replication=ReplicationState.SYNC_TARGET)
    assert look(syncing, flavour=flavour) == {}


def test_without_a_note_of_when_it_was_lost_no_time_is_told() -> None:
    for condition in look(make.seen(**AWAY), lost={}).values():
        assert "since ." not in condition.text
        assert "lost at" not in condition.text


def test_what_is_told_on_its_own_is_not_told_twice() -> None:
    found = look(make.seen(disk=DiskState.DISKLESS), holds=make.hold(set_by="restore-point", reason="no room at all"))
    assert "No room at all" in found["test_a restore-point"].text
    assert "No room at all" not in found["test_a detached"].text


def test_a_peer_speaks_with_one_of_its_resources() -> None:
    site = make.site(resources=("test_a", "test_b"))
    away, well = make.seen("test_a", **AWAY), make.seen("test_b", minor=1)
    assert [c.key for c in conditions(site, make.host(drbd=[away, well]), LOST)] == ["test_a unprotected"]
    both = make.host(drbd=[away, make.seen("test_b", minor=1, **AWAY)])
    assert "backup silent" in {c.key for c in conditions(site, both, LOST)}
    later = LOST | {"test_b": {"since": "2026-01-01T07:00:00+00:00"}}
    assert "since 2026-01-01T07" in next(c.text for c in conditions(site, both, later) if c.key == "backup silent")


def test_who_is_kept_from_connecting_says_nothing_of_the_peer() -> None:
    held = look(make.seen(**AWAY), holds=make.hold(Forbidden.CONNECT, set_by="split-brain"))
    assert list(held) == ["test_a split-brain"]


def test_a_remark_on_blocks_that_differ_is_not_told_twice() -> None:
    found = look(make.seen(out_of_sync_bytes=4096), holds=make.hold(set_by="out-of-sync"))
    assert list(found) == ["test_a out-of-sync"]


def test_a_blind_host_says_so_and_nothing_else() -> None:
    (found,) = look(problems=("drbdsetup failed.", "look again"), blind=True).values()
    assert found.key == "problems"
    assert "drbdsetup failed. look again." in found.text
    assert "neither is whether the data is served" in found.text
    (seeing,) = look(make.well(SERVER), problems=("lvm failed",)).values()
    assert "What runs goes on" in seeing.text


@pytest.mark.parametrize(
    ("flavour", "verb", "again"),
    [
        (SERVER, "add", "drbd-offsite add again;"),
        (BACKUP, "replicate", "drbd-offsite add again on the server"),
        (SERVER, "grow", "drbd-offsite grow again;"),
        (SERVER, "remove", "drbd-offsite remove again;"),
        (BACKUP, "release", "drbd-offsite remove again on the server"),
        (BACKUP, "failover", "drbd-offsite failover again;"),
    ],
)
def test_what_was_begun_and_forgotten_is_told_after_an_hour(flavour: Flavour, verb: str, again: str) -> None:
    unfinished = {f"{verb}-x": make.operation(verb, {}, "x")}
    (found,) = look(make.well(flavour), flavour=flavour, operations=unfinished).values()
    assert found.key == f"x {verb}-unfinished"
    assert found.patience == timedelta(hours=1)
    assert again in found.text
    assert ("not replicated yet" in found.text) is ("add again" in again)


REMARKS = {"out-of-sync": True, "split-brain": True, "unheard-of": True, "restore-point": False, "discards": False}


@pytest.mark.parametrize("setter", REMARKS)
@pytest.mark.parametrize("alerts", Alerts)
def test_a_resource_says_which_of_its_alerts_are_wanted(alerts: Alerts, setter: str) -> None:
    site = make.site(
        resources={"test_a": replace(make.resource(), alerts=alerts), "test_b": make.resource("test_b", 1)}
    )
    drbd = [make.seen(**AWAY), make.seen("test_b", minor=1, **AWAY)]
    operations = {"set-test_a": make.operation("set", {})}
    host = make.host(drbd=drbd, holds=make.hold(set_by=setter), operations=operations)
    muted = {condition.key: condition.muted for condition in conditions(site, host, LOST)}
    of_a_fault = alerts is Alerts.NONE or (alerts is Alerts.FAULTS and not REMARKS[setter])
    assert muted == {
        f"test_a {setter}": of_a_fault,
        "test_a set-unfinished": alerts is not Alerts.ALL,
        "test_a unprotected": alerts is not Alerts.ALL,
        "test_b unprotected": False,
        "backup silent": False,
    }


@pytest.mark.parametrize("seen", [[], [make.seen(disk=DiskState.DISKLESS)], [make.seen(role=Role.SECONDARY)]])
def test_what_is_not_served_is_a_fault(seen: list[DrbdResource]) -> None:
    site = make.site(resources={"test_a": replace(make.resource(), alerts=Alerts.FAULTS)})
    found = conditions(site, make.host(drbd=seen), LOST)
    assert found
    assert not any(condition.muted for condition in found)


def test_what_concerns_the_machine_or_the_line_has_no_resource_s_name() -> None:
    """Not even where a resource is called as the peer is."""
    quiet = replace(make.resource("backup"), alerts=Alerts.NONE)
    site = make.site(resources={"backup": quiet})
    host = make.host(drbd=[make.seen("backup", **AWAY)], problems=("lvm failed",))
    found = {condition.key: condition.muted for condition in conditions(site, host, LOST)}
    assert found == {"problems": False, "backup unprotected": True, "backup silent": False}


@given(FLAVOURS, hosts())
def test_whatever_status_calls_broken_is_told_unless_a_person_wants_it_so(flavour: Flavour, host: Host) -> None:
    site = make.site(flavour)
    found = conditions(site, host, {})
    asked = any(hold.set_by in ASKED_FOR for hold in host.holds.get("test_a", ()))
    if assess(site, host, site.resources["test_a"]).level is Level.BROKEN and not asked:
        assert [condition for condition in found if condition.level is Level.BROKEN]
    for condition in found:
        assert condition.subject == " ".join(condition.subject.split())
        assert "!" not in condition.text
        assert condition.text.endswith("\n")
        assert "\n\n\n" not in condition.text


# -- drills ------------------------------------------------------------------------------------------------------

DRILLED = LastDrill(SINCE, "passed", "It is good.", SINCE, 86400.0)
LONG_AGO = 15 * 86400.0


@pytest.mark.parametrize(
    ("known", "keys"),
    [
        (DRILLED, []),
        (replace(DRILLED, outcome="untested"), []),
        (replace(DRILLED, outcome="failed"), ["test_a drill-failed"]),
        (replace(DRILLED, outcome="warned"), ["test_a drill-findings"]),
        (replace(DRILLED, unproven_seconds=LONG_AGO), ["test_a drill-overdue"]),
        (
            replace(DRILLED, outcome="failed", unproven_seconds=LONG_AGO),
            ["test_a drill-failed", "test_a drill-overdue"],
        ),
    ],
)
def test_a_drill_that_has_failed_or_is_overdue_is_told_at_once(known: LastDrill, keys: list[str]) -> None:
    found = look(make.well(BACKUP), flavour=BACKUP, drills={"test_a": known})
    assert list(found) == keys
    for condition in found.values():
        assert (condition.level, condition.patience) == (Level.BROKEN, timedelta())
        assert condition.subject.startswith("test_a on backup: ")
        assert "drbd-offsite drill test_a" in condition.text


def test_a_drill_of_what_is_configured_no_more_is_no_news() -> None:
    assert look(make.well(BACKUP), flavour=BACKUP, drills={"gone": replace(DRILLED, outcome="failed")}) == {}


def test_what_a_drill_has_found_is_not_told_twice() -> None:
    """As a sentence of another condition of the same resource."""
    found = look(flavour=BACKUP, drills={"test_a": replace(DRILLED, outcome="failed")})
    assert "has failed" not in found["test_a not-up"].text


@pytest.mark.parametrize(("alerts", "told"), [(Alerts.ALL, 2), (Alerts.FAULTS, 1), (Alerts.NONE, 0)])
def test_of_drills_only_a_failed_one_is_a_fault(alerts: Alerts, told: int) -> None:
    known = replace(DRILLED, outcome="failed", unproven_seconds=LONG_AGO)
    site = make.site(BACKUP, {"test_a": replace(make.resource(peer="server"), alerts=alerts)})
    found = conditions(site, make.host(BACKUP, [make.well(BACKUP)], drills={"test_a": known}), {})
    assert [condition.muted for condition in found].count(False) == told


# -- copies that are old, or will only get older -------------------------------------------------------

AHEAD = make.seen(replication=ReplicationState.AHEAD, peer_disk=DiskState.CONSISTENT, out_of_sync_bytes=make.GIB)
TOO_MUCH = {"test_a": Rates(Averages(written_day=13_000_000.0), drained=-1.0)}


def old(flavour: Flavour, age: float, **changes: object) -> Condition | None:
    host = make.host(flavour, drbd=[make.well(flavour)], ages={"test_a": age}, **changes)
    site = make.site(flavour, age_minutes=60)
    return {condition.key: condition for condition in conditions(site, host, {})}.get("test_a old")


@pytest.mark.parametrize("flavour", Flavour)
def test_a_copy_that_is_older_than_allowed_is_told_at_once(flavour: Flavour) -> None:
    assert old(flavour, 3600.0) is None
    found = old(flavour, 7500.0)
    assert found is not None
    assert (found.level, found.patience, found.muted) == (Level.UNPROTECTED, timedelta(), False)
    assert found.subject == f"test_a on {flavour}: its copy is too old"
    happened, means, to_do, here = found.text.strip().split("\n\n")
    assert happened == ("The copy of test_a has everything up to 2 h 5 min ago; 60 minutes are allowed (age_minutes).")
    assert "would be lost with it" in means
    assert "drbd-offsite history test_a" in to_do
    assert here.endswith("drbd-offsite status test_a")


def test_nobody_is_told_of_an_age_unless_asked_to_be() -> None:
    assert look(make.well(SERVER), ages={"test_a": 1e9}) == {}


def test_what_is_held_is_as_old_as_a_person_wants_it() -> None:
    assert old(SERVER, 7500.0, holds=make.hold(Forbidden.CONNECT, set_by="disconnect")) is None
    assert old(SERVER, 7500.0, holds=make.hold(Forbidden.PROMOTE, set_by="handed-over")) is not None


def test_a_line_that_will_never_carry_it_is_told_after_an_hour() -> None:
    found = look(AHEAD, rates=TOO_MUCH)["test_a too-slow"]
    assert (found.level, found.patience) == (Level.UNPROTECTED, timedelta(hours=1))
    assert found.subject == "test_a on server: it will never catch up"
    assert found.text.startswith("It will never catch up at this rate: 12.4 MiB/s were written over the last day")
    assert "Get a faster link, or write less" in found.text
    assert "test_a too-slow" not in look(AHEAD)
    assert "test_a too-slow" not in look(AHEAD, rates=TOO_MUCH, holds=make.hold(Forbidden.CONNECT))


def test_whoever_wants_faults_alone_is_told_of_neither() -> None:
    site = make.site(resources={"test_a": replace(make.resource(), alerts=Alerts.FAULTS)}, age_minutes=1)
    host = make.host(drbd=[AHEAD], rates=TOO_MUCH, ages={"test_a": 90.0})
    muted = {condition.key: condition.muted for condition in conditions(site, host, {})}
    assert muted["test_a old"]
    assert muted["test_a too-slow"]


# -- rounds of comparisons ---------------------------------------------------------------------------------

LATE = Round(datetime(2026, 1, 1, tzinfo=UTC), unproven_seconds=61 * 86400.0)


def test_a_volume_that_was_not_compared_for_twice_its_days_is_told_at_once() -> None:
    found = look(make.well(SERVER), rounds={"test_a": LATE})
    assert list(found) == ["test_a verify-overdue"]
    condition = found["test_a verify-overdue"]
    assert (condition.level, condition.patience) == (Level.UNPROTECTED, timedelta())
    assert "drbd-offsite verify test_a" in condition.text
    assert look(make.well(SERVER), rounds={"test_a": replace(LATE, unproven_seconds=59 * 86400.0)}) == {}


def test_that_it_was_not_compared_is_no_fault() -> None:
    site = make.site(SERVER, {"test_a": replace(make.resource(), alerts=Alerts.FAULTS)})
    (condition,) = conditions(site, make.host(SERVER, [make.well(SERVER)], rounds={"test_a": LATE}), {})
    assert condition.muted
