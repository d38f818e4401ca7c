"""``rename``: another name on both machines."""

import argparse

from .. import config
from ..errors import ExitCode, PeerUnreachable
from ..operations.rename import rename
from .common import tell


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("resources", metavar="RESOURCE", nargs=1, help="the resource, by its present name")
    parser.add_argument("new", metavar="NAME", help="its new name")
    parser.add_argument("--remount", action="store_true", help="unmount its device, and mount it again")
    parser.add_argument("--dry-run", action="store_true", help="print what would be done")


def run(options: argparse.Namespace) -> int:
    (name,), new = options.resources, options.new
    told = print if options.dry_run else tell
    try:
        rename(config.load(), name, new, remount=options.remount, dry_run=options.dry_run, tell=told)
    except PeerUnreachable:
        if new in config.load().resources:
            tell(f"{new}: renamed here, and not yet on the backup. The same command again finishes it.")
        raise
    if not options.dry_run:
        tell(f"{new}: it has that name on both machines")
    return ExitCode.DONE
