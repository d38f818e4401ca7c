"""``doctor``: what is wrong on a machine is found, as bad as it is, and not found any more once it is mended."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest

from . import product
from .lab import Lab
from .machine import Machine
from .stages import REPLICATING

EXIT = {"note": 0, "fault": 1, "warning": 6}
"""drbd-offsite(8)."""

HANDLER = "/usr/lib/drbd-offsite/handler"
SECRET = "/etc/drbd-offsite/keys/backup/drbd.secret"
HELPER = "/sys/module/drbd/parameters/usermode_helper"
META = "drbdmeta --force 9 v08 /dev/local/drbd_meta 1"
SERVED_BEFORE = (
    f"lvextend -q -L 256M local/drbd_meta && {META} create-md </dev/null && {META} dump-md >/root/md </dev/null && "
    "sed -i '0,/0x0000000000000004/s//0x1234567890ABCDEF/' /root/md && "
    f"yes yes | {META} restore-md /root/md"
)
"""Metadata of a volume that was replicated once."""
LINE = "openvpn-server@drbd-offsite-backup"


@dataclass(frozen=True)
class Trouble:
    """What goes wrong, and what doctor says of it; it is mended as doctor says where a command can do that."""

    what: str
    cause: str
    severity: str
    mended: str
    where: str = "server"
    seen_on: str = "server"


TROUBLES = (
    Trouble("drbd.secret can be read by others", f"chmod 644 {SECRET}", "fault", f"chmod go= {SECRET}"),
    Trouble(
        "global_common.conf can be read by others",
        "echo 'common { net { shared-secret \"hunter2\"; } }' >>/etc/drbd.d/global_common.conf",
        "fault",
        "sed -i '$d' /etc/drbd.d/global_common.conf",
    ),
    Trouble("watch.service does not run", "systemctl stop drbd-offsite-watch", "fault", "systemctl start {unit}"),
    Trouble("is not enabled", "systemctl disable drbd-offsite-watch", "warning", "systemctl enable {unit}"),
    Trouble("drbd.service is enabled", "systemctl enable drbd.service", "warning", "systemctl disable drbd.service"),
    Trouble(
        "0_test_a.res is not what the configuration says",
        "sed -i 's/al-extents .*;/al-extents 67;/' /etc/drbd.d/0_test_a.res",
        "warning",
        "drbd-offsite render",
    ),
    Trouble(
        "test_a runs with other disk options",
        "drbdsetup disk-options 0 --c-max-rate=401",
        "warning",
        "drbdadm adjust test_a",
    ),
    Trouble("drbdadm refuses what is in /etc/drbd.d", "echo '}' >/etc/drbd.d/x.res", "fault", "rm /etc/drbd.d/x.res"),
    Trouble("and not drbdadm", f"printf /bin/true >{HELPER}", "fault", f"printf /sbin/drbdadm >{HELPER}"),
    Trouble("and not drbdadm", f"echo /sbin/drbdadm >{HELPER}", "fault", f"printf /sbin/drbdadm >{HELPER}"),
    Trouble("cannot be executed", f"chmod a-x {HANDLER}", "fault", f"chmod a+x {HANDLER}"),
    Trouble("may change /usr/lib/drbd-offsite,", "chmod g+w /usr/lib/drbd-offsite", "fault", "chmod go-w {handler}"),
    Trouble("drbd_meta[1] holds DRBD metadata", SERVED_BEFORE, "note", f"{META} wipe-md"),
    Trouble("test_a: ", "drbd-offsite disconnect test_a", "warning", "drbd-offsite connect test_a"),
    Trouble(f"{LINE}.service does not run", f"systemctl stop {LINE}", "fault", f"systemctl start {LINE}"),
    Trouble("does not answer through tun0", f"systemctl stop {LINE}", "fault", f"systemctl start {LINE}"),
    Trouble(
        "a request was not answered",
        "systemctl stop drbd-offsite-peer.socket",
        "warning",
        "systemctl start drbd-offsite-peer.socket",
        where="backup",
    ),
    Trouble("backup is 5 min ahead", "date --set='+5 minutes'", "warning", "date --set='-5 minutes'", where="backup"),
    Trouble(
        "There could be no restore point of test_a",
        "lvcreate -q -y -l 100%FREE -n full local",
        "warning",
        "lvremove -q -y local/full",
        where="backup",
        seen_on="backup",
    ),
)

MENDS = {"unit": "drbd-offsite-watch", "handler": "/usr/lib/drbd-offsite"}


def examined(machine: Machine) -> tuple[int, dict[str, str]]:
    """The exit code of ``doctor --json``, and the severities by what was found."""
    done = machine.run("drbd-offsite doctor --json", check=False)
    assert "Traceback" not in done.stderr
    return done.returncode, {finding["what"]: finding["severity"] for finding in json.loads(done.stdout)}


def _await(machine: Machine, healthy: tuple[int, dict[str, str]], what: str) -> None:
    machine.wait_for(f"{what} is over", lambda: examined(machine) == healthy, 150)


@pytest.mark.thorough  # eight minutes: two dozen looks at everything, on an emulated processor
def test_what_is_wrong_is_found_and_after_its_remedy_no_more(lab: Lab) -> None:
    lab.enter(REPLICATING)
    healthy = {machine.name: examined(machine) for machine in lab.machines}
    assert [code for code, _ in healthy.values()] == [0, 0], healthy
    wrong = []
    for trouble in TROUBLES:
        machine: Machine = getattr(lab, trouble.where)
        watched: Machine = getattr(lab, trouble.seen_on)
        machine.run(trouble.cause)
        code, found = examined(watched)
        if [severity for what, severity in found.items() if trouble.what in what] != [trouble.severity]:
            wrong.append(f"after {trouble.cause}: no {trouble.severity} {trouble.what!r} in {found}")
        if code != EXIT[next(iter(found.values()))]:  # the worst comes first
            wrong.append(f"after {trouble.cause}: exit code {code} for {found}")
        machine.run(trouble.mended.format(**MENDS))
        _await(watched, healthy[watched.name], trouble.what)
    assert not wrong, "\n".join(wrong)


@pytest.mark.thorough
def test_lvm_is_kept_off_the_devices_by_the_line_that_doctor_names(lab: Lab) -> None:
    lab.enter(REPLICATING)
    server = lab.server
    said = server.run("drbd-offsite doctor").stdout
    assert "LVM's commands read the DRBD devices" in said
    line = said.partition("/etc/lvm/lvm.conf: ")[2].partition("\n")[0]
    server.run("sed -i '/^devices {/r /dev/stdin' /etc/lvm/lvm.conf", input=f"\t{line}\n")
    assert server.run("drbd-offsite doctor").stdout == "Everything that was checked is as it must be.\n"
    server.run("vgs local && lvs local/test_a")


@pytest.mark.thorough
def test_what_is_unfinished_is_found_until_the_same_command_has_finished_it(lab: Lab) -> None:
    lab.enter(REPLICATING)
    lab.server.run("lvcreate -q -y -L 8M -n other local")
    lab.server.run("drbd-offsite add local/other >/dev/null 2>&1 & echo $! >/root/pid")
    lab.backup.wait_for("the backup has begun its half", "test -e /dev/local/other")
    lab.server.run("kill -9 $(cat /root/pid)")
    code, found = examined(lab.server)
    assert code == EXIT["fault"]
    assert any(what.startswith("add of other was begun") for what in found), found
    lab.server.run("drbd-offsite add local/other", timeout=300)
    product.await_up_to_date(lab, "other")
    for machine in lab.machines:
        assert not any("was begun" in what for what in examined(machine)[1])
