"""``invite``: the server's half of an enrolment."""

import argparse
import os
import shlex
import stat
import sys

from .. import config, invitation
from ..errors import ExitCode, OffsiteError, Refused
from ..operations.enrol import invite
from ..run import run as run_program
from .common import tell


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "peer", nargs="?", default="", help="the peer's section in the configuration, if there are several"
    )
    parser.add_argument("--one-line", action="store_true", help="print it as one line, to be pasted")
    parser.add_argument("--ssh", metavar="DESTINATION", help="join there at once (root@backup), instead of printing")


def run(options: argparse.Namespace) -> int:
    site = config.load()
    if options.ssh is None:
        _insist_on_privacy()
    made = invite(site, options.peer)
    text = invitation.compose(made)
    if options.ssh is not None:
        return _join_there(options.ssh, text)
    sys.stdout.write(invitation.one_line(text) + "\n" if options.one_line else text)
    tell(
        f"Good once, until {made.expires:%Y-%m-%d %H:%M} UTC. It holds keys: carry it to the backup unseen,\n"
        f"run there: drbd-offsite join FILE   (it will show the check words {made.check_words})\n"
        "and delete both files."
    )
    return ExitCode.DONE


def _insist_on_privacy() -> None:
    """The file must be 0600; the shell that opened it for us may have made it readable for all."""
    status = os.fstat(sys.stdout.fileno())
    if stat.S_ISREG(status.st_mode):
        os.fchmod(sys.stdout.fileno(), 0o600)
    elif stat.S_ISCHR(status.st_mode) and not sys.stdout.isatty():
        raise Refused("The invitation would be thrown away.", "drbd-offsite invite > backup.invite")


def _join_there(destination: str, text: str) -> int:
    if destination.startswith("-"):
        raise Refused("That is no destination for ssh.", "For example: --ssh root@backup.example.org")
    command = shlex.join(["drbd-offsite", "join", "-"])
    done = run_program(["ssh", "-o", "BatchMode=yes", destination, command], stdin=text, timeout=300.0, accept=None)
    sys.stderr.write(done.stderr)
    if done.returncode != 0:
        raise OffsiteError(
            f"The invitation was made, but {destination} did not join (exit code {done.returncode}).",
            "Correct what it says and run invite --ssh again; the key for ssh has to work without a password.",
        )
    return ExitCode.DONE
