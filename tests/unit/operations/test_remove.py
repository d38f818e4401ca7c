"""``remove`` from end to end on a simulated machine, killed at every program and at every step."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from drbd_offsite import config, files, journal, messages
from drbd_offsite.errors import OffsiteError, PeerUnreachable, Refused, ToolFailed
from drbd_offsite.host import observe, survey
from drbd_offsite.model import Flavour, VolumeName
from drbd_offsite.observed import Forbidden
from drbd_offsite.operations import half, remove
from drbd_offsite.plan.remove import UNSETTLED
from drbd_offsite.plan.task import Task, allocate
from drbd_offsite.tools import drbd, filesystem

from .. import make
from ..conftest import Answer, Programs
from ..plan.machine import BY_RES, FSTAB_NAMES, USED, Kernel, Machine
from ..plan.test_half import DATA, FSTAB, POOL
from ..plan.test_remove import MOVED, SERVED_THERE, configuration, rendered
from .test_half import THERE, bare
from .world import Killed, World, forget, killed

SERVER, BACKUP = Flavour.SERVER, Flavour.BACKUP
RELEASE = messages.Release("test_a", messages.Half.of(make.replica()), delete_copy=False, only_check=False)
OTHER = VolumeName("local", "other")


def replicating(flavour: Flavour, *names: str, **changes: object) -> Machine:
    """A machine with these resources, test_a among them, all of them up."""
    names = names or ("test_a",)
    here = make.replica(names.index("test_a"))
    text = configuration(flavour, *names)
    served = flavour is SERVER
    at = Machine(
        flavour,
        make.operation("nothing", Task("test_a", flavour.other, make.GIB, here, metadata_created=True).parameters()),
        text,
        messages.Half.of(make.replica()),
        {DATA: make.GIB, POOL: 512 * make.MIB},
        precious=DATA if served else None,
        files=rendered(text, flavour),
        metadata=USED,
        synced=True,
        size=make.GIB,
        peer_bytes=make.GIB,
        module=True,
        enabled=True,
        active=True,
        kernel=Kernel(here.minor, attached=True, primary=served, connected=True),
        in_step=True,
        neighbours={name: number - 1 for number, name in enumerate(names) if name != "test_a"},
    )
    return replace(at, **changes)


def mounted(**changes: object) -> Machine:
    return replicating(SERVER, fstab=MOVED, mounts=[("/dev/drbd0", "/srv/a")], **changes)


pytestmark = pytest.mark.usefixtures("texts_read_once")


@pytest.fixture
def server(programs: Programs, root: Path) -> World:
    return World(replicating(SERVER), programs, root)


def run(told: Callable[[str], None] = lambda _: None, name: str = "test_a", **options: object) -> None:
    remove.remove(config.load(), name, tell=told, **options)


def plain(world: World) -> None:
    """Nothing of test_a is left on this machine, but its volume."""
    world.collect()
    at = world.machine
    assert at.kernel is None
    assert not at.enabled
    assert not at.active
    assert at.metadata is None
    assert "test_a" not in config.load().resources
    assert not list(world.root.glob("etc/drbd.d/*_test_a.res"))
    assert not list(world.root.glob("etc/systemd/system/drbd-offsite@test_a*"))
    assert journal.holds() == {}


def finished(world: World) -> None:
    plain(world)
    assert journal.operations() == {}


def untouched(world: World, before: str) -> None:
    """A refusal has changed nothing, and begun nothing."""
    assert world.machine.log == []
    assert config.PATH.read_text() == before
    assert journal.operations() == {}


# -- the server --------------------------------------------------------------------------------------


def test_remove_gives_the_volume_back_and_tells_every_step(server: World) -> None:
    asked: list[messages.Request] = []
    server.peer = lambda request: asked.append(request) or messages.Done()
    told: list[str] = []
    run(told.append)
    finished(server)
    assert server.machine.volumes == {DATA: make.GIB, POOL: 512 * make.MIB}
    assert asked == [replace(RELEASE, only_check=True), RELEASE]
    assert any(line.startswith("drbdadm down test_a") for line in told)
    assert not any(make.SECRET in line for line in told)
    assert [e["event"] for e in journal.events()] == ["operation-begun", "operation-ended"]


def test_it_is_what_it_was_before_add(programs: Programs, root: Path) -> None:
    made = bare(SERVER)
    made.fstab, made.mounts = FSTAB, [(DATA.path, "/srv/a")]
    world = World(made, programs, root)
    world.peer = lambda request: (
        messages.Replicated(messages.Half.of(THERE), make.GIB) if request.VERB == "replicate" else messages.Done()
    )
    before = config.PATH.read_text()
    half.add(config.load(), DATA, remount=True, tell=lambda _: None)
    world.machine.in_step = True
    run(remount=True)
    finished(world)
    assert config.PATH.read_text() == before
    assert half.FSTAB.read_text() == FSTAB
    assert world.machine.mounts == [(DATA.path, "/srv/a")]
    half.add(config.load(), DATA, remount=True, tell=lambda _: None)
    assert config.load().resources["test_a"].here == make.replica(), "and the numbers are used again"


def test_dry_run_prints_the_steps_and_begins_nothing(server: World) -> None:
    before = config.PATH.read_text()
    told: list[str] = []
    run(told.append, dry_run=True)
    assert told[0].startswith("drbdadm secondary test_a")
    assert told[-1].startswith("ask backup to release")
    untouched(server, before)


def same(world: World, power_cut: bool) -> None:
    """After a kill: it does not come up again, and the same command finishes it."""
    world.kill_at = None
    if power_cut:
        begun = bool(journal.operations())
        world.boot()
        assert (world.machine.kernel is None) is begun, "what was begun keeps it down"
        world.machine.in_step = True
    run(remount=True)
    finished(world)
    assert world.machine.fstab == FSTAB
    assert world.machine.mounts == [(DATA.path, "/srv/a")]


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("power_cut", [False, True], ids=["killed", "power-cut"])
def test_remove_killed_at_any_program_is_finished_by_the_same_command(
    programs: Programs, root: Path, late: bool, power_cut: bool
) -> None:
    for world in killed(lambda: World(mounted(), programs, root), lambda: run(remount=True), at_least=7, late=late):
        same(world, power_cut)


@pytest.mark.parametrize("power_cut", [False, True], ids=["killed", "power-cut"])
def test_remove_that_dies_after_any_step_is_finished_by_the_same_command(
    programs: Programs, root: Path, power_cut: bool, last_step: Callable[[int], None]
) -> None:
    for world in killed(lambda: World(mounted(), programs, root), lambda: run(remount=True), at_least=12, at=last_step):
        same(world, power_cut)


def unfinished_adds(programs: Programs, root: Path, step: Callable[[int], None]) -> Iterator[World]:
    """An ``add --remount`` that has died after each of its steps."""

    def start() -> World:
        made = bare(SERVER)
        made.fstab, made.mounts, made.metadata = FSTAB, [(DATA.path, "/srv/a")], None
        world = World(made, programs, root)
        world.peer = lambda request: (
            messages.Replicated(messages.Half.of(THERE), make.GIB) if request.VERB == "replicate" else messages.Done()
        )
        return world

    def add() -> None:
        half.add(config.load(), DATA, remount=True, tell=lambda _: None)

    return killed(start, add, at_least=11, at=step)


@pytest.mark.parametrize("power_cut", [False, True], ids=["killed", "power-cut"])
def test_an_unfinished_add_is_undone_by_remove(
    programs: Programs, root: Path, power_cut: bool, last_step: Callable[[int], None]
) -> None:
    for world in unfinished_adds(programs, root, last_step):
        world.collect()
        if power_cut:
            world.power_cut()
        ours = journal.operations()["add-test_a"].parameters["metadata_created"]
        before = world.machine.metadata
        run(remount=True)
        assert world.machine.metadata == (None if ours else before)
        world.machine.metadata = None
        finished(world)
        assert half.FSTAB.read_text() == FSTAB
        assert world.machine.mounts == [(DATA.path, "/srv/a")]
        assert [e["text"] for e in journal.events() if e["event"] == "operation-ended"] == [
            "add was given up.",
            "remove is complete.",
        ]


@pytest.mark.parametrize("verb", ["grow", "set", "replace-backup"])
def test_what_is_unfinished_is_given_up_with_its_resource(server: World, verb: str) -> None:
    journal.begin(verb, "test_a", {"asked": "+1G"})
    journal.begin(verb, "test_b", {"asked": "+1G"})
    run()
    plain(server)
    assert list(journal.operations()) == [f"{verb}-test_b"]
    assert f"{verb} was given up." in [e["text"] for e in journal.events()]


def test_a_tool_that_fails_leaves_a_removal_that_can_be_given_up(server: World) -> None:
    server.machine.held_open = True
    with pytest.raises(ToolFailed, match="held open"):
        run()
    assert list(journal.operations()) == ["remove-test_a"]
    remove.give_up(config.load(), "test_a")
    assert journal.operations() == {}
    assert journal.events()[-1]["text"] == "remove was given up."
    assert server.machine.kernel.primary, "it goes on as before"


def test_a_removal_that_has_taken_it_down_is_not_given_up(server: World) -> None:
    server.kill_at = -4
    with pytest.raises(Killed):
        run()
    assert server.machine.kernel is None
    with pytest.raises(Refused, match="is down already") as raised:
        remove.give_up(config.load(), "test_a")
    assert "Only forward is safe: drbd-offsite remove test_a" in raised.value.hint
    assert list(journal.operations()) == ["remove-test_a"]


@pytest.mark.usefixtures("server")
def test_there_is_nothing_to_give_up_where_nothing_is_unfinished() -> None:
    with pytest.raises(Refused, match="No removal of test_a is unfinished"):
        remove.give_up(config.load(), "test_a")


def test_the_resource_that_waited_for_it_is_told_once_what_it_waits_for_now(programs: Programs, root: Path) -> None:
    for number in (None, *range(1, 16)):
        world = World(replicating(SERVER, "first", "test_a", "third", "fourth"), programs, root)
        world.kill_at = -number if number else None
        try:
            run()
        except Killed:
            world.kill_at = None
            run()
        finished(world)
        assert world.machine.neighbours == {"first": -1, "third": 0, "fourth": 2}
        told = [line for line in world.machine.log if line.startswith("drbdsetup")]
        assert set(told) == {"drbdsetup disk-options 2 --resync-after=0"}
        assert number is not None or len(told) == 1
        assert 'resync-after "first/0"' in (root / "etc/drbd.d/2_third.res").read_text()
        forget(root)


def test_a_removal_that_keeps_the_copy_does_not_come_to_delete_it(server: World) -> None:
    server.away = True
    with pytest.raises(PeerUnreachable):
        run()
    with pytest.raises(Refused, match="an earlier command, which keeps the backup's copy"):
        run(delete_copy=True)
    server.away = False
    run()
    finished(server)


def test_the_backup_is_told_that_its_copy_may_go(server: World) -> None:
    asked: list[messages.Request] = []
    server.peer = lambda request: asked.append(request) or messages.Done()
    server.kill_at = 3
    with pytest.raises(Killed):
        run(delete_copy=True)
    server.kill_at = None
    run()
    assert asked[-1] == replace(RELEASE, delete_copy=True), "also by a command that no longer says so"
    assert DATA in server.machine.volumes


# -- the backup is away, or says no ------------------------------------------------------------------


def gone(world: World) -> World:
    """What is left is the backup's half."""
    world.away = True
    with pytest.raises(PeerUnreachable):
        run()
    plain(world)
    assert list(journal.operations()) == ["remove-test_a"]
    world.machine.log.clear()
    return world


