"""``replace-backup``: every copy anew, on another machine."""

import argparse

from .. import config
from ..errors import ExitCode
from ..operations.replace_backup import replace_backup
from .common import tell
from .progress import await_sync


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("peer", metavar="PEER", nargs="?", default="", help="which backup, if there are several")
    parser.add_argument("--no-wait", action="store_true", help="do not wait for the first syncs")


def run(options: argparse.Namespace) -> int:
    names = replace_backup(config.load(), options.peer, tell)
    site = config.load()
    if not options.no_wait:
        for name in names:
            await_sync(site, name)
    return ExitCode.DONE
