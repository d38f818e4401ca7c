"""Executables that an admin has put into a directory, to be run by root."""

import re
import stat
from collections.abc import Iterator
from pathlib import Path

OWNER = 0
"""Who may own one."""


def scripts(directory: Path) -> Iterator[tuple[Path, str]]:
    """Those in ``directory``, by the names that run-parts(8) takes, with what is wrong with each."""
    if not directory.is_dir():
        return
    for path in sorted(directory.iterdir()):
        if not re.fullmatch(r"[A-Za-z0-9_-]+", path.name, re.ASCII) or not path.is_file():
            continue
        if path.stat().st_mode & 0o111:
            yield path, _unsafe(directory) or _unsafe(path)


def remedy(path: Path) -> str:
    """What makes one of them ours to run."""
    return f"chown root {path.parent} {path}; chmod go-w {path.parent} {path}"


def _unsafe(path: Path) -> str:
    """Why others than root could have a say in what is run as root."""
    status = path.stat()
    if status.st_uid != OWNER:
        return f"{path} does not belong to root"
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"others than root may write to {path}"
    return ""
