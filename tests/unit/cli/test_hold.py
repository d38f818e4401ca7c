"""``hold``: a person works with drbdadm, and nothing automatic interferes until ``up``."""

import pytest

from drbd_offsite import config, files, journal
from drbd_offsite.errors import ExitCode
from drbd_offsite.observed import Forbidden
from drbd_offsite.tools import systemd

from .. import make
from ..conftest import Programs
from ..operations.world import World
from ..plan.machine import Kernel
from ..test_config import two
from .conftest import Command


@pytest.fixture
def configured(server: World) -> World:
    config.PATH.write_text(make.CONFIG)
    server.machine.config = make.CONFIG
    return server


@pytest.mark.usefixtures("configured")
def test_a_hold_forbids_everything_automatic_and_changes_nothing(command: Command) -> None:
    said = command("hold", "test_a", "--reason", "the array is being rebuilt")
    assert said.code == ExitCode.DONE
    assert "drbd-offsite up test_a" in said.err
    (hold,) = journal.holds()["test_a"]
    assert (hold.reason, hold.forbids, hold.set_by) == ("the array is being rebuilt", frozenset(Forbidden), "hold")


@pytest.mark.usefixtures("configured")
def test_status_says_why_and_how_it_ends_and_calls_it_no_fault(command: Command) -> None:
    command("hold", "test_a")
    said = command("status")
    assert "Somebody works on it by hand" in said.out
    assert "When the work is done: drbd-offsite up test_a." in said.out


def test_connect_does_not_lift_it_and_names_what_does(command: Command, configured: World) -> None:
    command("hold", "test_a")
    configured.machine.log.clear()
    said = command("connect", "test_a")
    assert said.code == ExitCode.HELD
    assert "Somebody works on it by hand" in said.err
    assert "drbd-offsite up test_a" in said.err
    assert configured.machine.log == []


def test_up_at_boot_respects_it(command: Command, configured: World, programs: Programs) -> None:
    tunnel = ("--job-mode=ignore-dependencies", "openvpn-server@drbd-offsite-backup.service")
    programs.allow(systemd.systemctl("start", "--no-block", *tunnel))
    command("hold", "test_a")
    configured.machine.log.clear()
    assert command("up", "--boot", "test_a").code == ExitCode.HELD
    assert configured.machine.log == []


def test_up_lifts_it(command: Command, configured: World) -> None:
    configured.machine.kernel = Kernel(0, attached=True, primary=True, connected=True)
    command("hold", "test_a")
    assert command("up", "test_a").code == ExitCode.DONE
    assert journal.holds() == {}
    assert journal.events()[-1]["text"] == "Lifted by up: somebody works on it by hand"


@pytest.mark.usefixtures("server")
def test_without_a_name_all_are_held(command: Command) -> None:
    config.PATH.write_text(two())
    command("hold")
    assert set(journal.holds()) == {"test_a", "test_b"}


@pytest.mark.usefixtures("configured")
def test_while_a_step_is_under_way_it_is_refused_and_not_set(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("drbd_offsite.cli.hold.LOCK_SECONDS", 0.0)
    with files.lock("resource-test_a", 0.0):
        assert command("hold", "test_a").code == ExitCode.REFUSED
    assert journal.holds() == {}
