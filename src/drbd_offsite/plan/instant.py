"""An instant as a person writes it. Pure: what the time is now is an argument."""

import re
from datetime import UTC, datetime, timedelta

_SPANS = {"s": "seconds", "min": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def parse(text: str, now: datetime) -> datetime:
    """``2026-11-22T12:00``, ``2026-11-22`` (its midnight), or a span before ``now``: ``30min``, ``2h``, ``7d``.

    What names no zone is UTC, as the journal is. Raises ValueError for anything else.
    """
    span = re.fullmatch(r"(\d+) ?(s|min|h|d|w)", text, re.ASCII)
    try:
        if span is not None:
            return now - timedelta(**{_SPANS[span[2]]: int(span[1])})
        instant = datetime.fromisoformat(text)
        return instant.astimezone(UTC) if instant.tzinfo else instant.replace(tzinfo=UTC)
    except OverflowError as error:
        raise ValueError(f"{text!r} is before the first year") from error
