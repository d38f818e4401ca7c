"""Online verify and what follows from it: the steps of `plan.repair`, taken by the watcher and by ``verify``.

Only the server does this, and a backup that has taken over: both machines are told of blocks that differ, and it is
the Primary that sends them.
"""

import time
from dataclasses import replace
from datetime import datetime

from .. import files, journal
from ..errors import OffsiteError, Refused, ToolFailed
from ..execute import execute
from ..host import observe
from ..model import Flavour, Resource, Site
from ..observed import Host, Role
from ..plan import findings as plan
from ..plan import repair, slices
from ..plan.actions import Disconnect
from ..plan.findings import Cause, Findings, Outcome, Verdict
from ..run import run
from ..tools import drbd, drbd_log, systemd

KIND = "findings"
TAILS = "tails"
"""Resources whose `plan.repair.TAIL_SECTORS` are to be compared."""
SETTERS = ("out-of-sync", "suspicious")
"""Of the remarks."""

STEPS = 6
"""More than can follow from each other without a wait."""

LOCK_SECONDS = 60.0

TAIL_TRIES = 30
"""A second apart: how long a person's comparison waits for that of the end, on whatever line."""

MOST_TOLD = 100
"""Ranges in one event."""


def tail_due(name: str) -> None:
    """Either machine has attached a resource, or may have."""
    journal.remember(TAILS, name, {"since": journal.now()})


def settled(name: str) -> bool:
    """Nothing has to be compared or sent before the other machine serves it."""
    found = known(name)
    return name not in journal.remembered(TAILS) and found.check is None and not found.unsent


def follow_up(site: Site, host: Host) -> None:
    """Take in verifies that have ended, and repair what they have found, where there is something to do now."""
    for kind in (KIND, TAILS):
        for gone in journal.remembered(kind).keys() - site.resources.keys():
            journal.forget(kind, gone)
    failed: OffsiteError | None = None
    for resource in site.resources.values():
        seen = host.drbd.get(resource.name)
        if site.flavour is not Flavour.SERVER and (seen is None or seen.role is not Role.PRIMARY):
            continue
        if isinstance(_decide(site, host, resource), repair.Wait):
            continue
        try:
            with files.lock(f"resource-{resource.name}", 0.0):
                _steps(site, resource)
        except Refused:
            pass  # another command is at work on it; there is a next look
        except OffsiteError as error:
            failed = error
    if failed is not None:
        raise failed


def begin(site: Site, resource: Resource) -> str:
    """Start a comparison of all; returns what `verdict` knows it by. Raises Refused, ToolFailed."""
    with files.lock(f"resource-{resource.name}", LOCK_SECONDS):
        host = _after_the_tail(site, resource)
        step = repair.begin(host.drbd.get(resource.name), known(resource.name), journal.now())
        if isinstance(step, str):
            raise Refused(
                f"The copies of {resource.name} cannot be compared now: {step}.",
                f"drbd-offsite status {resource.name} tells when they are up to date and at rest.",
            )
        compare(site, resource, step)
        return step.findings.check.since if step.findings.check else ""


def _after_the_tail(site: Site, resource: Resource) -> Host:
    """A look that is not in the middle of a comparison which nobody has asked for and which is soon over."""
    for _ in range(TAIL_TRIES):
        host = observe(site)
        _catch_up(site, host, resource)
        seen, check = host.drbd.get(resource.name), known(resource.name).check
        if seen is None or not repair.verifying(seen) or check is None or check.cause is not Cause.TAIL:
            break
        time.sleep(1.0)
    return host


def verdict(site: Site, resource: Resource, since: str) -> Verdict | None:
    """How that comparison has ended; None where it has not."""
    with files.lock(f"resource-{resource.name}", LOCK_SECONDS):
        _catch_up(site, observe(site), resource)
        found = known(resource.name).verdict
    return found if found and found.since == since else None


def forget(resource: Resource) -> None:
    """A person knows of what was found. What DRBD has marked is sent all the same."""
    with files.lock(f"resource-{resource.name}", LOCK_SECONDS):
        _keep(resource.name, Findings(cursor=_log_end()), "a person")


def known(name: str) -> Findings:
    return plan.from_entry(journal.remembered(KIND).get(name, {}))


def compares_a_slice(name: str) -> bool:
    """Whether a slice of it was begun, and its end is not known yet."""
    check = known(name).check
    return check is not None and check.cause is Cause.SLICE


def idle(site: Site, host: Host) -> frozenset[str]:
    """Resources that can be compared now, and for which there is nothing else to do."""
    return frozenset(r.name for r in site.resources.values() if _decide(site, host, r) == repair.IDLE)


def _decide(site: Site, host: Host, resource: Resource) -> repair.Step:
    due = resource.name in journal.remembered(TAILS)
    return repair.decide(site, host, resource, known(resource.name), journal.now(), tail_due=due)


def _keep(name: str, findings: Findings, by: str = "a repair, or copies that were found equal") -> None:
    """On disk, with the remarks that follow from it."""
    journal.remember(KIND, name, plan.as_entry(findings))
    reasons = plan.remarks(findings)
    for setter in SETTERS:
        if setter in reasons:
            journal.hold(name, reasons[setter], frozenset(), setter)
        else:
            journal.lift(name, by, set_by=setter)


def _steps(site: Site, resource: Resource) -> None:
    for _ in range(STEPS):
        # A look of its own for each: whoever had the lock before may have changed everything.
        host = observe(site)
        match _decide(site, host, resource):
            case repair.Wait():
                return
            case repair.ReadLog():
                _read(host, resource)
            case repair.Keep(findings):
                _keep(resource.name, findings)
            case repair.Sent() as step:
                _note_sent(resource, step)
            case repair.Send(findings):
                _send(site, resource, findings)
                return
            case repair.Compare() as step:
                compare(site, resource, step)
                return


