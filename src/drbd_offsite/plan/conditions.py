"""What is wrong as this machine sees it, in the words of an alert. Pure; `alerts` decides who is told when."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from ..model import Alerts, Flavour, Peer, Resource, Site
from ..observed import ConnectionState, DiskState, Forbidden, Host, ReplicationState, Role
from . import drilled, slices
from .assess import ASKED_FOR, Level, assess, duration, explain
from .pace import Verdict, pace

A_WHILE = timedelta(minutes=2)
"""What is healed by itself is healed by then, and what is just being started is up."""

TOO_SLOW = timedelta(hours=1)
"""A burst of writes is over by then."""

UNFINISHED = timedelta(hours=1)
"""Whoever has begun an operation is expected to see its end."""


@dataclass(frozen=True, slots=True)
class Condition:
    """Something that a person has to know of for as long as it lasts."""

    key: str
    """The same from look to look, whatever the text says meanwhile: ``test_a split-brain``."""
    level: Level
    subject: str
    text: str
    """What happened, what it means for the data, what to do; a paragraph each."""
    patience: timedelta = timedelta()
    """So long it has to last before anybody is told."""
    muted: bool = False
    """The configuration wants nobody told."""


def conditions(site: Site, host: Host, lost: Mapping[str, Mapping[str, Any]]) -> tuple[Condition, ...]:
    """All that is wrong now; ``lost`` says since when a resource is not connected (``since``, ISO 8601).

    Of a host that is blind nothing can be said about DRBD: what is missing here then may still be true.
    """
    of_resources = [*_operations(site, host), *_holds(site, host), *_drills(site, host)]
    silent: list[Condition] = []
    if not host.blind:
        for resource in site.resources.values():
            of_resources += _faults(site, host, resource, _since(lost, [resource]))
            of_resources += _behind(site, host, resource)
            of_resources += _not_compared(site, host, resource)
        for peer in site.peers.values():
            silent += _silence(site, host, peer, lost)
    heard = [replace(condition, muted=_muted(site, condition.key)) for condition in of_resources]
    return (*_sight(site, host), *heard, *silent)


_NO_FAULT = (
    "unprotected",
    "old",
    "too-slow",
    "restore-point",
    "discards",
    "returning",
    "drill-findings",
    "drill-overdue",
    "verify-overdue",
)
"""Of a resource: both copies are good for what they are, and the data is served, or a person has chosen otherwise."""


def _muted(site: Site, key: str) -> bool:
    """Whether the resource's ``alerts`` leaves out one of its conditions."""
    name, _, kind = key.partition(" ")
    match site.resources[name].alerts if name in site.resources else Alerts.ALL:
        case Alerts.ALL:
            return False
        case Alerts.FAULTS:
            return kind in _NO_FAULT or kind.endswith("-unfinished")
        case Alerts.NONE:
            return True


def _sight(site: Site, host: Host) -> Iterator[Condition]:
    if host.problems:
        means = (
            "DRBD's state is not known, so neither is whether the data is served and replicated."
            if host.blind
            else "What runs goes on; what depends on that is neither done nor watched."
        )
        happened = " ".join(f"{problem.rstrip('.')}." for problem in host.problems)
        yield Condition(
            "problems",
            Level.BROKEN,
            f"{host.hostname}: not everything can be seen",
            _text(site, host, happened, means, "drbd-offsite doctor says what to do about it."),
            A_WHILE,
        )


def _operations(site: Site, host: Host) -> Iterator[Condition]:
    for operation in host.operations.values():
        verb = operation.finished_by
        where = "" if site.flavour is Flavour.SERVER else operation.finished_where
        lacking = " What it was to set up is not replicated yet." if verb == "add" else ""
        yield Condition(
            f"{operation.resource} {operation.verb}-unfinished",
            Level.BROKEN,
            f"{operation.resource} on {host.hostname}: {verb} is not finished",
            _text(
                site,
                host,
                f"{verb} of {operation.resource} was begun at {operation.since} and is not finished.",
                f"Nothing is lost.{lacking}",
                f"Run the same drbd-offsite {verb} again{where}; it goes on where it was.",
            ),
            UNFINISHED,
        )


