"""The first copy carried on a disk: only what differs goes over the line."""

from __future__ import annotations

import pytest

from . import product, volume
from .lab import Lab
from .stages import ENROLLED
from .test_bad_days import REFUSED, refused
from .test_blank import copies_are_equal, counted

SEED = "/root/test_a.seed"
THERE = "/var/lib/misc/test_a.seed"
"""Where the backup's peer service sees it; its /tmp and /var/tmp are its own."""

NO_SEED = f"{THERE} on backup is not there, or is not the whole seed of local/test_a"
"""For every reason."""


def carry(lab: Lab) -> None:
    """What a person does with a disk."""
    encoded = lab.server.run(f"base64 {SEED}", timeout=300).stdout
    lab.backup.run(f"base64 -d > {THERE}", input=encoded)


@pytest.mark.thorough
def test_a_seed_leaves_little_to_send(lab: Lab) -> None:
    lab.enter(ENROLLED)
    server, backup = lab.machines
    server.run(f"mount {product.VOLUME} /mnt && drbd-offsite export-seed {product.VOLUME} {SEED}", timeout=600)
    assert "test_a_seed" not in server.run("lvs local").stdout
    carry(lab)
    # What is written after it was exported is what has to be sent.
    server.run("cp -a /usr/share/zoneinfo /mnt/ && sync && umount /mnt")
    written = int(server.run("du -sk /usr/share/zoneinfo").stdout.split()[0])
    said = server.run(f"drbd-offsite add {product.VOLUME} --seed {THERE}", timeout=600).stderr
    assert "could not be avoided" not in said
    product.await_up_to_date(lab)
    assert counted(server, "ns") < 3 * written + 4096, "KiB sent, with filesystem tables and checksums"
    server.run(f"mount {product.DEVICE} /mnt")
    volume.check(server, "/mnt")
    server.run("umount /mnt")
    product.await_up_to_date(lab)
    copies_are_equal(lab, "test_a")
    assert product.status(backup)["operations"] == []


@pytest.mark.thorough
def test_a_seed_that_is_not_the_one_is_refused_before_anything_is_touched(lab: Lab) -> None:
    lab.enter(ENROLLED)
    server, backup = lab.machines
    add = f"drbd-offsite add {product.VOLUME} --seed {THERE}"
    refused(server, add, REFUSED, NO_SEED)
    server.run(f"drbd-offsite export-seed {product.VOLUME} {SEED}", timeout=600)
    carry(lab)
    backup.run(f"truncate -s -1 {THERE}")
    refused(server, add, REFUSED, NO_SEED)
    backup.run(f"cp /bin/ls {THERE}")
    refused(server, add, REFUSED, NO_SEED)
    for machine in lab.machines:
        state = product.status(machine)
        assert (state["resources"], state["operations"]) == ([], [])
    backup.run("! test -e /dev/local/test_a")
