"""``mark``: what drbd-offsite-mark.service runs."""

import argparse
import time

from .. import config
from ..errors import OffsiteError
from ..model import Site
from ..operations.marks import MARK_SECONDS, Line, look
from .common import tell


def arguments(parser: argparse.ArgumentParser) -> None:
    """It takes none."""


def run(_: argparse.Namespace) -> int:
    config.load()  # without one there is nothing to do; one with a mistake later is waited for
    lines: dict[str, Line] = {}
    while True:
        try:
            _round(config.load(), lines)
        except OffsiteError as error:
            tell(f"{error.message} {error.hint}")
        time.sleep(MARK_SECONDS)


def _round(site: Site, lines: dict[str, Line]) -> None:
    at, host, open_now = look(site)
    for gone in lines.keys() - site.peers.keys():
        lines.pop(gone).close()
    for name, peer in site.peers.items():
        lines.setdefault(name, Line(tell)).ask(site, peer, at, host, open_now)
