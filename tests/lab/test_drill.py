"""Drills on real machines: what they find, and that neither they nor their end leaves anything behind."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from . import product, volume
from .stages import REPLICATING
from .test_alerts import await_mail
from .test_healing import _fast_link, _outage, _resyncing, _slow_link, events
from .test_restore_point import SNAPSHOT, _restore_point

if TYPE_CHECKING:
    from .lab import Lab
    from .machine import Machine

CONF = "/etc/drbd-offsite/drbd-offsite.conf"
STATE = "/var/lib/drbd-offsite"
UNIT = "drbd-offsite-drill.service"
WATCHER = "drbd-offsite-watch"

FAILED, WARNED = 1, 6
A_DRILL = 600.0
SWEPT = 240.0
"""Seconds: two full looks of the watcher, on an emulated processor that others use too."""

LEFT = (
    "lvs --noheadings -o lv_name local | grep _look; dmsetup ls | grep drbd_offsite_look; "
    f"ls -A {STATE}/looks /run/drbd-offsite/looks 2>/dev/null | grep -v :; grep -h /looks/ /proc/[0-9]*/mounts"
)
"""Prints what there is of a look: volumes, devices, notes, directories, and mounts in anybody's namespace."""

CHECK = "sha256sum --check --quiet --strict SHA256SUMS"


def _left(machine: Machine) -> list[str]:
    return machine.run(LEFT, check=False).stdout.split()


def _nothing_left(machine: Machine) -> None:
    machine.wait_for("nothing is left", lambda: not _left(machine), SWEPT)


def _drill(lab: Lab, code: int = 0) -> dict[str, Any]:
    """The result of one drill of test_a; it has left nothing."""
    done = lab.backup.run("drbd-offsite drill --json test_a", check=False, timeout=A_DRILL)
    assert done.returncode == code, done.stdout + done.stderr
    assert not _left(lab.backup)
    (found,) = json.loads(done.stdout)
    return dict(found)


def _verdicts(found: dict[str, Any]) -> dict[str, str]:
    return {check["name"]: check["verdict"] for check in found["checks"]}


def _set(machine: Machine, key: str, value: str, section: str = r"\[\[test_a\]\]") -> None:
    machine.run(f"sed -i '/^ *{key} =/d; /^ *{section}/a {key} = {value}' {CONF} && drbd-offsite render")


def _hanging(lab: Lab) -> None:
    """The unit is in the middle of a drill whose command sleeps, and what that has started does too."""
    _set(lab.backup, "drill_command", """sh -c "setsid sleep 4321 & sleep 4321" """)
    lab.backup.run(f"systemctl start --no-block {UNIT}")
    lab.backup.wait_for("the command runs", "test $(pgrep -fc '^sleep 4321') = 2", A_DRILL)


def _gone(lab: Lab) -> None:
    lab.backup.wait_for("the command is gone", "! pgrep -f '^sleep 4321'", 60)
    _nothing_left(lab.backup)
    product.await_up_to_date(lab)


def _writing(lab: Lab) -> None:
    """The server writes all the time, as fast as the line takes it."""
    lab.server.run(
        f"mount {product.DEVICE} /mnt && systemd-run --quiet --unit=writer sh -c "
        "'while :; do dd if=/dev/urandom of=/mnt/more bs=64k count=8 conv=notrunc,fsync status=none; sleep 0.2; done'"
    )


@pytest.mark.thorough
def test_a_drill_while_the_server_writes(lab: Lab) -> None:
    lab.enter(REPLICATING)
    _set(lab.backup, "drill_command", CHECK)
    _writing(lab)
    found = _drill(lab)
    assert found["outcome"] == "passed", found
    assert _verdicts(found) == dict.fromkeys(["journal", "filesystem", "mount", "files", "command sha256sum"], "good")
    assert found["count"]["files"] >= volume.FILE_COUNT + 1
    assert (found["seen"]["source"], found["seen"]["fstype"]) == ("copy", "ext4")
    assert found["seen"]["as_of"] <= found["seen"]["taken"]
    assert found["age_seconds"] is not None
    assert found["received_bytes"] > 0, "it went on"
    # On a busy machine the line may be slower than what is written (Behind).
    assert found["line_after"]["state"].startswith("Connected, "), found["line_after"]
    assert found["line_after"]["lacking_bytes"] is not None
    lab.server.run("systemctl stop writer && umount /mnt")
    product.await_up_to_date(lab)
    assert product.checksum(lab.server, product.VOLUME) == product.checksum(lab.backup, product.VOLUME)
    backup = lab.backup
    assert product.resource(backup)["drill"] == {
        "at": found["begun"], "outcome": "passed", "passed": found["begun"], "overdue": False,
    }  # fmt: skip
    kept = backup.run(f"ls -l {STATE}/drills/test_a").stdout
    assert [line.split()[0] for line in kept.splitlines()[1:]] == ["-rw-------"] * 3
    assert "<script" not in backup.run(f"cat {STATE}/drills/test_a/*.html").stdout
    assert [entry["outcome"] for entry in events(backup, "drill")] == ["passed"]


