"""What the service that answers the peer may not do itself: a unit of its own does it, and leaves word of a failure."""

from collections.abc import Iterator
from contextlib import contextmanager

from .. import journal
from ..errors import OffsiteError, Refused, ToolFailed
from ..run import run
from ..tools import systemd


def have(command: str, unit: str, kind: str, name: str, what: str, seconds: float) -> None:
    """Have a unit started. Raises Refused with the word that it has left (`journal.remembered`), ToolFailed."""
    journal.forget(kind, name)
    done = run(systemd.systemctl(command, unit), timeout=seconds, accept=None)
    said = journal.remembered(kind).get(name)
    if said and said.get("error"):
        raise Refused(str(said["error"]), str(said.get("hint", "")))
    if done.returncode:
        raise ToolFailed(f"{what} failed on the peer: {done.complaint}")


@contextmanager
def leaving_word(kind: str, name: str) -> Iterator[None]:
    """In that unit: what goes wrong is for whoever has had it started."""
    try:
        yield
    except OffsiteError as error:
        journal.remember(kind, name, {"error": error.message, "hint": error.hint})
        raise
