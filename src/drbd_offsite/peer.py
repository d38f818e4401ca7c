"""The other machine: one request over ssh through the tunnel."""

from pathlib import Path
from typing import TypeVar

from . import messages, protocol
from .errors import PeerUnreachable, ToolFailed
from .model import Peer, Site
from .run import run
from .tools import ssh

KEYS = Path("/etc/drbd-offsite/keys")
CONNECT_SECONDS = 15
ANSWER_SECONDS = 600.0
"""Making a large volume, wiping and attaching it can take the peer minutes."""

AGAIN = "See whether the tunnel is up (drbd-offsite status), then run the same command again; it goes on from here."

_SSH_FAILED = 255
_A = TypeVar("_A", bound=messages.Answer)


def ask(
    site: Site,
    peer: Peer,
    request: messages.Request,
    answer: type[_A],
    key: str = "ssh",
    seconds: float = ANSWER_SECONDS,
) -> _A:
    """The peer's answer, of the kind that belongs to the request, within ``seconds``.

    Raises PeerUnreachable, the peer's own error, or BadRequest. ``key`` is the file below the peer's
    key directory to authenticate with.
    """
    argv = _line(site, peer, key, min(CONNECT_SECONDS, int(seconds)))
    try:
        done = run(argv, stdin=protocol.encode_request(request), timeout=seconds, accept=None)
    except ToolFailed as error:
        raise PeerUnreachable(str(error), AGAIN) from error
    if done.returncode == _SSH_FAILED or not done.stdout:
        raise PeerUnreachable(
            f"{peer.name} does not answer on the tunnel: {done.complaint or 'the connection ended'}.",
            AGAIN,
        )
    return protocol.decode_answer(answer, done.stdout)


def lines(site: Site, peer: Peer) -> tuple[str, ...]:
    """The command that answers requests, one a line, until its input ends."""
    return (*_line(site, peer, "ssh", CONNECT_SECONDS), protocol.LINES)


def measuring(site: Site, peer: Peer, *, gives: bool) -> tuple[str, ...]:
    """The command that does the peer's part in measuring the line: it gives bytes, or takes them and counts."""
    return (*_line(site, peer, "ssh", CONNECT_SECONDS), protocol.GIVE if gives else protocol.TAKE)


def stream(site: Site, peer: Peer, name: str) -> tuple[str, ...]:
    """The command whose input and output are those of the rsync that reads the peer's copy of ``name``."""
    return (*_line(site, peer, "ssh", CONNECT_SECONDS), protocol.FILES, name)


def _line(site: Site, peer: Peer, key: str, connect_seconds: int) -> tuple[str, ...]:
    directory = KEYS / peer.name
    return ssh.request(
        site.address_there(peer),
        site.service_port,
        str(directory / key),
        str(directory / "known_hosts"),
        connect_seconds,
    )
