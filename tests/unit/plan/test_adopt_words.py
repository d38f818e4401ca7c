from dataclasses import replace

import pytest

from drbd_offsite.plan.adopt import decide
from drbd_offsite.plan.adopt_words import explain
from drbd_offsite.tools.drbd_dump import DumpedResource

from .test_adopt import DUMP, found, numbered


def words(before: DumpedResource, after: DumpedResource) -> str:
    adoption = decide(found(before), (), None)
    return " ".join(" ".join(explain(adoption, (), {before.name: before}, {before.name: after})).split())


def test_an_option_is_told_with_what_it_is_now_and_a_handler_that_is_lost_by_name() -> None:
    before = replace(DUMP, options={**DUMP.options, "fencing": "resource-only"}, handlers={"fence-peer": "/x secret"})
    after = replace(DUMP, options={**DUMP.options, "csums-alg": "sha1"}, handlers={"split-brain": "ours"})
    said = words(before, after)
    assert "csums-alg sha1 (now md5)" in said
    assert "fencing is not set (now resource-only)" in said
    assert "what was called for fence-peer no longer is" in said
    assert "/x secret" not in said


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("after-sb-0pri", "disconnect", False),
        ("after-sb-0pri", "discard-zero-changes", True),
        ("verify-alg", "sha1", True),
        ("c-max-rate", "9155k", False),
    ],
)
def test_only_options_that_both_machines_must_share_are_a_warning(name: str, value: str, told: bool) -> None:
    after = replace(DUMP, options={**DUMP.options, name: value})
    assert (f"must have the same {name}, or DRBD drops the connection" in words(DUMP, after)) is told


def test_what_is_the_same_for_several_resources_is_told_once() -> None:
    before = {"test_a": DUMP, "test_b": numbered(1)}
    after = {name: replace(one, options={**one.options, "ko-count": "7"}) for name, one in before.items()}
    adoption = decide(found(*before.values()), (), None)
    said = "\n".join(explain(adoption, (), before, after))
    assert said.count("ko-count 7") == 1
    assert "for test_a, test_b:" in said


def test_without_a_difference_nothing_is_said_of_options() -> None:
    assert "What is different" not in words(DUMP, DUMP)
