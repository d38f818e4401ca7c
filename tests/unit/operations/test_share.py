"""A look that the peer may read: made, served, told of where it fails, and never left."""

import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from drbd_offsite import journal, messages
from drbd_offsite.errors import BadRequest, Refused, ToolFailed
from drbd_offsite.model import Flavour
from drbd_offsite.operations import share
from drbd_offsite.tools import rsync, systemd

from .. import make
from ..conftest import Answer, Programs
from .looked import SITE, TREE, Copy

RESOURCE = SITE.resources["test_a"]


def silent(_: str) -> None:
    pass


@pytest.fixture(autouse=True)
def _not_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(share, "IDLE_SECONDS", 0.2)


@pytest.fixture
def installed(programs: Programs) -> None:
    programs.allow(rsync.VERSION, "rsync  version 3.2.7\n")


def left() -> list[str]:
    return [path.name for path in share.DIRECTORY.glob("*")]


def call() -> socket.socket:
    line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    line.connect(str(share.DIRECTORY / "test_a.sock"))
    return line


@pytest.mark.usefixtures("installed")
def test_each_connection_is_an_rsync_s_and_nothing_stays(copy: Copy, programs: Programs) -> None:
    lines: list[socket.socket] = []
    configured: list[str] = []
    daemon = rsync.daemon(str(share.DIRECTORY / "test_a.conf"))

    def ready() -> None:
        assert (share.DIRECTORY / "test_a.sock").stat().st_mode & 0o777 == 0o600
        assert share.DIRECTORY.stat().st_mode & 0o777 == 0o700
        lines.extend((call(), call()))

    def served(_: str) -> Answer:
        configured.append((share.DIRECTORY / "test_a.conf").read_text())
        assert len(copy.mounted) == 1
        return Answer()

    programs.allow(daemon, served)
    share.share(SITE, RESOURCE, silent, ready)
    assert configured == [rsync.daemon_config(str(share.inspect.DIRECTORY / "test_a"))] * 2
    assert programs.ran.count(daemon) == 2
    assert (left(), copy.left) == ([], [])
    assert journal.remembered(share.ANSWERS) == {}
    for line in lines:
        assert line.recv(1) == b""
        line.close()


@pytest.mark.usefixtures("copy", "installed")
def test_an_rsync_that_fails_is_told_and_the_next_one_is_served(programs: Programs) -> None:
    daemon = rsync.daemon(str(share.DIRECTORY / "test_a.conf"))
    programs.allow(daemon, Answer("", 12, "connection unexpectedly closed"), Answer())
    told: list[str] = []
    lines: list[socket.socket] = []
    share.share(SITE, RESOURCE, told.append, lambda: lines.extend((call(), call())))
    assert programs.ran.count(daemon) == 2
    assert "connection unexpectedly closed" in told[-1]
    for line in lines:
        line.close()


