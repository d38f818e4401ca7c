"""What the verbs do beyond the work that has tests of its own."""

import io
import json
import os
import stat
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from drbd_offsite import config, host, journal, messages
from drbd_offsite.cli import invite as invite_module
from drbd_offsite.cli import join as join_module
from drbd_offsite.cli import up
from drbd_offsite.errors import ExitCode, PeerUnreachable, Refused, ToolFailed
from drbd_offsite.model import Flavour
from drbd_offsite.observed import Forbidden
from drbd_offsite.operations import half

from .. import make
from ..conftest import Answer, Programs
from ..operations.test_half import THERE
from ..operations.world import World
from ..test_invitation import MADE, NOW
from .conftest import Command


@pytest.fixture
def replicated(server: World, command: Command) -> World:
    server.peer = lambda _: messages.Replicated(messages.Half.of(THERE), make.GIB)
    said = command("add", "local/test_a", "--no-wait")
    assert said.code == ExitCode.DONE, said.err
    server.machine.log.clear()
    return server


# -- add -----------------------------------------------------------------------------------------


def test_add_tells_its_steps_and_which_device_to_use_from_now_on(command: Command, server: World) -> None:
    server.peer = lambda _: messages.Replicated(messages.Half.of(THERE), make.GIB)
    said = command("add", "/dev/local/test_a", "--no-wait")
    assert said.code == ExitCode.DONE
    assert said.out == ""
    assert "lvcreate" in said.err
    assert "/dev/drbd/by-res/test_a/0" in said.err
    assert make.SECRET not in said.err


def test_a_dry_run_prints_to_standard_output_and_does_nothing(command: Command, server: World) -> None:
    server.peer = lambda _: messages.Replicated(messages.Half.of(THERE), make.GIB)
    said = command("add", "local/test_a", "--dry-run")
    assert said.code == ExitCode.DONE
    assert "lvcreate" in said.out
    assert said.err == ""
    assert server.machine.log == []


@pytest.mark.parametrize("volume", ["test_a", "/dev/sda1", "", "../x", "local/a/b"])
def test_what_is_no_volume_is_a_usage_error(command: Command, server: World, volume: str) -> None:
    said = command("add", volume)
    assert said.code == ExitCode.USAGE
    assert "GROUP/NAME" in said.err
    assert server.machine.log == []


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["local/nothing"], "There is no volume local/nothing"),
        (["nowhere/x"], "There is no volume group nowhere"),
        (["local/test_a", "--name", "a/b"], "cannot be a resource's name"),
        (["local/test_a", "--peer", "third"], "no enrolled peer third"),
    ],
)
def test_a_refusal_has_its_reason_and_exit_code(command: Command, server: World, words: list[str], reason: str) -> None:
    said = command("add", *words)
    assert said.code == ExitCode.REFUSED
    assert reason in said.err
    assert server.machine.log == []


def test_a_peer_that_is_away_has_an_exit_code_of_its_own(
    command: Command, monkeypatch: pytest.MonkeyPatch, server: World
) -> None:
    del server

    def away(*_: object, **__: object) -> None:
        raise PeerUnreachable("the backup does not answer", "later")

    monkeypatch.setattr(half.peer, "ask", away)
    assert command("add", "local/test_a").code == ExitCode.PEER_UNREACHABLE


# -- up, down, connect, disconnect -----------------------------------------------------------------


def test_down_holds_and_up_lifts(command: Command, replicated: World) -> None:
    assert command("down", "test_a").code == ExitCode.DONE
    assert replicated.machine.kernel is None
    assert command("up", "--boot", "test_a").code == ExitCode.HELD, "the boot respects it"
    assert replicated.machine.kernel is None
    assert command("up", "test_a").code == ExitCode.DONE
    assert replicated.machine.kernel.primary
    assert journal.holds() == {}


def test_disconnect_holds_and_connect_lifts(command: Command, replicated: World) -> None:
    said = command("disconnect", "test_a", "--reason", "the line is being dug up")
    assert said.code == ExitCode.DONE
    assert not replicated.machine.kernel.connected
    assert journal.holds()["test_a"][0].reason == "the line is being dug up"
    assert command("up", "test_a").code == ExitCode.DONE
    assert not replicated.machine.kernel.connected, "up lifts only what down has set"
    assert command("connect", "test_a").code == ExitCode.DONE
    assert replicated.machine.kernel.connected


