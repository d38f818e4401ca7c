import os
import stat
from pathlib import Path

import pytest

from drbd_offsite import files
from drbd_offsite.errors import ExitCode, Refused


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
