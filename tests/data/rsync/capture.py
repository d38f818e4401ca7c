"""What rsync says of two trees that differ in every way, and of files brought over: DIRECTORY gets the files.

As root, for the owners and devices; rsync talks to a daemon of its own through a pipe, as it does in the product.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from drbd_offsite.tools import rsync

NAMES = {"utf8": "Grüße.txt", "blank": "two words", "newline": "one\ntwo", "bell": "a\x07b", "hash": "a\\#101b"}
AT = 1_700_000_000


def trees(top: Path) -> tuple[Path, Path]:
    """What this machine has, and what the other one has."""
    here, there = top / "here", top / "there"
    for tree in (here, there):
        (tree / "deep/deeper").mkdir(parents=True)
        (tree / "lost+found").mkdir()
        for name in ("same", "size", "time", "mode", "owner", "xattr", "deep/same", *NAMES.values()):
            (tree / name).write_text("the same\n")
    (here / "lost+found/#1").touch()
    (there / "size").write_text("another size\n")
    (there / "mode").chmod(0o600)
    os.chown(there / "owner", 1000, 1000)
    os.setxattr(there / "xattr", "user.colour", b"green")
    (there / "deep/deeper/new").write_text("x")
    (there / "new").mkdir()
    (there / "new/file").write_text("x")
    (here / "gone").mkdir()
    (here / "gone/file").write_text("x")
    (there / os.fsdecode(b"latin-\xfc")).write_text("x")
    for name in NAMES.values():
        (there / name).write_text("differs\n")
    (here / "link").symlink_to("same")
    (there / "link").symlink_to("deep")
    (there / "new-link").symlink_to("same")
    os.mkfifo(there / "fifo")
    os.mknod(there / "device", 0o020600, os.makedev(1, 3))
    (there / "hard").hardlink_to(there / "same")
    (here / "kind").mkdir()
    (there / "kind").write_text("a file there, a directory here\n")
    for tree in (here, there):
        for path in tree.rglob("*"):
            os.utime(path, (AT, AT), follow_symlinks=False)
    os.utime(there / "time", (AT + 1, AT + 1))
    return here, there


def said(argv: tuple[str, ...], shell: str, locale: str) -> bytes:
    words = [f"--rsh={shell}" if word.startswith("--rsh=") else word for word in argv]
    environment = os.environ | {"LC_ALL": locale}
    return subprocess.run(words, env=environment, stdout=subprocess.PIPE, check=True).stdout


def main(directory: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        here, there = trees(top)
        (top / "conf").write_text(rsync.daemon_config(str(there)))
        shell = top / "shell"
        daemon = " ".join(rsync.daemon(str(top / "conf")))
        shell.write_text(f"#!/bin/sh\nexec {daemon}\n")
        shell.chmod(0o755)
        for locale, suffix in (("C.UTF-8", "utf8"), ("C", "ascii")):
            out = said(rsync.compare("x", str(here)), str(shell), locale)
            (directory / f"compare-{suffix}.txt").write_bytes(out)
        (top / "paths").write_text("deep/deeper/new\0size\0mode\0Grüße.txt\0")
        out = said(rsync.bring("x", str(top / "paths"), ".before-failback-1", str(here)), str(shell), "C.UTF-8")
        (directory / "bring.txt").write_bytes(out)
        print(*sorted(path.name for path in here.iterdir()))


main(Path(sys.argv[1]))
