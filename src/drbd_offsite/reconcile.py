"""The circle: observe, decide, execute, observe again, until nothing is left to do."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from . import files, journal
from .errors import OffsiteError, Refused, SystemFailed
from .execute import execute
from .host import observe
from .model import Resource, Site
from .observed import Host
from .plan import circle
from .plan.actions import Action, Consult, describe

ROUNDS = 12
"""More steps than a resource can need; the rest is for a later look."""

LOCK_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the circle ended for one resource."""

    resource: str
    done: tuple[str, ...]
    reason: str
    """Why there was nothing more to do, or what failed."""
    soon: bool = False
    failed: OffsiteError | None = None


def reconcile(
    site: Site, names: Iterable[str], tell: Callable[[str], None], wait: float = LOCK_SECONDS
) -> list[Outcome]:
    """Bring resources where the configuration wants them; one that fails does not keep the others back.

    ``wait`` is how many seconds another command at work on a resource is waited for.
    """
    resources = [site.resources[name] for name in names]
    # One look tells which of many lack something; of a single one that is likely.
    host = observe(site) if len(resources) > 1 else None
    return [_one(site, host, resource, tell, wait) for resource in resources]


def _one(site: Site, host: Host | None, resource: Resource, tell: Callable[[str], None], wait: float) -> Outcome:
    if host is not None:
        decision = circle.decide(site, host, resource)
        if not decision.actions:
            return Outcome(resource.name, (), decision.reason, decision.soon)
    try:
        with files.lock(f"resource-{resource.name}", wait):
            return _round(site, resource, tell)
    except Refused as error:
        return Outcome(resource.name, (), error.message, soon=True, failed=error)
    except OSError as error:
        return _failed(resource, (), SystemFailed(error))


def _failed(resource: Resource, done: Iterable[str], error: OffsiteError) -> Outcome:
    return Outcome(resource.name, tuple(done), str(error), failed=error)


def _round(site: Site, resource: Resource, tell: Callable[[str], None]) -> Outcome:
    done: list[str] = []
    previous: Action | None = None
    for _ in range(ROUNDS):
        # A look of its own for each step: whoever had the lock before may have changed everything.
        decision = circle.decide(site, observe(site), resource)
        action = next(iter(decision.actions), None)
        if action is None or action == previous:
            soon = decision.soon or action is not None
            return Outcome(resource.name, tuple(done), decision.reason, soon)
        what = describe(action)
        asked = isinstance(action, Consult)
        if not asked:
            tell(f"{resource.name}: {what}")
        try:
            execute(action, site)
        except OffsiteError as error:
            _note("failed", resource, f"{what}: {error}", tell)
            return _failed(resource, done, error)
        previous = action
        if not asked:
            done.append(what)
            _note("done", resource, what, tell)
    return Outcome(resource.name, tuple(done), "its state keeps changing; looking again later", soon=True)


def _note(event: str, resource: Resource, text: str, tell: Callable[[str], None]) -> None:
    """A journal that cannot be written (its disk is full) is no reason not to serve."""
    try:
        journal.record(event, resource.name, text)
    except OSError as error:
        tell(f"{resource.name}: that could not be noted: {error}")
