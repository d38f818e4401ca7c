"""The demo: two machines, the main job step by step, and machines that stay to be looked at.

``python3 -m tests.lab.demo start [STAGE] | show | stop | ssh NAME [COMMAND…]``
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from . import product, stages, volume
from .image import cache_dir, ensure_image
from .lab import Lab, Stage
from .machine import Machine
from .ssh import Ssh

STAGES = {stage.name: stage for stage in (stages.CLEAN, stages.INSTALLED, stages.ENROLLED, stages.REPLICATING)}
WRITE = "dd if=/dev/urandom of=/mnt/written-while-cut bs=1M count=16 conv=fsync"


def state_file() -> Path:
    """Where the running demo is recorded."""
    return cache_dir() / "demo.json"


def start(stage: Stage) -> Lab:
    """Bring two machines that outlive this process to a stage."""
    if state_file().exists():
        sys.exit("A demo is running already; end it with: make demo-stop")
    lab = Lab.start(detach=True)
    try:
        lab.enter(stage)
    except BaseException:
        lab.close()
        raise
    machines = {m.name: {"pid": m.pid, "port": m.ssh.port} for m in lab.machines}
    state_file().write_text(json.dumps({"run_dir": str(lab.run_dir), "machines": machines}))
    return lab


class Story:
    """Tells what is done, types it as the admin would, and shows what the machines answer."""

    def __init__(self) -> None:
        self._begin = time.monotonic()

    def say(self, text: str) -> None:
        minutes, seconds = divmod(int(time.monotonic() - self._begin), 60)
        print(f"\n[{minutes}:{seconds:02}] {text}", flush=True)

    def type(self, machine: Machine, command: str, *, may_fail: bool = False) -> None:
        print(f"{machine.name}# {command}", flush=True)
        machine.ssh.connect()
        # A terminal there if there is one here: then long work shows its bar.
        terminal = ("-t",) if sys.stdout.isatty() else ()
        done = subprocess.run(machine.ssh.argv(*terminal, command=command), stdin=subprocess.DEVNULL, check=False)
        if done.returncode != 0 and not may_fail:
            sys.exit(f"That should have worked (exit code {done.returncode}). Look around, then: make demo-stop")


def show() -> None:
    """Steps 1 to 4 of the main job, an outage under writes, and two machines left running."""
    story = Story()
    product.debs()
    story.say("Two Debian machines: the image (2 minutes, once), the boot (1 minute) …")
    lab = start(stages.CLEAN)
    server, backup = lab.machines
    story.say("The packages, installed by apt with preseeded answers …")
    lab.both(product.install)
    story.say("The server invites, a file is carried over, the backup joins.")
    story.type(server, "drbd-offsite invite > backup.invite")
    print("(the file backup.invite is carried to the backup)")
    backup.run("umask 077; cat >backup.invite", input=server.run("cat backup.invite").stdout)
    story.type(backup, "drbd-offsite join backup.invite")
    story.say("A volume that holds a filesystem with files already is replicated.")
    story.type(server, f"drbd-offsite add {product.VOLUME}")
    product.await_up_to_date(lab)
    story.type(server, f"mount {product.DEVICE} /mnt && ls /mnt")
    volume.check(server, "/mnt")
    print("(every file has the checksum that it had before)")
    for machine in lab.machines:
        story.type(machine, "drbd-offsite status")
    story.say("The link is cut, and the server goes on writing.")
    lab.cut_link()
    server.wait_for("the loss is seen", lambda: product.resource(server)["level"] != "ok")
    story.type(server, WRITE)
    story.type(server, "drbd-offsite status", may_fail=True)
    story.say("The link is back.")
    lab.mend_link()
    product.await_up_to_date(lab)
    story.type(server, "drbd-offsite status")
    story.say("Stopped on both sides for a moment, the two copies are compared.")
    server.run("umount /mnt && drbd-offsite down --shutdown")
    backup.run("drbd-offsite down --shutdown")
    sums = {machine.name: product.checksum(machine, product.VOLUME) for machine in lab.machines}
    for name, digest in sums.items():
        print(f"{name}: SHA-256 of {product.VOLUME} is {digest}")
    if len(set(sums.values())) != 1:
        sys.exit("The copies differ. Look around, then: make demo-stop")
    lab.both(lambda machine: machine.run("drbd-offsite up"))
    product.await_up_to_date(lab)
    story.say("The same, bit by bit. Both machines go on replicating; look around:")
    for machine in lab.machines:
        print("  " + " ".join(_way_in(machine)))
    print("and end them with: make demo-stop")


def _way_in(machine: Machine) -> list[str]:
    key = ensure_image().key
    quiet = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]
    return ["ssh", "-F", "none", "-i", str(key), *quiet, "-p", str(machine.ssh.port), "root@127.0.0.1"]


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
    argv = way_in.argv(command=" ".join(command))
    os.execvp(argv[0], argv)


def _state() -> dict[str, Any]:
    if not state_file().exists():
        sys.exit("No demo is running; start one with: make demo")
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
    parser = argparse.ArgumentParser(prog="python3 -m tests.lab.demo", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    starting = verbs.add_parser("start", help="boot two machines at a stage, for looking around")
    starting.add_argument("stage", nargs="?", choices=STAGES, default="clean")
    verbs.add_parser("show", help="the whole story")
    verbs.add_parser("stop", help="end the machines")
    ssh = verbs.add_parser("ssh", help="a shell, or a command, in one of them")
    ssh.add_argument("name", choices=["server", "backup"])
    ssh.add_argument("command", nargs=argparse.REMAINDER)
    arguments = parser.parse_args()
    match arguments.verb:
        case "start":
            start(STAGES[arguments.stage])
            print("Running. Look in with: python3 -m tests.lab.demo ssh server")
        case "show":
            show()
        case "stop":
            stop()
        case "ssh":
            shell(arguments.name, arguments.command)


if __name__ == "__main__":
    main()