def test_a_disconnect_that_took_too_long_and_came_to_pass_is_no_failure(command: Command, replicated: World) -> None:
    def slow(_: object) -> None:
        replicated.machine.kernel.connected = False
        raise ToolFailed("drbdsetup-84 disconnect did not terminate within 5 seconds")

    replicated.machine._adm_disconnect = slow
    assert command("disconnect", "test_a").code == ExitCode.DONE


def test_a_disconnect_that_failed_says_so(command: Command, replicated: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)

    def failing(_: object) -> None:
        raise ToolFailed("drbdsetup-84 disconnect: refused")

    replicated.machine._adm_disconnect = failing
    assert command("disconnect", "test_a").code == ExitCode.FAILED
    assert replicated.machine.kernel.connected


@pytest.mark.parametrize("setter", ["split-brain", "restore-point"])
def test_connect_tries_again_what_was_ended_by_itself(command: Command, replicated: World, setter: str) -> None:
    """Whoever asks has been told of it; DRBD itself refuses two copies that have diverged, every time."""
    replicated.machine.kernel.connected = False
    journal.hold("test_a", "for a reason", frozenset({Forbidden.CONNECT}), setter)
    assert command("connect", "test_a").code == ExitCode.DONE
    assert replicated.machine.kernel.connected
    assert journal.holds() == {}


@pytest.mark.parametrize("setter", ["taken-over", "hold", "down"])
def test_connect_does_not_lift_what_it_is_not_for_and_says_what_it_is(
    command: Command, replicated: World, setter: str
) -> None:
    replicated.machine.kernel.connected = False
    journal.hold("test_a", "for a reason", frozenset({Forbidden.CONNECT}), setter)
    said = command("connect", "test_a")
    assert said.code == ExitCode.HELD
    assert "For a reason" in said.err
    assert not replicated.machine.kernel.connected


@pytest.mark.parametrize("setter", ["split-brain", "disconnect", "restore-point"])
def test_up_does_not_lift_what_connect_is_for(command: Command, replicated: World, setter: str) -> None:
    replicated.machine.kernel.connected = False
    journal.hold("test_a", "for a reason", frozenset({Forbidden.CONNECT}), setter)
    command("up", "test_a")
    assert [hold.set_by for hold in journal.holds()["test_a"]] == [setter]
    assert not replicated.machine.kernel.connected


# -- has the backup taken over? --------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Time passes where it is slept through."""
    now = [1000.0]
    for module in (up, host):
        monkeypatch.setattr(
            module, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=lambda s: now.append(now.pop() + s))
        )
    return now


def booted(world: World) -> World:
    world.power_cut()
    world.machine.mounts = []
    world.machine.log.clear()
    return world


def test_a_server_that_boots_serves_once_the_backup_has_said_that_it_does_not(
    command: Command, replicated: World, clock: list[float]
) -> None:
    booted(replicated)
    said = command("up", "--boot", "test_a")
    assert said.code == ExitCode.DONE, said.err
    assert replicated.machine.kernel.primary
    assert clock == [1000.0], "nobody was waited for"
    started = [line for line in replicated.machine.log if "start" in line]
    start = "systemctl --no-ask-password start --no-block --job-mode=ignore-dependencies"
    assert started == [f"{start} openvpn-server@drbd-offsite-backup.service"]
    assert replicated.machine.log.index(started[0]) < replicated.machine.log.index("drbdadm attach test_a")


def test_a_server_that_boots_alone_serves_after_its_wait_and_says_what_it_waits_for(
    command: Command, replicated: World, clock: list[float]
) -> None:
    booted(replicated).machine.tunnel = False
    replicated.publish()
    said = command("up", "--boot", "test_a")
    assert said.code == ExitCode.DONE
    assert replicated.machine.kernel.primary
    assert 20.0 <= clock[0] - 1000.0 < 22.0
    assert said.err.count("asking backup whether it has taken over") == 1, "said once, and not twice a second"


def test_a_backup_that_boots_waits_for_nobody(command: Command, replicated: World, clock: list[float]) -> None:
    booted(replicated).machine.tunnel = False
    replicated.machine.flavour = Flavour.BACKUP
    config.PATH.write_text(config.PATH.read_text().replace("flavour = server", "flavour = backup"))
    replicated.publish()
    assert command("up", "--boot", "test_a").code == ExitCode.DONE
    assert replicated.machine.kernel.attached
    assert not replicated.machine.kernel.primary
    assert clock == [1000.0]


