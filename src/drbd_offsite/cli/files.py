"""``files``: a look at a copy, shared with the peer."""

import argparse

from .. import config
from ..errors import ExitCode
from ..notify import notify
from ..operations.share import share
from .common import chosen, in_order, tell


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("resource", metavar="RESOURCE", help="whose copy")


def run(options: argparse.Namespace) -> int:
    site = config.load()
    (resource,) = chosen(site, [options.resource])
    with in_order():
        share(site, resource, tell, lambda: notify("READY=1"))
    return ExitCode.DONE
