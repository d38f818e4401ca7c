"""``peer-files``: the line between the rsync here and the one that reads the peer's copy."""

import argparse

from .. import config, peer
from ..errors import ExitCode
from ..run import become
from .common import chosen


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("resource", metavar="RESOURCE", help="whose copy")
    # The host and a command: what rsync thinks it runs there is fixed there.
    parser.add_argument("rest", metavar="WORD", nargs=argparse.REMAINDER, help="what rsync adds; it has no meaning")


def run(options: argparse.Namespace) -> int:
    site = config.load()
    (resource,) = chosen(site, [options.resource])
    become(peer.stream(site, site.peer_of(resource), resource.name))
    return ExitCode.FAILED
