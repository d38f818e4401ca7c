"""``add``: one command a volume."""

import argparse

from .. import config
from ..errors import ExitCode, UsageError
from ..model import VolumeName
from ..operations.half import add
from .common import tell
from .progress import await_sync


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("volume", metavar="VOLUME", help="/dev/GROUP/NAME or GROUP/NAME; what is on it is kept")
    parser.add_argument("--name", default="", help="the resource's name; the volume's if not given")
    parser.add_argument("--peer", default="", help="the backup to copy to, if there are several")
    parser.add_argument(
        "--remount", action="store_true", help="unmount it, and mount the replicated device there, now and in fstab"
    )
    parser.add_argument(
        "--overwrite-metadata",
        action="store_true",
        help="DRBD metadata found in the slot may be overwritten, on both sides",
    )
    parser.add_argument("--no-wait", action="store_true", help="do not wait for the first sync")
    parser.add_argument("--dry-run", action="store_true", help="print what would be done, as far as it can be known")


def run(options: argparse.Namespace) -> int:
    try:
        volume = VolumeName.parse(options.volume)
    except ValueError as error:
        raise UsageError(f"{error}.") from error
    site = config.load()
    name = add(
        site,
        volume,
        name=options.name,
        peer_name=options.peer,
        remount=options.remount,
        overwrite_metadata=options.overwrite_metadata,
        dry_run=options.dry_run,
        tell=print if options.dry_run else tell,
    )
    if options.dry_run:
        return ExitCode.DONE
    site = config.load()
    resource = site.resources[name]
    tell(f"{name} is served as {resource.by_res}. Use that device from now on, and never {volume.path}.")
    return ExitCode.DONE if options.no_wait else await_sync(site, name)
