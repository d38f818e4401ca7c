"""The watcher's duty of comparing volumes slice by slice, in the hours and at the rate of ``[verify]``.

What a slice has found is read and followed up by `repair`, as of any other verify, and so is how far it has come.
"""

from dataclasses import replace
from datetime import datetime

from .. import files, journal
from ..errors import Refused, ToolFailed
from ..host import observe
from ..model import Flavour, Site
from ..observed import Host
from ..plan import slices as plan
from ..plan.findings import Cause, Check
from ..plan.repair import Compare
from ..remembered import Round
from . import repair, schedule


def follow_up(site: Site, host: Host) -> None:
    """Note rounds that are whole, and begin what is due. Raises ToolFailed where a slice cannot be begun."""
    _wait_for_rounds(site, host)
    _end_rounds(host)
    # The hours of [verify] are those of the clock on the wall.
    at = _now().astimezone()
    if not site.verify.days or at not in site.verify.hours:
        return
    idle = repair.idle(site, host)
    for peer in site.peers:
        piece = plan.due(site, host, peer, idle, at)
        if piece is None:
            continue
        try:
            with files.lock(f"resource-{piece.resource}", 0.0):
                # A look of its own: what was done since that one may have taken the line.
                _begin(site, observe(site), piece, at)
        except Refused:
            pass  # another command is at work on it; there is a next look


def _wait_for_rounds(site: Site, host: Host) -> None:
    """From when on a resource is compared from here, its rounds are waited for."""
    here = site.resources.keys() if site.flavour is Flavour.SERVER else site.resources.keys() & host.serving
    wanted = set(here) if site.verify.days else set()
    for name in wanted - host.rounds.keys():
        journal.remember(plan.KIND, name, plan.as_entry(Round(_now())))
    # What is being renamed or removed is known by its old name until that has ended.
    unfinished = {operation.resource for operation in host.operations.values()}
    for gone in journal.remembered(plan.KIND).keys() - wanted - unfinished:
        journal.forget(plan.KIND, gone)


def _end_rounds(host: Host) -> None:
    for name, known in host.rounds.items():
        if plan.whole(known, host.drbd.get(name)):
            journal.remember(plan.KIND, name, plan.as_entry(plan.ended(known, _now())))
            text = "The two copies were compared from beginning to end, slice by slice."
            journal.record("verify-round", name, text, since=plan.text(known.since))


def _begin(site: Site, host: Host, expected: plan.Slice, at: datetime) -> None:
    """Under its lock."""
    name = expected.resource
    resource = site.resources[name]
    piece = plan.due(site, host, resource.peer, repair.idle(site, host), at)
    if piece is None or (piece.resource, piece.start) != (name, expected.start):
        return  # one has ended a moment ago: before the next, whoever waits for the resource has it for a minute
    journal.remember(plan.KIND, name, plan.as_entry(piece.round))
    check = Check(journal.now(), piece.start, piece.stop, cause=Cause.SLICE, reached=piece.start)
    stop = None if piece.last else piece.stop
    schedule.tell(site, host, name)
    try:
        repair.compare(site, resource, Compare(replace(repair.known(name), check=check), piece.start, stop))
    except ToolFailed:
        missed = replace(piece.round, broken_off=piece.round.broken_off + 1, broken_off_at=_now())
        journal.remember(plan.KIND, name, plan.as_entry(missed))
        raise


def _now() -> datetime:
    return datetime.fromisoformat(journal.now())