@pytest.mark.thorough
def test_a_damaged_copy_is_found_and_told(lab: Lab) -> None:
    lab.enter(REPLICATING)
    backup = lab.backup
    # Below DRBD, which knows nothing of it; direct, because DRBD reads past the page cache.
    backup.run("dd if=/dev/urandom of=/dev/local/test_a bs=64k seek=8 count=64 conv=notrunc oflag=direct status=none")
    found = _drill(lab, FAILED)
    assert found["outcome"] == "failed"
    assert _verdicts(found)["filesystem"] == "bad", found
    assert any(line.startswith("Pass 1") for check in found["checks"] for line in check["output"])
    assert product.resource(backup)["level"] == "broken"
    assert "has failed" in backup.run("drbd-offsite status", check=False).stdout
    await_mail(backup, "test_a on backup: its last drill has failed")
    seen = product.resource(lab.server)
    assert (seen["level"], seen["peer_disk"]) == ("ok", "UpToDate"), "replication is not concerned"


@pytest.mark.thorough
def test_a_thin_copy(lab: Lab) -> None:
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
    _set(backup, "drill_command", CHECK)
    assert _drill(lab)["outcome"] == "passed"
    _slow_link(lab)
    _outage(lab, 20)
    lab.mend_link()
    backup.wait_for("the resync runs", lambda: _resyncing(backup), 120)
    found = _drill(lab)
    assert (found["outcome"], found["seen"]["source"]) == ("passed", "restore point")
    _fast_link(lab)
    product.await_up_to_date(lab)
    backup.wait_for("it is gone", lambda: SNAPSHOT not in backup.run("lvs").stdout)
    assert product.checksum(lab.server, product.VOLUME) == product.checksum(backup, product.VOLUME)


@pytest.mark.thorough
def test_in_the_middle_of_a_resync_the_restore_point_is_tried_and_not_changed(lab: Lab) -> None:
    lab.enter(REPLICATING)
    backup = lab.backup
    _set(backup, "drill_command", CHECK)
    _slow_link(lab)
    _outage(lab, 30)
    lab.mend_link()
    backup.wait_for("there is a restore point", lambda: _restore_point(lab), 120)
    backup.wait_for("the resync runs, and is paused", "drbdadm pause-sync test_a", 60)
    before = product.checksum(backup, f"/dev/local/{SNAPSHOT}")
    found = _drill(lab)
    assert (found["outcome"], found["seen"]["source"]) == ("passed", "restore point"), found
    lost = events(backup, "connection-lost")[-1]["at"]
    assert "" < found["seen"]["as_of"] <= lost
    assert found["age_seconds"] > 0
    assert product.checksum(backup, f"/dev/local/{SNAPSHOT}") == before
    backup.run("drbdadm resume-sync test_a")
    _fast_link(lab)
    product.await_up_to_date(lab)
    backup.wait_for("it is gone after the resync", lambda: not _restore_point(lab), 120)
    assert product.checksum(lab.server, product.VOLUME) == product.checksum(backup, product.VOLUME)


@pytest.mark.thorough
def test_a_drill_gives_way_to_another_resync(lab: Lab) -> None:
    lab.enter(REPLICATING)
    backup = lab.backup
    _slow_link(lab)
    _outage(lab, 20)
    lab.mend_link()
    backup.wait_for("there is a restore point", lambda: _restore_point(lab), 120)
    backup.wait_for("the resync runs, and is paused", "drbdadm pause-sync test_a", 60)
    _hanging(lab)
    backup.run("drbdadm resume-sync test_a")
    _fast_link(lab)
    product.await_up_to_date(lab, deadline=240)
    assert _restore_point(lab), "it is being looked at"
    _slow_link(lab)
    _outage(lab, 20)
    lab.mend_link()
    backup.wait_for("the next resync runs", lambda: _resyncing(backup), 120)
    assert _restore_point(lab)
    assert not product.resource(backup)["holds"]
    backup.run("pkill -x sleep")
    backup.wait_for("it ends", lambda: events(backup, "drill"), 120)
    assert "gave way" in events(backup, "drill")[-1]["text"]
    _nothing_left(backup)
    _fast_link(lab)
    product.await_up_to_date(lab, deadline=240)
    backup.wait_for("no restore point is left", lambda: not _restore_point(lab), SWEPT)
    assert product.checksum(lab.server, product.VOLUME) == product.checksum(backup, product.VOLUME)


