"""The kernel's news of addresses (rtnetlink(7)), ip(8) and ping(8)."""

import json
import struct
from collections.abc import Iterator

Argv = tuple[str, ...]

IPV4_ADDRESSES = 0x10
"""RTMGRP_IPV4_IFADDR: the multicast group that tells of addresses."""

_NEW_ADDRESS = 20  # RTM_NEWADDR
_LOCAL = 2  # IFA_LOCAL
_HEADER = struct.Struct("=LHHLL")  # nlmsghdr: length, type, flags, sequence, port
_ADDRESS_BYTES = 8  # ifaddrmsg
_ATTRIBUTE = struct.Struct("=HH")  # rtattr: length, type

IP_AND_ICMP_HEADERS = 28
"""Bytes of an IPv4 and an ICMP header, which ping's size does not count."""


def appeared(news: bytes) -> Iterator[str]:
    """The IPv4 addresses that one datagram of rtnetlink says are new. What is cut off is passed over."""
    for kind, body in _parts(news, _HEADER):
        if kind == _NEW_ADDRESS:
            for name, value in _parts(body[_ADDRESS_BYTES:], _ATTRIBUTE):
                if name == _LOCAL and len(value) == 4:
                    yield ".".join(map(str, value))


def _parts(data: bytes, header: struct.Struct) -> Iterator[tuple[int, bytes]]:
    """Type and content of what begins with its length and its type, each at a multiple of four bytes."""
    while len(data) >= header.size:
        length, kind, *_ = header.unpack_from(data)
        if not header.size <= length <= len(data):
            return
        yield kind, data[header.size : length]
        data = data[(length + 3) & ~3 :]


ADDRESSES: Argv = ("ip", "-json", "-4", "address", "show")


def parse_addresses(text: str) -> dict[str, str]:
    """The interface of each address that `ADDRESSES` lists."""
    return {address["local"]: link["ifname"] for link in json.loads(text) for address in link.get("addr_info", ())}


def ping(address: str, *, seconds: int, packet_bytes: int | None = None) -> Argv:
    """One answered echo within ``seconds``; with a size, the packet of that size must pass unfragmented."""
    size = () if packet_bytes is None else ("-M", "do", "-s", str(packet_bytes - IP_AND_ICMP_HEADERS))
    return ("ping", "-n", "-q", "-c", "1", "-w", str(seconds), *size, address)
