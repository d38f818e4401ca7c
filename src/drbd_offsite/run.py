"""The one place that starts external programs."""

import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from .errors import ToolFailed

TERMINATE_SECONDS = 5.0
"""Between the polite and the certain end of a program that took too long."""

_SECRET = re.compile(r"(--?[a-z-]*(?:secret|password|psk)[= ]\s*)\S+")
"""drbdadm repeats a drbdsetup command that has failed, and --shared-secret with it."""

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
        text = _SECRET.sub(r"\1(not shown)", self.stderr.strip() or self.stdout.strip())
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
    tries: int = 1,
) -> Completed:
    """Run a program to its end in the C locale, with ``stdin`` as its whole input.

    ``timeout`` is in seconds; ``accept`` lists the exit codes that are no failure (None: all). Where it fails it is
    tried again, a second apart, ``tries`` times in all.
    Raises ToolFailed for any other exit code, a time-out, or a program that is not there.
    """
    for _ in range(tries - 1):
        with suppress(ToolFailed):
            return _to_its_end(argv, subprocess.PIPE, subprocess.PIPE, stdin, timeout, accept)
        time.sleep(1.0)
    return _to_its_end(argv, subprocess.PIPE, subprocess.PIPE, stdin, timeout, accept)


def between(argv: Sequence[str], connection: int, *, timeout: float) -> Completed:
    """Run a program to its end with a connection as its input and output. Raises ToolFailed as `run` does."""
    return _to_its_end(argv, connection, connection, "", timeout, (0,))


def become(argv: Sequence[str]) -> None:
    """Be that program from now on. Raises ToolFailed for one that is not there."""
    try:
        os.execvpe(argv[0], list(argv), _environment())  # noqa: S606, no shell is what is wanted
    except OSError as error:
        raise ToolFailed(f"{argv[0]} could not be started: {error.strerror}.") from error


def _to_its_end(
    argv: Sequence[str], source: int, sink: int, stdin: str, timeout: float, accept: Sequence[int] | None
) -> Completed:
    if verbose:
        sys.stderr.write(f"+ {' '.join(argv)}\n")
    try:
        process = _Program(
            list(argv),
            stdin=source,
            stdout=sink,
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
    done = Completed(tuple(argv), process.returncode, stdout or "", stderr)
    if accept is not None and done.returncode not in accept:
        raise ToolFailed(f"{_name(argv)} failed (exit code {done.returncode}): {done.complaint or 'it said nothing'}")
    return done


@dataclass(frozen=True, slots=True)
class Ended:
    """How somebody else's program has ended."""

    returncode: int | None
    """None for one that was stopped at its time limit."""
    lines: tuple[str, ...]
    """The last that it said, on either of its streams."""


TOLD_BYTES = 8192
"""At most so much of what it said is kept: it may talk for an hour."""


def bounded(argv: Sequence[str], *, directory: str, variables: Mapping[str, str], seconds: float) -> Ended:
    """Run a program that is not ours, with no input, and for so long at most. Raises ToolFailed.

    What it has started goes with it, as far as that is in its process group.
    """
    if verbose:
        sys.stderr.write(f"+ {' '.join(argv)}\n")
    try:
        process = subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=directory,
            env=_environment() | dict(variables),
            start_new_session=True,
        )
    except OSError as error:
        raise ToolFailed(f"{argv[0]} could not be started: {error.strerror}.") from error
    with process:
        try:
            said, in_time = _listen(process, time.monotonic() + seconds)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            code = process.wait()
    lines = said.decode(errors="replace").splitlines()
    return Ended(code if in_time else None, tuple(line for line in map(str.rstrip, lines) if line))


def _listen(process: "subprocess.Popen[bytes]", until: float) -> tuple[bytes, bool]:
    """The end of what a program says, and whether it ended in time.

    Its end is what counts, and not that of its output, which something in the background may have open.
    """
    program = os.pidfd_open(process.pid)
    output = process.stdout.fileno() if process.stdout else -1
    poller = select.poll()
    poller.register(program, select.POLLIN)
    poller.register(output, select.POLLIN)
    said = b""
    try:
        while (left := until - time.monotonic()) > 0:
            ready = {descriptor for descriptor, _ in poller.poll(left * 1000)}
            if output in ready:
                data = os.read(output, 65536)  # all that a pipe holds
                said = (said + data)[-TOLD_BYTES:]
                if not data:
                    poller.unregister(output)
            if program in ready:
                return said, True
        return said, False
    finally:
        os.close(program)


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


class Dialogue:
    """A program that answers each line with a line, or talks in bytes, until it is closed."""

    def __init__(self, argv: Sequence[str]) -> None:
        """Raises ToolFailed where it cannot be started. What it complains about goes where ours does."""
        try:
            self._process = subprocess.Popen(
                list(argv), stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=_environment()
            )
        except OSError as error:
            raise ToolFailed(f"{argv[0]} could not be started: {error.strerror}.") from error
        self._name = argv[0]

    def ask(self, line: str, seconds: float) -> str:
        """Its answer to a line. Raises ToolFailed for none in time, and where it has ended."""
        try:
            self._process.stdin.write(line.encode() + b"\n")  # type: ignore[union-attr]
            self._process.stdin.flush()  # type: ignore[union-attr]
        except OSError as error:  # EPIPE
            raise ToolFailed(f"{self._name} has ended: {error.strerror}.") from error
        return self.hear(seconds)

    def hear(self, seconds: float) -> str:
        """A line that it says by itself. Raises ToolFailed as `ask` does."""
        until = time.monotonic() + seconds
        answer = b""
        while not answer.endswith(b"\n"):
            data = self._read(until)
            if not data:
                raise ToolFailed(f"{self._name} has ended.")
            answer += data
        return answer.decode(errors="replace")

    @property
    def source(self) -> int:
        """The descriptor that what it says is read from."""
        return self._process.stdout.fileno()  # type: ignore[union-attr]

    @property
    def sink(self) -> int:
        """The descriptor that it is told by; it blocks nobody else."""
        return self._process.stdin.fileno()  # type: ignore[union-attr]

    def end(self) -> None:
        """It is told no more, and may go on saying."""
        self._process.stdin.close()  # type: ignore[union-attr]

    def _read(self, until: float) -> bytes:
        ready, _, _ = select.select([self.source], [], [], max(0.0, until - time.monotonic()))
        if not ready:
            raise ToolFailed(f"{self._name} did not answer in time.")
        return os.read(self.source, 65536)

    def close(self) -> None:
        with suppress(OSError), self._process:  # what was not written to it yet
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
