"""What ``failback`` and ``switchover`` share."""

import argparse

from ..errors import ExitCode
from ..model import Flavour, Resource, Site
from ..operations.handover import hand_over
from ..plan.handover import Step
from .common import tell
from .consent import asked


def common_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--yes", action="store_true", help="do not ask before whoever uses it is cut off for a moment")


def hand(
    site: Site, resource: Resource, want: Flavour, keep: Flavour | None, safety_net: bool, yes: bool, verb: str
) -> int:
    name = resource.name

    def wanted(step: Step) -> bool:
        return yes or asked(f"{name} is to be stopped on the {step.where} ({step.why}). Stop it now?")

    done = hand_over(site, resource, want, keep=keep, safety_net=safety_net, consent=wanted, tell=tell)
    if not done.complete:
        print(
            f"{name}: whoever uses it was not cut off, so it is served where it was. When the moment has come: "
            f"drbd-offsite {verb} --yes {name}"
        )
        return ExitCode.HELD
    still = "" if done.stood_still_seconds is None else f" It stood still for {done.stood_still_seconds:.1f} s."
    print(f"{name}: served by the {want}, and both copies are up to date.{still}")
    for snapshot in done.kept:
        print(f"{name}: {snapshot} keeps what was given up; mounted read-only there it can be looked into.")
    return ExitCode.DONE
