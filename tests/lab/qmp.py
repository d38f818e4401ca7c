"""A client for QEMU's machine protocol: as much of it as the lab needs."""

from __future__ import annotations

import json
import socket
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

Message = dict[str, Any]


class QmpError(Exception):
    """QEMU said no, or is no longer there."""


class Qmp:
    """A connection to one QEMU's monitor socket."""

    def __init__(self, path: Path, deadline: float = 20.0) -> None:
        self._socket = _connect(path, deadline)
        self._lines = self._socket.makefile("rb")
        self._events: list[Message] = []
        self._read()  # the greeting
        self.execute("qmp_capabilities")

    def execute(self, command: str, timeout: float = 120.0, **arguments: object) -> Any:
        """Run one command and return its answer."""
        request = {"execute": command, "arguments": arguments}
        try:
            self._socket.settimeout(timeout)
            self._socket.sendall(json.dumps(request).encode() + b"\n")
        except OSError as error:
            raise QmpError(f"{command}: {error}") from error
        while True:
            message = self._read()
            if "return" in message:
                return message["return"]
            if "error" in message:
                raise QmpError(f"{command}: {message['error']['desc']}")
            self._events.append(message)

    def human(self, command: str, timeout: float = 120.0) -> None:
        """Run a command of the human monitor; those used here are silent unless they fail."""
        line = "human-monitor-command"
        answer = str(self.execute(line, timeout, **{"command-line": command})).strip()
        if answer:
            raise QmpError(f"{command}: {answer}")

    def wait_event(self, name: str, deadline: float = 60.0) -> Message:
        """Return the oldest unread event of that name, waiting for it if need be."""
        end = time.monotonic() + deadline
        while True:
            for event in self._events:
                if event.get("event") == name:
                    self._events.remove(event)
                    return event
            self._socket.settimeout(max(0.001, end - time.monotonic()))
            self._events.append(self._read())

    def close(self) -> None:
        """Hang up; QEMU goes on."""
        self._lines.close()
        self._socket.close()

    def _read(self) -> Message:
        try:
            line = self._lines.readline()
        except OSError as error:
            raise QmpError(f"no answer from QEMU: {error}") from error
        if not line:
            raise QmpError("QEMU closed its monitor")
        message: Message = json.loads(line)
        return message


def _connect(path: Path, deadline: float) -> socket.socket:
    end = time.monotonic() + deadline
    while True:
        client = socket.socket(socket.AF_UNIX)
        try:
            client.settimeout(deadline)
            client.connect(str(path))
        except OSError as error:
            client.close()
            if time.monotonic() > end:
                raise QmpError(f"no monitor at {path}: {error}") from error
            time.sleep(0.02)
        else:
            return client