# What a setter's hold or remark is called, and what it means for the data.
_ABOUT = {
    "split-brain": (
        "split brain",
        "Each copy keeps what it has. Nothing is replicated until a person decides whose changes are given up.",
    ),
    "local-io-error": (
        "disk error",
        "The other machine's copy goes on. Until this one is attached again it is the only one.",
    ),
    "taken-over": (
        "the backup has taken over",
        "The newest data is on the backup. Nothing is served from here, so that the two do not part.",
    ),
    "failover": (
        "this machine has taken over",
        "The data is served from here, and what is written has no second copy until failback.",
    ),
    "out-of-sync": (
        "the copies differ",
        "What is served is not affected. The backup's copy is wrong in these blocks until they have been sent again.",
    ),
    "suspicious": (
        "the copies differ again and again",
        "A disk, memory, or a program that changes what it is writing: do not rely on either copy of these blocks.",
    ),
}
_NO_RESTORE_POINT = "Nothing is lost. Nothing is replicated before there is room, so what is kept here gets older."
_OVERWRITTEN = "A resync that breaks off for good leaves no usable copy on this machine; the other one is not affected."


def _holds(site: Site, host: Host) -> Iterator[Condition]:
    for name, holds in host.holds.items():
        for hold in holds:
            if hold.set_by in ASKED_FOR:
                continue
            title, means = _ABOUT.get(hold.set_by, (hold.set_by.replace("-", " "), ""))
            if hold.set_by == "restore-point":
                title, means = "no restore point", _NO_RESTORE_POINT if hold.forbids else _OVERWRITTEN
            happened, *to_do = explain(hold)
            to_do = to_do or [f"drbd-offsite events {name} has more."]
            yield Condition(
                f"{name} {hold.set_by}",
                Level.BROKEN,
                f"{name} on {host.hostname}: {title or 'held'}",
                _text(site, host, happened, means, " ".join(to_do), site.resources.get(name)),
                # A person has just asked for it (connect --discard-here), and may forget it.
                timedelta(minutes=site.unprotected_minutes) if hold.set_by == "discards" else timedelta(),
            )


def _drills(site: Site, host: Host) -> Iterator[Condition]:
    for name, known in host.drills.items():
        if name not in site.resources:
            continue  # it is being renamed, or has just gone
        for trouble in drilled.troubles(site, name, known):
            yield Condition(
                f"{name} {trouble.key}",
                Level.BROKEN,
                f"{name} on {host.hostname}: {trouble.title}",
                _text(site, host, trouble.happened, trouble.means, trouble.to_do, site.resources[name]),
            )


@dataclass(frozen=True, slots=True)
class _Fault:
    """Something that the state of a resource shows; what it means depends on the machine."""

    title: str
    level: Level
    on_server: str
    on_backup: str
    to_do: str


_FAULTS = {
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

_OF_THE_LINE = ("unprotected", "unusable", "differs")
"""Faults that may pass by themselves, for as long as the configuration lets them."""


def _faults(site: Site, host: Host, resource: Resource, since: str) -> Iterator[Condition]:
    for name in _seen(site, host, resource):
        fault = _FAULTS[name]
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
            _text(site, host, " ".join(sentences), means, fault.to_do.format(resource.name), resource),
            lasting,
        )


def _seen(site: Site, host: Host, resource: Resource) -> Iterator[str]:
    """Which of `_FAULTS` there are. What a hold forbids is no fault: a person wants it so, or has been told why."""
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
    if not seen.connected or replication in (ReplicationState.AHEAD, ReplicationState.BEHIND):
        if Forbidden.CONNECT in wanted:
            broken_off = seen.disk is DiskState.INCONSISTENT and not seen.connected
            yield "unusable" if broken_off else "unprotected"
    elif device and replication is ReplicationState.ESTABLISHED and device.out_of_sync_bytes and not remarked:
        yield "differs"


