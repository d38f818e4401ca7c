"""``failback`` and ``switchover``: look at both machines, take the one next step where it belongs, look again."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from .. import files, journal, messages, peer
from ..errors import OffsiteError, Refused
from ..host import observe
from ..model import Flavour, Resource, Site, Turn
from ..observed import ConnectionState, DiskState, Host, ReplicationState, Role
from ..plan import handover as plan
from ..plan.assess import amount, duration
from ..plan.handover import Over, Standing, Step
from ..tools import drbd
from .turn import stance, take

LOOK_SECONDS = 1.0
FIND_SECONDS = 90.0
"""For two machines to find each other: connect-int is 15 s (templates/resource.res.j2)."""
SETTLE_SECONDS = 300.0
PROGRESS_SECONDS = 5.0
STEPS = 30
TRIES = 2
"""Of the same step; what undoes it would undo it again."""

Tell = Callable[[str], None]
Consent = Callable[[Step], bool]
"""Whether a step that cuts its users off may be taken now."""


@dataclass(frozen=True, slots=True)
class Outcome:
    complete: bool
    """False where it was not wanted that users are cut off now; both copies are up to date by then."""
    stood_still_seconds: float | None = None
    """From the moment at which one machine was told to stop until the other served; None where nobody was cut off."""
    kept: tuple[str, ...] = ()
    """Snapshots of what was given up, with their machines."""


def hand_over(
    site: Site,
    resource: Resource,
    want: Flavour,
    *,
    keep: Flavour | None = None,
    safety_net: bool = True,
    consent: Consent,
    tell: Tell,
) -> Outcome:
    """Bring it about that ``want`` serves a resource and both copies are up to date, or go on doing so.

    Raises Refused where a person has to decide, or a step is not possible, PeerUnreachable.
    """
    taken: dict[tuple[Flavour, Turn], int] = {}
    stopped: float | None = None
    stood_still: float | None = None
    with files.lock(f"handover-{resource.name}", 0.0):
        for _ in range(STEPS):
            step, sides = _settled(site, resource, want, keep, bool(taken), tell)
            if isinstance(step, Over):
                kept = tuple(f"{side.kept} on the {where}" for where, side in sides.items() if side.kept)
                return _over(resource, want, Outcome(True, stood_still, kept))
            if sides[step.where].hindered and (step.where, step.turn) in taken:
                raise Refused(
                    f"Nothing was overwritten on the {step.where}: {sides[step.where].hindered}.",
                    "Give its volume group room (vgextend) and run the same command again; or, if what is there may be "
                    "lost for good: --without-safety-net.",
                )
            if step.interrupts and not consent(step):
                return Outcome(False)
            taken[step.where, step.turn] = taken.get((step.where, step.turn), 0) + 1
            if taken[step.where, step.turn] > TRIES:
                raise OffsiteError(
                    f"{step.turn} on the {step.where} has no effect on {resource.name}.",
                    f"drbd-offsite status and events {resource.name}, on both machines, say why. Nothing was given up "
                    "that was not said; the same command goes on from here.",
                )
            tell(f"{resource.name}: {step.turn} on the {step.where}  # {step.why}")
            if step.turn is Turn.YIELD:
                stopped = time.monotonic()
            _take(site, resource, step, step.keep and safety_net, tell)
            if step.turn is Turn.SERVE and stopped is not None:
                stood_still = time.monotonic() - stopped
    raise OffsiteError("There is no end to the steps of this handover.", "Report this with drbd-offsite events.")


def _over(resource: Resource, want: Flavour, outcome: Outcome) -> Outcome:
    if outcome.stood_still_seconds is not None:
        seconds = round(outcome.stood_still_seconds, 1)
        text = f"The {want} serves it, and both copies are up to date. It stood still for {seconds} s."
        journal.record("handed-over", resource.name, text, seconds=seconds)
    return outcome


def _settled(
    site: Site, resource: Resource, want: Flavour, keep: Flavour | None, begun: bool, tell: Tell
) -> tuple[Step | Over, plan.Sides]:
    """The next step and how it stands on both machines, after what has to be waited for."""
    told, since, patience = "", time.monotonic(), 0.0
    while True:
        sides = _look(site, resource, FIND_SECONDS if begun else 0.0)
        decided = plan.decide(sides, want, keep)
        if not isinstance(decided, plan.Wait):
            return decided, sides
        if decided.reason != told:
            told, since = decided.reason, time.monotonic()
            patience = FIND_SECONDS if not sides[site.flavour].connected else SETTLE_SECONDS
            tell(f"{resource.name}: waiting until {told}")
        if _resync_seen(site, resource, tell):
            since = time.monotonic()
        elif time.monotonic() - since > patience:
            raise OffsiteError(
                f"{resource.name}: it was waited until {told}, for {patience:.0f} s, and that did not come.",
                f"drbd-offsite status {resource.name} on both machines says what is in the way; the same command goes "
                "on from here.",
            )
        time.sleep(LOOK_SECONDS)


def _look(site: Site, resource: Resource, patience: float) -> plan.Sides:
    """How it stands on both machines. One of them may not be able to say for a moment: 8.4 tells nobody anything while
    its before-resync-target handler takes a snapshot.
    """
    until = time.monotonic() + patience
    while True:
        try:
            return {site.flavour: _standing(stance(site, resource)), site.flavour.other: _ask(site, resource)}
        except OffsiteError:
            if time.monotonic() >= until:
                raise
            time.sleep(LOOK_SECONDS)


def _resync_seen(site: Site, resource: Resource, tell: Tell) -> bool:
    """Wait here, where it costs little, while a resync runs; whether one was running."""
    seen_any, told_at = False, 0.0
    while True:
        host = observe(site)
        seen = host.drbd.get(resource.name)
        device = seen.peer_device if seen and seen.connected else None
        if device is None or not device.replication.resyncing:
            return seen_any
        seen_any = True
        if time.monotonic() - told_at >= PROGRESS_SECONDS:
            told_at = time.monotonic()
            tell(_progress(host, resource, device.out_of_sync_bytes))
        time.sleep(LOOK_SECONDS)


def _progress(host: Host, resource: Resource, left: int) -> str:
    progress = host.progress.get(resource.here.minor)
    text = f"{resource.name}: {amount(left)} left"
    if progress and progress.speed_bytes:
        text += f", {amount(progress.speed_bytes)}/s"
    if progress and progress.finish_seconds is not None:
        text += f", about {duration(progress.finish_seconds)} to go"
    return text


def _ask(site: Site, resource: Resource) -> Standing:
    request = messages.Stand(resource.name)
    return _standing(peer.ask(site, site.peer_of(resource), request, messages.Stance))


def _standing(stance: messages.Stance) -> Standing:
    return Standing(
        Role(stance.role),
        DiskState(stance.disk),
        ConnectionState(stance.connection),
        ReplicationState(stance.replication),
        stance.changed_bytes,
        drbd.parse_identifiers(stance.identifiers),
        Turn(stance.turned) if stance.turned else None,
        stance.settled,
        stance.leftovers,
        stance.blocked,
        stance.kept,
        stance.hindered,
    )


def _take(site: Site, resource: Resource, step: Step, keep: bool, tell: Tell) -> None:
    if step.where is site.flavour:
        take(site, resource, step.turn, keep, tell)
    else:
        request = messages.Take(resource.name, step.turn, keep)
        peer.ask(site, site.peer_of(resource), request, messages.Done)
