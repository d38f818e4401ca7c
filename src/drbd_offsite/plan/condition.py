"""What a person has to know of for as long as it lasts, and how it is put. Pure."""

from dataclasses import dataclass
from datetime import timedelta

from ..model import Resource, Site
from ..observed import ConnectionState, DiskState, Host
from .assess import Level

A_WHILE = timedelta(minutes=2)
"""What is healed by itself is healed by then, and what is just being started is up."""


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


def text(site: Site, host: Host, happened: str, means: str, to_do: str, resource: Resource | None = None) -> str:
    status = "drbd-offsite status" + (f" {resource.name}" if resource else "")
    state = f" {state_of(host, resource)}" if resource else ""
    here = f"This is {host.hostname}, the {site.flavour}.{state} How it is now: {status}"
    return "\n\n".join(paragraph for paragraph in (happened, means, to_do, here) if paragraph) + "\n"


def state_of(host: Host, resource: Resource) -> str:
    """One line, in the kernel's words."""
    seen = host.drbd.get(resource.name)
    if seen is None:
        return f"{resource.name} is not up."
    device = seen.peer_device
    state = seen.connection.state if seen.connection else ConnectionState.STANDALONE
    there = device.disk if device else DiskState.UNKNOWN
    return f"{resource.name} is {seen.role}, {seen.disk} here, {there} there, {state}."
