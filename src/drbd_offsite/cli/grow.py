"""``grow``: more room on both machines by one command."""

import argparse

from .. import config
from ..errors import ExitCode, UsageError
from ..operations.grow import give_up, grow
from .common import chosen, tell
from .progress import await_sync


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("resource", metavar="RESOURCE", help="the resource to enlarge")
    parser.add_argument("size", metavar="SIZE", nargs="?", default="", help="+10G: more; 20G: in all; none: finish")
    parser.add_argument("--no-wait", action="store_true", help="do not wait until the new part is replicated")
    parser.add_argument("--abort", action="store_true", help="give up a grow whose device has its old size still")
    parser.add_argument("--dry-run", action="store_true", help="print what would be done")


def run(options: argparse.Namespace) -> int:
    site = config.load()
    (resource,) = chosen(site, [options.resource])
    if options.abort:
        if options.size:
            raise UsageError("--abort goes without a size.", f"drbd-offsite grow {resource.name} --abort")
        tell(f"{resource.name}: it keeps the size that it has. {give_up(site, resource)}".rstrip())
        return ExitCode.DONE
    left = grow(site, resource, options.size, options.dry_run, print if options.dry_run else tell)
    if options.dry_run:
        return ExitCode.DONE
    tell(f"{resource.name}: both machines have the new size. {left}".rstrip())
    return ExitCode.DONE if options.no_wait else await_sync(site, resource.name)
