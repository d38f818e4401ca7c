"""Commands inside a machine, over one kept ssh connection.

An ssh handshake costs an emulated processor a second or two, so there is one per boot or rewind.
"""

from __future__ import annotations

import shlex
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

# ConnectTimeout ends with the greeting; a guest that dies later in the handshake hangs ssh.
HANDSHAKE_SECONDS = 30.0


class UnreachableError(Exception):
    """The machine did not answer (ssh itself failed, not the command)."""


class CommandFailedError(Exception):
    """A command inside a machine ended with another exit code than 0."""


@dataclass(frozen=True)
class Result:
    """What a command inside a machine said, and how it ended."""

    stdout: str
    stderr: str
    returncode: int


class Ssh:
    """The way into one machine as root."""

    def __init__(self, name: str, port: int, key: Path, run_dir: Path) -> None:
        self.name = name
        self.port = port
        self._control = run_dir / f"{name}.ssh"
        self._log = run_dir / f"{name}.ssh.log"
        self._options = [
            "-F", "none",
            "-i", str(key),
            "-o", f"ControlPath={self._control}",
            "-o", "BatchMode=yes",
            "-o", "ConnectTimeout=5",
            # a machine whose kernel died says nothing: notice within a minute
            "-o", "ServerAliveInterval=10",
            "-o", "ServerAliveCountMax=6",
            # always the same machine behind a port of our own
            "-o", "StrictHostKeyChecking=no",
            "-o", "UserKnownHostsFile=/dev/null",
            "-o", "LogLevel=ERROR",
            # the cheapest handshake for an emulated processor
            "-o", "HostKeyAlgorithms=ssh-ed25519",
            "-o", "KexAlgorithms=curve25519-sha256",
        ]  # fmt: skip

    def connect(self) -> None:
        """Open the kept connection, if it is not open."""
        if self._control.exists():
            return
        # ssh -f stays behind as the connection, so it must not hold a pipe of ours.
        argv = ["ssh", *self._options, "-M", "-N", "-f", "-p", str(self.port), "root@127.0.0.1"]
        with self._log.open("ab") as log, suppress(subprocess.TimeoutExpired):
            done = subprocess.run(
                argv, check=False, stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=HANDSHAKE_SECONDS
            )
            if done.returncode == 0:
                return
        raise UnreachableError(f"{self.name} does not answer ssh")

    def disconnect(self) -> None:
        """Close the kept connection; the next command opens a new one."""
        subprocess.run(
            ["ssh", *self._options, "-O", "exit", "127.0.0.1"],
            check=False, stdin=subprocess.DEVNULL, capture_output=True,
        )  # fmt: skip
        self._control.unlink(missing_ok=True)

    def argv(self, *options: str, command: str = "") -> list[str]:
        """The ssh command line for a remote command, or for a shell when there is none."""
        remote = [command] if command else []
        return ["ssh", *self._options, *options, "-p", str(self.port), "root@127.0.0.1", *remote]

    def run(
        self,
        command: str | Sequence[str],
        *,
        check: bool = True,
        input: str | bytes = b"",  # noqa: A002  subprocess's own word
        timeout: float = 120.0,
    ) -> Result:
        """Run an argv, or a line for the shell, and return what it said."""
        line = command if isinstance(command, str) else shlex.join(command)
        self.connect()
        data = input.encode() if isinstance(input, str) else input
        try:
            done = subprocess.run(
                self.argv(command=line), check=False, input=data, capture_output=True, timeout=timeout
            )
        except subprocess.TimeoutExpired as error:
            raise CommandFailedError(f"{self.name}: no end after {timeout:g} s: {line}") from error
        result = Result(
            done.stdout.decode(errors="replace"),
            done.stderr.decode(errors="replace"),
            done.returncode,
        )
        if result.returncode == 255:  # ssh's own exit code
            raise UnreachableError(f"{self.name}: {line}\n{result.stderr}")
        if check and result.returncode != 0:
            raise CommandFailedError(
                f"{self.name}: exit code {result.returncode}: {line}\n{result.stdout}{result.stderr}"
            )
        return result

    def copy(self, source: str, target: str) -> None:
        """Copy files or directories; the machine's side is written ``:PATH``."""
        self.connect()
        ends = [f"root@127.0.0.1{end}" if end.startswith(":") else end for end in (source, target)]
        done = subprocess.run(
            ["scp", "-q", "-r", "-p", *self._options, "-P", str(self.port), *ends],
            check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        )  # fmt: skip
        if done.returncode != 0:
            raise CommandFailedError(f"{self.name}: copy {source} {target}\n{done.stderr}")
