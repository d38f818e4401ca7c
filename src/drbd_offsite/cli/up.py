"""``up``: the circle by hand, and at boot."""

import argparse

from .. import config, journal
from ..errors import ExitCode
from ..model import Forbidden
from ..reconcile import Outcome, reconcile
from .common import chosen, resources_argument, tell, worst


def arguments(parser: argparse.ArgumentParser) -> None:
    resources_argument(parser)
    parser.add_argument(
        "--boot", action="store_true", help="run by the unit: holds are respected, a missing peer is fine"
    )


def run(options: argparse.Namespace) -> int:
    site = config.load()
    names = [resource.name for resource in chosen(site, options.resources)]
    if not options.boot:
        for name in names:
            journal.lift(name, "up", set_by="down")
    outcomes = reconcile(site, names, tell)
    for outcome in outcomes:
        report(outcome)
    return worst([_code(outcome) for outcome in outcomes])


def report(outcome: Outcome) -> None:
    tell(f"{outcome.resource}: {outcome.reason}")
    if outcome.failed is not None and outcome.failed.hint:
        tell(outcome.failed.hint)


def _code(outcome: Outcome) -> int:
    if outcome.failed is not None:
        return outcome.failed.exit_code
    hold = journal.holds().get(outcome.resource)
    return ExitCode.HELD if hold is not None and Forbidden.ATTACH in hold.forbids else ExitCode.DONE
