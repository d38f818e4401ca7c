"""The way back: who has what is found out, nothing is given up unasked, and what is given up is kept."""

from __future__ import annotations

import re

import pytest

from . import product, volume
from .lab import Lab
from .machine import Machine
from .test_bad_days import REFUSED, UNREACHABLE, refused
from .test_failover import (
    CONF,
    FAILOVER,
    IN_USE,
    OF_ITS_OWN,
    ON_BOTH_FILESYSTEMS,
    STAGES,
    UNTOUCHED,
    WHERE,
    checksum,
    hooks,
    look_inside,
    lose_the_server,
    served,
    write,
)
from .test_healing import TUNNEL

FAILBACK = "drbd-offsite failback --yes test_a"
HELD = 5


def back_on_the_server(lab: Lab, settled: bool = True) -> None:
    """Served there, both the same, the holds gone."""
    lab.server.run(f"findmnt {WHERE} || mount {product.DEVICE} {WHERE}")
    volume.check(lab.server, WHERE)
    product.await_up_to_date(lab)
    assert product.resource(lab.backup)["role"] == "Secondary"
    if settled:
        for machine in lab.machines:
            assert [h for h in product.resource(machine)["holds"] if h["forbids"]] == []
            assert product.status(machine)["operations"] == []
    lab.server.run(f"umount {WHERE}")
    lab.server.wait_for(
        "the copies are the same",
        lambda: product.checksum(lab.server, product.VOLUME) == product.checksum(lab.backup, product.VOLUME),
        90,
    )
    lab.server.run(f"mount {product.DEVICE} {WHERE}")


def split(lab: Lab, *, server_writes: bool, backup_writes: bool) -> dict[str, str]:
    """The tunnel is away, the backup takes over by force, and either side is written to or not; the tunnel is back."""
    written = {}
    lab.backup.run(f"systemctl stop {TUNNEL['backup']}")
    lab.backup.wait_for("the line is down", "! grep -q cs:Connected /proc/drbd", 120)
    if not backup_writes:
        lab.backup.run(f"sed -i '/^mount = /d' {CONF}")
    lab.backup.run(f"{FAILOVER} --force-split-brain", timeout=300)
    if server_writes:
        written["server"] = write(lab.server, "from-server")
    if backup_writes:
        written["backup"] = write(lab.backup, "from-backup")
    lab.backup.run(f"systemctl start {TUNNEL['backup']}")
    product.await_tunnel(lab)
    return written


@pytest.mark.expects("Split-Brain detected")  # which a person has resolved, as the kernel says
@ON_BOTH_FILESYSTEMS
def test_case_1_nothing_was_written_on_the_backup(lab: Lab, fstype: str) -> None:
    """The how-to's story: the tunnel down, promoted, mounted read-only, looked at, and back."""
    lab.enter(STAGES[fstype])
    server, backup = lab.machines
    written = split(lab, server_writes=True, backup_writes=False)
    look_inside(backup, "/dev/drbd/by-disk/local/test_a", UNTOUCHED)
    volume.check(backup, "/mnt")
    backup.run("umount /mnt")
    done = backup.run(FAILBACK, timeout=600)
    print(done.stdout, done.stderr)
    assert checksum(server, "from-server") == written["server"]
    server.run(f"findmnt {WHERE}")  # it was never interrupted
    back_on_the_server(lab)
    for machine in lab.machines:  # and once more, from either side
        assert machine.run(FAILBACK, timeout=300).stdout.startswith("test_a: served by the server")


