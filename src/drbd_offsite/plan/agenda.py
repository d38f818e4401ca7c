"""When the watcher looks at which resource. Pure: every instant is an argument, in seconds of any one clock."""

from collections.abc import Iterable

FULL_SECONDS = 60.0
"""Between two looks at everything, whatever was heard."""

SOON_SECONDS = 1.0
"""To the next look at what is waited for and comes without an event."""

GAP_SECONDS = 0.25
"""Between two looks at one resource: events come in bursts, and the first one is answered at once."""

PATIENCE_SECONDS = 10.0
"""From a change in DRBD that nobody here asked for to a look: a person may be at work with drbdadm."""

LONGEST_SECONDS = 600.0
"""Between two tries at what does not help."""


class Agenda:
    """What appears (a volume, an address) is looked at at once, what changes in DRBD with patience.

    A resource that needed help is looked at again to see whether it helped; each time that it did not, the
    pause doubles.
    """

    def __init__(self, names: Iterable[str], now: float) -> None:
        self._at: dict[str, float] = {}
        self._rest: dict[str, float] = {}
        self._stirring: dict[str, float] = {}
        self._urgent: set[str] = set()
        self._looked: dict[str, float] = {}
        self._tries: dict[str, int] = {}
        self._full_at = now
        self._names = set(names)

    def appeared(self, name: str, now: float) -> None:
        """Something that it waited for may be there."""
        self._tries.pop(name, None)
        self._rest.pop(name, None)
        self._put(name, max(now, self._looked.get(name, now - GAP_SECONDS) + GAP_SECONDS))

    def stirred(self, name: str, now: float) -> None:
        """DRBD has changed its state."""
        if name not in self._urgent:
            # What never comes to rest is looked at all the same.
            latest = self._stirring.setdefault(name, now) + max(FULL_SECONDS, self._pause(name))
            self._at[name] = self._rest[name] = min(now + self._pause(name), max(latest, now))

    def looked(self, name: str, now: float, *, helped: bool, soon: bool) -> None:
        """A look has ended; whether it had to act (or failed to), and whether it waits for something."""
        self._at.pop(name, None)
        self._stirring.pop(name, None)
        self._urgent.discard(name)
        self._looked[name] = now
        self._tries[name] = self._tries.get(name, 0) + 1 if helped else 0
        if soon:
            self._put(name, now + SOON_SECONDS)
        elif helped:
            self._at[name] = self._rest[name] = now + self._pause(name)

    def due(self, names: Iterable[str], now: float) -> tuple[str, ...]:
        """Which of the resources are to be looked at now; all but those at rest when a full look is due."""
        self._names = set(names := tuple(names))
        ready = {name for name, at in self._at.items() if at <= now}
        if self.full_look_due(now):
            self._full_at = now + FULL_SECONDS
            ready |= {name for name in self._names if self._rest.get(name, now) <= now}
        return tuple(name for name in names if name in ready)

    def full_look_due(self, now: float) -> bool:
        return self._full_at <= now

    def wait(self, now: float) -> float:
        """Seconds until something is due."""
        return max(0.0, min([self._full_at, *(at for name, at in self._at.items() if name in self._names)]) - now)

    def _put(self, name: str, at: float) -> None:
        self._at[name] = min(at, self._at[name]) if name in self._urgent else at
        self._urgent.add(name)

    def _pause(self, name: str) -> float:
        return min(PATIENCE_SECONDS * 2.0 ** self._tries.get(name, 0), LONGEST_SECONDS)
