"""Up to when a copy has everything is never said to be later than it is."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drbd_offsite.observed import ConnectionState, DiskState, ReplicationState, Role
from drbd_offsite.plan import marks
from drbd_offsite.plan.marks import Mark, Place
from drbd_offsite.tools.sockets import Socket

from .. import make

SITE = make.site()
RESOURCE = SITE.resources["test_a"]
T1, T2, T3 = (f"2026-01-01T12:00:{second}0+00:00" for second in range(3))
HERE, THERE = "10.89.33.1", "10.89.33.2"
DATA = Socket(f"{HERE}:39247", f"{THERE}:7789", 1000, 5)
URGENT = Socket(f"{HERE}:7789", f"{THERE}:36707", 50, 60)


def seen_from_there(found: Socket, read: int) -> Socket:
    return Socket(found.remote, found.local, 0, read)


# -- whether there is anything to be marked ------------------------------------------------------------


def test_while_every_write_is_sent_and_nothing_else_is_missing() -> None:
    assert marks.complete(make.seen())
    assert marks.complete(make.seen(replication=ReplicationState.VERIFY_SOURCE))


@pytest.mark.parametrize(
    "changes",
    [
        {"role": Role.SECONDARY},
        {"state": ConnectionState.CONNECTING, "replication": ReplicationState.OFF},
        {"replication": ReplicationState.AHEAD},
        {"replication": ReplicationState.SYNC_SOURCE},
        {"peer_disk": DiskState.INCONSISTENT},
        {"out_of_sync_bytes": 4096},
    ],
)
def test_otherwise_it_is_not_marked(changes: dict[str, object]) -> None:
    assert not marks.complete(make.seen(**changes))
    assert not marks.complete(None)


# -- marks ---------------------------------------------------------------------------------------------


def test_a_mark_is_for_both_connections_of_its_resource() -> None:
    others = (
        Socket(f"{HERE}:7790", f"{THERE}:7790", 9, 9),
        Socket("192.0.2.1:7789", "192.0.2.9:7789", 9, 9),
        Socket(f"{HERE}:40000", f"{THERE}:7788", 9, 9),
    )
    assert marks.make(SITE, RESOURCE, T1, (DATA, *others, URGENT)) == Mark(
        "test_a", T1, (Place(DATA.local, DATA.remote, 1000), Place(URGENT.local, URGENT.remote, 50))
    )


@pytest.mark.parametrize("sockets", [(), (DATA,), (URGENT,)])
def test_without_both_there_is_none(sockets: tuple[Socket, ...]) -> None:
    assert marks.make(SITE, RESOURCE, T1, sockets) is None


MARK = Mark("test_a", T1, (Place(DATA.local, DATA.remote, 1000), Place(URGENT.local, URGENT.remote, 50)))


@pytest.mark.parametrize(
    ("data", "urgent", "passed"),
    # A byte less is the SYN.
    [(1000, 50, True), (5000, 900, True), (999, 49, True), (998, 50, False), (1000, 48, False), (0, 0, False)],
)
def test_it_is_passed_when_all_before_it_was_taken_out_of_both(data: int, urgent: int, passed: bool) -> None:
    assert marks.passed(MARK, (seen_from_there(DATA, data), seen_from_there(URGENT, urgent))) is passed


def test_one_of_a_connection_that_is_not_there_is_not_passed() -> None:
    assert not marks.passed(MARK, (seen_from_there(DATA, 9999),))
    assert not marks.passed(MARK, ())
    assert not marks.passed(replace(MARK, places=()), (seen_from_there(DATA, 9999),))


# -- which are asked about -----------------------------------------------------------------------------

OPEN = (DATA, URGENT)


def mark(at: str, name: str = "test_a", port: int = 39247) -> Mark:
    return Mark(name, at, (Place(f"{HERE}:{port}", f"{THERE}:7789", 1000),))


def test_what_was_passed_is_not_asked_about_again() -> None:
    every = (mark(T1), mark(T2), mark(T3))
    assert marks.waiting(every, {}, OPEN) == every
    assert marks.waiting(every, {"test_a": T2, "other": T3}, OPEN) == (mark(T3),)
    assert marks.waiting(every, {"test_a": T3}, OPEN) == ()


def test_one_of_a_connection_that_has_ended_is_dropped() -> None:
    assert marks.waiting((mark(T1, port=1), mark(T2)), {}, OPEN) == (mark(T2),)


def test_the_oldest_are_kept_or_none_would_ever_be_passed() -> None:
    many = tuple(mark(f"2026-01-01T12:{minute:02}:00+00:00") for minute in range(30))
    kept = marks.waiting((*many, mark(T1, "other")), {}, OPEN)
    assert kept == (*many[: marks.MOST_WAITING], mark(T1, "other"))


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=30))
def test_whatever_is_written_and_read_it_is_never_later_than_the_truth(pace: list[tuple[int, int]]) -> None:
    """Each round so many writes of a byte are acknowledged, and so many of all that were are read on the other side."""
    written = read = 0
    acknowledged: list[int] = []  # at the end of each round
    waiting: tuple[Mark, ...] = ()
    for number, (more, taken) in enumerate(pace):
        at = f"2026-01-01T12:{number:02}:00+00:00"  # what was acknowledged before this round
        acknowledged.append(written)
        written += more
        read = min(written, read + taken)
        # The counts are looked at some time after the instant. An end that has dialled counts one more.
        sockets = (replace(DATA, written_bytes=written + 1), URGENT)
        made = marks.make(SITE, RESOURCE, at, sockets)
        waiting = marks.waiting((*waiting, *([made] if made else [])), {}, sockets)
        there = (seen_from_there(DATA, read), seen_from_there(URGENT, 50))
        passed = [mark.at for mark in waiting if marks.passed(mark, there)]
        for instant in passed:
            assert acknowledged[int(instant[14:16])] <= read
        waiting = marks.waiting(waiting, {"test_a": passed[-1]} if passed else {}, sockets)
