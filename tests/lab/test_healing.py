"""It mends itself: volumes and tunnels that come and go, DRBD changed by hand, the watcher itself killed."""

from __future__ import annotations

import json
import random
import time
from typing import Any

import pytest

from . import product, volume
from .lab import Lab
from .machine import Machine
from .stages import REPLICATING

TUNNEL = {
    "server": "openvpn-server@drbd-offsite-backup",
    "backup": "openvpn-server@drbd-offsite-server",
}
WATCHER = "drbd-offsite-watch"


def events(machine: Machine, event: str = "") -> list[dict[str, Any]]:
    """The journal's entries, all or those of one kind."""
    lines = machine.run("drbd-offsite events --json").stdout.splitlines()
    return [entry for entry in map(json.loads, lines) if event in ("", entry["event"])]


def connection(machine: Machine) -> str:
    return str(product.resource(machine)["connection"])


def _holders(machine: Machine) -> list[str]:
    return [hold["set_by"] for hold in product.resource(machine)["holds"]]


def standalone(machine: Machine) -> bool:
    return connection(machine) == "StandAlone"


def test_a_volume_that_appears_is_attached_and_served(lab: Lab) -> None:
    lab.enter(REPLICATING)
    # As in a shutdown of both, at the same instant.
    lab.both(
        lambda machine: machine.run(
            f"systemctl stop {WATCHER} drbd-offsite@test_a && lvchange -an local/test_a && systemctl start {WATCHER}"
        )
    )
    for machine in lab.machines:
        machine.wait_for("the kernel knows it", lambda m=machine: product.resource(m)["disk"] == "Diskless")  # type: ignore[misc]
    lab.both(lambda machine: machine.run("lvchange -ay local/test_a"))
    product.await_up_to_date(lab)
    assert not [entry for machine in lab.machines for entry in events(machine, "failed")]


def test_a_tunnel_that_stops_and_comes_back_is_used_again(lab: Lab) -> None:
    lab.enter(REPLICATING)
    lab.server.run(f"mount {product.DEVICE} /mnt")
    for machine in lab.machines:
        machine.run(f"systemctl stop {TUNNEL[machine.name]}")
        machine.wait_for("DRBD has given up (StandAlone)", lambda m=machine: standalone(m))  # type: ignore[misc]
        lab.server.run(f"cp -a /usr/share/zoneinfo/Europe /mnt/{machine.name} && sync")
        assert "The tunnel is down" in machine.run("drbd-offsite status", check=False).stdout
        assert not product.resource(machine)["holds"], "a lost tunnel is no split brain"
        machine.run(f"systemctl start {TUNNEL[machine.name]}")
        product.await_up_to_date(lab)
        assert product.resource(lab.server)["out_of_sync_bytes"] == 0


@pytest.mark.thorough
def test_a_tunnel_that_comes_back_an_hour_later_is_used_again(lab: Lab) -> None:
    """The clocks' hour: that much time is not waited for, and five looks of the watcher are."""
    lab.enter(REPLICATING)
    for machine in lab.machines:
        machine.run(f"systemctl stop {TUNNEL[machine.name]}")
        machine.wait_for("DRBD has given up (StandAlone)", lambda m=machine: standalone(m))  # type: ignore[misc]
        lab.both(lambda m: m.run("date --set '+1 hour'"))
        lab.server.run(f"dd if=/dev/urandom of={product.DEVICE} bs=1M count=4 seek=64 conv=fsync status=none")
        time.sleep(300)
        machine.run(f"systemctl start {TUNNEL[machine.name]}")
        product.await_up_to_date(lab)
    assert product.checksum(lab.server, product.VOLUME) == product.checksum(lab.backup, product.VOLUME)


@pytest.mark.thorough
def test_a_line_that_flaps_starts_no_storm_of_commands(lab: Lab) -> None:
    lab.enter(REPLICATING)
    before = {machine.name: len(events(machine, "done")) for machine in lab.machines}
    chance = random.Random("fifty times")
    for number in range(100):
        (lab.cut_link, lab.mend_link)[number % 2]()
        time.sleep(chance.uniform(0.0, 2.0))
    product.await_up_to_date(lab)
    for machine in lab.machines:
        done = events(machine, "done")[before[machine.name] :]
        assert len(done) <= 10, done


