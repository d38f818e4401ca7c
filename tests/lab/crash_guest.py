"""Stops a command of drbd-offsite after one of its steps, exactly there. Run in a machine by the command itself.

Every step on this machine is written to STEPS; after the one whose number is in AT, the process stops itself (SIGSTOP)
with its locks held, and the test does to it, or to its machine, what it wants.
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
    from drbd_offsite import journal
    from drbd_offsite.operations import drive, grow
    from drbd_offsite.plan.actions import describe

    execute, begin, end = module.execute, journal.begin, journal.end

    def done(step: str) -> None:
        with STEPS.open("a", encoding="utf-8") as steps:
            steps.write(step + "\n")
        count = len(STEPS.read_text(encoding="utf-8").splitlines())
        if AT.exists() and count == int(AT.read_text()):
            AT.unlink()
            STOPPED.write_text(f"{os.getpid()}")
            os.kill(os.getpid(), signal.SIGSTOP)

    def counted(action: Any, site: Any) -> Any:
        answer = execute(action, site)
        done(describe(action))
        return answer

    def begun(verb: str, resource: str, parameters: Any) -> Any:
        new = f"{verb}-{resource}" not in journal.operations()
        operation = begin(verb, resource, parameters)
        if new:
            done(f"{verb} is begun")
        return operation

    def ended(operation: Any, *how: Any) -> None:
        end(operation, *how)
        done(f"{operation.verb} is over")

    # The module's own too: a step and the note of it are two.
    module.execute = drive.execute = grow.execute = counted  # type: ignore[attr-defined]
    journal.begin, journal.end = begun, ended  # type: ignore[assignment]


if {"add", "grow", "remove", "peer-service"} & set(sys.argv):
    install()