@ON_BOTH_FILESYSTEMS
@pytest.mark.parametrize("by", [pytest.param("server", marks=pytest.mark.thorough), "backup"])
def test_case_2_only_the_backup_has_new_data(lab: Lab, by: str, fstype: str) -> None:
    lab.enter(STAGES[fstype])
    server, backup = lab.machines
    lose_the_server(lab)
    backup.run(FAILOVER, timeout=300)
    written = write(backup, "from-backup", 8)
    server.start()
    product.await_tunnel(lab)
    machine: Machine = getattr(lab, by)
    # Not before a person says so is anybody cut off.
    done = refused(machine, "drbd-offsite failback test_a </dev/null", HELD, "was not cut off")
    served(lab, backup)
    later = write(backup, "later")
    done = machine.run(FAILBACK, timeout=600)
    print(done.stdout, done.stderr)
    assert float(re.findall(r"stood still for ([\d.]+) s", done.stdout)[0]) > 0
    server.run(f"findmnt {WHERE} || mount {product.DEVICE} {WHERE}")
    assert (checksum(server, "from-backup"), checksum(server, "later")) == (written, later)
    assert hooks(backup) == [f"start test_a /dev/drbd0 {WHERE}", f"stop test_a /dev/drbd0 {WHERE}"]
    back_on_the_server(lab)
    lab.both(Machine.reboot)
    product.await_up_to_date(lab, deadline=180)


@pytest.mark.expects("Split-Brain detected")  # which a person has resolved, as the kernel says
@pytest.mark.thorough
@pytest.mark.parametrize("fstype", STAGES)
def test_case_3_only_the_server_has_new_data(lab: Lab, fstype: str) -> None:
    lab.enter(STAGES[fstype])
    server, backup = lab.machines
    # Nothing is mounted there, and the resource had been promoted and demoted again by hand.
    written = split(lab, server_writes=True, backup_writes=False)
    backup.run("drbdadm secondary test_a")
    done = server.run(FAILBACK, timeout=600)
    print(done.stdout, done.stderr)
    assert checksum(server, "from-server") == written["server"]
    back_on_the_server(lab)


@pytest.mark.expects("Split-Brain detected")  # which a person has resolved, as the kernel says
@ON_BOTH_FILESYSTEMS
@pytest.mark.parametrize("keep", [pytest.param("server", marks=pytest.mark.thorough), "backup"])
def test_case_4_both_have_and_a_person_decides(lab: Lab, keep: str, fstype: str) -> None:
    lab.enter(STAGES[fstype])
    server, backup = lab.machines
    written = split(lab, server_writes=True, backup_writes=True)
    for machine in lab.machines:
        refused(machine, FAILBACK, REFUSED, "Both machines have data", "--keep server or --keep backup")
    served(lab, server)
    served(lab, backup)
    done = server.run(f"{FAILBACK} --keep {keep}", timeout=600)
    print(done.stdout, done.stderr)
    server.run(f"findmnt {WHERE} || mount {product.DEVICE} {WHERE}")
    other = "backup" if keep == "server" else "server"
    assert checksum(server, f"from-{keep}") == written[keep]
    server.run(f"! test -e {WHERE}/from-{other}")
    back_on_the_server(lab)
    loser: Machine = getattr(lab, other)
    # What was given up is in the snapshot, which can be mounted.
    look_inside(loser, "/dev/local/test_a_discarded", OF_ITS_OWN)
    assert loser.run(f"sha256sum /mnt/from-{other}").stdout.split()[0] == written[other]
    loser.run("umount /mnt")


@pytest.mark.expects("Split-Brain detected")  # which a person has resolved, as the kernel says
@pytest.mark.thorough
def test_a_side_is_not_overwritten_where_there_is_no_room_to_keep_it(lab: Lab) -> None:
    lab.enter(IN_USE)
    server = lab.server
    written = split(lab, server_writes=True, backup_writes=True)
    server.run("lvcreate -q -y -l 100%FREE -n full local")
    refused(server, f"{FAILBACK} --keep backup", REFUSED, "Nothing was overwritten", "--without-safety-net")
    server.run(f"mount -o ro,noload {product.VOLUME} /mnt || true")
    server.run(f"{FAILBACK} --keep backup --without-safety-net", timeout=600)
    server.run(f"findmnt {WHERE} || mount {product.DEVICE} {WHERE}")
    assert checksum(server, "from-backup") == written["backup"]
    back_on_the_server(lab)


