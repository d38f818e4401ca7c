"""Bytes through real sockets and pipes, and a clock of the test's own."""

import os
import socket
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from drbd_offsite.errors import ToolFailed
from drbd_offsite.operations import flow
from drbd_offsite.operations.flow import Counted

MIB = 2**20


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    found = os.pipe()
    yield found
    for descriptor in found:
        with suppress(OSError):  # the test may have closed it
            os.close(descriptor)


@pytest.fixture
def line() -> Iterator[tuple[socket.socket, socket.socket]]:
    """As sshd gives one to what it runs: one socket for both directions."""
    here, there = socket.socketpair()
    with here, there:
        yield here, there


class Trickle:
    """A line that brings so much in each half second; the clock is read after each."""

    def __init__(self, sink: int, each: bytes, pieces: int) -> None:
        self.now, self._sink, self._each, self._left = 100.0, sink, each, pieces

    def __call__(self) -> float:
        self.now += 0.5
        if self._left:
            os.write(self._sink, self._each)
        elif self._left == 0:
            os.close(self._sink)
        self._left -= 1
        return self.now


def test_what_arrives_is_counted_over_the_time_in_which_it_does_without_the_first_burst(pipe: tuple[int, int]) -> None:
    source, sink = pipe
    os.write(sink, b"x" * 50_000)  # what a buffer on the way has taken at once
    counted = flow.receive(source, clock=Trickle(sink, b"x" * 1000, 1000))
    assert counted == Counted(16_000, 8.0), "2000 bytes a second, from the second second to the tenth"


def test_a_line_that_ends_earlier_is_measured_by_what_came(pipe: tuple[int, int]) -> None:
    source, sink = pipe
    os.write(sink, b"x" * 50_000)
    assert flow.receive(source, clock=Trickle(sink, b"x" * 1000, 10)) == Counted(6_000, 3.0)


def test_on_a_fast_line_the_bytes_are_the_bound_and_no_more_is_read(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, sink = pipe
    monkeypatch.setattr(flow, "MOST_BYTES", 40_000)
    monkeypatch.setattr(flow, "WARM_UP_BYTES", 10_000)
    monkeypatch.setattr(flow, "_CHUNK", 5_000)
    os.write(sink, b"x" * 60_000)
    now = iter(range(1000))
    counted = flow.receive(source, clock=lambda: next(now) / 1000)
    assert counted == Counted(30_000, pytest.approx(0.006))
    assert len(os.read(source, 100_000)) == 20_000


@pytest.mark.parametrize("sent", [0, 1, 1000])
def test_too_little_to_tell_is_said(pipe: tuple[int, int], sent: int) -> None:
    source, sink = pipe
    os.write(sink, b"x" * sent)
    os.close(sink)
    with pytest.raises(ToolFailed, match=f"ended after {sent} bytes"):
        flow.receive(source)


def test_a_line_that_falls_silent_is_not_waited_for(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "SILENCE_SECONDS", 0.05)
    source, sink = pipe
    for _ in range(2):
        with pytest.raises(ToolFailed, match="nothing came through"):
            flow.receive(source)
        os.write(sink, b"x" * 1000)


def gather(source: socket.socket, into: list[bytes]) -> threading.Thread:
    def read() -> None:
        while data := source.recv(65536):
            into.append(data)

    thread = threading.Thread(target=read)
    thread.start()
    return thread


def test_no_more_is_sent_than_the_bound_and_nothing_makes_less_of_it(
    line: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flow, "MOST_BYTES", 3 * MIB + 17)
    here, there = line
    got: list[bytes] = []
    thread = gather(there, got)
    assert flow.send(here.fileno()) == 3 * MIB + 17
    here.shutdown(socket.SHUT_WR)
    thread.join(20)
    whole = b"".join(got)
    assert len(whole) == 3 * MIB + 17
    assert len(zlib.compress(whole, 9)) > len(whole)


def stuck(begun: float = 0.0) -> Callable[[], float]:
    """A clock that is beyond every limit when it is read for the third time."""
    now = iter([begun, begun, *[begun + 1000.0] * 10])
    return lambda: next(now)


def test_a_reader_that_takes_nothing_is_waited_for_no_longer_than_the_bound(
    line: tuple[socket.socket, socket.socket],
) -> None:
    here, _ = line
    assert 0 < flow.send(here.fileno(), clock=stuck()) < flow.MOST_BYTES


def test_sending_ends_where_the_reader_has_gone(line: tuple[socket.socket, socket.socket]) -> None:
    here, there = line
    there.close()
    assert flow.send(here.fileno()) == 0


def test_sending_ends_where_the_reader_has_its_answer(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "MOST_BYTES", 2**60)
    here, there = socket.socketpair()
    source, sink = pipe
    with here, there:

        def read() -> None:
            left = 4 * MIB
            while left > 0:
                left -= len(there.recv(65536))
            os.write(sink, b"enough")
            while there.recv(65536):
                pass

        reader = threading.Thread(target=read)
        reader.start()
        assert flow.send(here.fileno(), source) >= 4 * MIB
        here.shutdown(socket.SHUT_WR)
        reader.join(20)
        assert not reader.is_alive()


def test_both_say_how_far_they_are(line: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "MOST_BYTES", MIB)
    monkeypatch.setattr(flow, "WARM_UP_BYTES", MIB // 2)
    here, there = line
    sent: list[tuple[float, int]] = []
    received: list[tuple[float, int]] = []
    sender = threading.Thread(target=lambda: flow.send(here.fileno(), progress=lambda *far: sent.append(far)))
    sender.start()
    flow.receive(there.fileno(), lambda *far: received.append(far))
    sender.join(20)
    for told in (sent, received):
        assert told == sorted(told)
        assert all(seconds >= 0 and 0 <= count < MIB for seconds, count in told)


def test_a_round_trip_is_that_of_the_quickest_byte(line: tuple[socket.socket, socket.socket]) -> None:
    here, there = line
    other = threading.Thread(target=flow.echo, args=(there.fileno(), there.fileno()))
    other.start()
    trips = [9.0, 3.0, 5.0, *[7.0] * (flow.PROBES - 3)]
    now = iter([instant for number, trip in enumerate(trips) for instant in (100.0 * number, 100.0 * number + trip)])
    assert flow.round_trip(here.fileno(), here.fileno(), lambda: next(now)) == 3.0
    other.join(20)
    assert not other.is_alive()


@pytest.mark.parametrize("side", [flow.round_trip, flow.echo])
def test_a_byte_that_does_not_come_is_said(
    side: Callable[[int, int], object], line: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flow, "SILENCE_SECONDS", 0.05)
    here, there = line
    with pytest.raises(ToolFailed, match="nothing came through"):
        side(here.fileno(), here.fileno())
    there.shutdown(socket.SHUT_WR)
    with pytest.raises(ToolFailed, match="ended before it began"):
        side(here.fileno(), here.fileno())
