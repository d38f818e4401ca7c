"""``watch``: what drbd-offsite-watch.service runs."""

import argparse

from ..watch import watch


def arguments(parser: argparse.ArgumentParser) -> None:
    """It takes none."""


def run(_: argparse.Namespace) -> int:
    return watch()
