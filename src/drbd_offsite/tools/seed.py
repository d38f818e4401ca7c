"""The file that carries a volume's first copy on a disk: a line that says what it is, the chunks, and an end.

For each `CHUNK` of the volume, in order, there is a record: a length (4 bytes, big-endian), the SHA-256 of the chunk
and the chunk deflated, which is so long; or the length 0 and nothing more for a chunk of zeros. After the last one
comes the length `END` and the last link of a chain that every record lengthens, so that none can be left out, doubled
or moved. A chain goes on from any of its links, which a running SHA-256 does not.
"""

import hashlib
import json
import struct
import zlib
from dataclasses import dataclass

from ..model import VolumeName

FORMAT = "drbd-offsite seed 1"
CHUNK = 4 * 2**20
END = 0xFFFFFFFF
DIGEST_BYTES = hashlib.sha256().digest_size
HEADER_BYTES = 1024
"""More than any header has."""

LENGTH = struct.Struct(">I")
_MOST = CHUNK + CHUNK // 1000 + 64
"""What zlib can make of a chunk that does not shrink (zlib.h, compressBound)."""
_ZEROS = bytes(CHUNK)


@dataclass(frozen=True, slots=True)
class Header:
    volume: VolumeName
    size_bytes: int
    at: str
    """ISO 8601, UTC."""

    def line(self) -> bytes:
        fields = {"format": FORMAT, "volume": str(self.volume), "size_bytes": self.size_bytes, "at": self.at}
        return json.dumps(fields).encode() + b"\n"

    @classmethod
    def parse(cls, line: bytes) -> "Header":
        """Raises ValueError for anything but such a line."""
        match json.loads(line) if line.endswith(b"\n") else None:
            case {"format": str(known), "volume": str(volume), "size_bytes": int(size), "at": str(at)}:
                if known == FORMAT and size > 0:
                    return cls(VolumeName.parse(volume), size, at)
        raise ValueError("not the header of a seed")


def first_link(header: bytes) -> bytes:
    return hashlib.sha256(header).digest()


def next_link(link: bytes, head: bytes) -> bytes:
    """``head`` is a record's length and digest."""
    return hashlib.sha256(link + head).digest()


def pack(chunk: bytes) -> tuple[bytes, bytes]:
    """A chunk as the head of a record, and its body."""
    if chunk == _ZEROS[: len(chunk)]:
        return LENGTH.pack(0), b""
    body = zlib.compress(chunk, 1)
    return LENGTH.pack(len(body)) + hashlib.sha256(chunk).digest(), body


def unpack(head: bytes, body: bytes, size: int) -> bytes:
    """The chunk of ``size`` bytes. Raises ValueError for what `pack` has not made."""
    if len(head) == LENGTH.size:
        return _ZEROS[:size]
    inflater = zlib.decompressobj()
    try:
        chunk = inflater.decompress(body, size)
    except zlib.error as error:
        raise ValueError(f"{error}") from error
    if len(chunk) != size or hashlib.sha256(chunk).digest() != head[LENGTH.size :]:
        raise ValueError("a chunk is not what it was")
    return chunk


def plausible(length: int) -> bool:
    """Whether a body can be so long; what is read is bounded by it."""
    return 0 <= length <= _MOST
