"""What is known about a split brain: who has changed how much since when, on both sides."""

from .. import journal, peer, protocol
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
    for resource in site.resources.values():
        held = any(hold.set_by == SETTER for hold in host.holds.get(resource.name, ()))
        if held and not known.get(resource.name, {}).get("complete"):
            reason, complete = _reason(site, host, resource)
            journal.remember(KIND, resource.name, {"reason": reason, "complete": complete})
            journal.hold(resource.name, reason, frozenset({Forbidden.CONNECT}), SETTER)
        elif not held and resource.name in known:
            journal.forget(KIND, resource.name)


def _reason(site: Site, host: Host, resource: Resource) -> tuple[str, bool]:
    """What both have changed, and whether the peer's half is in it."""
    there = site.peer_of(resource)
    here = _half(host.hostname, of(host, resource))
    try:
        answer = peer.ask(site, there, protocol.Report(), protocol.MachineReport, seconds=ANSWER_SECONDS)
        theirs = next((_half(answer.hostname, r) for r in answer.resources if r.name == resource.name), "")
    except OffsiteError:
        theirs = ""
    reason = f"split brain: {here}; {theirs or f'what {there.name} has changed is not known, it does not answer'}"
    return reason, bool(theirs)


def _half(hostname: str, half: protocol.ResourceReport) -> str:
    since = f"since {half.disconnected_since}" if half.disconnected_since else "since the connection was lost"
    return f"{hostname} ({half.role}) has changed {amount(half.changed_bytes)} {since}"
