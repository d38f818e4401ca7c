"""What is looked at, when, and with how much room."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drbd_offsite.errors import Refused
from drbd_offsite.model import Flavour, RestorePoint, VolumeName
from drbd_offsite.observed import (
    ConnectionState,
    DiskState,
    DrbdResource,
    Host,
    LogicalVolume,
    ReplicationState,
    Role,
    VolumeGroup,
)
from drbd_offsite.plan import look, restore_point
from drbd_offsite.plan.look import Place, Source
from drbd_offsite.plan.restore_point import Storage
from drbd_offsite.tools import lvm
from drbd_offsite.tools.dmsetup import State

from .. import make

MIB, GIB = make.MIB, make.GIB
SITE = make.site(Flavour.BACKUP)
RESOURCE = SITE.resources["test_a"]
PLACE = Place.of("test_a", RESOURCE.here.volume)
EXTENT = 4 * MIB

KEPT = make.volume("test_a_restore_point", 100 * MIB, 2, tags=frozenset({restore_point.TAG}), origin="test_a")
FULL = replace(KEPT, data_percent=100.0)
SOMEBODY_S = replace(KEPT, tags=frozenset())


def seen(disk: DiskState = DiskState.UP_TO_DATE, **state: object) -> DrbdResource:
    return make.seen(role=Role.SECONDARY, disk=disk, **state)


def machine(drbd: DrbdResource | None, *volumes: LogicalVolume, **changes: object) -> Host:
    there = [make.volume(), make.volume("drbd_meta", 128 * MIB, 1), *volumes]
    return make.host(Flavour.BACKUP, [drbd] if drbd else [], there, **changes)


AWAY = {"state": ConnectionState.CONNECTING, "replication": ReplicationState.OFF, "peer_disk": DiskState.UNKNOWN}
ALONE = AWAY | {"state": ConnectionState.STANDALONE}
VERIFIED = {"replication": ReplicationState.VERIFY_TARGET}
BEHIND = {"replication": ReplicationState.BEHIND}
OVERWRITTEN = seen(DiskState.INCONSISTENT, replication=ReplicationState.SYNC_TARGET)
ABOUT_TO = seen(DiskState.OUTDATED, replication=ReplicationState.BITMAP_TARGET)


@pytest.mark.parametrize(
    "state",
    [
        seen(), seen(**AWAY), seen(DiskState.CONSISTENT, **ALONE), seen(DiskState.OUTDATED, **AWAY), seen(**VERIFIED),
        seen(**BEHIND), seen(state=None), replace(seen(), role=Role.PRIMARY),
    ],
)  # fmt: skip
def test_a_copy_that_is_whole_is_looked_at_whatever_the_line_does(state: DrbdResource) -> None:
    assert look.whole(state)
    assert look.source(machine(state), RESOURCE, restorable=False) is Source.COPY
    assert look.source(machine(state, KEPT), RESOURCE, restorable=True) is Source.COPY


@pytest.mark.parametrize("state", [OVERWRITTEN, ABOUT_TO, seen(DiskState.INCONSISTENT, **AWAY)])
def test_one_that_is_not_is_looked_at_in_its_restore_point(state: DrbdResource) -> None:
    assert not look.whole(state)
    assert look.source(machine(state, KEPT), RESOURCE, restorable=True) is Source.RESTORE_POINT


@pytest.mark.parametrize(
    ("kept", "restorable", "words"),
    [
        ((), False, "there is no restore point"),
        ((), True, "there is no restore point"),
        ((KEPT,), False, "there is no restore point"),
        ((SOMEBODY_S,), True, "there is no restore point"),
        ((FULL,), True, "has overflowed and keeps nothing"),
    ],
)
def test_without_one_there_is_nothing_to_look_at(kept: tuple[LogicalVolume, ...], restorable: bool, words: str) -> None:
    with pytest.raises(Refused, match=words) as refused:
        look.source(machine(OVERWRITTEN, *kept), RESOURCE, restorable=restorable)
    assert "nothing usable of it here" in refused.value.message
    assert "drbd-offsite status test_a" in refused.value.hint


@pytest.mark.parametrize("state", [None, seen(DiskState.DISKLESS), seen(DiskState.FAILED), seen(DiskState("New"))])
def test_a_copy_of_which_nothing_is_known_is_not_called_whole(state: DrbdResource | None) -> None:
    with pytest.raises(Refused, match="is not known"):
        look.source(machine(state, KEPT), RESOURCE, restorable=True)


def test_a_blind_host_says_why() -> None:
    with pytest.raises(Refused, match="cannot be seen: drbdsetup hangs"):
        look.source(machine(None, blind=True, problems=("drbdsetup hangs",)), RESOURCE, restorable=True)


def test_the_moment_before_a_restore_point_is_waited_out() -> None:
    assert look.unsettled(ABOUT_TO)
    assert not any(map(look.unsettled, (None, seen(), OVERWRITTEN, seen(**AWAY))))


# -- up to when it has what was written ----------------------------------------------------------------------

T1, T2 = "2026-01-01T12:01:00+00:00", "2026-01-01T12:02:00+00:00"


def test_a_copy_has_what_was_marked_and_one_that_has_taken_over_all() -> None:
    for found in (seen(), seen(**AWAY), seen(**BEHIND), OVERWRITTEN, None):
        assert look.as_of(replace(machine(found), complete={"test_a": T1}), RESOURCE, T2) == T1
        assert look.as_of(machine(found), RESOURCE, T2) == ""
    serves = replace(seen(**AWAY), role=Role.PRIMARY)
    assert look.as_of(replace(machine(serves), complete={"test_a": T1}), RESOURCE, T2) == T2


# -- the steps -------------------------------------------------------------------------------------------------


def storage(*volumes: LogicalVolume, free: int = 50 * GIB, size: int = GIB, pool: str = "") -> Storage:
    there = [make.volume(size=size, pool=pool), *volumes]
    return Storage({v.name: v for v in there}, {"local": VolumeGroup("local", 100 * GIB, free, EXTENT)})


def steps(there: Storage, what: Source = Source.COPY, policy: RestorePoint = RestorePoint.PREFER) -> list[str]:
    site = replace(SITE, resync_snapshot=policy)
    return [" ".join(step.argv) for step in look.take(site, there, RESOURCE, what)]


def test_a_thick_copy_gets_a_snapshot_with_room_for_a_tenth() -> None:
    (step,) = steps(storage())
    size = lvm.rounded(GIB // 10 + 16 * MIB, EXTENT)
    assert step.startswith("lvcreate")
    assert step.endswith(f"--yes --snapshot --size {size}b --addtag {look.TAG} --name test_a_look local/test_a")


@pytest.mark.parametrize("what", Source)
def test_of_what_is_thin_a_thin_one_is_made_and_made_active(what: Source) -> None:
    made, active = steps(storage(make.volume("pool", GIB, 3, data_percent=89.9), KEPT, pool="pool"), what)
    origin = "local/test_a" if what is Source.COPY else "local/test_a_restore_point"
    assert made.endswith(f"--snapshot --addtag {look.TAG} --name test_a_look {origin}")
    assert active.startswith("lvchange")
    assert active.endswith("--ignoreactivationskip local/test_a_look")


def test_a_full_pool_is_left_alone() -> None:
    with pytest.raises(Refused, match="90 % full"):
        steps(storage(make.volume("pool", GIB, 3, data_percent=90.0), pool="pool"))


def test_over_a_thick_restore_point_a_device_as_large_as_the_volume_is_laid() -> None:
    """lvs shows for KEPT the room that it has, and it reads as all of the volume."""
    room, laid = steps(storage(KEPT), Source.RESTORE_POINT)
    assert f"--addtag {look.TAG} --size {28 * MIB}b --name test_a_look_cow local" in room
    table = f"0 {GIB // 512} snapshot /dev/local/test_a_restore_point /dev/local/test_a_look_cow N 8"
    assert laid == f"dmsetup create drbd_offsite_look_test_a --table {table}"


@pytest.mark.parametrize("name", ["test_a_look", "test_a_look_cow"])
def test_somebody_s_volume_of_that_name_is_not_touched(name: str) -> None:
    with pytest.raises(Refused, match=f"There is a volume local/{name} already"):
        steps(storage(make.volume(name)))


def test_a_volume_that_lvm_does_not_know() -> None:
    with pytest.raises(Refused, match="LVM knows no volume local/test_a"):
        steps(Storage({}, {}))


# -- room ------------------------------------------------------------------------------------------------------

RESERVED = lvm.rounded(restore_point.least_bytes(GIB // 10), EXTENT)
LEAST = lvm.rounded(GIB // 100 + 16 * MIB, EXTENT)


def room(there: Storage, policy: RestorePoint = RestorePoint.PREFER) -> int:
    words = steps(there, policy=policy)[0].split()
    return int(words[words.index("--size") + 1].removesuffix("b"))


@pytest.mark.parametrize("policy", [RestorePoint.REQUIRE, RestorePoint.PREFER])
def test_what_a_restore_point_needs_is_left(policy: RestorePoint) -> None:
    assert room(storage(free=RESERVED + LEAST), policy) == LEAST
    with pytest.raises(Refused, match=r"of which \d+ MiB stay for restore points") as refused:
        room(storage(free=RESERVED + LEAST - EXTENT), policy)
    assert "vgextend local" in refused.value.hint


def test_where_none_is_ever_taken_nothing_is_left_for_it() -> None:
    assert room(storage(free=LEAST), RestorePoint.NEVER) == LEAST
    with pytest.raises(Refused, match="has 24 MiB free, and a look at local/test_a needs 28 MiB"):
        room(storage(free=LEAST - EXTENT), RestorePoint.NEVER)


def test_one_that_is_there_needs_no_more() -> None:
    assert room(storage(KEPT, free=LEAST)) == LEAST


def test_a_small_volume_s_snapshot_is_no_larger_than_is_of_use() -> None:
    assert room(storage(size=EXTENT)) <= lvm.rounded(restore_point.least_bytes(EXTENT), EXTENT)


@given(st.integers(1, 2**20), st.integers(0, 2**20), st.sampled_from(RestorePoint))
def test_a_look_never_takes_more_than_there_is_nor_what_is_left_for_others(
    extents: int, free_extents: int, policy: RestorePoint
) -> None:
    size, free = extents * EXTENT, free_extents * EXTENT
    there = storage(size=size, free=free)
    kept = 0 if policy is RestorePoint.NEVER else restore_point.least_bytes(size // 10)
    try:
        taken = room(there, policy)
    except Refused:
        assert free - kept < size // 100 + 20 * MIB + EXTENT
    else:
        assert taken % EXTENT == 0
        assert taken <= free - kept
        assert taken >= min(size // 100 + 16 * MIB, restore_point.least_bytes(size))


# -- overflows ---------------------------------------------------------------------------------------------------

TAKEN = make.volume("test_a_look", 100 * MIB, 4, tags=frozenset({look.TAG}), origin="test_a", data_percent=5.0)
THIN = replace(TAKEN, pool="pool", data_percent=100.0)


@pytest.mark.parametrize(
    ("there", "state", "words"),
    [
        (storage(TAKEN), None, ""),
        (storage(replace(TAKEN, data_percent=100.0)), None, "More was written meanwhile"),
        (storage(), None, "is gone"),
        (storage(KEPT), State.WELL, ""),
        (storage(KEPT), State.FULL, "More was written meanwhile"),
        (storage(KEPT), State.WIPED, "gave way"),
        (storage(FULL), State.WELL, "has overflowed meanwhile"),
        (storage(), State.WELL, "has overflowed meanwhile"),
        (storage(THIN, make.volume("pool", data_percent=99.0), pool="pool"), None, ""),
        (
            storage(THIN, make.volume("pool", data_percent=100.0), pool="pool"),
            None,
            "thin pool local/pool has overflow",
        ),
    ],
)
def test_what_was_read_counts_only_while_there_was_room(there: Storage, state: State | None, words: str) -> None:
    found = look.exhausted(there, PLACE, state)
    assert bool(found) == bool(words)
    assert words in found


def test_names() -> None:
    place = Place.of("a-b", VolumeName("v-g", "x"))
    assert (str(place.look), str(place.room), place.overlay) == (
        "v-g/x_look",
        "v-g/x_look_cow",
        "drbd_offsite_look_a-b",
    )
