"""How large a restore point is, and when there is none."""

from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from drbd_offsite.errors import Refused
from drbd_offsite.model import VolumeName
from drbd_offsite.observed import DiskState, LogicalVolume, VolumeGroup
from drbd_offsite.plan.actions import Run
from drbd_offsite.plan.restore_point import (
    NEARLY_FULL_PERCENT,
    TAG,
    Storage,
    grow,
    overflowed,
    place,
    place_of_discarded,
    take,
    too_small,
)
from drbd_offsite.tools import lvm

from .. import make

MIB, GIB = make.MIB, make.GIB
EXTENT = 4 * MIB
VOLUME = VolumeName("local", "test_a")
SNAPSHOT = place(VOLUME)
UP = DiskState.UP_TO_DATE


def storage(*volumes: LogicalVolume, free: int = 50 * GIB, extent: int = EXTENT) -> Storage:
    return Storage({v.name: v for v in volumes}, {"local": VolumeGroup("local", 100 * GIB, free, extent)})


def old(size: int = 100 * MIB, **changes: object) -> LogicalVolume:
    return make.volume(SNAPSHOT.name, size, 7, **{"tags": frozenset({TAG}), "origin": "test_a"} | changes)


def before(found: Storage, behind: int = 100 * MIB, disk: DiskState = UP) -> list[tuple[str, ...]]:
    return [step.argv for step in take(found, VOLUME, SNAPSHOT, disk, behind)]


def size(argv: tuple[str, ...]) -> int:
    return int(argv[argv.index("--size") + 1].removesuffix("b"))


def test_a_snapshot_is_taken_under_a_name_and_with_a_tag_by_which_it_is_known() -> None:
    (argv,) = before(storage(make.volume()))
    assert argv[0] == "lvcreate"
    assert argv[argv.index("--name") + 1] == "test_a_restore_point"
    assert argv[argv.index("--addtag") + 1] == TAG
    assert argv[-1] == "local/test_a"


def test_it_has_room_for_what_is_behind_and_a_tenth_of_all() -> None:
    (argv,) = before(storage(make.volume(size=10 * GIB)), behind=GIB)
    assert GIB + GIB <= size(argv) <= 1.02 * (GIB + GIB)


def test_of_a_volume_that_is_all_behind_it_has_room_for_all_and_not_for_more() -> None:
    (argv,) = before(storage(make.volume(size=10 * GIB)), behind=10 * GIB)
    assert 10 * GIB <= size(argv) <= 1.01 * 10 * GIB + EXTENT + 16 * MIB


def test_in_a_group_with_little_room_it_takes_what_there_is() -> None:
    (argv,) = before(storage(make.volume(size=10 * GIB), free=1100 * MIB), behind=GIB)
    assert size(argv) == 1100 * MIB


def test_where_not_even_what_is_behind_has_room_it_is_refused_with_both_numbers() -> None:
    with pytest.raises(Refused, match=r"local has 1,000 MiB free, and a restore point needs 1,0\d\d MiB"):
        before(storage(make.volume(size=10 * GIB), free=1000 * MIB), behind=GIB)
    with pytest.raises(Refused):
        before(storage(make.volume(), free=0), behind=0)


def test_a_thin_volume_s_has_no_size_and_needs_no_room_in_the_group() -> None:
    (argv,) = before(storage(make.volume(pool="pool"), free=0), behind=GIB)
    assert "--size" not in argv
    assert argv[0] == "lvcreate"


def test_a_resync_that_was_interrupted_keeps_the_one_from_before_it() -> None:
    """The copy is half old and half new by then; a snapshot of that is of no use to anybody."""
    assert before(storage(make.volume(), old()), disk=DiskState.INCONSISTENT) == []
    assert before(storage(make.volume(), free=0), disk=DiskState.INCONSISTENT) == []


@pytest.mark.parametrize("disk", [DiskState.OUTDATED, DiskState.CONSISTENT, UP, DiskState("Frobnicating")])
def test_one_that_is_left_of_an_earlier_resync_makes_room_for_the_new_one(disk: DiskState) -> None:
    drop, create = before(storage(make.volume(), old(), free=0), behind=10 * MIB, disk=disk)
    assert drop == ("lvremove", *lvm.PAST_DRBD, "--yes", "local/test_a_restore_point")
    assert size(create) == 100 * MIB, "its own room is all there is"


def test_somebody_else_s_volume_of_that_name_is_left_alone() -> None:
    with pytest.raises(Refused, match="no restore point of drbd-offsite's"):
        before(storage(make.volume(), old(tags=frozenset({"mine"}))))


def test_a_volume_that_lvm_does_not_know_is_refused() -> None:
    with pytest.raises(Refused, match="LVM knows no volume local/test_a"):
        before(storage())


def test_what_is_given_up_is_kept_beside_the_restore_point() -> None:
    assert place_of_discarded(VOLUME) != place(VOLUME)
    (step,) = take(storage(make.volume(), old()), VOLUME, place_of_discarded(VOLUME), UP, 0)
    assert place_of_discarded(VOLUME).name in step.argv


