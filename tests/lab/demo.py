"""Machines that stay: ``python3 -m tests.lab.demo start | stop | ssh NAME [COMMAND…]``."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

from .image import cache_dir, ensure_image
from .lab import Lab, Stage
from .ssh import Ssh
from .stages import CLEAN


def state_file() -> Path:
    """Where the running demo is recorded."""
    return cache_dir() / "demo.json"


def start(stage: Stage = CLEAN) -> None:
    """Bring two machines that outlive this process to a stage."""
    if state_file().exists():
        sys.exit("A demo is running already; end it with: python3 -m tests.lab.demo stop")
    lab = Lab.start(detach=True)
    try:
        lab.enter(stage)
    except BaseException:
        lab.close()
        raise
    machines = {m.name: {"pid": m.pid, "port": m.ssh.port} for m in lab.machines}
    state_file().write_text(json.dumps({"run_dir": str(lab.run_dir), "machines": machines}))


def stop() -> None:
    """End exactly the processes that ``start`` recorded, if they are still what they were."""
    state = _state()
    for machine in state["machines"].values():
        if not _is_ours(machine["pid"], state["run_dir"]):
            continue
        os.kill(machine["pid"], signal.SIGTERM)
        while _is_ours(machine["pid"], state["run_dir"]):
            time.sleep(0.1)
    shutil.rmtree(state["run_dir"], ignore_errors=True)
    state_file().unlink()


def shell(name: str, command: list[str]) -> None:
    """Become an ssh into one of the machines."""
    state = _state()
    port = state["machines"][name]["port"]
    way_in = Ssh(name, port, ensure_image().key, Path(state["run_dir"]))
    argv = way_in.argv(*command)
    os.execvp(argv[0], argv)


def _state() -> dict[str, Any]:
    if not state_file().exists():
        sys.exit("No demo is running; start one with: python3 -m tests.lab.demo start")
    state: dict[str, Any] = json.loads(state_file().read_text())
    return state


def _is_ours(pid: int, run_dir: str) -> bool:
    """Whether the pid is still the QEMU that was started, not some later process."""
    try:
        argv = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except FileNotFoundError:
        return False
    return argv[0].startswith("qemu-system") and any(run_dir in word for word in argv)


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="python3 -m tests.lab.demo", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("start")
    verbs.add_parser("stop")
    ssh = verbs.add_parser("ssh")
    ssh.add_argument("name", choices=["server", "backup"])
    ssh.add_argument("command", nargs=argparse.REMAINDER)
    arguments = parser.parse_args()
    if arguments.verb == "start":
        start()
        print("Running. Look in with: python3 -m tests.lab.demo ssh server")
    elif arguments.verb == "stop":
        stop()
    else:
        shell(arguments.name, arguments.command)


if __name__ == "__main__":
    main()
