"""``adopt`` as a person meets it."""

import io
import sys
from pathlib import Path

import pytest

from drbd_offsite import config
from drbd_offsite.errors import ExitCode
from drbd_offsite.model import Flavour

from .. import make
from ..conftest import Programs
from ..operations.handmade import SECRET, HandMade
from .conftest import Command


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def by_hand(root: Path, programs: Programs, monkeypatch: pytest.MonkeyPatch) -> HandMade:
    return HandMade(Flavour.SERVER, root, programs, monkeypatch)


def test_a_dry_run_prints_the_plan_and_does_nothing(command: Command, by_hand: HandMade) -> None:
    before = by_hand.texts()
    said = command("adopt", "--dry-run")
    assert (said.code, said.err) == (ExitCode.DONE, "")
    assert "c-max-rate" in said.out
    assert SECRET not in said.out
    assert by_hand.texts() == before


def test_with_yes_it_is_done_and_a_second_time_there_is_nothing_left(command: Command, by_hand: HandMade) -> None:
    said = command("adopt", "--yes")
    assert said.code == ExitCode.DONE
    assert "Adopted: test_a" in said.err
    assert by_hand.units
    again = command("adopt", "--yes")
    assert (again.code, again.out) == (ExitCode.DONE, "")
    assert "nothing to adopt" in again.err


@pytest.mark.parametrize(
    ("answer", "code"), [("y\n", ExitCode.DONE), ("\n", ExitCode.REFUSED), ("no\n", ExitCode.REFUSED)]
)
def test_a_person_is_shown_the_plan_and_asked(
    command: Command, by_hand: HandMade, monkeypatch: pytest.MonkeyPatch, answer: str, code: ExitCode
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    said = command("adopt")
    assert said.code == code
    assert "Steps:" in said.out
    assert bool(by_hand.units) is (code == ExitCode.DONE)


def test_where_nobody_can_be_asked_nothing_is_done(
    command: Command, by_hand: HandMade, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    said = command("adopt")
    assert said.code == ExitCode.REFUSED
    assert "--yes" in said.err
    assert not by_hand.units
    assert not config.PATH.exists()


def test_the_flavour_and_the_resources_can_be_said(command: Command, by_hand: HandMade) -> None:
    assert command("adopt", "--yes", "--flavour", "server", "test_a").code == ExitCode.DONE
    assert by_hand.units
    assert command("adopt", "--flavour", "backup").code == ExitCode.REFUSED
    assert command("adopt", "--flavour", "both").code == ExitCode.USAGE
    assert command("adopt", "unknown").code == ExitCode.USAGE


def test_a_configuration_with_a_mistake_is_shown_and_not_added_to(command: Command, by_hand: HandMade) -> None:
    by_hand.configure(make.CONFIG.replace("link_speed = 100", "link_speed = fast"))
    before = by_hand.texts()
    said = command("adopt", "--yes")
    assert said.code == ExitCode.FAILED
    assert "link_speed = fast: not a whole number" in said.err
    assert by_hand.texts() == before
