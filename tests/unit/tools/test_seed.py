import pytest
from hypothesis import given
from hypothesis import strategies as st

from drbd_offsite.model import VolumeName
from drbd_offsite.tools import seed
from drbd_offsite.tools.seed import Header, first_link, next_link, pack, unpack

HEADER = Header(VolumeName("local", "test_a"), 2**40, "2026-01-01T00:00:00+00:00")


def test_a_header_is_one_line_and_reads_as_it_was() -> None:
    assert HEADER.line().count(b"\n") == 1
    assert len(HEADER.line()) < seed.HEADER_BYTES
    assert Header.parse(HEADER.line()) == HEADER


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        b"{}\n",
        b"[]\n",
        b"null\n",
        b"\xff\xfe\n",
        HEADER.line().rstrip(),
        HEADER.line().replace(b"seed 1", b"seed 2"),
        HEADER.line().replace(b"local/test_a", b"../../etc"),
        HEADER.line().replace(b"1099511627776", b"-1"),
        HEADER.line().replace(b"1099511627776", b'"1"'),
    ],
)
def test_what_is_no_header_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  whatever JSON, UTF-8 or a volume's name has against it
        Header.parse(line)


@given(st.binary(min_size=1, max_size=5000))
def test_a_chunk_comes_out_as_it_went_in(chunk: bytes) -> None:
    head, body = pack(chunk)
    assert unpack(head, body, len(chunk)) == chunk
    assert seed.plausible(len(body))


@pytest.mark.parametrize("size", [512, seed.CHUNK])
def test_zeros_take_no_room(size: int) -> None:
    assert pack(bytes(size)) == (seed.LENGTH.pack(0), b"")
    assert unpack(seed.LENGTH.pack(0), b"", size) == bytes(size)


@given(st.binary(min_size=20, max_size=300), st.data())
def test_any_changed_byte_is_found(chunk: bytes, data: st.DataObject) -> None:
    head, body = pack(chunk)
    if not body:
        return
    record = bytearray(head + body)
    at = data.draw(st.integers(seed.LENGTH.size, len(record) - 1))
    record[at] ^= data.draw(st.integers(1, 255))
    try:
        found = unpack(bytes(record[: len(head)]), bytes(record[len(head) :]), len(chunk))
    except ValueError:
        return
    assert found == chunk, "zlib has bits that mean nothing"


@pytest.mark.parametrize("size", [9, 11])
def test_a_chunk_of_another_size_is_none(size: int) -> None:
    head, body = pack(b"0123456789")
    with pytest.raises(ValueError, match="not what it was"):
        unpack(head, body, size)


def test_what_inflates_without_end_is_not_inflated() -> None:
    head, body = pack(b"x" * 100_000)
    with pytest.raises(ValueError, match="not what it was"):
        unpack(head, body, 10)


def test_a_chunk_that_does_not_shrink_is_plausible_and_more_is_not() -> None:
    import random

    _, body = pack(random.Random(0).randbytes(seed.CHUNK))
    assert seed.plausible(len(body))
    assert not seed.plausible(seed.END)
    assert not seed.plausible(2 * seed.CHUNK)


def test_the_chain_tells_the_order_and_the_number() -> None:
    start = first_link(HEADER.line())
    a, b = (pack(text)[0] for text in (b"a", b"b"))
    links = {next_link(next_link(start, first), second) for first, second in ((a, b), (b, a), (a, a))}
    assert len(links | {start, next_link(start, a)}) == 5
