"""Which copy is newer."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drbd_offsite.plan.generations import Relation, relation
from drbd_offsite.tools.drbd import JUST_CREATED, Identifiers, parse_identifiers

DATA = Path(__file__).parents[2] / "data"

OLD, MINE, THEIRS, ELSE = 0xA0, 0xB0, 0xC0, 0xD0


def copy(current: int, bitmap: int = 0, *history: int) -> Identifiers:
    return Identifiers(current, bitmap, (*history, 0, 0)[:2])


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (copy(OLD), copy(OLD), Relation.SAME),
        (copy(OLD | 1), copy(OLD), Relation.SAME),
        (copy(MINE | 1, OLD), copy(OLD), Relation.NEWER),
        (copy(MINE, OLD), copy(OLD | 1), Relation.NEWER),
        (copy(MINE, 0, OLD), copy(OLD), Relation.NEWER),
        (copy(OLD), copy(THEIRS, OLD), Relation.OLDER),
        (copy(MINE, OLD), copy(THEIRS, OLD), Relation.DIVERGED),
        (copy(MINE, OLD), copy(THEIRS, ELSE, OLD), Relation.DIVERGED),
        (copy(MINE, OLD), copy(THEIRS, ELSE), Relation.UNRELATED),
        (copy(MINE), copy(THEIRS), Relation.UNRELATED),
        (copy(MINE), copy(JUST_CREATED), Relation.NEWER),
        (copy(JUST_CREATED), copy(THEIRS, OLD), Relation.OLDER),
    ],
)
def test_by_the_generations_that_each_knows(one: Identifiers, other: Identifiers, expected: Relation) -> None:
    assert relation(one, other) is expected


IDENTIFIERS = st.builds(copy, *[st.sampled_from([0, OLD, MINE, THEIRS, ELSE, OLD | 1, MINE | 1])] * 4)
MIRRORED = {Relation.NEWER: Relation.OLDER, Relation.OLDER: Relation.NEWER}


@given(IDENTIFIERS, IDENTIFIERS)
def test_the_other_one_says_the_same_the_other_way_round(one: Identifiers, other: Identifiers) -> None:
    found = relation(one, other)
    # Two that each know the other's generation have never been seen, and are never taken as the same.
    if not (found is Relation.NEWER and relation(other, one) is Relation.NEWER):
        assert relation(other, one) is MIRRORED.get(found, found)


def test_a_server_that_was_written_to_alone_is_newer_than_what_it_left_behind() -> None:
    alone = parse_identifiers((DATA / "drbdmeta/written-alone-server.txt").read_text())
    left = parse_identifiers((DATA / "drbdmeta/left-behind-backup.txt").read_text())
    assert alone is not None
    assert left is not None
    assert relation(alone, left) is Relation.NEWER
