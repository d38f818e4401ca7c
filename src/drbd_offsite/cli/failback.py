"""``failback``: the server serves again, with whatever is newer."""

import argparse

from .. import config
from ..errors import ExitCode
from ..model import Flavour
from ..operations import inspect
from .common import chosen
from .handing import common_arguments, hand


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("resource", metavar="RESOURCE", help="what the backup has served")
    parser.add_argument(
        "--keep",
        choices=[str(flavour) for flavour in Flavour],
        help="where both were written to: whose data stay; the other's are kept in a snapshot",
    )
    parser.add_argument(
        "--without-safety-net",
        action="store_true",
        help="even where there is no room for a snapshot of what is overwritten",
    )
    common_arguments(parser)


def run(options: argparse.Namespace) -> int:
    site = config.load()
    (resource,) = chosen(site, [options.resource])
    if inspect.close(resource.name):
        print(f"{resource.name}: what failover --read-only had mounted is gone; nothing else was changed.")
        return ExitCode.DONE
    keep = Flavour(options.keep) if options.keep else None
    return hand(site, resource, Flavour.SERVER, keep, not options.without_safety_net, options.yes, "failback")