def test_a_server_that_hears_of_a_takeover_is_held_until_a_person_has_settled_it(
    command: Command, replicated: World, clock: list[float]
) -> None:
    booted(replicated).takes_over = True
    said = command("up", "--boot", "test_a")
    assert said.code == ExitCode.HELD
    assert "backup has taken over" in said.err
    assert replicated.machine.kernel.attached
    assert not replicated.machine.kernel.primary
    assert not replicated.machine.kernel.connected
    assert command("status").code == ExitCode.FAILED
    assert command("up", "test_a").code == ExitCode.HELD, "what it has is older"
    assert replicated.machine.kernel.connected, "it gets the newer data"
    assert not replicated.machine.kernel.primary
    assert [hold.set_by for hold in journal.holds()["test_a"]] == ["returning"]
    assert clock == [1000.0]


def test_plan_shows_what_would_be_done_and_does_nothing(command: Command, replicated: World) -> None:
    replicated.machine.kernel = None
    said = command("plan")
    assert said.code == ExitCode.DONE
    assert "test_a: drbdadm attach test_a" in said.out
    assert replicated.machine.kernel is None
    assert replicated.machine.log == []


def test_a_resource_that_fails_is_told_and_is_the_exit_code(
    command: Command, replicated: World, programs: Programs
) -> None:
    replicated.machine.kernel = None
    programs.allow(("drbdadm", "new-resource", "test_a"), Answer("", 10, "it is broken"))
    said = command("up")
    assert said.code == ExitCode.FAILED
    assert "it is broken" in said.err


# -- events ----------------------------------------------------------------------------------------


def test_events_newest_last_for_a_person_and_for_a_program(command: Command) -> None:
    journal.record("one", "test_a", "First.")
    journal.record("two", "test_b", "Second.", detail=3)
    said = command("events")
    assert [line.split("  ")[-1] for line in said.out.splitlines()] == ["one: First.", "two: Second."]
    assert [json.loads(line)["event"] for line in command("events", "--json").out.splitlines()] == ["one", "two"]
    assert "First" not in command("events", "test_b").out


def test_events_before_anything_has_happened(command: Command) -> None:
    assert command("events").code == ExitCode.DONE


# -- render and configure ----------------------------------------------------------------------------


def test_render_says_what_it_wrote_and_how_a_tunnel_is_changed(command: Command, server: World, root: Path) -> None:
    del server
    config.PATH.write_text(config.updated(config.PATH.read_text(), {"peers.backup.fingerprint": make.FINGERPRINT}))
    said = command("render")
    assert "wrote /etc/openvpn/server/drbd-offsite-backup.conf" in said.err
    assert "systemctl restart openvpn-server@drbd-offsite-backup.service" in said.err
    assert (root / "etc/openvpn/server/drbd-offsite-backup.conf").exists()
    assert command("render").err == ""
    assert command("render", "--diff").out == ""


def configure(command: Command, flavour: str, text: str) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", io.StringIO(text))
        return command("configure", flavour)


def test_the_package_s_answers_become_a_configuration(command: Command) -> None:
    said = configure(command, "server", "site.volume_group=local\npeers.backup.reachable_as=a.example.org\n\n")
    assert said.code == ExitCode.DONE
    site = config.load()
    assert (site.flavour, site.volume_group) == ("server", "local")
    assert site.peers["backup"].tunnel.reachable_as == "a.example.org"
    assert stat.S_IMODE(config.PATH.stat().st_mode) == 0o644


def test_the_same_answers_again_change_no_byte(command: Command) -> None:
    configure(command, "backup", "site.volume_group=local\n")
    edited = config.PATH.read_text() + "# the admin's\n"
    config.PATH.write_text(edited)
    before = config.PATH.stat().st_ino
    assert configure(command, "backup", "site.volume_group=local\n").code == ExitCode.DONE
    assert config.PATH.read_text() == edited
    assert config.PATH.stat().st_ino == before


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("nonsense\n", ExitCode.USAGE),
        ("volume_group=local\n", ExitCode.USAGE),
        ("site.volume_group=a/b\n", ExitCode.FAILED),
        ("site.volume_group=local\nsite.nothing=1\n", ExitCode.FAILED),
        ("site.volume_group='''\"\"\"\n", ExitCode.FAILED),
        ("", ExitCode.FAILED),
    ],
)
def test_a_wrong_answer_configures_nothing(command: Command, text: str, code: ExitCode) -> None:
    assert configure(command, "server", text).code == code
    assert not config.PATH.exists()


