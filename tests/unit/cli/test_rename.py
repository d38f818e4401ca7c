"""``rename`` as a shell sees it; and the units of both names."""

from pathlib import Path

import pytest

from drbd_offsite import config, journal, messages
from drbd_offsite.errors import ExitCode, Refused

from .. import make
from ..conftest import Programs
from ..operations.test_rename import TwoNamesWorld, begin_and_stop_before, finished, mounted
from ..operations.world import World
from .conftest import Command


@pytest.fixture
def server(programs: Programs, root: Path) -> World:
    return TwoNamesWorld(mounted(), programs, root)


def test_rename_tells_its_steps_and_the_end(command: Command, server: World) -> None:
    said = command("rename", "test_a", "renamed", "--remount")
    assert said.code == ExitCode.DONE
    assert said.out == ""
    lines = said.err.splitlines()
    assert lines[0].startswith("umount /srv/a")
    assert lines[-1] == "renamed: it has that name on both machines"
    assert make.SECRET not in said.err
    finished(server)


def test_a_dry_run_prints_to_standard_output_and_does_nothing(command: Command, server: World) -> None:
    said = command("rename", "test_a", "renamed", "--remount", "--dry-run")
    assert said.code == ExitCode.DONE
    assert "drbdadm down test_a" in said.out
    assert said.err == ""
    assert server.machine.log == []
    assert journal.operations() == {}


def test_a_mounted_one_is_refused_with_the_way_on(command: Command, server: World) -> None:
    said = command("rename", "test_a", "renamed")
    assert said.code == ExitCode.REFUSED
    assert "/dev/drbd0 is mounted at /srv/a" in said.err
    assert "--remount" in said.err
    assert server.machine.log == []


def test_what_is_unfinished_is_shown_and_finished_by_the_same_command(command: Command, server: World) -> None:
    def answer(request: messages.Rename) -> messages.Done:
        server.away = request.only_check
        return messages.Done()

    server.peer = answer
    said = command("rename", "test_a", "renamed", "--remount")
    assert said.code == ExitCode.PEER_UNREACHABLE
    assert "renamed: renamed here, and not yet on the backup. The same command again finishes it." in said.err
    status = command("status")
    assert status.code == ExitCode.FAILED
    assert "test_a: rename was begun at" in status.out
    assert "drbd-offsite rename again" in status.out
    server.away = False
    server.peer = lambda _: messages.Done()
    assert command("rename", "test_a", "renamed").code == ExitCode.DONE, "it was told once that it may remount"
    finished(server)


def test_a_backup_that_is_away_leaves_all_as_it_is(command: Command, server: World) -> None:
    server.away = True
    said = command("rename", "test_a", "renamed", "--remount")
    assert said.code == ExitCode.PEER_UNREACHABLE
    assert "renamed here" not in said.err
    assert journal.operations() == {}


def test_what_the_backup_refuses_is_refused(command: Command, server: World) -> None:
    def no(_: messages.Request) -> messages.Answer:
        raise Refused("backup has a resource renamed already.", "Choose another name.")

    server.peer = no
    said = command("rename", "test_a", "renamed", "--remount")
    assert said.code == ExitCode.REFUSED
    assert "backup has a resource renamed already." in said.err
    assert "Choose another name." in said.err


@pytest.mark.parametrize("words", [["nothing", "x"], ["../x", "y"], ["test_a", "../x"], ["test_a", "test_a"]])
def test_what_is_no_resource_or_no_name_is_refused(command: Command, server: World, words: list[str]) -> None:
    said = command("rename", *words)
    assert said.code == ExitCode.REFUSED
    assert server.machine.log == []


def test_the_boot_s_unit_puts_the_files_right_before_it_serves(command: Command, server: World) -> None:
    begin_and_stop_before(server, "drbdadm down")
    server.power_cut()
    assert command("up", "--boot", "test_a").code == ExitCode.USAGE, "the old name's unit has nothing to do"
    said = command("up", "--boot", "renamed")
    assert said.code == ExitCode.DONE, said.err
    assert server.machine.kernel.primary
    assert server.machine.kernel_name == "renamed"
    assert list(config.load().resources) == ["renamed"]


@pytest.mark.parametrize("words", [["up"], ["up", "renamed"], ["up", "--boot", "renamed"]])
def test_up_serves_what_an_interrupted_rename_has_left_up(command: Command, server: World, words: list[str]) -> None:
    """Without a boot, too: the kernel has the old name still, Secondary."""
    begin_and_stop_before(server, "drbdadm disconnect")
    said = command(*words)
    assert said.code == ExitCode.DONE, said.err
    assert server.machine.kernel.primary
    assert server.machine.kernel_name == "renamed"
    command("rename", "test_a", "renamed")
    finished(server)


def test_the_old_name_s_unit_stops_without_a_word(command: Command, server: World) -> None:
    """``systemctl disable --now`` is a step of ``rename``."""
    command("rename", "test_a", "renamed", "--remount")
    log = list(server.machine.log)
    said = command("down", "--shutdown", "test_a")
    assert (said.code, said.out, said.err) == (ExitCode.DONE, "", "")
    assert server.machine.log == log
    assert command("down", "test_a").code == ExitCode.USAGE
