"""``remove``: back to the plain volume."""

import argparse

from .. import config
from ..errors import ExitCode, PeerUnreachable
from ..operations.remove import give_up, remove
from .common import tell


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("resource", metavar="RESOURCE", help="the resource, or what an unfinished add was to make")
    parser.add_argument(
        "--remount", action="store_true", help="unmount its device, and mount the volume there, now and in fstab"
    )
    parser.add_argument("--delete-backup-copy", action="store_true", help="the backup's volume goes too")
    parser.add_argument("--abort", action="store_true", help="give up a removal that has not taken it down yet")
    parser.add_argument("--dry-run", action="store_true", help="print what would be done")


def run(options: argparse.Namespace) -> int:
    name = options.resource
    site = config.load()
    if options.abort:
        give_up(site, name)
        tell(f"{name}: it goes on as before")
        return ExitCode.DONE
    try:
        remove(
            site,
            name,
            remount=options.remount,
            delete_copy=options.delete_backup_copy,
            dry_run=options.dry_run,
            tell=print if options.dry_run else tell,
        )
    except PeerUnreachable as error:
        tell(f"{name}: removed here. {error.message} Its half is released by itself when it is there again.")
        return ExitCode.DONE
    if not options.dry_run:
        tell(f"{name}: removed on both machines; the data stays on its volume here")
    return ExitCode.DONE
