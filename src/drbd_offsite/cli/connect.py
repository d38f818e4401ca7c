"""``connect``: replicate again."""

import argparse

from .. import config, journal
from ..errors import ExitCode, UsageError
from ..observed import Forbidden
from ..operations.discard import discard_here
from ..plan.assess import explain
from ..reconcile import reconcile
from .common import chosen, resources_argument, tell, worst
from .up import report

LIFTED = ("disconnect", "split-brain", "restore-point", "failover")
"""Who asks for it knows of these. Two copies that have diverged are refused by DRBD again, and nothing is lost."""


def arguments(parser: argparse.ArgumentParser) -> None:
    resources_argument(parser)
    parser.add_argument(
        "--discard-here",
        action="store_true",
        help="after a split brain: what was changed on this machine may be overwritten by the other copy",
    )
    parser.add_argument(
        "--without-safety-net",
        action="store_true",
        help="with --discard-here: even where there is no room for a snapshot of what is overwritten",
    )


def run(options: argparse.Namespace) -> int:
    site = config.load()
    names = [resource.name for resource in chosen(site, options.resources)]
    if options.discard_here:
        if not options.resources:
            raise UsageError("--discard-here wants the resources by name.", "Nothing was changed.")
        for name in names:
            discard_here(site, site.resources[name], not options.without_safety_net, tell)
        return ExitCode.DONE
    codes = []
    for name in names:
        for setter in LIFTED:
            journal.lift(name, "connect", set_by=setter)
        for hold in journal.holds().get(name, ()):
            if Forbidden.CONNECT in hold.forbids:
                tell(f"{name}: {' '.join(explain(hold))}")
                codes.append(ExitCode.HELD)
    outcomes = reconcile(site, names, tell)
    for outcome in outcomes:
        report(outcome)
        codes.append(outcome.failed.exit_code if outcome.failed else ExitCode.DONE)
    return worst(codes)
