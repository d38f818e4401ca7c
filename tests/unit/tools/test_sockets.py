"""What ss says of DRBD's connections, as it said it on two Debian 12 machines a moment apart."""

from pathlib import Path

from drbd_offsite.tools import sockets
from drbd_offsite.tools.sockets import Socket

DATA = Path(__file__).parents[2] / "data/ss"


def test_how_far_either_end_has_got() -> None:
    assert sockets.parse((DATA / "server.txt").read_text()) == (
        Socket("10.89.33.1:39247", "10.89.33.2:7789", 16904027 + 11944, 35250),
        Socket("10.89.33.1:7789", "10.89.33.2:36707", 20288, 39352),
    )
    assert sockets.parse((DATA / "backup.txt").read_text()) == (
        Socket("10.89.33.2:7789", "10.89.33.1:39247", 38850, 19341554),
        Socket("10.89.33.2:36707", "10.89.33.1:7789", 214201 + 1328, 22568),
    )


def test_what_waits_to_be_read_was_not_read() -> None:
    line = "4096 0 [fd00::1]:7789 [fd00::2]:40000 cubic bytes_received:10000"
    assert sockets.parse(line) == (Socket("[fd00::1]:7789", "[fd00::2]:40000", 0, 5904),)


def test_what_is_no_connection_is_passed_over() -> None:
    assert sockets.parse("\nError: something\n0 0 three\nRecv-Q Send-Q Local:Port Peer:Port Process\n") == ()


def test_they_are_asked_for_by_their_ports() -> None:
    assert sockets.established([7790, 7789, 7789])[-1] == (
        "( sport = :7789 or dport = :7789 or sport = :7790 or dport = :7790 )"
    )
