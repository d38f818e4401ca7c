"""Whether this host can lend its processor to the machines, found out by trying."""

from __future__ import annotations

import os
import subprocess
from functools import cache
from pathlib import Path

from .image import Image, cache_dir
from .recipe import PROBE_WORD

PROBE_SECONDS = 20.0


@cache
def accelerator(image: Image) -> str:
    """Return ``kvm`` or ``tcg``; ``DRBD_OFFSITE_LAB_ACCEL`` has the last word."""
    forced = os.environ.get("DRBD_OFFSITE_LAB_ACCEL")
    if forced:
        return forced
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg"
    return _remembered(image)


def _remembered(image: Image) -> str:
    """Probe once per boot of this host: a failing probe costs its whole time."""
    memory = cache_dir() / "accel"
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    if memory.exists():
        known_boot, accel = memory.read_text().split()
        if known_boot == boot:
            return accel
    accel = "kvm" if _reaches_init(image) else "tcg"
    memory.write_text(f"{boot} {accel}\n")
    return accel


def _reaches_init(image: Image) -> bool:
    """Whether a kernel gets as far as /init under KVM; on some hosts /dev/kvm only looks usable."""
    argv = [
        "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
        "-accel", "kvm", "-cpu", "max", "-m", "512",
        "-kernel", str(image.kernel), "-initrd", str(image.initramfs),
        "-append", "console=ttyS0 panic=-1 lab.probe", "-serial", "stdio",
    ]  # fmt: skip
    try:
        done = subprocess.run(argv, check=False, stdin=subprocess.DEVNULL, capture_output=True, timeout=PROBE_SECONDS)
    except subprocess.TimeoutExpired:
        return False
    return PROBE_WORD.encode() in done.stdout
