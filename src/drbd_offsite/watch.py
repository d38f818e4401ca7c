"""The watcher: when a volume or a tunnel appears, or DRBD changes its state, run the circle.

Events are hints. A lost, doubled or early one costs time and nothing else, because the circle looks for
itself, and because a full look comes every minute whatever was heard.
"""

import os
import select
import socket
import stat
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyudev

from . import config, doorbell, journal
from .errors import OffsiteError, Refused
from .host import observe
from .model import Resource, Site, VolumeName
from .notify import notify
from .observed import DiskState, ReplicationState
from .operations import duties, repair
from .operations.report import LOST
from .plan import overload
from .plan.agenda import Agenda
from .reconcile import reconcile
from .run import Stream
from .tools import drbd, iproute

TAG = "drbd-offsite"
"""udev/85-drbd-offsite.rules sets it on the events that can matter."""

WATCHDOG_SECONDS = 30.0
"""Between two signs of life; the unit's WatchdogSec is longer than any look."""

NOTHING_TO_WATCH_SECONDS = 1.0

LOST_EVENTS = object()
"""Stands for uevents that came faster than they were read."""


def watch() -> int:
    """Run until systemd ends it with SIGTERM, of which it dies.

    An exception out of a signal handler would be lost in a destructor or a callback. All that it does can be cut
    short anywhere, and has to be: so does the power.
    """
    watcher = Watcher()
    notify("READY=1")
    while True:
        watcher.wait()
        watcher.look()
        # Not before the look, which somebody may be waiting for: systemd would take its share of the processor.
        notify("WATCHDOG=1")


class Watcher:
    """Where the hints come from, and what is to be looked at because of them."""

    def __init__(self) -> None:
        self._site: Site | None = None
        self._site_stamp: object = None
        self._agenda = Agenda((), time.monotonic())
        self._rung = False
        self._changes: Stream | None = None
        self._poller = select.poll()
        self._uevents = pyudev.Monitor.from_netlink(pyudev.Context())
        self._uevents.filter_by_tag(TAG)
        self._uevents.start()
        self._addresses = _address_news()
        self._doorbell = _doorbell()
        for source in (self._uevents, self._addresses, self._doorbell):
            self._poller.register(source, select.POLLIN)

    def wait(self) -> None:
        """Sleep until something is due or heard; what is heard goes to the agenda."""
        seconds = min(self._agenda.wait(time.monotonic()), WATCHDOG_SECONDS)
        if not self._poller.poll(seconds * 1000):
            return
        site = self._site
        if site is None:
            time.sleep(NOTHING_TO_WATCH_SECONDS)
            return
        now = time.monotonic()
        for name in {*self._volumes_and_tunnels(site), *self._tunnel_addresses(site)}:
            self._agenda.appeared(name, now)
        for name in self._drbd_changes(site):
            self._agenda.stirred(name, now)
        self._rung |= _drained(self._doorbell)

    def look(self) -> None:
        """Run the circle for what is due, and see to the duties."""
        now = time.monotonic()
        full = self._agenda.full_look_due(now)
        if full or self._site is None:
            self._listen_to_drbd()
        site = self._configuration()
        if site is None:
            self._agenda.due((), now)
            return
        due = self._agenda.due(site.resources, now)
        try:
            for outcome in reconcile(site, due, _say, wait=0) if due else ():
                error = outcome.failed
                if error is not None and not isinstance(error, Refused):
                    _say(f"{outcome.resource}: {error.message} {error.hint}")
                helped = bool(outcome.done) or error is not None
                soon = outcome.soon and error is None
                self._agenda.looked(outcome.resource, time.monotonic(), helped=helped, soon=soon)
            if full or self._rung:
                self._rung = False
                duties.see_to(site, observe(site), _say)
        except OffsiteError as error:
            _say(f"{error.message} {error.hint}")

    def _configuration(self) -> Site | None:
        """As the file says now; as it said before where it has a mistake, for what is served must go on."""
        try:
            status = config.PATH.stat()
            stamp = (status.st_mtime_ns, status.st_ino, status.st_size)
            if stamp != self._site_stamp:
                self._site_stamp = stamp
                self._site = config.load()
        except OSError as error:
            _say(f"{config.PATH} cannot be read: {error.strerror}")
        except OffsiteError as error:
            _say(f"{error.message} {error.hint}")
        return self._site

    def _volumes_and_tunnels(self, site: Site) -> Iterator[str]:
        """The resources that wait for what udev has announced."""
        while (device := self._next_uevent()) is not None:
            if device is LOST_EVENTS:
                yield from site.resources
            elif device.subsystem == "net":
                yield from (r.name for r in _of_interface(site, device.sys_name))
            else:
                volume = VolumeName(device.get("DM_VG_NAME", ""), device.get("DM_LV_NAME", ""))
                yield from (r.name for r in _of_volume(site, volume))

    def _next_uevent(self) -> Any:
        try:
            return self._uevents.poll(timeout=0)
        except OSError:  # ENOBUFS: some were lost
            return LOST_EVENTS

    def _tunnel_addresses(self, site: Site) -> Iterator[str]:
        """The resources whose end of the tunnel has got its address: it comes after the interface's uevent."""
        while True:
            try:
                news = self._addresses.recv(65536)
            except BlockingIOError:
                return
            except OSError:  # ENOBUFS: news were lost
                yield from site.resources
                return
            for address in iproute.appeared(news):
                yield from (r.name for r in _of_address(site, address))

    def _drbd_changes(self, site: Site) -> Iterator[str]:
        """The resources whose state has changed."""
        if self._changes is None:
            return
        for change in filter(None, map(drbd.parse_change, self._changes.lines())):
            if change.resource in site.resources:
                try:
                    _note_connection(change)
                    _note_attach(change)
                    _note_overload(change)
                except OSError as error:  # a full disk, above all
                    _say(f"What has become of {change.resource} could not be noted: {error}")
                if change.new:
                    self._rung |= _asks_for_duties(change)
                    yield change.resource
        if self._changes.ended:
            self._poller.unregister(self._changes)
            self._changes.close()
            self._changes = None

    def _listen_to_drbd(self) -> None:
        """It ends where the module is not loaded, or unloaded; the next full look tries again."""
        if self._changes is None:
            try:
                self._changes = Stream(drbd.CHANGES)
            except OffsiteError as error:
                _say(error.message)
            else:
                self._poller.register(self._changes, select.POLLIN)


