"""Mounts of our own, in a process of its own: what is left of them would be left for the other tests."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from drbd_offsite import namespace

SOURCE = Path(namespace.__file__).parents[1]

CODE = """
import os, sys
sys.path.insert(0, sys.argv[1])
from drbd_offsite import namespace
before = os.readlink("/proc/self/ns/mnt")
namespace.private()
assert os.readlink("/proc/self/ns/mnt") != before
os.execvp("mount", ["mount", "-t", "tmpfs", "none", sys.argv[2]])
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="this is not root")
def test_what_is_mounted_nobody_else_sees(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(SOURCE), str(tmp_path)], capture_output=True, text=True, check=False
    )
    if "Operation not permitted" in done.stderr:
        pytest.skip("this root may not mount")
    assert done.returncode == 0, done.stderr
    assert str(tmp_path) not in Path("/proc/self/mounts").read_text()
