"""What has to outlive a power cut: events, holds, and operations under way.

Standard library only and light: the kernel waits while a handler loads this.
"""

import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from . import files
from .errors import ConfigError
from .model import Forbidden, Hold, Operation

STATE = Path("/var/lib/drbd-offsite")


def now() -> str:
    """This instant, ISO 8601 to the second, UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def record(event: str, resource: str, text: str, **details: object) -> None:
    """Append one event to the journal, on disk when this returns."""
    entry = {"at": now(), "event": event, "resource": resource, "text": text, **details}
    _directory()
    descriptor = os.open(STATE / "events.jsonl", os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        size = os.fstat(descriptor).st_size
        # A power cut may have torn the last line: ours must start on one of its own.
        torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
        os.write(descriptor, (b"\n" if torn else b"") + json.dumps(entry).encode() + b"\n")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def events() -> list[dict[str, Any]]:
    """Every event that can be read, oldest first; torn lines are passed over."""
    found = []
    for line in (files.read(STATE / "events.jsonl") or "").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict):
            found.append(entry)
    return found


def hold(resource: str, reason: str, forbids: frozenset[Forbidden], set_by: str) -> None:
    """Set a hold, beside those that others have set on the resource."""
    entry = {"reason": reason, "forbids": sorted(forbids), "since": now()}
    _write("holds", resource, {**_holds_by_setter().get(resource, {}), set_by: entry})
    record("hold", resource, reason, set_by=set_by)


def lift(resource: str, by: str, set_by: str = "") -> None:
    """Take away the hold that ``set_by`` has set, or all of them; none is no error."""
    found = _holds_by_setter().get(resource, {})
    kept = {setter: entry for setter, entry in found.items() if set_by and setter != set_by}
    if kept == found:
        return
    if kept:
        _write("holds", resource, kept)
    else:
        files.remove(STATE / "holds" / f"{resource}.json")
    record("hold-lifted", resource, f"The hold was lifted by {by}.")


def holds() -> dict[str, Hold]:
    """Holds by resource, those of several setters as one. One that cannot be read still holds, and says so."""
    return {
        name: Hold(
            name,
            "; ".join(entry["reason"] for entry in by_setter.values()),
            frozenset(Forbidden(word) for entry in by_setter.values() for word in entry["forbids"]),
            min(entry["since"] for entry in by_setter.values()),
            ", ".join(by_setter),
        )
        for name, by_setter in _holds_by_setter().items()
    }


def _holds_by_setter() -> dict[str, dict[str, dict[str, Any]]]:
    unknown = {"reason": "the file of a hold cannot be read", "forbids": sorted(Forbidden), "since": ""}
    return {name: entry if _is_hold(entry) else {"?": unknown} for name, entry in _entries("holds").items()}


_FORBIDDEN = frozenset(str(word) for word in Forbidden)


def _is_hold(entry: object) -> bool:
    return (
        isinstance(entry, dict)
        and bool(entry)
        and all(
            isinstance(held, dict)
            and isinstance(held.get("reason"), str)
            and isinstance(held.get("since"), str)
            and isinstance(held.get("forbids"), list)
            and all(word in list(Forbidden) for word in held["forbids"])
            for held in entry.values()
        )
    )


def begin(verb: str, resource: str, parameters: Mapping[str, object]) -> Operation:
    """Put on disk what is about to be done, or what is now known of it."""
    earlier = operations().get(f"{verb}-{resource}")
    operation = Operation(verb, resource, earlier.since if earlier else now(), dict(parameters))
    entry = {"verb": verb, "resource": resource, "since": operation.since, "parameters": operation.parameters}
    _write("operations", operation.key, entry)
    if earlier is None:
        record("operation-begun", resource, f"{verb} was begun.")
    return operation


def end(operation: Operation) -> None:
    files.remove(STATE / "operations" / f"{operation.key}.json")
    record("operation-ended", operation.resource, f"{operation.verb} is complete.")


def operations() -> dict[str, Operation]:
    """Operations under way by key. Raises ConfigError for a file that cannot be understood."""
    found = {}
    for name, entry in _entries("operations").items():
        try:
            found[name] = Operation(entry["verb"], entry["resource"], entry["since"], entry["parameters"])
        except (KeyError, TypeError):
            path = STATE / "operations" / f"{name}.json"
            raise ConfigError(
                f"{path} cannot be understood.", "Look at it; it names an unfinished operation."
            ) from None
    return found


def _entries(kind: str) -> dict[str, Any]:
    found = {}
    for path in sorted((STATE / kind).glob("[!.]*.json")):
        try:
            found[path.stem] = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            continue
        except (OSError, ValueError):
            found[path.stem] = {}
    return found


def _write(kind: str, name: str, entry: Mapping[str, object]) -> None:
    _directory(kind)
    files.write(STATE / kind / f"{name}.json", json.dumps(entry, indent=1) + "\n", 0o600)


def _directory(kind: str = "") -> None:
    (STATE / kind).mkdir(mode=0o700, parents=True, exist_ok=True)
