"""What is known about a split brain: who has changed how much since when, on both sides."""

from functools import cache

from .. import journal, messages, peer
from ..errors import OffsiteError
from ..model import Resource, Site
from ..observed import Forbidden, Host
from ..plan.assess import amount
from .report import of

SETTER = "split-brain"
"""The hold that the handler sets; its reason is replaced by the evidence."""

KIND = "split-brains"
ANSWER_SECONDS = 15.0


def gather(site: Site, host: Host) -> None:
    """Complete the reason of each new split brain's hold; the peer is asked for its half until it answers."""
    known = journal.remembered(KIND)
    # One question for all resources: a peer that is silent is waited for once.
    asked = cache(lambda name: _ask(site, name))
    for resource in site.resources.values():
        held = any(hold.set_by == SETTER for hold in host.holds.get(resource.name, ()))
        if held and not known.get(resource.name, {}).get("complete"):
            reason, complete = _reason(host, resource, asked(resource.peer))
            journal.remember(KIND, resource.name, {"complete": complete})
            journal.hold(resource.name, reason, frozenset({Forbidden.CONNECT}), SETTER)
        elif not held and resource.name in known:
            journal.forget(KIND, resource.name)


def _ask(site: Site, name: str) -> messages.MachineReport | None:
    try:
        return peer.ask(site, site.peers[name], messages.Report(), messages.MachineReport, seconds=ANSWER_SECONDS)
    except OffsiteError:
        return None


def _reason(host: Host, resource: Resource, answer: messages.MachineReport | None) -> tuple[str, bool]:
    """What both have changed, and whether the peer's half is in it."""
    here = _half(host.hostname, of(host, resource))
    reports = answer.resources if answer else []
    theirs = next((_half(answer.hostname, r) for r in reports if answer and r.name == resource.name), "")
    reason = f"split brain: {here}; {theirs or f'what {resource.peer} has changed is not known, it does not answer'}"
    return reason, bool(theirs)


def _half(hostname: str, half: messages.ResourceReport) -> str:
    since = f"since {half.disconnected_since}" if half.disconnected_since else "since the connection was lost"
    return f"{hostname} ({half.role}) has changed {amount(half.changed_bytes)} {since}"
