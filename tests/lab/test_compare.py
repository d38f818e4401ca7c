"""What differs after a split, file by file, and files brought from one side to the other; nothing of it stays."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from . import product
from .test_bad_days import REFUSED, USAGE, refused
from .test_drill import WARNED, _left, _nothing_left
from .test_failback import FAILBACK, back_on_the_server, split
from .test_failover import IN_USE, WHERE, checksum, write

if TYPE_CHECKING:
    from .lab import Lab
    from .machine import Machine

DIFF = "drbd-offsite failback --diff"
COPY = "drbd-offsite failback --copy"
UNIT = "drbd-offsite-files@test_a.service"
SHARED = "ls -A /run/drbd-offsite/files; systemctl list-units --all --no-legend --plain 'drbd-offsite-files@*'"
A_DIFF = 600.0

HANGING = """\
#!/bin/sh
[ "$1" != --server ] || exec sleep 4321
exec /root/rsync "$@"
"""


def shared(machine: Machine) -> list[str]:
    """What there is of a look that is shared: sockets and files, and units."""
    return machine.run(SHARED, check=False).stdout.split()


def nothing_left(lab: Lab) -> None:
    for machine in lab.machines:
        assert shared(machine) == []
        assert _left(machine) == []


def differences(lab: Lab, machine: Machine) -> dict[str, str]:
    """What --diff says there; it has left nothing anywhere."""
    done = machine.run(f"{DIFF} --json test_a", check=False, timeout=A_DIFF)
    print(done.stderr)
    found = json.loads(done.stdout)
    assert done.returncode == (WARNED if found else 0)
    nothing_left(lab)
    return {difference["path"]: difference["how"] for difference in found}


def other_than(lab: Lab, machine: Machine) -> Machine:
    return lab.backup if machine is lab.server else lab.server


def split_in_every_way(lab: Lab) -> dict[str, str]:
    """`split`, with files that differ in content, in attributes, and in their names."""
    for name in ("common", "mode"):
        write(lab.server, name, 1)
    product.await_up_to_date(lab)
    written = split(lab, server_writes=True, backup_writes=True)
    # Not synced: what has been written is compared, and not what has come to the disk by itself.
    lab.backup.run(f"chmod 640 {WHERE}/mode && echo of the backup >{WHERE}/common")
    lab.backup.run(f"mkdir {WHERE}/new && cd {WHERE}/new && touch 'Grüße *' \"$(printf 'a\\001b\\377')\"")
    return written


EXPECTED = {
    "common": "differs", "mode": "attributes differ", "from-server": "only on the server",
    "from-backup": "only on the backup", "new/": "only on the backup", "new/Grüße *": "only on the backup",
    "new/a\x01b\udcff": "only on the backup",
}  # fmt: skip


@pytest.mark.thorough
@pytest.mark.expects("Split-Brain detected")  # which a person has resolved, as the kernel says
def test_after_a_split_each_side_sees_what_differs_and_takes_what_it_wants(lab: Lab) -> None:
    lab.enter(IN_USE)
    server, backup = lab.machines
    written = split_in_every_way(lab)
    mine = checksum(server, "common")
    for machine in lab.machines:
        assert differences(lab, machine) == EXPECTED
    said = server.run(f"{DIFF} test_a", check=False, timeout=A_DIFF)
    assert "only on the backup  $'new/a\\001b\\377'" in said.stdout
    assert said.stdout.endswith(
        "test_a: only on the server: 1, only on the backup: 4, differs: 1, attributes differ: 1.\n"
    )
    # Either machine serves its own, so either can be the one that is kept.
    done = backup.run(f"{COPY} from-server test_a", timeout=A_DIFF)
    assert done.stdout.startswith("from-server\n")
    assert checksum(backup, "from-server") == written["server"]
    nothing_left(lab)
    done = server.run(
        f"{COPY} from-backup --copy common --copy mode --copy new --copy nowhere test_a", check=False, timeout=A_DIFF
    )
    print(done.stdout, done.stderr)
    assert done.returncode == 1, "one of them is nowhere"
    assert "nowhere" in done.stderr
    assert checksum(server, "from-backup") == written["backup"]
    assert server.run(f"cat {WHERE}/common").stdout == "of the backup\n"
    kept = server.run(f"ls {WHERE} | grep '^common.before-failback-'").stdout.strip()
    assert checksum(server, kept) == mine, "what was there is still there"
    assert server.run(f"stat -c %a {WHERE}/mode").stdout == "640\n"
    assert server.run(f"ls {WHERE}/new | wc -l").stdout == "2\n"
    nothing_left(lab)
    assert differences(lab, backup) == {kept: "only on the server"}
    server.run(f"{FAILBACK} --keep server", timeout=600)
    assert checksum(server, "from-backup") == written["backup"]
    back_on_the_server(lab)
    assert differences(lab, server) == {}


@pytest.mark.thorough
def test_what_cannot_be_meant_or_done_is_refused_and_leaves_nothing(lab: Lab) -> None:
    lab.enter(IN_USE)
    server, backup = lab.machines
    refused(backup, f"{COPY} common test_a", REFUSED, "not served from this machine")
    for path in ("../etc/passwd", "/etc/passwd", "."):
        refused(server, f"{COPY} {path} test_a", USAGE, "no path from the top of the filesystem")
    server.run(f"umount {WHERE}")
    refused(server, f"{COPY} common test_a", REFUSED, "not mounted here")
    server.run(f"mount {product.DEVICE} {WHERE}")
    for machine in lab.machines:
        machine.run("lvcreate -q -y -l 100%FREE -n full local")
        refused(machine, f"{DIFF} test_a", REFUSED, "MiB free", "vgextend")
        refused(other_than(lab, machine), f"{DIFF} test_a", REFUSED, "The peer says", "MiB free", "vgextend")
        nothing_left(lab)
        machine.run("lvremove -q -y local/full")
    backup.run("mv /usr/bin/rsync /root/")
    refused(backup, f"{DIFF} test_a", 1, "The backup cannot compare files", "apt install rsync")
    refused(server, f"{DIFF} test_a", REFUSED, "The peer says: The backup cannot compare files", "apt install rsync")
    backup.run("mv /root/rsync /usr/bin/")
    nothing_left(lab)
    assert differences(lab, server) == {}
    product.await_up_to_date(lab)


@pytest.mark.thorough
def test_a_look_that_somebody_has_left_is_in_nobody_s_way(lab: Lab) -> None:
    lab.enter(IN_USE)
    server, backup = lab.machines
    for _ in range(2):
        backup.run(f"systemctl start {UNIT}", timeout=A_DIFF)
        assert "test_a.sock" in shared(backup)
        backup.run("! findmnt | grep looks")
        write(server, "later", 1)
        product.await_up_to_date(lab)
        # One that was made before "later" would say that it is only here.
        assert differences(lab, server) == {}
        server.run(f"rm {WHERE}/later")
        product.await_up_to_date(lab)
    backup.run(f"systemctl start {UNIT}", timeout=A_DIFF)
    backup.run(f"systemctl kill --signal=KILL {UNIT}")
    _nothing_left(backup)
    assert differences(lab, server) == {}
    # In the middle of a comparison.
    backup.run("mv /usr/bin/rsync /root/ && cat >/usr/bin/rsync && chmod 755 /usr/bin/rsync", input=HANGING)
    server.run(f"({DIFF} test_a >/dev/null 2>&1 & echo $! >/root/pid)")
    backup.wait_for("it is being read", "pgrep -f '^sleep 4321'", A_DIFF)
    server.run("kill -9 $(cat /root/pid)")
    backup.run("mv /root/rsync /usr/bin/")
    _nothing_left(server)
    assert differences(lab, server) == {}
    backup.run("! pgrep -f '^sleep 4321'")


@pytest.mark.thorough
def test_the_peer_s_key_reads_what_is_shared_and_nothing_else(lab: Lab) -> None:
    lab.enter(IN_USE)
    server, backup = lab.machines
    line = "ssh -F none -T -i /etc/drbd-offsite/keys/backup/ssh -o BatchMode=yes -o StrictHostKeyChecking=yes "
    line += "-o UserKnownHostsFile=/etc/drbd-offsite/keys/backup/known_hosts -p 7788 root@10.89.33.2"
    refused(server, f"{line} files test_a </dev/null", REFUSED, "No look at test_a is shared by the backup now")
    refused(server, f"{line} files other </dev/null", REFUSED, "has no resource other")
    backup.run(f"systemctl start {UNIT}", timeout=A_DIFF)
    shell = "--rsh='/usr/bin/drbd-offsite peer-files test_a' peer::files"
    server.run(f"rsync -a {shell}/SHA256SUMS /root/sums && cmp /root/sums {WHERE}/SHA256SUMS")
    assert server.run(f"rsync -a /etc/hostname {shell}/ 2>/dev/null", check=False).returncode
    # A link out of it leads nowhere, for there is nothing else.
    server.run(f"ln -s /etc {WHERE}/out; sync")
    product.await_up_to_date(lab)
    backup.run(f"systemctl restart {UNIT}", timeout=A_DIFF)
    assert server.run(f"rsync -a {shell}/out/passwd /root/ 2>/dev/null", check=False).returncode
    server.run("! test -e /root/passwd")
    backup.run(f"systemctl stop {UNIT}", timeout=A_DIFF)
    server.run(f"rm {WHERE}/out")
    nothing_left(lab)
