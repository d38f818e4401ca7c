"""TCP connections, the kernel's own among them: ss(8)."""

from collections.abc import Iterable
from dataclasses import dataclass

Argv = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Socket:
    """One end of a connection, and how far either direction of it has got."""

    local: str
    """Address and port, as ss writes them."""
    remote: str
    written_bytes: int
    """Given to the connection here since it began, whether the other end has it or not."""
    taken_bytes: int
    """Taken from it here; what waits to be taken is not among them."""


def established(ports: Iterable[int]) -> Argv:
    """The connections that have one of these ports at either end."""
    ends = " or ".join(f"sport = :{port} or dport = :{port}" for port in sorted(set(ports)))
    return ("ss", "--tcp", "--info", "--numeric", "--no-header", "--oneline", "state", "established", f"( {ends} )")


def parse(text: str) -> tuple[Socket, ...]:
    """What `established` lists. A line that is none is passed over.

    Of a count that is 0 ss says nothing. The end that has dialled counts the SYN as a byte that was acknowledged
    (tcp_info, tcpi_bytes_acked).
    """
    found = []
    for line in text.splitlines():
        words = line.split()
        if len(words) < 4 or not (words[0].isdecimal() and words[1].isdecimal()):
            continue
        waiting, unacknowledged = int(words[0]), int(words[1])
        counts = dict(word.split(":", 1) for word in words[4:] if ":" in word)
        acknowledged, received = (_count(counts, key) for key in ("bytes_acked", "bytes_received"))
        found.append(Socket(words[2], words[3], acknowledged + unacknowledged, received - waiting))
    return tuple(found)


def _count(counts: dict[str, str], key: str) -> int:
    text = counts.get(key, "0")
    return int(text) if text.isdecimal() else 0