def follow_up() -> None:
    site = config.load()
    remove.follow_up(site, observe(site))


def test_what_is_removed_without_the_backup_is_finished_by_the_watcher(server: World) -> None:
    asked: list[messages.Request] = []
    server.peer = lambda request: asked.append(request) or messages.Done()
    gone(server)
    follow_up()
    assert list(journal.operations()) == ["remove-test_a"], "it is still away, which is no error"
    server.away = False
    follow_up()
    finished(server)
    assert asked == [RELEASE]
    assert server.machine.log == [], "nothing is left to do here"


def test_what_is_removed_without_the_backup_is_finished_by_the_same_command_too(server: World) -> None:
    gone(server).away = False
    run()
    finished(server)


def test_nobody_is_asked_while_the_tunnel_is_down(server: World, programs: Programs) -> None:
    gone(server).machine.tunnel = False
    server.publish()
    site = config.load()
    host = observe(site)
    programs.ran.clear()
    remove.follow_up(site, host)
    assert programs.ran == []


def test_the_watcher_finishes_what_was_killed_after_the_configuration_and_nothing_before(
    programs: Programs, root: Path, last_step: Callable[[int], None]
) -> None:
    """Before, it is a person's decision whether it goes on."""
    seen = set()
    for world in killed(lambda: World(mounted(), programs, root), lambda: run(remount=True), at_least=12, at=last_step):
        world.collect()
        world.machine.log.clear()
        configured = "test_a" in config.load().resources
        follow_up()
        assert bool(journal.operations()) is configured
        if configured:
            assert world.machine.log == []
        else:
            finished(world)
        seen.add(configured)
    assert seen == {True, False}