BY_HAND = [
    ("server", "drbdadm down test_a", "attach"),
    ("backup", "drbdadm detach test_a", "attach"),
    ("server", "drbdadm disconnect test_a", "connect"),
]


def test_what_is_undone_by_hand_is_healed_after_a_while(lab: Lab) -> None:
    lab.enter(REPLICATING)
    for name, command, healed_by in BY_HAND:
        machine: Machine = getattr(lab, name)
        before = len(events(machine, "done"))
        machine.run(command)
        # It may still look well for a moment.
        machine.wait_for("it is healed", lambda m=machine, b=before: len(events(m, "done")) > b)  # type: ignore[misc]
        product.await_up_to_date(lab)
        assert any(healed_by in entry["text"] for entry in events(machine, "done")[before:])


@pytest.mark.thorough
def test_a_hold_keeps_what_was_done_by_hand(lab: Lab) -> None:
    lab.enter(REPLICATING)
    lab.server.run("drbd-offsite hold test_a --reason 'a look with drbdadm'")
    lab.server.run("drbdadm disconnect test_a", check=False)  # what counts is the state, see operations/disconnect.py
    lab.server.wait_for("it is disconnected", lambda: standalone(lab.server))
    lab.server.run(f"systemctl restart {WATCHER}")
    before = len(events(lab.server, "done"))
    time.sleep(45)  # longer than the watcher's patience; nothing can be waited for, because nothing may happen
    assert standalone(lab.server)
    assert len(events(lab.server, "done")) == before
    lab.server.run("drbd-offsite up test_a")
    product.await_up_to_date(lab)


def test_a_watcher_that_starts_again_finds_what_it_has_missed(lab: Lab) -> None:
    lab.enter(REPLICATING)
    server = lab.server
    server.run(f"systemctl stop {WATCHER} {TUNNEL['server']}")
    server.wait_for("DRBD has given up (StandAlone)", lambda: standalone(server))
    server.run(f"systemctl start {TUNNEL['server']}")
    product.await_tunnel(lab)
    assert standalone(server), "nobody was there to see the tunnel come back"
    server.run(f"systemctl start {WATCHER}")
    product.await_up_to_date(lab)
    server.run(f"kill -9 $(systemctl show -P MainPID {WATCHER}) && drbdadm disconnect test_a")
    server.wait_for("the loss shows", lambda: standalone(server))
    product.await_up_to_date(lab)
    server.run(f"systemctl is-active {WATCHER}")


def _children_ticks(machine: Machine) -> int:
    """Processor time of all the programs that the watcher has run, in ticks (proc(5), cutime and cstime)."""
    fields = machine.run(f"cat /proc/$(systemctl show -P MainPID {WATCHER})/stat").stdout.rpartition(")")[2].split()
    return int(fields[13]) + int(fields[14])


@pytest.mark.thorough
def test_unrelated_volumes_and_interfaces_start_nothing(lab: Lab) -> None:
    lab.enter(REPLICATING)
    server = lab.server
    server.run("truncate -s 64M /root/other.img && vgcreate --quiet other $(losetup --find --show /root/other.img)")
    server.run("for i in $(seq 10); do lvcreate -q -y -L 4M -n lv$i other; done", timeout=300)
    # Right after a full look, so that the next one is not in the way.
    server.run(f"systemctl restart {WATCHER} && sleep 8")
    before, done = _children_ticks(server), len(events(server, "done"))
    server.run(
        "for i in $(seq 50); do udevadm trigger --action=change --sysname-match='dm-*' "
        "--property-match=DM_VG_NAME=other; done; "
        "for i in $(seq 500); do echo link add dummy$i type dummy; echo addr add 198.51.100.1/32 dev dummy$i; "
        "echo link del dummy$i; done | ip -batch - && udevadm settle",
        timeout=300,
    )
    assert len(events(server, "done")) == done
    # 100 ticks a second; a full look that falls into the time takes some of them under the emulated processor.
    assert _children_ticks(server) - before < 300
    assert product.resource(server)["level"] == "ok"


def _slow_link(lab: Lab) -> None:
    lab.server.run("tc qdisc add dev wan0 root tbf rate 8mbit burst 32kb latency 400ms")


def _fast_link(lab: Lab) -> None:
    lab.server.run("tc qdisc del dev wan0 root", check=False)


def _resyncing(machine: Machine) -> bool:
    return product.resource(machine)["replication"] in ("SyncSource", "SyncTarget")