@pytest.mark.thorough
def test_a_check_that_says_no_and_one_that_hangs(lab: Lab) -> None:
    lab.enter(REPLICATING)
    backup = lab.backup
    _set(backup, "drill_command", """sh -c "echo no dump of today; exit 3" """)
    found = _drill(lab, FAILED)
    assert "is not good (exit code 3)" in found["reason"]
    assert found["checks"][-1]["output"] == ["no dump of today"]
    _set(backup, "drill_minutes", "1", r"\[site\]")
    _set(backup, "drill_command", """sh -c "echo begun; setsid sleep 4321 & sleep 4321" """)
    found = _drill(lab, FAILED)
    assert "was stopped after 60 s" in found["reason"]
    assert found["checks"][-1]["output"] == ["begun"]
    backup.run("! pgrep -f '^sleep 4321'")
    _set(backup, "drill_command", "touch written")
    assert "Read-only file system" in str(_drill(lab, FAILED)["checks"][-1]["output"])


@pytest.mark.thorough
@pytest.mark.parametrize("end", ["kill -9 $(systemctl show -P MainPID {})", "systemctl stop {}"])
def test_a_drill_that_is_ended_leaves_nothing(end: str, lab: Lab) -> None:
    lab.enter(REPLICATING)
    _hanging(lab)
    lab.backup.run(end.format(UNIT), timeout=300)
    _gone(lab)
    assert not events(lab.backup, "drill"), "it is no result"


@pytest.mark.thorough
def test_a_drill_of_a_person_s_that_is_killed_leaves_nothing(lab: Lab) -> None:
    """Not in a unit: nothing but the kernel and the watcher cleans up."""
    lab.enter(REPLICATING)
    backup = lab.backup
    _set(backup, "drill_command", """sh -c "setsid sleep 4321 & sleep 4321" """)
    backup.run("nohup drbd-offsite drill test_a >/root/said 2>&1 & echo $! >/root/pid")
    backup.wait_for("the command runs", "test $(pgrep -fc '^sleep 4321') = 2", A_DRILL)
    assert not backup.run("grep /looks/ /proc/1/mounts", check=False).stdout, "nobody else sees it"
    backup.run("kill -9 $(cat /root/pid)")
    _gone(lab)


@pytest.mark.thorough
def test_a_reset_in_the_middle_leaves_nothing(lab: Lab) -> None:
    lab.enter(REPLICATING)
    _slow_link(lab)
    _outage(lab, 20)
    lab.mend_link()
    lab.backup.wait_for("the resync runs", lambda: _resyncing(lab.backup), 120)
    _hanging(lab)
    _set(lab.backup, "drill_command", CHECK)
    lab.backup.run("sync")
    lab.backup.reset()
    _fast_link(lab)
    _gone(lab)
    assert _drill(lab)["outcome"] == "passed"


@pytest.mark.thorough
def test_without_room_it_could_not_be_done(lab: Lab) -> None:
    lab.enter(REPLICATING)
    lab.backup.run("lvcreate -q -y -l 100%FREE -n filler local")
    found = _drill(lab, WARNED)
    assert (found["outcome"], found["seen"]) == ("untested", None)
    assert "MiB free" in found["reason"]
    assert product.resource(lab.backup)["level"] == "ok"
    assert product.resource(lab.server)["level"] == "ok"


@pytest.mark.thorough
def test_a_snapshot_that_overflows_is_not_the_data_s_fault(lab: Lab) -> None:
    lab.enter(REPLICATING)
    backup = lab.backup
    _set(backup, "resync_snapshot", "never", r"\[site\]")
    backup.run("lvcreate -q -y -l $(($(vgs --noheadings -o vg_free_count local) - 6)) -n filler local")
    _hanging(lab)
    lab.server.run(
        f"mount {product.DEVICE} /mnt && for i in $(seq 40); do "
        "dd if=/dev/urandom of=/mnt/more bs=1M count=1 seek=$i conv=notrunc,fsync status=none || exit 1; sleep 0.3; "
        "done && umount /mnt",
        timeout=300,
    )
    full = "test $(lvs --noheadings -o data_percent local/test_a_look | cut -d. -f1) = 100"
    backup.wait_for("it has overflowed", full, 120)
    product.await_up_to_date(lab)
    backup.run("pkill -x sleep")
    backup.wait_for("it ends", lambda: events(backup, "drill"), 120)
    assert events(backup, "drill")[-1]["outcome"] == "untested"
    assert "More was written meanwhile" in events(backup, "drill")[-1]["text"]
    _nothing_left(backup)
    assert product.checksum(lab.server, product.VOLUME) == product.checksum(backup, product.VOLUME)


