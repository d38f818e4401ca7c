"""What is remembered of a resource beside what is seen of it: how it has fared over time."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class LastDrill:
    """What is known of a resource's drills."""

    at: str
    """When the last one began (ISO 8601, UTC); empty as long as there was none."""
    outcome: str
    reason: str
    passed: str
    """When the last one began that has passed; empty for none."""
    unproven_seconds: float
    """For how long it has passed none; from when it was first seen, where there was none."""


@dataclass(frozen=True, slots=True)
class Overload:
    """More is written to a resource than its line takes."""

    since: str
    """ISO 8601, UTC."""
    turns: int
    """How often the server has gone ahead of the backup."""
    last: str
    """When it did so last; as ``since``."""

    @property
    def lasting(self) -> bool:
        """No burst: it has gone ahead again as soon as it tried to catch up, and that more than once."""
        return self.turns > 2


@dataclass(frozen=True, slots=True)
class Round:
    """How far the slices of ``[verify]`` have come with a resource (plan/slices.py)."""

    first: datetime
    """From when on whole rounds are waited for."""
    since: datetime | None = None
    """When the round has begun that is not whole yet; None between two."""
    covered: int = 0
    """Sectors of 512 bytes, from the volume's beginning, that it has compared."""
    ended: datetime | None = None
    """When the last whole one has ended."""
    broken_off: int = 0
    """How often the next slice was."""
    broken_off_at: datetime | None = None
    unproven_seconds: float = 0.0
    """For how long, at the time of the look, no whole one has ended."""


@dataclass(frozen=True, slots=True)
class Averages:
    """Bytes a second, out of the history of a resource; None where it does not know."""

    written_minute: float | None = None
    """Put on the device by its users, on the machine that serves: over the last minute, hour and day. Of the latter
    two, at least half has to be known.
    """
    written_hour: float | None = None
    written_day: float | None = None
    carried: float | None = None
    """The most that has gone through the line in one minute of the last day."""


@dataclass(frozen=True, slots=True)
class Rates:
    """Bytes a second, as the watcher has found them at its last full look."""

    averages: Averages = Averages()
    drained: float | None = None
    """By so much what is outstanding got less over the last minutes; negative where it grew."""
