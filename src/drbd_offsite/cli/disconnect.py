"""``disconnect``: stop replicating, and stay so."""

import argparse

from .. import config, files, journal
from ..errors import ExitCode, ToolFailed
from ..host import observe
from ..model import Site
from ..observed import ConnectionState, Forbidden
from ..reconcile import LOCK_SECONDS
from ..run import run as run_program
from ..tools import drbd
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
                _disconnect(site, resource.name)
        tell(f"{resource.name}: disconnected until 'drbd-offsite connect {resource.name}'; changes are noted")
    return ExitCode.DONE


def _disconnect(site: Site, name: str) -> None:
    try:
        run_program(drbd.adm("disconnect", name))
    except ToolFailed:
        # drbdadm gives drbdsetup 5 seconds, and a peer that is slow to agree takes longer: what counts is the state.
        seen = observe(site).drbd.get(name)
        if seen and seen.connection and seen.connection.state is not ConnectionState.STANDALONE:
            raise
