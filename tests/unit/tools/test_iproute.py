from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drbd_offsite.tools import iproute

DATA = Path(__file__).parents[2] / "data/ip"
LOOPBACK = ("127.0.0.1", "::1")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("fresh", {}),
        ("tun0-down", {"lo": LOOPBACK}),
        ("tun0-without-address", {"lo": LOOPBACK, "tun0": ()}),
        ("tun0-up", {"lo": LOOPBACK, "tun0": ("10.89.33.1",)}),
        ("filtered", {"tun0": ("10.89.33.1",)}),
    ],
)
def test_addresses_of_interfaces_that_are_up(name: str, expected: dict[str, tuple[str, ...]]) -> None:
    found = iproute.parse_addresses((DATA / f"{name}.json").read_text())
    # IPv6 makes a link-local address of its own when it likes.
    ours = {link: tuple(a for a in addresses if not a.startswith("fe80:")) for link, addresses in found.items()}
    assert ours == expected


@pytest.mark.parametrize(("machine", "address"), [("server", "10.89.33.1"), ("backup", "10.89.33.2")])
@pytest.mark.parametrize("state", ["enrolled", "replicating"])
def test_the_tunnel_s_address_on_a_real_machine(state: str, machine: str, address: str) -> None:
    assert address in iproute.parse_addresses((DATA / f"{state}-{machine}.json").read_text())["tun0"]


def test_nothing_at_all_is_no_address() -> None:
    assert iproute.parse_addresses("") == {}
    assert iproute.parse_addresses("[{}]") == {}, "iproute2 prints an empty object for what it left out"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(["UP", "lo"]),
    lambda children: (
        st.lists(children, max_size=3)
        | st.dictionaries(st.sampled_from(["ifname", "flags", "addr_info", "local"]), children, max_size=4)
    ),
    max_leaves=12,
)


@given(JSON)
def test_any_json_is_a_list_of_addresses_or_a_value_error(value: object) -> None:
    import json

    try:
        found = iproute.parse_addresses(json.dumps(value))
    except ValueError:
        return
    assert isinstance(found, dict)


@pytest.mark.parametrize("text", ["{", "ip: command not found", "[1]", '[{"ifname": "lo"}]'])
def test_what_ip_never_prints_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        iproute.parse_addresses(text)


def test_a_ping_is_bounded_and_its_packet_has_the_size_on_the_wire() -> None:
    assert iproute.ping("10.89.33.2", seconds=3) == ("ping", "-n", "-q", "-c", "1", "-w", "3", "10.89.33.2")
    full = iproute.ping("10.89.33.2", seconds=3, packet_bytes=1420)
    assert full[full.index("-s") + 1] == "1392"
    assert full[full.index("-M") : full.index("-M") + 2] == ("-M", "do"), "it must not be fragmented"
