"""``render``: configuration to files."""

import argparse

from .. import config, files
from ..errors import ExitCode
from ..operations.apply import apply, difference
from ..render import tunnel_file
from ..tools import systemd
from .common import tell


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--diff", action="store_true", help="show what would change and change nothing")


def run(options: argparse.Namespace) -> int:
    site = config.load()
    if options.diff:
        print(difference(site), end="")
        return ExitCode.DONE
    with files.lock("site", 30.0):
        changed = apply(site)
    for path in changed:
        tell(f"wrote {path}")
    for peer in site.peers.values():
        if tunnel_file(peer) in changed:
            # Restarting it interrupts replication: when, is the admin's choice.
            tell(f"The tunnel to {peer.name} changes with: systemctl restart {systemd.tunnel_unit(peer)}")
    return ExitCode.DONE
