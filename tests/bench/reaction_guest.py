"""Runs inside a machine of the lab for bench_reaction.py: brings a condition about, and says when DRBD was there.

One process hears of the condition as the watcher does (the kernel's news of addresses, udev's of volumes) and reads
what DRBD's own monitor stamps, all by the machine's clock. Its one argument is a task in JSON, its output the
seconds from the condition to each state that was asked for.
"""

import json
import os
import select
import socket
import struct
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import IO, Any, cast

DEADLINE_SECONDS = 60.0


class Address:
    """Whether an address has appeared, by rtnetlink(7)."""

    NEW_ADDRESS, GROUP = 20, 0x10

    def __init__(self, address: str) -> None:
        self._wanted = socket.inet_aton(address)
        self._news = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
        self._news.bind((0, self.GROUP))

    def fileno(self) -> int:
        return self._news.fileno()

    def heard(self) -> bool:
        found = False
        while True:
            try:
                news = self._news.recv(65536)
            except BlockingIOError:
                return found
            found |= struct.unpack_from("=LH", news)[1] == self.NEW_ADDRESS and self._wanted in news


class Volume:
    """Whether a volume is ready, by the events that udev has tagged for the watcher."""

    def __init__(self, name: str) -> None:
        import pyudev

        self._group, self._name = name.split("/")
        self._events = pyudev.Monitor.from_netlink(pyudev.Context())
        self._events.filter_by_tag("drbd-offsite")
        self._events.start()

    def fileno(self) -> int:
        return int(self._events.fileno())

    def heard(self) -> bool:
        found = False
        while (device := self._events.poll(timeout=0)) is not None:
            found |= (device.get("DM_VG_NAME"), device.get("DM_LV_NAME")) == (self._group, self._name)
        # An event before the link is there is one too early, for the watcher too.
        return found and Path("/dev", self._group, self._name).exists()


class Changes:
    """DRBD's own account, each line with the instant at which it was printed."""

    def __init__(self, resource: str) -> None:
        command = ["drbdsetup", "events2", "--timestamps", resource]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE)
        self._output = cast("IO[bytes]", self._process.stdout).fileno()
        os.set_blocking(self._output, False)
        self._rest = b""

    def fileno(self) -> int:
        return self._output

    def lines(self) -> list[tuple[float, set[str]]]:
        """The instant and the words of each line that has come."""
        try:
            data = os.read(self._output, 65536)
        except BlockingIOError:
            return []
        if not data:
            sys.exit("drbdsetup events2 has ended")
        *whole, self._rest = (self._rest + data).split(b"\n")
        found = []
        for stamp, *words in (line.decode().split() for line in whole):
            found.append((datetime.fromisoformat(stamp).timestamp(), set(words)))
        return found

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


def measure(task: dict[str, Any]) -> dict[str, float]:
    """Seconds to each state; none of them where the preparation failed or took too long."""
    kind, name = task["condition"]
    condition: Address | Volume = Address(name) if kind == "address" else Volume(name)
    changes = Changes(task["resource"])
    await_listing(changes)
    begun = time.monotonic()
    prepared = all(
        subprocess.run(words, stdout=subprocess.DEVNULL, check=False).returncode == 0 for words in task["before"]
    )
    changes.lines()
    condition.heard()
    if not prepared or time.monotonic() - begun > task["at_most"]:
        return {}
    trigger = subprocess.Popen(task["trigger"], stdout=subprocess.DEVNULL)
    bare = None
    held = 0.0
    seen: list[tuple[float, set[str]]] = []
    found: dict[str, float] = {}
    poller = select.poll()
    for source in (condition, changes):
        poller.register(source, select.POLLIN)
    until = time.monotonic() + DEADLINE_SECONDS
    while len(found) < len(task["states"]):
        if time.monotonic() > until:
            sys.exit(f"not within {DEADLINE_SECONDS:.0f} s; the condition held: {bool(held)}; seen: {seen}")
        poller.poll(1000)
        if condition.heard() and not held:
            held = time.time()
            if task["bare"]:
                bare = subprocess.Popen(task["bare"], stdout=subprocess.DEVNULL)
        seen += changes.lines()
        for state, words in task["states"].items():
            stamps = [at for at, said in seen if held and at >= held and said & set(words)]
            if stamps:
                found[state] = min(stamps) - held
    codes = [process.wait(DEADLINE_SECONDS) for process in (trigger, bare) if process]
    changes.close()
    if any(codes):
        sys.exit(f"exit codes {codes} of {task['trigger']} and {task['bare']}")
    return found


def await_listing(changes: Changes) -> None:
    """What is so already comes first; its end is a line "exists -"."""
    until = time.monotonic() + DEADLINE_SECONDS
    while not any(words == {"exists", "-"} for _, words in changes.lines()):
        if time.monotonic() > until:
            sys.exit("drbdsetup events2 lists nothing")
        select.select([changes], [], [], 1.0)


if __name__ == "__main__":
    print(json.dumps(measure(json.loads(sys.argv[1]))))