def test_what_somebody_has_finished_meanwhile_is_not_begun_again(server: World) -> None:
    site = config.load()
    gone(server)
    looked = observe(config.load())
    server.away = False
    run()
    assert config.load() != site
    remove.follow_up(config.load(), looked)
    assert journal.operations() == {}


def test_a_backup_that_is_no_longer_configured_is_not_waited_for(server: World) -> None:
    gone(server)
    config.PATH.write_text(config.updated(config.PATH.read_text(), {"peers.backup": None}))
    follow_up()
    finished(server)


def test_a_removal_that_fails_does_not_keep_the_others_back(server: World) -> None:
    gone(server).away = False
    parameters = dict(journal.operations()["remove-test_a"].parameters)
    journal.begin("remove", "a_first", parameters)

    def answer(request: messages.Release) -> messages.Done:
        if request.name == "a_first":
            raise ToolFailed("lvremove failed: it is in use.")
        return messages.Done()

    server.peer = answer
    with pytest.raises(OffsiteError, match="lvremove failed"):
        follow_up()
    assert list(journal.operations()) == ["remove-a_first"]


def test_numbers_and_names_that_the_backup_still_knows_are_not_used_again(server: World) -> None:
    server.machine.volumes[OTHER] = make.GIB
    gone(server)
    site = config.load()
    taken = allocate(site, survey(site), OTHER, make.GIB)
    assert (taken.minor, taken.metadata.index, taken.port) == (1, 1, 7790)
    with pytest.raises(Refused, match=r"remove of .* as test_a is under way") as raised:
        half.check(site, survey(site), OTHER, name="test_a")
    assert "drbd-offsite remove test_a" in raised.value.hint
    server.away = False
    follow_up()
    freed = allocate(site, survey(site), OTHER, make.GIB)
    assert (freed.minor, freed.metadata.index, freed.port) == (0, 0, 7789)
    server.peer = lambda _: messages.Replicated(messages.Half.of(THERE), make.GIB)
    assert half.check(site, survey(site), DATA).resource == "test_a"


