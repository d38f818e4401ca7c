"""Every step of ``add``, ``grow`` and ``remove`` is the last one: killed, powered off, cut off; then the same again.

The steps are found by an undisturbed run. What the machines are in the end is what they are after that run.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from . import product, volume
from .lab import Lab, Stage
from .machine import Machine
from .stages import ENROLLED

pytestmark = pytest.mark.thorough

HOOK = Path(__file__).with_name("crash_guest.py")


def _with_hook(lab: Lab) -> None:
    for machine in lab.machines:
        machine.copy_to(HOOK, "/root/crash_guest.py")
        machine.run("sed -i '/^sys.exit/i exec(open(\"/root/crash_guest.py\").read())' /usr/bin/drbd-offsite")


def _with_hook_and_fstab(lab: Lab) -> None:
    _with_hook(lab)
    lab.server.run("mkdir /srv/data && echo 'LABEL=test_a /srv/data ext4 noatime 0 2' >>/etc/fstab")
    lab.server.run("systemctl daemon-reload && mount /srv/data")


def _replicating(lab: Lab) -> None:
    lab.server.run(f"drbd-offsite add --remount {product.VOLUME}", timeout=600)
    product.await_up_to_date(lab)


BEFORE = Stage("crash-before", _with_hook_and_fstab, ENROLLED, product.await_tunnel)
AFTER = Stage("crash-after", _replicating, BEFORE, product.await_up_to_date)


@dataclass(frozen=True)
class Case:
    command: str
    stage: Stage
    settled: Callable[[Lab], None]


CASES = {
    "add": Case(f"drbd-offsite add --remount {product.VOLUME}", BEFORE, product.await_up_to_date),
    "grow": Case("drbd-offsite grow test_a +8M", AFTER, product.await_up_to_date),
    "remove": Case("drbd-offsite remove --remount test_a", AFTER, product.await_tunnel),
}


@dataclass(frozen=True)
class Undisturbed:
    """What a command leaves on both machines, and its steps on each."""

    outcome: dict[str, object]
    steps: dict[str, list[str]]


@pytest.fixture(scope="session")
def undisturbed(lab: Lab) -> Callable[[str], Undisturbed]:
    """By the verb, and run once for each."""

    @functools.cache
    def run(verb: str) -> Undisturbed:
        case = CASES[verb]
        lab.enter(case.stage)
        lab.server.run(case.command, timeout=600)
        case.settled(lab)
        steps = {machine.name: machine.run("cat /run/steps").stdout.splitlines() for machine in lab.machines}
        return Undisturbed(outcome(lab), steps)

    return run


@pytest.mark.parametrize("fault", ["killed", "power of the server", "power of the backup", "link"])
@pytest.mark.parametrize("where", ["server", "backup"])
@pytest.mark.parametrize("verb", list(CASES))
def test_every_step_can_be_the_last(
    lab: Lab, undisturbed: Callable[[str], Undisturbed], verb: str, where: str, fault: str
) -> None:
    case, wanted = CASES[verb], undisturbed(verb)
    steps = wanted.steps[where]
    assert steps, "an operation without a step on this machine"
    chosen = range(1, len(steps) + 1)
    if only := os.environ.get("DRBD_OFFSITE_CRASH_STEPS"):
        chosen = range(*map(int, only.split(":")))
    for number in chosen:
        step = f"{verb}, {fault}, after step {number} of {len(steps)} on the {where}: {steps[number - 1]}"
        print(step, flush=True)
        lab.enter(case.stage)
        machine: Machine = getattr(lab, where)
        machine.run(f"echo {number} >/run/stop-after; rm -f /run/steps")
        lab.server.run(f"({case.command} >/root/said 2>&1; echo $? >/root/code) >/dev/null 2>&1 &")
        machine.wait_for(step, "test -s /run/stopped", 180)
        written = _written(lab.server)
        ended = _befall(lab, machine, fault)
        if ended and verb != "remove" and not steps[number - 1].endswith("is over"):  # the watcher finishes a remove
            assert product.status(lab.server)["operations"], f"{step}: nobody sees that it is unfinished"
        lab.mend_link()
        product.await_tunnel(lab)
        finish(lab, case)
        case.settled(lab)
        if written:
            assert lab.server.run(f"sha256sum {WRITTEN} && rm {WRITTEN}").stdout == written, f"{step}: a file is lost"
        assert outcome(lab) == wanted.outcome, step


WRITTEN = "/srv/data/at-the-fault"


def _written(server: Machine) -> str:
    """A file that was on disk when it happened, as sha256sum prints it; empty while nothing is mounted."""
    line = f"findmnt /srv/data >/dev/null && head -c 1M /dev/urandom >{WRITTEN} && sync && sha256sum {WRITTEN}"
    return server.run(line, check=False).stdout


LINK_SECONDS = 20
"""Nothing can be waited for: the command goes on where it needs no link, and waits where it does."""


def _befall(lab: Lab, machine: Machine, fault: str) -> bool:
    """Whether it ended what had stopped itself on ``machine``; else that goes on."""
    if fault == "killed":
        machine.run("kill -9 $(cat /run/stopped)")
        return True
    if fault == "link":
        lab.cut_link()
        machine.run("kill -CONT $(cat /run/stopped)")
        time.sleep(LINK_SECONDS)
        return False
    hit = lab.server if fault == "power of the server" else lab.backup
    hit.power_off()
    if hit is not machine:
        machine.run("kill -CONT $(cat /run/stopped)")
    hit.start()
    return hit is machine


def finish(lab: Lab, case: Case) -> None:
    """The same command again, for as long as something is unfinished."""
    # The first one may still wait for a peer that went away.
    running = "pgrep -f '^/usr/bin/python.*drbd-offsite (add|grow|remove)'"
    lab.server.wait_for("the first command has ended", f"test -s /root/code || ! {running}", 700)

    def finished() -> bool:
        if product.status(lab.server)["operations"]:
            lab.server.run(case.command, check=False, timeout=600)  # refused until the two are connected again
        return not product.status(lab.server)["operations"]

    lab.server.wait_for("the same command finishes it", finished, 300)


def outcome(lab: Lab) -> dict[str, object]:
    """All that lasts, on both machines; and the files are looked at."""
    for machine in lab.machines:
        machine.wait_for("nothing is unfinished", lambda m=machine: product.status(m)["operations"] == [])  # type: ignore[misc]
        machine.wait_for("the resync is over", "! lvs | grep restore_point")
    looks = {
        "volumes": "lvs --noheadings -o lv_name,lv_size",
        "config": "cat /etc/drbd-offsite/drbd-offsite.conf",
        "resource files": "cat /etc/drbd.d/*.res 2>/dev/null",
        "drop-ins": "ls /etc/systemd/system/*.d",
        "fstab": "cat /etc/fstab",
        "mounts": "findmnt -n -o SOURCE,TARGET,OPTIONS /srv/data",
        "units": "systemctl is-enabled drbd-offsite@test_a; systemctl is-active drbd-offsite@test_a",
        "drbd": "grep -o 'cs:.*/UpToDate' /proc/drbd",
        "size": "cat /sys/block/drbd0/size 2>/dev/null",
    }
    found: dict[str, object] = {
        f"{machine.name}: {what}": machine.run(look, check=False).stdout
        for machine in lab.machines
        for what, look in looks.items()
    }
    volume.check(lab.server, "/srv/data")
    found["space"] = lab.server.run("df --output=size /srv/data").stdout
    # At last, because it ends the mount: all is clean, whatever was replayed from the journal.
    lab.server.run("device=$(findmnt -n -o SOURCE /srv/data) && umount /srv/data && e2fsck -f -n $device")
    return found
