"""What has to outlive a power cut: events, holds, and operations under way."""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from . import durable, files
from .errors import ConfigError
from .observed import Forbidden, Hold, Operation

STATE = Path("/var/lib/drbd-offsite")
VOLATILE = Path("/run/drbd-offsite")
"""Where a handler sets its holds when it cannot do so in `STATE`."""

EVENTS = "events.jsonl"
EVENTS_BYTES = 4 * 2**20
"""A full file becomes the one before; the one before that is gone."""
EVENTS_BEFORE = f"{EVENTS}.1"


HISTORY = "history"
"""A kind of which a resource has a database too, beside what is remembered (tools/rrdtool.py)."""


def now() -> str:
    """This instant, ISO 8601 to the second, UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def record(event: str, resource: str, text: str, **details: object) -> None:
    """Append one event to the journal, on disk when this returns."""
    entry = {"at": now(), "event": event, "resource": resource, "text": text, **details}
    _directory()
    durable.append(str(STATE / EVENTS), json.dumps(entry).encode())
    if _full():
        with files.lock("journal", 5.0):
            if _full():
                (STATE / EVENTS).replace(STATE / EVENTS_BEFORE)


def _full() -> bool:
    try:
        return (STATE / EVENTS).stat().st_size > EVENTS_BYTES
    except FileNotFoundError:  # another process has just moved it away
        return False


def events() -> list[dict[str, Any]]:
    """Every event that can be read, oldest first; torn lines are passed over."""
    lines = [line for name in (EVENTS_BEFORE, EVENTS) for line in (files.read(STATE / name) or "").splitlines()]
    return [entry for entry in map(event, lines) if entry is not None]


def event(line: str) -> dict[str, Any] | None:
    """The event of one line of the journal; None for a line that is none."""
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None


# Holds: a file for each resource and each of those that hold it, so that nobody has to read another's. A "+" is in
# no resource's name. The handlers write such files too, without this module (handler.py).


def hold(resource: str, reason: str, forbids: frozenset[Forbidden], set_by: str) -> None:
    """Set a hold, or say anew why it is there; one that forbids nothing is a remark for a person."""
    earlier = next((h for h in holds().get(resource, ()) if h.set_by == set_by and h.since), None)
    if earlier and (earlier.reason, earlier.forbids) == (reason, forbids):
        return
    entry = {"reason": reason, "forbids": sorted(forbids), "since": earlier.since if earlier else now()}
    _write("holds", _hold_name(resource, set_by), entry)
    record("hold" if forbids else "remark", resource, reason, set_by=set_by)


def lift(resource: str, by: str, set_by: str = "") -> None:
    """Take away what ``set_by`` has set, or all of it; nothing is no error."""
    for found in holds().get(resource, ()):
        if set_by in ("", found.set_by):
            for place in (STATE, VOLATILE):
                files.remove(place / "holds" / f"{_hold_name(resource, found.set_by)}.json")
            record("hold-lifted", resource, f"Lifted by {by}: {found.reason}", set_by=found.set_by)


def carry_over(resource: str, to: str, kinds: Iterable[str]) -> None:
    """Set the holds of a resource under another name too, as old as they are; what is remembered of it moves there."""
    for held in holds().get(resource, ()):
        entry = {"reason": held.reason, "forbids": sorted(held.forbids), "since": held.since}
        _write("holds", _hold_name(to, held.set_by), entry)
    if HISTORY in kinds:
        with suppress(FileNotFoundError):
            history(resource).replace(history(to))
    for kind in kinds:
        if known := remembered(kind).get(resource):
            remember(kind, to, known)
        forget(kind, resource)


def holds() -> dict[str, tuple[Hold, ...]]:
    """Holds by resource. One that cannot be read holds everything, and says so."""
    found: dict[tuple[str, str], Hold] = {}
    for place in (VOLATILE, STATE):
        for name, entry in _entries(place / "holds"):
            resource, _, set_by = name.partition("+")
            found[resource, set_by] = _hold(resource, set_by, entry)
    by_resource: dict[str, tuple[Hold, ...]] = {}
    for held in sorted(found.values(), key=lambda h: h.since):
        by_resource[held.resource] = (*by_resource.get(held.resource, ()), held)
    return by_resource


def _hold_name(resource: str, set_by: str) -> str:
    """Of its file; one that names nobody is not ours, and holds all the same."""
    return f"{resource}+{set_by}" if set_by else resource


def _hold(resource: str, set_by: str, entry: object) -> Hold:
    match entry:
        case {"reason": str(reason), "since": str(since), "forbids": list(words)} if _forbidden(words):
            return Hold(resource, reason, frozenset(map(Forbidden, words)), since, set_by)
    return Hold(resource, "the file of a hold cannot be read", frozenset(Forbidden), "", set_by)


def _forbidden(words: list[object]) -> bool:
    return all(word in list(Forbidden) for word in words)


def begin(verb: str, resource: str, parameters: Mapping[str, object]) -> Operation:
    """Put on disk what is about to be done, or what is now known of it.

    Raises ConfigError where an earlier note of it cannot be understood.
    """
    path = STATE / "operations" / f"{verb}-{resource}.json"
    known, not_understood = operation_files()
    if str(path) in not_understood:
        raise ConfigError(f"{path} cannot be understood.", "Look at it; it names an unfinished operation.")
    earlier = known.get(f"{verb}-{resource}")
    operation = Operation(verb, resource, earlier.since if earlier else now(), dict(parameters))
    entry = {"verb": verb, "resource": resource, "since": operation.since, "parameters": operation.parameters}
    _write("operations", operation.key, entry)
    if earlier is None:
        record("operation-begun", resource, f"{verb} was begun.")
    return operation


def end(operation: Operation, how: str = "is complete") -> None:
    files.remove(STATE / "operations" / f"{operation.key}.json")
    record("operation-ended", operation.resource, f"{operation.verb} {how}.")


def operations() -> dict[str, Operation]:
    """Operations under way by key; those that cannot be understood are not in it."""
    return operation_files()[0]


def operation_files() -> tuple[dict[str, Operation], list[str]]:
    """`operations`, and the files of those that cannot be understood."""
    found = {name: _operation(entry) for name, entry in _entries(STATE / "operations")}
    readable = {name: operation for name, operation in found.items() if operation is not None}
    return readable, [str(STATE / "operations" / f"{name}.json") for name in found if name not in readable]


def by_any_name(names: Iterable[str]) -> set[str]:
    """With the other name of what is being renamed: one machine may have done so and the other not yet."""
    found = set(names)
    for operation in operations().values():
        both = {operation.resource, str(operation.parameters.get("new", operation.resource))}
        found |= both if both & found else set()
    return found


def _operation(entry: object) -> Operation | None:
    match entry:
        case {"verb": str(verb), "resource": str(resource), "since": str(since), "parameters": dict(parameters)}:
            return Operation(verb, resource, since, parameters)
    return None


def remember(kind: str, name: str, what: Mapping[str, object]) -> None:
    """Keep something small that later runs want to know and can do without."""
    _write(kind, name, what)


def remembered(kind: str) -> dict[str, dict[str, Any]]:
    """What `remember` has kept, by name; what cannot be read is not in it."""
    return {name: entry for name, entry in _entries(STATE / kind) if isinstance(entry, dict)}


def forget(kind: str, name: str) -> None:
    files.remove(STATE / kind / f"{name}.json")


def history(resource: str) -> Path:
    return STATE / HISTORY / f"{resource}.rrd"


def _entries(directory: Path) -> Iterator[tuple[str, object]]:
    for path in sorted(directory.glob("[!.]*.json")):
        try:
            yield path.stem, _entry(path)
        except FileNotFoundError:
            continue


def _entry(path: Path) -> object:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise
    except (OSError, ValueError):
        return None


def _write(kind: str, name: str, entry: Mapping[str, object]) -> None:
    _directory(kind)
    files.write(STATE / kind / f"{name}.json", json.dumps(entry, indent=1) + "\n", 0o600)


def _directory(kind: str = "") -> None:
    (STATE / kind).mkdir(mode=0o700, parents=True, exist_ok=True)
