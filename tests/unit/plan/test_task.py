import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drbd_offsite.model import MAX_INDEXED_BYTES, METADATA_SLOT_BYTES, Flavour, MetadataPlace, VolumeName
from drbd_offsite.plan.task import FIRST_PORT, Task, allocate, foreign, half_of, metadata_bytes, tagged
from drbd_offsite.tools import drbd_dump

from .. import make

NEW = VolumeName("local", "new")
TIB = 2**40


def named(*numbers: int) -> dict[str, object]:
    """Resources that have these minors, slots and ports (counted from the first)."""
    return {f"r{n}": make.resource(f"r{n}", n) for n in numbers}


def test_the_first_resource_gets_the_first_of_everything() -> None:
    first = allocate(make.site(resources=()), make.host(), NEW, make.GIB)
    assert (first.minor, str(first.metadata), first.port) == (0, "local/drbd_meta[0]", 7789)


@given(st.sets(st.integers(0, 30)))
def test_the_lowest_free_number_is_taken_and_a_freed_one_is_used_again(taken: set[int]) -> None:
    free = next(n for n in range(40) if n not in taken)
    new = allocate(make.site(resources=named(*taken)), make.host(), NEW, make.GIB)
    assert (new.minor, new.metadata.index, new.port) == (free, free, FIRST_PORT + free)


def test_what_an_unfinished_operation_has_decided_is_taken() -> None:
    under_way = make.operation("add", Task("other", "backup", make.GIB, make.replica(0, "other")).parameters(), "other")
    joining = make.operation("join", {"invitation": "x"}, "server")
    host = make.host(operations={o.key: o for o in (under_way, joining)})
    new = allocate(make.site(resources=()), host, NEW, make.GIB)
    assert (new.minor, new.metadata.index, new.port) == (1, 1, 7790)


def test_a_minor_that_somebody_else_s_resource_has_is_left_to_it() -> None:
    host = make.host(drbd=[make.seen("foreign", minor=0)])
    assert allocate(make.site(resources=()), host, NEW, make.GIB).minor == 1


BY_HAND = drbd_dump.Half("server", "ipv4", "10.89.33.1", 7790, (drbd_dump.Volume(0, 1, "/dev/local/b", "internal"),))


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ("internal", 1),
        ("/dev/sdb1[1]", 1),
        ("/dev/local/drbd_meta[1]", 2),
        ("/dev/mapper/local-drbd_meta[1]", 2),
        ("/dev/other/drbd_meta[1]", 1),
    ],
)
def test_what_drbd_s_own_files_give_to_others_is_left_to_them_even_while_they_are_down(
    metadata: str, expected: int
) -> None:
    """Two of the same, and drbdadm refuses every command for every resource: after a boot nothing would attach."""
    half = replace(BY_HAND, volumes=(replace(BY_HAND.volumes[0], metadata=metadata),))
    new = allocate(make.site(), make.host(), NEW, make.GIB, [half])
    assert (new.minor, new.metadata.index, new.port) == (2, expected, 7791)


@pytest.mark.parametrize(("hostname", "counts"), [("server", True), ("", True), ("server backup", True), ("x", False)])
def test_of_a_resource_made_by_hand_this_machine_s_half_counts(hostname: str, counts: bool) -> None:
    """The names of a floating and of a stacked one are as drbdadm dumps them."""
    halves = (replace(BY_HAND, hostname=hostname),)
    theirs, ours = (drbd_dump.DumpedResource(name, halves, {}, {}, "") for name in ("other", "test_a"))
    assert foreign(make.site(), make.host(), [theirs, ours]) == (list(halves) if counts else [])


@pytest.mark.parametrize("by_hand", [False, True])
def test_a_metadata_volume_without_slots_is_its_resource_s_alone(by_hand: bool) -> None:
    """Slot 0 of it would be where that resource's metadata begin."""
    whole = MetadataPlace(VolumeName("local", "drbd_meta"), None)
    site, others = make.site(resources=()), [replace(BY_HAND, volumes=(drbd_dump.Volume(0, 9, "", f"{whole}"),))]
    if not by_hand:
        resource = make.resource()
        site, others = (
            make.site(resources={"test_a": replace(resource, here=replace(resource.here, metadata=whole))}),
            [],
        )
    assert str(allocate(site, make.host(), NEW, make.GIB, others).metadata) == "local/new_drbd_meta"


def test_the_port_of_the_peer_service_is_left_to_it() -> None:
    assert allocate(make.site(resources=(), service_port=7789), make.host(), NEW, make.GIB).port == 7790


def test_slots_of_another_volume_do_not_count() -> None:
    elsewhere = make.resource()
    elsewhere = type(elsewhere)("r", "backup", make.replica(0, "r", group="other"), make.replica())
    new = allocate(make.site(resources={"r": elsewhere}), make.host(), NEW, make.GIB)
    assert new.metadata.index == 0
    assert new.minor == 1


