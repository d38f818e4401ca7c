"""``up``: the circle by hand, and at boot."""

import argparse
import time

from .. import config, journal
from ..errors import ExitCode
from ..model import Flavour, Site
from ..observed import Forbidden
from ..operations.boot import start_tunnels
from ..operations.rename import settle
from ..operations.serve import resume
from ..plan.circle import RETURNING
from ..reconcile import Outcome, reconcile
from .common import chosen, resources_argument, tell, worst

LIFTED = ("down", "hold", "local-io-error")
"""Who asks for it knows of these."""


LOOK_SECONDS = 0.5
SETTLE_SECONDS = 60.0
"""For all that is waited for beside the peer's word."""


def arguments(parser: argparse.ArgumentParser) -> None:
    resources_argument(parser)
    parser.add_argument(
        "--boot", action="store_true", help="run by the unit: holds are respected, a missing peer is fine"
    )


def run(options: argparse.Namespace) -> int:
    settle(options.resources)
    site = config.load()
    names = [resource.name for resource in chosen(site, options.resources)]
    if not options.boot:
        for name in names:
            _return(site, name)
            for setter in LIFTED:
                journal.lift(name, "up", set_by=setter)
    else:
        start_tunnels(site, names)
    outcomes = _until_settled(site, names)
    for outcome in outcomes:
        report(outcome)
    if site.flavour is Flavour.BACKUP:
        resume(site, names, tell)
    return worst([_code(outcome) for outcome in outcomes])


def _return(site: Site, name: str) -> None:
    """After the backup had taken over: connect, to get the newer data from there, and only then serve it."""
    if any(hold.set_by == "taken-over" for hold in journal.holds().get(name, ())):
        older = f"the copy here is older than the one on {site.resources[name].peer}, and not served before it has that"
        # In this order: killed in between, nothing is promoted.
        journal.hold(name, older, frozenset({Forbidden.PROMOTE}), RETURNING)
        journal.lift(name, "up", set_by="taken-over")


def _until_settled(site: Site, names: list[str]) -> list[Outcome]:
    """Nobody comes back in a moment: what is waited for is waited for here, the peer's word above all."""
    until = time.monotonic() + site.boot_wait + SETTLE_SECONDS
    told = ""
    outcomes = {outcome.resource: outcome for outcome in reconcile(site, names, tell)}
    while True:
        waiting = [outcome for outcome in outcomes.values() if outcome.soon]
        if not waiting or time.monotonic() >= until:
            return list(outcomes.values())
        if (line := "; ".join(f"{o.resource}: {o.reason}" for o in waiting)) != told:
            tell(line)
            told = line
        time.sleep(LOOK_SECONDS)
        outcomes |= {outcome.resource: outcome for outcome in reconcile(site, [o.resource for o in waiting], tell)}


def report(outcome: Outcome) -> None:
    tell(f"{outcome.resource}: {outcome.reason}")
    if outcome.failed is not None and outcome.failed.hint:
        tell(outcome.failed.hint)


def _code(outcome: Outcome) -> int:
    if outcome.failed is not None:
        return outcome.failed.exit_code
    holds = journal.holds().get(outcome.resource, ())
    held = any(hold.forbids & {Forbidden.ATTACH, Forbidden.PROMOTE} for hold in holds)
    return ExitCode.HELD if held else ExitCode.DONE
