"""The systemd units: understood, fenced in, and in an order without a circle."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from drbd_offsite.cli import common
from drbd_offsite.errors import ExitCode
from drbd_offsite.operations import share

from . import golden
from .test_packaging import DEBIAN, needs, output

# Under the names that they are installed by.
UNITS = {
    "drbd-offsite@.service": "drbd-offsite-common@.drbd-offsite.service",
    "drbd-offsite-watch.service": "drbd-offsite-common.drbd-offsite-watch.service",
    "drbd-offsite-mark.service": "drbd-offsite-common.drbd-offsite-mark.service",
    "drbd-offsite-tunnel.service": "drbd-offsite-common.drbd-offsite-tunnel.service",
    "drbd-offsite-alert.service": "drbd-offsite-common.drbd-offsite-alert.service",
    "drbd-offsite-drill.service": "drbd-offsite-backup.drbd-offsite-drill.service",
    "drbd-offsite-drill.timer": "drbd-offsite-backup.drbd-offsite-drill.timer",
    "drbd-offsite-peer.socket": "drbd-offsite-common.drbd-offsite-peer.socket",
    "drbd-offsite-turn@.service": "drbd-offsite-common@.drbd-offsite-turn.service",
    "drbd-offsite-files@.service": "drbd-offsite-common@.drbd-offsite-files.service",
    "drbd-offsite-peer@.service": "drbd-offsite-common@.drbd-offsite-peer.service",
}
SYSTEM = Path("/lib/systemd/system")
FSTAB_GENERATOR = Path("/lib/systemd/system-generators/systemd-fstab-generator")

OF_OTHERS = {
    "sysinit.target": ["blk-availability.service", "lvm2-monitor.service"],
    "multi-user.target": ["drbd.service", "drbd@test_a.target", "openvpn.service",
                          "openvpn-server@drbd-offsite-{peer}.service", "wg-quick@tun0.service"],
}  # fmt: skip
"""What lvm2, drbd-utils, OpenVPN and WireGuard have, each enabled, by the target that wants it."""

FSTAB = "/dev/drbd/by-res/test_a/0 /srv/test_a ext4 {options}x-systemd.requires=drbd-offsite@test_a.service 0 2\n"
"""The line of the manual, and of add --remount."""


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units where systemd's tools find them, with a program in place of each that they start."""
    directory = tmp_path / "units"
    directory.mkdir()
    for installed, source in UNITS.items():
        text = (DEBIAN / source).read_text()
        text = re.sub(r"(?m)^(Exec\w+=[-+]*)/usr/(bin|lib)/\S*(drbd-offsite|peer-sshd)\b", r"\1/bin/true", text)
        (directory / installed).write_text(text.replace("[Socket]", "[Socket]\nListenStream=127.0.0.1:7788"))
    return directory


@needs("systemd-analyze")
@pytest.mark.parametrize("name", UNITS)
def test_systemd_understands_the_units(name: str, units: Path) -> None:
    instance = units / name.replace("@.", "@test_a.")
    if not instance.exists():
        instance.symlink_to(name)
    # An unknown key is a line of output and no failure.
    assert output("systemd-analyze", "verify", "--man=no", instance) == ""


@needs("systemd-analyze")
@pytest.mark.parametrize(
    ("name", "threshold"),
    # sshd needs a little more
    [("drbd-offsite-watch.service", 40), ("drbd-offsite-mark.service", 30), ("drbd-offsite-peer@.service", 45)],
)
def test_what_stays_and_what_listens_is_fenced_in(name: str, threshold: int, units: Path) -> None:
    """The threshold is ten times the score; beyond it the exit code is not 0."""
    output("systemd-analyze", "security", "--offline=true", "--no-pager", f"--threshold={threshold}", units / name)


@pytest.mark.parametrize("name", ["drbd-offsite-watch.service", "drbd-offsite-peer@.service"])
def test_the_fence_leaves_the_way_to_the_disks_open(name: str) -> None:
    """ProtectClock= brings a DeviceAllow= with it, and then no other device can be opened."""
    assert not re.findall(
        r"(?m)^(?:PrivateDevices|DevicePolicy|DeviceAllow|ProtectClock|PrivateIPC|PrivateNetwork)=", text_of(name)
    )


def text_of(name: str) -> str:
    return (DEBIAN / UNITS[name]).read_text()


def test_the_data_does_not_wait_for_the_network() -> None:
    """Promise 1: no dependency of a resource's unit leads to the network or the tunnel."""
    dependencies = re.findall(r"(?m)^(?:After|Wants|Requires|BindsTo|Requisite)=(.*)", text_of("drbd-offsite@.service"))
    assert " ".join(dependencies).split() == ["drbd.service", "blk-availability.service"]


