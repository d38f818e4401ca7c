"""How fast the line between the two machines really is, and that as its speed on both."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from . import product
from .stages import REPLICATING
from .test_bad_days import REFUSED, UNREACHABLE, refused
from .test_healing import _fast_link, _outage, _resyncing, _slow_link
from .test_set import CONFIG, everything, options, replication_ports

if TYPE_CHECKING:
    from .lab import Lab
    from .machine import Machine

MEASURE = "drbd-offsite measure-link"
A_MEASUREMENT = 300.0
"""Twenty seconds, and what the emulated processor adds."""

TAKES_PART = "pgrep -f '[p]eer-service server'"
ASKS = "pgrep -f '[m]easure (take|give)'"


def _configured(machine: Machine) -> int:
    found = re.search(r"^ *link_speed = (\d+)", machine.run(f"cat {CONFIG}").stdout, re.MULTILINE)
    assert found
    return int(found[1])


def test_what_is_measured_becomes_the_speed_of_both_machines_without_a_disconnect(lab: Lab) -> None:
    lab.enter(REPLICATING)
    _slow_link(lab)
    lab.server.run(f"mount {product.DEVICE} /mnt")
    ports = replication_ports(lab.server)
    before = everything(lab)
    found = json.loads(lab.server.run(f"{MEASURE} --json", timeout=A_MEASUREMENT).stdout)
    assert 6 <= found["to_peer_mbit"] <= 10, found
    assert found["from_peer_mbit"] > 1, found
    assert found["round_trip_ms"] > 0, found
    assert (found["link_speed"], found["verdict"]) == (100, "too high")
    assert everything(lab) == before, "it was measured, and no more"
    assert "measure-link backup --apply" in lab.server.run("drbd-offsite doctor", check=False).stdout
    said = lab.server.run(f"{MEASURE} --apply", timeout=A_MEASUREMENT)
    speed = _configured(lab.server)
    assert f"link_speed of backup is {speed} on both machines" in said.stderr
    assert 1 <= speed <= 10
    limit = f"{speed * 1_000_000 // 8 // 1024}k"
    for machine in lab.machines:
        assert _configured(machine) == speed
        assert options(machine)["c-max-rate"] == limit, options(machine)
        assert f"c-max-rate {limit};" in machine.run("cat /etc/drbd.d/0_test_a.res").stdout
        assert "disk-options" not in machine.run("drbdadm --dry-run adjust all").stdout, "the files say the same"
        assert product.status(machine)["operations"] == []
    assert "measure-link" not in lab.server.run("drbd-offsite doctor", check=False).stdout
    assert replication_ports(lab.server) == ports
    _fast_link(lab)
    product.await_up_to_date(lab)


@pytest.mark.thorough
def test_in_a_resync_and_without_the_backup_nothing_is_measured(lab: Lab) -> None:
    lab.enter(REPLICATING)
    before = everything(lab)
    refused(lab.backup, MEASURE, REFUSED, "measure-link is for the server")
    _slow_link(lab)
    _outage(lab, 40)
    refused(lab.server, MEASURE, UNREACHABLE, "The line to backup could not be measured")
    lab.mend_link()
    lab.server.wait_for("the resync runs", lambda: _resyncing(lab.server), 120)
    refused(lab.server, f"{MEASURE} --apply", REFUSED, "test_a is being synced", "drbd-offsite status")
    assert _resyncing(lab.server), "40 MiB take that line 40 seconds"
    assert everything(lab) == before
    _fast_link(lab)
    product.await_up_to_date(lab, deadline=240)


@pytest.mark.thorough
def test_killed_in_the_middle_nothing_of_it_goes_on_anywhere(lab: Lab) -> None:
    lab.enter(REPLICATING)
    _slow_link(lab)
    # Its line to the backup has a service there too.
    lab.server.run("systemctl stop drbd-offsite-mark")
    lab.backup.wait_for("nobody is served", f"! {TAKES_PART}")
    for kill in ("kill -9", "kill -TERM"):
        lab.server.run(f"{MEASURE} >/dev/null 2>&1 & echo $! >/root/pid")
        lab.backup.wait_for("the backup takes part", TAKES_PART)
        lab.server.run(f"{ASKS} && {kill} $(cat /root/pid)")
        lab.server.wait_for("no ssh is left", f"! {ASKS}")
        lab.backup.wait_for("the backup has ended its part", f"! {TAKES_PART}")
    assert "to backup" in lab.server.run(MEASURE, timeout=A_MEASUREMENT).stdout
    lab.server.run("systemctl start drbd-offsite-mark")
    _fast_link(lab)
    product.await_up_to_date(lab)
