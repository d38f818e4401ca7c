from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drbd_offsite.observed import Mount
from drbd_offsite.tools import filesystem

DATA = Path(__file__).parents[2] / "data"
DEVICE = "/dev/drbd/by-res/test_a/0"
DEVICES = frozenset({DEVICE, "/dev/drbd0"})
PLAIN = "/dev/local/test_a"
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
    assert filesystem.parse_mountinfo(text) == (Mount((98, 0), "/mnt2", "ext3", "/dev/root", "/mnt1"),)
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
    (kept,) = [line for line in moved if line.startswith(filesystem.WAS)]
    ours = (kept, moved[moved.index(kept) + 1])
    others = [line for line in FSTAB.splitlines(keepends=True) if not line.startswith("LABEL=test_a")]
    assert [line for line in moved if line not in ours] == others
    assert kept.removeprefix(filesystem.WAS) in FSTAB.splitlines(keepends=True)


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


def test_what_was_moved_comes_back_byte_for_byte() -> None:
    sources = frozenset({"LABEL=test_a", "/dev/local/test_b", "UUID=1234"})
    moved = filesystem.fstab_moved(FSTAB, sources, DEVICE, UNIT)
    assert moved != FSTAB
    assert filesystem.fstab_restored(moved, DEVICES, PLAIN, UNIT) == FSTAB


def test_what_the_admin_wrote_around_a_moved_line_stays() -> None:
    moved = filesystem.fstab_moved("LABEL=test_a /srv/a ext4\n", frozenset({"LABEL=test_a"}), DEVICE, UNIT)
    edited = f"# first\n{moved}# last\ntmpfs /tmp tmpfs nodev\n"
    restored = filesystem.fstab_restored(edited, DEVICES, PLAIN, UNIT)
    assert restored == "# first\nLABEL=test_a /srv/a ext4\n# last\ntmpfs /tmp tmpfs nodev\n"


@pytest.mark.parametrize(
    ("written", "restored"),
    [
        (f"{DEVICE} /srv/a ext4 ro,nofail,x-systemd.requires={UNIT} 0 2", f"{PLAIN} /srv/a ext4 ro,nofail 0 2"),
        (f"/dev/drbd0\t/srv/a\text4\tx-systemd.requires={UNIT}\t0\t2", f"{PLAIN} /srv/a ext4 defaults 0 2"),
        (f"{DEVICE} /srv/a xfs", f"{PLAIN} /srv/a xfs defaults"),
        (f"  {DEVICE} /srv/a xfs ro", f"{PLAIN} /srv/a xfs ro"),
        (f"{DEVICE} /srv/two\\040words ext4 ro 0 0", f"{PLAIN} /srv/two\\040words ext4 ro 0 0"),
        (f"{DEVICE} none swap sw,x-systemd.requires=other.service 0 0",
         f"{PLAIN} none swap sw,x-systemd.requires=other.service 0 0"),
        ("/dev/drbd/by-res/test_b/0 /srv/b ext4 ro 0 0", "/dev/drbd/by-res/test_b/0 /srv/b ext4 ro 0 0"),
        (f"#{DEVICE} /srv/a ext4 ro 0 0", f"#{DEVICE} /srv/a ext4 ro 0 0"),
    ],
)  # fmt: skip
def test_a_line_for_the_device_that_somebody_wrote_by_hand_mounts_the_volume(written: str, restored: str) -> None:
    assert filesystem.fstab_restored(written + "\n", DEVICES, PLAIN, UNIT) == restored + "\n"


@pytest.mark.parametrize(
    ("written", "restored"),
    [
        (f"UUID=1234 /srv/a ext4 nofail,x-systemd.requires={UNIT} 0 2", "UUID=1234 /srv/a ext4 nofail 0 2"),
        (f"LABEL=test_a\t/srv/a\text4\tx-systemd.requires={UNIT}\t0\t2", "LABEL=test_a /srv/a ext4 defaults 0 2"),
        (f"/srv/a/www /var/www none bind,x-systemd.requires={UNIT}", "/srv/a/www /var/www none bind"),
        (f"/dev/drbd_home /srv/a ext4 ro,x-systemd.requires={UNIT} 0 2", "/dev/drbd_home /srv/a ext4 ro 0 2"),
        (f"#UUID=1 /srv/a ext4 x-systemd.requires={UNIT}", f"#UUID=1 /srv/a ext4 x-systemd.requires={UNIT}"),
    ],
)  # fmt: skip
def test_no_mount_waits_for_a_unit_that_has_no_resource_any_more(written: str, restored: str) -> None:
    """It fails at boot, and what requires it is not mounted."""
    assert filesystem.fstab_restored(written + "\n", DEVICES, PLAIN, UNIT) == restored + "\n"
    listed = filesystem.fstab_targets(written, DEVICES, UNIT)
    assert listed == (() if written == restored else (written.split()[1],)), "and leave is asked for that"


