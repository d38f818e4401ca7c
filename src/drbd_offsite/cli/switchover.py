"""``switchover``: the other machine serves it, with both alive and nothing lost."""

import argparse

from .. import config
from ..errors import Refused
from ..host import observe
from ..model import Flavour
from ..observed import Role
from .common import chosen
from .handing import common_arguments, hand


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("resource", metavar="RESOURCE", help="what is to be served by the other machine")
    common_arguments(parser)


def run(options: argparse.Namespace) -> int:
    site = config.load()
    (resource,) = chosen(site, [options.resource])
    seen = observe(site).drbd.get(resource.name)
    if seen is None or not seen.connected:
        raise Refused(
            f"{resource.name} is not connected, so it cannot be handed over with nothing lost.",
            f"drbd-offsite status {resource.name} says why. Where the server is gone: drbd-offsite failover, on the "
            "backup. Where it is back: drbd-offsite failback.",
        )
    serves_here = seen.role is Role.PRIMARY
    want = site.flavour.other if serves_here else site.flavour
    if not serves_here and seen.connection is not None and seen.connection.role is not Role.PRIMARY:
        want = Flavour.SERVER  # one that was broken off: nobody serves it
    return hand(site, resource, want, None, True, options.yes, "switchover")
