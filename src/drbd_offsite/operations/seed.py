"""The first copy carried on a disk: ``export-seed`` on the server, and what ``add --seed`` has the backup do with it.

Nothing of a seed is trusted: the copy stays Inconsistent for DRBD, whose first sync compares checksums of all of it and
sends what differs. The checks here are for the admin, who would otherwise see a long sync where a short one was meant.
"""

import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from .. import durable, files, host, journal, messages
from ..errors import OffsiteError, Refused
from ..host import survey
from ..model import Flavour, Site, VolumeName
from ..observed import DiskState, Host, Operation
from ..plan import guards, restore_point
from ..plan.task import Task
from ..run import run
from ..tools import lvm
from ..tools.seed import (
    CHUNK,
    DIGEST_BYTES,
    END,
    HEADER_BYTES,
    LENGTH,
    Header,
    first_link,
    next_link,
    pack,
    plausible,
    unpack,
)
from .blank import TELL_SECONDS, share

Tell = Callable[[str], None]

EXPORT = "export-seed"

NOTE_BYTES = 256 * 2**20
FILL_SECONDS = 30.0
"""Of a request; what is begun then, `NOTE_BYTES` at most, is brought to its end."""

SEEDED = "seeded"
"""Among the parameters of the backup's operation: how far the seed was written to the volume, how far the file was
read, the link there in hexadecimal, and whether its end was right."""


# -- on the server -----------------------------------------------------------------------------------


def export(site: Site, volume: VolumeName, path: Path, tell: Tell) -> None:
    """Write what is on a volume now to a file, from a snapshot; the volume stays in use.

    Raises Refused, and OffsiteError where the file cannot be written or the volume not be read.
    """
    guards.enforce(guards.flavour(site, Flavour.SERVER, EXPORT))
    # No resource and no volume has a colon in its name: nothing of another group, and no resource, is meant.
    key = f"{volume.group}:{volume.name}"
    snapshot = VolumeName(volume.group, f"{volume.name}_seed")
    with files.lock(f"seed-{key}", 5.0):
        _end_interrupted(volume, snapshot)
        seen = survey(site)
        _exportable(site, seen, volume, path)
        operation = journal.begin(EXPORT, key, {"volume": str(volume), "file": str(path)})
        try:
            _take(seen, volume, snapshot)
            _write(seen, volume, snapshot, path, tell)
        except OSError as error:
            raise OffsiteError(
                f"{volume} could not be exported to {path}: {error.strerror}.",
                "Nothing of the file is left. With room there, and little written to the volume, try again.",
            ) from error
        finally:
            _drop(snapshot)
            journal.end(operation, "has ended")


def _end_interrupted(volume: VolumeName, snapshot: VolumeName) -> None:
    """Whatever may be said against a new one: nothing else can take away what an earlier one has left."""
    for operation in journal.operations().values():
        if operation.verb == EXPORT and operation.parameters.get("volume") == str(volume):
            _drop(snapshot)
            journal.end(operation, "was interrupted")


def _exportable(site: Site, seen: Host, volume: VolumeName, path: Path) -> None:
    """Raises Refused."""
    found = seen.volumes.get(volume)
    if found is None or not found.active:
        raise Refused(f"There is no active volume {volume} on this machine.", f"See 'lvs {volume.group}'.")
    for resource in site.resources.values():
        if resource.here.volume == volume:
            raise Refused(f"{volume} is replicated already, as {resource.name}.", "A seed is for before that.")
    if path.exists():
        raise Refused(f"{path} exists already.", "Choose another name, or remove it.")
    if not path.parent.is_dir():
        raise Refused(f"There is no directory {path.parent}.", "Mount the disk that is to carry the seed there.")


def _take(seen: Host, volume: VolumeName, snapshot: VolumeName) -> None:
    storage = restore_point.Storage(seen.volumes, seen.groups)
    try:
        steps = restore_point.take(storage, volume, snapshot, DiskState.UP_TO_DATE, 0)
    except Refused as refusal:
        raise Refused(
            f"{volume} cannot be read while it is in use, which takes a snapshot. {refusal.message}"
        ) from refusal
    for step in steps:
        run(step.argv, timeout=step.timeout)
    if seen.volumes[volume].pool:
        run(lvm.activate(snapshot))


