from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import given

from drbd_offsite.messages import Half
from drbd_offsite.model import Flavour, MetadataPlace, RestorePoint, Site, VolumeName
from drbd_offsite.observed import ConnectionState, DiskState, DrbdResource, VolumeGroup
from drbd_offsite.plan import restore_point
from drbd_offsite.plan.diagnosis import Finding, Severity
from drbd_offsite.plan.examine_resources import (
    MOST_SLOTS,
    free_minor,
    lvm_reads,
    restore_points,
    running,
    unowned,
    unowned_slots,
)
from drbd_offsite.tools import drbd
from drbd_offsite.tools.drbd import JUST_CREATED, Adjustment, Identifiers
from drbd_offsite.tools.lvm_filter import Settings

from .. import golden, make
from .test_circle import hosts

DATA = Path(__file__).parents[2] / "data/drbdadm"
BOTH = golden.site(Flavour.SERVER)


def adjustments(state: str) -> tuple[Adjustment, ...]:
    return drbd.parse_adjustments((DATA / f"adjust-{state}.txt").read_text().splitlines())


def differences(state: str, *seen: DrbdResource, site: Site = BOTH) -> Iterator[Finding]:
    return running(site, make.host(drbd=seen), adjustments(state))


# -- what runs -------------------------------------------------------------------------------------


def test_options_and_addresses_that_differ_are_named_with_their_resource() -> None:
    test_a, large = differences("differs", make.seen("test_a"), make.seen("large", minor=1))
    assert test_a.what == "test_a runs with other disk options and other network options than its file says."
    assert "drbdadm adjust test_a" in test_a.remedy
    assert "goes on" in test_a.remedy
    assert large.what == "large runs with other disk options and other addresses than its file says."
    assert "drbdadm adjust large breaks the connection" in large.remedy
    assert {test_a.severity, large.severity} == {Severity.WARNING}


def test_another_volume_or_minor_needs_the_resource_to_be_stopped() -> None:
    site = replace(BOTH, resources=dict(BOTH.resources))
    large = BOTH.resources["large"]
    site.resources["large"] = replace(large, here=replace(large.here, minor=5))
    found = list(differences("moved", make.seen("test_a"), make.seen("large", minor=1), site=site))
    assert [finding.what.split(" runs with ")[1] for finding in found] == [
        "another volume or metadata place than its file says.",
        "another minor than its file says.",
    ]
    place, minor = found
    assert place.remedy.startswith("Find out which of the two is right before you take it down or restart")
    assert "drbdadm create-md test_a" in place.remedy, "what is on another volume, its metadata do not know"
    assert "drbd-offsite render" in place.remedy
    assert minor.remedy.startswith("If drbdsetup show large has the volume and the metadata place of its file")


def test_a_resource_with_both_another_minor_and_another_place_gets_the_careful_remedy() -> None:
    """A minor that is new alone would be put right by down and up."""
    both = (Adjustment("detach", "0"), Adjustment("new-minor", "test_a"))
    (finding,) = running(BOTH, make.host(drbd=[make.seen("test_a")]), both)
    assert finding.remedy.startswith("Find out which")


@pytest.mark.parametrize("state", [None, ConnectionState.STANDALONE])
def test_what_is_down_detached_or_disconnected_does_not_differ(state: ConnectionState | None) -> None:
    """status says that, and there may be a hold behind it."""
    assert not list(differences("down"))
    apart = make.seen(disk=DiskState.DISKLESS, state=state)
    assert not list(differences("apart", apart, replace(apart, name="large", volumes=())))


def test_a_resource_that_is_not_ours_is_not_told_of() -> None:
    theirs = (Adjustment("disk-options", "7"), Adjustment("net-options", "ipv4:10.0.0.1:7789"))
    assert not list(running(BOTH, make.host(drbd=[make.well(Flavour.SERVER)]), theirs))


# -- room for restore points -----------------------------------------------------------------------


def room(free_bytes: int, flavour: Flavour = Flavour.BACKUP, **changes: object) -> list[Finding]:
    group = VolumeGroup("local", 100 * make.GIB, free_bytes, 4 * make.MIB)
    volumes = [make.volume(**changes), make.volume("drbd_meta", 128 * make.MIB, 1)]
    return list(restore_points(make.site(flavour), make.host(flavour, volumes=volumes, groups={"local": group})))


def test_a_group_without_room_for_a_restore_point_is_a_warning() -> None:
    (finding,) = room(64 * make.MIB)
    assert finding.severity is Severity.WARNING
    assert "test_a" in finding.what
    assert "64 MiB free" in finding.what
    assert "no usable copy" in finding.what
    assert "vgextend local" in finding.remedy


def test_room_for_a_tenth_is_enough() -> None:
    assert room(128 * make.MIB) == []


def test_thin_volumes_and_the_server_need_no_room() -> None:
    assert room(0, pool="pool") == []
    assert room(0, Flavour.SERVER) == []


