"""``metrics`` as Prometheus sees it: text, and what listens where."""

import http.client
import os
import signal
import socket
import stat
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from drbd_offsite import config
from drbd_offsite.cli import listening
from drbd_offsite.cli import metrics as verb
from drbd_offsite.errors import ExitCode
from drbd_offsite.model import Flavour, Site
from drbd_offsite.observed import Host

from .. import make
from .conftest import Command, Said

WELL = make.host(drbd=[make.well(Flavour.SERVER)])
CONNECTED = 'drbd_offsite_connected{{peer="backup",resource="test_a"}} {}\n'
SECONDS = 10.0


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[Host]:
    """What is seen at each look; the last one again and again."""
    config.PATH.write_text(make.CONFIG)
    hosts = [WELL]

    def observe(site: Site) -> Host:
        assert site.resources
        return hosts.pop(0) if len(hosts) > 1 else hosts[0]

    monkeypatch.setattr(verb, "observe", observe)
    return hosts


class Unix(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(SECONDS)
        self.sock.connect(str(self._path))


Connect = Callable[[], http.client.HTTPConnection]
Answer = tuple[int, str, str]


def get(connect: Connect, path: str = "/metrics", method: str = "GET") -> Answer:
    """Status, kind and body, as soon as somebody listens."""
    until = time.monotonic() + SECONDS
    while True:
        connection = connect()
        try:
            connection.request(method, path)
            break
        except (ConnectionRefusedError, FileNotFoundError):
            assert time.monotonic() < until, "nobody listens"
            time.sleep(0.01)
    answer = connection.getresponse()
    found = (answer.status, answer.headers["Content-Type"], answer.read().decode())
    connection.close()
    return found


def while_serving(command: Command, where: str, ask: Callable[[], object]) -> tuple[Said, list[object]]:
    """What ``ask`` has got, and how the verb has ended when it was told to."""
    got: list[object] = []

    def client() -> None:
        got.append(ask())
        os.kill(os.getpid(), signal.SIGTERM)

    asking = threading.Thread(target=client, daemon=True)
    asking.start()
    said = command("metrics", "--listen", where)
    asking.join(SECONDS)
    return said, got


def free_port(family: socket.AddressFamily, host: str) -> int:
    with socket.socket(family) as probe:
        try:
            probe.bind((host, 0))
        except OSError:
            pytest.skip(f"this machine has no {host}")
        return int(probe.getsockname()[1])


def test_one_look_goes_to_standard_output(command: Command, looks: list[Host]) -> None:
    del looks
    said = command("metrics")
    assert CONNECTED.format("1.0") in said.out
    assert said.out.endswith("\n")
    assert not said.out.endswith("\n\n")
    assert (said.err, said.code) == ("", ExitCode.DONE)


@pytest.mark.parametrize("words", [[], ["--listen", "127.0.0.1:1"]])
def test_without_the_library_it_says_what_to_install(
    words: list[str], command: Command, looks: list[Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    del looks
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    said = command("metrics", *words)
    assert said.out == ""
    assert "apt install python3-prometheus-client" in said.err
    assert said.code == ExitCode.FAILED


@pytest.mark.parametrize(
    ("family", "host", "where"), [(socket.AF_INET, "127.0.0.1", "{}:{}"), (socket.AF_INET6, "::1", "[{}]:{}")]
)
def test_each_scrape_is_a_new_look(
    family: socket.AddressFamily, host: str, where: str, command: Command, looks: list[Host]
) -> None:
    port = free_port(family, host)
    looks[:] = [WELL, WELL, make.host()]  # the first one is the verb's own, before it listens

    def ask() -> list[Answer]:
        return [get(lambda: http.client.HTTPConnection(host, port, timeout=SECONDS)) for _ in range(2)]

    before = signal.getsignal(signal.SIGTERM)
    said, ((first, second),) = while_serving(command, where.format(host, port), ask)
    assert first[:2] == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert CONNECTED.format("1.0") in first[2]
    assert CONNECTED.format("0.0") in second[2]
    assert (said.out, said.err, said.code) == ("", "", ExitCode.DONE)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_socket_is_for_root_and_its_group_and_goes_with_the_process(
    command: Command, looks: list[Host], tmp_path: Path
) -> None:
    del looks
    path = tmp_path / "metrics.sock"

    def ask() -> tuple[Answer, int]:
        return get(lambda: Unix(path)), stat.S_IMODE(path.stat().st_mode)

    said, (((status, _, text), mode),) = while_serving(command, f"unix:{path}", ask)
    assert (status, mode) == (200, 0o660)
    assert CONNECTED.format("1.0") in text
    assert said.code == ExitCode.DONE
    assert not path.exists()


def test_a_socket_that_a_killed_process_has_left_is_replaced(
    command: Command, looks: list[Host], tmp_path: Path
) -> None:
    del looks
    path = tmp_path / "metrics.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    said, ((status, _, _),) = while_serving(command, f"unix:{path}", lambda: get(lambda: Unix(path)))
    assert (status, said.code) == (200, ExitCode.DONE)


def test_a_socket_that_is_in_use_stays(command: Command, looks: list[Host], tmp_path: Path) -> None:
    del looks
    path = tmp_path / "metrics.sock"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        said = command("metrics", "--listen", f"unix:{path}")
    assert said.code == ExitCode.REFUSED
    assert path.exists()


def test_a_file_that_is_no_socket_stays(command: Command, looks: list[Host], tmp_path: Path) -> None:
    del looks
    path = tmp_path / "precious"
    path.write_text("data")
    assert command("metrics", "--listen", f"unix:{path}").code == ExitCode.USAGE
    assert path.read_text() == "data"


def test_there_is_nothing_else_to_get(command: Command, looks: list[Host], tmp_path: Path) -> None:
    del looks
    path = tmp_path / "metrics.sock"
    paths = ("/", "/metrics/", "/metrics.txt", "/../etc/passwd", "/metrics?name[]=x")

    def ask() -> list[int]:
        return [get(lambda: Unix(path), wanted)[0] for wanted in paths] + [get(lambda: Unix(path), method="POST")[0]]

    _, (found,) = while_serving(command, f"unix:{path}", ask)
    assert found == [404, 404, 404, 404, 200, 501]


def test_who_goes_away_or_says_nothing_does_not_end_it(
    command: Command, looks: list[Host], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del looks
    monkeypatch.setattr(listening, "PATIENCE_SECONDS", 0.05)
    path = tmp_path / "metrics.sock"

    def ask() -> int:
        get(lambda: Unix(path))
        silent, gone = (socket.socket(socket.AF_UNIX) for _ in range(2))
        silent.connect(str(path))
        gone.connect(str(path))
        gone.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        gone.close()
        status = get(lambda: Unix(path))[0]
        silent.close()
        return status

    said, (status,) = while_serving(command, f"unix:{path}", ask)
    assert (status, said.err, said.code) == (200, "", ExitCode.DONE)


def test_a_configuration_that_was_broken_meanwhile_is_an_error_and_not_an_old_answer(
    command: Command, looks: list[Host], tmp_path: Path
) -> None:
    del looks
    path = tmp_path / "metrics.sock"

    def ask() -> tuple[Answer, Answer]:
        get(lambda: Unix(path))
        config.PATH.write_text("[site]\n  flavour = both\n")
        broken = get(lambda: Unix(path))
        config.PATH.write_text(make.CONFIG)
        return broken, get(lambda: Unix(path))

    said, ((broken, mended),) = while_serving(command, f"unix:{path}", ask)
    assert (broken[0], mended[0]) == (503, 200)
    assert "flavour" in broken[2]
    assert "flavour" in said.err


@pytest.mark.parametrize("where", ["0.0.0.0:9000", "10.89.33.1:9000", "[::]:9000", "[::ffff:127.0.0.1]:9000"])
def test_what_the_network_could_reach_is_refused_with_the_reason(
    where: str, command: Command, looks: list[Host]
) -> None:
    del looks
    said = command("metrics", "--listen", where)
    assert "no loopback address. Whoever reaches it could read the figures" in said.err
    assert said.code == ExitCode.USAGE


@pytest.mark.parametrize(
    "where", ["", "9000", "localhost:9000", "127.0.0.1", "127.0.0.1:0", "127.0.0.1:65536", "::1:9000", "unix:metrics"]
)
def test_what_is_no_place_to_listen_is_a_usage_error(where: str, command: Command, looks: list[Host]) -> None:
    del looks
    said = command("metrics", "--listen", where)
    assert "Give unix:/PATH, 127.0.0.1:PORT or [::1]:PORT." in said.err
    assert said.code == ExitCode.USAGE


def test_a_port_that_is_taken_is_said(command: Command, looks: list[Host]) -> None:
    del looks
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        said = command("metrics", "--listen", f"127.0.0.1:{other.getsockname()[1]}")
    assert "Address already in use" in said.err
    assert said.code == ExitCode.FAILED