def _drop(snapshot: VolumeName) -> None:
    found = _storage().volumes.get(snapshot)
    if found is not None and restore_point.TAG in found.tags:
        run(lvm.remove(snapshot), timeout=120.0)


def _storage() -> restore_point.Storage:
    return restore_point.Storage(*lvm.parse_report(run(lvm.REPORT).stdout))


def _write(seen: Host, volume: VolumeName, snapshot: VolumeName, path: Path, tell: Tell) -> None:
    """Raises OSError; then nothing is left of the file."""
    size = seen.volumes[volume].size_bytes
    temporary = path.with_name(f".{path.name}.part")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
    try:
        with os.fdopen(os.open(temporary, flags, 0o600), "wb") as file, _device(snapshot, os.O_RDONLY) as source:
            header = Header(volume, size, journal.now()).line()
            file.write(header)
            link = first_link(header)
            told = time.monotonic()
            for start in range(0, size, CHUNK):
                head, body = pack(_read(source, start, min(CHUNK, size - start)))
                file.write(head + body)
                link = next_link(link, head)
                if time.monotonic() - told >= TELL_SECONDS:
                    told = time.monotonic()
                    tell(f"{volume}: {share(start, size)}")
                    _keep_usable(snapshot)
            file.write(LENGTH.pack(END) + link)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    durable.sync_directory(str(path.parent))


def _read(source: int, start: int, length: int) -> bytes:
    chunk = os.pread(source, length, start)
    if len(chunk) != length:
        raise OSError(0, "the snapshot is shorter than its volume")
    os.posix_fadvise(source, start, length, os.POSIX_FADV_DONTNEED)
    return chunk


def _keep_usable(snapshot: VolumeName) -> None:
    storage = _storage()
    found = storage.volumes.get(snapshot)
    if found is not None and (step := restore_point.grow(storage, found)):
        run(step.argv)


# -- on the backup -----------------------------------------------------------------------------------


def check(request: messages.Replicate) -> None:
    """Before anything is begun. Raises Refused for a file that cannot be the volume's seed."""
    with _opened(request):
        pass


def fill(operation: Operation, request: messages.Replicate) -> Operation:
    """Go on writing a seed to the copy's volume for a bounded time; returns how the operation is now.

    What is noted is on the medium. Raises Refused for a file that is not what it was when it was written; then the next
    request begins anew. Raises OffsiteError where it cannot be read, or the volume not be written.
    """
    task = Task.of(operation)
    where = f"{request.seed} on {os.uname().nodename}"
    if done_bytes(operation) == task.size_bytes:
        return operation
    if task.zeroed_bytes:  # by an earlier request; from here on nobody may count on it
        operation = journal.begin(operation.verb, task.name, {**operation.parameters, "zeroed_bytes": 0})
    try:
        return _go_on(operation, task, request)
    except ValueError as error:
        journal.begin(operation.verb, task.name, {**operation.parameters, SEEDED: None})
        raise Refused(
            f"{where} is not what export-seed wrote: {error}.",
            "Copy it to the disk again and run the same command; or, on the server, "
            f"drbd-offsite remove {task.name}, and add without a seed. Nothing of it is believed.",
        ) from error
    except OSError as error:
        raise OffsiteError(
            f"{where} could not be written to {task.here.volume}: {error.strerror}.",
            "Once that is put right, the same command goes on from here.",
        ) from error


def done_bytes(operation: Operation) -> int:
    """Of the copy's volume, from its start, what holds the seed; all of it only when its end was right too."""
    match operation.parameters.get(SEEDED):
        case [int(done), _, _, whole]:
            return done if whole else min(done, Task.of(operation).size_bytes - 1)
    return 0


