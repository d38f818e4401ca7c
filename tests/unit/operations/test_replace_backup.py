"""Another machine in the lost backup's place: every copy anew, and the server goes on serving."""

from pathlib import Path

import pytest

from drbd_offsite import config, journal, messages
from drbd_offsite.errors import PeerUnreachable, Refused
from drbd_offsite.observed import Forbidden
from drbd_offsite.operations.apply import apply
from drbd_offsite.operations.replace_backup import replace_backup

from .. import make
from ..conftest import Programs
from .test_half import SERVER, THERE, add, bare
from .world import World, killed

NEW = make.replica(9)
"""Where the new machine has its half; another minor, slot and port than the lost one's."""


class Spare:
    """The other machine: the lost one until it ``joins``, and then one that knows of nothing."""

    def __init__(self) -> None:
        self.half, self.tuned = THERE, dict[str, str]()

    def joins(self) -> None:
        self.half = NEW

    def __call__(self, request: messages.Request) -> messages.Answer:
        match request:
            case messages.Hello():
                return messages.Greeting("spare", "backup", "8.4.11", "2026-01-01T00:00:00+00:00")
            case messages.Tune("test_a", key, value, only_check=False):
                self.tuned[key] = value
                return messages.Done()
            case messages.Replicate():
                return messages.Replicated(messages.Half.of(self.half), make.GIB)
        raise AssertionError(request)


def lost(programs: Programs, root: Path) -> World:
    """test_a is served, its backup is gone for good, and another machine has joined."""
    world = World(bare(SERVER), programs, root)
    world.peer = spare = Spare()
    add()
    changed = {"resources.test_a.alerts": "faults", "resources.test_a.resync_rate": "2000"}
    config.PATH.write_text(config.updated(config.PATH.read_text(), changed))
    apply(config.load())
    spare.joins()
    world.collect()
    assert world.machine.kernel is not None
    world.machine.kernel.connected, world.machine.in_step = True, False
    world.changes = 0
    world.machine.log.clear()
    world.publish()
    return world


def replace() -> list[str]:
    return replace_backup(config.load(), "", lambda _: None)


def replaced(world: World) -> None:
    world.collect()
    at = world.machine
    assert config.load().resources["test_a"].there == NEW
    assert f":{NEW.port};" in (world.root / "etc/drbd.d/0_test_a.res").read_text()
    assert journal.operations() == journal.holds() == {}
    assert at.kernel is not None
    assert at.kernel.primary
    assert at.kernel.connected
    assert isinstance(world.peer, Spare)
    assert world.peer.tuned == {"resync_rate": "2000", "alerts": "faults"}, "what the usual ones are not"


def test_the_new_machine_s_half_is_taken_and_connected_while_the_server_serves(programs: Programs, root: Path) -> None:
    world = lost(programs, root)
    assert replace() == ["test_a"]
    replaced(world)
    log = world.machine.log
    assert log.index("drbdadm disconnect test_a") < log.index("drbdadm connect test_a")
    assert not any(
        word in line for line in log for word in ("secondary", "down", "detach", "create-md", "wipe-md", "umount")
    )


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
def test_killed_at_any_program_it_is_finished_by_the_same_command(programs: Programs, root: Path, late: bool) -> None:
    for world in killed(lambda: lost(programs, root), replace, at_least=3, late=late):
        replace()
        replaced(world)


def test_nothing_is_begun_while_nobody_answers(programs: Programs, root: Path) -> None:
    world = lost(programs, root)
    world.machine.tunnel = False
    world.publish()
    with pytest.raises(PeerUnreachable):
        replace()
    assert journal.operations() == journal.holds() == {}
    assert world.machine.log == []


def test_a_backup_that_is_connected_is_not_replaced(programs: Programs, root: Path) -> None:
    world = lost(programs, root)
    world.machine.in_step = True
    with pytest.raises(Refused, match="and is connected"):
        replace()
    assert world.machine.log == []


def test_a_server_without_a_complete_copy_gives_nothing_to_a_new_backup(programs: Programs, root: Path) -> None:
    world = lost(programs, root)
    assert world.machine.kernel is not None
    world.machine.kernel.primary = False
    with pytest.raises(Refused, match="not served here"):
        replace()
    assert world.machine.log == []


def test_what_is_held_is_refused_and_not_waited_for_without_an_end(programs: Programs, root: Path) -> None:
    world = lost(programs, root)
    journal.hold("test_a", "the copies have diverged", frozenset({Forbidden.CONNECT}), "split-brain")
    with pytest.raises(Refused, match="the copies have diverged") as refused:
        replace()
    assert "drbd-offsite connect test_a" in refused.value.hint
    assert world.machine.log == []
