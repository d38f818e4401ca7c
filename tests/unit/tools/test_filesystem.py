from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drbd_offsite.observed import Mount
from drbd_offsite.tools import filesystem

DATA = Path(__file__).parents[2] / "data"
DEVICE = "/dev/drbd/by-res/test_a/0"
UNIT = "drbd-offsite@test_a.service"


def test_escapes_in_mountinfo_are_undone() -> None:
    mounts = filesystem.parse_mountinfo((DATA / "mountinfo/escapes.txt").read_text())
    assert mounts[0] == Mount((254, 0), "/", "ext4", "/dev/vda")
    assert [m.target for m in mounts if m.devno == (7, 0)] == ["/tmp/h3/mnt/ext", "/tmp/h3/mnt/back\\slash"]
    assert Mount((0, 39), "/tmp/h3/mnt/two words", "tmpfs", "my tmpfs") in mounts


@pytest.mark.parametrize(
    ("name", "devno", "source"),
    [("busy-server", (253, 0), "/dev/mapper/local-test_a"), ("replicating-server", (147, 0), "/dev/drbd0")],
)
def test_a_mount_of_a_real_machine_is_found_by_its_device_number(
    name: str, devno: tuple[int, int], source: str
) -> None:
    mounts = filesystem.parse_mountinfo((DATA / f"mountinfo/{name}.txt").read_text())
    assert [m for m in mounts if m.devno == devno] == [Mount(devno, "/mnt", "ext4", source)]


def test_optional_fields_of_mountinfo_are_passed_over() -> None:
    # proc(5) has this line as its example; a dash may also be a field before the separator's place
    text = "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 propagate_from:2 - ext3 /dev/root rw,errors=continue\n"
    assert filesystem.parse_mountinfo(text) == (Mount((98, 0), "/mnt2", "ext3", "/dev/root"),)
    assert filesystem.parse_mountinfo("nonsense\n\n") == ()


def test_an_identity_is_read_as_it_is_and_not_as_blkid_escapes_it() -> None:
    strange = filesystem.parse_identity((DATA / "blkid/ext4-strange-label.txt").read_text())
    assert strange["LABEL"] == "my disk$"
    assert strange["TYPE"] == "ext4"
    usual = filesystem.parse_identity((DATA / "blkid/ext4.txt").read_text())
    assert (usual["LABEL"], usual["UUID"]) == ("test_a", "09f4963e-76c1-429d-82cd-3ceac9ddd9eb")
    assert filesystem.parse_identity((DATA / "blkid/swap.txt").read_text())["TYPE"] == "swap"
    assert filesystem.parse_identity((DATA / "blkid/nothing.txt").read_text()) == {}


FSTAB = """\
# /etc/fstab: static file system information.
UUID=0f0f  /               ext4    errors=remount-ro 0       1

LABEL=test_a	/srv/a	ext4	defaults,noatime	0	2   \n\
/dev/local/test_b /srv/b xfs
UUID="1234" /srv/two\\040words ext4 defaults 0 0
#LABEL=test_a /old ext4 defaults 0 0
tmpfs /tmp tmpfs nodev
no last newline"""


@pytest.mark.parametrize(
    ("source", "targets"),
    [
        ("LABEL=test_a", ("/srv/a",)),
        ("/dev/local/test_b", ("/srv/b",)),
        ('UUID="1234"', ("/srv/two words",)),
        ("UUID=none", ()),
    ],
)
def test_fstab_is_searched_for_where_it_mounts_a_volume(source: str, targets: tuple[str, ...]) -> None:
    assert filesystem.fstab_targets(FSTAB, frozenset({source})) == targets


