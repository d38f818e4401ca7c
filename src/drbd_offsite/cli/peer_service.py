"""``peer-service``: what sshd runs for the peer's key."""

import argparse

from ..peer_service import serve


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("peer", help="whose key it was")
    parser.add_argument("--enrol", action="store_true", help="it was an invitation's key")


def run(options: argparse.Namespace) -> int:
    return serve(options.peer, enrolling=options.enrol)
