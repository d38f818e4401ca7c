import pytest

from drbd_offsite.tools import dmsetup
from drbd_offsite.tools.dmsetup import State


def test_a_device_is_laid_over_all_of_another() -> None:
    argv = dmsetup.lay_over("x", "/dev/local/a", "/dev/local/b", 96 * 2**20)
    assert argv == ("dmsetup", "create", "x", "--table", "0 196608 snapshot /dev/local/a /dev/local/b N 8")
    assert dmsetup.path("x") == "/dev/mapper/x"


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("0 196608 snapshot 16/32768 0\n", State.WELL),
        ("0 196608 snapshot Invalid\n", State.FULL),
        ("0 196608 snapshot Overflow\n", State.FULL),
        ("0 196608 error \n", State.WIPED),
        ("", State.WIPED),
    ],
)
def test_what_has_become_of_it(text: str, state: State) -> None:
    assert dmsetup.parse_status(text) is state


def test_it_is_wiped_without_waiting_for_whoever_has_it_mounted() -> None:
    assert dmsetup.wipe("x") == ("dmsetup", "wipe_table", "--noflush", "--nolockfs", "x")
