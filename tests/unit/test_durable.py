"""What the journal and every file of ours rest on: append and replace, cut off at any step."""

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drbd_offsite import durable


class PowerCut(BaseException):
    """Nothing of the process goes on after this."""


STEPS = ("open", "fchmod", "write", "fsync", "replace", "close")


def crash_at(step: str, late: bool, patch: pytest.MonkeyPatch) -> None:
    """Before a step was taken, or right after it."""
    real: Callable[..., Any] = getattr(os, step)

    def call(*arguments: Any, **options: Any) -> Any:
        if late:
            real(*arguments, **options)
        raise PowerCut

    patch.setattr(os, step, call)
    # Cleaning up is what a killed process does not do.
    patch.setattr(os, "unlink", lambda *_, **__: None)


@pytest.mark.parametrize("before", ["old\n", None])
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("late", [False, True])
def test_a_crash_at_any_step_leaves_the_old_file_or_the_new_one(
    step: str, late: bool, before: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x"
    if before is not None:
        path.write_text(before)
    with monkeypatch.context() as patch:
        crash_at(step, late, patch)
        with pytest.raises(PowerCut):
            durable.replace(str(path), b"new\n", 0o600)
    assert (path.read_text() if path.exists() else None) in (before, "new\n")
    durable.replace(str(path), b"again\n", 0o600)
    assert path.read_text() == "again\n", "what a crash left behind is in nobody's way"


def test_the_text_is_on_disk_before_it_is_in_its_place_and_its_place_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a power cut could leave an empty file under the right name."""
    done: list[str] = []
    fsync, replace = os.fsync, os.replace

    def noting_fsync(descriptor: int) -> None:
        done.append("directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "text")
        fsync(descriptor)

    def noting_replace(path: str, target: str) -> None:
        done.append("place")
        replace(path, target)

    monkeypatch.setattr(os, "fsync", noting_fsync)
    monkeypatch.setattr(os, "replace", noting_replace)
    durable.replace(str(tmp_path / "x"), b"text", 0o600)
    assert done == ["text", "place", "directory"]


@pytest.mark.parametrize("step", ["write", "fsync", "replace"])
def test_an_error_leaves_the_old_file_and_no_other(step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x"
    path.write_text("old\n")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, full)
    with pytest.raises(OSError, match="No space"):
        durable.replace(str(path), b"new\n", 0o600)
    assert path.read_text() == "old\n"
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_a_kernel_that_takes_little_at_a_time_gets_it_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:3]))
    durable.replace(str(tmp_path / "x"), b"more than three", 0o600)
    assert (tmp_path / "x").read_bytes() == b"more than three"


def test_a_link_in_the_way_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("precious")
    (tmp_path / f".x.{os.getpid()}.new").symlink_to(target)
    with pytest.raises(OSError, match="symbolic links"):
        durable.replace(str(tmp_path / "x"), b"new", 0o600)
    (tmp_path / "log").symlink_to(target)
    with pytest.raises(OSError, match="symbolic links"):
        durable.append(str(tmp_path / "log"), b"line")
    assert target.read_text() == "precious"


# -- append ----------------------------------------------------------------------------------------


def test_a_line_is_added_on_one_of_its_own_and_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[bytes] = []
    path = tmp_path / "log"
    monkeypatch.setattr(os, "fsync", lambda _: synced.append(path.read_bytes()))
    durable.append(str(path), b"one")
    durable.append(str(path), b"two")
    assert synced == [b"one\n", b"one\ntwo\n"]
    assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0


@given(st.binary(max_size=30), st.text("abc", min_size=1, max_size=10))
def test_whatever_a_power_cut_left_the_new_line_is_whole_and_the_old_bytes_stay(torn: bytes, line: str) -> None:
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as directory:
        path = Path(directory) / "log"
        path.write_bytes(torn)
        durable.append(str(path), line.encode())
        found = path.read_bytes()
    assert found.startswith(torn)
    assert found.split(b"\n")[-2:] == [line.encode(), b""]


def test_a_disk_that_fills_up_in_the_middle_of_a_line_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel says how much it took; a line that is not there must not be taken for one that is."""
    write = os.write
    path = tmp_path / "log"
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:2]))
        with pytest.raises(OSError, match="No space left"):
            durable.append(str(path), b"a long line")
    durable.append(str(path), b"the next")
    assert path.read_bytes() == b"a \nthe next\n"


def test_lines_of_many_processes_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "log"
    children = []
    for letter in b"abcdef":
        child = os.fork()
        if child == 0:
            for _ in range(50):
                durable.append(str(path), bytes([letter]) * 300)
            os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    # Who looks while another writes may see a torn line where there is none: an empty line more does no harm.
    lines = [line for line in path.read_bytes().splitlines() if line]
    assert len(lines) == 300
    assert all(len(line) == 300 and len(set(line)) == 1 for line in lines)


def test_what_cannot_be_written_is_an_error_and_not_silence(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    with pytest.raises(OSError, match="directory"):
        durable.append(str(tmp_path / "log"), b"x")
    with pytest.raises(OSError, match="No such file"):
        durable.replace(str(tmp_path / "nowhere" / "x"), b"x", 0o600)