SOON = "[Timer]\nOnCalendar=\nRandomizedDelaySec=0\nOnActiveSec=5s\n"


@pytest.mark.thorough
def test_the_timer_does_it(lab: Lab) -> None:
    lab.enter(REPLICATING)
    backup = lab.backup
    backup.run("systemctl is-enabled drbd-offsite-drill.timer && systemctl is-active drbd-offsite-drill.timer")
    assert not events(backup, "drill"), "installing it does none"
    directory = "/etc/systemd/system/drbd-offsite-drill.timer.d"
    backup.run(f"mkdir {directory} && cat >{directory}/soon.conf", input=SOON)
    backup.run("systemctl daemon-reload && systemctl restart drbd-offsite-drill.timer")
    backup.wait_for("it was done", lambda: events(backup, "drill"), A_DRILL)
    assert events(backup, "drill")[0]["outcome"] == "passed"
    backup.wait_for("the unit has ended", f"systemctl show -P ActiveState {UNIT} | grep -q inactive")
    assert backup.run(f"systemctl show -P Result {UNIT}").stdout.strip() == "success"
    _nothing_left(backup)


@pytest.mark.thorough
def test_one_that_is_overdue_is_told_until_one_has_passed(lab: Lab) -> None:
    lab.enter(REPLICATING)
    backup = lab.backup
    note = f"{STATE}/drilled/test_a.json"
    backup.wait_for("it is waited for", f"test -e {note}", SWEPT)
    known = json.loads(backup.run(f"cat {note}").stdout)
    known["since"] = (datetime.now(UTC) - timedelta(days=20)).isoformat(timespec="seconds")
    backup.run(f"cat >{note} && systemctl restart {WATCHER}", input=json.dumps(known))
    await_mail(backup, "test_a on backup: no drill has passed for a long time")
    seen = product.resource(backup)
    assert (seen["level"], seen["drill"]["overdue"]) == ("broken", True)
    _drill(lab)
    seen = product.resource(backup)
    assert (seen["level"], seen["drill"]["overdue"]) == ("ok", False)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("fstype", "make"),
    [
        # Sizes as small as a test's are for tests alone.
        ("xfs", "TEST_DIR=x TEST_DEV=x QA_CHECK_FS=x mkfs.xfs -q -f"),
        ("btrfs", "mkfs.btrfs -q -f --mixed"),
    ],
)
def test_other_filesystems(fstype: str, make: str, lab: Lab) -> None:
    lab.enter(REPLICATING)
    server, backup = lab.server, lab.backup
    server.run(
        f"{make} {product.DEVICE} && mount {product.DEVICE} /mnt && cp -a /usr/share/zoneinfo/Europe /mnt && sync"
    )
    # What is deleted and open, and what is in the journal alone.
    server.run(
        "systemd-run --quiet sh -c 'exec 3>/mnt/gone; rm /mnt/gone; sleep 600' && sleep 2 && touch /mnt/a /mnt/b"
    )
    backup.run("btrfs device scan", check=False)
    found = _drill(lab)
    assert (found["outcome"], found["seen"]["fstype"]) == ("passed", fstype), found
    # A newer generation beside the snapshot's, and the kernel has seen it.
    server.run("cp -a /usr/share/zoneinfo/Asia /mnt && sync")
    backup.run("btrfs device scan", check=False)
    again = _drill(lab)
    assert again["outcome"] == "passed"
    assert again["count"]["files"] > found["count"]["files"] > 10
    server.run("systemctl stop 'run-*.service'; umount /mnt")
    product.await_up_to_date(lab)
    assert product.checksum(server, product.VOLUME) == product.checksum(backup, product.VOLUME)
    backup.run("dd if=/dev/urandom of=/dev/local/test_a bs=64k seek=2 count=600 conv=notrunc oflag=direct status=none")
    assert _drill(lab, FAILED)["outcome"] == "failed"


@pytest.mark.thorough
def test_without_a_filesystem_nothing_is_proven(lab: Lab) -> None:
    lab.enter(REPLICATING)
    lab.server.run(f"mkswap {product.DEVICE} && sync")
    found = _drill(lab, WARNED)
    assert (found["outcome"], found["count"]) == ("untested", None)
    assert "There is swap on it" in found["reason"]
