"""The worst day: the server is gone, and the backup takes over."""

from __future__ import annotations

import json

import pytest

from . import product, volume
from .lab import Lab, Stage
from .machine import Machine
from .stages import REPLICATING
from .test_bad_days import FAILED, REFUSED, refused
from .test_healing import TUNNEL, _holders, _resyncing, _slow_link
from .test_restore_point import _filled, _little_room, _policy, _resync_while_writing

WHERE = "/srv/test_a"
CONF = "/etc/drbd-offsite/drbd-offsite.conf"
FAILOVER = "drbd-offsite failover --yes test_a"

HOOK = """\
#!/bin/sh
echo "$@" >>/root/hooks
"""


def _in_use(lab: Lab) -> None:
    """Mounted on the server; the backup knows where it would be."""
    lab.server.run(f"mkdir {WHERE} && mount {product.DEVICE} {WHERE}")
    lab.backup.run(f"sed -i '/\\[\\[test_a\\]\\]/a mount = {WHERE}' {CONF}")
    lab.backup.run("cat >/etc/drbd-offsite/failover.d/note && chmod 755 /etc/drbd-offsite/failover.d/note", input=HOOK)
    lab.both(lambda machine: machine.run("sync"))
    product.await_up_to_date(lab)
    lab.backup.wait_for("it is known up to when", lambda: product.resource(lab.backup)["complete_as_of"], 120)


def _in_use_xfs(lab: Lab) -> None:
    """The same files on XFS. One as small as a test's is for tests alone (mkfs.xfs)."""
    lab.server.run(f"mkdir /root/known && mount {product.DEVICE} /mnt && cp -a /mnt/. /root/known && umount /mnt")
    lab.server.run(f"TEST_DIR=x TEST_DEV=x QA_CHECK_FS=x mkfs.xfs -q -f {product.DEVICE}", timeout=300)
    _in_use(lab)
    # Frozen for a moment, or what was written is in the log alone, and not seen by whoever does not replay it.
    lab.server.run(f"cp -a /root/known/. {WHERE} && fsfreeze -f {WHERE} && fsfreeze -u {WHERE}")
    product.await_up_to_date(lab)


IN_USE = Stage("in-use", _in_use, REPLICATING, product.settle)
IN_USE_XFS = Stage("in-use-xfs", _in_use_xfs, REPLICATING, product.settle)

STAGES = {"ext4": IN_USE, "xfs": IN_USE_XFS}

ON_BOTH_FILESYSTEMS = pytest.mark.parametrize("fstype", ["ext4", pytest.param("xfs", marks=pytest.mark.thorough)])


UNTOUCHED = {"ext4": "ro,noload", "xfs": "ro,norecovery,nouuid"}
"""To mount it so that nothing is written, not even a journal replayed."""
OF_ITS_OWN = {"ext4": "ro", "xfs": "ro,nouuid"}
"""To mount what nobody else uses, with what is in its journal."""


def look_inside(machine: Machine, device: str, options: dict[str, str]) -> None:
    """Mount what is on a device at /mnt."""
    found = machine.run(f"blkid -o value -s TYPE {device}").stdout.strip()
    machine.run(f"mount -o {options[found]} {device} /mnt")


def served(lab: Lab, machine: Machine) -> None:
    """It is Primary and mounted there, with every file."""
    machine.run(f"findmnt -n -o SOURCE,OPTIONS {WHERE} | grep '^/dev/drbd0 rw'")
    volume.check(machine, WHERE)
    assert product.resource(machine)["role"] == "Primary"
    del lab


def write(machine: Machine, name: str, megabytes: int = 2) -> str:
    """A new file, on the disk; its checksum."""
    machine.run(f"dd if=/dev/urandom of={WHERE}/{name} bs=1M count={megabytes} conv=fsync status=none")
    return checksum(machine, name)


def checksum(machine: Machine, name: str) -> str:
    return machine.run(f"sha256sum {WHERE}/{name}").stdout.split()[0]


def hooks(machine: Machine) -> list[str]:
    return machine.run("cat /root/hooks", check=False).stdout.splitlines()


def lose_the_server(lab: Lab) -> None:
    lab.server.power_off()
    lab.backup.wait_for("the server is missed", "grep -Eq 'cs:(WFConnection|StandAlone)' /proc/drbd", 90)