@pytest.mark.parametrize(("size", "index"), [(1, 0), (MAX_INDEXED_BYTES, 0), (MAX_INDEXED_BYTES + 1, None)])
def test_a_volume_too_large_for_a_slot_gets_metadata_of_its_own(size: int, index: int | None) -> None:
    place = allocate(make.site(resources=()), make.host(), NEW, size).metadata
    assert place.index == index
    assert (place.volume == VolumeName("local", "new_drbd_meta")) is (index is None)


def test_a_volume_of_4_tib_does_not_fit_into_a_slot() -> None:
    """128 MiB hold a bit for each 4 KiB of 4 TiB, and then nothing else: DRBD would cut the volume off."""
    superblock, activity_log = 4096, 32 * 1024
    assert superblock + activity_log + MAX_INDEXED_BYTES // 4096 // 8 == METADATA_SLOT_BYTES
    assert MAX_INDEXED_BYTES < 4 * TIB


@given(st.integers(0, 9999))
def test_the_metadata_volume_reaches_to_the_end_of_the_slot(index: int) -> None:
    place = MetadataPlace(VolumeName("local", "drbd_meta"), index)
    assert metadata_bytes(place, make.GIB) == (index + 1) * 128 * make.MIB


@given(st.integers(MAX_INDEXED_BYTES, 2**50))
def test_metadata_without_an_index_have_room_for_bitmap_log_superblock_and_growth(size: int) -> None:
    room = metadata_bytes(MetadataPlace(VolumeName("local", "big"), None), size)
    assert room >= 2 * size // 4096 // 8 + 36 * 1024


def test_a_removal_under_way_still_has_its_numbers() -> None:
    here = {"volume": "local/other", "metadata": "local/drbd_meta[0]", "minor": 0, "port": 7789}
    host = make.host(operations={"remove-other": make.operation("remove", {"here": here}, "other")})
    assert allocate(make.site(resources=()), host, NEW, make.GIB).minor == 1


def test_the_half_of_an_operation_is_known_where_it_has_one() -> None:
    assert half_of(make.operation("add", Task("a", "backup", 1, make.replica(4)).parameters())) == make.replica(4)
    assert half_of(make.operation("join", {"invitation": "x"})) is None


def test_a_tag_chooses_ordinary_volumes_by_name() -> None:
    here = [
        make.volume("b", tags=frozenset({"offsite", "x"})),
        make.volume("a", tags=frozenset({"offsite"})),
        make.volume("thin", tags=frozenset({"offsite"}), pool="pool", data_percent=1.0),
        make.volume("other", tags=frozenset({"off"})),
        make.volume("snapshot", tags=frozenset({"offsite"}), origin="a", data_percent=1.0),
        make.volume("pool", tags=frozenset({"offsite"}), data_percent=0.0),
        make.volume("[hidden]", tags=frozenset({"offsite"})),
        make.volume("drbd_meta", tags=frozenset({"offsite"})),
        make.volume("a_drbd_meta", tags=frozenset({"offsite"})),
    ]
    own = make.resource("a")
    own = replace(own, here=replace(own.here, metadata=MetadataPlace(VolumeName("local", "a_drbd_meta"), None)))
    chosen = tagged(make.site(resources={"a": own}), make.host(volumes=here), "offsite")
    assert [volume.name for volume in chosen] == ["a", "b", "thin"]


TASKS = st.builds(
    Task,
    st.just("test_a"),
    st.just("backup"),
    st.integers(1, 2**60),
    st.integers(0, 99).map(make.replica),
    st.none() | st.integers(0, 99).map(make.replica),
    st.booleans(),
    st.booleans(),
    st.lists(st.text(max_size=5), max_size=2).map(tuple),
    st.frozensets(st.text(max_size=5), max_size=2),
    st.integers(-100, 100),
    st.booleans(),
)


@given(TASKS)
def test_a_task_comes_back_from_disk_as_it_was(task: Task) -> None:
    on_disk = json.loads(json.dumps(task.parameters()))
    assert Task.of(make.operation("add", on_disk)) == task


def test_a_task_of_an_earlier_version_has_no_priority() -> None:
    task = Task("test_a", "backup", make.GIB, make.replica())
    on_disk = {
        key: value for key, value in task.parameters().items() if key not in ("priority", "reordered", "copy_tag")
    }
    assert Task.of(make.operation("add", on_disk)) == task


def test_the_resource_is_known_once_both_halves_are() -> None:
    task = Task("test_a", "backup", make.GIB, make.replica())
    assert task.resource is None
    whole = Task("test_a", "backup", make.GIB, make.replica(), make.replica(3), priority=5)
    assert whole.resource is not None
    assert whole.resource.priority == 5
    assert whole.resource.there.minor == 3
    assert whole.resource.peer == Flavour.BACKUP