def _outage(lab: Lab, megabytes: int) -> None:
    """So much is written while the link is cut; then it is back, and slow."""
    lab.server.run(f"mount {product.DEVICE} /mnt")
    lab.cut_link()
    lab.server.wait_for("the loss is noticed", lambda: connection(lab.server) != "Connected")
    lab.backup.wait_for("the loss is noticed there", lambda: connection(lab.backup) != "Connected")
    lab.server.run(f"dd if=/dev/urandom of=/mnt/new bs=1M count={megabytes} conv=fsync status=none && umount /mnt")


@pytest.mark.thorough
def test_a_resync_goes_on_after_a_reboot_of_the_backup(lab: Lab) -> None:
    lab.enter(REPLICATING)
    _slow_link(lab)
    _outage(lab, 30)
    lab.mend_link()
    lab.backup.wait_for("the resync runs", lambda: _resyncing(lab.backup), 120)
    lab.backup.reboot()
    _fast_link(lab)
    product.await_up_to_date(lab, deadline=180)
    lab.backup.wait_for("no restore point is left", lambda: "restore_point" not in lab.backup.run("lvs").stdout, 120)


@pytest.mark.thorough
def test_a_first_sync_goes_on_after_a_reboot_of_the_server(lab: Lab) -> None:
    lab.enter(REPLICATING)
    lab.server.run("lvcreate -q -y -L 64M -n second local && mkfs.ext4 -q /dev/local/second")
    _slow_link(lab)
    lab.server.run("drbd-offsite add --no-wait /dev/local/second", timeout=600)
    lab.server.wait_for(
        "the first sync runs", lambda: product.resource(lab.server, "second")["peer_disk"] != "UpToDate"
    )
    lab.server.reboot()
    _fast_link(lab)
    product.await_up_to_date(lab, "second", deadline=240)


IO_ERROR = (
    "modprobe dm-flakey; set -- $(dmsetup table local-test_a); "
    'dmsetup suspend --noflush local-test_a && dmsetup load local-test_a --table "0 $2 flakey $4 $5 0 3600" && '
    "dmsetup resume local-test_a"
)
SOUND_AGAIN = (
    "set -- $(dmsetup table local-test_a); dmsetup suspend --noflush local-test_a && "
    'dmsetup load local-test_a --table "0 $2 linear $4 $5" && dmsetup resume local-test_a'
)


def test_after_an_io_error_the_peers_copy_is_used_until_somebody_asks(lab: Lab) -> None:
    lab.enter(REPLICATING)
    server = lab.server
    server.run(f"mount {product.DEVICE} /mnt")
    server.run(IO_ERROR)
    server.run("echo 3 >/proc/sys/vm/drop_caches; touch /mnt/written; sync", timeout=60)
    server.wait_for("it is detached", lambda: product.resource(server)["disk"] == "Diskless")
    volume.check(server, "/mnt")
    assert product.resource(server)["role"] == "Primary"
    assert _holders(server) == ["local-io-error"]
    # Also when the line is lost and comes back: a Primary without its disk lives on the peer's.
    server.run(f"systemctl restart {WATCHER}")
    server.run(SOUND_AGAIN)
    assert product.resource(server)["disk"] == "Diskless", "nobody has asked for it"
    server.run("drbd-offsite up test_a")
    product.await_up_to_date(lab)
    volume.check(server, "/mnt")
    server.run("test -e /mnt/written && umount /mnt")


SPARE_WRITE = "dd if=/dev/urandom of=/dev/drbd0 bs=64k count=2 seek=1500 oflag=direct status=none"
"""To where the filesystem has nothing."""


def _both_up_to_date(machine: Machine) -> bool:
    seen = product.resource(machine)
    return (seen["disk"], seen["peer_disk"], seen["replication"]) == ("UpToDate", "UpToDate", "Established")


def _diverge(lab: Lab) -> None:
    """Both copies are written to while neither sees the other; then the line is back."""
    lab.cut_link()
    for machine in lab.machines:
        machine.wait_for("the loss is noticed", lambda m=machine: connection(m) != "Connected")  # type: ignore[misc]
    lab.backup.run(f"drbdadm primary test_a && {SPARE_WRITE} && drbdadm secondary test_a")
    lab.server.run(f"mount {product.DEVICE} /mnt && touch /mnt/server && sync && umount /mnt")
    lab.mend_link()