@pytest.mark.usefixtures("installed")
def test_one_that_is_stopped_leaves_nothing(copy: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise SystemExit(143)

    monkeypatch.setattr(share, "between", stopped)
    lines: list[socket.socket] = []
    with pytest.raises(SystemExit):
        share.share(SITE, RESOURCE, silent, lambda: lines.append(call()))
    assert (left(), copy.left) == ([], [])
    lines[0].close()


@pytest.mark.usefixtures("installed")
def test_what_a_killed_one_has_left_is_in_nobody_s_way(copy: Copy, programs: Programs) -> None:
    programs.allow(rsync.daemon(str(share.DIRECTORY / "test_a.conf")))
    share.DIRECTORY.mkdir(parents=True)
    for name in ("test_a.sock", "test_a.conf"):
        (share.DIRECTORY / name).touch()
    share.share(SITE, RESOURCE, silent, lambda: call().close())
    assert (left(), copy.left) == ([], [])


@pytest.mark.usefixtures("installed")
def test_what_is_written_here_is_on_the_disk_before_the_snapshot(
    copy: Copy, programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flushed(_: str) -> Answer:
        assert copy.changes == []
        return Answer()

    programs.allow(("sync", "--file-system", "/srv/a"), flushed)
    serves = make.host(Flavour.BACKUP, mounts=(make.mount((147, 0), "/srv/a"),))
    monkeypatch.setattr(share, "observe", lambda _: serves)
    share.share(SITE, RESOURCE, silent, lambda: None)
    assert ("sync", "--file-system", "/srv/a") in programs.ran


def test_without_rsync_nothing_is_made_and_the_peer_hears_why(copy: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(argv: tuple[str, ...], **_: object) -> None:
        raise ToolFailed(f"{argv[0]} could not be started: No such file or directory.")

    monkeypatch.setattr(share, "run", missing)
    with pytest.raises(ToolFailed, match="The backup cannot compare files: rsync could not be started") as raised:
        share.share(SITE, RESOURCE, silent, lambda: pytest.fail("it is not ready"))
    assert raised.value.hint == "On the backup: apt install rsync"
    assert copy.changes == []
    assert journal.remembered(share.ANSWERS)["test_a"]["hint"] == raised.value.hint


@pytest.mark.usefixtures("installed")
def test_a_filesystem_that_cannot_be_mounted_is_not_shared(copy: Copy) -> None:
    copy.says["mount"] = Answer("", 32, "wrong fs type, bad superblock")
    with pytest.raises(Refused, match=r"files of test_a on the backup cannot be looked at: It cannot be mounted\."):
        share.share(SITE, RESOURCE, silent, lambda: pytest.fail("it is not ready"))
    assert (left(), copy.left) == ([], [])
    assert "cannot be mounted" in journal.remembered(share.ANSWERS)["test_a"]["error"]


# -- what the peer asks for ------------------------------------------------------------------------

UNIT = systemd.files_unit("test_a")


def test_the_peer_has_a_unit_started_anew_and_stopped(programs: Programs) -> None:
    programs.allow(systemd.systemctl("restart", UNIT))
    programs.allow(systemd.systemctl("stop", UNIT))
    assert share.answer(SITE, "server", messages.Share("test_a")) == messages.Done()
    assert share.answer(SITE, "server", messages.Unshare("test_a")) == messages.Done()
    assert [argv[2] for argv in programs.ran] == ["restart", "stop"]


@pytest.mark.parametrize("request_", [messages.Share("test_a"), messages.Share("x"), messages.Unshare("test_a")])
def test_of_what_is_not_shared_with_a_peer_it_reads_nothing(request_: messages.Share | messages.Unshare) -> None:
    with pytest.raises(BadRequest):
        share.answer(SITE, "somebody" if request_.name == "test_a" else "server", request_)


def test_why_a_look_cannot_be_made_is_told_to_the_peer(copy: Copy, programs: Programs) -> None:
    copy.free = 0

    def unit(_: str) -> Answer:
        with pytest.raises(Refused):
            share.share(SITE, RESOURCE, silent, lambda: None)
        return Answer("", 1, "Job failed")

    programs.allow(rsync.VERSION)
    programs.allow(systemd.systemctl("restart", UNIT), unit, Answer("", 1, "Unit not found"))
    with pytest.raises(Refused, match="has 0 MiB free"):
        share.answer(SITE, "server", messages.Share("test_a"))
    with pytest.raises(ToolFailed, match="Unit not found"):
        share.answer(SITE, "server", messages.Share("test_a"))


# -- the bytes ---------------------------------------------------------------------------------------


class Line:
    """sshd's two pipes, and a socket behind which the test is rsync."""

    def __init__(self) -> None:
        share.DIRECTORY.mkdir(parents=True, exist_ok=True)
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(str(share.DIRECTORY / "test_a.sock"))
        self.listener.listen()
        self.source, self.to_peer_service = os.pipe()
        self.from_peer_service, self.sink = os.pipe()
        self.thread = threading.Thread(target=self._relay)

    def _relay(self) -> None:
        share.relay(SITE, "server", "test_a", self.source, self.sink)
        os.close(self.sink)

    def __enter__(self) -> socket.socket:
        self.thread.start()
        self.listener.settimeout(20)
        self.connection, _ = self.listener.accept()
        self.connection.settimeout(20)
        return self.connection

    def __exit__(self, *_: object) -> None:
        self.connection.close()
        self.thread.join(20)
        assert not self.thread.is_alive()
        self.listener.close()


@pytest.fixture
def line() -> Iterator[Line]:
    found = Line()
    yield found
    for descriptor in (found.to_peer_service, found.from_peer_service):
        with suppress(OSError):  # the test may have done so
            os.close(descriptor)


def test_bytes_go_both_ways_and_each_end_is_passed_on(line: Line) -> None:
    with line as connection:
        os.write(line.to_peer_service, b"hello \xff\x00")
        assert connection.recv(100) == b"hello \xff\x00"
        connection.sendall(b"\x00world")
        assert os.read(line.from_peer_service, 100) == b"\x00world"
        os.close(line.to_peer_service)
        assert connection.recv(100) == b"", "the peer has no more to say"
        connection.sendall(b"the rest")
        assert os.read(line.from_peer_service, 100) == b"the rest"
    assert os.read(line.from_peer_service, 100) == b""


def test_neither_direction_waits_for_the_other(line: Line) -> None:
    much = os.urandom(4 * 2**20)
    with line as connection:
        writer = threading.Thread(target=lambda: _write_all(line.to_peer_service, much))
        answer = threading.Thread(target=lambda: connection.sendall(much))
        writer.start()
        answer.start()
        got = b""
        while len(got) < len(much):
            got += os.read(line.from_peer_service, 65536)
        assert got == much
        got = b""
        while len(got) < len(much):
            got += connection.recv(65536)
        assert got == much
        writer.join()
        answer.join()


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def test_a_peer_that_goes_ends_it(line: Line) -> None:
    with line as connection:
        os.close(line.from_peer_service)
        connection.sendall(b"x")


def test_where_nothing_is_shared_there_is_nothing_to_read() -> None:
    with pytest.raises(Refused, match="No look at test_a is shared by the backup now"):
        share.relay(SITE, "server", "test_a", -1, -1)
    share.DIRECTORY.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(str(share.DIRECTORY / "test_a.sock"))
    with pytest.raises(Refused):
        share.relay(SITE, "server", "test_a", -1, -1)


@pytest.mark.parametrize(("peer", "name"), [("server", "other"), ("somebody", "test_a")])
def test_no_other_peer_reads_it(peer: str, name: str) -> None:
    with pytest.raises(BadRequest):
        share.relay(SITE, peer, name, -1, -1)


# -- with the real rsync -----------------------------------------------------------------------------

PEER_SERVICE = """
import os, sys
from pathlib import Path
sys.path[:0] = [{source!r}]
from drbd_offsite import config, peer_service
from drbd_offsite.operations import share
share.DIRECTORY = Path({directory!r})
config.load.__defaults__ = (Path({config!r}),)
os.environ["SSH_ORIGINAL_COMMAND"] = "files test_a"
sys.exit(peer_service.serve("server", enrolling=False))
"""


@contextmanager
def serving(tree: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What `share.share` does with a look, in a thread and without one."""
    share.DIRECTORY.mkdir(parents=True, exist_ok=True)
    config = share.DIRECTORY / "test_a.conf"
    config.write_text(rsync.daemon_config(str(tree)))
    over = threading.Event()
    really = share.between

    def between(argv: tuple[str, ...], connection: int, *, timeout: float) -> object:
        if over.is_set():
            raise InterruptedError
        return really(argv, connection, timeout=timeout)

    monkeypatch.setattr(share, "between", between)
    with share._listening(share._address("test_a")) as listener:
        daemon = threading.Thread(target=_served, args=(listener, rsync.daemon(str(config))))
        daemon.start()
        try:
            yield
        finally:
            over.set()
            call().close()
            daemon.join(20)
        assert not daemon.is_alive()


def _served(listener: socket.socket, argv: tuple[str, ...]) -> None:
    with suppress(InterruptedError):
        share._serve(listener, argv, silent)


@pytest.mark.usefixtures("real_programs")
@pytest.mark.skipif(shutil.which("rsync") is None, reason="rsync is not installed")
@pytest.mark.skipif(os.geteuid() != 0, reason="this is not root, and rsync locks itself into a directory")
def test_rsync_reads_a_look_through_the_peer_s_service(
    copy: Copy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(share, "IDLE_SECONDS", 60.0)
    here, there = tmp_path / "here", tmp_path / "there"
    for tree in (here, there):
        (tree / "deep").mkdir(parents=True)
        for name in TREE:
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            (tree / name).write_text(name)
            os.utime(tree / name, (1, 1))
    (here / "a").write_text("written here alone")
    (there / "new").mkdir()
    (there / "new/*").write_text("a star")
    (there / "new/b").write_text("not asked for")
    script = tmp_path / "peer-files"
    source = str(Path(share.__file__).parents[2])
    code = PEER_SERVICE.format(
        source=source, directory=str(share.DIRECTORY), config=str(copy.root / "etc/drbd-offsite/drbd-offsite.conf")
    )
    script.write_text(f"#!{sys.executable}\n{code}")
    script.chmod(0o755)

    def rsh(argv: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(f"--rsh={script}" if word.startswith("--rsh=") else word for word in argv)

    def compared() -> dict[str, rsync.What]:
        done = subprocess.run(rsh(rsync.compare("test_a", str(here))), capture_output=True, text=True, check=True)
        return {change.path: change.what for change in rsync.parse_changes(done.stdout)}

    with serving(there, monkeypatch):
        only_there = {"new/": rsync.What.ONLY_THERE, "new/*": rsync.What.ONLY_THERE, "new/b": rsync.What.ONLY_THERE}
        assert compared() == {"a": rsync.What.CONTENT, **only_there}
        (tmp_path / "paths").write_text("a\0new/*\0")
        subprocess.run(
            rsh(rsync.bring("test_a", str(tmp_path / "paths"), ".old", str(here))), capture_output=True, check=True
        )
        assert (here / "a").read_text() == "a"
        assert (here / "a.old").read_text() == "written here alone"
        assert [path.name for path in (here / "new").iterdir()] == ["*"], "a name is no pattern"
        assert compared() == {"a.old": rsync.What.ONLY_HERE, "new/b": rsync.What.ONLY_THERE}
        shell = next(word for word in rsh(rsync.compare("test_a", "")) if word.startswith("--rsh="))
        up = ["rsync", "--archive", shell, str(here / "a"), "peer::files/uploaded"]
        assert subprocess.run(up, capture_output=True, check=False).returncode
        assert not (there / "uploaded").exists()
