"""``turn``: one step of a handover that the peer has asked for."""

import argparse

from .. import config
from ..errors import ExitCode, UsageError
from ..model import Turn
from ..operations.turn import IN_THE_OPEN, take_for_peer
from .common import chosen, tell


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("step", metavar="STEP:RESOURCE", help="yield or serve, and the resource")


def run(options: argparse.Namespace) -> int:
    turn, _, name = options.step.partition(":")
    if turn not in IN_THE_OPEN or not name:
        raise UsageError(f"{options.step} is no step.", "It is yield or serve, a colon, and the resource.")
    site = config.load()
    (resource,) = chosen(site, [name])
    take_for_peer(site, resource, Turn(turn), tell)
    return ExitCode.DONE