def test_an_admin_s_file_with_a_mistake_is_reported_and_left_alone(command: Command) -> None:
    config.PATH.write_text("[site]\nnonsense\n")
    said = configure(command, "server", "site.volume_group=local\n")
    assert said.code == ExitCode.FAILED
    assert "line 2" in said.err
    assert config.PATH.read_text() == "[site]\nnonsense\n"


# -- invite and join -------------------------------------------------------------------------------


@pytest.fixture
def _invites(monkeypatch: pytest.MonkeyPatch, server: World) -> None:
    del server
    monkeypatch.setattr(invite_module, "invite", lambda *_: MADE)
    # pytest's standard output is no file; that has tests of its own below.
    monkeypatch.setattr(invite_module, "_insist_on_privacy", lambda: None)


@pytest.mark.usefixtures("_invites")
def test_an_invitation_goes_to_standard_output_and_what_to_do_with_it_to_the_other(command: Command) -> None:
    said = command("invite")
    assert said.code == ExitCode.DONE
    assert said.out.startswith("Format: drbd-offsite-invitation 1\n")
    assert MADE.check_words in said.err
    assert MADE.token not in said.err
    assert MADE.tunnel_key not in said.err
    assert command("invite", "--one-line").out.count("\n") == 1


def test_the_file_that_the_shell_opened_becomes_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "backup.invite"
    with path.open("w") as file:
        path.chmod(0o644)
        monkeypatch.setattr(sys, "stdout", file)
        invite_module._insist_on_privacy()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_an_invitation_that_would_be_thrown_away_is_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    with Path(os.devnull).open("w") as nowhere:
        monkeypatch.setattr(sys, "stdout", nowhere)
        with pytest.raises(Refused, match="thrown away"):
            invite_module._insist_on_privacy()


@pytest.mark.usefixtures("_invites")
def test_invite_over_ssh_hands_the_invitation_to_join_and_to_no_argument(command: Command, programs: Programs) -> None:
    argv = ("ssh", "-o", "BatchMode=yes", "root@backup", "drbd-offsite join -")
    programs.allow(argv, Answer("", 0, "Enrolled with server.\n"))
    said = command("invite", "--ssh", "root@backup")
    assert said.code == ExitCode.DONE
    assert programs.inputs[-1].startswith("Format: drbd-offsite-invitation")
    assert said.out == ""
    programs.allow(argv, Answer("", 3, "drbd-offsite: no\n"))
    said = command("invite", "--ssh", "root@backup")
    assert said.code == ExitCode.FAILED
    assert "did not join" in said.err
    assert command("invite", "--ssh", "-oProxyCommand=x").code != ExitCode.DONE


@pytest.mark.parametrize("content", [b"", b"hello\n", b"\xff\xfe", b"x" * 70000])
def test_a_file_that_is_no_invitation_is_refused(command: Command, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x"
    path.write_bytes(content)
    said = command("join", str(path))
    assert said.code == ExitCode.REFUSED
    assert "drbd-offsite invite" in said.err


def test_a_file_that_is_not_there_is_refused(command: Command, tmp_path: Path) -> None:
    assert "cannot be read" in command("join", str(tmp_path / "no")).err
    assert command("join", str(tmp_path)).code == ExitCode.REFUSED


def test_join_shows_the_check_words_first_and_the_file_to_delete_last(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace
    from datetime import UTC, datetime

    from drbd_offsite import invitation

    made = replace(MADE, expires=datetime.now(UTC).replace(microsecond=0) + invitation.LIFETIME)
    path = tmp_path / "backup.invite"
    path.write_text(invitation.compose(made))
    monkeypatch.setattr(join_module, "join", lambda *_: make.peer(hostname="server"))
    said = command("join", str(path))
    assert said.code == ExitCode.DONE
    lines = said.err.splitlines()
    assert lines[0] == f"Check words: {made.check_words}"
    assert lines[-1].endswith(f"rm {path}")
    assert made.token not in said.err
    assert made.expires > NOW
