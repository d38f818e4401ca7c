"""Whether LVM reads a DRBD device, by lvm.conf(5)'s rules."""

import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drbd_offsite.tools import lvm_filter
from drbd_offsite.tools.lvm_filter import Settings

NAMES = ("/dev/drbd0", "/dev/drbd/by-res/test_a/0", "/dev/drbd/by-disk/local/test_a")
DEFAULT = 'filter=["a|.*|"]\nglobal_filter=["a|.*|"]\nuse_devicesfile=0\ndevicesfile="system.devices"\n'
"""Debian 12, lvm2 2.03.16."""


@pytest.mark.parametrize(
    ("patterns", "read"),
    [
        (("a|.*|",), True),
        ((), True),
        (("r|^/dev/drbd|",), False),
        (("r|^/dev/drbd|", "a|.*|"), False),
        (("a|.*|", "r|^/dev/drbd|"), True),
        (("r|/dev/drbd.*|", "r|/dev/loop|"), False),
        (("a|^/dev/sd|", "r|.*|"), False),
        (("r/drbd/",), False),
        (("r{drbd}",), False),
        (("r(drbd)",), False),
        (("r|^/dev/drbd$|",), True),
        (("r|^/dev/sd|",), True),
        (("r|^/dev/drbd[0-9]|",), False),  # the links match nothing, so they do not count
        (("r|^/dev/drbd[0-9]|", "a|.*|"), True),  # and here they are accepted
    ],
)
def test_the_first_pattern_that_matches_a_name_counts_and_one_accepted_name_is_enough(
    patterns: tuple[str, ...], read: bool
) -> None:
    assert Settings(filter_patterns=patterns).reads(NAMES) is read
    assert Settings(global_patterns=patterns).reads(NAMES) is read


def test_lvm_s_defaults_read_everything() -> None:
    settings = lvm_filter.parse(DEFAULT)
    assert settings == Settings()
    assert settings.reads(NAMES)


@pytest.mark.parametrize(("used", "file"), [("0", ""), ("1", "system.devices")])
def test_a_devices_file_counts_where_it_is_to_be_used(used: str, file: str) -> None:
    assert lvm_filter.parse(DEFAULT.replace("use_devicesfile=0", f"use_devicesfile={used}")).devices_file == file


@pytest.mark.parametrize("pattern", ["x|.*|", "a", "a|", "", "r|[|", "r|*|"])
def test_a_filter_that_lvm_would_not_take_is_no_filter(pattern: str) -> None:
    with pytest.raises(ValueError, match="no pattern"):
        lvm_filter.parse(f'filter=["{pattern}"]\n')


@given(st.text())
def test_any_other_text_is_settings_or_a_value_error(text: str) -> None:
    for whole in (text, f'filter=["{text}"]'):
        try:
            lvm_filter.parse(whole)
        except ValueError:
            continue


@pytest.mark.parametrize(
    ("patterns", "line"),
    [
        (("a|.*|",), 'global_filter = [ "r|^/dev/drbd|" ]'),
        (("r|^/dev/loop|", "a|.*|"), 'global_filter = [ "r|^/dev/drbd|", "r|^/dev/loop|", "a|.*|" ]'),
        (('r|a\\.b"c|',), 'global_filter = [ "r|^/dev/drbd|", "r|a\\\\.b\\"c|" ]'),
    ],
)
def test_the_line_for_lvm_conf_keeps_what_was_there(patterns: tuple[str, ...], line: str) -> None:
    assert Settings(global_patterns=patterns).line_past_drbd == line
    kept = lvm_filter.parse("filter=[]\n" + line.replace(" = ", "="))
    assert kept.global_patterns[1:] == (patterns if patterns != ("a|.*|",) else ())
    assert not kept.reads(NAMES)


@pytest.mark.skipif(shutil.which("lvmconfig") is None, reason="lvm2 is not installed")
def test_the_real_lvm_prints_what_is_read_and_takes_the_line() -> None:
    admin = Settings(("r|^/dev/x\\.y|", "a/.*/"), ('r|"|',))
    config = f'devices {{ filter = "a|^/dev/sd|" {admin.line_past_drbd} use_devicesfile = 1 }}'
    done = subprocess.run([*lvm_filter.EFFECTIVE, "--config", config], capture_output=True, text=True, check=True)
    found = lvm_filter.parse(done.stdout)
    assert found == Settings(("a|^/dev/sd|",), ("r|^/dev/drbd|", 'r|"|'), "system.devices")
