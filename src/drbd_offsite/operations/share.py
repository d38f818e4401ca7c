"""A look at the copy here that the peer may read: rsync serves its files through a socket, read-only.

The service that answers the peer can mount nothing, so a unit of its own has the look; the bytes come through that
service all the same, for it is what sshd runs for the peer's key (`relay`).
"""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .. import files, messages, protocol
from ..errors import Refused, ToolFailed
from ..host import observe
from ..model import Resource, Site
from ..plan.look import Verdict
from ..run import between, run
from ..tools import filesystem, rsync, systemd
from . import deputy, inspect
from .inspect import Look

DIRECTORY = Path("/run/drbd-offsite/files")

ANSWERS = "files-answers"
"""Why a copy could not be shared."""

LABEL = "comparison"

IDLE_SECONDS = 600.0
"""A peer that is gone cannot say that it needs it no more."""

LONGEST_SECONDS = 24 * 3600.0
"""Of a comparison, and of a look that is being made: a filesystem may have many files."""

FLUSH_SECONDS = 600.0

STOP_SECONDS = 330.0
"""A little more than the unit has (TimeoutStopSec)."""

_CHUNK = 65536

Tell = Callable[[str], None]


def answer(site: Site, requester: str, request: messages.Share | messages.Unshare) -> messages.Done:
    """What the peer asks for. Raises BadRequest for a resource that is not shared with that peer, Refused."""
    name = protocol.resource_of(site, requester, request.name).name
    unit = systemd.files_unit(name)
    if isinstance(request, messages.Share):
        # Not "start": what an earlier comparison has left would be as old as that.
        deputy.have("restart", unit, ANSWERS, name, f"A look at {name}", LONGEST_SECONDS)
    else:
        deputy.have("stop", unit, ANSWERS, name, f"The end of a look at {name}", STOP_SECONDS)
    return messages.Done()


def share(site: Site, resource: Resource, tell: Tell, ready: Callable[[], None]) -> None:
    """In that unit: a look at the copy as it is now, until nobody has read of it for a while.

    Raises as `inspect.opened` does, and Refused where it cannot be mounted.
    """
    with deputy.leaving_word(ANSWERS, resource.name):
        installed(site)
        with looked_into(site, resource, tell) as look:
            directory = mounted(site, look)
            DIRECTORY.mkdir(mode=0o700, parents=True, exist_ok=True)
            config = DIRECTORY / f"{resource.name}.conf"
            with _listening(_address(resource.name)) as listener:
                files.write(config, rsync.daemon_config(str(directory)), 0o600)
                try:
                    ready()
                    _serve(listener, rsync.daemon(str(config)), tell)
                finally:
                    files.remove(config)


@contextmanager
def looked_into(site: Site, resource: Resource, tell: Tell) -> Iterator[Look]:
    """`inspect.opened`, with what is written to it here until now where it is mounted: a snapshot of the volume below
    DRBD has nothing of what is in memory only.
    """
    for target in observe(site).mounted_at(resource.here.minor):
        run(filesystem.flush_mounted(target), timeout=FLUSH_SECONDS)
    with inspect.opened(site, resource, LABEL, tell) as look:
        yield look


def installed(site: Site) -> None:
    """Raises ToolFailed on a machine without rsync."""
    try:
        run(rsync.VERSION)
    except ToolFailed as error:
        raise ToolFailed(
            f"The {site.flavour} cannot compare files: {error.message}", f"On the {site.flavour}: apt install rsync"
        ) from error


def mounted(site: Site, look: Look) -> Path:
    """Where it is. Raises Refused for one that could not be mounted."""
    if look.directory is None:
        why = " ".join(check.text for check in look.checks if check.verdict is not Verdict.GOOD)
        raise Refused(
            f"The files of {look.resource} on the {site.flavour} cannot be looked at: {why}",
            "Nothing was changed. Where its filesystem is damaged, see to that first.",
        )
    return look.directory


def _address(name: str) -> Path:
    return DIRECTORY / f"{name}.sock"


@contextmanager
def _listening(path: Path) -> Iterator[socket.socket]:
    path.unlink(missing_ok=True)  # of one that was killed
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        try:
            path.chmod(0o600)
            listener.listen()
            listener.settimeout(IDLE_SECONDS)
            yield listener
        finally:
            path.unlink(missing_ok=True)


def _serve(listener: socket.socket, argv: tuple[str, ...], tell: Tell) -> None:
    """One connection after the other, until none has come for so long."""
    while True:
        try:
            connection, _ = listener.accept()
        except TimeoutError:
            return
        with connection:
            try:
                between(argv, connection.fileno(), timeout=LONGEST_SECONDS)
            except ToolFailed as error:  # above all: the peer has gone in the middle of it
                tell(error.message)


def relay(site: Site, requester: str, name: str, source: int, sink: int) -> None:
    """The peer's bytes from ``source`` to the rsync that serves its look, and the answer to ``sink``, to the end.

    Raises BadRequest for a resource that is not shared with that peer, Refused where nothing is shared now.
    """
    protocol.resource_of(site, requester, name)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            connection.connect(str(_address(name)))
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise Refused(f"No look at {name} is shared by the {site.flavour} now.", "Run it again.") from error
        # The two directions must not wait for each other; that one ends with the process.
        threading.Thread(target=_inwards, args=(source, connection), daemon=True).start()
        with suppress(BrokenPipeError, ConnectionResetError):  # either side may go at any time
            while data := connection.recv(_CHUNK):
                _write(sink, data)


def _inwards(source: int, connection: socket.socket) -> None:
    with suppress(OSError):  # the other direction has its end too
        while data := os.read(source, _CHUNK):
            connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)


def _write(sink: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(sink, left) :]
