"""What the state of a resource shows to be wrong, in the words of an alert. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta

from ..model import Flavour, Resource, Site
from ..observed import DiskState, Forbidden, Host, ReplicationState, Role
from .assess import Level, assess
from .condition import A_WHILE, Condition, text


@dataclass(frozen=True, slots=True)
class _Fault:
    """Something that the state of a resource shows; what it means depends on the machine."""

    title: str
    level: Level
    on_server: str
    on_backup: str
    to_do: str


FAULTS = {
    "not-up": _Fault(
        "it is not up",
        Level.BROKEN,
        "Nobody can use the volume, and nothing is replicated. What was written before is where it was.",
        "Nothing is copied to this machine. The server goes on and notes what changes.",
        "drbd-offsite plan {0} says what is in the way; drbd-offsite up {0} tries again.",
    ),
    "detached": _Fault(
        "its volume is detached",
        Level.BROKEN,
        "While the two are connected, the data is served from the other machine's copy, the only one. Without the "
        "connection it is not served.",
        "Nothing is copied to this machine. The server goes on and notes what changes.",
        "See the kernel's log for the disk (journalctl -k). drbd-offsite plan {0} says what is in the way; "
        "drbd-offsite up {0} tries again.",
    ),
    "not-served": _Fault(
        "it is not served",
        Level.BROKEN,
        "Nobody can use the volume. What was written before is where it was.",
        "",
        "drbd-offsite plan {0} says what is in the way; drbd-offsite up {0} tries again.",
    ),
    "unprotected": _Fault(
        "what is written does not reach the backup",
        Level.UNPROTECTED,
        "The data is served as ever. If this machine were lost now, what was written since then would be lost with it.",
        "The copy here is as it was then. If the server were lost now, what it wrote since then would be lost with it.",
        "See to the line and to the other machine; drbd-offsite doctor names what is wrong. What is missing is sent "
        "by itself when they are connected again.",
    ),
    "overload": _Fault(
        "more is written than the line takes",
        Level.UNPROTECTED,
        "The data is served as ever. If this machine were lost now, the backup would take over from its restore point: "
        "what was written since then would be lost.",
        "The copy here is in the middle of being brought up to date, over and over. If the server were lost now, the "
        "restore point would take over: what was written since then would be lost.",
        "It catches up by itself when less is written; drbd-offsite history {0} shows when how much is. If that is so "
        "each day, get a faster line, or move what writes so much to a volume that is not replicated.",
    ),
    "unusable": _Fault(
        "there is no usable copy here",
        Level.BROKEN,
        "A resync to this machine was broken off. Nobody can use the volume before it has been completed.",
        "A resync was broken off. If the server were lost now, this copy could not take over; the state from before "
        "the resync may be in a snapshot beside it (lvs).",
        "See to the line and to the other machine; drbd-offsite doctor names what is wrong. The resync goes on by "
        "itself when they are connected again.",
    ),
    "differs": _Fault(
        "the copies differ",
        Level.BROKEN,
        "What is served is not affected. The backup's copy is wrong in some blocks until they have been sent again.",
        "The copy here is wrong in some blocks until they have been sent again.",
        "They are sent by themselves at a quiet moment, unless something is held; drbd-offsite plan {0} says what is "
        "in the way.",
    ),
}

_OF_THE_LINE = ("unprotected", "overload", "unusable", "differs")
"""Faults that may pass by themselves, for as long as the configuration lets them."""


def faults(site: Site, host: Host, resource: Resource, since: str) -> Iterator[Condition]:
    for name in _seen(site, host, resource):
        fault = FAULTS[name]
        # Holds and operations are told of on their own.
        sentences = assess(site, replace(host, holds={}, operations={}, drills={}), resource).sentences
        if name in ("unprotected", "unusable") and since:
            sentences = (*sentences, f"The connection was lost at {since}.")
        lasting = timedelta(minutes=site.unprotected_minutes) if name in _OF_THE_LINE else A_WHILE
        means = fault.on_server if site.flavour is Flavour.SERVER else fault.on_backup
        yield Condition(
            f"{resource.name} {name}",
            fault.level,
            f"{resource.name} on {host.hostname}: {fault.title}",
            text(site, host, " ".join(sentences), means, fault.to_do.format(resource.name), resource),
            lasting,
        )


def _seen(site: Site, host: Host, resource: Resource) -> Iterator[str]:
    """Which of `FAULTS` there are. What a hold forbids is no fault: a person wants it so, or has been told why."""
    seen = host.drbd.get(resource.name)
    wanted = {step for step in Forbidden if host.held(resource.name, step) is None}
    if seen is None:
        if Forbidden.ATTACH in wanted:
            yield "not-up"
        return
    if seen.disk in (DiskState.DISKLESS, DiskState.FAILED):
        if Forbidden.ATTACH in wanted:
            yield "detached"
    elif site.flavour is Flavour.SERVER and seen.role is not Role.PRIMARY and Forbidden.PROMOTE in wanted:
        yield "not-served"
    device = seen.peer_device
    replication = device.replication if device else ReplicationState.OFF
    # A remark says it better, where there is one.
    remarked = {hold.set_by for hold in host.holds.get(resource.name, ())} & {"out-of-sync", "suspicious"}
    overload = host.overloads.get(resource.name)
    if overload and overload.lasting and (replication.one_is_ahead or replication.resyncing):
        yield "overload"
    elif not seen.connected or replication.one_is_ahead:
        if Forbidden.CONNECT in wanted:
            broken_off = seen.disk is DiskState.INCONSISTENT and not seen.connected
            yield "unusable" if broken_off else "unprotected"
    elif device and replication is ReplicationState.ESTABLISHED and device.out_of_sync_bytes and not remarked:
        yield "differs"
