"""The fields of a message, each with what it may hold, and reading one that has arrived."""

import dataclasses
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from .errors import BadRequest

_A = TypeVar("_A")

# Any, because a field's declared type is the checker's business and its value never this function's result.


def checked(check: Callable[[Any], object], default: Any = dataclasses.MISSING) -> Any:
    """A default is for whoever makes a message; one that arrives has every field."""
    return dataclasses.field(metadata={"check": check}, default=default)


def text(pattern: re.Pattern[str]) -> Any:
    return checked(lambda v: isinstance(v, str) and bool(pattern.match(v)))


def nested() -> Any:
    return dataclasses.field()


def whole(low: int, high: int, default: Any = dataclasses.MISSING) -> Any:
    def check(value: object) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high

    return checked(check, default)


def noun(parse: Callable[[str], object]) -> Any:
    def check(value: object) -> bool:
        try:
            return isinstance(value, str) and bool(parse(value))
        except ValueError:
            return False

    return checked(check)


def instant(text: str) -> datetime:
    """Raises ValueError for anything but an instant with its zone."""
    instant = datetime.fromisoformat(text)
    if instant.tzinfo is None:
        raise ValueError(text)
    return instant


def decode(kind: type[_A], fields: Mapping[str, Any], where: str) -> _A:
    """A message of that kind. Raises BadRequest for one that has not exactly its fields, each as it may be."""
    hints = get_type_hints(kind)
    expected = dataclasses.fields(kind)  # type: ignore[arg-type]
    if fields.keys() != {field.name for field in expected}:
        raise BadRequest(f"{where}: the fields are not exactly the expected ones.")
    values = {}
    for field in expected:
        value, hint = fields[field.name], hints[field.name]
        nested = next((t for t in (hint, *get_args(hint)) if dataclasses.is_dataclass(t)), None)
        if get_origin(hint) is list:
            if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
                raise BadRequest(f"{where}: {field.name} is not a list of objects.")
            value = [decode(nested, item, f"{where}.{field.name}") for item in value]  # type: ignore[arg-type]
        elif nested is not None:
            if isinstance(value, dict):
                value = decode(nested, value, f"{where}.{field.name}")  # type: ignore[arg-type]
            elif value is not None or type(None) not in get_args(hint):
                raise BadRequest(f"{where}: {field.name} is not an object.")
        elif not field.metadata["check"](value):
            raise BadRequest(f"{where}: the value of {field.name} is not allowed.")
        values[field.name] = value
    return kind(**values)
