"""Runs on a machine of the lab: load_guest.py DIRECTORY BYTES_A_SECOND SECONDS. What came of it is printed as JSON.

Pieces of 64 KiB one after the other into a file as large as the free space, each on the disk before the next.
"""

import json
import os
import sys
import time

PIECE = 65536


def main(directory: str, rate: float, seconds: float) -> None:
    space = os.statvfs(directory)
    room = max(space.f_bavail * space.f_frsize - (8 << 20), 16 * PIECE) // PIECE
    file = os.open(f"{directory}/load", os.O_RDWR | os.O_CREAT, 0o600)
    data = os.urandom(PIECE)
    begin = time.monotonic()
    written, longest = 0, 0.0
    while (now := time.monotonic()) < begin + seconds:
        if written * PIECE > (now - begin) * rate:
            time.sleep(0.005)
            continue
        os.pwrite(file, data, written % room * PIECE)
        os.fdatasync(file)
        longest = max(longest, time.monotonic() - now)
        written += 1
    print(json.dumps({"bytes": written * PIECE, "longest_write_seconds": round(longest, 3)}))


main(sys.argv[1], float(sys.argv[2]), float(sys.argv[3]))
