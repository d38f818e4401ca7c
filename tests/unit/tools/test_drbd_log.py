"""The texts are those of drbd_worker.c and drbd_state.c; the frame around them is from the lab's journals."""

from hypothesis import given
from hypothesis import strategies as st

from drbd_offsite.tools.drbd_log import Verify, parse_verifies

WHOLE = """\
block drbd0: conn( Connected -> VerifyS )
block drbd0: Starting Online Verify from sector 0
block drbd0: Out of sync: start=40000, size=16 (sectors)
block drbd0: Out of sync: start=80000, size=8 (sectors)
block drbd0: Online verify done (total 13 sec; paused 0 sec; 7560 K/sec)
block drbd0: Online verify found 3 4k block out of sync!
block drbd0: helper command: /sbin/drbdadm out-of-sync minor-0
block drbd0: conn( VerifyS -> Connected )
block drbd0: helper command: /sbin/drbdadm out-of-sync minor-0 exit code 0 (0x0)
"""
PART = """\
block drbd0: Starting Online Verify from sector 39992
block drbd0: Online verify done (total 1 sec; paused 0 sec; 4 K/sec)
block drbd0: conn( VerifyS -> Connected )
block drbd0: Online Verify reached sector 40024
"""
LOST = """\
block drbd0: Starting Online Verify from sector 0
block drbd0: Out of sync: start=8, size=8 (sectors)
block drbd0: peer( Secondary -> Unknown ) conn( VerifyS -> NetworkFailure ) pdsk( UpToDate -> DUnknown )
block drbd0: Online Verify reached sector 65536
"""


def parsed(text: str, minor: int = 0) -> tuple[Verify, ...]:
    return parse_verifies(text.splitlines(), minor)


def test_a_verify_to_the_end_of_the_volume() -> None:
    assert parsed(WHOLE) == (Verify(0, ((40000, 16), (80000, 8)), done=True),)


def test_a_verify_to_its_stop_sector_is_done_there() -> None:
    assert parsed(PART) == (Verify(39992, reached=40024, done=True),)


def test_a_lost_connection_is_no_end() -> None:
    assert parsed(LOST) == (Verify(0, ((8, 8),), reached=65536),)


def test_one_that_runs_or_that_no_line_ends() -> None:
    assert parsed("block drbd0: Starting Online Verify from sector 8") == (Verify(8),)


def test_on_the_other_side_nobody_says_where_it_began() -> None:
    text = "block drbd0: conn( Connected -> VerifyT )\nblock drbd0: Out of sync: start=8, size=8 (sectors)\n"
    assert parsed(text) == (Verify(None, ((8, 8),)),)


def test_a_resync_sends_what_earlier_ones_have_found_and_not_what_later_ones_find() -> None:
    resync = "block drbd0: Resync done (total 1 sec; paused 0 sec; 8 K/sec)\n"
    first, second = parsed(WHOLE + resync + PART)
    assert first.resent
    assert not second.resent


def test_a_log_that_begins_in_the_middle() -> None:
    *_, text = WHOLE.partition("sector 0\n")
    assert parsed(text) == (Verify(None, ((40000, 16), (80000, 8)), done=True),)
    assert parsed("block drbd0: Online verify done (total 1 sec; paused 0 sec; 4 K/sec)") == ()


def test_other_devices_are_passed_over() -> None:
    assert parsed(WHOLE, 1) == ()
    assert parsed(WHOLE.replace("drbd0", "drbd10")) == ()
    assert parsed(WHOLE.replace("drbd0", "drbd10"), 10) == parsed(WHOLE)


def test_version_9_names_the_peer_too() -> None:
    text = WHOLE.replace("block drbd0: ", "drbd test_a/0 drbd0 backup: ").replace(
        "conn( Connected", "repl( Established"
    )
    assert parsed(text) == parsed(WHOLE)


@given(st.lists(st.sampled_from((WHOLE + PART + LOST).splitlines())) | st.lists(st.text()))
def test_no_order_of_lines_and_no_other_text_is_too_much(lines: list[str]) -> None:
    for verify in parse_verifies(lines, 0):
        assert all(sectors > 0 for _, sectors in verify.differing)
