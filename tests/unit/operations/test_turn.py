"""The steps of a handover on one machine, with a kernel that is as strict as the real one."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from drbd_offsite import alert, hooks, host, journal, messages
from drbd_offsite.errors import BadRequest, Refused, ToolFailed
from drbd_offsite.host import SERVING
from drbd_offsite.model import Flavour, Resource, Site, Turn
from drbd_offsite.observed import Forbidden
from drbd_offsite.operations import half, mounts, repair, serve, turn
from drbd_offsite.operations.restore_point import DISCARDS, KEPT
from drbd_offsite.tools import drbd, filesystem, systemd

from .. import make
from ..conftest import Answer, Programs
from ..test_alert import program

GENERATIONS = "00000000000000B1:00000000000000A0:0000000000000000:0000000000000000:1:1:1:1:0:0"


class Kernel:
    """One resource, its mounts, and what was done to it."""

    def __init__(self, programs: Programs, root: Path, flavour: Flavour, monkeypatch: pytest.MonkeyPatch) -> None:
        self.flavour = flavour
        site = make.site(flavour)
        self.resource: Resource = replace(site.resources["test_a"], mount="/srv/a" if flavour is Flavour.BACKUP else "")
        self.site: Site = replace(site, resources={"test_a": self.resource})
        self.primary = True
        self.connection = "StandAlone"
        self.mounts: list[str] = []
        self.busy = False
        self.in_use = False
        self.done: list[str] = []
        self.fstab = root / "fstab"
        self.fstab.write_text("")
        programs.machine = self.answer
        programs.addresses.add(site.address_here(site.peers[flavour.other]))
        monkeypatch.setattr(half, "FSTAB", self.fstab)
        monkeypatch.setattr(turn, "FSTAB", self.fstab)
        monkeypatch.setattr(serve, "FSTAB", self.fstab)
        monkeypatch.setattr(mounts, "UNMOUNT_SECONDS", 0.0)
        monkeypatch.setattr("drbd_offsite.config.load", lambda: self.site)
        for volume in ("test_a", "drbd_meta"):
            path = root / f"dev/local/{volume}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        host.PROC_DRBD.parent.mkdir(exist_ok=True)
        self.publish()

    def publish(self) -> None:
        host.PROC_DRBD.write_text("version: 8.4.11 (api:1/proto:86-101)\n")
        lines = [f"30 1 147:0 / {target} rw - ext4 /dev/drbd0 rw\n" for target in self.mounts]
        host.MOUNTINFO.parent.mkdir(parents=True, exist_ok=True)
        host.MOUNTINFO.write_text("".join(lines))

    def answer(self, argv: tuple[str, ...], _: str) -> Answer | None:
        match argv:
            case drbd.EVENTS:
                return Answer(self.events())
            case ("drbdadm", "get-gi", "test_a"):
                return Answer(f"\n{GENERATIONS}\n")
            case ("lvm", "fullreport", *_):
                return Answer('{"report": [{"vg": [{"vg_name": "local", "vg_size": "9", "vg_free": "9", '
                              '"vg_extent_size": "4"}], "lv": []}]}')  # fmt: skip
            case ("blkid", *_):
                return Answer("TYPE=ext4\n")
            case ("blockdev", *_) | ("e2fsck", *_):
                return Answer()
        self.done.append(" ".join(argv))
        answer = self.act(argv)
        self.publish()
        return answer

    def act(self, argv: tuple[str, ...]) -> Answer | None:
        match argv:
            case ("umount", target):
                if self.busy:
                    return Answer("", 32, "umount: target is busy")
                self.mounts.remove(target)
            case ("mount", *_, target):
                assert self.primary, "mount: no such device"
                self.mounts.append(target)
            case ("drbdadm", "secondary", "test_a"):
                if self.in_use or self.mounts:  # by a virtual machine, or a device on it
                    return Answer("", 11, "State change failed: (-12) Device is held open by someone")
                self.primary = False
            case ("drbdadm", "primary", *_, "test_a"):
                self.primary = True
            case ("drbdadm", "connect", *_, "test_a"):
                assert self.connection == "StandAlone", "connect: net is configured already"
                self.connection = "Connecting"
            case ("drbdadm", "disconnect", "test_a"):
                self.connection = "StandAlone"
            case ("systemctl", *_, "start", "drbd-offsite@test_a.service"):
                assert self.primary
            case ("drbdadm", "new-current-uuid", "test_a/0"):
                assert self.connection == "StandAlone"
            case (path, *_) if "/failover.d/" in path:
                pass
            case _:
                return None
        return Answer()

    def events(self) -> str:
        role = "Primary" if self.primary else "Secondary"
        return (
            f"exists resource name:test_a role:{role} suspended:no\n"
            f"exists connection name:test_a conn-name:peer connection:{self.connection} role:Unknown\n"
            "exists device name:test_a volume:0 minor:0 disk:UpToDate size:1048576\n"
            "exists peer-device name:test_a conn-name:peer volume:0 replication:Off peer-disk:DUnknown out-of-sync:64\n"
            "exists -\n"
        )

    def take(self, step: Turn, keep: bool = True) -> None:
        turn.take(self.site, self.resource, step, keep, lambda _: None)

    def setters(self) -> set[str]:
        return {hold.set_by for hold in journal.holds().get("test_a", ())}


@pytest.fixture
def backup(programs: Programs, root: Path, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    return Kernel(programs, root, Flavour.BACKUP, monkeypatch)


@pytest.fixture
def server(programs: Programs, root: Path, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    return Kernel(programs, root, Flavour.SERVER, monkeypatch)


def test_how_it_stands_is_told_with_its_generations(backup: Kernel) -> None:
    journal.hold("test_a", "an array is rebuilt", frozenset({Forbidden.CONNECT}), "hold")
    found = turn.stance(backup.site, backup.resource)
    assert (found.role, found.changed_bytes, found.identifiers) == ("Primary", 65536, GENERATIONS)
    assert (found.blocked, found.settled, found.leftovers) == ("an array is rebuilt", True, False)
    repair.tail_due("test_a")
    assert not turn.stance(backup.site, backup.resource).settled


def test_of_two_that_are_connected_no_generations_are_asked_for(backup: Kernel) -> None:
    """The module tells nobody anything while a handler runs that it waits for (seen: before-resync-target)."""
    backup.connection = "Connected"
    assert turn.stance(backup.site, backup.resource).identifiers == ""


def test_what_the_backup_yields_is_unmounted_secondary_and_not_served_after_a_reboot(backup: Kernel) -> None:
    backup.mounts = ["/srv/a"]
    backup.publish()
    journal.remember(SERVING, "test_a", {})
    backup.take(Turn.YIELD)
    assert backup.done == ["umount /srv/a", "drbdadm secondary test_a"]
    assert journal.remembered(SERVING) == {}
    backup.take(Turn.YIELD)
    assert len(backup.done) == 2, "the second time there is nothing to do"


def test_what_the_server_yields_it_does_not_take_back_by_itself(server: Kernel) -> None:
    server.take(Turn.YIELD)
    assert server.setters() == {"handed-over"}


@pytest.mark.parametrize("how", ["busy", "in_use"])
def test_what_is_in_use_goes_on_being_served(server: Kernel, how: str) -> None:
    server.mounts = ["/srv/a"]
    setattr(server, how, True)
    server.publish()
    server.fstab.write_text("/dev/drbd0 /srv/a ext4 nofail 0 2\n")
    with pytest.raises(Refused, match="in use"):
        server.take(Turn.YIELD)
    assert server.primary
    assert server.setters() == set()
    assert server.mounts == ["/srv/a"]


def script(root: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    del root
    monkeypatch.setattr(hooks, "OWNER", os.getuid())
    return str(program(alert.SETTINGS / "failover.d/service"))


def test_what_was_started_is_stopped_before_it_is_unmounted(
    backup: Kernel, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = script(root, monkeypatch)
    backup.mounts = ["/srv/a"]
    backup.publish()
    backup.take(Turn.YIELD)
    call = f"{path} stop test_a /dev/drbd0 /srv/a"
    assert backup.done == [call, "umount /srv/a", "drbdadm secondary test_a"]


def test_what_was_stopped_is_started_again_where_something_else_uses_it(
    backup: Kernel, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = script(root, monkeypatch)
    backup.mounts, backup.busy = ["/srv/a"], True
    backup.publish()
    with pytest.raises(Refused, match="in use"):
        backup.take(Turn.YIELD)
    assert [line for line in backup.done if line.startswith(path)] == [
        f"{path} stop test_a /dev/drbd0 /srv/a",
        f"{path} start test_a /dev/drbd0 /srv/a",
    ]
    assert backup.mounts == ["/srv/a"]


def test_what_the_backup_cannot_give_away_it_mounts_again(backup: Kernel) -> None:
    backup.mounts, backup.in_use = ["/srv/a"], True
    backup.publish()
    with pytest.raises(Refused, match="in use"):
        backup.take(Turn.YIELD)
    assert backup.mounts == ["/srv/a"]


def test_who_receives_by_decision_says_so_to_drbd_and_keeps_what_it_had(backup: Kernel) -> None:
    backup.primary, backup.connection = False, "Connecting"
    journal.hold("test_a", "taken over", frozenset({Forbidden.CONNECT}), "failover")
    backup.take(Turn.DISCARD)
    assert backup.done == ["drbdadm disconnect test_a", "drbdadm connect --discard-my-data test_a"]
    assert journal.remembered(DISCARDS)["test_a"] == {"safety_net": True}
    assert backup.setters() == set()
    assert turn.stance(backup.site, backup.resource).turned == "discard"


def test_what_was_demoted_by_hand_and_promoted_again_meanwhile_is_demoted_for_good(backup: Kernel) -> None:
    journal.remember(SERVING, "test_a", {})
    backup.connection = "StandAlone"
    backup.publish()
    backup.take(Turn.DISCARD)
    assert backup.done == ["drbdadm secondary test_a", "drbdadm connect --discard-my-data test_a"]
    assert journal.remembered(SERVING) == {}


def test_who_receives_while_it_is_in_use_is_left_as_it_is(backup: Kernel) -> None:
    journal.remember(SERVING, "test_a", {})
    backup.connection, backup.in_use = "StandAlone", True
    backup.publish()
    with pytest.raises(Refused, match="in use"):
        backup.take(Turn.DISCARD)
    assert set(journal.remembered(SERVING)) == {"test_a"}
    assert (backup.primary, backup.connection) == (True, "StandAlone")


def test_what_was_to_be_kept_and_had_no_room_is_given_up_without_a_net_where_a_person_says_so(backup: Kernel) -> None:
    """The first try has connected, so that the second one needs no --discard-my-data."""
    backup.primary = False
    backup.take(Turn.DISCARD)
    assert journal.remembered(DISCARDS)["test_a"] == {"safety_net": True}
    backup.take(Turn.RECEIVE, keep=False)
    assert journal.remembered(DISCARDS)["test_a"] == {"safety_net": False}


def test_who_receives_by_generation_needs_no_word(server: Kernel) -> None:
    server.primary = False
    server.take(Turn.RECEIVE, keep=False)
    assert server.done == ["drbdadm connect test_a"]
    assert journal.remembered(DISCARDS) == {}
    assert server.setters() == {"handed-over"}, "it is not served before it has all"


def test_an_earlier_snapshot_of_what_was_given_up_is_not_overwritten(backup: Kernel) -> None:
    backup.primary = False
    journal.remember(KEPT, "test_a", {})
    with pytest.raises(Refused, match="still keeps what was given up"):
        backup.take(Turn.DISCARD)
    assert backup.done == []


def test_the_server_serves_again_and_mounts_what_fstab_mounts(server: Kernel) -> None:
    server.primary, server.connection = False, "Connecting"
    journal.hold("test_a", "handed over", frozenset({Forbidden.PROMOTE}), "handed-over")
    server.site = replace(server.site, boot_wait=0.0)
    server.fstab.write_text("/dev/drbd0 /srv/a ext4 nofail 0 2\n/dev/drbd0 /mnt ext4 noauto 0 0\n")
    server.take(Turn.SERVE)
    assert server.primary
    assert server.mounts == ["/srv/a"]
    assert server.setters() == set()


def test_the_backup_serves_mounts_and_runs_what_the_admin_wants(backup: Kernel, root: Path) -> None:
    backup.primary, backup.connection = False, "Connecting"
    backup.take(Turn.SERVE)
    assert backup.primary
    assert backup.mounts == ["/srv/a"]
    assert set(journal.remembered(SERVING)) == {"test_a"}
    assert journal.operations() == {}
    del root


def test_what_is_over_leaves_nothing_noted(backup: Kernel) -> None:
    for kind in (turn.TURNED, DISCARDS):
        journal.remember(kind, "test_a", {"turn": "receive"})
    journal.hold("test_a", "taken over", frozenset({Forbidden.CONNECT}), "failover")
    journal.hold("test_a", "blocks differ", frozenset(), "out-of-sync")
    assert turn.stance(backup.site, backup.resource).leftovers
    backup.take(Turn.SETTLE)
    assert not turn.stance(backup.site, backup.resource).leftovers
    assert backup.setters() == {"out-of-sync"}


# -- what the peer asks for ------------------------------------------------------------------------


def asked(kernel: Kernel, step: Turn, keep: bool = False) -> object:
    return turn.answer(kernel.site, kernel.flavour.other, messages.Take("test_a", step, keep))


def test_a_peer_takes_nothing_from_the_server_that_is_mounted(server: Kernel) -> None:
    server.mounts = ["/srv/a"]
    server.publish()
    with pytest.raises(Refused, match="is mounted at /srv/a on the server"):
        asked(server, Turn.YIELD)
    assert server.done == []


def test_a_peer_has_the_server_give_nothing_up_without_a_net(server: Kernel) -> None:
    server.primary = False
    asked(server, Turn.DISCARD, keep=False)
    assert journal.remembered(DISCARDS)["test_a"] == {"safety_net": True}


def test_a_peer_that_shares_no_such_resource_is_told_so(server: Kernel) -> None:
    with pytest.raises(BadRequest):
        turn.answer(server.site, "somebody", messages.Stand("test_a"))


UNIT = systemd.systemctl("start", systemd.turn_unit("yield", "test_a"))


def test_what_mounts_or_unmounts_is_left_to_a_unit_of_its_own(backup: Kernel, programs: Programs) -> None:
    def unit(_: str) -> Answer:
        turn.take_for_peer(backup.site, backup.resource, Turn.YIELD, lambda _: None)
        return Answer()

    programs.allow(UNIT, unit)
    assert asked(backup, Turn.YIELD) == messages.Done()
    assert not backup.primary


def test_how_the_unit_has_failed_is_told_to_the_peer(backup: Kernel, programs: Programs) -> None:
    backup.in_use = True

    def unit(_: str) -> Answer:
        with pytest.raises(Refused):
            turn.take_for_peer(backup.site, backup.resource, Turn.YIELD, lambda _: None)
        return Answer("", 1, "Job failed")

    programs.allow(UNIT, unit)
    with pytest.raises(Refused, match="in use and stays as it is"):
        asked(backup, Turn.YIELD)
    journal.forget(turn.ANSWERS, "test_a")
    programs.allow(UNIT, Answer("", 1, "Unit not found"))
    with pytest.raises(ToolFailed, match="Unit not found"):
        asked(backup, Turn.YIELD)


def test_the_mount_point_is_made() -> None:
    made = filesystem.mount_made("/dev/drbd0", "/srv/a", listed=False)
    assert made == ("mount", "-o", "X-mount.mkdir", "/dev/drbd0", "/srv/a")
