"""Several volumes by one command: chosen by their LVM tag, their first syncs one after the other."""

from __future__ import annotations

import pytest

from . import product, volume
from .lab import Lab
from .stages import ENROLLED, VG

NAMES = ("data_1", "data_2", "data_3")
VOLUME_MB = 24
ADD = "drbd-offsite add --all --tag @offsite"

SAMPLE = r"""
while sleep 0.1; do
    echo $(sed -n 's/^ *\([0-9]*\): cs:SyncSource.*/\1/p' /proc/drbd)
done >/root/syncing 2>/dev/null &
"""
"""Notes the minors that are being synced, a line ten times a second."""


@pytest.fixture
def tagged(lab: Lab) -> Lab:
    """Three volumes with the tag, one without, and a line that makes a first sync last longer than an add."""
    lab.enter(ENROLLED)
    for name in NAMES:
        volume.make(lab.server, VG, name, VOLUME_MB)
        lab.server.run(f"lvchange --quiet --addtag offsite {VG}/{name}")
    # Told a faster line, DRBD fills this one up and takes the late answers to its pings for an outage.
    for machine in lab.machines:
        machine.run("sed -i 's/^ *link_speed *=.*/    link_speed = 2/' /etc/drbd-offsite/drbd-offsite.conf")
        machine.run("grep -q 'link_speed = 2' /etc/drbd-offsite/drbd-offsite.conf && drbd-offsite render")
    lab.server.run("modprobe drbd && tc qdisc add dev wan0 root tbf rate 2mbit burst 32kb latency 400ms")
    return lab


def _syncing(lab: Lab) -> list[str]:
    """What was seen to be synced, in order; more than one minor in a line for syncs side by side."""
    seen = [line for line in lab.server.run("cat /root/syncing").stdout.splitlines() if line]
    return [line for before, line in zip(["", *seen], seen, strict=False) if line != before]


@pytest.mark.thorough
def test_tagged_volumes_are_synced_one_after_the_other(tagged: Lab) -> None:
    lab = tagged
    lab.server.run(SAMPLE)
    said = lab.server.run(ADD, timeout=900).stderr
    assert "to come" in said, "progress of all of them as one"
    for name in NAMES:
        product.await_up_to_date(lab, name)
    assert _syncing(lab) == ["0", "1", "2"]
    assert [found["name"] for found in product.status(lab.server)["resources"]] == list(NAMES)
    for name in NAMES:
        lab.server.run(f"mount /dev/drbd/by-res/{name}/0 /mnt")
        volume.check(lab.server, "/mnt")
        lab.server.run("umount /mnt")


@pytest.mark.thorough
def test_the_same_command_again_does_nothing(tagged: Lab) -> None:
    lab = tagged
    lab.server.run(ADD, timeout=900)
    look = "cat /etc/drbd-offsite/drbd-offsite.conf /etc/drbd.d/*.res | sha256sum; lvs --noheadings -o lv_name,lv_size"
    before = [machine.run(look).stdout for machine in lab.machines]
    events = lab.server.run("drbd-offsite events").stdout
    said = lab.server.run(ADD).stderr
    assert all(f"{VG}/{name} is replicated already" in said for name in NAMES)
    assert [machine.run(look).stdout for machine in lab.machines] == before
    assert lab.server.run("drbd-offsite events").stdout == events


@pytest.mark.thorough
def test_a_higher_priority_goes_before_a_sync_that_runs(tagged: Lab) -> None:
    lab = tagged
    first, second, urgent = (f"{VG}/{name}" for name in NAMES)
    lab.server.run(f"drbd-offsite add --no-wait {first} {second}", timeout=600)
    lab.server.wait_for("the first one is synced", "grep -q '^ *0: cs:SyncSource' /proc/drbd")
    lab.server.run(f"drbd-offsite add --no-wait --priority 10 {urgent}", timeout=600)
    lab.server.wait_for(
        "the urgent one is synced and the others wait",
        "grep -q '^ *2: cs:SyncSource' /proc/drbd && grep -q '^ *1: cs:PausedSyncS' /proc/drbd && "
        "! grep -q '^ *0: cs:SyncSource' /proc/drbd",  # which is over by now on a slow host
    )
    lab.server.run("tc qdisc del dev wan0 root")
    for name in NAMES:
        product.await_up_to_date(lab, name)
