"""``deliver``: the outbox; run by drbd-offsite-alert.service when the watcher has put something into it."""

import argparse

from .. import alert, config
from ..errors import ExitCode
from .common import tell


def arguments(parser: argparse.ArgumentParser) -> None:
    """It takes none."""


def run(_: argparse.Namespace) -> int:
    alert.deliver(config.load(), tell)
    return ExitCode.DONE
