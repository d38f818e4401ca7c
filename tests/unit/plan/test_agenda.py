"""When the watcher looks at what, over any course of events."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drbd_offsite.plan.agenda import (
    FULL_SECONDS,
    GAP_SECONDS,
    LONGEST_SECONDS,
    PATIENCE_SECONDS,
    SOON_SECONDS,
    Agenda,
)

NAMES = ("a", "b")
START = 1000.0


@dataclass
class Course:
    """A watcher that sleeps as long as the agenda says, and the events that wake it."""

    agenda: Agenda = field(default_factory=lambda: Agenda(NAMES, START))
    now: float = START
    looks: list[tuple[float, str]] = field(default_factory=list)
    full: set[float] = field(default_factory=set)
    """The instants at which everything was due."""

    def look(self, helped: tuple[str, ...] = (), soon: tuple[str, ...] = ()) -> tuple[str, ...]:
        if self.agenda.full_look_due(self.now):
            self.full.add(self.now)
        due = self.agenda.due(NAMES, self.now)
        for name in due:
            self.looks.append((self.now, name))
            self.agenda.looked(name, self.now, helped=name in helped, soon=name in soon)
        return due

    def sleep(self) -> float:
        """Until something is due; returns how long that was."""
        seconds = self.agenda.wait(self.now)
        self.now += seconds
        return seconds

    def until(self, end: float, **ends: tuple[str, ...]) -> None:
        """Sleep and look in turn until then."""
        while self.now + self.agenda.wait(self.now) <= end:
            self.sleep()
            self.look(**ends)
        self.now = end

    def times(self, name: str) -> list[float]:
        return [at for at, looked in self.looks if looked == name]

    def gaps(self, name: str) -> list[float]:
        times = self.times(name)
        return [later - earlier for earlier, later in pairwise(times)]


@pytest.fixture
def course() -> Course:
    """After the first look, at which nothing was to do."""
    found = Course()
    found.look()
    found.looks.clear()
    return found


def test_a_watcher_that_starts_looks_at_everything_at_once() -> None:
    assert Course().sleep() == 0.0
    assert Course().look() == NAMES


def test_whatever_was_heard_everything_is_looked_at_every_minute(course: Course) -> None:
    course.until(START + 5 * FULL_SECONDS)
    assert course.times("a") == course.times("b") == [START + n * FULL_SECONDS for n in range(1, 6)]


def test_what_appears_is_looked_at_at_once(course: Course) -> None:
    course.now += 7.0
    course.agenda.appeared("a", course.now)
    assert course.sleep() == 0.0
    assert course.look() == ("a",), "and nothing else is"


def test_a_burst_of_events_is_two_looks(course: Course) -> None:
    """One at its beginning, and one after its last event."""
    course.now += 7.0
    for _ in range(40):
        course.agenda.appeared("a", course.now)
        course.look()
        course.now += GAP_SECONDS / 50
    course.until(START + 20.0)
    assert course.times("a") == pytest.approx([START + 7.0, START + 7.0 + GAP_SECONDS])


def test_what_drbd_has_changed_is_given_time(course: Course) -> None:
    """A person may be at work with drbdadm."""
    course.now += 7.0
    course.agenda.stirred("a", course.now)
    assert course.sleep() == PATIENCE_SECONDS
    assert course.look() == ("a",)
    assert course.sleep() > PATIENCE_SECONDS, "and nothing is left of it"


def test_a_person_who_goes_on_is_not_interrupted(course: Course) -> None:
    for _ in range(5):
        course.now += PATIENCE_SECONDS - 1.0
        course.agenda.stirred("a", course.now)
        course.look()
    assert course.times("a") == []
    assert course.sleep() == PATIENCE_SECONDS


def test_the_full_look_leaves_a_person_at_work_alone_too(course: Course) -> None:
    course.now += FULL_SECONDS - 1.0
    course.agenda.stirred("a", course.now)
    course.until(START + FULL_SECONDS)
    assert course.looks == [(START + FULL_SECONDS, "b")]
    course.until(START + FULL_SECONDS + PATIENCE_SECONDS)
    assert course.looks[1:] == [(START + FULL_SECONDS - 1.0 + PATIENCE_SECONDS, "a")]


def test_a_volume_or_a_tunnel_that_appears_is_a_reason_not_to_wait(course: Course) -> None:
    """The tunnel vanishes and StandAlone follows; its return must not wait for a person who is not there."""
    course.agenda.stirred("a", course.now)
    course.now += 1.0
    course.agenda.appeared("a", course.now)
    assert course.sleep() == 0.0
    assert course.look() == ("a",)


def test_what_was_asked_for_at_once_is_not_put_off_by_a_change_in_drbd(course: Course) -> None:
    course.agenda.looked("a", course.now, helped=False, soon=True)
    course.agenda.stirred("a", course.now + 0.1)
    assert course.sleep() == SOON_SECONDS


def test_what_comes_without_an_event_is_looked_for_every_second(course: Course) -> None:
    course.agenda.appeared("a", course.now)
    course.until(START + 10.5, soon=("a",))
    assert course.gaps("a") == pytest.approx([SOON_SECONDS] * 10)


def test_help_is_checked_and_each_time_that_it_did_not_help_the_pause_doubles_up_to_a_limit(course: Course) -> None:
    """No storm of commands against what does not want to work."""
    course.agenda.appeared("a", course.now)
    course.until(START + 4 * 3600.0, helped=("a",))
    gaps = course.gaps("a")
    doubling = [2 * PATIENCE_SECONDS * 2**n for n in range(5)]
    assert gaps[:5] == doubling
    assert set(gaps[5:]) == {LONGEST_SECONDS}
    assert course.gaps("b")[0] == FULL_SECONDS, "and the others are looked at as ever"


def test_once_it_is_well_the_pauses_begin_anew(course: Course) -> None:
    course.agenda.appeared("a", course.now)
    course.until(START + 3600.0, helped=("a",))
    course.agenda.appeared("a", course.now)
    course.look()
    course.agenda.stirred("a", course.now)
    assert course.agenda.wait(course.now) == pytest.approx(PATIENCE_SECONDS)


def test_what_appears_is_not_held_up_by_what_did_not_help_before(course: Course) -> None:
    course.agenda.appeared("a", course.now)
    course.until(START + 3600.0, helped=("a",))
    course.now += 5.0
    course.agenda.appeared("a", course.now)
    assert course.sleep() == 0.0
    assert "a" in course.look(helped=("a",))
    assert course.sleep() <= 2 * PATIENCE_SECONDS, "and its pauses are short again"


def test_what_was_well_when_it_appeared_is_in_the_full_looks_again(course: Course) -> None:
    course.agenda.appeared("a", course.now)
    course.until(START + 3100.0, helped=("a",))
    assert course.times("a")[-1] + LONGEST_SECONDS > course.now + 2 * FULL_SECONDS, "in the middle of a long pause"
    course.agenda.appeared("a", course.now)
    course.look()
    course.looks.clear()
    course.until(course.now + FULL_SECONDS)
    assert len(course.times("a")) == 1


def test_what_is_configured_no_longer_wakes_nobody(course: Course) -> None:
    course.agenda.appeared("gone", course.now)
    course.agenda.appeared("a", course.now)
    assert course.agenda.due(("b",), course.now) == ()
    assert course.agenda.wait(course.now) == FULL_SECONDS


def test_a_resource_that_is_new_in_the_configuration_is_in_the_next_full_look() -> None:
    agenda = Agenda((), START)
    assert agenda.due((), START) == ()
    assert agenda.wait(START) == FULL_SECONDS
    assert agenda.due(("a",), START + FULL_SECONDS) == ("a",)


# -- any course of events ----------------------------------------------------------------------------

Step = tuple[str, str, float, tuple[str, ...], tuple[str, ...]]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["appeared", "stirred", "nothing"]), st.sampled_from(NAMES), st.floats(0.0, 90.0),
        st.sets(st.sampled_from(NAMES)).map(tuple), st.sets(st.sampled_from(NAMES)).map(tuple),
    ),
    max_size=60,
)  # fmt: skip


def run(steps: list[Step]) -> Iterator[tuple[Course, str, str]]:
    course = Course()
    yield course, "nothing", ""
    for event, name, seconds, helped, soon in steps:
        course.until(course.now + seconds, helped=helped, soon=soon)
        if event != "nothing":
            getattr(course.agenda, event)(name, course.now)
        yield course, event, name


@given(STEPS)
def test_no_events_make_it_look_more_often_than_every_gap(steps: list[Step]) -> None:
    """Only the full look, once a minute, may come in between."""
    for course, _, _ in run(steps):
        for name in NAMES:
            times = course.times(name)
            close = {b for a, b in pairwise(times) if b - a < GAP_SECONDS - 1e-6}
            assert close <= course.full


@given(STEPS)
def test_what_appeared_has_been_looked_at_a_moment_later(steps: list[Step]) -> None:
    appeared: list[tuple[float, str]] = []
    for course, event, name in run(steps):
        if event == "appeared":
            appeared.append((course.now, name))
    course.until(course.now + 2 * GAP_SECONDS)
    for at, name in appeared:
        assert any(at <= look <= at + GAP_SECONDS + 1e-6 for look in course.times(name))


@given(STEPS)
def test_what_is_not_at_rest_is_looked_at_at_least_every_minute(steps: list[Step]) -> None:
    """Where no change was heard of and no help was of no use, the safety net always holds."""
    quiet = [(event if event == "appeared" else "nothing", name, s, (), soon) for event, name, s, _, soon in steps]
    for course, _, _ in run(quiet):
        assert all(gap <= FULL_SECONDS + 1e-6 for name in NAMES for gap in course.gaps(name))


@given(STEPS)
def test_what_is_at_rest_is_looked_at_when_its_rest_is_over(steps: list[Step]) -> None:
    *_, (course, _, _) = run(steps)
    before = {name: len(course.times(name)) for name in NAMES}
    course.until(course.now + LONGEST_SECONDS + FULL_SECONDS)
    assert all(len(course.times(name)) > before[name] for name in NAMES)


@given(STEPS)
def test_the_watcher_never_sleeps_beyond_a_full_look_and_never_spins(steps: list[Step]) -> None:
    for course, _, _ in run(steps):
        course.look()
        assert 0.0 <= course.agenda.wait(course.now) <= FULL_SECONDS
        course.sleep()
        if course.agenda.full_look_due(course.now):
            course.look()
            assert not course.agenda.full_look_due(course.now)
        course.look()
        assert course.agenda.wait(course.now) > 0.0, "what is due has been looked at"


def test_what_never_comes_to_rest_is_looked_at_all_the_same() -> None:
    agenda = Agenda(("a",), 0.0)
    agenda.due(("a",), 0.0)
    agenda.looked("a", 0.0, helped=False, soon=False)
    seen = []
    for tick in range(1, 300):
        agenda.stirred("a", float(tick))
        if agenda.due(("a",), float(tick)):
            seen.append(tick)
            agenda.looked("a", float(tick), helped=False, soon=False)
    assert len(seen) >= 4
