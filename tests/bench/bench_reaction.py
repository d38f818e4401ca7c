"""How fast the watcher reacts, over the bare command started at the same instant; and what it costs while it waits.

    /usr/bin/python3 tests/bench/bench_reaction.py            (as root; boots the lab's two machines)
    /usr/bin/python3 tests/bench/bench_reaction.py storms memory            (some of its parts)

Both ways take turns on the same machines: with the watcher running, and with it stopped and the bare command run by
a process that hears of the condition as the watcher does (reaction_guest.py). Nothing is asserted.
"""

import json
import os
import platform
import statistics
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]

from tests.lab import product  # noqa: E402
from tests.lab.accel import accelerator  # noqa: E402
from tests.lab.evidence import Watch  # noqa: E402
from tests.lab.image import ensure_image  # noqa: E402
from tests.lab.lab import Lab  # noqa: E402
from tests.lab.machine import Machine  # noqa: E402
from tests.lab.stages import REPLICATING  # noqa: E402

ROUNDS = 5
TRIES = 3
STORM = 1000
"""Changes of a volume."""
INTERFACES = 500
"""Each comes, gets an address, and goes."""
IDLE_SECONDS = 150
"""Two full looks and a half: what the watcher costs while nothing happens."""

GUEST = Path(__file__).with_name("reaction_guest.py")
UNIT = "drbd-offsite-watch.service"
CGROUP = f"/sys/fs/cgroup/system.slice/{UNIT}"
CPU = f"awk '/^usage_usec/ {{ print $2 }}' {CGROUP}/cpu.stat"
QUIET = f'before=$({CPU}); sleep 3; test "$before" = "$({CPU})"'

TUN = "tun0"
ADDRESS = "10.89.33.1"
RESOURCE, LV = "test_a", "local/test_a"
ATTACHED = ["Negotiating", "UpToDate", "Consistent", "Outdated", "Inconsistent"]

AT_MOST_SECONDS = 8.0
"""From the first command of a round to its condition. After 10 the watcher looks by itself at what was done by hand;
and for some 13 the peer waits for a call (connect-int, less a seventh) instead of calling an address that is not
there, which would make the time of a connection a matter of luck."""


def connecting(server: Machine) -> dict[str, Any]:
    """The tunnel stays, its address goes and comes: how long OpenVPN takes is no part of it."""
    words = server.run(f"ip -4 -o address show dev {TUN}").stdout.split()
    address = words[words.index("inet") + 1 : words.index("scope")]
    change = {verb: ["ip", "address", verb, *address, "dev", TUN] for verb in ("add", "del")}
    return {
        "condition": ["address", ADDRESS],
        "resource": RESOURCE,
        # The peer calls once more, is told that nobody listens, and then waits.
        "before": [["drbdadm", "disconnect", RESOURCE], ["sleep", "2"], change["del"]],
        "at_most": AT_MOST_SECONDS,
        "trigger": change["add"],
        "bare": ["drbdadm", "connect", RESOURCE],
        "states": {
            "address -> connecting": ["connection:Unconnected", "connection:Connecting"],
            "address -> Connected": ["connection:Connected"],
        },
    }


def attaching() -> dict[str, Any]:
    return {
        "condition": ["volume", LV],
        "resource": RESOURCE,
        "before": [["drbdadm", "detach", RESOURCE], ["lvchange", "-an", LV], ["udevadm", "settle"]],
        "at_most": AT_MOST_SECONDS,
        "trigger": ["lvchange", "-ay", LV],
        "bare": ["drbdadm", "attach", RESOURCE],
        "states": {"LV ready -> attached": [f"disk:{state}" for state in ATTACHED]},
    }


def one_round(lab: Lab, machine: Machine, task: dict[str, Any], bare: bool) -> dict[str, float]:
    """Seconds from the condition to each state, one way."""
    machine.run(f"systemctl {'stop' if bare else 'start'} {UNIT}")
    if not bare:
        await_quiet(machine)
    words = json.dumps(task | ({} if bare else {"bare": []}))
    for _ in range(TRIES):
        product.await_up_to_date(lab)
        await_no_snapshot(machine)
        found: dict[str, float] = json.loads(machine.run(["python3", "/root/reaction_guest.py", words]).stdout)
        if found:
            return found
        # drbdadm gave up waiting (it gives a disconnect 5 seconds), or all of it took too long: back, and once more.
        for command in (task["trigger"], task["bare"]):
            machine.run(command, check=False)
    sys.exit(f"{machine.name}: {task['condition']} could not be prepared, {TRIES} times in a row")


def await_quiet(machine: Machine) -> None:
    machine.wait_for("the watcher has nothing to do", QUIET, 120)


def await_no_snapshot(machine: Machine) -> None:
    """One that a resync has left would keep its volume from being deactivated."""
    machine.wait_for("no restore point is left", "! ls /dev/local/*_restore_point 2>/dev/null", 150)