def _note_sent(resource: Resource, step: repair.Sent) -> None:
    _keep(resource.name, step.findings)
    text = f"What differed was sent to {resource.peer}."
    if step.ranges:
        text += " It will be compared again." if any(not r.suspicious for r in step.ranges) else ""
    journal.record("repaired", resource.name, text, ranges=_told(step.ranges))


def _send(site: Site, resource: Resource, findings: Findings) -> None:
    name = resource.name
    _keep(name, findings)
    journal.record("repair", name, "Disconnecting for a moment: what differs is sent when they connect again.")
    execute(Disconnect(name, "what differs is sent when they connect again"), site)
    # Not left to the circle, which would wait for a while; killed here, it is the circle's.
    run(drbd.adm("connect", name))


def compare(site: Site, resource: Resource, step: repair.Compare) -> None:
    """Under its lock. Raises ToolFailed where the verify does not begin; what was known is then known again."""
    name = resource.name
    before = known(name)
    # From here on the log is about this one: an earlier verify may have begun at the same sector.
    _keep(name, _with_cursor(step.findings, _log_end()))
    check = step.findings.check
    tail = check is not None and check.cause is Cause.TAIL
    if tail:
        journal.forget(TAILS, name)
    done = run(drbd.verify(name, step.start, step.stop), accept=None)
    if done.returncode:
        seen = observe(site).drbd.get(name)
        if seen is None or not repair.verifying(seen):
            _keep(name, before)
            failed = ToolFailed(f"The comparison of {name} could not be started: {done.complaint}")
            if tail:  # not tried again before the next attach: as a volume that was adopted it may lack a verify-alg
                journal.record("failed", name, f"{failed.message} What was written last at its end may differ.")
            raise failed
    if check is not None and (text := _begun(check)):
        journal.record("verify-begun", name, text, start=step.start, stop=step.stop)


def _begun(check: plan.Check) -> str:
    """Empty for what is worth no word unless something differs."""
    if check.broken_off:
        return f"The comparison of the two copies goes on at sector {check.start}."
    match check.cause:
        case Cause.ASKED:
            return "The two copies are being compared."
        case Cause.REPAIRED:
            return f"What was repaired is being compared again, from sector {check.start} on."
    return ""


def _catch_up(site: Site, host: Host, resource: Resource) -> None:
    if isinstance(_decide(site, host, resource), repair.ReadLog):
        _read(host, resource)


def _read(host: Host, resource: Resource) -> None:
    """Take in what the kernel has logged since the last time."""
    name = resource.name
    before, seen = known(name), host.drbd.get(name)
    text = _log(before.cursor)
    verifies = drbd_log.parse_verifies(text.splitlines(), resource.here.minor)
    marked = repair.marked_bytes(seen) if seen else None
    taken = plan.take_in(_with_cursor(before, systemd.cursor(text)), verifies, marked, journal.now())
    _keep(name, taken.findings)
    if taken.found:
        journal.record(
            "out-of-sync",
            name,
            plan.describe(taken.found),
            ranges=_told(taken.found),
            total_bytes=sum(r.sectors for r in taken.found) * plan.SECTOR_BYTES,
            marked_bytes=marked,
        )
    if taken.check is not None and taken.outcome is not None:
        if taken.check.cause is Cause.SLICE:
            _note_slice(name, taken.check, taken.outcome)
        else:
            _note_outcome(name, taken.check, taken.outcome)


def _note_slice(name: str, check: plan.Check, outcome: Outcome) -> None:
    """After what it has found is on disk: killed in between, it is compared once more."""
    now = datetime.fromisoformat(journal.now())
    before = slices.from_entry(journal.remembered(slices.KIND).get(name, {}), now)
    if before is not None:
        journal.remember(slices.KIND, name, slices.as_entry(slices.after(before, check, outcome, now)))
    if outcome is Outcome.BROKEN_OFF:
        text = f"A slice from sector {check.start} on was broken off; it is begun anew in the hours of [verify]."
        journal.record("verify-broken-off", name, text, reached=check.reached)


def _note_outcome(name: str, check: plan.Check, outcome: Outcome) -> None:
    match outcome:
        case Outcome.EQUAL if check.cause is Cause.ASKED:
            journal.record("verify-clean", name, "The two copies were compared and are the same.")
        case Outcome.EQUAL if check.cause is Cause.REPAIRED:
            journal.record("verify-clean", name, "What was repaired was compared again and is the same on both.")
        case Outcome.STOPPED:
            journal.record(
                "verify-stopped", name, "The comparison was stopped before its end; so far all was the same."
            )
        case Outcome.BROKEN_OFF:
            text = f"The comparison was broken off at sector {check.reached}; it goes on when the two are connected."
            journal.record("verify-broken-off", name, text, reached=check.reached)


def _log(cursor: str) -> str:
    run(systemd.FLUSH_LOG, accept=None)
    try:
        return run(systemd.kernel_log(cursor)).stdout
    except ToolFailed:
        # A journal that was removed or made anew does not know the cursor.
        if not cursor:
            raise
        return run(systemd.kernel_log("")).stdout


def _log_end() -> str:
    run(systemd.FLUSH_LOG, accept=None)
    return systemd.cursor(run(systemd.LOG_END).stdout)


def _with_cursor(findings: Findings, cursor: str) -> Findings:
    return replace(findings, cursor=cursor) if cursor else findings


def _told(ranges: tuple[plan.Range, ...]) -> list[dict[str, int]]:
    return [{"start": r.start, "sectors": r.sectors, "seen": r.seen} for r in ranges[:MOST_TOLD]]
