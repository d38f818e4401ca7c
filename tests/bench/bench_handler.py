"""What the kernel waits for: the handler as a whole process, over the start of a bare interpreter.

    /usr/bin/python3 tests/bench/bench_handler.py [DIRECTORY]

The installed script is run as it stands, but for its paths: what it keeps goes below DIRECTORY, or below one of
/tmp's. It writes as durably as it does for the kernel, so the disk of that directory is in the figures; a second
table has them without a disk. Commands are run in turn, so that a busy machine spoils them alike.
"""

import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PYTHON = "/usr/bin/python3"
ROUNDS = 40
MEMORY = "/dev/shm"

ENVIRONMENT = {
    "DRBD_RESOURCE": "test_a", "DRBD_MINOR": "0", "HOME": "/", "TERM": "linux",
    "PATH": "/sbin:/usr/sbin:/bin:/usr/bin:/lib/drbd",
}  # fmt: skip
"""As the kernel's helper has it (drbd.conf(5), "handlers")."""

SNAPSHOT = ("test_a", "local/test_a", "never")
EVENTS = {
    "out-of-sync": ("test_a",),
    "split-brain (with its hold)": ("test_a",),
    "local-io-error (with its hold)": ("test_a",),
    "pri-lost, refused (no resource)": ("../test_a",),
    "before-resync-target, no snapshot": SNAPSHOT,
}
"""The last one is apart: it loads what takes a snapshot, and the kernel waits for LVM besides."""


def script(directory: Path) -> Path:
    """debian/bin/handler with this tree's package, and with every path of the machine below ``directory``."""
    text = (ROOT / "debian/bin/handler").read_text(encoding="utf-8")
    installed = "/usr/lib/python3/dist-packages"
    assert installed in text
    moved = (
        "from drbd_offsite import handler\n"
        f'handler.STATE, handler.VOLATILE = "{directory}/lib", "{directory}/run"\n'
        f'doorbell.PATH = "{directory}/doorbell"\n'
        "handler._complain = lambda text: None\n"
        'if "resync" in sys.argv[1]:\n'
        "    from pathlib import Path\n"
        "    from drbd_offsite import files, journal\n"
        "    journal.STATE, journal.VOLATILE = Path(handler.STATE), Path(handler.VOLATILE)\n"
        "    files.LOCKS = journal.VOLATILE\n"
    )
    path = directory / "handler"
    path.write_text(
        text.replace(installed, str(ROOT / "src")).replace("\nsys.exit(", f"\n{moved}\nsys.exit("), encoding="utf-8"
    )
    for kept in ("run", "lib"):
        (directory / kept).mkdir()
    return path


def measure(directory: Path) -> None:
    handler = script(directory)
    commands = {"python3 -c pass": [PYTHON, "-c", "pass"], "python3 -IS -c pass": [PYTHON, "-IS", "-c", "pass"]}
    for name, words in EVENTS.items():
        commands[name] = [PYTHON, "-IS", str(handler), name.partition(" ")[0].rstrip(","), *words]
    times: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(-2, ROUNDS):  # the first two fill the caches
        for name, argv in commands.items():
            begun = time.perf_counter()
            done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, check=False, env=ENVIRONMENT)
            seconds = time.perf_counter() - begun
            assert (done.returncode, done.stderr) == (0, b""), done
            if number >= 0:
                times[name].append(seconds)
    lines = (directory / "lib/events.jsonl").read_text(encoding="utf-8").count("\n")
    # A figure for a handler that did nothing would be worth nothing.
    assert lines == (ROUNDS + 2) * sum("refused" not in name for name in EVENTS), lines
    middle = {name: statistics.median(found) for name, found in times.items()}
    print(f"\n{f'start to end, state in {directory}':44}{'ms':>10}{'to -c pass':>14}{'to -IS -c pass':>16}")
    for name, seconds in middle.items():
        bare, isolated = middle["python3 -c pass"], middle["python3 -IS -c pass"]
        print(f"{name:44}{seconds * 1000:>10.1f}{seconds / bare:>14.2f}{seconds / isolated:>16.2f}")


def main(places: list[str]) -> None:
    load = os.getloadavg()[0]
    print(f"{platform.platform()}, {os.cpu_count()} processors, load {load:.1f}, Python {platform.python_version()}")
    for place in places:
        with tempfile.TemporaryDirectory(prefix="bench-", dir=place) as directory:
            measure(Path(directory))


if __name__ == "__main__":
    main([*(sys.argv[1:] or [tempfile.gettempdir()]), MEMORY])
