"""How a machine of the lab is put together: QEMU's command line and the disks."""

from __future__ import annotations

import hashlib
import socket
import subprocess
from typing import TYPE_CHECKING

from .accel import accelerator
from .recipe import LAB_MACS, WAN_MACS

if TYPE_CHECKING:
    from pathlib import Path

    from .image import Image

MEMORY_MB = 768
DATA_DISK = "3G"


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def make_disks(name: str, image: Image, run_dir: Path) -> dict[str, Path]:
    """A root disk that keeps only what differs from the image, and an empty data disk."""
    disks = {"root": run_dir / f"{name}.root", "data": run_dir / f"{name}.data"}
    create = ["qemu-img", "create", "-q", "-f", "qcow2"]
    subprocess.run([*create, "-F", "raw", "-b", str(image.disk), str(disks["root"])], check=True)
    subprocess.run([*create, str(disks["data"]), DATA_DISK], check=True)
    return disks


def command(name: str, peer: str, image: Image, run_dir: Path, disks: dict[str, Path], ssh_port: int) -> list[str]:
    """The whole command line; NIC 1 is the lab's own way in, NIC 2 is the Internet."""
    machine_id = hashlib.sha256(f"drbd-offsite lab {name}".encode()).hexdigest()[:32]
    local = f"local.type=unix,local.path={run_dir}/{name}.wan"
    remote = f"remote.type=unix,remote.path={run_dir}/{peer}.wan"
    argv = [
        "qemu-system-x86_64", "-name", name,
        "-nodefaults", "-no-user-config", "-display", "none",
        "-machine", "pc", "-accel", accelerator(image), "-cpu", "max",
        "-smp", "1", "-m", str(MEMORY_MB),
        "-kernel", str(image.kernel), "-initrd", str(image.initramfs),
        "-append",
        f"console=ttyS0 panic=1 mitigations=off lab.name={name} lab.machine_id={machine_id}",
        "-device", "virtio-rng-pci",
        "-chardev", f"file,id=console,path={run_dir}/{name}.console,append=on",
        "-serial", "chardev:console",
        "-qmp", f"unix:{run_dir}/{name}.qmp,server=on,wait=off",
        "-netdev", f"user,id=lab,restrict=on,hostfwd=tcp:127.0.0.1:{ssh_port}-:22",
        "-device", f"virtio-net-pci,id=lab-nic,netdev=lab,romfile=,mac={LAB_MACS[name]}",
        # Datagrams, so that either side may be off and come back; a stream would stay cut.
        "-netdev", f"dgram,id=wan,{local},{remote}",
        "-device", f"virtio-net-pci,id=wan-nic,netdev=wan,romfile=,mac={WAN_MACS[name]}",
    ]  # fmt: skip
    for disk, path in disks.items():
        # unsafe: a flush costs nothing; what a test may lose is the guest's memory, not ours
        argv += ["-drive", f"id={disk},file={path},format=qcow2,cache=unsafe,if=none"]
        argv += ["-device", f"virtio-blk-pci,drive={disk},serial={disk}"]
    return argv
