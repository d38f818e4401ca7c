"""``down``: out of the kernel, in order, for the shutdown or for the admin."""

import argparse

from .. import config, files, journal
from ..errors import ExitCode, Refused, ToolFailed
from ..host import observe
from ..model import Forbidden, Host, Resource, Role
from ..plan.half import DRBD_MAJOR
from ..reconcile import LOCK_SECONDS
from ..run import run as run_program
from ..tools import drbd
from .common import chosen, resources_argument, tell


def arguments(parser: argparse.ArgumentParser) -> None:
    resources_argument(parser)
    parser.add_argument("--shutdown", action="store_true", help="run by the unit: it may come up again by itself")


def run(options: argparse.Namespace) -> int:
    site = config.load()
    # In the reverse order, so that no resync waits for one that is gone.
    for resource in reversed(chosen(site, options.resources)):
        with files.lock(f"resource-{resource.name}", LOCK_SECONDS):
            _down(resource, observe(), hold=not options.shutdown)
    return ExitCode.DONE


def _down(resource: Resource, host: Host, hold: bool) -> None:
    seen = host.drbd.get(resource.name)
    mounted = [m.target for m in host.mounts if m.devno == (DRBD_MAJOR, resource.here.minor)]
    if mounted:
        raise Refused(f"{resource.name} is mounted at {', '.join(mounted)}.", f"umount {mounted[0]}, then again.")
    if hold:
        journal.hold(resource.name, "it was taken down by hand", frozenset(Forbidden), "down")
    if seen is None:
        return
    try:
        if seen.role is Role.PRIMARY:
            run_program(drbd.adm("secondary", resource.name))
        run_program(drbd.adm("down", resource.name))
    except ToolFailed as error:
        error.hint = error.hint or f"See what uses it: fuser -v {resource.here.device}"
        raise
    journal.record("down", resource.name, "It was taken down.")
    tell(f"{resource.name}: down; its data stays on {resource.here.volume}")
