"""What share of the line a resync takes, changed while it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from . import product
from .stages import REPLICATING
from .test_healing import _outage, _resyncing

if TYPE_CHECKING:
    from .lab import Lab
    from .machine import Machine

CONFIG = "/etc/drbd-offsite/drbd-offsite.conf"
A_LOOK = 150
"""The watcher looks each minute."""


def _limit(machine: Machine) -> str:
    return machine.run("drbdsetup show test_a | sed -n 's/^ *c-max-rate\\s*\\(.*\\);.*/\\1/p'").stdout.strip()


@pytest.mark.thorough
def test_a_resync_that_runs_is_held_to_the_schedule_and_released_by_it(lab: Lab) -> None:
    lab.enter(REPLICATING)
    backup = lab.backup
    whole = _limit(backup)
    assert whole == "12207k"
    _outage(lab, 60)
    backup.run(f"printf '\\n[schedule]\\n  mon-sun 00:00-24:00 = 2\\n' >>{CONFIG}")
    backup.wait_for("the kernel knows", lambda: _limit(backup) == "250k", A_LOOK)
    lab.mend_link()
    backup.wait_for("the resync runs", lambda: _resyncing(backup), 120)
    backup.run("sleep 20")
    assert _resyncing(backup), "60 MiB at 250 KiB/s take four minutes"
    said = backup.run("drbd-offsite status").stdout
    assert "Resyncs may take 2 % of a line at this hour" in said
    assert "other disk options" not in backup.run("drbd-offsite doctor", check=False).stdout
    backup.run(f"sed -i '/^.schedule/,$d' {CONFIG}")
    backup.wait_for("the kernel has the whole line again", lambda: _limit(backup) == whole, A_LOOK)
    product.await_up_to_date(lab, deadline=240)
    assert product.checksum(lab.server, product.VOLUME) == product.checksum(backup, product.VOLUME)
