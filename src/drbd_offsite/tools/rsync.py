"""rsync(1): a daemon for one connection, what differs between two trees, and files from one to the other."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto

Argv = tuple[str, ...]

VERSION: Argv = ("rsync", "--version")
MODULE = "files"

_CONFIG = """\
uid = 0
gid = 0
use chroot = yes
munge symlinks = no
numeric ids = yes
read only = yes
list = no
timeout = {timeout}
[{module}]
path = {directory}
"""

SILENT_SECONDS = 600
"""Without a byte in either direction rsync gives up."""


def daemon_config(directory: str) -> str:
    """rsyncd.conf(5) for one directory, read by nobody else. Root, to read every file; locked into it all the same."""
    return _CONFIG.format(timeout=SILENT_SECONDS, module=MODULE, directory=directory)


def daemon(config: str) -> Argv:
    """For one connection, which is its standard input and output. "." is what a client says, and has no meaning."""
    return ("rsync", "--server", "--daemon", f"--config={config}", ".")


_ALIKE = ("--archive", "--hard-links", "--acls", "--xattrs", "--numeric-ids", "--itemize-changes")
_LINES = "--out-format=%i %n"


def _source(resource: str) -> Argv:
    """rsync splits the command at its blanks, which no resource's name has; no shell sees it. The host is a word that
    rsync wants (it may write a name of its own differently: IDN).
    """
    return (f"--rsh=/usr/bin/drbd-offsite peer-files {resource}", f"peer::{MODULE}/")


def compare(resource: str, directory: str) -> Argv:
    """What would have to be done to make ``directory`` what the peer has; nothing is. A directory's time changes with
    its entries, which are listed themselves.
    """
    only = ("--dry-run", "--delete", "--omit-dir-times", "--exclude=/lost+found")
    return ("rsync", *only, *_ALIKE, _LINES, *_source(resource), f"{directory}/")


def bring(resource: str, paths: str, suffix: str, directory: str) -> Argv:
    """Files and directories from the peer; ``paths`` is the file that names them, each with a NUL behind it.

    Not --no-implied-dirs: it would follow a link that is here in the place of a directory above them.
    """
    # A list of names turns off what --archive has of --recursive.
    which = ("--recursive", "--relative", "--from0", f"--files-from={paths}")
    return ("rsync", *_ALIKE, _LINES, *which, "--backup", f"--suffix={suffix}", *_source(resource), f"{directory}/")


class What(Enum):
    """Which way a path differs; "there" is where rsync reads, "here" where it would write or writes."""

    ONLY_THERE = auto()
    ONLY_HERE = auto()
    CONTENT = auto()
    """Or its size or time, by which that is decided; or where a link leads."""
    ATTRIBUTES = auto()


@dataclass(frozen=True, slots=True)
class Change:
    what: What
    path: str
    """From the top of the tree; a directory's ends with a slash. Bytes that are no UTF-8: as surrogates."""


_LINE = re.compile(r"(\*deleting  |[<>ch.][fdLDS][^ ]{9}) (.+)")
_ESCAPED = re.compile(rb"\\#([0-7]{3})")


def parse_changes(text: str) -> Iterator[Change]:
    """Of `compare` and `bring`; other lines are passed over."""
    for line in text.split("\n"):
        match = _LINE.fullmatch(line)
        if match:
            yield Change(_what(match[1]), _plain(match[2]))


def _what(letters: str) -> What:
    if letters.startswith("*"):
        return What.ONLY_HERE
    if letters.endswith("+++++++++"):
        return What.ONLY_THERE
    return What.ATTRIBUTES if letters[0] == "." else What.CONTENT


def _plain(name: str) -> str:
    """rsync writes bytes that its locale cannot print as ``\\#ooo``, and a backslash that could be taken for that."""
    raw = _ESCAPED.sub(lambda match: bytes([int(match[1], 8)]), name.encode("utf-8", "surrogateescape"))
    return raw.decode("utf-8", "surrogateescape")
