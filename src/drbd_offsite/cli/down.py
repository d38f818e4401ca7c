"""``down``: out of the kernel, in order, for the shutdown or for the admin."""

import argparse

from .. import config, files
from ..errors import ExitCode
from ..host import observe
from ..operations.down import down
from ..reconcile import LOCK_SECONDS
from .common import chosen, resources_argument, tell


def arguments(parser: argparse.ArgumentParser) -> None:
    resources_argument(parser)
    parser.add_argument(
        "--shutdown", action="store_true", help="run by the unit: unmount it first, and let it come up again by itself"
    )


def run(options: argparse.Namespace) -> int:
    site = config.load()
    if options.shutdown and options.resources and not site.resources.keys() & set(options.resources):
        return ExitCode.DONE  # the unit of one that has another name by now
    # In the reverse order, so that no resync waits for one that is gone.
    for resource in reversed(chosen(site, options.resources)):
        if options.shutdown and resource.name not in observe(site).drbd:
            continue  # its unit is stopped by the command that has taken it down, and that has the lock
        with files.lock(f"resource-{resource.name}", LOCK_SECONDS):
            down(site, resource, options.shutdown, tell)
    return ExitCode.DONE
