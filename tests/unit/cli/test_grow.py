"""``grow`` as a shell sees it."""

from pathlib import Path

import pytest

from drbd_offsite import journal
from drbd_offsite.errors import ExitCode
from drbd_offsite.model import Flavour

from ..conftest import Programs
from ..operations.test_grow import SIZE, mounted, served
from ..operations.test_remove import replicating
from ..operations.world import Killed, World
from ..plan.machine import Machine
from .conftest import Command


@pytest.fixture
def machine() -> Machine:
    return mounted()


@pytest.fixture
def server(machine: Machine, programs: Programs, root: Path) -> World:
    return served(machine, programs, root)


def test_grow_tells_its_steps_and_waits_for_the_new_part(command: Command, server: World) -> None:
    said = command("grow", "test_a", "+32M")
    assert said.code == ExitCode.DONE
    assert said.out == ""
    assert server.machine.size == server.machine.fs_bytes == SIZE
    lines = said.err.splitlines()
    assert lines[0].startswith("ask backup to enlarge")
    assert lines[-2:] == ["test_a: both machines have the new size.", "test_a: both copies are up to date"]


def test_nobody_has_to_wait(command: Command, server: World) -> None:
    said = command("grow", "test_a", "+32M", "--no-wait")
    assert said.code == ExitCode.DONE
    assert said.err.splitlines()[-1] == "test_a: both machines have the new size."
    assert server.machine.size == SIZE


@pytest.mark.parametrize("machine", [replicating(Flavour.SERVER)])
def test_what_is_left_to_do_is_said_with_its_command(command: Command, server: World) -> None:
    said = command("grow", "test_a", "+32M", "--no-wait")
    last = said.err.splitlines()[-1]
    assert last.startswith("test_a: both machines have the new size. Its ext4 is not mounted")
    assert "resize2fs /dev/drbd0" in last
    assert server.machine.size == SIZE


def test_a_dry_run_prints_to_standard_output_and_does_nothing(command: Command, server: World) -> None:
    said = command("grow", "test_a", "+32M", "--dry-run")
    assert said.code == ExitCode.DONE
    assert [line.split()[0] for line in said.out.splitlines()] == ["ask", "lvextend", "drbdadm", "resize2fs"]
    assert said.err == ""
    assert server.machine.log == []


@pytest.mark.parametrize(
    ("words", "code", "reason"),
    [
        (["much"], ExitCode.USAGE, "'much' is no size"),
        ([], ExitCode.USAGE, "needs a size"),
        (["512M"], ExitCode.REFUSED, "nothing is ever made smaller"),
        (["+900T"], ExitCode.REFUSED, "at most 4 TiB"),
    ],
)
def test_a_refusal_has_its_reason_and_exit_code(
    command: Command, server: World, words: list[str], code: ExitCode, reason: str
) -> None:
    said = command("grow", "test_a", *words)
    assert said.code == code
    assert reason in said.err
    assert server.machine.log == []
    assert journal.operations() == {}


def test_a_backup_that_is_away_has_an_exit_code_of_its_own(command: Command, server: World) -> None:
    server.away = True
    assert command("grow", "test_a", "+32M").code == ExitCode.PEER_UNREACHABLE
    assert journal.operations() == {}


def test_an_unfinished_one_is_given_up_with_what_it_leaves(command: Command, server: World) -> None:
    server.kill_at = 3
    with pytest.raises(Killed):
        command("grow", "test_a", "+32M")
    server.kill_at = None
    assert command("grow", "test_a", "+32M", "--abort").code == ExitCode.USAGE
    said = command("grow", "test_a", "--abort")
    assert said.code == ExitCode.DONE
    assert said.out == ""
    assert said.err.startswith("test_a: it keeps the size that it has. Larger than its device (1,024 MiB) are: ")
    assert journal.operations() == {}
    assert command("grow", "test_a", "--abort").code == ExitCode.REFUSED


def test_what_is_unfinished_is_in_the_status_and_goes_on_without_a_size(command: Command, server: World) -> None:
    server.kill_at = 3
    with pytest.raises(Killed):
        command("grow", "test_a", "+32M")
    server.kill_at = None
    status = command("status")
    assert status.code == ExitCode.FAILED
    assert "grow was begun at" in status.out
    assert command("grow", "test_a", "--no-wait").code == ExitCode.DONE
    assert server.machine.fs_bytes == SIZE