def test_a_backup_that_uses_its_copy_is_a_refusal_before_anything_is_begun(server: World) -> None:
    def no(_: messages.Request) -> messages.Answer:
        raise Refused("test_a is in use on backup (Primary), so its copy is not given up.", "secondary")

    before = config.PATH.read_text()
    server.peer = no
    with pytest.raises(Refused, match=r"in use on backup \(Primary\)"):
        run()
    untouched(server, before)


def test_a_backup_that_says_no_at_the_end_is_asked_again_by_the_watcher(server: World) -> None:
    def no(request: messages.Release) -> messages.Answer:
        if request.only_check:
            return messages.Done()
        raise Refused("test_a is in use on backup (mounted at /mnt), so its copy is not given up.", "umount")

    server.peer = no
    with pytest.raises(Refused, match="in use on backup"):
        run()
    plain(server)
    follow_up()
    assert list(journal.operations()) == ["remove-test_a"]
    server.peer = lambda _: messages.Done()
    follow_up()
    finished(server)


# -- refusals ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["nothing", "a/b", "../x", ".", "-x", "", "a b", "x" * 100_000, "a\n"])
@pytest.mark.parametrize("verb", [remove.give_up, lambda site, name: remove.remove(site, name, tell=print)])
def test_what_is_no_resource_is_refused_before_it_is_the_name_of_a_file(
    server: World, name: str, verb: Callable[..., None]
) -> None:
    before = config.PATH.read_text()
    with pytest.raises(Refused, match="There is no resource") as raised:
        verb(config.load(), name)
    assert raised.value.hint == "Configured: test_a."
    assert not files.LOCKS.joinpath("site.lock").exists()
    untouched(server, before)


def test_somebody_else_s_resource_is_not_ours_to_remove(server: World, programs: Programs) -> None:
    before = config.PATH.read_text()
    text = "exists resource name:foreign role:Primary suspended:no\nexists -\n"
    programs.allow(drbd.EVENTS, text)
    with pytest.raises(Refused, match="There is no resource foreign"):
        run(name="foreign")
    untouched(server, before)


