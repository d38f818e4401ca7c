"""``remove`` as a shell sees it; and the unit's stop, which it brings about."""

from pathlib import Path

import pytest

from drbd_offsite import config, journal, messages
from drbd_offsite.errors import ExitCode, Refused
from drbd_offsite.model import Flavour

from .. import make
from ..conftest import Programs
from ..operations.test_remove import mounted, replicating
from ..operations.world import World
from ..plan.machine import Machine
from ..plan.test_half import DATA
from .conftest import Command


@pytest.fixture
def machine() -> Machine:
    return replicating(Flavour.SERVER)


@pytest.fixture
def server(machine: Machine, programs: Programs, root: Path) -> World:
    return World(machine, programs, root)


def test_remove_tells_its_steps_and_where_the_data_is(command: Command, server: World) -> None:
    said = command("remove", "test_a")
    assert said.code == ExitCode.DONE
    assert said.out == ""
    lines = said.err.splitlines()
    assert lines[0].startswith("drbdadm secondary test_a")
    assert lines[-1] == "test_a: removed on both machines; the data stays on its volume here"
    assert make.SECRET not in said.err
    assert server.machine.kernel is None
    assert config.load().resources == {}


def test_a_dry_run_prints_to_standard_output_and_does_nothing(command: Command, server: World) -> None:
    said = command("remove", "test_a", "--dry-run")
    assert said.code == ExitCode.DONE
    assert "drbdadm down test_a" in said.out
    assert said.err == ""
    assert server.machine.log == []
    assert journal.operations() == {}


def test_what_is_done_here_without_the_backup_is_done(command: Command, server: World) -> None:
    server.away = True
    said = command("remove", "test_a")
    assert said.code == ExitCode.DONE
    assert "test_a: removed here. backup does not answer on the tunnel" in said.err
    assert "Its half is released by itself when it is there again." in said.err
    assert config.load().resources == {}
    status = command("status")
    assert status.code == ExitCode.FAILED
    assert "test_a: remove was begun at" in status.out
    assert "drbd-offsite remove again" in status.out
    refused = command("add", "local/test_a")
    assert refused.code == ExitCode.REFUSED
    assert "drbd-offsite remove test_a" in refused.err
    server.away = False
    assert command("remove", "test_a").code == ExitCode.DONE
    assert journal.operations() == {}


def test_what_the_backup_refuses_at_the_end_is_an_error_with_its_reason(command: Command, server: World) -> None:
    def no(request: messages.Release) -> messages.Answer:
        if request.only_check:
            return messages.Done()
        raise Refused("test_a is in use on backup (Primary), so its copy is not given up.", "drbdadm secondary test_a")

    server.peer = no
    said = command("remove", "test_a")
    assert said.code == ExitCode.REFUSED
    assert "in use on backup (Primary)" in said.err
    assert "drbdadm secondary test_a" in said.err


@pytest.mark.parametrize("machine", [mounted()])
def test_a_mounted_one_is_refused_and_given_back_with_remount(command: Command, server: World) -> None:
    said = command("remove", "test_a")
    assert said.code == ExitCode.REFUSED
    assert "/dev/drbd0 is mounted at /srv/a" in said.err
    assert "--remount" in said.err
    assert server.machine.log == []
    assert command("remove", "test_a", "--remount").code == ExitCode.DONE
    assert server.machine.mounts == [(DATA.path, "/srv/a")]


def test_the_copy_goes_only_where_that_is_said(command: Command, server: World) -> None:
    asked = []

    def answer(request: messages.Release) -> messages.Answer:
        asked.append(request)
        return messages.Done()

    server.peer = answer
    assert command("remove", "test_a", "--delete-backup-copy").code == ExitCode.DONE
    assert [request.delete_copy for request in asked] == [True, True]
    assert DATA in server.machine.volumes


@pytest.mark.parametrize("words", [["nothing"], ["nothing", "--abort"], ["../x"], ["a/b", "--abort"]])
def test_what_is_no_resource_is_refused_with_those_that_are(command: Command, server: World, words: list[str]) -> None:
    said = command("remove", *words)
    assert said.code == ExitCode.REFUSED
    assert f"There is no resource {words[0]}." in said.err
    assert "Configured: test_a." in said.err
    assert server.machine.log == []


def test_a_removal_that_a_user_of_the_device_stops_can_be_given_up(command: Command, server: World) -> None:
    server.machine.held_open = True
    said = command("remove", "test_a")
    assert said.code == ExitCode.FAILED
    assert "held open" in said.err
    assert command("up").code == ExitCode.DONE
    assert "remove was begun at" in command("status").out
    said = command("remove", "test_a", "--abort")
    assert said.code == ExitCode.DONE
    assert said.err == "test_a: it goes on as before\n"
    assert journal.operations() == {}
    assert server.machine.kernel.primary
    assert command("remove", "test_a", "--abort").code == ExitCode.REFUSED


def test_the_stop_of_the_unit_waits_for_nobody_where_it_is_down_already(
    command: Command, server: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``systemctl disable --now`` is a step of ``remove``, which has the lock."""
    server.machine.kernel = None

    def no(*_: object) -> None:
        pytest.fail("it has waited for the lock")

    monkeypatch.setattr("drbd_offsite.files.lock", no)
    said = command("down", "--shutdown", "test_a")
    assert (said.code, said.err) == (ExitCode.DONE, "")
    assert journal.holds() == {}


def test_the_stop_of_the_unit_takes_down_what_is_up(command: Command, server: World) -> None:
    assert command("down", "--shutdown", "test_a").code == ExitCode.DONE
    assert server.machine.kernel is None
    assert journal.holds() == {}


def test_down_by_hand_holds_also_what_is_down_already(command: Command, server: World) -> None:
    server.machine.kernel = None
    assert command("down", "test_a").code == ExitCode.DONE
    assert [hold.set_by for hold in journal.holds()["test_a"]] == ["down"]