@pytest.mark.thorough
@pytest.mark.parametrize("cut", ["link", "backup", "server", "command"])
def test_one_that_is_broken_off_is_taken_up_again_from_either_machine(lab: Lab, cut: str) -> None:
    lab.enter(IN_USE)
    server, backup = lab.machines
    lose_the_server(lab)
    backup.run(FAILOVER, timeout=300)
    written = write(backup, "from-backup", 30)
    server.start()
    product.await_tunnel(lab)
    for machine in lab.machines:
        machine.run("tc qdisc replace dev wan0 root tbf rate 8mbit burst 32k latency 400ms")
    backup.run(f"({FAILBACK} >/root/said 2>&1; echo $? >/root/code) >/dev/null 2>&1 &")
    server.wait_for("the resync runs", "grep -q cs:SyncTarget /proc/drbd", 120)
    if cut == "link":
        lab.cut_link()
        backup.wait_for("it is noticed", "! grep -q cs:Sync /proc/drbd", 120)
        lab.mend_link()
    elif cut == "command":
        backup.run("pkill -9 -f 'drbd-offsite failback'")
    else:
        hit: Machine = getattr(lab, cut)
        hit.power_off()
        hit.start()
    product.await_tunnel(lab)
    for machine in lab.machines:
        machine.run("tc qdisc del dev wan0 root", check=False)
    backup.wait_for("nothing is at work", "! pgrep -f 'drbd-offsite [f]ailback'", 300)
    done = server.run(FAILBACK, timeout=900)
    print(done.stdout, done.stderr)
    server.run(f"findmnt {WHERE} || mount {product.DEVICE} {WHERE}")
    assert checksum(server, "from-backup") == written
    back_on_the_server(lab)


@pytest.mark.thorough
def test_there_is_no_way_back_without_the_other_machine(lab: Lab) -> None:
    lab.enter(IN_USE)
    lose_the_server(lab)
    lab.backup.run(FAILOVER, timeout=300)
    refused(lab.backup, FAILBACK, UNREACHABLE, "does not answer")
    served(lab, lab.backup)


@pytest.mark.thorough
def test_switchover_and_back_lose_nothing(lab: Lab) -> None:
    lab.enter(IN_USE)
    server, backup = lab.machines
    server.run(f"echo '{product.DEVICE} {WHERE} ext4 nofail,x-systemd.requires=drbd-offsite@test_a.service 0 2' "
               ">>/etc/fstab && systemctl daemon-reload")  # fmt: skip
    first = write(server, "first")
    refused(backup, "drbd-offsite switchover --yes test_a", REFUSED, "mounted at", "on the server")
    done = server.run("drbd-offsite switchover --yes test_a", timeout=300)
    print(done.stdout, done.stderr)
    served(lab, backup)
    assert checksum(backup, "first") == first
    assert product.resource(server)["role"] == "Secondary"
    second = write(backup, "second")
    lab.both(Machine.reboot)
    backup.wait_for("the backup goes on serving", f"findmnt {WHERE}", 120)
    server.wait_for("they are connected", "grep -q cs:Connected /proc/drbd", 120)
    assert product.resource(server)["role"] == "Secondary"
    third = write(backup, "third")
    done = backup.run("drbd-offsite switchover --yes test_a", timeout=300)
    print(done.stdout, done.stderr)
    server.run(f"findmnt {WHERE}")
    assert [checksum(server, name) for name in ("first", "second", "third")] == [first, second, third]
    back_on_the_server(lab)


@pytest.mark.expects("Split-Brain detected")  # which a person has resolved, as the kernel says
@pytest.mark.thorough
def test_ten_rounds_of_split_brain_each_refused_and_each_kept(lab: Lab) -> None:
    lab.enter(IN_USE)
    for number in range(10):
        written = split(lab, server_writes=True, backup_writes=True)
        refused(lab.server, FAILBACK, REFUSED, "Both machines have data")
        keep = ("server", "backup")[number % 2]
        loser: Machine = getattr(lab, "backup" if keep == "server" else "server")
        lab.server.run(f"{FAILBACK} --keep {keep}", timeout=600)
        back_on_the_server(lab)
        look_inside(loser, "/dev/local/test_a_discarded", OF_ITS_OWN)
        assert loser.run(f"sha256sum /mnt/from-{loser.name}").stdout.split()[0] == written[loser.name]
        loser.run("umount /mnt && lvremove -q -y local/test_a_discarded")
        lab.server.run(f"rm -f {WHERE}/from-*")
        loser.wait_for("it is forgotten", "! test -e /var/lib/drbd-offsite/discarded/test_a.json", 150)
