"""``verify``: compare the two copies while they are in use."""

import argparse

from .. import config
from ..errors import ExitCode
from ..model import Flavour, Site
from ..observed import DrbdResource, Progress
from ..operations import repair
from ..plan import guards
from ..plan.findings import Outcome, Verdict
from ..plan.repair import verifying
from .common import chosen, tell
from .progress import bar, follow


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("resources", metavar="RESOURCE", nargs=1, help="the resource whose copies are compared")
    parser.add_argument("--no-wait", action="store_true", help="do not wait for its end; events has the result")
    parser.add_argument(
        "--forget", action="store_true", help="compare nothing; drop what earlier comparisons have found"
    )


def run(options: argparse.Namespace) -> int:
    site = config.load()
    guards.enforce(guards.flavour(site, Flavour.SERVER, "verify"))
    (resource,) = chosen(site, options.resources)
    if options.forget:
        repair.forget(resource)
        tell(f"{resource.name}: what earlier comparisons have found is forgotten; what is marked is sent all the same")
        return ExitCode.DONE
    since = repair.begin(site, resource)
    if options.no_wait:
        tell(f"{resource.name}: the copies are being compared; drbd-offsite events {resource.name} has the result")
        return ExitCode.DONE
    follow(site, resource.name, describe)
    return _report(site, resource.name, repair.verdict(site, resource, since))


def describe(seen: DrbdResource | None, progress: Progress | None) -> tuple[str, bool]:
    """One line about a comparison, and whether it has ended."""
    if seen is None or not verifying(seen):
        return "no longer compared", True
    device = seen.peer_device
    percent = progress.done_percent if progress else (device and device.done_percent) or 0.0
    size = seen.volumes[0].size_bytes if seen.volumes else 0
    return f"comparing {bar(percent, int(size * (1 - percent / 100)), progress)}", False


def _report(site: Site, name: str, found: Verdict | None) -> int:
    peer = site.resources[name].peer
    match found.outcome if found else None:
        case Outcome.EQUAL:
            print(f"{name}: the copies were compared from beginning to end, and are the same.")
            return ExitCode.DONE
        case Outcome.DIFFERENT:
            places = found.places if found else 0
            where = f" in {places} place{'s' if places > 1 else ''}" if places else ""
            print(
                f"{name}: the copies differ{where}. What is served is not affected; the copy on {peer} is wrong "
                f"there.\nThe blocks are sent again by themselves at a quiet moment, and "
                f"then compared again: drbd-offsite status {name}. Which they are: drbd-offsite events {name}."
            )
            return ExitCode.FAILED
        case Outcome.STOPPED:
            print(
                f"{name}: the comparison was stopped before its end by somebody else. So far the copies are the same."
            )
            return ExitCode.FAILED
    print(
        f"{name}: the comparison was broken off, because the connection was lost or the line was too slow for what is "
        f"being written. It says nothing about the rest.\nIt goes on by itself when the two are connected and at "
        f"rest; drbd-offsite events {name} has the result."
    )
    return ExitCode.PEER_UNREACHABLE
