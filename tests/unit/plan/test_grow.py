"""Enlarging a resource, killed after any step and begun again."""

from collections.abc import Callable
from dataclasses import asdict, replace

import pytest

from drbd_offsite import config
from drbd_offsite.errors import ExitCode, Refused
from drbd_offsite.messages import Half
from drbd_offsite.model import MAX_INDEXED_BYTES, Flavour, MetadataPlace, Replica, RestorePoint, VolumeName
from drbd_offsite.observed import DiskState, Host, ReplicationState, Role, VolumeGroup
from drbd_offsite.plan import grow, look, restore_point
from drbd_offsite.plan.actions import AskPeer, Run, describe
from drbd_offsite.plan.grow import Growth

from .. import make
from .machine import EXTENT, USED, Kernel, Machine
from .test_half import DATA, PARSED, POOL

SIZE = make.GIB + 8 * EXTENT
OWN = VolumeName("local", "test_a_drbd_meta")


@pytest.fixture(autouse=True)
def _read_each_text_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same few texts are read thousands of times here."""
    monkeypatch.setattr(config, "parse", PARSED)


def growing(**changes: object) -> Machine:
    """A server whose resource is mounted and replicated, and is to be enlarged."""
    at = Machine(
        Flavour.SERVER,
        make.operation("grow", asdict(Growth(SIZE, "+32M"))),
        make.CONFIG,
        Half.of(make.replica()),
        {DATA: make.GIB, POOL: 128 * make.MIB},
        precious=DATA,
        fstab="/dev/drbd/by-res/test_a/0 /srv/a ext4 nofail 0 2\n",
        mounts=[("/dev/drbd0", "/srv/a")],
        files={"/etc/drbd.d/0_test_a.res": ""},
        metadata=USED,
        synced=True,
        size=make.GIB,
        module=True,
        enabled=True,
        active=True,
        kernel=Kernel(0, attached=True, primary=True, connected=True),
        in_step=True,
        peer_bytes=make.GIB,
        fs_bytes=make.GIB,
    )
    return replace(at, **changes)


def metadata_of_its_own() -> Machine:
    """As large as they have to be for the volume, and no larger."""
    text = config.updated(make.CONFIG, {"resources.test_a.metadata": str(OWN)})
    return growing(config=text, volumes={DATA: make.GIB, OWN: EXTENT}, operation=to(2**40))


def to(size: int) -> object:
    return make.operation("grow", asdict(Growth(size, "1T")))


SCENES: dict[str, Callable[[], Machine]] = {
    "ext4": growing,
    "xfs": lambda: growing(fstype="xfs"),
    "nothing on it": lambda: growing(fstype="", mounts=[], fstab=""),
    "not mounted": lambda: growing(mounts=[], fstab=""),
    "metadata of its own": metadata_of_its_own,
    "the backup has the room already": lambda: growing(peer_bytes=2 * SIZE),
    "enlarged here by hand": lambda: growing(volumes={DATA: SIZE, POOL: 128 * make.MIB}),
}
scenes = pytest.mark.parametrize("scene", SCENES)


@scenes
def test_it_ends_with_the_new_size_everywhere(scene: str) -> None:
    end = SCENES[scene]()
    size = Growth.of(end.operation).size_bytes
    end.run_to_the_end()
    assert end.volumes[DATA] == end.size == size
    assert end.peer_bytes >= size
    assert end.fs_bytes == (size if end.mounts else make.GIB)
    assert end.kernel == growing().kernel, "it was in use all the time"
    assert end.next_step() is None


@scenes
def test_nothing_is_unmounted_demoted_or_disconnected(scene: str) -> None:
    at = SCENES[scene]()
    at.run_to_the_end()
    assert {line.split()[0] for line in at.log} <= {"lvextend", "drbdadm", "resize2fs", "xfs_growfs"}
    assert {line.split()[1] for line in at.log if line.startswith("drbdadm")} == {"resize"}


@scenes
def test_the_device_is_never_larger_than_what_is_below_it(scene: str) -> None:
    for step, at in SCENES[scene]().killed():
        assert at.fs_bytes <= at.size <= min(at.volumes[DATA], at.peer_bytes), step
        if OWN in at.volumes:
            assert at.volumes[OWN] >= at.size // 32768 + 36 * 1024, step


@scenes
def test_killed_after_any_step_it_ends_the_same(scene: str) -> None:
    whole = SCENES[scene]().at_the_end()
    for step, again in SCENES[scene]().killed():
        assert again.at_the_end().outcome() == whole.outcome(), step


@scenes
def test_a_power_cut_after_any_step_changes_nothing_in_the_end(scene: str) -> None:
    whole = SCENES[scene]().at_the_end()
    for step, again in SCENES[scene]().killed():
        again.power_cut()
        again.come_up()
        assert again.kernel is not None, "an unfinished grow keeps nothing from being served"
        assert again.kernel.primary, step
        assert again.at_the_end().outcome() == whole.outcome(), step


def test_a_size_whose_note_was_lost_is_given_to_the_filesystem_again() -> None:
    at = growing()
    at.run_to_the_end()
    at._note("filesystem_enlarged", False)
    assert [describe(action).split()[0] for action in at.run_to_the_end()] == ["resize2fs"]


def test_a_backup_that_left_stops_it_before_drbd_and_it_goes_on_when_it_is_back() -> None:
    at = growing(in_step=False)
    with pytest.raises(Refused, match="not served here with both copies up to date"):
        at.run_to_the_end()
    assert (at.volumes[DATA], at.size) == (SIZE, make.GIB), "a larger volume below a device that goes on as it was"
    at.in_step = True
    at.run_to_the_end()
    assert at.size == SIZE


def test_one_that_is_not_served_yet_is_not_taken_for_empty() -> None:
    """After a power cut: DRBD lets nobody read a Secondary, so nothing is found on it."""
    at = growing()
    while at.size < SIZE:
        at.do(at.next_step())
    at.power_cut()
    at.module, at.kernel = True, Kernel(0, attached=True)
    with pytest.raises(Refused, match="not served here, so a filesystem on it still has the old one") as raised:
        at.next_step()
    assert "drbd-offsite status test_a says why" in raised.value.hint
    at.come_up()
    at.run_to_the_end()
    assert at.fs_bytes == SIZE


def test_what_is_left_when_the_device_has_its_size_needs_no_backup() -> None:
    at = growing(volumes={DATA: SIZE, POOL: 128 * make.MIB}, size=SIZE, in_step=False)
    assert [describe(action).split()[0] for action in at.run_to_the_end()] == ["resize2fs"]


def test_the_backup_is_asked_first() -> None:
    first, *_ = growing().run_to_the_end()
    assert isinstance(first, AskPeer)
    assert (first.request.name, first.request.size_bytes, first.request.only_check) == ("test_a", SIZE, False)


def test_room_that_is_gone_when_it_goes_on_is_a_refusal() -> None:
    with pytest.raises(Refused, match="are needed"):
        growing(free=0).run_to_the_end()


def test_a_volume_that_is_gone_when_it_goes_on_is_a_refusal() -> None:
    at = growing()
    del at.volumes[POOL]
    with pytest.raises(Refused, match="no volume local/drbd_meta"):
        at.run_to_the_end()


# -- what it leaves --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fstype", "mounted", "words"),
    [
        ("ext4", True, ""),
        ("xfs", True, ""),
        ("ext4", False, "mount it, then: resize2fs /dev/drbd0"),
        ("xfs", False, "mount it, then: xfs_growfs MOUNTPOINT"),
        ("", False, "no filesystem on it"),
        ("swap", False, "no filesystem on it"),
        ("crypto_LUKS", False, "(crypto_LUKS) is not enlarged by itself"),
        ("vfat", True, "(vfat) is not enlarged by itself"),
    ],
)
def test_what_is_left_to_the_admin_is_said_with_its_command(fstype: str, mounted: bool, words: str) -> None:
    host = make.host(mounts=(make.mount((147, 0), "/srv/a"),) if mounted else ())
    left = grow.left_to_the_admin(host, make.resource(), fstype)
    assert words in left if words else left == ""


# -- refusals --------------------------------------------------------------------------------------


def said(refusal: Refused | None) -> str:
    assert refusal is not None
    assert refusal.hint
    assert refusal.exit_code is ExitCode.REFUSED
    return refusal.message


def test_one_that_is_served_and_replicated_can_be_enlarged() -> None:
    assert grow.in_step(make.site(), make.host(drbd=[make.seen()]), make.resource()) is None


@pytest.mark.parametrize(
    "seen",
    [
        [],
        [make.seen(state=None)],
        [make.seen(role=Role.SECONDARY)],
        [make.seen(disk=DiskState.INCONSISTENT)],
        [make.seen(peer_disk=DiskState.INCONSISTENT)],
        [make.seen(replication=ReplicationState.SYNC_SOURCE)],
        [make.seen(replication=ReplicationState.AHEAD, peer_disk=DiskState.CONSISTENT)],
    ],
    ids=["down", "not connected", "not served", "not up to date here", "nor there", "in a sync", "ahead"],
)
def test_one_that_is_not_in_step_is_not_enlarged(seen: list) -> None:
    assert "backup connected" in said(grow.in_step(make.site(), make.host(drbd=seen), make.resource()))


def group(free: int, *more: object) -> Host:
    volumes = [make.volume(), make.volume("drbd_meta", 128 * make.MIB, 1), *more]
    return make.host(Flavour.BACKUP, volumes=volumes, groups={"local": VolumeGroup("local", 2**60, free, EXTENT)})


HERE = make.replica()


@pytest.mark.parametrize(
    ("size", "free", "needed"),
    [(SIZE, SIZE - make.GIB, ""), (SIZE, SIZE - make.GIB - 1, "32 MiB"), (SIZE + 1, SIZE - make.GIB, "36 MiB")],
)
def test_a_group_that_lacks_room_is_named_with_what_is_needed(size: int, free: int, needed: str) -> None:
    refusal = grow.enough_room(group(free), HERE, size)
    assert (
        f"local on backup has {free / make.MIB:,.0f} MiB free; {needed} are needed" in said(refusal)
        if needed
        else (refusal is None)
    )


@pytest.mark.parametrize("gone", ["test_a", "drbd_meta"])
def test_a_volume_that_is_not_there_is_named_with_its_machine(gone: str) -> None:
    host = group(make.GIB)
    left = {name: volume for name, volume in host.volumes.items() if name.name != gone}
    refusal = grow.enough_room(replace(host, volumes=left), HERE, SIZE)
    assert f"no volume local/{gone} on backup" in said(refusal)


def test_a_slot_describes_no_more_than_4_tib() -> None:
    refusal = grow.enough_room(group(2**50), HERE, MAX_INDEXED_BYTES + 1)
    assert "at most 4 TiB" in said(refusal)
    assert "add" in refusal.hint
    assert grow.enough_room(group(2**50), HERE, MAX_INDEXED_BYTES) is None


def test_metadata_of_their_own_grow_with_the_volume_and_take_room_too() -> None:
    here = replace(HERE, metadata=MetadataPlace(OWN, None))
    host = group(2**40 - make.GIB, make.volume(OWN.name, EXTENT, 2))
    assert "are needed" in said(grow.enough_room(host, here, 2**40))
    with_room = replace(host, groups={"local": VolumeGroup("local", 2**60, 2**40, EXTENT)})
    assert grow.enough_room(with_room, here, 2**40) is None


def test_a_snapshot_is_in_the_way_of_its_origin_only() -> None:
    snapshot = make.volume("old", EXTENT, 2, origin="test_a")
    refusal = grow.enough_room(group(make.GIB, snapshot), HERE, SIZE)
    assert "local/old on backup is a snapshot of local/test_a" in said(refusal)
    assert "lvremove local/old" in refusal.hint
    assert grow.enough_room(group(make.GIB, snapshot), HERE, make.GIB) is None, "nothing has to be enlarged"
    thin = replace(snapshot, pool="pool")
    assert grow.enough_room(group(make.GIB, thin), HERE, SIZE) is None
    assert grow.enough_room(group(make.GIB, replace(snapshot, origin="other")), HERE, SIZE) is None
    own = replace(snapshot, name=restore_point.place(DATA))
    assert grow.enough_room(group(make.GIB, own), HERE, SIZE) is None, "it goes with the resync"
    looked = replace(snapshot, name=look.Place.of("test_a", DATA).look, tags=frozenset({look.TAG}))
    assert grow.enough_room(group(make.GIB, looked), HERE, SIZE) is None, "it goes with the drill"
    assert grow.undisturbed(group(make.GIB), HERE) is None
    assert grow.undisturbed(group(make.GIB, replace(looked, pool="pool")), HERE) is None
    refusal = grow.undisturbed(group(make.GIB, looked), HERE)
    assert "A drill goes on: it looks at local/test_a_look on backup" in said(refusal)


def test_a_thin_volume_takes_its_room_from_its_pool() -> None:
    host = group(0)
    volumes = {**host.volumes, DATA: replace(host.volumes[DATA], pool="pool")}
    assert grow.enough_room(replace(host, volumes=volumes), HERE, SIZE) is None


# -- the restore point -----------------------------------------------------------------------------

REQUIRED = make.site(Flavour.BACKUP, resync_snapshot=RestorePoint.REQUIRE)
MORE = 8 * EXTENT
KEPT = 13 * EXTENT
"""For a restore point before a resync of MORE: that, its table, and 16 MiB."""


def replicated(free: int, **changes: object) -> Host:
    return replace(group(free), drbd={"test_a": make.well(Flavour.BACKUP)}, **changes)


def test_a_backup_that_requires_restore_points_needs_room_for_one_too() -> None:
    """Or what is added is never sent: the handler says no, and the connection is dropped and held."""
    resource = REQUIRED.resources["test_a"]
    assert grow.restorable(REQUIRED, replicated(MORE + KEPT), resource, SIZE) is None
    refusal = grow.restorable(REQUIRED, replicated(MORE + KEPT - 1), resource, SIZE)
    assert "84 MiB are needed, with the restore point" in said(refusal)
    assert "vgextend local" in refusal.hint


def test_the_room_that_is_asked_for_is_what_the_restore_point_takes() -> None:
    left = restore_point.Storage({DATA: make.volume(size=SIZE)}, {"local": VolumeGroup("local", 2**60, KEPT, EXTENT)})
    place = restore_point.place(DATA)
    assert restore_point.take(left, DATA, place, DiskState.UP_TO_DATE, MORE)
    less = replace(left, groups={"local": VolumeGroup("local", 2**60, KEPT - EXTENT, EXTENT)})
    with pytest.raises(Refused, match="a restore point needs"):
        restore_point.take(less, DATA, place, DiskState.UP_TO_DATE, MORE)


@pytest.mark.parametrize("policy", [RestorePoint.PREFER, RestorePoint.NEVER])
def test_a_backup_that_goes_on_without_a_restore_point_needs_no_room_for_it(policy: RestorePoint) -> None:
    site = replace(REQUIRED, resync_snapshot=policy)
    assert grow.restorable(site, replicated(MORE), site.resources["test_a"], SIZE) is None


def test_a_volume_that_is_larger_than_its_device_has_what_is_added_yet_to_come() -> None:
    """Enlarged by an earlier request, or by hand."""
    volumes = {**group(0).volumes, DATA: make.volume(size=SIZE)}
    resource = REQUIRED.resources["test_a"]
    assert "are needed" in said(grow.restorable(REQUIRED, replicated(KEPT - 1, volumes=volumes), resource, SIZE))
    assert grow.restorable(REQUIRED, replicated(KEPT, volumes=volumes), resource, SIZE) is None
    assert grow.restorable(REQUIRED, replace(group(0), volumes=volumes), resource, SIZE) is None, "not seen: by volume"


def test_what_has_its_size_and_what_is_thin_needs_no_room_for_a_restore_point() -> None:
    resource = REQUIRED.resources["test_a"]
    assert grow.restorable(REQUIRED, replicated(0), resource, make.GIB) is None
    thin = {**group(0).volumes, DATA: make.volume(pool="pool")}
    assert grow.restorable(REQUIRED, replicated(0, volumes=thin), resource, SIZE) is None


def test_on_the_backup_each_step_leaves_the_next_one_to_do() -> None:
    """So a request that was interrupted needs no note."""
    here: Replica = replace(HERE, metadata=MetadataPlace(OWN, None))
    host = group(2**50, make.volume(OWN.name, EXTENT, 2))
    first, second = grow.enlarge(host, here, 2**40)
    assert isinstance(first, Run)
    assert first.argv[-1] == str(OWN), "the metadata first: they describe the volume"
    enlarged = {**host.volumes, OWN: make.volume(OWN.name, 2**30, 2)}
    assert list(grow.enlarge(replace(host, volumes=enlarged), here, 2**40)) == [second]
    enlarged[DATA] = make.volume(size=2**40)
    assert list(grow.enlarge(replace(host, volumes=enlarged), here, 2**40)) == []


def test_what_it_has_decided_comes_back_from_disk() -> None:
    growth = Growth(SIZE, "+32M", there_bytes=SIZE, filesystem_enlarged=True)
    assert Growth.of(make.operation("grow", asdict(growth))) == growth
