"""``failback``: the server serves again, with whatever is newer."""

import argparse

from .. import config
from ..errors import ExitCode, UsageError
from ..model import Flavour
from ..operations import inspect
from ..plan.compare import checked
from .common import chosen, in_order
from .handing import common_arguments, hand


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("resource", metavar="RESOURCE", help="what the backup has served")
    decision = parser.add_mutually_exclusive_group()
    decision.add_argument(
        "--keep",
        choices=[str(flavour) for flavour in Flavour],
        help="where both were written to: whose data stay; the other's are kept in a snapshot",
    )
    decision.add_argument("--diff", action="store_true", help="list what differs file by file, and change nothing")
    decision.add_argument(
        "--copy",
        action="append",
        metavar="PATH",
        help="bring a file or directory of the other machine's copy into what is mounted here, and nothing else; may "
        "be given several times",
    )
    parser.add_argument("--json", action="store_true", help="with --diff: a JSON list")
    parser.add_argument(
        "--without-safety-net",
        action="store_true",
        help="even where there is no room for a snapshot of what is overwritten",
    )
    common_arguments(parser)


def run(options: argparse.Namespace) -> int:
    if options.json and not options.diff:
        raise UsageError("--json is for --diff.")
    paths = checked(options.copy or ())
    site = config.load()
    (resource,) = chosen(site, [options.resource])
    if options.diff or paths:
        from . import comparing

        with in_order():
            return comparing.copy(site, resource, paths) if paths else comparing.diff(site, resource, options.json)
    if inspect.close(resource.name):
        print(f"{resource.name}: what failover --read-only had mounted is gone; nothing else was changed.")
        return ExitCode.DONE
    keep = Flavour(options.keep) if options.keep else None
    return hand(site, resource, Flavour.SERVER, keep, not options.without_safety_net, options.yes, "failback")
