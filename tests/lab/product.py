"""The product in the machines: installed, enrolled and asked, as an admin would."""

from __future__ import annotations

import functools
import json
import os
import subprocess
from pathlib import Path
from typing import Any

from .lab import Lab
from .machine import Machine
from .recipe import WAN_ADDRESSES

REPOSITORY = Path(__file__).parent.parent.parent
CONFIG = "/etc/drbd-offsite/drbd-offsite.conf"
VOLUME = "/dev/local/test_a"
DEVICE = "/dev/drbd/by-res/test_a/0"

ANSWERS = {
    "server": {"volume_group": "local", "server_name": WAN_ADDRESSES["server"]},
    "backup": {"volume_group": "local"},
}


@functools.cache
def debs() -> Path:
    """The directory of the product's packages, built unless DRBD_OFFSITE_DEBS names one."""
    given = os.environ.get("DRBD_OFFSITE_DEBS")
    if given:
        return Path(given)
    subprocess.run(["make", "debs"], cwd=REPOSITORY, check=True)
    return REPOSITORY / "build/debs"


def install(machine: Machine, answers: dict[str, str] | None = None, flavour: str = "") -> str:
    """``apt install`` both packages with preseeded answers; returns what apt said."""
    flavour = flavour or machine.name
    package = f"drbd-offsite-{flavour}"
    for name in ("drbd-offsite-common", package):
        for deb in debs().glob(f"{name}_*.deb"):
            machine.copy_to(deb, "/root/")
    preseed(machine, package, ANSWERS[flavour] if answers is None else answers)
    done = machine.run(
        f"DEBIAN_FRONTEND=noninteractive apt-get install --yes /root/drbd-offsite-common_*.deb "
        f"/root/{package}_*.deb 2>&1",
        timeout=300,
    )
    return done.stdout


def preseed(machine: Machine, package: str, answers: dict[str, str]) -> None:
    """Answer the package's questions before they are asked."""
    lines = "".join(f"{package} {package}/{key} string {value}\n" for key, value in answers.items())
    machine.run("debconf-set-selections", input=lines)


def enrol(lab: Lab) -> None:
    """``invite`` on the server, the file carried over, ``join`` on the backup."""
    carry_invitation(lab)
    lab.backup.run("drbd-offsite join /root/backup.invite", timeout=300)
    # By night volumes would be compared slice by slice in the middle of any test; those of slices say otherwise.
    off = f"grep -q '^.verify' {CONFIG} || printf '\\n[verify]\\n  days = 0\\n' >>{CONFIG}"
    lab.both(lambda machine: machine.run(off))


def carry_invitation(lab: Lab) -> None:
    lab.server.run("drbd-offsite invite > /root/backup.invite")
    invitation = lab.server.run("cat /root/backup.invite").stdout
    lab.backup.run("umask 077; cat > /root/backup.invite", input=invitation)


def await_tunnel(lab: Lab) -> None:
    """Wait until the backup answers the server through the tunnel, three times in a row."""
    # keepalive's half a minute, and hand-window's where one end has begun its handshake anew in the middle.
    lab.server.wait_for("the tunnel is up", "ping -c 3 -i 0.3 -W 1 10.89.33.2", 150)


def status(machine: Machine) -> dict[str, Any]:
    """``status --json``, whatever its exit code."""
    said: dict[str, Any] = json.loads(machine.run("drbd-offsite status --json", check=False).stdout)
    return said


def resource(machine: Machine, name: str = "test_a") -> dict[str, Any]:
    """One resource's part of the status."""
    found: dict[str, Any] = next(r for r in status(machine)["resources"] if r["name"] == name)
    return found


def await_up_to_date(lab: Lab, name: str = "test_a", deadline: float = 120.0) -> None:
    """Wait until the server says that both copies are up to date, and is still Primary."""

    def good() -> bool:
        seen = resource(lab.server, name)
        return (seen["level"], seen["role"], seen["peer_disk"]) == ("ok", "Primary", "UpToDate")

    lab.server.wait_for(f"both copies of {name} are up to date", good, deadline)


def settle_tunnel(lab: Lab) -> None:
    """After a rewind: wait for a tunnel that stays.

    Both ends of OpenVPN take the leap of the clock for an outage, one after the other, while DRBD is connected and
    knows nothing of it. So they are told to begin anew now.
    """
    lab.both(lambda machine: machine.run("pkill -USR1 -x openvpn", check=False))
    await_tunnel(lab)


def settle(lab: Lab) -> None:
    """After a rewind: wait until what is written arrives."""
    settle_tunnel(lab)
    await_up_to_date(lab)


def checksum(machine: Machine, device: str) -> str:
    """SHA-256 of all of a block device, read past the page cache."""
    out = machine.run(f"dd if={device} bs=1M iflag=direct status=none | sha256sum", timeout=300)
    return out.stdout.split()[0]
