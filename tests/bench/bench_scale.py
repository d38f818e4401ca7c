"""How time grows with the number of resources, and what a start of each command costs; side by side, in one run.

    /usr/bin/python3 tests/bench/bench_scale.py

Nothing is asserted and nothing is written: the figures belong to the machine that is described in the first line.
A growth of 10 between two columns is linear. Starts are given as ratios to a bare interpreter, measured in turn with
it, so that a busy machine spoils them alike; what is computed is measured in CPU time for the same reason. The
handler's start has a benchmark of its own, bench_handler.py.
"""

import os
import platform
import statistics
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]

from drbd_offsite import config  # noqa: E402
from drbd_offsite.plan.assess import assess  # noqa: E402
from drbd_offsite.plan.circle import decide  # noqa: E402
from drbd_offsite.render import Credentials, render  # noqa: E402
from drbd_offsite.tools import drbd  # noqa: E402
from unit import make  # noqa: E402

SIZES = (10, 100, 1000)
STARTS = 15
PYTHON = "/usr/bin/python3"
CREDENTIALS = {"backup": Credentials(make.SECRET, (make.FINGERPRINT,))}
SLOW_SECONDS = 2.0
"""What takes longer is measured once; the rest up to five times, of which the best counts."""


def best(work: Callable[[], object]) -> float:
    times: list[float] = []
    while len(times) < 5 and sum(times) < SLOW_SECONDS:
        begun = time.process_time()
        work()
        times.append(time.process_time() - begun)
    return min(times)


def site_of(count: int) -> tuple[str, str]:
    """A configuration of so many resources, and what events2 prints of them."""
    text, events = make.CONFIG.partition("  [[test_a]]")[0], []
    for number in range(count):
        name = f"volume_{number}"
        place = f"local/drbd_meta[{number}]"
        text += f"  [[{name}]]\n    peer = backup\n    volume = local/{name}\n    peer_volume = local/{name}\n"
        text += (
            f"    metadata = {place}\n    peer_metadata = {place}\n    minor = {number}\n    peer_minor = {number}\n"
        )
        text += f"    port = {7789 + number}\n    peer_port = {7789 + number}\n"
        events += [
            f"exists resource name:{name} role:Primary suspended:no",
            f"exists connection name:{name} conn-name:backup connection:Connected role:Secondary",
            f"exists device name:{name} volume:0 minor:{number} disk:UpToDate size:1048576",
            f"exists peer-device name:{name} conn-name:backup volume:0 replication:Established peer-disk:UpToDate",
        ]
    return text, "\n".join(events) + "\nexists -\n"


def scale() -> None:
    works: dict[str, dict[int, float]] = {}
    for count in SIZES:
        text, events = site_of(count)
        site = config.parse(text)
        seen = drbd.parse_events(events.splitlines())
        host = make.host(drbd=seen.values())
        resources = list(site.resources.values())
        measured: dict[str, Callable[[], object]] = {
            "load and validate the configuration": lambda text=text: config.parse(text),
            "change one key of it": lambda text=text: config.updated(text, {"peers.backup.link_speed": "50"}),
            "render every file": lambda site=site: render(site, CREDENTIALS, "server"),
            "read drbdsetup events2": lambda events=events: drbd.parse_events(events.splitlines()),
            "decide and assess every resource": lambda site=site, host=host, resources=resources: [
                (decide(site, host, r), assess(site, host, r)) for r in resources
            ],
        }
        for name, work in measured.items():
            works.setdefault(name, {})[count] = best(work)
    print(f"{'ms of CPU time to':40}" + "".join(f"{count:>10}" for count in SIZES) + "   growth, for 10 times as many")
    for name, times in works.items():
        growth = ", ".join(f"{times[b] / times[a]:.1f}" for a, b in pairwise(SIZES))
        print(f"{name:40}" + "".join(f"{times[count] * 1000:>10.2f}" for count in SIZES) + f"   {growth}")


def memory() -> None:
    """What one process needs for all of it: configuration, files, a look and what follows from it."""
    peaks: dict[int, float] = {}
    for count in SIZES:
        text, events = site_of(count)
        tracemalloc.start()
        site = config.parse(text)
        host = make.host(drbd=drbd.parse_events(events.splitlines()).values())
        kept = [render(site, CREDENTIALS, "server")]
        kept += [(decide(site, host, r), assess(site, host, r)) for r in site.resources.values()]
        peaks[count] = tracemalloc.get_traced_memory()[1] / 2**20
        tracemalloc.stop()
    growth = ", ".join(f"{peaks[b] / peaks[a]:.1f}" for a, b in pairwise(SIZES))
    print(f"{'MiB for all of that at once':40}" + "".join(f"{peaks[n]:>10.2f}" for n in SIZES) + f"   {growth}")


def starts() -> None:
    """Whole processes: the interpreter, imports, and an answer that needs no machine."""
    path = f"import sys; sys.path.append({str(ROOT / 'src')!r}); "
    cli = f"{path}from drbd_offsite.cli import main; sys.exit(main(sys.argv[1:]))"
    # As root the real configuration and journal would be read and written: these go nowhere.
    nowhere = (
        "from pathlib import Path; from drbd_offsite import config; config.load.__defaults__ = (Path('/nonexistent'),)"
    )
    status = cli.replace("from drbd_offsite.cli", f"{nowhere}; from drbd_offsite.cli")
    commands = {
        "python3 -c pass": [PYTHON, "-c", "pass"],
        "python3 -IS -c pass": [PYTHON, "-IS", "-c", "pass"],
        "drbd-offsite --help": [PYTHON, "-c", cli, "--help"],
        "drbd-offsite status --help": [PYTHON, "-c", cli, "status", "--help"],
        "drbd-offsite status, not configured": [PYTHON, "-c", status, "status"],
    }
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(STARTS):
        for name, argv in commands.items():
            begun = time.perf_counter()
            subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, check=False)
            times[name].append(time.perf_counter() - begun)
    middle = {name: statistics.median(found) for name, found in times.items()}
    print(f"\n{'start of':40}{'ms':>10}{'to -c pass':>14}{'to -IS -c pass':>16}")
    for name, seconds in middle.items():
        bare, isolated = middle["python3 -c pass"], middle["python3 -IS -c pass"]
        print(f"{name:40}{seconds * 1000:>10.1f}{seconds / bare:>14.2f}{seconds / isolated:>16.2f}")


if __name__ == "__main__":
    load = os.getloadavg()[0]
    print(f"{platform.platform()}, {os.cpu_count()} processors, load {load:.1f}, Python {platform.python_version()}\n")
    scale()
    memory()
    starts()
