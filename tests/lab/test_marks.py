"""Up to when the backup has everything: known on both machines, and never said to be later than it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from . import product
from .test_failover import IN_USE, lose_the_server, write

if TYPE_CHECKING:
    from .lab import Lab
    from .machine import Machine


def complete(machine: Machine) -> str:
    """ISO 8601, or empty."""
    return str(product.resource(machine)["complete_as_of"] or "")


def moment(machine: Machine) -> str:
    return machine.run("date --utc +%FT%T+00:00").stdout.strip()


def await_mark(lab: Lab) -> None:
    """Both know that the copy has everything that was written before now."""
    begun = moment(lab.server)
    lab.server.wait_for("both know that it has all", lambda: min(map(complete, lab.machines)) >= begun, 120)


@pytest.mark.thorough
def test_both_machines_know_up_to_when_the_copy_has_everything(lab: Lab) -> None:
    lab.enter(IN_USE)
    server, backup = lab.machines
    write(server, "one")
    await_mark(lab)
    lab.cut_link()
    cut = moment(server)
    write(server, "two")
    server.wait_for("the line is known to be dead", "! grep -q cs:Connected /proc/drbd", 120)
    known = complete(server)
    assert known <= cut
    assert complete(backup) <= cut
    server.run("sleep 25")
    assert complete(server) == known, "nothing has arrived since"
    lab.mend_link()
    product.await_up_to_date(lab, deadline=240)
    server.wait_for("it goes on", lambda: complete(backup) > cut, 120)
    # It outlives a power cut of the one, and the loss of the other.
    lose_the_server(lab)
    known = complete(backup)
    backup.reset()
    assert complete(backup) == known
    said = backup.run("drbd-offsite failover --yes test_a", timeout=300).stderr
    assert f"acknowledged before {known}, " in said
