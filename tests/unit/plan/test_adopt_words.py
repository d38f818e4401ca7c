from dataclasses import replace

import pytest

from drbd_offsite.plan.adopt import decide
from drbd_offsite.plan.adopt_found import Found
from drbd_offsite.plan.adopt_words import explain
from drbd_offsite.tools.drbd_dump import DumpedResource

from .. import make
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


def explained(look: Found, *names: str) -> str:
    adoption = decide(look, names, None)
    return " ".join(" ".join(explain(adoption, (), look.dump, look.dump)).split())


def test_a_person_is_told_that_what_is_standalone_stays_so_and_how_it_ends() -> None:
    said = explained(found(running={"test_a": make.seen(state=None)}))
    assert "hold test_a" in said
    assert "may overwrite one of the two copies, so nothing does it by itself" in said
    assert "drbd-offsite connect" in said
    assert "StandAlone" not in explained(found())


def test_every_line_of_fstab_that_is_new_is_shown_and_no_other() -> None:
    said = explained(found(fstab="//nas/x /x cifs password=guess 0 0\n/dev/local/test_a /srv/a ext4\n"))
    assert "/dev/drbd0 /srv/a ext4 nofail,x-systemd.requires=drbd-offsite@test_a.service 0 2" in said
    assert "guess" not in said
    assert "New in /etc/fstab" not in explained(found())


def test_drbd_service_is_spoken_of_where_it_has_to_stay_for_somebody_else() -> None:
    look = found(DUMP, numbered(1))
    assert "drbd.service, for the sake of test_b" in explained(look, "test_a")
    assert "drbd.service" not in explained(look)


def test_what_is_the_same_for_several_resources_is_told_once() -> None:
    before = {"test_a": DUMP, "test_b": numbered(1)}
    after = {name: replace(one, options={**one.options, "ko-count": "7"}) for name, one in before.items()}
    adoption = decide(found(*before.values()), (), None)
    said = "\n".join(explain(adoption, (), before, after))
    assert said.count("ko-count 7") == 1
    assert "for test_a, test_b:" in said


def test_without_a_difference_nothing_is_said_of_options() -> None:
    assert "What is different" not in words(DUMP, DUMP)
