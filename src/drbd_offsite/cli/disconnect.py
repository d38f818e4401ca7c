"""``disconnect``: stop replicating, and stay so."""

import argparse

from .. import config, files, journal
from ..errors import ExitCode
from ..execute import execute
from ..host import observe
from ..observed import Forbidden
from ..plan.actions import Disconnect
from ..reconcile import LOCK_SECONDS
from .common import chosen, resources_argument, tell


def arguments(parser: argparse.ArgumentParser) -> None:
    resources_argument(parser)
    parser.add_argument("--reason", default="disconnect was asked for", help="why; status shows it")


def run(options: argparse.Namespace) -> int:
    site = config.load()
    host = observe(site)
    for resource in chosen(site, options.resources):
        with files.lock(f"resource-{resource.name}", LOCK_SECONDS):
            journal.hold(resource.name, options.reason, frozenset({Forbidden.CONNECT}), "disconnect")
            if resource.name in host.drbd:
                execute(Disconnect(resource.name, options.reason), site)
        tell(f"{resource.name}: disconnected until 'drbd-offsite connect {resource.name}'; changes are noted")
    return ExitCode.DONE
