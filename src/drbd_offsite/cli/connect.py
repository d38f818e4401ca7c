"""``connect``: replicate again."""

import argparse

from .. import config, journal
from ..errors import ExitCode
from ..model import Forbidden
from ..reconcile import reconcile
from .common import chosen, resources_argument, tell, worst
from .up import report


def arguments(parser: argparse.ArgumentParser) -> None:
    resources_argument(parser)


def run(options: argparse.Namespace) -> int:
    site = config.load()
    names = [resource.name for resource in chosen(site, options.resources)]
    codes = []
    for name in names:
        journal.lift(name, "connect", set_by="disconnect")
        hold = journal.holds().get(name)
        if hold is not None and Forbidden.CONNECT in hold.forbids:
            tell(f"{name}: {hold.reason}")
            codes.append(ExitCode.HELD)
    outcomes = reconcile(site, names, tell)
    for outcome in outcomes:
        report(outcome)
        codes.append(outcome.failed.exit_code if outcome.failed else ExitCode.DONE)
    return worst(codes)