def _go_on(operation: Operation, task: Task, request: messages.Replicate) -> Operation:
    size = task.size_bytes
    ends = time.monotonic() + FILL_SECONDS
    with _opened(request) as (file, header), _device(task.here.volume, os.O_WRONLY | os.O_EXCL) as target:
        noted: Any = operation.parameters.get(SEEDED) or [0, len(header), first_link(header).hex(), False]
        done, offset, link = noted[0], noted[1], bytes.fromhex(noted[2])
        file.seek(offset)
        while done < size and time.monotonic() < ends:
            part_ends = min(done + NOTE_BYTES, size)
            while done < part_ends:
                head, chunk = _record(file, min(CHUNK, size - done))
                _put(target, chunk, done)
                link = next_link(link, head)
                done += len(chunk)
            os.fsync(target)
            whole = done == size and _at_end(file, link)
            progress = [done, file.tell(), link.hex(), whole]
            operation = journal.begin(operation.verb, task.name, {**operation.parameters, SEEDED: progress})
    return operation


def _record(file: BinaryIO, size: int) -> tuple[bytes, bytes]:
    """The head of the next record, and its chunk. Raises ValueError."""
    head = file.read(LENGTH.size)
    if len(head) != LENGTH.size:
        raise ValueError("it ends too early")
    (length,) = LENGTH.unpack(head)
    if not plausible(length):
        raise ValueError("it ends too early, or a record is too long")
    if length:
        head += file.read(DIGEST_BYTES)
    return head, unpack(head, file.read(length), size)


def _at_end(file: BinaryIO, link: bytes) -> bool:
    """Raises ValueError."""
    if file.read(LENGTH.size + DIGEST_BYTES + 1) != LENGTH.pack(END) + link:
        raise ValueError("its records are not those that were written, or not in their order")
    return True


def _put(target: int, chunk: bytes, start: int) -> None:
    left = memoryview(chunk)
    while left:
        written = os.pwrite(target, left, start)
        left, start = left[written:], start + written


@contextmanager
def _device(volume: VolumeName, flags: int) -> Iterator[int]:
    descriptor = os.open(host.DEVICES / volume.group / volume.name, flags | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _opened(request: messages.Replicate) -> Iterator[tuple[BinaryIO, bytes]]:
    """The seed, read up to the first record, and its header. Raises Refused for a file that cannot be the one."""
    try:
        _regular(os.lstat(request.seed))  # before it is opened, which does something to a tape or a pipe
        file = os.fdopen(os.open(request.seed, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW), "rb")
    except (OSError, ValueError) as error:
        raise _no_seed(request) from error
    with file:
        try:
            _regular(os.fstat(file.fileno()))
            header = _header(file, request)
        except (OSError, RecursionError, ValueError) as error:
            raise _no_seed(request) from error
        yield file, header


def _regular(found: os.stat_result) -> None:
    """Raises ValueError."""
    if not stat.S_ISREG(found.st_mode):
        raise ValueError("no regular file")


def _no_seed(request: messages.Replicate) -> Refused:
    """The same for every reason: the peer is not told which files there are here."""
    volume = VolumeName.parse(request.server.volume)
    return Refused(
        f"{request.seed} on {os.uname().nodename} is not there, or is not the whole seed of {volume} with "
        f"{guards.mebibytes(request.size_bytes)}.",
        "Mount the disk with the seed on the backup, not below /tmp, and name the file as it is called there, by no "
        "link. If it was not copied as a whole, copy it again; a volume that was enlarged since needs a new one: "
        "drbd-offsite export-seed on the server.",
    )


def _header(file: BinaryIO, request: messages.Replicate) -> bytes:
    """Raises OSError, RecursionError and ValueError for a file that cannot be the volume's seed."""
    line = file.readline(HEADER_BYTES)
    header = Header.parse(line)
    if (header.volume, header.size_bytes) != (VolumeName.parse(request.server.volume), request.size_bytes):
        raise ValueError("the seed of another volume or size")
    file.seek(-min(LENGTH.size + DIGEST_BYTES, file.seek(0, os.SEEK_END)), os.SEEK_END)
    if file.read(LENGTH.size) != LENGTH.pack(END):
        raise ValueError("it has no end")
    file.seek(len(line))
    return line
