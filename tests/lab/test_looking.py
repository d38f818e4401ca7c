"""What would be served is looked at, or tried, on a snapshot: nothing is promoted, and nothing has to be undone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from . import product, volume
from .test_bad_days import FAILED, REFUSED, refused
from .test_drill import _left, _nothing_left
from .test_failover import ON_BOTH_FILESYSTEMS, STAGES, WHERE, hooks, write
from .test_healing import TUNNEL

if TYPE_CHECKING:
    from .lab import Lab

LOOK = "/run/drbd-offsite/looks/test_a"
READ_ONLY = "drbd-offsite failover --read-only test_a"
TEST = "drbd-offsite failover --test test_a"


@pytest.mark.thorough
@pytest.mark.parametrize("fstype", STAGES)
def test_the_copy_is_looked_at_while_the_tunnel_is_down_and_the_way_back_is_free(lab: Lab, fstype: str) -> None:
    lab.enter(STAGES[fstype])
    server, backup = lab.machines
    old = write(server, "old")
    product.await_up_to_date(lab)
    backup.run(f"systemctl stop {TUNNEL['backup']}")
    backup.wait_for("the line is down", "! grep -q cs:Connected /proc/drbd", 120)
    write(server, "new")
    said = backup.run(READ_ONLY, timeout=300).stdout
    print(said)
    assert f"mounted read-only at {LOOK}" in said
    volume.check(backup, LOOK)
    assert backup.run(f"sha256sum {LOOK}/old").stdout.split()[0] == old
    backup.run(f"! touch {LOOK}/written && ! test -e {LOOK}/new")
    seen = product.resource(backup)
    assert (seen["role"], seen["holds"]) == ("Secondary", [])
    refused(backup, READ_ONLY, REFUSED, "is open for a person", "failback")
    backup.run(f"systemctl start {TUNNEL['backup']}")
    product.await_tunnel(lab)
    product.await_up_to_date(lab)
    backup.run(f"! test -e {LOOK}/new")
    assert "nothing else was changed" in backup.run("drbd-offsite failback --yes test_a").stdout
    assert not _left(backup)
    server.run(f"umount {WHERE}")
    server.wait_for(
        "the copies are the same",
        lambda: product.checksum(server, product.VOLUME) == product.checksum(backup, product.VOLUME),
        90,
    )
    # And one that a reboot ends.
    backup.run(READ_ONLY, timeout=300)
    backup.reset()
    _nothing_left(backup)
    product.await_up_to_date(lab)


@ON_BOTH_FILESYSTEMS
def test_a_failover_is_tried_and_nothing_comes_of_it(lab: Lab, fstype: str) -> None:
    lab.enter(STAGES[fstype])
    backup = lab.backup
    said = backup.run(TEST, timeout=300).stdout
    print(said)
    assert f"it would be served mounted at {WHERE}" in said
    assert "failover.d/note start would be run" in said
    assert hooks(backup) == []
    assert not _left(backup)
    backup.run(f"mkdir -p {WHERE} && mount -t tmpfs none {WHERE}")
    refused(backup, TEST, REFUSED, "is mounted there", "umount")
    backup.run(f"umount {WHERE}")
    # Below DRBD, which knows nothing of it; direct, because DRBD reads past the page cache.
    where = {"ext4": "seek=8 count=64", "xfs": "seek=2 count=600"}[fstype]
    backup.run(f"dd if=/dev/urandom of=/dev/local/test_a bs=64k {where} conv=notrunc oflag=direct status=none")
    found = backup.run(TEST, check=False, timeout=300)
    print(found.stdout, found.stderr)
    assert found.returncode == FAILED
    assert "would stop here" in found.stdout
    assert not _left(backup)
    assert product.resource(backup)["role"] == "Secondary"
