import shutil
import subprocess
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drbd_offsite.model import TunnelMode
from drbd_offsite.tools import systemd

from .. import make


@pytest.mark.parametrize(
    ("mode", "unit"),
    [
        (TunnelMode.OPENVPN, "openvpn-server@drbd-offsite-backup.service"),
        (TunnelMode.STATIC_KEY, "openvpn-server@drbd-offsite-backup.service"),
        (TunnelMode.WIREGUARD, "wg-quick@tun0.service"),
        (TunnelMode.NONE, None),
    ],
)
def test_a_tunnel_runs_as_debian_s_own_unit(mode: TunnelMode, unit: str | None) -> None:
    assert systemd.tunnel_unit(make.peer(tunnel=replace(make.TUNNEL, mode=mode))) == unit


def test_a_device_s_unit() -> None:
    assert systemd.device_unit("/dev/local/test_a") == "dev-local-test_a.device"
    assert systemd.device_unit("/dev/lo-cal/te+st") == "dev-lo\\x2dcal-te\\x2bst.device"


ESCAPE = shutil.which("systemd-escape")


@pytest.mark.skipif(ESCAPE is None, reason="systemd-escape is not installed")
def test_a_device_s_unit_is_the_one_that_systemd_makes() -> None:
    names = ["a", "a-b", "a--b", "a.b", "a+b", "-", "_", "a:b", "0", "a b", "ä", "$x", "@", "\\"]
    paths = [f"/dev/{group}/{name}" for group in names for name in names]
    done = subprocess.run([ESCAPE, "--path", "--suffix=device", *paths], capture_output=True, text=True, check=True)
    assert [systemd.device_unit(path) for path in paths] == done.stdout.split()


@given(st.text(st.characters(blacklist_categories=("Cs",)), min_size=1))
def test_a_unit_s_name_has_only_characters_that_systemd_takes(name: str) -> None:
    unit = systemd.device_unit(f"/dev/local/{name}")
    assert set(unit) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:-_.\\")


def test_a_restart_from_within_what_is_restarted_is_left_to_systemd() -> None:
    argv = systemd.restart_soon("x.service")
    assert argv[0] == "systemd-run"
    assert argv[-3:] == ("systemctl", "restart", "x.service")


def test_the_kernel_s_log_is_read_from_where_it_was_read_last() -> None:
    assert systemd.kernel_log("s=1;i=2")[-2:] == ("--after-cursor=s=1;i=2", "_TRANSPORT=kernel")
    assert "--boot" in systemd.kernel_log("")
    assert systemd.cursor("a line\n-- cursor: s=1;i=2\n") == "s=1;i=2"
    assert systemd.cursor("a line\n") == systemd.cursor("") == ""


def test_nothing_asks_for_a_password_or_opens_a_pager() -> None:
    assert "--no-ask-password" in systemd.systemctl("start", "x.service")
    assert "--no-pager" in systemd.log_since("x.service", 0)
    assert systemd.log_since("x.service", 12)[-1] == "--since=@12"
