"""``set`` as it is called: what it shows, what it changes, and how it ends."""

import ast
from pathlib import Path

import pytest

from drbd_offsite import cli, config, journal
from drbd_offsite.errors import ExitCode
from drbd_offsite.model import TUNABLE, Flavour

from ..conftest import Programs
from ..operations.test_tune import GONE, Pair
from .conftest import Command


@pytest.fixture
def pair(programs: Programs, root: Path) -> Pair:
    return Pair(Flavour.SERVER, programs, root)


def test_without_a_key_every_key_is_shown_with_its_value_meaning_and_range(command: Command, pair: Pair) -> None:
    pair.changes = 0
    said = command("set", "test_b")
    assert (said.code, said.err, pair.changes) == (ExitCode.DONE, "", 0)
    assert [line.partition(" = ")[0] for line in said.out.splitlines() if not line.startswith(" ")] == list(TUNABLE)
    assert "resync_rate = 0\n  Upper limit of its resyncs in KiB a second" in said.out
    assert "  Allowed: a whole number from -100 to 100. Default: 0.\n" in said.out
    assert "  Allowed: one of all, faults, none. Default: all.\n" in said.out


@pytest.mark.parametrize(("key", "value"), [("priority", "-5"), ("resync_rate", "500"), ("alerts", "none")])
def test_a_value_is_set_and_then_shown(command: Command, pair: Pair, key: str, value: str) -> None:
    said = command("set", "test_b", key, value)
    assert said.code == ExitCode.DONE, said.err
    assert said.out == ""
    assert f"test_b: {key} is {value} on both machines" in said.err
    pair.settled(key, value)
    assert command("set", "test_b", key).out == f"{value}\n"


@pytest.mark.parametrize(
    ("words", "allowed"),
    [
        (["minor", "5"], "What can be set: priority, resync_rate, alerts."),
        (["minor"], "What can be set: priority, resync_rate, alerts."),
        (["priority", "1000"], "It is a whole number from -100 to 100."),
        (["resync_rate", "10"], "It is 0, or a whole number from 250 to 4194304."),
        (["alerts", "some"], "It is one of all, faults, none."),
    ],
)
def test_what_cannot_be_set_is_a_usage_error_that_names_what_can(
    command: Command, pair: Pair, words: list[str], allowed: str
) -> None:
    before = pair.state()
    said = command("set", "test_b", *words)
    assert said.code == ExitCode.USAGE
    assert allowed in said.err
    assert pair.state() == before


def test_with_the_backup_away_nothing_is_changed(command: Command, pair: Pair) -> None:
    before = pair.state()
    pair.peer_says = lambda _: GONE
    said = command("set", "test_b", "priority", "5")
    assert said.code == ExitCode.PEER_UNREACHABLE
    assert "does not answer" in said.err
    assert (pair.state(), journal.operations()) == (before, {})


def test_on_the_backup_it_is_shown_and_not_set(command: Command, programs: Programs, root: Path) -> None:
    pair = Pair(Flavour.BACKUP, programs, root)
    before = pair.state()
    assert command("set", "test_b", "priority").out == "0\n"
    said = command("set", "test_b", "priority", "5")
    assert said.code == ExitCode.REFUSED
    assert "is for the server" in said.err
    assert pair.state() == before
    assert config.load().resources["test_b"].priority == 0


def test_the_module_s_name_hides_no_builtin_that_its_package_uses() -> None:
    """A package has its modules as names, and this one is called as a builtin."""
    tree = ast.parse(Path(cli.__file__).read_text(encoding="utf-8"))
    assert "set" not in {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
