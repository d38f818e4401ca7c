from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drbd_offsite.errors import ExitCode, Refused
from drbd_offsite.model import Flavour, VolumeName
from drbd_offsite.observed import Host, VolumeGroup
from drbd_offsite.plan import guards
from drbd_offsite.plan.task import Task
from drbd_offsite.tools.drbd import JUST_CREATED, Identifiers

from .. import make

DATA = VolumeName("local", "test_a")
EMPTY = make.site(resources=())


def said(refusal: Refused | None) -> str:
    """The refusal's text; every refusal has a way on."""
    assert refusal is not None
    assert refusal.hint
    assert refusal.exit_code is ExitCode.REFUSED
    return refusal.message


def test_enforce_raises_what_a_guard_returned() -> None:
    guards.enforce(None)
    with pytest.raises(Refused, match="no"):
        guards.enforce(Refused("no", "but"))


def test_a_verb_of_the_other_machine_is_refused_by_name() -> None:
    assert guards.flavour(make.site(), Flavour.SERVER, "add") is None
    assert (
        said(guards.flavour(make.site(), Flavour.BACKUP, "join"))
        == "join is for the backup; this machine is the server."
    )


@pytest.mark.parametrize("version", ["8.4.0", "8.4.7", "8.4.11", "8.4.11-1", "9.0.32", "9.2.8", "9.3.0-rc.1"])
def test_drbd_modules_that_are_known(version: str) -> None:
    assert guards.drbd_version(version) is None


@pytest.mark.parametrize(
    "version",
    ["0.7.25", "8.0.16", "8.3.16", "10", "10.0.1", "84.0", "unknown", "x y", "-", "1:8.4", "(api:1/proto:86-101)"],
)
def test_drbd_modules_that_are_not(version: str) -> None:
    assert version in said(guards.drbd_version(version))


def test_no_module_at_all_says_which_kernel_has_one() -> None:
    refusal = guards.drbd_version("")
    assert "no DRBD module" in said(refusal)
    assert "linux-image-amd64" in refusal.hint


@given(st.text(max_size=20))
def test_any_version_is_known_or_refused(version: str) -> None:
    assert guards.drbd_version(version) is None or said(guards.drbd_version(version))


def test_a_plain_volume_can_be_adopted() -> None:
    assert guards.adoptable(EMPTY, make.host(), DATA, "test_a") is None


@pytest.mark.parametrize(
    ("site", "host", "volume", "name", "reason"),
    [
        (make.site(), make.host(), DATA, "other", "replicated already, as test_a"),
        (EMPTY, make.host(), DATA, "a/b", "cannot be a resource's name"),
        (EMPTY, make.host(), DATA, "-a", "cannot be a resource's name"),
        (EMPTY, make.host(drbd=[make.seen("foreign")]), DATA, "foreign", "There is a resource foreign already"),
        (EMPTY, make.host(), VolumeName("local", "nothing"), "n", "no volume local/nothing"),
        (EMPTY, make.host(), VolumeName("nowhere", "x"), "n", "no volume group nowhere"),
        (EMPTY, make.host(volumes=[make.volume(active=False)]), DATA, "n", "not active"),
        (EMPTY, make.host(volumes=[make.volume(devno=None)]), DATA, "n", "not active"),
    ],
)
def test_what_cannot_be_adopted(site: object, host: Host, volume: VolumeName, name: str, reason: str) -> None:
    assert reason in said(guards.adoptable(site, host, volume, name))


FREE, OPEN = make.volume(), make.volume(open=True)


@pytest.mark.parametrize(
    ("volume", "mounted", "listed", "remount", "reason"),
    [
        (FREE, [], [], False, ""),
        (FREE, [], [], True, ""),
        (FREE, [], ["/srv/a"], False, "/etc/fstab mounts"),
        (FREE, [], ["/srv/a"], True, ""),
        (OPEN, ["/srv/a", "/mnt"], ["/srv/a"], False, "mounted at /srv/a, /mnt"),
        (OPEN, ["/srv/a"], [], True, ""),
        (OPEN, [], [], False, "in use by something else"),
        (OPEN, [], [], True, "in use by something else"),
        (OPEN, [], ["/srv/a"], True, "in use by something else"),
    ],
)
def test_a_volume_in_use_is_refused_with_who_has_to_let_go(
    volume: object, mounted: list[str], listed: list[str], remount: bool, reason: str
) -> None:
    refusal = guards.free_to_take(volume, mounted, listed, remount)
    assert (refusal is None) if not reason else reason in said(refusal)


def test_metadata_that_somebody_may_need_are_shown_and_not_overwritten() -> None:
    used, fresh = Identifiers(0x1234, 0, ()), Identifiers(JUST_CREATED, 0, ())
    refusal = guards.metadata_unowned("local/drbd_meta[0]", used, overwrite=False)
    assert "local/drbd_meta[0]" in said(refusal)
    assert "0000000000001234" in refusal.message
    assert "--overwrite-metadata" in refusal.hint
    assert guards.metadata_unowned("x", used, overwrite=True) is None
    assert guards.metadata_unowned("x", fresh, overwrite=False) is None
    assert guards.metadata_unowned("x", None, overwrite=False) is None


def group(free: int) -> Host:
    return make.host(groups={"local": VolumeGroup("local", 100 * make.GIB, free, 4 * make.MIB)})


TASK = Task("new", "backup", make.GIB, make.replica(1, "new"))


@pytest.mark.parametrize(
    ("free", "with_volume", "needed"),
    [
        (128 * make.MIB, False, ""),
        (127 * make.MIB, False, "128 MiB"),
        (128 * make.MIB + make.GIB, True, ""),
        (127 * make.MIB + make.GIB, True, "1,152 MiB"),
        (0, False, "128 MiB"),
    ],
)
def test_room_for_metadata_and_copy(free: int, with_volume: bool, needed: str) -> None:
    refusal = guards.room(group(free), TASK, with_volume)
    assert (refusal is None) if not needed else f"{needed} are needed" in said(refusal)


def test_metadata_that_fit_need_no_room() -> None:
    first = replace(TASK, here=make.replica(0, "new"))
    assert guards.room(group(0), first, with_volume=False) is None


def test_room_is_counted_in_whole_extents() -> None:
    odd = replace(TASK, size_bytes=make.GIB + 1)
    assert guards.room(group(128 * make.MIB + make.GIB), odd, with_volume=True)
    assert guards.room(group(132 * make.MIB + make.GIB), odd, with_volume=True) is None


def test_a_group_that_is_missing_is_named() -> None:
    assert "no volume group local on server" in said(guards.room(make.host(groups={}), TASK, with_volume=False))


def test_a_volume_on_the_backup_that_may_be_somebody_s_data_is_not_overwritten() -> None:
    assert "exists already" in said(guards.copy_is_new(make.host(Flavour.BACKUP), DATA))
    assert guards.copy_is_new(make.host(Flavour.BACKUP), VolumeName("local", "new")) is None