@st.composite
def cases(draw: st.DrawFn) -> tuple[Storage, int]:
    extent = draw(st.sampled_from([MIB, EXTENT, 32 * MIB]))
    volume = draw(st.integers(1, 2**20)) * extent
    behind = draw(st.integers(0, volume))
    left = [old(draw(st.integers(1, 100)) * extent)] if draw(st.booleans()) else []
    free = draw(st.integers(0, 2 * volume // extent + 10)) * extent
    return storage(make.volume(size=volume), *left, free=free, extent=extent), behind


@example((storage(make.volume(size=GIB), free=2 * GIB), GIB))
@given(cases())
def test_it_is_never_smaller_than_what_is_behind_and_never_larger_than_what_is_free(case: tuple[Storage, int]) -> None:
    found, behind = case
    group = found.groups["local"]
    available = group.free_bytes + sum(v.size_bytes for v in found.volumes.values() if TAG in v.tags)
    try:
        *dropped, create = before(found, behind)
    except Refused:
        table = behind // 128 + 16 * MIB
        assert available < behind + table, "it is refused only for want of room"
        return
    assert behind < size(create) <= available
    assert size(create) % group.extent_bytes == 0
    assert len(dropped) == len(found.volumes) - 1


@given(cases(), st.sampled_from(list(DiskState)))
def test_nothing_but_our_own_snapshot_is_ever_removed(case: tuple[Storage, int], disk: DiskState) -> None:
    found, behind = case
    try:
        steps = before(found, behind, disk)
    except Refused:
        return
    assert {argv[0] for argv in steps} <= {"lvcreate", "lvremove"}
    assert all(argv[-1] == str(SNAPSHOT) for argv in steps if argv[0] == "lvremove")


# -- while the resync runs -----------------------------------------------------------------------------


def grown(percent: float | None, free: int = GIB, **changes: object) -> Run | None:
    snapshot = old(data_percent=percent, **changes)
    return grow(storage(make.volume(), snapshot, free=free), snapshot)


def test_one_that_fills_up_gets_half_its_size_again() -> None:
    step = grown(NEARLY_FULL_PERCENT)
    assert step
    assert step.argv == ("lvextend", *lvm.PAST_DRBD, "--size", f"{152 * MIB}b", "local/test_a_restore_point")


def test_it_gets_what_the_group_has_left_and_not_more() -> None:
    step = grown(99.9, free=8 * MIB)
    assert step
    assert size(step.argv) == 108 * MIB
    assert grown(99.9, free=0) is None


@pytest.mark.parametrize("percent", [None, 0.0, 69.9, 100.0])
def test_one_that_has_room_or_is_lost_is_left_as_it_is(percent: float | None) -> None:
    assert grown(percent) is None


def test_a_thin_one_grows_with_its_pool() -> None:
    assert grown(95.0, pool="pool") is None


@given(st.integers(1, 10**6), st.integers(1, 10**6), st.floats(NEARLY_FULL_PERCENT, 99.99))
def test_growing_never_asks_for_more_than_there_is(extents: int, free: int, percent: float) -> None:
    snapshot = old(extents * EXTENT, data_percent=percent)
    step = grow(storage(make.volume(), snapshot, free=free * EXTENT), snapshot)
    assert step is not None
    assert snapshot.size_bytes < size(step.argv) <= snapshot.size_bytes + free * EXTENT
    assert size(step.argv) % EXTENT == 0


@pytest.mark.parametrize(
    ("percent", "pool", "lost"), [(None, "", False), (99.99, "", False), (100.0, "", True), (100.0, "pool", False)]
)
def test_a_snapshot_that_is_full_is_worth_nothing_and_a_thin_one_never_fills(
    percent: float | None, pool: str, lost: bool
) -> None:
    assert overflowed(replace(old(), data_percent=percent, pool=pool)) is lost


# -- one that has not enough room for the rest -----------------------------------------------------------


@pytest.mark.parametrize(
    ("percent", "to_come", "small"),
    [(75.0, 10 * MIB, False), (75.0, 24 * MIB, False), (75.0, 30 * MIB, True), (99.99, 0, False), (99.99, MIB, True)],
)
def test_what_is_left_of_it_has_to_do_for_what_is_yet_to_be_overwritten(
    percent: float, to_come: int, small: bool
) -> None:
    assert too_small(replace(old(100 * MIB), data_percent=percent), to_come) is small


@pytest.mark.parametrize("percent", [None, 0.0, NEARLY_FULL_PERCENT - 0.1])
def test_as_long_as_it_has_room_nothing_is_foretold(percent: float | None) -> None:
    """What differs may be counted high while a resync begins."""
    assert not too_small(replace(old(), data_percent=percent), GIB)


def test_for_one_that_has_overflowed_it_is_too_late() -> None:
    assert not too_small(replace(old(), data_percent=100.0), GIB)


def test_a_thin_one_has_its_pool_s_room() -> None:
    assert not too_small(replace(old(), data_percent=95.0, pool="pool"), GIB)