def test_a_mounted_one_needs_leave_to_be_mounted_elsewhere(programs: Programs, root: Path) -> None:
    world = World(mounted(), programs, root)
    before = config.PATH.read_text()
    with pytest.raises(Refused, match="/dev/drbd0 is mounted at /srv/a") as raised:
        run()
    assert "--remount" in raised.value.hint
    untouched(world, before)
    assert half.FSTAB.read_text() == MOVED


@pytest.mark.parametrize("name", [BY_RES, "/dev/drbd0", "/dev/drbd/by-disk/local/test_a"])
def test_one_that_fstab_mounts_needs_leave_too(programs: Programs, root: Path, name: str) -> None:
    world = World(replicating(SERVER, fstab=f"{name} /srv/a ext4 defaults 0 2\n"), programs, root)
    before = config.PATH.read_text()
    with pytest.raises(Refused, match=r"is in /etc/fstab, for /srv/a"):
        run()
    untouched(world, before)
    run(remount=True)
    finished(world)
    assert half.FSTAB.read_text() == "/dev/local/test_a /srv/a ext4 defaults 0 2\n"
    assert filesystem.fstab_targets(half.FSTAB.read_text(), FSTAB_NAMES) == ("/srv/a",)
    assert world.machine.mounts == [], "what was not mounted is not mounted"


def test_a_line_that_waits_for_its_unit_is_changed_with_leave_only(programs: Programs, root: Path) -> None:
    line = "LABEL=test_a /srv/a ext4 nofail,x-systemd.requires=drbd-offsite@test_a.service 0 2\n"
    world = World(replicating(SERVER, fstab=line), programs, root)
    before = config.PATH.read_text()
    with pytest.raises(Refused, match=r"is in /etc/fstab, for /srv/a"):
        run()
    untouched(world, before)
    assert half.FSTAB.read_text() == line
    run(remount=True)
    finished(world)
    assert half.FSTAB.read_text() == "LABEL=test_a /srv/a ext4 nofail 0 2\n"


def test_what_the_backup_serves_is_not_removed_though_it_does_not_answer(programs: Programs, root: Path) -> None:
    """DRBD is connected and says so, whatever has become of ssh."""
    world = World(replicating(SERVER, kernel=SERVED_THERE, peer_serves=True), programs, root)
    before = config.PATH.read_text()
    world.away = True
    with pytest.raises(Refused, match="test_a is Primary on the backup"):
        run()
    untouched(world, before)


@pytest.mark.parametrize("setter", sorted(UNSETTLED))
def test_what_the_other_copy_may_have_and_this_one_not_is_settled_first(server: World, setter: str) -> None:
    before = config.PATH.read_text()
    journal.hold("test_a", "it is not settled", frozenset({Forbidden.CONNECT}), setter)
    with pytest.raises(Refused, match="all of its data here: it is not settled") as raised:
        run()
    assert "drbd-offsite status test_a" in raised.value.hint
    untouched(server, before)


def test_one_that_was_taken_down_is_brought_up_first(server: World) -> None:
    before = config.PATH.read_text()
    server.machine.kernel = None
    with pytest.raises(Refused, match="it is not up"):
        run()
    untouched(server, before)


def test_a_machine_that_cannot_be_seen_is_left_alone(server: World, programs: Programs) -> None:
    before = config.PATH.read_text()
    programs.allow(drbd.EVENTS, Answer("", 20, "no answer"))
    with pytest.raises(Refused):
        run()
    untouched(server, before)


def test_one_that_cannot_be_seen_any_more_is_taken_no_further(server: World, programs: Programs) -> None:
    """Or what is only hidden would count as taken down, and its volume be mounted."""
    server.kill_at = 3
    with pytest.raises(Killed):
        run()
    server.kill_at = None
    programs.allow(drbd.EVENTS, Answer("", 20, "no answer"))
    log = list(server.machine.log)
    with pytest.raises(OffsiteError, match=r"cannot be seen: .*no answer"):
        run()
    assert server.machine.log == log
    assert list(journal.operations()) == ["remove-test_a"]


def test_remove_is_for_the_server_and_release_for_the_backup(server: World) -> None:
    before = config.PATH.read_text()
    with pytest.raises(Refused, match="release is for the backup"):
        remove.release(config.load(), "backup", RELEASE)
    config.PATH.write_text(configuration(BACKUP, "test_a"))
    with pytest.raises(Refused, match="remove is for the server"):
        run()
    config.PATH.write_text(before)
    untouched(server, before)
