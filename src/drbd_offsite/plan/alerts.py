"""Who is told when: from what is wrong now and what has been said before to the messages that are due. Pure.

A condition is told of once when it has lasted as long as it has to, again when it gets worse, and again every
so many hours. It is over, and is said to be, when it has not been seen for `SETTLED`: one that comes and goes
faster than that is a single one that lasts.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from .assess import duration
from .condition import Condition

SETTLED = timedelta(minutes=5)


class Kind(StrEnum):
    """Why a message is sent. The words are an interface: scripts in alert.d get them."""

    RAISED = "raised"
    REMINDER = "reminder"
    CLEARED = "cleared"
    TEST = "test"


@dataclass(frozen=True, slots=True)
class Message:
    kind: Kind
    key: str
    """The condition's; "test" for a test."""
    subject: str
    text: str
    at: str
    """ISO 8601, UTC."""


@dataclass(frozen=True, slots=True)
class _Known:
    """What is remembered of a condition."""

    subject: str
    level: int
    """The worst that was said."""
    first: datetime
    sent: datetime | None = None
    """The last message; None as long as nobody was told."""
    gone: datetime | None = None
    """Since when it is not seen; None while it is."""


def decide(
    found: Iterable[Condition],
    memory: Mapping[str, Any],
    now: datetime,
    *,
    remind: timedelta,
    boot: str,
    sure: bool = True,
) -> tuple[tuple[Message, ...], dict[str, Any]]:
    """The messages that are due, and what to remember (JSON) for the next call.

    ``boot`` names this run of the machine: while it was off it could not see whether something lasted, so what
    nobody was told of begins anew. Without ``sure`` what is not found is not over.
    """
    known = _recall(memory, boot, now)
    messages: list[Message | None] = []
    kept: dict[str, _Known] = {}
    for condition in found:
        before = known.pop(condition.key, None) or _Known(condition.subject, condition.level, now)
        if condition.muted:
            continue  # and forgotten: it is not over
        message = _due(condition, before, now, remind)
        messages.append(message)
        level = max(condition.level, before.level)
        kept[condition.key] = _Known(condition.subject, level, before.first, now if message else before.sent)
    for key, before in known.items():
        gone = before.gone or now
        if not sure:
            kept[key] = before
        elif before.sent is not None and now - gone < SETTLED:
            kept[key] = _Known(before.subject, before.level, before.first, before.sent, gone)
        elif before.sent is not None:
            messages.append(_all_clear(key, before, gone, now))
    return tuple(filter(None, messages)), _remember(kept, boot)


def _due(condition: Condition, before: _Known, now: datetime, remind: timedelta) -> Message | None:
    if before.sent is None:
        if now - before.first < condition.patience:
            return None
    elif condition.level <= before.level:
        if now - before.sent < remind:
            return None
        lasted = duration(int((now - before.first).total_seconds()))
        text = f"It is still so, since {_text(before.first)} ({lasted}).\n\n{condition.text}"
        return Message(Kind.REMINDER, condition.key, f"Reminder: {condition.subject}", text, _text(now))
    text = f"{condition.text}Seen first: {_text(before.first)}\n"
    return Message(Kind.RAISED, condition.key, condition.subject, text, _text(now))


def _all_clear(key: str, before: _Known, gone: datetime, now: datetime) -> Message:
    lasted = duration(int((gone - before.first).total_seconds()))
    text = (
        f"It is over since {_text(gone)}: {before.subject}. It was seen first at {_text(before.first)} and lasted "
        f"{lasted}.\n\nNothing has to be done about it any more. How everything is now: drbd-offsite status\n"
    )
    return Message(Kind.CLEARED, key, f"Over: {before.subject}", text, _text(now))


def _recall(memory: Mapping[str, Any], boot: str, now: datetime) -> dict[str, _Known]:
    entries = memory.get("known")
    if not isinstance(entries, dict):
        return {}
    found = {key: known for key, entry in entries.items() if (known := _known(entry, now))}
    same = memory.get("boot") == boot
    return {key: known for key, known in found.items() if same or known.sent is not None}


def _known(entry: object, now: datetime) -> _Known | None:
    """None for what cannot be understood: the worst is that somebody is told twice."""
    match entry:
        case {"subject": str(subject), "level": int(level), "first": str(first), "sent": str(sent), "gone": str(gone)}:
            try:
                instants = [_instant(text, now) for text in (first, sent, gone)]
            except (ValueError, TypeError):  # no instant, or one without a zone
                return None
            return _Known(subject, level, instants[0] or now, *instants[1:])
    return None


def _instant(text: str, now: datetime) -> datetime | None:
    """None for an empty text. A clock that was ahead and has been set must not make anybody wait for it."""
    return min(datetime.fromisoformat(text), now) if text else None


def _remember(known: Mapping[str, _Known], boot: str) -> dict[str, Any]:
    entries = {
        key: {
            "subject": entry.subject,
            "level": entry.level,
            "first": _text(entry.first),
            "sent": _text(entry.sent),
            "gone": _text(entry.gone),
        }
        for key, entry in known.items()
    }
    return {"boot": boot, "known": entries} if entries else {}


def _text(instant: datetime | None) -> str:
    return instant.isoformat(timespec="seconds") if instant else ""
