"""``join``: the backup's half of an enrolment."""

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path

from .. import invitation
from ..errors import ExitCode, Refused
from ..operations.enrol import join
from .common import tell

MAX_BYTES = 65536


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help='the invitation; "-" reads it from standard input')


def run(options: argparse.Namespace) -> int:
    text = _read(options.file)
    tell(f"Check words: {invitation.parse(text, datetime.now(UTC)).check_words}")
    peer = join(text, tell)
    tell(f"Enrolled with {peer.hostname}. On the server, replicate a volume: drbd-offsite add /dev/GROUP/VOLUME")
    if options.file != "-":
        tell(f"The invitation is used up; delete it: rm {options.file}")
    return ExitCode.DONE


def _read(name: str) -> str:
    try:
        with sys.stdin.buffer if name == "-" else Path(name).open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise Refused(
            f"{name} cannot be read: {error.strerror}.", "Name the file that 'drbd-offsite invite' made."
        ) from error
    if len(content) > MAX_BYTES:
        raise Refused(f"{name} is too large to be an invitation.", "Name the file that 'drbd-offsite invite' made.")
    return content.decode("utf-8", errors="replace")