@pytest.mark.parametrize("name", ["/dev/drbd0", "/dev/drbd/by-res/test_a", "/dev/drbd_home"])
def test_a_line_from_before_the_resource_was_adopted_mounts_the_volume_and_no_device_that_is_gone(name: str) -> None:
    moved = filesystem.fstab_moved(f"{name} /srv/a ext4 noatime 0 2\n", frozenset({name}), DEVICE, UNIT)
    assert filesystem.fstab_restored(moved, DEVICES, PLAIN, UNIT) == f"{PLAIN} /srv/a ext4 noatime 0 2\n"


@pytest.mark.parametrize("source", ["/dev/drbd_home", "UUID=1234"])
@pytest.mark.parametrize("starter", ["drbd.service", "drbd@test_a.target", "drbd@drbd-a.service"])
def test_what_an_adopted_one_had_started_for_its_mount_is_not_started_for_the_volume(source: str, starter: str) -> None:
    """drbd.service adjusts every resource, also those that a hold keeps apart."""
    was = f"{source} /srv/a ext4 noatime,x-systemd.requires={starter} 0 2\n"
    moved = f"{filesystem.WAS}{was}/dev/drbd0 /srv/a ext4 noatime,nofail,x-systemd.requires={UNIT} 0 2\n"
    now = source if source.startswith("UUID") else PLAIN
    assert filesystem.fstab_restored(moved, DEVICES, PLAIN, UNIT) == f"{now} /srv/a ext4 noatime 0 2\n"
    others = f"/dev/drbd7 /srv/b ext4 x-systemd.requires={starter} 0 2\n"
    assert filesystem.fstab_restored(others, DEVICES, PLAIN, UNIT) == others, "what is not ours is not touched"


@given(st.lists(LINES | st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=10), max_size=6))
def test_moving_and_restoring_leaves_fstab_as_it_was(lines: list[str]) -> None:
    text = "".join(f"{line}\n" for line in lines)
    moved = filesystem.fstab_moved(text, frozenset({"LABEL=test_a", "/dev/local/test_a"}), DEVICE, UNIT)
    assert filesystem.fstab_restored(moved, DEVICES, PLAIN, UNIT) == text
    assert filesystem.fstab_restored(text, DEVICES, PLAIN, UNIT) == text


@pytest.mark.parametrize(
    ("target", "listed"),
    [("/srv/a", True), ("/srv/two words", True), ("/old", False), ("/nowhere", False)],
)
def test_whether_fstab_says_what_belongs_somewhere(target: str, listed: bool) -> None:
    assert filesystem.fstab_mounts(FSTAB, target) is listed


OF_A = "drbd-offsite@a.service"


@pytest.mark.parametrize(
    ("old", "line", "changed"),
    [
        ("/dev/drbd0", "/dev/drbd0\t/srv  ext4 defaults 0 2", "NEW\t/srv  ext4 defaults 0 2"),
        ("/dev/drbd0", "/dev/drbd01 /srv ext4 defaults 0 2", None),
        ("/dev/drbd0", "/x/dev/drbd0 /srv ext4 defaults 0 2", None),
        ("/dev/drbd0", "# /dev/drbd0 /srv ext4 defaults 0 2", None),
        (OF_A, f"/x /srv ext4 x-systemd.after={OF_A},ro 0 2", "/x /srv ext4 x-systemd.after=NEW,ro 0 2"),
        (OF_A, "/x /srv ext4 x-systemd.after=drbd-offsite@aa.service 0 2", None),
        (f"x-systemd.requires={OF_A}", f"/x /srv ext4 ro,x-systemd.requires={OF_A}", "/x /srv ext4 ro,NEW"),
        ("a.b", "a-b /srv ext4 ro 0 0", None),
    ],
)
def test_one_word_of_fstab_is_another_one_and_the_rest_stays(old: str, line: str, changed: str | None) -> None:
    text = f"# first\n{line}\n\n/last /mnt none bind 0 0"
    after = filesystem.fstab_replaced(text, old, "NEW")
    assert after == text.replace(line, line if changed is None else changed)


def test_only_a_filesystem_that_can_be_enlarged_while_it_is_mounted_is() -> None:
    for fstype in ("ext2", "ext3", "ext4"):
        assert filesystem.enlarge(fstype, "/dev/drbd0", "/srv/a") == ("resize2fs", "/dev/drbd0")
    assert filesystem.enlarge("xfs", "/dev/drbd0", "/srv/a") == ("xfs_growfs", "/srv/a")
    assert filesystem.enlarge("btrfs", "/dev/drbd0", "/srv/a") == (
        "btrfs", "filesystem", "resize", "max", "/srv/a"
    )  # fmt: skip
    for fstype in ("", "swap", "vfat", "LVM2_member", "crypto_LUKS"):
        assert filesystem.enlarge(fstype, "/dev/drbd0", "/srv/a") is None


def test_argv() -> None:
    assert filesystem.identity("/dev/local/test_a")[-1] == "/dev/local/test_a"
    assert "--probe" in filesystem.identity("/dev/x"), "blkid's cache may be older than the volume"
    assert filesystem.mount("/dev/drbd0", "/mnt") == ("mount", "/dev/drbd0", "/mnt")
    assert filesystem.mount_from_fstab("/mnt") == ("mount", "/mnt")
    assert filesystem.unmount("/mnt") == ("umount", "/mnt")
