"""``hold``: leave a resource to a person who works on it by hand."""

import argparse

from .. import config, files, journal
from ..errors import ExitCode
from ..observed import Forbidden
from ..reconcile import LOCK_SECONDS
from .common import chosen, resources_argument, tell


def arguments(parser: argparse.ArgumentParser) -> None:
    resources_argument(parser)
    parser.add_argument("--reason", default="somebody works on it by hand", help="why; status shows it")


def run(options: argparse.Namespace) -> int:
    site = config.load()
    for resource in chosen(site, options.resources):
        # With the lock, no step that the watcher has begun is still under way when this ends.
        with files.lock(f"resource-{resource.name}", LOCK_SECONDS):
            journal.hold(resource.name, options.reason, frozenset(Forbidden), "hold")
        tell(
            f"{resource.name}: left to you until 'drbd-offsite up {resource.name}'; what runs goes on as it is, and "
            "what you take down stays down, through a reboot too"
        )
    return ExitCode.DONE
