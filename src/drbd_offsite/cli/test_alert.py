"""``test-alert``: one message to every channel, and what became of it."""

import argparse
import os

from .. import alert, config, journal
from ..errors import ExitCode, OffsiteError, ToolFailed
from ..plan.alerts import Kind, Message
from .common import worst


def arguments(parser: argparse.ArgumentParser) -> None:
    """It takes none."""


def run(_: argparse.Namespace) -> int:
    site = config.load()
    codes = [ExitCode.DONE]
    for path, why in alert.refused():
        print(f"{path}: not run: {why}")
        codes.append(ExitCode.FAILED)
    channels = alert.channels(site)
    if not channels:
        raise OffsiteError(alert.NOBODY, alert.CHANNELS)
    message = _message(os.uname().nodename)
    for channel in channels:
        # Not through the outbox: a test that arrives a week later helps nobody.
        try:
            complaint = alert.offer(channel, message)
        except ToolFailed as error:
            complaint = error.message
        print(f"{channel.name}: {f'not taken: {complaint}' if complaint else 'taken'}")
        codes.append(ExitCode.FAILED if complaint else ExitCode.DONE)
    print("Taken is not yet arrived: look whether it has reached you. What a mail program could not send, mailq shows.")
    return worst(codes)


def _message(hostname: str) -> Message:
    text = (
        f"This is what an alert of {hostname} looks like. Nothing has happened, nothing has to be done, and the data "
        "is not concerned.\n\nIf nobody reads this, nobody reads a real one: see who gets it.\n"
    )
    return Message(Kind.TEST, "test", f"Test: alerts of {hostname} reach you", text, journal.now())
