import shutil
import subprocess
from pathlib import Path

import pytest

from drbd_offsite.tools import fsck
from drbd_offsite.tools.contained import enclosed, mortal


@pytest.mark.parametrize("fstype", ["ext2", "ext3", "ext4", "xfs", "btrfs"])
def test_what_is_known_is_mounted_read_only_and_nothing_of_it_is_run(fstype: str) -> None:
    way = fsck.way(fstype, "/dev/x")
    assert way is not None
    options = way.options.split(",")
    assert {"ro", "nodev", "nosuid", "noexec"} <= set(options)
    assert way.check[-1] == "/dev/x"
    assert way.check[:4] == ("setpriv", "--pdeathsig", "KILL", "--")


@pytest.mark.parametrize("fstype", ["", "swap", "LVM2_member", "crypto_LUKS", "vfat", "EXT4"])
def test_what_is_not_known_is_not_touched(fstype: str) -> None:
    assert fsck.way(fstype, "/dev/x") is None


def test_no_filesystem_may_panic_this_machine() -> None:
    way = fsck.way("ext4", "/dev/x")
    assert way is not None
    assert "errors=remount-ro" in way.options.split(",")


def test_over_how_many_devices_a_btrfs_goes() -> None:
    assert fsck.parse_devices("generation\t\t7\nnum_devices\t\t2\ndev_item.uuid\tx\n") == 2
    assert fsck.parse_devices("") == 1


def test_a_command_is_locked_up_and_ends_with_its_starter() -> None:
    argv = enclosed(("check", "-x"))
    assert argv[: len(mortal(()))] == mortal(())
    assert argv[-3:] == ("--", "check", "-x")
    assert {"--pid", "--fork", "--kill-child", "--mount-proc"} <= set(argv)


# -- with the real e2fsck --------------------------------------------------------------------------------

E2FSPROGS = ("mke2fs", "debugfs", "e2fsck")
MISSING = next((program for program in E2FSPROGS if shutil.which(program) is None), "")


def program(*argv: str, stdin: str = "") -> "subprocess.CompletedProcess[str]":
    return subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """An ext4 as a power cut leaves it: with a journal to replay, and a file that was deleted and is open."""
    if MISSING:
        pytest.skip(f"{MISSING} is not installed")
    (tmp_path / "tree").mkdir()
    for number in range(20):
        (tmp_path / f"tree/file-{number}").write_bytes(bytes([number]) * 5000)
    path = tmp_path / "image"
    with path.open("wb") as file:
        file.truncate(32 * 2**20)
    block = tmp_path / "block"
    block.write_bytes(b"x" * 1024)
    program("mke2fs", "-q", "-t", "ext4", "-b", "1024", "-d", str(tmp_path / "tree"), str(path))
    said = program("debugfs", "-R", "stat file-7", str(path)).stdout
    inode = said.partition("Inode: ")[2].split()[0]
    orphan = f"unlink file-7\nsif <{inode}> links_count 0\nsif <{inode}> dtime 0\nssv last_orphan {inode}\n"
    program("debugfs", "-w", "-f", "-", str(path), stdin=f"{orphan}jo\njw -b 20000 {block}\njc\n")
    return path


def ends(argv: tuple[str, ...]) -> int:
    return program(*argv[argv.index("--") + 1 :]).returncode


def test_what_a_power_cut_leaves_is_no_damage(image: Path) -> None:
    way = fsck.way("ext4", str(image))
    assert way is not None
    assert ends(way.check) != 0, "or the two steps would be one"
    assert ends(way.replay) == 0
    assert ends(way.check) == 0


def test_a_check_finds_damage_and_changes_nothing(image: Path) -> None:
    way = fsck.way("ext4", str(image))
    assert way is not None
    ends(way.replay)
    with image.open("r+b") as file:
        file.seek(100 * 1024)
        file.write(b"\xa5" * 200 * 1024)
    before = image.read_bytes()
    assert ends(way.check) != 0
    assert image.read_bytes() == before


def test_a_journal_that_is_none_any_more_is_no_good_replay(image: Path) -> None:
    way = fsck.way("ext4", str(image))
    assert way is not None
    said = program("debugfs", "-R", "stat <8>", str(image)).stdout
    first = int(said.partition("EXTENTS:")[2].split("):")[1].split("-")[0].split(",")[0])
    with image.open("r+b") as file:
        file.seek(first * 1024)
        file.write(b"\xa5" * 1024)
    assert ends(way.replay) != 0
