"""The watcher: when a volume or a tunnel appears, run the circle.

Events are hints. A lost, doubled or early one costs time and nothing else, because the circle looks for
itself, and because a full look comes every minute whatever was heard.
"""

import os
import select
import socket
import sys
import time

import pyudev

from . import config
from .errors import OffsiteError
from .reconcile import reconcile

TAG = "drbd-offsite"
"""udev/85-drbd-offsite.rules sets it on the events that can matter."""

FULL_LOOK_SECONDS = 60.0
SETTLE_SECONDS = 0.1
"""Events come in bursts; this long after the first, one look serves them all."""

SOON_SECONDS = 1.0

_RTMGRP_IPV4_IFADDR = 0x10  # rtnetlink(7)


def watch() -> int:
    """Run until systemd ends it."""
    events = pyudev.Monitor.from_netlink(pyudev.Context())
    events.filter_by_tag(TAG)
    events.start()
    poller = select.poll()
    poller.register(events, select.POLLIN)
    with _address_news() as addresses:
        poller.register(addresses, select.POLLIN)
        _notify("READY=1")
        while True:
            soon = _look()
            _notify("WATCHDOG=1")
            if poller.poll((SOON_SECONDS if soon else FULL_LOOK_SECONDS) * 1000):
                time.sleep(SETTLE_SECONDS)
                _drain(events, addresses)


def _look() -> bool:
    """One circle for everything; whether another should follow soon."""
    try:
        site = config.load()
        outcomes = reconcile(site, site.resources, _say, wait=0)
    except OffsiteError as error:
        _say(f"{error.message} {error.hint}")
        return False
    for outcome in outcomes:
        if outcome.failed is not None and not outcome.soon:
            _say(f"{outcome.resource}: {outcome.failed.message} {outcome.failed.hint}")
    return any(outcome.soon for outcome in outcomes)


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def _address_news() -> socket.socket:
    """tun0's address comes after its uevent and without one of its own; the kernel tells it here."""
    news = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
    news.bind((0, _RTMGRP_IPV4_IFADDR))
    return news


def _drain(events: pyudev.Monitor, addresses: socket.socket) -> None:
    while events.poll(timeout=0) is not None:
        pass
    while True:
        try:
            if not addresses.recv(65536):
                return
        except BlockingIOError:
            return
        except OSError:
            return  # ENOBUFS: news were lost, and a look follows anyway


def _notify(message: str) -> None:
    """sd_notify(3): one datagram to the socket that systemd names."""
    target = os.environ.get("NOTIFY_SOCKET")
    if target:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
            line.connect("\0" + target[1:] if target.startswith("@") else target)
            line.send(message.encode())