@pytest.mark.parametrize(
    "written",
    ["/dev/local/test_a", "/dev/mapper/local-test_a", "UUID=09f4963e-76c1-429d-82cd-3ceac9ddd9eb", "LABEL=test_a",
     'LABEL="test_a"', "/dev/disk/by-label/test_a", "/dev/disk/by-uuid/09f4963e-76c1-429d-82cd-3ceac9ddd9eb"],
)  # fmt: skip
def test_fstab_may_name_a_volume_in_any_way(written: str) -> None:
    identity = filesystem.parse_identity((DATA / "blkid/ext4.txt").read_text())
    sources = filesystem.fstab_sources(("/dev/local/test_a", "/dev/mapper/local-test_a"), identity)
    assert filesystem.fstab_targets(f"{written} /srv/a ext4 defaults 0 0\n", sources) == ("/srv/a",)


def test_fstab_may_name_a_label_with_escapes() -> None:
    identity = filesystem.parse_identity((DATA / "blkid/ext4-strange-label.txt").read_text())
    sources = filesystem.fstab_sources((), identity)
    assert filesystem.fstab_targets("LABEL=my\\040disk$ /srv/a ext4 defaults 0 0\n", sources) == ("/srv/a",)


def test_a_moved_line_waits_for_our_unit_and_lets_the_machine_boot_without_it() -> None:
    moved = filesystem.fstab_moved(FSTAB, frozenset({"LABEL=test_a"}), DEVICE, UNIT)
    (line,) = [line for line in moved.splitlines() if line.startswith(DEVICE)]
    source, target, kind, options, *rest = line.split()
    assert (source, target, kind, rest) == (DEVICE, "/srv/a", "ext4", ["0", "2"])
    assert set(options.split(",")) == {"noatime", "nofail", f"x-systemd.requires={UNIT}"}


def test_moving_leaves_every_other_line_as_it_was() -> None:
    moved = filesystem.fstab_moved(FSTAB, frozenset({"LABEL=test_a"}), DEVICE, UNIT).splitlines(keepends=True)
    for before, after in zip(FSTAB.splitlines(keepends=True), moved, strict=True):
        assert before == after or before.startswith("LABEL=test_a")


def test_a_short_line_gets_the_fields_that_it_lacks() -> None:
    moved = filesystem.fstab_moved(FSTAB, frozenset({"/dev/local/test_b"}), DEVICE, UNIT)
    assert f"{DEVICE} /srv/b xfs nofail,x-systemd.requires={UNIT} 0 2\n" in moved


SOURCES = st.sampled_from(["LABEL=test_a", "UUID=1", "/dev/local/test_a", "tmpfs", "#LABEL=test_a"])
LINES = st.builds(
    lambda *words: "\t".join(words),
    SOURCES,
    st.sampled_from(["/srv/a", "/", "none"]),
    st.sampled_from(["ext4", "swap"]),
    st.sampled_from(["defaults", "nofail", "ro,noatime", "x-systemd.requires=other.service"]),
)


@given(st.lists(LINES | st.text(max_size=10), max_size=6).map("\n".join))
def test_moving_twice_is_moving_once_and_loses_no_mount(text: str) -> None:
    sources = frozenset({"LABEL=test_a", "/dev/local/test_a"})
    moved = filesystem.fstab_moved(text, sources, DEVICE, UNIT)
    assert filesystem.fstab_moved(moved, sources, DEVICE, UNIT) == moved
    assert filesystem.fstab_targets(moved, sources) == ()
    assert filesystem.fstab_targets(moved, frozenset({DEVICE})) == filesystem.fstab_targets(text, sources)


def test_argv() -> None:
    assert filesystem.identity("/dev/local/test_a")[-1] == "/dev/local/test_a"
    assert "--probe" in filesystem.identity("/dev/x"), "blkid's cache may be older than the volume"
    assert filesystem.mount("/dev/drbd0", "/mnt") == ("mount", "/dev/drbd0", "/mnt")
    assert filesystem.mount_from_fstab("/mnt") == ("mount", "/mnt")
    assert filesystem.unmount("/mnt") == ("umount", "/mnt")
