"""``adopt``: a machine that was set up by hand is taken over while it runs."""

import argparse
import sys

from ..errors import ExitCode, Refused
from ..model import Flavour
from ..operations.adopt import adopt, propose
from .common import tell


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "resources", metavar="RESOURCE", nargs="*", help="resources of DRBD's own files; all if none is named"
    )
    parser.add_argument(
        "--flavour",
        choices=[flavour.value for flavour in Flavour],
        help="which of the two this machine is, where no package has been configured yet and DRBD does not show it",
    )
    parser.add_argument("--dry-run", action="store_true", help="print the plan and change nothing")
    parser.add_argument("--yes", action="store_true", help="do it without asking")


def run(options: argparse.Namespace) -> int:
    flavour = Flavour(options.flavour) if options.flavour else None
    proposal = propose(options.resources, flavour)
    if proposal is None:
        tell("There is nothing to adopt: every resource in DRBD's files is one of drbd-offsite's.")
        return ExitCode.DONE
    print("\n".join(proposal.plan))
    if options.dry_run:
        return ExitCode.DONE
    if not (options.yes or _agreed()):
        raise Refused("Nothing was changed.", "To do what the plan says without being asked: drbd-offsite adopt --yes")
    adopt(proposal, options.resources, flavour, tell)
    names = ", ".join(resource.name for resource in proposal.adoption.resources)
    tell(f"Adopted: {names}. drbd-offsite status shows how it does.")
    return ExitCode.DONE


def _agreed() -> bool:
    if not sys.stdin.isatty():
        return False
    print("Do this? [y/N] ", end="", flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
