import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drbd_offsite.tools import iproute

DATA = Path(__file__).parents[2] / "data/netlink"

pytestmark = pytest.mark.skipif(sys.byteorder != "little", reason="rtnetlink was captured on such a machine")


def news(name: str) -> bytes:
    """What the kernel told of it; one datagram after the other, as they may also come in one."""
    return b"".join(bytes.fromhex(line) for line in (DATA / f"{name}.hex").read_text().split())


@pytest.mark.parametrize(
    ("name", "addresses"),
    [
        ("tunnel-is-made", []),
        ("tunnel-gets-its-address", ["10.89.33.1"]),  # its own, and not its peer's 10.89.33.2
        ("network-gets-its-address", ["192.0.2.7"]),  # and not the broadcast's
        ("address-goes", []),
        ("tunnel-vanishes", []),
    ],
)
def test_what_the_kernel_says_of_a_tunnel_s_life(name: str, addresses: list[str]) -> None:
    assert list(iproute.appeared(news(name))) == addresses


def test_several_messages_in_one_datagram_are_all_read() -> None:
    whole = news("address-goes") + news("tunnel-gets-its-address") + news("network-gets-its-address")
    assert list(iproute.appeared(whole)) == ["10.89.33.1", "192.0.2.7"]


@given(st.binary(max_size=300))
def test_random_bytes_are_no_error(junk: bytes) -> None:
    assert all(address.count(".") == 3 for address in iproute.appeared(junk))


CAPTURED = st.sampled_from(["tunnel-gets-its-address", "network-gets-its-address"]).map(news)


@given(CAPTURED, st.data())
def test_what_is_cut_off_is_passed_over(whole: bytes, data: st.DataObject) -> None:
    cut = whole[: data.draw(st.integers(0, len(whole) - 1))]
    assert list(iproute.appeared(cut)) == []


@given(CAPTURED, st.binary(max_size=40))
def test_what_comes_before_the_junk_is_read(whole: bytes, junk: bytes) -> None:
    assert list(iproute.appeared(whole + junk))[:1] == list(iproute.appeared(whole))


@given(CAPTURED, st.integers(0, 79), st.integers(0, 255))
def test_a_byte_that_differs_is_no_error(whole: bytes, at: int, byte: int) -> None:
    changed = whole[:at] + bytes([byte]) + whole[at + 1 :]
    assert len(list(iproute.appeared(changed))) <= 1


@pytest.mark.parametrize("length", [0, 1, 15])
def test_a_length_below_its_header_s_does_not_go_round_in_circles(length: int) -> None:
    whole = news("tunnel-gets-its-address")
    assert list(iproute.appeared(length.to_bytes(4, "little") + whole[4:])) == []
    attribute = whole[:24] + length.to_bytes(2, "little")[:2] + whole[26:]
    assert len(list(iproute.appeared(attribute))) <= 1


def test_a_ping_is_bounded_and_its_packet_has_the_size_on_the_wire() -> None:
    assert iproute.ping("10.89.33.2", seconds=3) == ("ping", "-n", "-q", "-c", "1", "-w", "3", "10.89.33.2")
    full = iproute.ping("10.89.33.2", seconds=3, packet_bytes=1420)
    assert full[full.index("-s") + 1] == "1392"
    assert full[full.index("-M") : full.index("-M") + 2] == ("-M", "do"), "it must not be fragmented"


def test_each_address_has_its_interface_and_the_far_end_of_a_tunnel_is_none() -> None:
    assert iproute.parse_addresses((DATA.parent / "adopt/addresses.json").read_text()) == {"10.89.33.1": "tun0"}
