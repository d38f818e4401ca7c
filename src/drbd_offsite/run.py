"""The one place that starts external programs."""

import os
import select
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .errors import ToolFailed

TERMINATE_SECONDS = 5.0
"""Between the polite and the certain end of a program that took too long."""

verbose = False
"""Set by ``-v``: every command is shown on standard error before it runs."""


@dataclass(frozen=True, slots=True)
class Completed:
    argv: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str

    @property
    def complaint(self) -> str:
        """What the program said about its failure, on one line."""
        text = self.stderr.strip() or self.stdout.strip()
        return "; ".join(line.strip() for line in text.splitlines() if line.strip())[-600:]


class _Program(subprocess.Popen[str]):
    """Whose end is heard of at once. Popen's own way to wait with a time limit is to look, and to sleep in between
    for a millisecond, two, four and so on (subprocess.py, Popen._wait): longer than many a program runs.
    """

    def wait(self, timeout: float | None = None) -> int:
        if timeout is None or self.returncode is not None:
            return super().wait(timeout)
        try:
            program = os.pidfd_open(self.pid)
        except OSError:
            return super().wait(timeout)
        try:
            poller = select.poll()
            poller.register(program, select.POLLIN)
            ended = poller.poll(max(0.0, timeout) * 1000)
        finally:
            os.close(program)
        return super().wait(None if ended else 0.0)


def run(
    argv: Sequence[str],
    *,
    stdin: str = "",
    timeout: float = 60.0,
    accept: Sequence[int] | None = (0,),
) -> Completed:
    """Run a program to its end in the C locale, with ``stdin`` as its whole input.

    ``timeout`` is in seconds; ``accept`` lists the exit codes that are no failure (None: all).
    Raises ToolFailed for any other exit code, a time-out, or a program that is not there.
    """
    if verbose:
        sys.stderr.write(f"+ {' '.join(argv)}\n")
    try:
        process = _Program(
            list(argv),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=_environment(),
        )
    except OSError as error:
        raise ToolFailed(f"{argv[0]} could not be started: {error.strerror}.") from error
    with process:
        try:
            stdout, stderr = process.communicate(stdin, timeout)
        except subprocess.TimeoutExpired:
            _end(process)
            raise ToolFailed(f"{_name(argv)} did not finish within {timeout:g} s and was stopped.") from None
        except BaseException:
            _end(process)
            raise
    done = Completed(tuple(argv), process.returncode, stdout, stderr)
    if accept is not None and done.returncode not in accept:
        raise ToolFailed(f"{_name(argv)} failed (exit code {done.returncode}): {done.complaint or 'it said nothing'}")
    return done


class Stream:
    """A program that goes on printing lines until it is closed."""

    def __init__(self, argv: Sequence[str]) -> None:
        """Raises ToolFailed where it cannot be started."""
        try:
            self._process = subprocess.Popen(
                list(argv), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=_environment()
            )
        except OSError as error:
            raise ToolFailed(f"{argv[0]} could not be started: {error.strerror}.") from error
        stdout = self._process.stdout
        self._descriptor = stdout.fileno() if stdout else -1
        os.set_blocking(self._descriptor, False)
        self._rest = b""
        self.ended = False

    def fileno(self) -> int:
        return self._descriptor

    def lines(self) -> list[str]:
        """The whole lines that have come since the last call; at its end ``ended`` is set."""
        while not self.ended:
            try:
                data = os.read(self.fileno(), 65536)
            except BlockingIOError:
                break
            self.ended = not data
            self._rest += data
        *whole, self._rest = self._rest.split(b"\n")
        return [line.decode(errors="replace") for line in whole]

    def close(self) -> None:
        with self._process:
            _end(self._process)


def _environment() -> dict[str, str]:
    return os.environ | {"LC_ALL": "C.UTF-8", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}


def _name(argv: Sequence[str]) -> str:
    return " ".join(argv[:3])


def _end(process: "subprocess.Popen[Any]") -> None:
    process.terminate()
    try:
        process.wait(TERMINATE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
