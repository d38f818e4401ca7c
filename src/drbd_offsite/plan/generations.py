"""Which of two copies is newer, by their generation identifiers. Pure.

A copy that is written to alone begins a generation of its own and remembers the one before it as its bitmap's. The
rules are DRBD's own (drbd_receiver.c, drbd_uuid_compare); the lowest bit says Primary and is none of the identifier.
"""

from enum import StrEnum

from ..tools.drbd import Identifiers


class Relation(StrEnum):
    """Of one copy to another."""

    SAME = "same"
    NEWER = "newer"
    """It has all that the other has, and more."""
    OLDER = "older"
    DIVERGED = "diverged"
    """Each has begun a generation that the other does not know."""
    UNRELATED = "unrelated"


def relation(one: Identifiers, other: Identifiers) -> Relation:
    """What ``one`` is to ``other``."""
    mine, theirs = _ancestors(one), _ancestors(other)
    if _plain(one.current) == _plain(other.current):
        return Relation.SAME
    if other.just_created or _plain(other.current) in mine:
        return Relation.NEWER
    if one.just_created or _plain(one.current) in theirs:
        return Relation.OLDER
    return Relation.DIVERGED if mine & theirs else Relation.UNRELATED


def _ancestors(copy: Identifiers) -> frozenset[int]:
    return frozenset(map(_plain, (copy.bitmap, *copy.history))) - {0}


def _plain(identifier: int) -> int:
    return identifier & ~1