def _behind(site: Site, host: Host, resource: Resource) -> Iterator[Condition]:
    """A copy that is too old, and one that will only get older. Where a hold keeps it from connecting, a person wants
    it so, or has been told why.
    """
    name = resource.name
    if host.held(name, Forbidden.CONNECT) is not None:
        return
    lost = _FAULTS["unprotected"]
    means = lost.on_server if site.flavour is Flavour.SERVER else lost.on_backup
    age = host.ages.get(name, 0.0)
    if 0 < site.age_minutes * 60 < age:
        yield Condition(
            f"{name} old",
            Level.UNPROTECTED,
            f"{name} on {host.hostname}: its copy is too old",
            _text(
                site,
                host,
                f"The copy of {name} has everything up to {duration(int(age))} ago; {site.age_minutes} minutes are "
                "allowed (age_minutes).",
                means,
                f"drbd-offsite history {name} says whether it catches up, and since when it does not; drbd-offsite "
                "doctor names what is wrong with the line.",
                resource,
            ),
        )
    known = pace(site, host, resource)
    if known is not None and known.verdict is Verdict.NEVER:
        yield Condition(
            f"{name} too-slow",
            Level.UNPROTECTED,
            f"{name} on {host.hostname}: it will never catch up",
            _text(
                site,
                host,
                known.sentence,
                means,
                f"Get a faster link, or write less: drbd-offsite history {name} --since 7d shows when how much is "
                "written. If the line is faster than that, link_speed in drbd-offsite.conf is too low.",
                resource,
            ),
            TOO_SLOW,
        )


def _not_compared(site: Site, host: Host, resource: Resource) -> Iterator[Condition]:
    for trouble in slices.troubles(site, host, resource.name):
        yield Condition(
            f"{resource.name} {trouble.key}",
            Level.UNPROTECTED,
            f"{resource.name} on {host.hostname}: {trouble.title}",
            _text(site, host, trouble.happened, trouble.means, trouble.to_do, resource),
        )


def _silence(site: Site, host: Host, peer: Peer, lost: Mapping[str, Mapping[str, Any]]) -> Iterator[Condition]:
    """The dead man's alert: no resource that wants to be connected is."""
    speaking = [
        resource
        for resource in site.resources.values()
        if resource.peer == peer.name
        and resource.name in host.drbd
        and host.held(resource.name, Forbidden.CONNECT) is None
    ]
    if speaking and not any(host.drbd[resource.name].connected for resource in speaking):
        since = _since(lost, speaking)
        yield Condition(
            f"{peer.name} silent",
            Level.UNPROTECTED,
            f"{peer.name} has not been heard of by {host.hostname}",
            _text(
                site,
                host,
                f"Nothing has been heard of {peer.name} for {site.silence_hours} hours or more"
                + (f", since {since}." if since else "."),
                "Whether that machine and its copies still exist is not known from here.",
                f"Reach it by another way. If it runs, see to the line: ping {site.address_there(peer)}, and "
                "drbd-offsite doctor on both.",
            ),
            timedelta(hours=site.silence_hours),
        )


def _since(lost: Mapping[str, Mapping[str, Any]], resources: Iterable[Resource]) -> str:
    """The last instant at which one of them was lost; empty where none was noted."""
    return max((str(lost.get(resource.name, {}).get("since", "")) for resource in resources), default="")


def _text(site: Site, host: Host, happened: str, means: str, to_do: str, resource: Resource | None = None) -> str:
    status = "drbd-offsite status" + (f" {resource.name}" if resource else "")
    state = f" {_state(host, resource)}" if resource else ""
    here = f"This is {host.hostname}, the {site.flavour}.{state} How it is now: {status}"
    return "\n\n".join(paragraph for paragraph in (happened, means, to_do, here) if paragraph) + "\n"


def _state(host: Host, resource: Resource) -> str:
    """One line, in the kernel's words."""
    seen = host.drbd.get(resource.name)
    if seen is None:
        return f"{resource.name} is not up."
    device = seen.peer_device
    state = seen.connection.state if seen.connection else ConnectionState.STANDALONE
    there = device.disk if device else DiskState.UNKNOWN
    return f"{resource.name} is {seen.role}, {seen.disk} here, {there} there, {state}."
