"""Every step of ``add``, ``grow`` and ``remove`` is the last one: killed, powered off, cut off; then the same again.

The steps are found by an undisturbed run. What the machines are in the end is what they are after that run.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from . import product, volume
from .evidence import collect
from .lab import Lab, Stage
from .machine import Machine
from .ssh import CommandFailedError, UnreachableError
from .stages import ENROLLED, VG, VOLUME

pytestmark = pytest.mark.thorough

STEPS = os.environ.get("DRBD_OFFSITE_CRASH_STEPS")
"""FIRST:END, to try a part of the steps."""

HOOK = Path(__file__).with_name("crash_guest.py")


def _with_hook(lab: Lab) -> None:
    for machine in lab.machines:
        machine.copy_to(HOOK, "/root/crash_guest.py")
        machine.run("sed -i '/^sys.exit/i exec(open(\"/root/crash_guest.py\").read())' /usr/bin/drbd-offsite")


SMALL_MB = 20
"""Hundreds of first syncs: what the files need, and no more."""


def _with_hook_and_fstab(lab: Lab) -> None:
    _with_hook(lab)
    lab.server.run(f"lvremove --yes {product.VOLUME}")
    volume.make(lab.server, VG, VOLUME, SMALL_MB)
    lab.server.run("mkdir /srv/data && echo 'LABEL=test_a /srv/data ext4 noatime 0 2' >>/etc/fstab")
    lab.server.run("systemctl daemon-reload && mount /srv/data")
    lab.both(lambda machine: machine.run("sync"))  # or the power takes the hook as well


def _replicating(lab: Lab) -> None:
    lab.server.run(f"drbd-offsite add --remount {product.VOLUME}", timeout=600)
    product.await_up_to_date(lab)
    lab.both(lambda machine: machine.run("rm -f /run/steps"))  # which were of this add


BEFORE = Stage("crash-before", _with_hook_and_fstab, ENROLLED, product.await_tunnel)
AFTER = Stage("crash-after", _replicating, BEFORE, product.await_up_to_date)


@dataclass(frozen=True)
class Case:
    command: str
    stage: Stage
    settled: Callable[[Lab], None]


def _up_to_date(lab: Lab) -> None:
    # The kernel first: to ask drbd-offsite all the time takes most of an emulated processor.
    lab.server.wait_for("the copies are the same", "grep -q ' ds:UpToDate/UpToDate ' /proc/drbd", 240)
    product.await_up_to_date(lab)


CASES = {
    "add": Case(f"drbd-offsite add --remount {product.VOLUME}", BEFORE, _up_to_date),
    "grow": Case("drbd-offsite grow test_a +8M", AFTER, _up_to_date),
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


FAULTS = ("killed", "power of the server", "power of the backup", "link")


@pytest.mark.parametrize("where", ["server", "backup"])
@pytest.mark.parametrize("verb", list(CASES))
def test_every_step_can_be_the_last(lab: Lab, undisturbed: Callable[[str], Undisturbed], verb: str, where: str) -> None:
    case, wanted = CASES[verb], undisturbed(verb)
    steps = wanted.steps[where]
    assert steps, "an operation without a step on this machine"
    machine: Machine = getattr(lab, where)
    failures = []
    for number, written in _stops(lab, case, machine, steps):
        step = steps[number - 1]
        # The watcher finishes a remove by itself.
        shows = verb != "remove" and not step.endswith("is over")
        for fault in FAULTS:
            tried = f"{verb}, {fault}, after step {number} of {len(steps)} on the {where}: {step}"
            try:
                if _befall(lab, machine, fault) and shows:
                    assert product.status(lab.server)["operations"], "nobody sees that it is unfinished"
                _finish(lab, case, written, wanted)
            except (AssertionError, CommandFailedError, UnreachableError) as failure:
                print("FAILED", tried, flush=True)
                failures.append(f"{tried}: {failure}")
                collect(lab, f"crash-{verb}-{where}-{number}-{fault}")
            else:
                print("passed", tried, flush=True)
            lab.rewind(STOPPED, set_clocks=False)
    assert not failures, "\n\n".join(failures)


@pytest.mark.parametrize("verb", ["grow", "remove"])
def test_what_is_unfinished_is_given_up_for_as_long_as_there_is_a_way_back(
    lab: Lab, undisturbed: Callable[[str], Undisturbed], verb: str
) -> None:
    case, wanted = CASES[verb], undisturbed(verb)
    given_up = []
    for number, written in _stops(lab, case, lab.server, wanted.steps["server"]):
        _befall(lab, lab.server, "killed")
        aborted = lab.server.run(f"drbd-offsite {verb} --abort test_a", check=False)
        given_up.append(aborted.returncode == 0)
        print(f"{verb} --abort after step {number}: {aborted.returncode} {aborted.stdout}{aborted.stderr}", flush=True)
        if given_up[-1]:
            lab.server.run("drbd-offsite up test_a && (mountpoint -q /srv/data || mount /srv/data)", timeout=120)
            _up_to_date(lab)
            assert product.status(lab.server)["operations"] == []
            assert lab.server.run("cat /sys/block/drbd0/size").stdout == f"{SMALL_MB * 2048}\n"
            lab.server.run(case.command, timeout=600)
        _finish(lab, case, written, wanted)
        lab.rewind(STOPPED, set_clocks=False)
    ways_back = given_up.count(True)
    assert given_up == [True] * ways_back + [False] * (len(given_up) - ways_back)
    if STEPS is None:  # or it is a part of them
        assert 0 < ways_back < len(given_up)


STOPPED = "crash-stopped"


def _stops(lab: Lab, case: Case, machine: Machine, steps: list[str]) -> Iterator[tuple[int, str]]:
    """One command standing still after each of its steps: the number, and a file written just before (_written).

    STOPPED is that instant; the machines have to be put back to it before the next one.
    """
    first, end = map(int, STEPS.split(":")) if STEPS else (1, len(steps) + 1)
    lab.enter(case.stage)
    written = _written(lab.server)
    machine.run(f"echo {first} >/run/stop-after")
    lab.server.run(f"({case.command} >/root/said 2>&1; echo $? >/root/code) >/dev/null 2>&1 &")
    for step in range(first, end):
        machine.wait_for(f"step {step}: {steps[step - 1]}", "test -s /run/stopped", 180)
        written = _written(lab.server) or written
        # Not even their clocks may notice, or OpenVPN would take the leap for an outage.
        lab.snapshot(STOPPED, set_clocks=False)
        yield step, written
        machine.run(f"echo {step + 1} >/run/stop-after; kill -CONT $(cat /run/stopped; rm /run/stopped)")


WRITTEN = "/srv/data/at-the-fault"


def _written(server: Machine) -> str:
    """A file that is on the disk, as sha256sum prints it; empty while nothing is mounted."""
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
    lab.both(Machine.set_clock)
    return hit is machine


def _finish(lab: Lab, case: Case, written: str, wanted: Undisturbed) -> None:
    """The same command again, for as long as something is unfinished; and the end is the undisturbed one."""
    lab.mend_link()
    product.await_tunnel(lab)
    # The first one may still wait for a peer that went away.
    running = "pgrep -f '^/usr/bin/python.*drbd-offsite (add|grow|remove)'"
    lab.server.wait_for("the first command has ended", f"test -s /root/code || ! {running}", 700)

    def finished() -> bool:
        if product.status(lab.server)["operations"]:
            lab.server.run(case.command, check=False, timeout=600)  # refused until the two are connected again
        return not product.status(lab.server)["operations"]

    lab.server.wait_for("the same command finishes it", finished, 300)
    case.settled(lab)
    assert lab.server.run(f"sha256sum {WRITTEN}").stdout == written, "a file is lost"
    assert outcome(lab) == wanted.outcome


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
    line = "\n".join(f"echo '== {what}'; {look}" for what, look in looks.items())
    found: dict[str, object] = {machine.name: machine.run(line, check=False).stdout for machine in lab.machines}
    volume.check(lab.server, "/srv/data")
    found["space"] = lab.server.run("df --output=size /srv/data").stdout
    # At last, because it ends the mount: all is clean, whatever was replayed from the journal.
    lab.server.run("device=$(findmnt -n -o SOURCE /srv/data) && umount /srv/data && e2fsck -f -n $device")
    return found
