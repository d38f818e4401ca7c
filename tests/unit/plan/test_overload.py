import pytest

from drbd_offsite.observed import ReplicationState
from drbd_offsite.plan.overload import Spell, ended, followed, from_entry, to_entry
from drbd_offsite.remembered import Overload

AT = "2026-11-22T12:00:00+00:00"
LATER = "2026-11-22T12:00:08+00:00"


def after(*words: str) -> Spell | None:
    """What has come of it when DRBD has announced these states."""
    spell: Spell | None = None
    for number, word in enumerate(words):
        spell = followed(spell, ReplicationState(word), LATER if number else AT)
    return spell


@pytest.mark.parametrize(("ahead", "syncing"), [("Ahead", "SyncSource"), ("Behind", "SyncTarget")])
def test_each_time_that_the_server_goes_ahead_counts_on_both_machines(ahead: str, syncing: str) -> None:
    assert after(ahead) == Spell(Overload(AT, 1, AT), ahead=True)
    assert after(ahead, syncing) == Spell(Overload(AT, 1, AT), ahead=False)
    assert after(ahead, syncing, ahead, syncing, ahead) == Spell(Overload(AT, 3, LATER), ahead=True)


def test_a_state_that_is_announced_twice_counts_once() -> None:
    assert after("Ahead", "Ahead") == after("Ahead")


def test_it_is_over_when_the_copy_has_caught_up() -> None:
    assert after("Ahead", "SyncSource", "Established") is None


def test_a_connection_that_is_lost_meanwhile_ends_nothing() -> None:
    assert after("Ahead", "Off", "WFBitMapS", "SyncSource") == Spell(Overload(AT, 1, AT), ahead=False)


def test_a_resync_after_an_outage_is_none() -> None:
    assert after("Off", "WFBitMapS", "SyncSource") is None


def test_a_burst_is_told_from_what_lasts() -> None:
    assert [Overload(AT, turns, AT).lasting for turns in (1, 2, 3)] == [False, False, True]


def test_what_was_kept_is_read_again_and_what_is_not_understood_is_none() -> None:
    spell = Spell(Overload(AT, 7, LATER), ahead=True)
    assert from_entry(to_entry(spell)) == spell
    assert from_entry(None) is from_entry({"since": AT}) is from_entry({**to_entry(spell), "turns": "7"}) is None
    assert from_entry({**to_entry(spell), "last": "noon"}) is None


def test_the_journal_says_how_often_and_since_when() -> None:
    assert "14 times" in ended(Overload(AT, 14, LATER))
    assert AT in ended(Overload(AT, 14, LATER))
    assert "once" in ended(Overload(AT, 1, AT))
