"""Before a resync overwrites a copy it is kept in a snapshot; and what follows where there is no room for one."""

from __future__ import annotations

import pytest

from . import product
from .lab import Lab
from .machine import Machine
from .stages import REPLICATING
from .test_healing import _fast_link, _holders, _outage, _resyncing, _slow_link, events, standalone

SNAPSHOT = "test_a_restore_point"


def _restore_point(lab: Lab) -> bool:
    return lab.backup.run(f"test -e /dev/local/{SNAPSHOT}", check=False).returncode == 0


def test_before_a_resync_the_copy_is_kept_in_a_snapshot(lab: Lab) -> None:
    lab.enter(REPLICATING)
    _slow_link(lab)
    _outage(lab, 30)
    before = product.checksum(lab.backup, product.VOLUME)
    lab.mend_link()
    lab.backup.wait_for("there is a restore point", lambda: _restore_point(lab), 120)
    lab.backup.wait_for("the resync runs", lambda: _resyncing(lab.backup), 60)
    assert product.checksum(lab.backup, f"/dev/local/{SNAPSHOT}") == before, "from before the first block"
    _fast_link(lab)
    product.await_up_to_date(lab)
    lab.backup.wait_for("it is gone after the resync", lambda: not _restore_point(lab), 60)
    assert not product.resource(lab.backup)["holds"]


@pytest.mark.thorough
def test_a_thin_copy_has_a_thin_restore_point(lab: Lab) -> None:
    lab.enter(REPLICATING)
    backup = lab.backup
    backup.run("drbd-offsite down test_a")
    backup.run(
        "lvcreate -q -y -L 160M --thinpool pool local && lvcreate -q -y -V 96M -n thin --thinpool local/pool && "
        "dd if=/dev/local/test_a of=/dev/local/thin bs=1M oflag=direct status=none && "
        "lvrename -q local/test_a local/thick && lvrename -q local/thin local/test_a",
        timeout=300,
    )
    backup.run("drbd-offsite up test_a")
    product.await_up_to_date(lab)
    _slow_link(lab)
    _outage(lab, 20)
    lab.mend_link()
    backup.wait_for("the resync runs", lambda: _resyncing(backup), 120)
    found = backup.run(f"lvs --noheadings -o origin,pool_lv local/{SNAPSHOT}").stdout.split()
    assert found == ["test_a", "pool"]
    _fast_link(lab)
    product.await_up_to_date(lab)
    backup.wait_for("it is gone", lambda: SNAPSHOT not in backup.run("lvs").stdout)


def _policy(machine: Machine, policy: str) -> None:
    machine.run(f"sed -i 's/resync_snapshot = .*/resync_snapshot = {policy}/' /etc/drbd-offsite/drbd-offsite.conf")
    machine.run("drbd-offsite render && drbdadm adjust test_a")


@pytest.mark.thorough
def test_without_room_for_a_restore_point_prefer_goes_on_and_says_so(lab: Lab) -> None:
    lab.enter(REPLICATING)
    lab.backup.run("lvcreate -q -y -l 100%FREE -n filler local")
    _slow_link(lab)
    _outage(lab, 20)
    lab.mend_link()
    lab.backup.wait_for("the resync runs", lambda: _resyncing(lab.backup), 120)
    assert _holders(lab.backup) == ["restore-point"]
    assert "free" in " ".join(product.resource(lab.backup)["sentences"])
    _fast_link(lab)
    product.await_up_to_date(lab)
    lab.backup.wait_for("nothing is left to say", lambda: not product.resource(lab.backup)["holds"])


def test_without_room_for_a_restore_point_require_does_not_resync(lab: Lab) -> None:
    lab.enter(REPLICATING)
    _policy(lab.backup, "require")
    lab.backup.run("lvcreate -q -y -l 100%FREE -n filler local")
    _outage(lab, 20)
    before = product.checksum(lab.backup, product.VOLUME)
    lab.mend_link()
    lab.backup.wait_for("it is held", lambda: product.resource(lab.backup)["holds"], 120)
    lab.backup.wait_for("the connection is dropped", lambda: standalone(lab.backup))
    assert product.resource(lab.backup)["disk"] != "Inconsistent"
    assert product.checksum(lab.backup, product.VOLUME) == before
    lab.backup.run("lvremove -q -y local/filler && drbd-offsite connect test_a")
    product.await_up_to_date(lab)


