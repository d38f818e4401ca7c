"""``metrics --listen``: HTTP for one who asks at a time, on this machine only."""

import ipaddress
import re
import socket
import socketserver
import stat
import sys
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from ..errors import OffsiteError, Refused, SystemFailed, UsageError
from ..exposition import CONTENT_TYPE

PATH = "/metrics"

SOCKET_MODE = 0o660

PATIENCE_SECONDS = 10.0
"""For one who has connected and says nothing, or does not take the answer: others wait meanwhile."""

_FORMS = "Give unix:/PATH, 127.0.0.1:PORT or [::1]:PORT."

Tell = Callable[[str], None]
Look = Callable[[], str]


def serve(where: str, look: Look, tell: Tell) -> None:
    """Answer until the process is told to end. Raises UsageError for a place that others could reach, or is none."""
    if where.startswith("unix:"):
        path = Path(where.removeprefix("unix:"))
        if not path.is_absolute():
            raise UsageError(f"{where} does not name a path from the root.", _FORMS)
        _make_way(path)
        try:
            _until_the_end(_Unix, str(path), where, look, tell)
        finally:
            path.unlink(missing_ok=True)
    else:
        host, port = _loopback(where)
        _until_the_end(_Tcp6 if ":" in host else _Tcp, (host, port), where, look, tell)


def _until_the_end(
    kind: Callable[[Any, type[BaseHTTPRequestHandler]], "_Server"], place: object, where: str, look: Look, tell: Tell
) -> None:
    try:
        server = kind(place, _answering(look, tell))
    except OSError as error:
        raise OffsiteError(
            f"Nothing can be served at {where}: {error.strerror or error}.", "ss -lntxp shows who listens where."
        ) from error
    with server:
        server.serve_forever()


def _loopback(where: str) -> tuple[str, int]:
    match = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([0-9.]+)):(\d{1,5})", where, re.ASCII)
    try:
        address = ipaddress.ip_address(match[1] or match[2]) if match else None
    except ValueError:
        address = None
    if match is None or address is None or not 0 < int(match[3]) < 2**16:
        raise UsageError(f"{where} is no address with a port.", _FORMS)
    if not address.is_loopback:
        raise UsageError(
            f"{address} is no loopback address. Whoever reaches it could read the figures, which are neither "
            "encrypted nor asked a password for.",
            f"{_FORMS} A web server or a tunnel in front of that can let others in.",
        )
    return str(address), int(match[3])


def _make_way(path: Path) -> None:
    """For a socket in the place of one whose process was killed."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise UsageError(f"{path} is there and is no socket; it stays.", "Name another path.")
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
        else:
            raise Refused(f"Another process serves {path}.", "End that one first, or name another path.")


class _Server(socketserver.BaseServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """One who goes away in the middle has asked for nothing that is missing now."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class _Tcp(_Server, socketserver.TCPServer):
    allow_reuse_address = True


class _Tcp6(_Tcp):
    address_family = socket.AF_INET6


class _Unix(_Server, socketserver.UnixStreamServer):
    def server_bind(self) -> None:
        super().server_bind()
        Path(str(self.server_address)).chmod(SOCKET_MODE)


def _answering(look: Look, tell: Tell) -> type[BaseHTTPRequestHandler]:
    class Answer(BaseHTTPRequestHandler):
        timeout = PATIENCE_SECONDS
        server_version, sys_version = "drbd-offsite", ""

        def do_GET(self) -> None:
            if self.path.partition("?")[0] != PATH:
                self._say(HTTPStatus.NOT_FOUND, f"There is only {PATH}.\n", "text/plain; charset=utf-8")
                return
            try:
                text = _looked(look)
            except OffsiteError as error:
                tell(f"{error.message} {error.hint}")
                said = f"{error.message}\n{error.hint}\n"
                self._say(HTTPStatus.SERVICE_UNAVAILABLE, said, "text/plain; charset=utf-8")
            else:
                self._say(HTTPStatus.OK, text, CONTENT_TYPE)

        def _say(self, status: HTTPStatus, text: str, kind: str) -> None:
            body = text.encode("utf-8")
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Every few seconds the same."""

    return Answer


def _looked(look: Look) -> str:
    try:
        return look()
    except OSError as error:
        raise SystemFailed(error) from error
