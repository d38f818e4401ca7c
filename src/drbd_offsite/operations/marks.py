"""Up to when the other machine has everything: it is told of marks in the stream of writes, and says which came."""

import time
from collections.abc import Callable

from .. import journal, messages, peer, protocol
from ..errors import OffsiteError, ToolFailed
from ..host import COMPLETE, observe
from ..model import Peer, Site
from ..observed import Host
from ..plan import marks as plan
from ..run import Dialogue, run
from ..tools import sockets
from ..tools.sockets import Socket

MARK_SECONDS = 10.0
"""From one mark to the next: what is said may be so much too old, and never too new."""
ANSWER_SECONDS = 15.0
AGAIN_SECONDS = 300.0
"""After an answer that says no: the other machine may have an older version."""

Tell = Callable[[str], None]


class Line:
    """To one peer, as long as there is anything to ask."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._dialogue: Dialogue | None = None
        self._waiting: tuple[plan.Mark, ...] = ()
        self._not_before = 0.0
        self._told = ""

    def ask(self, site: Site, peer: Peer, at: str, host: Host, open_now: tuple[Socket, ...]) -> None:
        """Send a mark of each resource that this machine serves, and note which the peer has passed."""
        served = (r for r in site.resources.values() if r.peer == peer.name and plan.complete(host.drbd.get(r.name)))
        made = filter(None, (plan.make(site, resource, at, open_now) for resource in served))
        self._waiting = plan.waiting((*self._waiting, *made), {}, open_now)
        if not self._waiting:
            self.close()
        elif time.monotonic() >= self._not_before:
            try:
                passed = self._passed(site, peer)
            except OffsiteError as error:
                self.close()
                if not isinstance(error, ToolFailed):
                    self._not_before = time.monotonic() + AGAIN_SECONDS
                self._say(f"{peer.name} does not say what it has: {error.message}")
            else:
                self._say("")
                _note(site, peer.name, passed)
                self._waiting = plan.waiting(self._waiting, passed, open_now)

    def close(self) -> None:
        if self._dialogue is not None:
            self._dialogue.close()
            self._dialogue = None

    def _passed(self, site: Site, there: Peer) -> dict[str, str]:
        if self._dialogue is None:
            self._dialogue = Dialogue(peer.lines(site, there))
        request = protocol.encode_request(messages.Marks(list(map(_to_wire, self._waiting))))
        answer = protocol.decode_answer(messages.Passed, self._dialogue.ask(request, ANSWER_SECONDS))
        return {complete.resource: complete.at for complete in answer.complete}

    def _say(self, text: str) -> None:
        if text and text != self._told:
            self._tell(text)
        self._told = text


def look(site: Site) -> tuple[str, Host, tuple[Socket, ...]]:
    """An instant, and after it how the resources stand and how much is in their connections; by two programs."""
    at = journal.now()
    return at, observe(site), _sockets(site)


def pass_by(site: Site, requester: str, request: messages.Marks) -> messages.Passed:
    """Which of the peer's marks this machine has passed. Of a resource that the two do not share it says nothing: one
    that is being renamed has for a moment two names.
    """
    shared = {resource.name for resource in site.resources.values() if resource.peer == requester}
    open_now = _sockets(site)
    marks = (_from_wire(mark) for mark in request.marks if mark.resource in shared)
    passed = {mark.resource: mark.at for mark in marks if plan.passed(mark, open_now)}
    _note(site, requester, passed)
    return messages.Passed([messages.Complete(name, at) for name, at in passed.items()])


def _sockets(site: Site) -> tuple[Socket, ...]:
    ports = {half.port for resource in site.resources.values() for half in (resource.here, resource.there)}
    return sockets.parse(run(sockets.established(ports)).stdout) if ports else ()


def _note(site: Site, peer: str, passed: dict[str, str]) -> None:
    known = journal.remembered(COMPLETE).get(peer, {})
    still = {name: at for name, at in known.items() if name in site.resources}
    if still | passed != known:
        journal.remember(COMPLETE, peer, still | passed)


def _to_wire(mark: plan.Mark) -> messages.Mark:
    places = [messages.Place(place.local, place.remote, place.written_bytes) for place in mark.places]
    return messages.Mark(mark.resource, mark.at, places)


def _from_wire(mark: messages.Mark) -> plan.Mark:
    places = tuple(plan.Place(place.local, place.remote, place.written_bytes) for place in mark.places)
    return plan.Mark(mark.resource, mark.at, places)
