"""The instants that tests start from."""

from __future__ import annotations

from . import product, volume
from .lab import Lab, Stage
from .machine import Machine

VG = "local"
VOLUME = "test_a"
VOLUME_MB = 96


def _build_clean(lab: Lab) -> None:
    lab.both(_make_vg)
    volume.make(lab.server, VG, VOLUME, VOLUME_MB)


def _make_vg(machine: Machine) -> None:
    machine.run(f"vgcreate --quiet {VG} /dev/vdb")


def _build_installed(lab: Lab) -> None:
    product.debs()
    lab.both(product.install)


def _build_replicating(lab: Lab) -> None:
    lab.server.run(f"drbd-offsite add {product.VOLUME}", timeout=600)
    product.await_up_to_date(lab)
    lab.server.wait_for("writes wait for the line no more", "drbdsetup show | grep -q pull-ahead")


CLEAN = Stage("clean", _build_clean)
"""Fresh Debian, a volume group on each, and on the server a volume full of known files."""

INSTALLED = Stage("installed", _build_installed, CLEAN)
"""The packages installed by apt, their questions answered."""

ENROLLED = Stage("enrolled", product.enrol, INSTALLED, product.settle_tunnel)
"""The tunnel is up; nothing is replicated yet."""

REPLICATING = Stage("replicating", _build_replicating, ENROLLED, product.settle)
"""test_a is served on the server and up to date on the backup; it is not mounted."""
