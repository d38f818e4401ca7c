"""``measure-link`` on the server, and the backup's part in it: how fast the line between them is, through the tunnel.

The bytes go through the ssh that every request takes, so nothing else listens and nobody else is let in. All of it
ends with that connection, at whichever machine it is cut.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict

from .. import files, journal, messages, peer, protocol
from ..errors import BadRequest, PeerUnreachable, Refused, ToolFailed, UsageError
from ..model import Flavour, Peer, Site
from ..plan import guards
from ..plan import measure as plan
from ..plan.measure import Measured
from ..run import Dialogue
from . import compare, flow
from .tune import look

LOCK_SECONDS = 5.0
"""What has just been measured may still be ending."""

ANSWER_SECONDS = 60.0
"""Until it agrees: the connection, and its look at its own resources."""

COUNTED_SECONDS = flow.SECONDS + flow.SILENCE_SECONDS
"""After the last byte was sent: it may be a while until that has arrived."""

Progress = Callable[[str, float, int], None]
"""Is told again and again which way it goes, how many seconds have passed, and how many bytes were moved."""

_ANEW = "Run it again when that is over; drbd-offsite status shows how far it is."


def chosen(site: Site, name: str) -> Peer:
    """The named peer, or the only one. Raises UsageError, Refused."""
    if name and name not in site.peers:
        raise UsageError(f"There is no peer {name}.", f"There is: {', '.join(site.peers) or 'none'}.")
    if not name and len(site.peers) != 1:
        raise UsageError("The configuration does not have exactly one peer.", f"Say which: {', '.join(site.peers)}.")
    found = site.peers[name or next(iter(site.peers))]
    if not found.enrolled:
        raise Refused(f"{found.name} is not enrolled yet, so there is no line to it.", "drbd-offsite invite")
    return found


def measure(site: Site, to: Peer, progress: Progress) -> Measured:
    """Both directions and the round trip; also kept for `doctor`.

    Raises Refused where the line is needed for something else, also by the peer, PeerUnreachable, BadRequest.
    """
    guards.enforce(guards.flavour(site, Flavour.SERVER, "measure-link"))
    with _alone(site, to):
        _free(site, to)
        with _line(site, to, gives=False) as line:
            trip = flow.round_trip(line.source, line.sink)
            there = _there(line, lambda *far: progress(f"to {to.name}", *far))
        with _line(site, to, gives=True) as line:
            trip = min(trip, flow.round_trip(line.source, line.sink))
            here = flow.receive(line.source, lambda *far: progress(f"from {to.name}", *far))
        if needed := plan.busy(site, look(site), to.name):
            raise Refused(f"What was measured is worth nothing: by now {needed}.", f"Nothing was changed. {_ANEW}")
    found = Measured(
        journal.now(), plan.mbit(there.size_bytes, there.seconds), plan.mbit(here.size_bytes, here.seconds), trip
    )
    journal.remember(plan.KIND, to.name, asdict(found))
    journal.record(
        "link-measured",
        "",
        f"{plan.rounded(found.there)} Mbit/s to {to.name}, {plan.rounded(found.here)} Mbit/s from it.",
    )
    return found


def _there(line: Dialogue, progress: flow.Progress) -> flow.Counted:
    """What has arrived of what is sent, as the peer has counted it."""
    sent = flow.send(line.sink, line.source, progress)
    line.end()
    said = protocol.decode_answer(messages.Arrived, line.hear(COUNTED_SECONDS))
    if said.size_bytes > sent:
        raise BadRequest("The peer says that more has arrived than was sent.")
    return flow.Counted(said.size_bytes, said.microseconds / 1_000_000)


@contextmanager
def _line(site: Site, to: Peer, *, gives: bool) -> Iterator[Dialogue]:
    """To a peer that has agreed. Raises the peer's own error, PeerUnreachable."""
    try:
        with closing(Dialogue(peer.measuring(site, to, gives=gives))) as line:
            protocol.decode_answer(messages.Agreed, line.hear(ANSWER_SECONDS))
            yield line
    except (ToolFailed, ConnectionError) as error:
        raise PeerUnreachable(
            f"The line to {to.name} could not be measured: {error}",
            "Nothing was changed. See whether the tunnel is up (drbd-offsite status), and whether both machines have "
            "the same version of drbd-offsite; then run the same command again.",
        ) from error


def take_part(site: Site, requester: str, source: int, sink: int, *, gives: bool) -> Iterator[messages.Answer]:
    """The backup's part: what it answers, and the bytes between the answers, which it gives, or takes and counts.

    How long and how much that is no peer decides (`flow`). Raises Refused, ToolFailed, ConnectionError.
    """
    guards.enforce(guards.flavour(site, Flavour.BACKUP, "measuring for a peer"))
    asking = site.peers[requester]
    with _alone(site, asking):
        _free(site, asking)
        yield messages.Agreed()
        flow.echo(source, sink)
        if gives:
            flow.send(sink)
        else:
            counted = flow.receive(source)
            yield messages.Arrived(counted.size_bytes, max(1, round(counted.seconds * 1_000_000)))


def _free(site: Site, to: Peer) -> None:
    if needed := plan.busy(site, look(site), to.name):
        raise Refused(
            f"The line is not measured now: {needed}. The figure would be wrong, and the data would get less of the "
            "line.",
            _ANEW,
        )


@contextmanager
def _alone(site: Site, to: Peer) -> Iterator[None]:
    """No files go through the line, and nobody else measures it. Raises Refused."""
    with ExitStack() as held:
        held.enter_context(files.lock(f"measure-{to.name}", LOCK_SECONDS))
        for resource in site.resources.values():
            if resource.peer == to.name:
                held.enter_context(files.lock(compare.lock(resource.name), LOCK_SECONDS))
        yield
