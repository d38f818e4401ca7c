"""Runs on the machine that serves: numbered records, each on the disk before the next, and each said to be.

    history_guest.py write DIRECTORY [FIRST]    until it is killed, or /run/history-stop is there
    history_guest.py read DIRECTORY             prints the numbers of the records that are whole, as ranges

A record goes to the next of several files, so that what is there of one says nothing of the others. What was written
is said on the serial console, which is outside of the machine: "history N SECONDS" comes after fdatasync has returned,
with the time since the epoch.
"""

import os
import sys
import time
import zlib
from pathlib import Path

FILES = 8
RECORD = 512
PREALLOCATED = 4 << 20
STOP = Path("/run/history-stop")


def record(number: int) -> bytes:
    body = number.to_bytes(8, "big") + bytes((number * 31 + i) & 0xFF for i in range(RECORD - 12))
    return body + zlib.crc32(body).to_bytes(4, "big")


def place(number: int) -> tuple[int, int]:
    return number % FILES, number // FILES * RECORD


def write(directory: str, first: int) -> None:
    files = [os.open(f"{directory}/history-{i}", os.O_RDWR | os.O_CREAT, 0o600) for i in range(FILES)]
    for file in files:
        if os.fstat(file).st_size < PREALLOCATED:
            os.ftruncate(file, PREALLOCATED)
            os.fsync(file)
    console = os.open("/dev/ttyS0", os.O_WRONLY | os.O_NOCTTY)
    number = first
    while not STOP.exists():
        file, offset = place(number)
        os.pwrite(files[file], record(number), offset)
        os.fdatasync(files[file])
        os.write(console, f"history {number} {time.time():.2f}\n".encode())
        number += 1


def read(directory: str) -> None:
    paths = [Path(f"{directory}/history-{i}") for i in range(FILES)]
    contents = [path.read_bytes() if path.exists() else b"" for path in paths]  # one that is missing has no record
    found = []
    for number in range(PREALLOCATED // RECORD * FILES):
        file, offset = place(number)
        piece = contents[file][offset : offset + RECORD]
        if number and piece == record(number):
            found.append(number)
        elif any(piece) and piece != record(number):
            print("torn", number)
    ranges: list[list[int]] = []
    for number in found:
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    for low, high in ranges:
        print(low, high)


if __name__ == "__main__":
    if sys.argv[1] == "write":
        write(sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 1)
    else:
        read(sys.argv[2])