def _little_room(lab: Lab) -> None:
    """On the backup, for a restore point of 40 MiB, which nothing can enlarge."""
    lab.backup.run("lvcreate -q -y -l $(($(vgs --noheadings -o vg_free_count local) - 10)) -n filler local")


def _resync_while_writing(lab: Lab, megabytes: int) -> str:
    """A resync of 16 MiB stands still, and so much is written elsewhere, which overwrites the copy all the same.

    Returns the copy's checksum from before that.
    """
    _slow_link(lab)
    _outage(lab, 16)
    before = product.checksum(lab.backup, product.VOLUME)
    lab.mend_link()
    stand_still = "grep -q cs:SyncTarget /proc/drbd && drbdadm pause-sync test_a"
    lab.backup.wait_for("the resync runs, and is paused", stand_still, 120)
    _fast_link(lab)
    assert _restore_point(lab)
    # Slowly enough for the line: a server that pulls ahead would send all of it later.
    lab.server.run(
        f"mount {product.DEVICE} /mnt && for i in $(seq {megabytes}); do "
        "dd if=/dev/urandom of=/mnt/more bs=1M count=1 seek=$i conv=notrunc,fsync status=none || exit 1; sleep 0.3; "
        "done && umount /mnt",
        timeout=300,
    )
    return before


def _filled(machine: Machine) -> float:
    """Per cent of the restore point; LVM shows an invalid one as full."""
    return float(machine.run(f"lvs --noheadings -o data_percent local/{SNAPSHOT}").stdout)


def _told_of(machine: Machine, key: str) -> bool:
    return any(entry["key"] == key for entry in events(machine, "alert"))


@pytest.mark.thorough
def test_a_restore_point_that_overflows_is_told_and_prefer_goes_on(lab: Lab) -> None:
    lab.enter(REPLICATING)
    backup = lab.backup
    _little_room(lab)
    _resync_while_writing(lab, 45)
    backup.wait_for("it has overflowed", lambda: _filled(backup) == 100.0, 120)
    backup.wait_for("it is said", lambda: _holders(backup) == ["restore-point"], 120)
    seen = product.resource(backup)
    assert "has overflowed and keeps nothing" in " ".join(seen["sentences"])
    assert seen["holds"][0]["forbids"] == []
    assert (seen["connection"], seen["disk"]) == ("Connected", "Inconsistent"), "only the snapshot is lost"
    backup.wait_for("a person is told", lambda: _told_of(backup, "test_a restore-point"), 120)
    backup.run("drbdadm resume-sync test_a")
    product.await_up_to_date(lab)
    backup.wait_for("it is gone", lambda: not _restore_point(lab), 120)
    backup.wait_for("nothing is left to say", lambda: not product.resource(backup)["holds"])
    assert product.checksum(lab.server, product.VOLUME) == product.checksum(backup, product.VOLUME)


@pytest.mark.thorough
def test_a_required_restore_point_that_would_overflow_ends_the_resync_in_time(lab: Lab) -> None:
    lab.enter(REPLICATING)
    backup = lab.backup
    _policy(backup, "require")
    _little_room(lab)
    before = _resync_while_writing(lab, 28)
    backup.wait_for("it is held", lambda: _holders(backup) == ["restore-point"], 120)
    backup.wait_for("the connection is dropped", lambda: standalone(backup))
    assert product.resource(backup)["holds"][0]["forbids"] == ["connect"]
    assert _filled(backup) < 100.0
    assert product.checksum(backup, f"/dev/local/{SNAPSHOT}") == before, "the last usable state is still there"
    backup.wait_for("a person is told", lambda: _told_of(backup, "test_a restore-point"), 120)
    backup.run("drbdadm resume-sync test_a", check=False)  # where the end of the connection has not done so
    backup.run("lvremove -q -y local/filler && drbd-offsite connect test_a")
    product.await_up_to_date(lab)
    backup.wait_for("it is gone", lambda: not _restore_point(lab), 120)
    assert not product.resource(backup)["holds"]
    assert product.checksum(lab.server, product.VOLUME) == product.checksum(backup, product.VOLUME)
