"""Stops a command of drbd-offsite after one of its steps, exactly there. Run in a machine by the command itself.

Every step is written to STEPS; after the one whose number is in AT, the process stops itself (SIGSTOP) with its locks
held, and the test does to it, or to its machine, what it wants.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

STEPS, AT, STOPPED = Path("/run/steps"), Path("/run/stop-after"), Path("/run/stopped")


def install() -> None:
    from drbd_offsite import execute as module
    from drbd_offsite.operations import drive, grow
    from drbd_offsite.plan.actions import describe

    execute, count = module.execute, 0

    def counted(action: Any, site: Any) -> Any:
        nonlocal count
        answer = execute(action, site)
        count += 1
        with STEPS.open("a", encoding="utf-8") as steps:
            steps.write(describe(action) + "\n")
        if AT.exists() and count == int(AT.read_text()):
            AT.unlink()
            STOPPED.write_text(f"{os.getpid()}")
            os.kill(os.getpid(), signal.SIGSTOP)
        return answer

    drive.execute = grow.execute = counted  # type: ignore[attr-defined]


if {"add", "grow", "remove", "peer-service"} & set(sys.argv):
    install()
