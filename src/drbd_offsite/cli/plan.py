"""``plan``: the circle's next steps, without taking them."""

import argparse

from .. import config
from ..errors import ExitCode
from ..host import observe
from ..plan.actions import describe
from ..plan.circle import decide
from .common import chosen, resources_argument


def arguments(parser: argparse.ArgumentParser) -> None:
    resources_argument(parser)


def run(options: argparse.Namespace) -> int:
    site = config.load()
    host = observe(site)
    for resource in chosen(site, options.resources):
        decision = decide(site, host, resource)
        for action in decision.actions:
            print(f"{resource.name}: {describe(action)}")
        print(f"{resource.name}: {decision.reason}")
    return ExitCode.DONE