def _of_volume(site: Site, volume: VolumeName) -> Iterable[Resource]:
    return (r for r in site.resources.values() if volume in (r.here.volume, r.here.metadata.volume))


def _of_interface(site: Site, device: str) -> Iterable[Resource]:
    return (r for r in site.resources.values() if site.peer_of(r).tunnel.device == device)


def _of_address(site: Site, address: str) -> Iterable[Resource]:
    return (r for r in site.resources.values() if site.address_here(site.peer_of(r)) == address)


def _note_connection(change: drbd.Change) -> None:
    """Since when a resource is not connected: a split brain and every alert will ask for it.

    Two machines that find a split brain are "Connected" for a moment, while they compare; only those that
    replicate are connected again.
    """
    replication = change.keys.get("replication")
    if replication is None:
        return
    lost = change.resource in journal.remembered(LOST)
    if lost and replication != ReplicationState.OFF:
        journal.forget(LOST, change.resource)
        journal.record("connected", change.resource, "The two copies are connected.")
        repair.tail_due(change.resource)  # the other machine may have attached it meanwhile
    elif not lost and replication == ReplicationState.OFF:
        journal.remember(LOST, change.resource, {"since": journal.now()})
        journal.record("connection-lost", change.resource, "The two copies are not connected.")


def _note_attach(change: drbd.Change) -> None:
    """What is there already when the listening begins may have been attached by anybody."""
    if change.kind == "device" and (not change.new or change.keys.get("disk") == DiskState.ATTACHING):
        repair.tail_due(change.resource)


def _asks_for_duties(change: drbd.Change) -> bool:
    """A resync that begins or ends has the kernel told of other limits (plan/congestion.py), and that at once.

    Not in an overload, which has one every few seconds.
    """
    return "replication" in change.keys and change.resource not in journal.remembered(overload.KIND)


def _note_overload(change: drbd.Change) -> None:
    """Whether the line takes what is written, and since when it does not."""
    word = change.keys.get("replication")
    if word is None:
        return
    name = change.resource
    before = overload.from_entry(journal.remembered(overload.KIND).get(name))
    after = overload.followed(before, ReplicationState(word), journal.now())
    if after is None:
        journal.forget(overload.KIND, name)
        if before is not None:
            journal.record("caught-up", name, overload.ended(before.overload))
    elif after != before:
        journal.remember(overload.KIND, name, overload.to_entry(after))
        if before is None:
            journal.record("overload", name, "More is written than the line takes; the server goes ahead.")


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def _address_news() -> socket.socket:
    """tun0's address comes after its uevent and without one of its own; the kernel tells it here."""
    news = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
    news.bind((0, iproute.IPV4_ADDRESSES))
    return news


def _doorbell() -> int:
    """The pipe that a handler writes to. Opened for both directions, so that it never ends."""
    path = Path(doorbell.PATH)
    if not (path.exists() and stat.S_ISFIFO(path.stat().st_mode)):
        path.unlink(missing_ok=True)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        os.mkfifo(path, 0o600)
    return os.open(path, os.O_RDWR | os.O_NONBLOCK)


def _drained(pipe: int) -> bool:
    """Whether somebody has rung."""
    rung = False
    while True:
        try:
            rung |= bool(os.read(pipe, 4096))
        except BlockingIOError:
            return rung
