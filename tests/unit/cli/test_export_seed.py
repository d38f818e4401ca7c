"""``export-seed`` and ``add --seed`` as a shell sees them."""

from pathlib import Path

import pytest

from drbd_offsite.errors import ExitCode

from ..operations.test_seed import Group, filled, group
from ..operations.world import World
from .conftest import Command

__all__ = ["group"]


def test_a_seed_is_written_and_what_comes_next_is_said(command: Command, group: Group, tmp_path: Path) -> None:
    path = tmp_path / "seed"
    said = command("export-seed", "/dev/local/test_a", str(path))
    assert said.code == ExitCode.DONE, said.err
    assert said.out == ""
    assert f"{path} is whole." in said.err
    assert "drbd-offsite add local/test_a --seed FILE" in said.err
    assert group.origins == {}
    assert filled(path)


def test_what_is_no_volume_is_a_usage_error(command: Command, group: Group, tmp_path: Path) -> None:
    assert command("export-seed", "test_a", str(tmp_path / "seed")).code == ExitCode.USAGE
    assert group.log == []


@pytest.mark.parametrize(
    "words", [["local/a", "local/b", "--seed", "/x"], ["local/a", "--seed", "x"], ["local/a", "--seed", "/\n"]]
)
def test_a_seed_is_for_one_volume_and_has_a_whole_path(command: Command, server: World, words: list[str]) -> None:
    assert command("add", *words).code == ExitCode.USAGE
    assert server.machine.log == []
