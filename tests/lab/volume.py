"""A volume whose every byte is known, so that a test can say whether data came through."""

from __future__ import annotations

import hashlib
import io
import random
import tarfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .machine import Machine

FILE_COUNT = 300
LARGEST_FILE = 48 * 1024
SUMS = "SHA256SUMS"


def make(machine: Machine, vg: str, name: str, megabytes: int) -> None:
    """Make an LV with a labelled ext4 filesystem and fill it."""
    device = f"/dev/{vg}/{name}"
    machine.run(f"lvcreate --quiet --yes --size {megabytes}M --name {name} {vg}")
    machine.run(f"mkfs.ext4 -q -L {name} {device}")
    machine.run(f"mount {device} /mnt && tar --extract --directory=/mnt", input=_archive())
    check(machine, "/mnt")
    machine.run("umount /mnt")


def check(machine: Machine, directory: str) -> None:
    """Fail unless all the files that ``make`` wrote are there, byte for byte."""
    machine.run(f"cd {directory} && sha256sum --check --quiet --strict {SUMS}")


def _archive() -> bytes:
    chance = random.Random("drbd-offsite")
    files = {
        f"{number % 10}/file-{number:03}": chance.randbytes(chance.randrange(LARGEST_FILE))
        for number in range(FILE_COUNT)
    }
    sums = (f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in files.items())
    files[SUMS] = "".join(sums).encode()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()
