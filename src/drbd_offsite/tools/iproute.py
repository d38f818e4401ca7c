"""ip(8) and ping(8)."""

import json

Argv = tuple[str, ...]

ADDRESSES: Argv = ("ip", "-json", "address", "show")

IP_AND_ICMP_HEADERS = 28
"""Bytes of an IPv4 and an ICMP header, which ping's size does not count."""


def parse_addresses(text: str) -> dict[str, tuple[str, ...]]:
    """Addresses by interface, of interfaces that are up. Raises ValueError for what is not ip's JSON."""
    found: dict[str, tuple[str, ...]] = {}
    try:
        for link in json.loads(text or "[]"):
            # iproute2 prints an empty object for what its filter passed over
            if link and "UP" in link["flags"]:
                found[link["ifname"]] = tuple(a["local"] for a in link["addr_info"] if "local" in a)
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a list of addresses: {error}") from error
    return found


def ping(address: str, *, seconds: int, packet_bytes: int | None = None) -> Argv:
    """One answered echo within ``seconds``; with a size, the packet of that size must pass unfragmented."""
    size = () if packet_bytes is None else ("-M", "do", "-s", str(packet_bytes - IP_AND_ICMP_HEADERS))
    return ("ping", "-n", "-q", "-c", "1", "-w", str(seconds), *size, address)
