import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from drbd_offsite import files
from drbd_offsite.errors import ExitCode, Refused


class PowerCut(BaseException):
    """Nothing of the process goes on after this."""


def test_a_file_is_replaced_with_its_mode_whatever_the_umask_is(tmp_path: Path) -> None:
    path = tmp_path / "x"
    before = os.umask(0o077)
    try:
        files.write(path, "one\n", 0o644)
        files.write(path, "two\n", 0o644)
    finally:
        os.umask(before)
    assert path.read_text() == "two\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_a_secret_is_never_readable_not_even_for_a_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modes = []
    fsync = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda fd: (modes.append(stat.S_IMODE(os.fstat(fd).st_mode)), fsync(fd)) if fd else None
    )
    before = os.umask(0)
    try:
        files.write(tmp_path / "secret", "x", 0o600)
    finally:
        os.umask(before)
    assert modes[0] == 0o600
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600


STEPS = ("open", "fchmod", "fsync", "replace", "close")


@pytest.mark.parametrize("before", ["old\n", None])
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("late", [False, True])
def test_a_crash_at_any_step_leaves_the_old_file_or_the_new_one(
    step: str, late: bool, before: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x"
    if before is not None:
        path.write_text(before)

    def crashing(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if late:
                real(*arguments, **options)
            raise PowerCut

        return call

    owner = Path if step == "replace" else os
    monkeypatch.setattr(owner, step, crashing(getattr(owner, step)))
    # Cleaning up is what a killed process does not do.
    monkeypatch.setattr(Path, "unlink", lambda *_, **__: None)
    with pytest.raises(PowerCut):
        files.write(path, "new\n", 0o600)
    monkeypatch.undo()
    assert (path.read_text() if path.exists() else None) in (before, "new\n")
    files.write(path, "again\n", 0o600)
    assert path.read_text() == "again\n", "what a crash left behind is in nobody's way"


def test_the_text_is_on_disk_before_it_is_in_its_place_and_its_place_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a power cut could leave an empty file under the right name."""
    done: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def noting_fsync(descriptor: int) -> None:
        done.append("directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "text")
        fsync(descriptor)

    def noting_replace(path: Path, target: Path) -> Path:
        done.append("place")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", noting_fsync)
    monkeypatch.setattr(Path, "replace", noting_replace)
    files.write(tmp_path / "x", "text", 0o600)
    assert done == ["text", "place", "directory"]


def test_an_error_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x"
    path.write_text("old\n")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        files.write(path, "new\n", 0o600)
    assert path.read_text() == "old\n"
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["x"]


def test_a_link_in_the_way_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("precious")
    (tmp_path / f".x.{os.getpid()}.new").symlink_to(target)
    with pytest.raises(OSError, match="symbolic links"):
        files.write(tmp_path / "x", "new", 0o600)
    assert target.read_text() == "precious"


def test_bytes_that_are_no_text_survive(tmp_path: Path) -> None:
    path = tmp_path / "fstab"
    path.write_bytes(b"/dev/x /m\xff ext4\n")
    text = files.read(path)
    assert text is not None
    files.write(path, text, 0o644)
    assert path.read_bytes() == b"/dev/x /m\xff ext4\n"


def test_a_file_that_is_not_there_reads_as_none_and_can_be_removed(tmp_path: Path) -> None:
    assert files.read(tmp_path / "no" / "x") is None
    files.remove(tmp_path / "x")
    files.remove(tmp_path / "no" / "x")
    (tmp_path / "x").write_text("")
    files.remove(tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_a_lock_refuses_the_second_and_is_free_afterwards() -> None:
    slept = []
    clock = iter(range(100))
    with files.lock("x", 0):
        with (
            pytest.raises(Refused, match="at work on x") as raised,
            files.lock("x", 3, clock=lambda: next(clock), sleep=slept.append),
        ):
            pytest.fail("both have it")
        assert raised.value.exit_code is ExitCode.REFUSED
        assert raised.value.hint
        with files.lock("y", 0):
            pass
    assert slept, "it waited before it gave up"
    with files.lock("x", 0):
        pass


def test_a_lock_is_waited_for() -> None:
    first = files.lock("x", 0)
    first.__enter__()
    with files.lock("x", 60, clock=lambda: 0.0, sleep=lambda _: first.__exit__(None, None, None)):
        pass


def test_a_lock_ends_with_its_process() -> None:
    child = os.fork()
    if child == 0:
        files.lock("x", 0).__enter__()
        os._exit(0)
    os.waitpid(child, 0)
    with files.lock("x", 0):
        pass


def test_a_failed_command_gives_its_lock_back() -> None:
    with pytest.raises(ZeroDivisionError), files.lock("x", 0):
        raise ZeroDivisionError
    with files.lock("x", 0):
        pass
