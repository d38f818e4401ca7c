import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drbd_offsite.errors import UsageError
from drbd_offsite.model import Flavour
from drbd_offsite.plan.compare import Difference, checked, counted, differences, shown
from drbd_offsite.tools.rsync import Change, What

CHANGES = [Change(what, f"{number}") for number, what in enumerate(reversed(What))]


@pytest.mark.parametrize("here", Flavour)
def test_where_something_is_has_the_same_name_on_either_machine(here: Flavour) -> None:
    found = differences(CHANGES, here)
    assert [difference.path for difference in found] == ["0", "1", "2", "3"]
    assert [difference.how for difference in found] == [
        "attributes differ", "differs", f"only on the {here}", f"only on the {here.other}",
    ]  # fmt: skip


def test_they_are_counted() -> None:
    assert counted([]) == "nothing differs"
    assert counted([Difference("a", "differs"), Difference("b", "differs")]) == "differs: 2"
    both = "only on the server: 1, only on the backup: 1, differs: 1, attributes differ: 1"
    assert counted(differences(CHANGES, Flavour.SERVER)) == both


@pytest.mark.parametrize(
    "path", ["", "/", "/etc/passwd", "..", "../x", "a/../b", "a/..", ".", "./a", "a/./b", "a//b", "//"]
)
def test_a_path_that_could_lead_elsewhere_is_none(path: str) -> None:
    with pytest.raises(UsageError, match="no path from the top"):
        checked(["good", path])


def test_a_path_is_one_as_it_is_listed() -> None:
    assert checked(["a", "a/b/", "..a", "a..", "two words", "*"]) == ["a", "a/b", "..a", "a..", "two words", "*"]


@pytest.mark.parametrize(
    ("path", "expected"),
    [("Grüße", "Grüße"), ("two words", "two words"), ("a\\#101", "a\\#101"), ("a\x1b[2J\\'", "$'a\\033[2J\\\\\\''"),
     ("latin-\udcfc", "$'latin-\\374'"), ("a\u0085", "$'a\\302\\205'")],
)  # fmt: skip
def test_a_name_cannot_steer_the_terminal(path: str, expected: str) -> None:
    assert shown(path) == expected


@given(st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), min_size=1))
def test_whatever_is_shown_is_printable(path: str) -> None:
    assert shown(path).isprintable()


@pytest.mark.parametrize("path", ["a\x1b[2J\\'", "latin-\udcfc\n$x", "one\ntwo"])
def test_bash_reads_what_is_shown(path: str) -> None:
    done = subprocess.run(["bash", "-c", f"printf %s {shown(path)}"], capture_output=True, check=True)
    assert done.stdout == path.encode("utf-8", "surrogateescape")
