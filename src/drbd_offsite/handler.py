"""What DRBD's kernel module calls (drbd.conf(5), "handlers"), as ``handler EVENT RESOURCE``.

The exit code is the contract: 0 for every event. The kernel acts on it for before-resync-target alone,
where anything else would drop the connection, and with it the resync that brings the copy up to date.

The kernel waits: standard library only, and nothing here starts a program or asks the network.
"""

import os
import sys
from collections.abc import Mapping, Sequence

from . import journal
from .model import RESOURCE_NAME, Forbidden

TEXTS = {
    "split-brain": "Split brain: both copies have changes that the other lacks.",
    "initial-split-brain": "Split brain: both copies have changes that the other lacks.",
    "out-of-sync": "Online verify found blocks that differ.",
    "before-resync-target": "A resync to this machine begins; until it ends, the copy here is not usable.",
    "after-resync-target": "The resync has ended; the copy here is up to date.",
    "local-io-error": "The volume here had an I/O error and was detached; the peer's copy goes on.",
    "pri-lost": "This machine should no longer be Primary.",
    "pri-lost-after-sb": "This machine lost a split brain that was resolved automatically.",
    "pri-on-incon-degr": "This machine is Primary without a usable copy and without its peer.",
}

HOLDS = {
    "split-brain": frozenset({Forbidden.CONNECT}),
    "local-io-error": frozenset({Forbidden.ATTACH}),
}


def main(arguments: Sequence[str], environment: Mapping[str, str] = os.environ) -> int:
    """Note one event, and the hold that belongs to it."""
    if len(arguments) != 2 or arguments[0] not in TEXTS or not RESOURCE_NAME.fullmatch(arguments[1]):
        _complain(f"called in a way that it is not meant for, nothing was noted ({len(arguments)} arguments)")
        return 0
    event, resource = arguments
    if environment.get("DRBD_RESOURCE", resource) != resource:
        _complain("the resource of the command line is not the one of the environment, nothing was noted")
        return 0
    try:
        if event in HOLDS:
            journal.hold(resource, TEXTS[event].rstrip("."), HOLDS[event], event)
        journal.record(event, resource, TEXTS[event])
    except OSError as error:
        _complain(f"{event} of {resource} could not be noted: {error.strerror}")
    return 0


def _complain(text: str) -> None:
    # The kernel's helpers have no standard streams; its log is where the admin will look.
    try:
        with open("/dev/kmsg", "w", encoding="utf-8") as log:
            log.write(f"<4>drbd-offsite handler: {text}\n")
    except OSError:
        if sys.stderr is not None:  # Python has none where it was started without one
            sys.stderr.write(f"{text}\n")
