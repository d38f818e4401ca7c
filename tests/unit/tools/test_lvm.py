import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drbd_offsite.model import VolumeName
from drbd_offsite.observed import LogicalVolume, VolumeGroup
from drbd_offsite.plan import restore_point
from drbd_offsite.tools import lvm

DATA = Path(__file__).parents[2] / "data/lvm"
MIB = 2**20


def report(name: str) -> tuple[dict[VolumeName, LogicalVolume], dict[str, VolumeGroup]]:
    return lvm.parse_report((DATA / f"{name}.json").read_text())


def test_a_group_without_a_volume_is_seen() -> None:
    volumes, groups = report("clean-backup")
    assert volumes == {}
    assert groups["local"].free_bytes == groups["local"].size_bytes > 0
    assert groups["local"].extent_bytes == 4 * MIB


def test_a_disk_that_is_in_no_group_yet_hides_nothing() -> None:
    """``pvcreate`` before ``vgextend``: LVM prints a report of its own for it, without a group."""
    assert report("orphan-pv-backup") == ({}, {})
    volumes, groups = report("orphan-pv-server")
    assert VolumeName("local", "test_a") in volumes
    assert "local" in groups


def test_a_machine_without_lvm() -> None:
    assert report("no-lvm-backup") == ({}, {})


def test_volumes_in_every_state() -> None:
    volumes, groups = report("busy-server")
    mounted = volumes[VolumeName("local", "test_a")]
    assert mounted.size_bytes == 256 * MIB
    assert mounted.active
    assert mounted.open
    assert mounted.devno is not None
    assert mounted.tags == {"a", "b"}
    asleep = volumes[VolumeName("local", "in-active+x")]
    assert not asleep.active
    assert not asleep.open
    assert asleep.devno is None
    assert set(groups) == {"local", "second-group"}


def test_volumes_that_drbd_holds_are_open() -> None:
    volumes, _ = report("replicating-server")
    assert volumes[VolumeName("local", "test_a")].open
    assert volumes[VolumeName("local", "drbd_meta")].open
    assert volumes[VolumeName("local", "drbd_meta")].size_bytes == 128 * MIB


SNAPSHOTS = sorted(DATA.glob("snapshots-*.json"))


@pytest.mark.parametrize("path", SNAPSHOTS, ids=[path.stem for path in SNAPSHOTS])
def test_snapshots_of_a_real_machine_say_whose_they_are_and_how_full(path: Path) -> None:
    volumes, _ = report(path.stem)
    kept, overflowed, thin, pool, of_thin = (
        volumes[VolumeName("local", name)] for name in ("kept", "overflowed", "thin", "pool", "thin_snapshot")
    )
    assert (kept.origin, kept.pool, overflowed.origin) == ("test_a", "", "test_a")
    assert kept.tags == {"a"}
    assert kept.data_percent is not None
    assert 0 < kept.data_percent < 100
    assert restore_point.overflowed(overflowed)
    assert not restore_point.overflowed(kept)
    assert (thin.origin, thin.pool, of_thin.origin, of_thin.pool) == ("", "pool", "thin", "pool")
    assert pool.pool == ""
    assert volumes[VolumeName("local", "test_a")].data_percent is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4) | st.sampled_from(["0", "-1", "active"]),
    lambda children: (
        st.lists(children, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["report", "vg", "lv", "vg_name", "vg_size", "vg_free", "vg_extent_size", "lv_name", "lv_tags"]
            ),
            children,
            max_size=5,
        )
    ),
    max_leaves=15,
)


@given(JSON.map(json.dumps) | st.text(max_size=30) | JSON.map(lambda value: json.dumps({"report": [value]})))
def test_any_text_is_a_report_or_a_value_error(text: str) -> None:
    try:
        volumes, groups = lvm.parse_report(text)
    except ValueError:
        return
    assert isinstance(volumes, dict)
    assert isinstance(groups, dict)


GROUP = {"vg_name": "x", "vg_size": "1", "vg_free": "1", "vg_extent_size": "1"}
VOLUME = {
    "lv_name": "a", "lv_size": "1", "lv_kernel_major": "1", "lv_kernel_minor": "1", "lv_active": "",
    "lv_device_open": "", "lv_tags": "", "origin": "", "pool_lv": "", "data_percent": "",
}  # fmt: skip


