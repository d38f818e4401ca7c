"""The circle: observe, decide, execute, observe again, until nothing is left to do."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from . import files, journal
from .errors import OffsiteError, Refused
from .execute import execute
from .host import look_again, observe
from .model import Host, Site
from .plan import circle
from .plan.actions import describe

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
    host = observe()
    outcomes = []
    for name in names:
        try:
            with files.lock(f"resource-{name}", wait):
                host = look_again(host)
                outcomes.append(_one(site, host, name, tell))
        except Refused as error:
            outcomes.append(Outcome(name, (), error.message, soon=True, failed=error))
    return outcomes


def _one(site: Site, host: Host, name: str, tell: Callable[[str], None]) -> Outcome:
    done: list[str] = []
    for _ in range(ROUNDS):
        decision = circle.decide(site, host, site.resources[name])
        if not decision.actions:
            return Outcome(name, tuple(done), decision.reason, decision.soon)
        action = decision.actions[0]
        tell(f"{name}: {describe(action)}")
        try:
            execute(action, site)
        except OffsiteError as error:
            journal.record("failed", name, f"{describe(action)}: {error}")
            return Outcome(name, tuple(done), str(error), failed=error)
        done.append(describe(action))
        journal.record("done", name, describe(action))
        host = look_again(host)
    return Outcome(name, tuple(done), "its state keeps changing; looking again later", soon=True)