@ON_BOTH_FILESYSTEMS
def test_the_backup_takes_over_from_a_server_that_is_gone_and_serves_after_its_own_reboot(
    lab: Lab, fstype: str
) -> None:
    lab.enter(STAGES[fstype])
    backup = lab.backup
    sent = write(lab.server, "before")
    product.await_up_to_date(lab)
    lose_the_server(lab)
    done = backup.run(FAILOVER, timeout=300)
    print(done.stdout, done.stderr)
    assert "it answers neither" in done.stderr
    assert "may have been on their way" in done.stderr
    served(lab, backup)
    assert checksum(backup, "before") == sent
    assert hooks(backup) == [f"start test_a /dev/drbd0 {WHERE}"]
    refused(backup, FAILOVER, REFUSED, "served by this machine already", "failback")
    mine = write(backup, "after")
    backup.reboot()
    backup.wait_for("it is mounted again", f"findmnt {WHERE}")
    served(lab, backup)
    assert checksum(backup, "after") == mine
    assert hooks(backup) == [f"start test_a /dev/drbd0 {WHERE}"] * 2
    # A server that comes back asks, and keeps off it.
    lab.server.start()
    product.await_tunnel(lab)
    lab.server.wait_for(
        "the server has heard", lambda: "taken-over" in {h["set_by"] for h in product.resource(lab.server)["holds"]}
    )
    assert product.resource(lab.server)["role"] == "Secondary"


def test_a_server_that_is_alive_is_not_taken_over_from(lab: Lab) -> None:
    lab.enter(IN_USE)
    backup = lab.backup
    before = backup.run("drbdsetup events2 --now; lvs; cat /proc/mounts").stdout.count("\n")
    refused(backup, FAILOVER, REFUSED, "alive and serves it", "switchover")
    refused(lab.server, FAILOVER, REFUSED, "is for the backup")
    # Only the tunnel: what is asked then is the machine's public address.
    backup.run(f"systemctl stop {TUNNEL['backup']}")
    backup.wait_for("the line is down", "! grep -q cs:Connected /proc/drbd", 120)
    refused(backup, FAILOVER, REFUSED, "answers outside the tunnel", "--force-split-brain")
    assert product.status(backup)["operations"] == []
    assert backup.run("drbdsetup events2 --now; lvs; cat /proc/mounts").stdout.count("\n") == before
    said = backup.run(f"{FAILOVER} --force-split-brain", timeout=300)
    assert "answers outside the tunnel" in said.stderr
    served(lab, backup)


@pytest.mark.thorough
def test_what_stands_in_the_way_is_said_before_anything_is_changed(lab: Lab) -> None:
    lab.enter(IN_USE)
    backup = lab.backup
    lose_the_server(lab)
    backup.run(f"mkdir -p {WHERE} && mount -t tmpfs none {WHERE}")
    refused(backup, FAILOVER, REFUSED, "is mounted there", "umount")
    backup.run(f"umount {WHERE}; chmod o+w /etc/drbd-offsite/failover.d/note")
    refused(backup, FAILOVER, REFUSED, "others than root may write", "chmod go-w")
    backup.run("chmod o-w /etc/drbd-offsite/failover.d/note")
    refused(backup, "drbd-offsite failover test_a </dev/null", REFUSED, "nothing was changed")
    assert "primary" in backup.run("drbd-offsite failover --dry-run test_a").stdout
    seen = product.resource(backup)
    assert (seen["role"], product.status(backup)["operations"]) == ("Secondary", [])
    backup.run(FAILOVER, timeout=300)
    served(lab, backup)


@pytest.mark.thorough
@pytest.mark.parametrize("fstype", STAGES)
def test_a_copy_in_the_middle_of_a_resync_gives_its_place_to_the_restore_point(lab: Lab, fstype: str) -> None:
    lab.enter(STAGES[fstype])
    server, backup = lab.machines
    old = write(server, "old")
    product.await_up_to_date(lab)
    _slow_link(lab)
    lab.cut_link()
    server.wait_for("the line is known to be dead", "! grep -q cs:Connected /proc/drbd", 120)
    write(server, "new", 30)
    server.run(f"rm {WHERE}/old && sync")
    lab.mend_link()
    backup.wait_for("the resync runs", lambda: _resyncing(backup), 150)
    backup.run("sleep 5")
    lose_the_server(lab)
    assert product.resource(backup)["disk"] == "Inconsistent"
    said = backup.run(FAILOVER, timeout=600).stderr
    assert "because a resync was broken off" in said
    assert "had acknowledged before" in said
    served(lab, backup)
    assert checksum(backup, "old") == old
    backup.run(f"! test -e {WHERE}/new")
    backup.wait_for("the snapshot is merged", "! lvs -a local | grep restore_point", 300)
    marked = product.resource(backup)["out_of_sync_bytes"]
    assert marked >= 96 * 2**20 - 4096, "all of it is to be sent"
    server.start()
    product.await_tunnel(lab)
    # What was written since the restore point is on the server alone.
    refused(backup, "drbd-offsite failback --yes test_a", REFUSED, "Both machines have data")
    backup.run("drbd-offsite failback --yes --keep backup test_a", timeout=900)
    server.wait_for("it is mounted there", f"findmnt {WHERE} || mount {product.DEVICE} {WHERE}")
    volume.check(server, WHERE)
    assert checksum(server, "old") == old


