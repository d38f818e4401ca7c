"""``add`` and ``replicate`` from end to end on a simulated machine, killed at every program."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from drbd_offsite import config, files, journal, messages, protocol
from drbd_offsite.errors import BadRequest, ConfigError, OffsiteError, PeerUnreachable, Refused, ToolFailed
from drbd_offsite.model import Flavour, MetadataPlace, VolumeName
from drbd_offsite.operations import half
from drbd_offsite.plan.actions import describe
from drbd_offsite.plan.task import Task
from drbd_offsite.tools import filesystem
from drbd_offsite.tools.drbd import Identifiers

from .. import make
from ..conftest import Answer, Programs
from ..plan.machine import FRESH, FSTAB_NAMES, Machine
from ..plan.test_half import DATA, FSTAB, POOL, empty_config
from .world import Killed, World, killed

SERVER, BACKUP = Flavour.SERVER, Flavour.BACKUP
THERE = make.replica(3)
HERE = os.uname().nodename
REQUEST = messages.Replicate(
    "test_a", make.GIB, messages.Half.of(make.replica()), overwrite_metadata=False, only_check=False
)


def bare(flavour: Flavour) -> Machine:
    """Enrolled, and nothing replicated."""
    nothing = make.operation("nothing", Task("test_a", flavour.other, make.GIB, make.replica()).parameters())
    volumes = {DATA: make.GIB} if flavour is SERVER else {}
    return Machine(flavour, nothing, empty_config(flavour), messages.Half.of(THERE), volumes, module=True)


def served(programs: Programs, root: Path) -> World:
    """A server, and a backup that makes its half."""
    world = World(bare(SERVER), programs, root)
    world.peer = lambda request: messages.Replicated(messages.Half.of(THERE), make.GIB)  # noqa: ARG005
    return world


@pytest.fixture
def server(programs: Programs, root: Path) -> World:
    return served(programs, root)


@pytest.fixture
def backup(programs: Programs, root: Path) -> World:
    return World(bare(BACKUP), programs, root)


def add(told: Callable[[str], None] = lambda _: None, **options: object) -> str:
    return half.add(config.load(), DATA, tell=told, **options)


def finished(world: World) -> None:
    world.collect()
    at = world.machine
    assert journal.operations() == {}
    assert at.kernel is not None
    assert at.kernel.attached
    assert at.kernel.primary is (at.flavour is SERVER)
    assert at.kernel.connected
    assert at.enabled
    assert config.load().resources["test_a"].here == make.replica()
    assert (world.root / "etc/drbd.d/0_test_a.res").exists()


def test_add_makes_both_halves_and_tells_every_step(server: World) -> None:
    told: list[str] = []
    assert add(told.append) == "test_a"
    finished(server)
    assert config.load().resources["test_a"].there == THERE
    assert any("drbdadm primary test_a --force" in line or "drbdadm primary --force test_a" in line for line in told)
    assert not any(make.SECRET in line for line in told)
    assert [e["event"] for e in journal.events()] == ["operation-begun", "operation-ended"]


def test_a_check_shows_the_steps_and_begins_nothing(server: World) -> None:
    before = config.PATH.read_text()
    site = config.load()
    looked = half.host_with_drbd(site)
    steps = [describe(step) for step in half.steps(site, looked, half.check(site, looked, DATA))]
    assert "ask backup to replicate" in steps[-1], "what comes after it depends on the answer"
    assert config.PATH.read_text() == before
    assert journal.operations() == {}
    assert POOL not in server.machine.volumes


def test_a_volume_that_is_being_added_keeps_the_name_that_it_was_begun_with(server: World) -> None:
    server.kill_at = 3
    with pytest.raises(Killed):
        add(name="test_a")
    server.kill_at = None
    with pytest.raises(Refused, match="add of local/test_a as test_a is under way"):
        add(name="other")
    assert add() == "test_a"
    finished(server)


def test_a_volume_whose_resource_is_being_removed_is_not_added_meanwhile(server: World) -> None:
    here = {"volume": DATA.path, "metadata": str(make.replica().metadata), "minor": 0, "port": 7789}
    journal.begin("remove", "test_a", {"here": here})
    with pytest.raises(Refused, match="remove of local/test_a as test_a is under way") as raised:
        add()
    assert "drbd-offsite remove test_a" in raised.value.hint
    journal.begin("add", "test_a", Task("test_a", "backup", make.GIB, make.replica()).parameters())
    with pytest.raises(Refused, match="remove of local/test_a"):
        add()  # which the removal was about to give up
    assert server.machine.log == []


def test_a_resumed_add_keeps_its_priority(server: World) -> None:
    server.kill_at = 4
    with pytest.raises(Killed):
        add(priority=7)
    server.kill_at = None
    add()
    finished(server)
    assert config.load().resources["test_a"].priority == 7


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("power_cut", [False, True], ids=["killed", "power-cut"])
def test_add_killed_at_any_program_is_finished_by_the_same_command(
    programs: Programs, root: Path, late: bool, power_cut: bool
) -> None:
    for world in killed(lambda: served(programs, root), add, at_least=8, late=late):
        if power_cut:
            world.power_cut()
        if journal.operations():
            with pytest.raises(Refused, match="is under way"):
                half.add(config.load(), VolumeName("local", "other"), name="test_a", tell=lambda _: None)
        add()
        finished(world)


def test_a_peer_that_vanishes_leaves_a_half_that_is_seen_and_finished_later(server: World) -> None:
    def gone(request: messages.Request) -> messages.Answer:
        if isinstance(request, messages.Replicate) and request.only_check:
            return messages.Replicated(messages.Half.of(THERE), make.GIB)
        raise Killed

    server.peer = gone
    with pytest.raises(Killed):
        add()
    assert list(journal.operations()) == ["add-test_a"]
    server.peer = lambda request: messages.Replicated(messages.Half.of(THERE), make.GIB)  # noqa: ARG005
    add()
    finished(server)


@pytest.mark.parametrize(
    ("error", "raised"),
    [(Refused("no room", "x"), Refused), (OffsiteError("broken", "x"), OffsiteError)],
)
def test_what_the_backup_refuses_is_refused_before_anything_is_begun(
    server: World, programs: Programs, error: OffsiteError, raised: type
) -> None:
    answer = programs.machine
    programs.machine = lambda argv, stdin: (
        Answer(protocol.encode_error(error)) if argv[0] == "ssh" else answer(argv, stdin)
    )
    with pytest.raises(raised, match=error.message):
        add()
    assert journal.operations() == {}
    assert server.machine.log == []
    assert config.load().resources == {}


def test_an_unreachable_backup_is_noticed_before_anything_is_begun(server: World, programs: Programs) -> None:
    answer = programs.machine
    programs.machine = lambda argv, stdin: Answer("", 255, "timed out") if argv[0] == "ssh" else answer(argv, stdin)
    with pytest.raises(PeerUnreachable):
        add()
    assert journal.operations() == {}
    assert server.machine.log == []


def test_a_backup_whose_volume_is_too_small_is_refused(server: World) -> None:
    server.peer = lambda request: messages.Replicated(messages.Half.of(THERE), make.GIB - 1)  # noqa: ARG005
    with pytest.raises(Refused, match="too small") as raised:
        add()
    assert "lvextend" in raised.value.hint
    assert config.load().resources == {}


def test_a_mounted_volume_is_refused_and_moved_with_remount(programs: Programs, root: Path) -> None:
    made = bare(SERVER)
    made.fstab, made.mounts = FSTAB, [(DATA.path, "/srv/a")]
    world = World(made, programs, root)
    world.peer = lambda request: messages.Replicated(messages.Half.of(THERE), make.GIB)  # noqa: ARG005
    with pytest.raises(Refused, match="mounted at /srv/a"):
        add()
    assert world.machine.log == []
    add(remount=True)
    finished(world)
    assert world.machine.mounts == [("/dev/drbd0", "/srv/a")]
    assert filesystem.fstab_targets(half.FSTAB.read_text(), FSTAB_NAMES) == ()


def test_a_volume_that_only_fstab_knows_is_moved_with_remount(programs: Programs, root: Path) -> None:
    made = bare(SERVER)
    made.fstab = FSTAB
    world = World(made, programs, root)
    world.peer = lambda request: messages.Replicated(messages.Half.of(THERE), make.GIB)  # noqa: ARG005
    with pytest.raises(Refused, match="/etc/fstab"):
        add()
    add(remount=True)
    finished(world)
    assert "/dev/drbd/by-res/test_a/0 /srv/a" in half.FSTAB.read_text()


def test_metadata_in_the_slot_are_shown_and_kept(programs: Programs, root: Path) -> None:
    made = bare(SERVER)
    made.volumes[POOL] = 128 * make.MIB
    made.metadata = Identifiers(0xABCD, 0, (0, 0))
    world = World(made, programs, root)
    world.peer = lambda request: messages.Replicated(messages.Half.of(THERE), make.GIB)  # noqa: ARG005
    with pytest.raises(Refused, match="000000000000ABCD"):
        add()
    assert made.metadata.current == 0xABCD
    add(overwrite_metadata=True)
    finished(world)


def test_fresh_metadata_in_the_slot_are_nobody_s(programs: Programs, root: Path) -> None:
    made = bare(SERVER)
    made.volumes[POOL] = 128 * make.MIB
    made.metadata = FRESH
    world = World(made, programs, root)
    world.peer = lambda request: messages.Replicated(messages.Half.of(THERE), make.GIB)  # noqa: ARG005
    add()
    finished(world)


@pytest.mark.parametrize("name", ["a/b", "../x", ".", "-x", "a b", "x" * 64, "x" * 100_000, "a\n"])
def test_a_name_that_would_be_a_path_is_refused_before_it_is_one(server: World, name: str) -> None:
    with pytest.raises(Refused, match="cannot be a resource's name"):
        add(name=name)
    assert not files.LOCKS.exists()
    assert server.machine.log == []


def dumped(name: str = "other") -> Answer:
    """As drbdadm prints a resource that was made by hand (tests/data/adopt): here with its metadata on its own disk."""
    return Answer(
        f'<config><resource name="{name}"><host name="{HERE}"><volume vnr="0"><device minor="0">/dev/drbd0</device>'
        "<disk>/dev/local/o</disk><meta-disk>internal</meta-disk></volume>"
        f'<address family="ipv4" port="7789">10.89.33.1</address></host></resource></config>'
    )


def test_the_port_and_the_minor_of_a_resource_that_is_left_to_drbdadm_are_not_given_again(server: World) -> None:
    """It is down, so only its file has them; with the same ones in ours drbdadm would refuse every resource."""
    server.dumped = dumped()
    task = Task.of(half.check(config.load(), half.host_with_drbd(config.load()), DATA))
    assert (task.here.minor, task.here.port) == (1, 7790)


def test_a_name_that_drbd_s_own_files_have_is_refused(server: World) -> None:
    server.dumped = dumped("test_a")
    with pytest.raises(Refused, match=f"files on {HERE} have a resource test_a already") as raised:
        add()
    assert "adopt test_a" in raised.value.hint
    assert journal.operations() == {}
    assert server.machine.log == []


def test_where_drbdadm_reads_nothing_no_resource_is_made_and_no_line_of_it_is_shown(server: World) -> None:
    server.dumped = Answer("", 10, f"/etc/drbd.d/x.res:3: Parse error: ';' expected, but got '{make.SECRET}'")
    with pytest.raises(Refused, match=f"{HERE} refuses what is in") as raised:
        add()
    assert make.SECRET not in f"{raised.value.message} {raised.value.hint}"
    assert journal.operations() == {}
    server.dumped = Answer("no resources defined!")
    with pytest.raises(ToolFailed, match="is not understood"):
        add()
    assert server.machine.log == []


def test_add_needs_an_enrolled_backup(server: World) -> None:
    config.PATH.write_text(config.updated(config.PATH.read_text(), {"peers.backup.hostname": ""}))
    with pytest.raises(Refused, match="No backup is enrolled") as raised:
        add()
    assert "invite" in raised.value.hint
    with pytest.raises(Refused, match="No backup"):
        add(peer_name="backup")
    assert server.machine.log == []


def test_with_several_backups_one_has_to_be_named(server: World) -> None:
    second = {"hostname": "second", "device": "tun1", "server_address": "10.89.34.1", "backup_address": "10.89.34.2"}
    changes = {f"peers.second.{key}": value for key, value in second.items()}
    config.PATH.write_text(config.updated(config.PATH.read_text(), changes))
    with pytest.raises(Refused, match="several"):
        add()
    with pytest.raises(Refused, match="no enrolled peer third"):
        add(peer_name="third")
    add(peer_name="backup")
    finished(server)


def test_add_is_for_the_server_and_replicate_for_the_backup(backup: World) -> None:
    with pytest.raises(Refused, match="add is for the server"):
        add()
    config.PATH.write_text(config.updated(config.PATH.read_text(), {"site.flavour": "server"}))
    with pytest.raises(Refused, match="replicate is for the backup"):
        half.replicate(config.load(), "server", REQUEST)
    assert backup.machine.log == []


def test_a_configuration_with_a_mistake_is_no_ground_to_build_on(server: World) -> None:
    site = config.load()
    config.PATH.write_text(config.PATH.read_text().replace("flavour = server", "flavour = judge"))
    with pytest.raises(ConfigError):
        half.add(site, DATA, tell=lambda _: None)
    assert server.machine.kernel is None


# -- the backup ------------------------------------------------------------------------------------


def replicate(request: messages.Replicate = REQUEST, requester: str = "server") -> messages.Replicated:
    return half.replicate(config.load(), requester, request)


def test_replicate_makes_a_volume_of_the_same_size_and_a_slot(backup: World) -> None:
    answer = replicate()
    finished(backup)
    assert answer == messages.Replicated(messages.Half.of(make.replica()), make.GIB)
    assert backup.machine.volumes == {DATA: make.GIB, POOL: 128 * make.MIB}
    assert config.load().resources["test_a"].there == REQUEST.server.replica()


def test_the_copy_too_leaves_others_their_port_and_minor(backup: World) -> None:
    backup.dumped = dumped()
    answer = replicate(replace(REQUEST, only_check=True))
    assert (answer.half.minor, answer.half.port) == (1, 7790)
    backup.dumped = dumped("test_a")
    with pytest.raises(Refused, match=f"files on {HERE} have a resource test_a already"):
        replicate()
    assert journal.operations() == {}


def test_the_same_request_again_finds_it_done(backup: World) -> None:
    first = replicate()
    log = list(backup.machine.log)
    assert replicate() == first
    assert backup.machine.log == log


def test_a_check_begins_nothing(backup: World) -> None:
    answer = replicate(replace(REQUEST, only_check=True))
    assert answer.half.minor == 0
    assert backup.machine.log == []
    assert journal.operations() == {}
    assert config.load().resources == {}


def test_replicate_killed_at_any_program_is_finished_by_the_same_request(programs: Programs, root: Path) -> None:
    for world in killed(lambda: World(bare(BACKUP), programs, root), replicate, at_least=6):
        replicate()
        finished(world)


def test_another_request_for_the_same_name_is_refused(backup: World) -> None:
    backup.kill_at = 3
    with pytest.raises(Killed):
        replicate()
    for other in (replace(REQUEST, size_bytes=1), replace(REQUEST, server=messages.Half.of(make.replica(9)))):
        with pytest.raises(Refused, match="under way"):
            replicate(other)
    with pytest.raises(Refused, match="under way"):
        replicate(requester="somebody")
    backup.kill_at = None
    replicate()
    with pytest.raises(Refused, match="already, for another volume"):
        replicate(replace(REQUEST, server=messages.Half.of(make.replica(9))))
    finished(backup)


def test_a_volume_of_that_name_on_the_backup_is_somebody_s_data(backup: World) -> None:
    backup.machine.volumes[DATA] = make.GIB
    with pytest.raises(Refused, match="exists already"):
        replicate()
    assert backup.machine.log == []
    assert journal.operations() == {}


def test_a_group_without_room_is_refused_before_anything_is_begun(backup: World) -> None:
    with pytest.raises(Refused, match="are needed"):
        replicate(replace(REQUEST, size_bytes=2**60 - make.GIB))
    assert backup.machine.log == []


def test_a_copy_whose_volume_is_gone_is_a_refusal_and_no_traceback(backup: World) -> None:
    replicate()
    del backup.machine.volumes[DATA]
    with pytest.raises(Refused, match="local/test_a"):
        replicate()


def test_no_module_is_a_refusal_that_names_the_kernel(programs: Programs, root: Path) -> None:
    made = bare(BACKUP)
    made.module = False
    world = World(made, programs, root)
    world.machine._modprobe = lambda _: None
    with pytest.raises(Refused, match="no DRBD module"):
        replicate()
    assert journal.operations() == {}


def test_a_step_without_effect_ends_the_run_and_says_which(backup: World) -> None:
    backup.machine._systemctl = lambda _: None
    with pytest.raises(OffsiteError, match=r"had no effect: systemctl .*enable") as raised:
        replicate()
    assert "same command" in raised.value.hint
    assert journal.operations()


@pytest.mark.usefixtures("backup")
def test_the_metadata_of_a_volume_above_4_tib_have_a_volume_of_their_own() -> None:
    answer = replicate(replace(REQUEST, size_bytes=5 * 2**40))
    assert MetadataPlace.parse(answer.half.metadata) == MetadataPlace(VolumeName("local", "test_a_drbd_meta"), None)


def test_a_forged_request_is_stopped_before_it_gets_here() -> None:
    with pytest.raises(BadRequest):
        protocol.decode_request(protocol.encode_request(REQUEST).replace('"test_a"', '"../x"'))