def test_a_restore_point_that_is_there_makes_room_for_the_next_one() -> None:
    old = make.volume("test_a_restore_point", 128 * make.MIB, 2, tags=frozenset({restore_point.TAG}))
    group = VolumeGroup("local", 100 * make.GIB, 0, 4 * make.MIB)
    host = make.host(Flavour.BACKUP, volumes=[make.volume(), old], groups={"local": group})
    assert not list(restore_points(make.site(Flavour.BACKUP), host))


@pytest.mark.parametrize(
    ("policy", "words"),
    [(RestorePoint.REQUIRE, ["refused"]), (RestorePoint.PREFER, ["no usable copy"]), (RestorePoint.NEVER, [])],
)
def test_what_it_means_depends_on_the_policy(policy: RestorePoint, words: list[str]) -> None:
    host = make.host(Flavour.BACKUP, groups={"local": VolumeGroup("local", make.GIB, 0, 4 * make.MIB)})
    found = list(restore_points(make.site(Flavour.BACKUP, resync_snapshot=policy), host))
    assert len(found) == len(words)
    assert all(word in finding.what for finding, word in zip(found, words, strict=True))


# -- metadata that nobody owns ---------------------------------------------------------------------


def pool(slots: int, **changes: object) -> list[object]:
    return [make.volume(), make.volume("drbd_meta", slots * 128 * make.MIB + 4 * make.MIB, 1, **changes)]


def indices(places: tuple[MetadataPlace, ...]) -> list[int | None]:
    assert all(place.volume == VolumeName("local", "drbd_meta") for place in places)
    return [place.index for place in places]


def test_slots_of_no_resource_and_no_operation_are_unowned() -> None:
    operation = make.operation("add", {"here": asdict(Half.of(make.replica(2)))}, "test_b")
    other = make.operation("join", {}, "server")
    host = make.host(volumes=pool(4), operations={o.key: o for o in (operation, other)})
    assert indices(unowned_slots(make.site(), host)) == [1, 3]


def test_only_so_many_are_looked_at() -> None:
    assert indices(unowned_slots(make.site(), make.host(volumes=pool(1000)))) == list(range(1, MOST_SLOTS + 1))


@pytest.mark.parametrize(
    "host",
    [
        make.host(volumes=[make.volume()]),
        make.host(volumes=pool(4, active=False)),
        make.host(volumes=pool(4), blind=True),
        make.host(volumes=pool(4), drbd=[make.seen("made_by_hand", minor=9)]),
    ],
    ids=["no pool", "not active", "blind", "a stranger"],
)
def test_where_it_cannot_be_known_none_is_called_unowned(host: object) -> None:
    assert unowned_slots(make.site(), host) == ()


def test_a_volume_that_is_one_resource_s_metadata_has_no_slots_that_nobody_owns() -> None:
    """Its beginning would be taken for slot 0: live metadata, with a remedy that wipes them."""
    resource = make.resource()
    place = MetadataPlace(VolumeName("local", "drbd_meta"), None)
    site = make.site(resources={"test_a": replace(resource, here=replace(resource.here, metadata=place))})
    assert unowned_slots(site, make.host(volumes=pool(4))) == ()


def test_metadata_that_nobody_owns_are_a_note_and_not_to_be_wiped_lightly() -> None:
    host = make.host(volumes=pool(4), drbd=[make.well(Flavour.SERVER)])
    used, fresh = (MetadataPlace(VolumeName("local", "drbd_meta"), index) for index in (1, 3))
    held = {used: Identifiers(0x5F7F17C0C8E5C6D9, 0, (0, 0)), fresh: Identifiers(JUST_CREATED, 0, (0, 0))}
    (finding,) = unowned(make.site(), host, held)
    assert finding.severity is Severity.NOTE
    assert "local/drbd_meta[1]" in finding.what
    assert "5F7F17C0C8E5C6D9" in finding.what
    assert "Only if no copy" in finding.remedy
    assert finding.remedy.endswith("drbdmeta 1 v08 /dev/local/drbd_meta 1 wipe-md")


def test_the_minor_for_drbdmeta_is_nobody_s() -> None:
    assert free_minor(make.site(resources=()), make.host()) == 0
    host = make.host(drbd=[make.seen("made_by_hand", minor=1)])
    assert free_minor(make.site(), host) == 2


# -- LVM -------------------------------------------------------------------------------------------


def test_the_line_that_keeps_lvm_away_from_drbd() -> None:
    (finding,) = lvm_reads(BOTH.resources.values(), Settings())
    assert finding.severity is Severity.NOTE
    assert 'global_filter = [ "r|^/dev/drbd|" ]' in finding.remedy


def test_one_device_that_is_read_is_enough() -> None:
    assert list(lvm_reads(BOTH.resources.values(), Settings(("r|^/dev/drbd0$|",))))
    assert not list(lvm_reads(BOTH.resources.values(), Settings(("r|^/dev/drbd|",))))
    assert not list(lvm_reads((), Settings()))


@given(hosts())
def test_every_state_can_be_examined(host: object) -> None:
    for site in (make.site(), make.site(Flavour.BACKUP)):
        found = [*running(site, host, adjustments("differs")), *restore_points(site, host)]
        assert all(finding.remedy for finding in found)
        assert len(unowned_slots(site, host)) <= MOST_SLOTS
