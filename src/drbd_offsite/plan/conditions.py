"""What is wrong as this machine sees it, in the words of an alert. Pure; `alerts` decides who is told when."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

from ..model import Alerts, Flavour, Peer, Resource, Site
from ..observed import Forbidden, Host
from . import drilled, slices
from .assess import ASKED_FOR, Level, duration, explain
from .condition import A_WHILE, Condition, text
from .faults import FAULTS, faults
from .pace import Verdict, pace

TOO_SLOW = timedelta(hours=1)
"""A burst of writes is over by then."""

UNFINISHED = timedelta(hours=1)
"""Whoever has begun an operation is expected to see its end."""


def conditions(site: Site, host: Host, lost: Mapping[str, Mapping[str, Any]]) -> tuple[Condition, ...]:
    """All that is wrong now; ``lost`` says since when a resource is not connected (``since``, ISO 8601).

    Of a host that is blind nothing can be said about DRBD: what is missing here then may still be true.
    """
    of_resources = [*_operations(site, host), *_holds(site, host), *_drills(site, host)]
    silent: list[Condition] = []
    if not host.blind:
        for resource in site.resources.values():
            of_resources += faults(site, host, resource, _since(lost, [resource]))
            of_resources += _behind(site, host, resource)
            of_resources += _not_compared(site, host, resource)
        for peer in site.peers.values():
            silent += _silence(site, host, peer, lost)
    heard = [replace(condition, muted=_muted(site, condition.key)) for condition in of_resources]
    return (*_sight(site, host), *heard, *silent)


_NO_FAULT = (
    "unprotected",
    "overload",
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
            text(site, host, happened, means, "drbd-offsite doctor says what to do about it."),
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
            text(
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
                text(site, host, happened, means, " ".join(to_do), site.resources.get(name)),
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
                text(site, host, trouble.happened, trouble.means, trouble.to_do, site.resources[name]),
            )


def _behind(site: Site, host: Host, resource: Resource) -> Iterator[Condition]:
    """A copy that is too old, and one that will only get older. Where a hold keeps it from connecting, a person wants
    it so, or has been told why.
    """
    name = resource.name
    if host.held(name, Forbidden.CONNECT) is not None:
        return
    lost = FAULTS["unprotected"]
    means = lost.on_server if site.flavour is Flavour.SERVER else lost.on_backup
    age = host.ages.get(name, 0.0)
    if 0 < site.age_minutes * 60 < age:
        yield Condition(
            f"{name} old",
            Level.UNPROTECTED,
            f"{name} on {host.hostname}: its copy is too old",
            text(
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
            text(
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
            text(site, host, trouble.happened, trouble.means, trouble.to_do, resource),
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
            text(
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