def test_a_report_in_its_smallest_form() -> None:
    volumes, groups = lvm.parse_report(json.dumps({"report": [{"vg": [GROUP], "lv": [VOLUME]}]}))
    assert list(groups) == ["x"]
    assert [str(volume) for volume in volumes] == ["x/a"]


def volume(**changes: str) -> LogicalVolume:
    volumes, _ = lvm.parse_report(json.dumps({"report": [{"vg": [GROUP], "lv": [VOLUME | changes]}]}))
    return volumes[VolumeName("x", "a")]


def test_a_snapshot_names_its_origin_and_says_how_full_it_is() -> None:
    plain = volume()
    assert (plain.origin, plain.pool, plain.data_percent) == ("", "", None)
    thick = volume(origin="test_a", data_percent="71.43", lv_tags=restore_point.TAG)
    assert (thick.origin, thick.pool, thick.data_percent) == ("test_a", "", 71.43)
    assert thick.tags == {restore_point.TAG}
    thin = volume(origin="test_a", pool_lv="pool", data_percent="0.00")
    assert (thin.origin, thin.pool, thin.data_percent) == ("test_a", "pool", 0.0)


@pytest.mark.parametrize(
    "report_",
    [
        [1],
        [None],
        ["x"],
        [{"vg": 1, "lv": []}],
        [{"vg": [1], "lv": []}],
        [{"vg": [{"vg_name": "x"}], "lv": []}],
        [{"vg": [GROUP | {"vg_size": None}], "lv": []}],
        [{"vg": [GROUP], "lv": [VOLUME | {"lv_tags": None}]}],
        [{"vg": [GROUP], "lv": [VOLUME | {"lv_kernel_major": ""}]}],
        [{"vg": [GROUP], "lv": [VOLUME | {"data_percent": "much"}]}],
        [{"vg": [GROUP], "lv": [{key: VOLUME[key] for key in VOLUME if key != "origin"}]}],
    ],
)
def test_what_lvm_never_prints_is_a_value_error(report_: object) -> None:
    with pytest.raises(ValueError, match=r".+"):
        lvm.parse_report(json.dumps({"report": report_}))


@given(st.integers(1, 2**60), st.sampled_from([2**n for n in range(10, 30)]))
def test_lvm_rounds_up_to_whole_extents(size: int, extent: int) -> None:
    rounded = lvm.rounded(size, extent)
    assert rounded % extent == 0
    assert size <= rounded < size + extent


def test_argv() -> None:
    volume = VolumeName("local", "test_a")
    create = lvm.create(volume, 1234)
    assert create[0] == "lvcreate"
    assert "--yes" in create, "nobody is there to answer"
    assert create[create.index("--size") + 1] == "1234b"
    assert create[-1] == "local"
    assert "--addtag" not in create
    tagged = lvm.create(volume, 1234, "tag")
    assert tagged[tagged.index("--addtag") + 1] == "tag"
    assert lvm.extend(volume, 99) == ("lvextend", *lvm.PAST_DRBD, "--size", "99b", "local/test_a")
    assert lvm.remove(volume) == ("lvremove", *lvm.PAST_DRBD, "--yes", "local/test_a")
    thick = lvm.snapshot(volume, VolumeName("local", "x"), "tag", 77)
    size = ("--size", "77b", "--addtag", "tag", "--name", "x", str(volume))
    assert thick == ("lvcreate", *lvm.PAST_DRBD, "--yes", "--snapshot", *size)
    thin = lvm.snapshot(volume, VolumeName("local", "x"), "tag", None)
    assert "--size" not in thin, "with a size it would be no thin one"
    assert {argv[0] for argv in (create, lvm.extend(volume, 1), lvm.remove(volume), thick)} <= lvm.CHANGES
    assert "--reportformat" in lvm.REPORT
    assert "b" in lvm.REPORT


@pytest.mark.parametrize(
    "argv",
    [
        lvm.REPORT,
        lvm.create(VolumeName("local", "a"), 1),
        lvm.snapshot(VolumeName("local", "a"), VolumeName("local", "b"), "tag", 1),
        lvm.remove(VolumeName("local", "a")),
        lvm.extend(VolumeName("local", "a"), 1),
    ],
    ids=lambda argv: argv[0],
)
def test_no_call_reads_a_drbd_device(argv: tuple[str, ...]) -> None:
    """A Primary's reads wait while before-resync-target runs; LVM in that handler would wait for itself."""
    assert argv[argv.index("--config") + 1] == 'devices/filter=["r|^/dev/drbd|"]'
