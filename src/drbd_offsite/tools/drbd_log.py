"""What DRBD's kernel module logs about online verifies; no other place names the blocks that differ."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Verify:
    """One online verify; all of it in sectors of 512 bytes."""

    start: int | None = None
    """None on the machine that was asked to compare: only the other one logs it."""
    differing: tuple[tuple[int, int], ...] = ()
    """First sector and number of sectors of each place."""
    reached: int | None = None
    """Where it ended, if that was before the end of the volume."""
    done: bool = False
    """It ended in order, at the end of the volume or at its stop sector. Otherwise it was broken off, or runs."""
    resent: bool = False
    """A resync has been completed since, so what it had found was sent."""


def parse_verifies(messages: Iterable[str], minor: int) -> tuple[Verify, ...]:
    """The verifies of one device among the kernel's messages, oldest first.

    A message is ``block drbd0: TEXT`` (8.4) or ``drbd NAME/0 drbd0 PEER: TEXT`` (9). The texts are those of
    drbd_worker.c and drbd_state.c. 8.4 loses places: it logs the last one before a block that is equal, and
    answers come in any order (drbd_ov_out_of_sync_found).
    """
    of_device = re.compile(rf"\bdrbd{minor}(?: [^\s:]+)?: (.+)")
    found: list[Verify] = []
    for message in messages:
        text = match[1] if (match := of_device.search(message)) else ""
        if match := re.match(r"Starting Online Verify from sector (\d+)", text, re.IGNORECASE):
            found.append(Verify(int(match[1])))
        elif re.search(r"\( \w+ -> VerifyT \)", text):
            found.append(Verify())
        elif match := re.match(r"Out of sync: start=(\d+), size=(\d+)", text):
            # A log that begins in the middle of a verify.
            last = found.pop() if found else Verify()
            found.append(replace(last, differing=(*last.differing, (int(match[1]), int(match[2])))))
        elif found and (match := re.match(r"Online verify reached sector (\d+)", text, re.IGNORECASE)):
            found[-1] = replace(found[-1], reached=int(match[1]))
        elif found and re.match(r"Online verify +done", text, re.IGNORECASE):
            found[-1] = replace(found[-1], done=True)
        elif re.match(r"Resync +done", text):
            found = [replace(verify, resent=True) for verify in found]
    return tuple(found)
