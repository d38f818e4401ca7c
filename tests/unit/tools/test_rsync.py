import shlex
from pathlib import Path

import pytest

from drbd_offsite.tools import rsync
from drbd_offsite.tools.rsync import Change, What, parse_changes

DATA = Path(__file__).parents[2] / "data/rsync"
VERSIONS = sorted(path.name for path in DATA.iterdir() if path.is_dir())

FOUND = {
    "gone/file": What.ONLY_HERE, "gone/": What.ONLY_HERE, "Grüße.txt": What.CONTENT, "a\x07b": What.CONTENT,
    "a\\#101b": What.CONTENT, "device": What.ONLY_THERE, "fifo": What.ONLY_THERE, "kind": What.ONLY_THERE,
    "latin-\udcfc": What.ONLY_THERE, "link": What.CONTENT, "mode": What.ATTRIBUTES, "new-link": What.ONLY_THERE,
    "one\ntwo": What.CONTENT, "owner": What.ATTRIBUTES, "hard": What.ONLY_THERE, "size": What.CONTENT,
    "time": What.CONTENT, "two words": What.CONTENT, "xattr": What.ATTRIBUTES, "deep/deeper/new": What.ONLY_THERE,
    "new/": What.ONLY_THERE, "new/file": What.ONLY_THERE,
}  # fmt: skip


def read(version: str, name: str) -> list[Change]:
    return list(parse_changes((DATA / version / name).read_text(encoding="utf-8")))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", ["compare-utf8.txt", "compare-ascii.txt"])
def test_what_differs_is_read_whatever_the_locale_can_print(version: str, name: str) -> None:
    assert {change.path: change.what for change in read(version, name)} == FOUND


@pytest.mark.parametrize("version", VERSIONS)
def test_what_was_brought_is_read(version: str) -> None:
    assert [change.path for change in read(version, "bring.txt")] == ["Grüße.txt", "mode", "size", "deep/deeper/new"]


def test_what_is_no_change_is_passed_over() -> None:
    text = 'skipping non-regular file "x"\n\ncannot delete non-empty directory: x\n>f+++++++++ two\n'
    assert list(parse_changes(text)) == [Change(What.ONLY_THERE, "two")]


def test_a_comparison_writes_nothing() -> None:
    argv = rsync.compare("test_a", "/run/looks/test_a")
    assert "--dry-run" in argv
    assert argv[-1] == "/run/looks/test_a/", "with a slash at the end: what is in it"


def test_what_is_here_is_never_deleted_nor_overwritten_for_good() -> None:
    argv = rsync.bring("test_a", "/run/paths", ".old", "/srv/a")
    assert not [word for word in argv if word.startswith(("--delete", "--remove", "--force", "--inplace"))]
    assert {"--backup", "--suffix=.old", "--relative"} <= set(argv)
    assert "--no-implied-dirs" not in argv


def test_the_remote_shell_is_ours_and_gets_its_words_as_they_are() -> None:
    (shell,) = (word.removeprefix("--rsh=") for word in rsync.compare("A-b_c.d", "/x") if word.startswith("--rsh="))
    assert shlex.split(shell) == shell.split(" ") == ["/usr/bin/drbd-offsite", "peer-files", "A-b_c.d"]


def test_a_daemon_reads_one_directory_and_is_locked_into_it() -> None:
    lines = rsync.daemon_config("/run/looks/test_a").splitlines()
    assert {"read only = yes", "use chroot = yes", "list = no", "numeric ids = yes"} <= set(lines)
    assert [line for line in lines if line.startswith("[")] == ["[files]"]
    assert lines[-1] == "path = /run/looks/test_a"
