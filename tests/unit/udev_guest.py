"""The watcher among devices of a mock machine; test_udev.py runs this under umockdev-wrapper.

Standard input has a JSON list of events, in order: subsystem, name, action and properties, as udev announces them.
Standard output gets a JSON list with what the watcher takes each of them for: the resources that it would look at.
"""

import json
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any

import gi

gi.require_version("UMockdev", "1.0")
from gi.repository import UMockdev  # noqa: E402

from drbd_offsite import config, doorbell, watch  # noqa: E402

SO_DETACH_FILTER = 27


def main() -> None:
    events = json.load(sys.stdin)
    with tempfile.TemporaryDirectory() as directory:
        doorbell.PATH = f"{directory}/run/doorbell"
        testbed = UMockdev.Testbed.new()
        watcher = watch.Watcher()
        watcher._site = config.load(Path(sys.argv[1]))
        without_the_kernel_s_filter(watcher._uevents.fileno())
        print(json.dumps([heard(testbed, watcher, event) for event in events]))


def without_the_kernel_s_filter(descriptor: int) -> None:
    """umockdev leaves the hashes of the tags out of its messages, and the kernel would drop them all.

    libudev looks at the tags themselves, after the kernel; that filter stays.
    """
    monitor = socket.socket(fileno=descriptor)
    monitor.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)
    monitor.detach()


def heard(testbed: Any, watcher: watch.Watcher, event: dict[str, Any]) -> list[str]:
    properties = [word for item in event["properties"].items() for word in item]
    path = testbed.add_device(event["subsystem"], event["name"], None, [], properties)  # announces "add"
    if event["action"] != "add":
        list(watcher._volumes_and_tunnels(watcher._site))
        testbed.uevent(path, event["action"])
    found = list(watcher._volumes_and_tunnels(watcher._site))
    testbed.remove_device(path)
    for place in ("block", f"class/{event['subsystem']}"):  # links that it leaves behind
        Path(testbed.get_root_dir(), "sys", place, event["name"]).unlink(missing_ok=True)
    return found


main()