def _in_split_brain(machine: Machine) -> bool:
    seen = product.resource(machine)
    return seen["connection"] == "StandAlone" and "split-brain" in _holders(machine)


@pytest.mark.expects("Split-Brain detected")
def test_a_split_brain_is_held_explained_and_resolved_by_a_person_alone(lab: Lab) -> None:
    lab.enter(REPLICATING)
    _diverge(lab)
    for machine in lab.machines:
        machine.wait_for("the split brain is held", lambda m=machine: _in_split_brain(m), 120)  # type: ignore[misc]
        machine.wait_for(
            "it says who has changed what",
            lambda m=machine: "has changed" in m.run("drbd-offsite status", check=False).stdout,  # type: ignore[misc]
        )
        said = machine.run("drbd-offsite status", check=False).stdout
        assert "server (" in said, said
        assert "backup (" in said, said
        assert "connect --discard-here test_a" in said
    lab.both(lambda machine: machine.run(f"systemctl restart {WATCHER}"))
    lab.server.run("drbd-offsite connect test_a", check=False)
    lab.server.wait_for("the backup's hold keeps them apart", lambda: _in_split_brain(lab.backup))
    given_up = product.checksum(lab.backup, product.VOLUME)
    lab.backup.run("drbd-offsite connect --discard-here test_a")
    lab.server.run("drbd-offsite connect test_a", check=False)
    product.await_up_to_date(lab)
    assert product.checksum(lab.backup, "/dev/local/test_a_discarded") == given_up, "what was given up is kept"
    lab.server.run(f"mount {product.DEVICE} /mnt && test -e /mnt/server && umount /mnt")
    lab.backup.wait_for("nothing is held any more", lambda: not product.resource(lab.backup)["holds"])


def _boot_wait(machine: Machine, seconds: str) -> None:
    machine.run(f"sed -i 's/boot_wait = .*/boot_wait = {seconds}/' /etc/drbd-offsite/drbd-offsite.conf")


def test_a_server_that_returns_after_the_backup_took_over_gets_its_data_back(lab: Lab) -> None:
    lab.enter(REPLICATING)
    _boot_wait(lab.server, "180")
    lab.server.run("sync")
    lab.server.power_off()
    lab.backup.wait_for("the loss is noticed", lambda: connection(lab.backup) != "Connected")
    lab.backup.run(f"drbd-offsite disconnect test_a && drbdadm primary test_a && {SPARE_WRITE}")
    lab.server.start()
    lab.server.wait_for("it has been told", lambda: _holders(lab.server) == ["taken-over"], 240)
    assert product.resource(lab.server)["role"] == "Secondary"
    assert "has taken over" in lab.server.run("drbd-offsite status", check=False).stdout
    lab.backup.run("drbd-offsite connect test_a")
    assert lab.server.run("drbd-offsite up test_a", check=False).returncode == 5, "what it has is older"
    lab.server.wait_for("it has the newer data", lambda: _both_up_to_date(lab.server), 120)
    assert product.resource(lab.server)["role"] == "Secondary", "the backup serves it"
    lab.backup.run("drbdadm secondary test_a")
    product.await_up_to_date(lab)
    assert not _holders(lab.server)
    lab.server.run("drbd-offsite down test_a")
    lab.backup.run("drbd-offsite down test_a")
    assert product.checksum(lab.server, product.VOLUME) == product.checksum(lab.backup, product.VOLUME)


@pytest.mark.thorough
@pytest.mark.expects("Split-Brain detected")
def test_a_server_that_hears_nothing_serves_and_what_follows_is_seen(lab: Lab) -> None:
    lab.enter(REPLICATING)
    _boot_wait(lab.server, "5")
    lab.server.run("sync")
    lab.server.power_off()
    lab.backup.wait_for("the loss is noticed", lambda: connection(lab.backup) != "Connected")
    lab.backup.run(f"drbdadm primary test_a && {SPARE_WRITE}")
    lab.backup.set_link(False)
    lab.server.start()
    lab.server.wait_for("it serves", lambda: product.resource(lab.server)["role"] == "Primary", 120)
    lab.server.run(f"mount {product.DEVICE} /mnt && touch /mnt/server && sync && umount /mnt")
    lab.backup.set_link(True)
    for machine in lab.machines:
        machine.wait_for("the split brain is held", lambda m=machine: _in_split_brain(m), 180)  # type: ignore[misc]
