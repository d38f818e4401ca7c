"""What is set while it is in use is in force on both machines at once, or on neither."""

from __future__ import annotations

import pytest

from . import product
from .lab import Lab
from .machine import Machine
from .stages import REPLICATING
from .test_bad_days import REFUSED, UNREACHABLE, USAGE, refused

pytestmark = pytest.mark.thorough

CONFIG = "/etc/drbd-offsite/drbd-offsite.conf"


def options(machine: Machine, name: str = "test_a") -> dict[str, str]:
    """What the kernel runs, as ``drbdsetup show`` prints it; what is DRBD's default is not in it."""
    lines = (line.split(";")[0].split() for line in machine.run(f"drbdsetup show {name}").stdout.splitlines())
    return {words[0]: words[1] for words in lines if len(words) == 2}


def replication_ports(machine: Machine) -> list[str]:
    """Both ends of DRBD's connections: a reconnect has others."""
    rows = [line.split() for line in machine.run("ss -tnH state established").stdout.splitlines()]
    return sorted(f"{row[2]} {row[3]}" for row in rows if ":7789" in row[2] + row[3])


def everything(lab: Lab) -> list[str]:
    look = f"(cat {CONFIG} /etc/drbd.d/*.res; drbdsetup show; ls /var/lib/drbd-offsite/operations) 2>&1"
    return [machine.run(f"{look} | grep -v secret").stdout for machine in lab.machines]


def test_a_rate_is_changed_on_both_machines_without_a_disconnect(lab: Lab) -> None:
    lab.enter(REPLICATING)
    lab.server.run(f"mount {product.DEVICE} /mnt")
    ports = replication_ports(lab.server)
    before = [options(machine) for machine in lab.machines]
    assert ports
    lab.server.run("drbd-offsite set test_a resync_rate 500")
    for machine in lab.machines:
        assert options(machine)["c-max-rate"].startswith("500k"), options(machine)
        assert "c-max-rate 500k;" in machine.run("cat /etc/drbd.d/0_test_a.res").stdout
        assert "resync_rate = 500" in machine.run(f"cat {CONFIG}").stdout
        assert "disk-options" not in machine.run("drbdadm --dry-run adjust all").stdout, "the files say the same"
        assert product.status(machine)["operations"] == []
    assert lab.server.run("drbd-offsite set test_a resync_rate").stdout == "500\n"
    lab.server.run("drbd-offsite set test_a resync_rate 0")
    assert [options(machine) for machine in lab.machines] == before
    assert replication_ports(lab.server) == ports
    product.await_up_to_date(lab)


def test_a_priority_changes_the_order_of_resyncs(lab: Lab) -> None:
    lab.enter(REPLICATING)
    server = lab.server
    server.run("lvcreate -q -y -L 8M -n test_b local && drbd-offsite add local/test_b", timeout=300)
    assert options(server, "test_b")["resync-after"] == "0"
    server.run("drbd-offsite set test_b priority 5")
    assert options(server, "test_a")["resync-after"] == "1"
    assert options(server, "test_b").get("resync-after", "-1") == "-1"
    lab.both(Machine.reboot)
    product.await_up_to_date(lab, deadline=180)
    assert options(server, "test_a")["resync-after"] == "1"
    assert "resync-after" not in options(lab.backup, "test_a"), "two orders could wait for each other"


def test_what_is_refused_changes_nothing(lab: Lab) -> None:
    lab.enter(REPLICATING)
    before = everything(lab)
    refused(lab.server, "drbd-offsite set test_a resync_rate 200", USAGE, "250 to 4194304")
    refused(lab.server, "drbd-offsite set test_a alerts some", USAGE, "all, faults, none")
    refused(lab.server, "drbd-offsite set test_a minor 5", USAGE, "priority, resync_rate, alerts")
    refused(lab.backup, "drbd-offsite set test_a priority 5", REFUSED, "is for the server")
    lab.cut_link()
    refused(lab.server, "drbd-offsite set test_a resync_rate 500", UNREACHABLE, "backup")
    assert everything(lab) == before


def test_what_the_kernel_of_the_server_refuses_is_undone_on_both(lab: Lab) -> None:
    """A drbdsetup that takes every value but the new one."""
    lab.enter(REPLICATING)
    before = [options(machine) for machine in lab.machines]
    lab.server.run("mkdir /root/real && mv /usr/sbin/drbdsetup /root/real/")
    script = """#!/bin/sh
    case "$*" in *c-max-rate=500k*) echo no >&2; exit 10;; esac
    exec /root/real/drbdsetup "$@"
    """
    lab.server.run("cat >/usr/sbin/drbdsetup && chmod 755 /usr/sbin/drbdsetup", input=script)
    said = refused(lab.server, "drbd-offsite set test_a resync_rate 500", 1, "is 0 as before, on both machines")
    assert "exit code 10" in said.stderr
    lab.server.run("mv /root/real/drbdsetup /usr/sbin/")
    assert [options(machine) for machine in lab.machines] == before
    for machine in lab.machines:
        assert machine.run("drbd-offsite set test_a resync_rate").stdout == "0\n"
        assert product.status(machine)["operations"] == []
    product.await_up_to_date(lab)
