"""``release``, the backup's half of ``remove``, killed at every program and at every step."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from drbd_offsite import config, journal, messages
from drbd_offsite.errors import BadRequest, Refused
from drbd_offsite.host import survey
from drbd_offsite.operations import half, remove
from drbd_offsite.plan.remove import Removal
from drbd_offsite.plan.task import allocate

from .. import make
from ..conftest import Programs
from ..plan.machine import Kernel
from ..plan.test_half import DATA
from .test_half import REQUEST, bare
from .test_remove import BACKUP, OTHER, RELEASE, finished, replicating, untouched
from .world import Killed, World, killed

pytestmark = pytest.mark.usefixtures("texts_read_once")


@pytest.fixture
def backup(programs: Programs, root: Path) -> World:
    return World(replicating(BACKUP), programs, root)


def release(request: messages.Release = RELEASE, requester: str = "server") -> None:
    assert remove.release(config.load(), requester, request) == messages.Done()


def test_release_forgets_the_resource_and_keeps_the_copy(backup: World) -> None:
    release()
    finished(backup)
    assert DATA in backup.machine.volumes
    (event,) = [e for e in journal.events() if e["event"] == "released"]
    assert event["text"] == "server replicates it no more; the copy stays on local/test_a."


def test_a_copy_that_is_not_wanted_goes_at_the_end(backup: World) -> None:
    release(replace(RELEASE, delete_copy=True))
    finished(backup)
    assert DATA not in backup.machine.volumes
    assert backup.machine.log[-1].startswith("lvremove")
    assert "stays" not in journal.events()[-1]["text"]


def test_the_same_request_again_finds_it_done(backup: World) -> None:
    release()
    log = list(backup.machine.log)
    release()
    assert backup.machine.log == log
    finished(backup)


def test_a_check_releases_nothing(backup: World) -> None:
    before = config.PATH.read_text()
    release(replace(RELEASE, only_check=True))
    untouched(backup, before)
    backup.kill_at = 2
    with pytest.raises(Killed):
        release()
    backup.kill_at = None
    log = list(backup.machine.log)
    release(replace(RELEASE, only_check=True))
    assert backup.machine.log == log, "nor does it go on with what is unfinished"


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("power_cut", [False, True], ids=["killed", "power-cut"])
@pytest.mark.parametrize("delete_copy", [False, True], ids=["kept", "deleted"])
def test_release_killed_at_any_program_is_finished_by_the_same_request(
    programs: Programs, root: Path, late: bool, power_cut: bool, delete_copy: bool
) -> None:
    request = replace(RELEASE, delete_copy=delete_copy)
    for world in killed(
        lambda: World(replicating(BACKUP), programs, root), lambda: release(request), at_least=3, late=late
    ):
        if power_cut:
            world.boot()
            assert world.machine.kernel is None, "it does not come up again"
        release(request)
        finished(world)
        assert (DATA in world.machine.volumes) is not delete_copy


def test_an_unfinished_replicate_is_undone_from_each_of_its_steps(
    programs: Programs, root: Path, last_step: Callable[[int], None]
) -> None:
    def replicate() -> None:
        half.replicate(config.load(), "server", REQUEST)

    for world in killed(lambda: World(bare(BACKUP), programs, root), replicate, at_least=8, at=last_step):
        world.collect()
        ours = journal.operations()["replicate-test_a"].parameters["metadata_created"]
        before = world.machine.metadata
        release(replace(RELEASE, delete_copy=True))
        assert world.machine.metadata == (None if ours else before)
        world.machine.metadata = None
        finished(world)
        assert DATA not in world.machine.volumes


def test_of_what_it_never_made_there_is_nothing_to_release(programs: Programs, root: Path) -> None:
    world = World(bare(BACKUP), programs, root)
    release()
    assert world.machine.log == []
    assert journal.events() == []


@pytest.mark.parametrize(
    ("request_", "requester"),
    [(RELEASE, "somebody"), (replace(RELEASE, server=messages.Half.of(make.replica(9))), "server")],
    ids=["another server", "another resource of that name"],
)
def test_nobody_else_s_resource_is_released(backup: World, request_: messages.Release, requester: str) -> None:
    before = config.PATH.read_text()
    with pytest.raises(BadRequest, match="no such resource test_a"):
        release(request_, requester)
    untouched(backup, before)
    backup.kill_at = 2
    with pytest.raises(Killed):
        release()
    backup.kill_at = None
    with pytest.raises(BadRequest, match="no resource test_a"):
        release(requester="somebody")


@pytest.mark.parametrize(
    ("state", "where"),
    [
        ({"kernel": Kernel(0, attached=True, primary=True)}, "Primary"),
        ({"kernel": Kernel(0, attached=True, primary=True), "mounts": [("/dev/drbd0", "/mnt")]}, "mounted at /mnt"),
    ],
    ids=["primary", "mounted"],
)
@pytest.mark.parametrize("only_check", [False, True])
def test_a_copy_in_use_is_not_given_up(
    programs: Programs, root: Path, state: dict[str, object], where: str, only_check: bool
) -> None:
    world = World(replicating(BACKUP, **state), programs, root)
    before = config.PATH.read_text()
    with pytest.raises(Refused, match="in use on") as raised:
        release(replace(RELEASE, only_check=only_check))
    assert where in raised.value.message
    assert "drbdadm secondary test_a" in raised.value.hint
    untouched(world, before)


@pytest.mark.usefixtures("backup")
def test_what_a_release_has_decided_is_in_the_journal() -> None:
    journal.begin("release", "test_b", Removal("test_b", "server", make.replica(5)).parameters())
    assert allocate(config.load(), survey(config.load()), OTHER, make.GIB).minor == 1
    assert Removal.of(journal.operations()["release-test_b"]).here == make.replica(5)
