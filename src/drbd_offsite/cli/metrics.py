"""``metrics``: what a look says as Prometheus reads it, once, or anew for each who asks."""

import argparse

from .. import config
from ..errors import ExitCode
from ..host import observe
from .common import in_order, tell


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--listen",
        metavar="WHERE",
        help="serve it by HTTP at unix:/PATH, 127.0.0.1:PORT or [::1]:PORT until it is ended",
    )


def run(options: argparse.Namespace) -> int:
    if options.listen is None:
        print(_text(), end="")
        return ExitCode.DONE
    from .listening import serve

    try:
        with in_order():
            _text()  # what keeps it from being of any use is said now, and not to a scraper
            serve(options.listen, _text, tell)
    except SystemExit:
        pass  # told to end, it has done all that it was to do
    return ExitCode.DONE


def _text() -> str:
    from ..operations.metrics import current

    site = config.load()
    return current(site, observe(site))