def test_the_watcher_needs_none_of_the_resources_and_waits_for_none() -> None:
    """A server may ask its backup for ever whether it has taken over: the alert about that must get out."""
    assert "drbd-offsite-watch" not in text_of("drbd-offsite@.service")
    assert not re.findall(r"(?m)^(?:Wants|Requires|BindsTo|Requisite|PartOf)=", text_of("drbd-offsite-watch.service"))


def test_a_start_lasts_as_long_as_the_peer_is_asked() -> None:
    """boot_wait may be "forever"."""
    assert "TimeoutStartSec=infinity" in text_of("drbd-offsite@.service")


def test_a_drill_that_is_stopped_is_asked_alone_and_has_time_to_clean_up() -> None:
    text = text_of("drbd-offsite-drill.service")
    assert "\nKillMode=mixed\n" in text
    assert "\nTimeoutStopSec=5min\n" in text
    assert f"\nSuccessExitStatus={int(ExitCode.WARNED)} {common.STOPPED}\n" in text
    assert "\nRestrictNamespaces=" not in text


def test_a_look_that_is_shared_is_asked_alone_and_has_time_to_clean_up() -> None:
    text = text_of("drbd-offsite-files@.service")
    assert "\nKillMode=mixed\n" in text
    assert f"\nSuccessExitStatus={common.STOPPED}\n" in text
    assert "\nTimeoutStopSec=5min\n" in text
    assert share.STOP_SECONDS > 5 * 60, "who asks for its end hears of it"
    assert "\nTimeoutStartSec=infinity\n" in text


def test_a_drill_that_was_missed_is_done_later() -> None:
    assert "\nPersistent=true\n" in text_of("drbd-offsite-drill.timer")


# -- all of them in one boot ---------------------------------------------------------------------


def boot(units: Path, scene: str, options: str) -> list[str]:
    """What systemd says to a boot of a rendered machine with everything enabled, and a mount in its fstab.

    Only what is about a cycle or about us: the others' units are as they are.
    """
    peer = "server" if scene.startswith("backup") else "backup"
    for file in golden.SCENES[scene].render():
        if "/systemd/" in file.path:
            path = units / Path(file.path).relative_to("/etc/systemd/system")
            path.parent.mkdir()
            path.write_text(file.text)
    ours = ["drbd-offsite-watch.service", "drbd-offsite-tunnel.service", "drbd-offsite-peer.socket"]
    for name in ours:
        enable(units, "multi-user.target", name, units / name)
    enable(units, "timers.target", "drbd-offsite-drill.timer", units / "drbd-offsite-drill.timer")
    for resource in golden.SCENES[scene].site.resources:
        enable(units, "multi-user.target", f"drbd-offsite@{resource}.service", units / "drbd-offsite@.service")
    for target, names in OF_OTHERS.items():
        for name in (name.format(peer=peer) for name in names):
            source = SYSTEM / re.sub(r"@.*\.", "@.", name)
            if source.exists():
                enable(units, target, name, source)
    generated = units.parent / "generated"
    generated.mkdir()
    (units.parent / "fstab").write_text(FSTAB.format(options=options))
    environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "SYSTEMD_FSTAB": str(units.parent / "fstab")}
    subprocess.run([FSTAB_GENERATOR, generated, generated, generated], env=environment, check=True)
    environment["SYSTEMD_UNIT_PATH"] = f"{units}:{generated}:{SYSTEM}"
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", units / "multi-user.target"],
        env=environment, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    said = (done.stdout + done.stderr).splitlines()
    return [line for line in said if "cycle" in line or "drbd-offsite" in line]


def enable(units: Path, target: str, name: str, source: Path) -> None:
    if not (units / target).exists():
        shutil.copy(SYSTEM / target, units / target)
    wants = units / f"{target}.wants"
    wants.mkdir(exist_ok=True)
    (wants / name).symlink_to(source)


@pytest.fixture
def _a_whole_systemd() -> None:
    for path in (FSTAB_GENERATOR, SYSTEM / "multi-user.target"):
        if not os.path.lexists(path):
            pytest.skip(f"{path} is not there")


@needs("systemd-analyze")
@pytest.mark.usefixtures("_a_whole_systemd")
@pytest.mark.parametrize("scene", ["server", "backup"])
def test_a_boot_with_everything_enabled_has_no_ordering_cycle(scene: str, units: Path) -> None:
    """Whatever is not enabled takes orderings away and adds none."""
    assert boot(units, scene, "nofail,") == []


@needs("systemd-analyze")
@pytest.mark.usefixtures("_a_whole_systemd")
def test_a_cycle_would_be_found(units: Path) -> None:
    """Without nofail all of the boot waits for the mount, and the resource's unit for the boot."""
    assert "ordering cycle" in " ".join(boot(units, "server", ""))
