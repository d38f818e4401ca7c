"""What DRBD's kernel module calls (drbd.conf(5), "handlers"), as ``handler EVENT RESOURCE [VOLUME POLICY]``.

The exit code is the contract. It is 0 for every event, whatever went wrong here, but for one:
before-resync-target ends with 1, and DRBD drops the connection, where the configuration requires a restore
point and there is none.

The kernel waits. So the event is put into the journal, the hold that belongs to it on disk, and the
watcher woken, by a few system calls; all else is the watcher's. Only the snapshot before a resync is
taken here, because the first block is overwritten when this returns.
"""

from __future__ import annotations

import os
import time

from . import doorbell, durable

TYPE_CHECKING = False  # typing itself is too slow to load
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

STATE = "/var/lib/drbd-offsite"
VOLATILE = "/run/drbd-offsite"

TEXTS = {
    "split-brain": "Split brain: both copies have changes that the other lacks.",
    "initial-split-brain": "DRBD has found a split brain and looks whether its rules resolve it.",
    "out-of-sync": "Online verify found blocks that differ.",
    "before-resync-target": "A resync to this machine begins; until it ends, the copy here is not usable.",
    "after-resync-target": "The resync has ended; the copy here is up to date.",
    "local-io-error": "The volume here had an I/O error and was detached; the peer's copy goes on.",
    "pri-lost": "This machine should no longer be Primary.",
    "pri-lost-after-sb": "This machine lost a split brain that was resolved automatically.",
    "pri-on-incon-degr": "This machine is Primary without a usable copy and without its peer.",
}

HOLDS = {
    "split-brain": ("split brain: both copies have changes that the other lacks", "connect"),
    "local-io-error": ("the volume here had an I/O error and was detached", "attach"),
}
"""Reason, and what is forbidden until a person says otherwise."""

KERNEL_LOG_BYTES = 900
"""It takes no line of more than 976 (printk.c, LOG_LINE_MAX)."""

SNAPSHOTS = ("before-resync-target", "after-resync-target")

_NAME = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-")


def main(arguments: Sequence[str], environment: Mapping[str, str] = os.environ) -> int:
    """Note one event, and do what cannot wait."""
    if refusal := _refusal(arguments, environment):
        _complain(f"{refusal}; nothing was done")
        return 0
    event, resource = arguments[:2]
    try:
        if event in HOLDS:
            _hold(event, resource)
        _record(event, resource)
    except OSError as error:
        _complain(f"{event} of {resource} could not be noted: {error.strerror}")
    code = _snapshot(event, resource, int(environment["DRBD_MINOR"]), *arguments[2:]) if event in SNAPSHOTS else 0
    doorbell.ring()
    return code


def _refusal(arguments: Sequence[str], environment: Mapping[str, str]) -> str:
    """Why a call is not one of DRBD's; empty for one that is. What it says has no word of the caller's."""
    if len(arguments) < 2 or arguments[0] not in TEXTS:
        return f"called in a way that it is not meant for ({len(arguments)} arguments)"
    if len(arguments) != (4 if arguments[0] in SNAPSHOTS else 2):
        return f"{arguments[0]} with {len(arguments)} arguments"
    resource = arguments[1]
    # The rule of model.RESOURCE_NAME, without loading it.
    if not 0 < len(resource) <= 63 or not _NAME.issuperset(resource) or resource[0] in "_.-":
        return "called for what is no resource's name"
    if environment.get("DRBD_RESOURCE") != resource:
        return "the resource of the command line is not the one of the environment"
    minor = environment.get("DRBD_MINOR", "")
    if not (len(minor) <= 7 and minor.isascii() and minor.isdigit()):
        return "DRBD_MINOR is no number"
    return ""


# All that goes into these lines is from the tables above or was checked letter by letter, so nothing in them
# has to be escaped. json and datetime would double the time that the kernel waits.


def _stamp() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime())


def _record(event: str, resource: str) -> None:
    line = f'{{"at": "{_stamp()}", "event": "{event}", "resource": "{resource}", "text": "{TEXTS[event]}"}}'
    os.makedirs(STATE, mode=0o700, exist_ok=True)
    durable.append(f"{STATE}/events.jsonl", line.encode())


def _hold(event: str, resource: str) -> None:
    """As journal.hold does; below /run where the disk is full, so that until the next boot it holds all the same."""
    reason, step = HOLDS[event]
    entry = f'{{"reason": "{reason}", "forbids": ["{step}"], "since": "{_stamp()}"}}\n'
    for place in (STATE, VOLATILE):
        try:
            os.makedirs(f"{place}/holds", mode=0o700, exist_ok=True)
            durable.replace(f"{place}/holds/{resource}+{event}.json", entry.encode(), 0o600)
        except OSError as error:
            _complain(f"the hold for {resource} could not be kept below {place}: {error.strerror}")
        else:
            return


def _snapshot(event: str, resource: str, minor: int, volume: str, policy: str) -> int:
    from .operations import restore_point

    if event == "before-resync-target":
        return restore_point.before_resync(resource, minor, volume, policy, _complain)
    return restore_point.after_resync(resource, volume, _complain)


def _complain(text: str) -> None:
    # The kernel's helpers have no standard streams; its log is where the admin will look.
    try:
        log = os.open("/dev/kmsg", os.O_WRONLY)
    except OSError:
        return
    try:
        os.write(log, f"<4>drbd-offsite handler: {text}".encode(errors="replace")[:KERNEL_LOG_BYTES] + b"\n")
    except OSError:
        pass
    finally:
        os.close(log)