@pytest.mark.thorough
def test_a_copy_whose_restore_point_has_overflowed_is_not_served(lab: Lab) -> None:
    lab.enter(IN_USE)
    server, backup = lab.machines
    _little_room(lab)
    _resync_while_writing(lab, 45)
    backup.wait_for("it has overflowed", lambda: _filled(backup) == 100.0, 120)
    lose_the_server(lab)
    refused(backup, FAILOVER, REFUSED, "has overflowed and keeps nothing", "make a snapshot")
    seen = product.resource(backup)
    assert (seen["role"], seen["disk"], product.status(backup)["operations"]) == ("Secondary", "Inconsistent", [])
    # The server comes back after all, and nothing had to be undone.
    backup.run("drbdadm resume-sync test_a", check=False)
    server.start()
    product.await_up_to_date(lab, deadline=240)
    server.wait_for(
        "the copies are the same",
        lambda: product.checksum(server, product.VOLUME) == product.checksum(backup, product.VOLUME),
        90,
    )


@pytest.mark.thorough
def test_a_copy_that_could_not_be_kept_was_not_overwritten_and_is_served_as_it_was(lab: Lab) -> None:
    """The volume group is full, and the site wants a restore point before every resync."""
    lab.enter(IN_USE)
    server, backup = lab.machines
    old = write(server, "old")
    _policy(backup, "require")
    backup.run("lvcreate -q -y -l 100%FREE -n filler local")
    product.await_up_to_date(lab)
    lab.cut_link()
    server.wait_for("the line is known to be dead", "! grep -q cs:Connected /proc/drbd", 120)
    write(server, "new")
    lab.mend_link()
    backup.wait_for("it is held", lambda: _holders(backup) == ["restore-point"], 150)
    lose_the_server(lab)
    said = backup.run(FAILOVER, timeout=300).stderr
    print(said)
    assert "had acknowledged before" in said
    served(lab, backup)
    assert checksum(backup, "old") == old
    backup.run(f"! test -e {WHERE}/new")


@pytest.mark.thorough
def test_a_damaged_filesystem_is_not_mounted_and_the_same_command_goes_on(lab: Lab) -> None:
    lab.enter(IN_USE)
    backup = lab.backup
    lab.server.run(f"umount {WHERE} && debugfs -w -R 'clri <2>' {product.DEVICE}")
    lab.server.run(f"dd if=/dev/urandom of={product.DEVICE} bs=4k seek=1 count=3 conv=fsync status=none")
    product.await_up_to_date(lab)
    lose_the_server(lab)
    refused(backup, FAILOVER, FAILED, "e2fsck", "make a snapshot")
    assert [o["verb"] for o in product.status(backup)["operations"]] == ["failover"]
    backup.run("e2fsck -f -y /dev/drbd0", check=False, timeout=300)
    backup.run(FAILOVER, timeout=300)
    backup.run(f"findmnt {WHERE}")
    assert product.status(backup)["operations"] == []


SLOW = "/etc/drbd-offsite/failover.d/slow"
SLOW_ONCE = """\
#!/bin/sh
test ! -e /root/once || exit 0
touch /root/once
sync
sleep 1000
"""


@pytest.mark.thorough
def test_killed_or_reset_in_the_middle_the_same_command_finishes_it(lab: Lab) -> None:
    lab.enter(IN_USE)
    backup = lab.backup
    lose_the_server(lab)
    backup.run(f"cat >{SLOW} && chmod 755 {SLOW} && sync", input=SLOW_ONCE)
    backup.run(f"({FAILOVER} >/dev/null 2>&1 & echo $! >/root/pid)")
    backup.wait_for("it is at the hook", "pgrep -f failover.d/slow")
    backup.run("kill -9 $(cat /root/pid); pkill -f failover.d/slow", check=False)
    assert [o["verb"] for o in product.status(backup)["operations"]] == ["failover"]
    backup.reset()
    backup.run(FAILOVER, timeout=300, check=False)
    served(lab, backup)
    assert product.status(backup)["operations"] == []


@pytest.mark.thorough
def test_how_old_a_copy_is_that_was_behind_is_said_before(lab: Lab) -> None:
    """The server was ahead of its line when it was lost."""
    lab.enter(IN_USE)
    server, backup = lab.machines
    _slow_link(lab)
    server.run(f"(dd if=/dev/urandom of={WHERE}/much bs=1M count=40 conv=fsync status=none) >/dev/null 2>&1 &")
    server.wait_for("it is ahead", "grep -q cs:Ahead /proc/drbd", 150)
    server.run("sleep 3")
    lose_the_server(lab)
    said = backup.run(FAILOVER, timeout=600, check=False)
    print(said.stdout, said.stderr)
    assert json.loads(backup.run("drbd-offsite status --json", check=False).stdout)
    served(lab, backup)
