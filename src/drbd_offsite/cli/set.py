"""``set``: what may be changed of a resource while it is in use."""

import argparse

from .. import config
from ..errors import ExitCode
from ..model import TUNABLE, Resource
from ..operations.tune import change
from ..plan.tune import current
from .common import chosen, tell


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("resources", metavar="RESOURCE", nargs=1, help="the resource")
    parser.add_argument("key", metavar="KEY", nargs="?", default="", help="what to set; all that can be, if none")
    parser.add_argument("value", metavar="VALUE", nargs="?", help="its new value; it is only shown, if none")


def run(options: argparse.Namespace) -> int:
    site = config.load()
    (resource,) = chosen(site, options.resources)
    if not options.key:
        print("\n".join(_described(resource)))
    elif options.value is None:
        print(current(resource, options.key))
    else:
        value = change(resource.name, options.key, options.value, tell)
        tell(f"{resource.name}: {options.key} is {value} on both machines")
    return ExitCode.DONE


def _described(resource: Resource) -> list[str]:
    """Each key with its value, what it means, and what it can be."""
    lines = []
    for name, comment, check in config.keys("resources"):
        if name in TUNABLE:
            lines += [f"{name} = {current(resource, name)}", *(f"  {line}" for line in comment)]
            lines.append(f"  Allowed: {config.allowed(check)}. Default: {config.default_of(check)}.")
    return lines
