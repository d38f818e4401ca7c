"""What of fstab changes when its devices are taken over: nothing is mounted past DRBD, or not at all, at a boot."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drbd_offsite.model import VolumeName
from drbd_offsite.plan.adopt_fstab import Fstab, become
from drbd_offsite.plan.remove import device_names
from drbd_offsite.tools import filesystem, systemd
from drbd_offsite.tools.drbd_dump import Volume

from .. import make

RESOURCE = make.resource()
UNIT = "drbd-offsite@test_a.service"
BY_HAND = Volume(0, 0, "/dev/mapper/local-test_a", "/dev/local/drbd_meta[0]", "/dev/drbd_home")
IDENTITY = {"UUID": "09f4963e", "LABEL": "test_a"}
OURS = f"nofail,x-systemd.requires={UNIT}"


def of(text: str) -> Fstab:
    return become(text, {RESOURCE: BY_HAND}, {VolumeName("local", "test_a"): IDENTITY})


LINKS = ["/dev/drbd/by-res/test_a", "/dev/drbd/by-disk/mapper/local-test_a", "/dev/drbd_home"]
LASTING = ["/dev/drbd0", "/dev/drbd/by-res/test_a/0", "/dev/drbd/by-disk/local/test_a"]
PLAIN = ["/dev/local/test_a", "/dev/mapper/local-test_a", "UUID=09f4963e", "LABEL=test_a"]


@pytest.mark.parametrize("link", LINKS)
def test_a_link_that_only_the_old_file_gives_becomes_the_device_itself_which_either_has(link: str) -> None:
    line = f"{link}\t/srv/a\text4 noatime 0 2\n"
    became = of(line)
    assert became.renamed == f"{filesystem.WAS}{line}/dev/drbd0\t/srv/a\text4 noatime 0 2\n"
    assert became.ordered == f"{filesystem.WAS}{line}/dev/drbd0 /srv/a ext4 noatime,{OURS} 0 2\n"
    assert became.new == (f"/dev/drbd0 /srv/a ext4 noatime,{OURS} 0 2",)


@pytest.mark.parametrize("name", LASTING)
def test_a_name_that_lasts_is_kept_and_mounted_after_our_unit(name: str) -> None:
    became = of(f"{name} /srv/a ext4 defaults 0 2")
    assert became.renamed == f"{name} /srv/a ext4 defaults 0 2"
    assert became.ordered.splitlines()[1] == f"{name} /srv/a ext4 {OURS} 0 2"


@pytest.mark.parametrize("name", PLAIN)
def test_the_volume_itself_is_never_mounted_past_drbd_again(name: str) -> None:
    assert of(f"{name} /srv/a ext4 noauto 0 0\n").new == (f"/dev/drbd0 /srv/a ext4 noauto,{OURS} 0 0",)


@pytest.mark.parametrize("unit", ["drbd.service", "drbd@test_a.target", "drbd@test_a.service"])
def test_no_mount_has_drbd_utils_own_units_started_any_more(unit: str) -> None:
    options = f"x-systemd.requires={unit},noatime,x-systemd.requires=mine.service"
    (line,) = of(f"/dev/drbd0 /srv/a ext4 {options} 0 2\n").new
    assert line == f"/dev/drbd0 /srv/a ext4 noatime,x-systemd.requires=mine.service,{OURS} 0 2"


def test_each_resource_s_mounts_wait_for_its_own_unit() -> None:
    other = make.resource("test_b", 1)
    found = {RESOURCE: BY_HAND, other: replace(BY_HAND, minor=1, disk="/dev/local/test_b", device="/dev/drbd1")}
    became = become("/dev/drbd/by-res/test_b /b ext4\n/dev/drbd0 /a ext4\n", found, {})
    assert became.new == (
        f"/dev/drbd1 /b ext4 nofail,x-systemd.requires={systemd.resource_unit('test_b')} 0 2",
        f"/dev/drbd0 /a ext4 {OURS} 0 2",
    )


OTHERS = "# /dev/drbd/by-res/test_a /srv/a ext4\n\nUUID=1 / ext4 defaults 0 1\n/dev/drbd/by-res/test_ab /b ext4\nodd"


def test_other_lines_stay_as_they_are() -> None:
    assert of(OTHERS) == Fstab(OTHERS, OTHERS)


LINES = st.builds(
    " ".join,
    st.tuples(
        st.sampled_from([*LINKS, *LASTING, *PLAIN, "/dev/sda1", "#/dev/drbd0"]),
        st.sampled_from(["/a", "/b"]),
        st.just("ext4"),
        st.sampled_from(["defaults", "noauto,x-systemd.requires=drbd.service", OURS]),
        st.sampled_from(["0 2", "", "0 0 # ours"]),
    ),
)


@given(st.lists(LINES).map("\n".join))
def test_broken_off_anywhere_and_run_again_it_comes_to_the_same(text: str) -> None:
    became = of(text)
    assert of(became.renamed).ordered == became.ordered
    assert of(became.ordered).renamed == of(became.ordered).ordered == became.ordered


@given(st.lists(LINES).map("\n".join))
def test_a_removal_later_gives_the_volume_back_to_each_of_its_lines(text: str) -> None:
    restored = filesystem.fstab_restored(of(text).ordered, device_names(RESOURCE), "/dev/local/test_a", UNIT)
    assert not filesystem.fstab_targets(restored, frozenset({*LINKS, *LASTING}))
    assert not [line for line in restored.splitlines() if UNIT in line and not line.startswith("#")]
