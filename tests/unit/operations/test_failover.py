"""The backup takes over, on a machine with a kernel that is as strict as the real one."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from drbd_offsite import alert, hooks, host, journal, messages, peer
from drbd_offsite.errors import BadRequest, OffsiteError, PeerUnreachable, Refused, ToolFailed
from drbd_offsite.host import SERVING, observe
from drbd_offsite.model import Flavour
from drbd_offsite.operations import failover, serve
from drbd_offsite.plan.failover import Server
from drbd_offsite.tools import iproute

from .. import make
from ..conftest import Answer, Programs
from ..test_alert import program
from .test_turn import Kernel

OUTSIDE = iproute.ping("server.example.org", seconds=failover.PING_SECONDS)


@pytest.fixture
def backup(programs: Programs, root: Path, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    """A Secondary whose server is gone."""
    kernel = Kernel(programs, root, Flavour.BACKUP, monkeypatch)
    kernel.primary, kernel.connection = False, "Connecting"
    tunnel = replace(make.TUNNEL, dials=Flavour.BACKUP, reachable_as="server.example.org")
    there = replace(kernel.site.peers["server"], tunnel=tunnel)
    kernel.site = replace(kernel.site, peers={"server": there})
    programs.allow(OUTSIDE, Answer("", 1))

    def away(*_: object, **__: object) -> None:
        raise PeerUnreachable("server does not answer", "")

    monkeypatch.setattr(peer, "ask", away)
    return kernel


def take_over(kernel: Kernel, *, force: bool = False, wanted: bool = True) -> failover.TakenOver | None:
    return failover.failover(kernel.site, kernel.resource, force=force, consent=lambda _: wanted, tell=lambda _: None)


def test_it_is_served_and_mounted_apart_from_the_server(backup: Kernel) -> None:
    done = take_over(backup)
    assert done is not None
    assert done.mounted_at == "/srv/a"
    assert backup.done == [
        "drbdadm disconnect test_a",
        "drbdadm primary test_a",
        "mount -o X-mount.mkdir /dev/drbd0 /srv/a",
    ]
    assert backup.setters() == {"failover"}
    assert set(journal.remembered(SERVING)) == {"test_a"}
    assert journal.operations() == {}
    assert [e["event"] for e in journal.events()].count("failover") == 1


def test_nobody_wants_it_and_nothing_is_changed(backup: Kernel) -> None:
    assert take_over(backup, wanted=False) is None
    assert backup.done == []
    assert journal.operations() == {}
    assert backup.setters() == set()


def test_what_is_served_here_already_is_said(backup: Kernel) -> None:
    backup.primary, backup.mounts = True, ["/srv/a"]
    backup.publish()
    with pytest.raises(Refused, match=r"served by this machine already \(Primary and mounted at /srv/a\)"):
        take_over(backup)


def test_a_place_that_somebody_else_has_is_said_before(backup: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    del monkeypatch
    host.MOUNTINFO.write_text("30 1 0:55 / /srv/a rw - tmpfs none rw\n")
    with pytest.raises(Refused, match="none is mounted there"):
        take_over(backup)
    assert backup.done == []


def test_a_copy_that_was_never_whole_is_none(backup: Kernel) -> None:
    journal.begin("replicate", "test_a", {})
    with pytest.raises(Refused, match="add of test_a is not finished"):
        take_over(backup)


def test_it_is_for_the_backup(programs: Programs, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = Kernel(programs, root, Flavour.SERVER, monkeypatch)
    with pytest.raises(Refused, match="failover is for the backup"):
        take_over(server)


def test_a_step_that_fails_leaves_what_was_done_and_the_same_again_goes_on(backup: Kernel, programs: Programs) -> None:
    programs.allow(("e2fsck", "-p", "/dev/drbd0"), Answer("", 4, "UNEXPECTED INCONSISTENCY"))
    with pytest.raises(ToolFailed, match="UNEXPECTED") as error:
        take_over(backup)
    assert "make a snapshot" in error.value.hint
    assert backup.primary
    assert "failover-test_a" in journal.operations()
    programs.allow(("e2fsck", "-p", "/dev/drbd0"), Answer())
    assert take_over(backup) is not None
    assert backup.mounts == ["/srv/a"]
    assert backup.done.count("drbdadm primary test_a") == 1


def test_a_hook_that_others_may_change_stops_it_before_it_begins(
    backup: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hooks, "OWNER", os.getuid())
    program(alert.SETTINGS / "failover.d/address", 0o777)
    with pytest.raises(Refused, match="others than root may write"):
        take_over(backup)
    assert backup.done == []


# -- is it gone --------------------------------------------------------------------------------------


def look(kernel: Kernel) -> Server:
    return failover.look_for_server(kernel.site, kernel.resource, observe(kernel.site))


def answers(monkeypatch: pytest.MonkeyPatch, answer: messages.MachineReport | OffsiteError) -> None:
    def ask(*_: object, **__: object) -> object:
        if isinstance(answer, OffsiteError):
            raise answer
        return answer

    monkeypatch.setattr(peer, "ask", ask)


def report(role: str) -> messages.MachineReport:
    half = messages.ResourceReport("test_a", role, "UpToDate", "Connecting", 0, "")
    return messages.MachineReport("server", "8.4.11", [half])


def test_a_server_that_says_nothing_anywhere_is_silent(backup: Kernel) -> None:
    assert look(backup) is Server.SILENT


def test_one_that_answers_outside_the_tunnel_may_be_alive(backup: Kernel, programs: Programs) -> None:
    programs.allow(OUTSIDE, Answer())
    assert look(backup) is Server.OUTSIDE
    with pytest.raises(Refused, match="answers outside the tunnel"):
        take_over(backup)
    assert take_over(backup, force=True) is not None


@pytest.mark.parametrize(("role", "found"), [("Primary", Server.SERVING), ("Secondary", Server.IDLE)])
def test_one_that_answers_says_whether_it_serves(
    backup: Kernel, monkeypatch: pytest.MonkeyPatch, role: str, found: Server
) -> None:
    answers(monkeypatch, report(role))
    assert look(backup) is found


def test_an_answer_that_is_not_understood_is_a_sign_of_life(backup: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, BadRequest("not JSON"))
    assert look(backup) is Server.OUTSIDE


def test_after_a_boot_it_is_mounted_again(backup: Kernel) -> None:
    take_over(backup)
    backup.mounts, backup.primary = [], False
    backup.publish()
    serve.resume(backup.site, ["test_a"], lambda _: None)
    assert backup.primary
    assert backup.mounts == ["/srv/a"]
    before = list(backup.done)
    serve.resume(backup.site, ["test_a"], lambda _: None)
    assert backup.done == before