def reactions(lab: Lab) -> None:
    plans = ((lab.server, connecting(lab.server)), (lab.backup, attaching()))
    times: dict[str, dict[bool, list[float]]] = {}
    for number in range(ROUNDS):
        for machine, task in plans:
            for bare in (False, True):
                for state, seconds in one_round(lab, machine, task, bare).items():
                    times.setdefault(state, {False: [], True: []})[bare].append(seconds)
            machine.run(f"systemctl start {UNIT}")
        print(f"round {number + 1} of {ROUNDS}", file=sys.stderr, flush=True)
    print(f"{f'seconds, median of {ROUNDS} (from least to most)':34}{'watcher':>22}{'bare command':>22}{'ratio':>8}")
    for state, ways in times.items():
        middle = {bare: statistics.median(found) for bare, found in ways.items()}
        shown = [f"{middle[bare]:.2f} ({min(ways[bare]):.2f}-{max(ways[bare]):.2f})" for bare in (False, True)]
        print(f"{state:34}{shown[0]:>22}{shown[1]:>22}{middle[False] / middle[True]:>8.2f}")


def cpu_seconds(machine: Machine) -> float:
    """Of the watcher and of all that it has run."""
    return int(machine.run(CPU).stdout) / 1e6


def storms(machine: Machine) -> None:
    """Events that have nothing to do with us: how many the kernel counted, and what they cost."""
    await_quiet(machine)
    idle = per_second(machine)
    # A volume of another use wakes the watcher, which has to see whose it is; so does an address, but for an
    # interface alone the kernel passes it over.
    machine.run("lvcreate -q -y -W n -L 4M -n bench_unrelated local")
    node = machine.run("readlink -f /dev/local/bench_unrelated").stdout.strip().removeprefix("/dev/")
    scripts = {
        "change of an unrelated LV": f"for i in $(seq {STORM}); do echo change >/sys/block/{node}/uevent; done",
        f"{INTERFACES} interfaces come and go": (
            f"for i in $(seq {INTERFACES}); do echo link add bench$i type dummy; "
            f"echo address add 198.51.100.1/32 dev bench$i; done | ip -batch - && "
            f"for i in $(seq {INTERFACES}); do echo link del bench$i; done | ip -batch -"
        ),
    }
    print(
        f"\n{'unrelated uevents':34}{'how many':>10}{'seconds':>10}{'CPU s':>10}{'idle, of that':>15}{'per 1,000':>12}"
    )
    for name, script in scripts.items():
        await_quiet(machine)
        count, begun, used = sequence(machine), time.monotonic(), cpu_seconds(machine)
        machine.run(f"{{ {script}; }} && udevadm settle --timeout=800", timeout=1200)
        await_quiet(machine)
        seconds = time.monotonic() - begun
        used, count = cpu_seconds(machine) - used, sequence(machine) - count
        waiting = idle * seconds
        net = (used - waiting) / count * 1000
        print(f"{name:34}{count:>10}{seconds:>10.1f}{used:>10.2f}{waiting:>15.2f}{net:>12.3f}")
    machine.run("lvremove -q -y local/bench_unrelated")


def per_second(machine: Machine) -> float:
    """What the full look each minute costs, as CPU seconds a second."""
    begun, used = time.monotonic(), cpu_seconds(machine)
    time.sleep(IDLE_SECONDS)
    rate = (cpu_seconds(machine) - used) / (time.monotonic() - begun)
    print(f"\nThe watcher while nothing happens: {rate * 60:.3f} CPU seconds a minute")
    return rate


def sequence(machine: Machine) -> int:
    """Number of the kernel's newest uevent."""
    return int(machine.run("cat /sys/kernel/uevent_seqnum").stdout)


def memory(machine: Machine) -> None:
    """Resident, as the kernel counts it; and with its helpers, what is shared divided by its users."""
    pid = machine.run(f"systemctl show --property=MainPID --value {UNIT}").stdout.strip()
    resident = int(machine.run(f"awk '/^VmRSS/ {{ print $2 }}' /proc/{pid}/status").stdout)
    share = f"for p in $(cat {CGROUP}/cgroup.procs); do cat /proc/$p/smaps_rollup; done 2>/dev/null"
    proportional = int(machine.run(f"{{ {share}; }} | awk '/^Pss:/ {{ sum += $2 }} END {{ print sum }}'").stdout)
    print(
        f"\nMemory of the watcher: {resident / 1024:.1f} MiB resident; with all that it runs, proportional "
        f"{proportional / 1024:.1f} MiB"
    )


PARTS = ("reactions", "storms", "memory")


def main(parts: tuple[str, ...]) -> None:
    if unknown := set(parts) - set(PARTS):
        sys.exit(f"{', '.join(sorted(unknown))}: its parts are {', '.join(PARTS)}")
    load = os.getloadavg()[0]
    how = accelerator(ensure_image())
    print(
        f"{platform.platform()}, {os.cpu_count()} processors, load {load:.1f}; machines of one processor under {how}\n"
    )
    lab = Lab.start()
    try:
        lab.enter(REPLICATING)
        product.await_up_to_date(lab)
        for machine in lab.machines:
            machine.copy_to(GUEST, "/root/")
        watch = Watch(lab)
        if "reactions" in parts:
            reactions(lab)
            product.await_up_to_date(lab)
        if "storms" in parts:
            storms(lab.server)
        if "memory" in parts:
            memory(lab.server)
        if findings := watch.findings():
            print("\nThe figures are of a product that is not well:\n" + "\n".join(findings))
    finally:
        lab.close()


if __name__ == "__main__":
    main(tuple(sys.argv[1:]) or PARTS)
