"""An empty volume is added without a first sync, from end to end; nothing that is not proven empty is."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from drbd_offsite import config, files, host, journal, messages, peer
from drbd_offsite.errors import PeerUnreachable, Refused, ToolFailed
from drbd_offsite.model import Flavour, VolumeName
from drbd_offsite.operations import blank, half
from drbd_offsite.reconcile import reconcile
from drbd_offsite.tools import drbd, filesystem

from .. import make
from ..conftest import Answer, Programs
from ..plan.test_half import DATA, SKIP
from .test_half import THERE, add, bare, finished
from .world import Killed, World, forget, killed

pytestmark = pytest.mark.usefixtures("texts_read_once")

SIZE = 16 * make.MIB
SERVER, BACKUP = Flavour.SERVER, Flavour.BACKUP
REQUEST = messages.Replicate(
    "test_a", SIZE, messages.Half.of(make.replica()), overwrite_metadata=False, only_check=False, blank=True
)
EMPTY = messages.Replicated(messages.Half.of(THERE), SIZE, prepared_bytes=SIZE)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)


def served(programs: Programs, root: Path, **changes: object) -> World:
    """A server with an empty volume, and a backup that makes its own so."""
    made = replace(bare(SERVER), volumes={DATA: SIZE}, fstype="", blank=True, peer_new=True, peer_blank=True)
    world = World(replace(made, **changes), programs, root)
    world.peer = lambda _: EMPTY
    return world


@pytest.fixture
def server(programs: Programs, root: Path) -> World:
    return served(programs, root)


def skipped(world: World) -> None:
    finished(world)
    assert world.machine.log.count(SKIP) == 1
    assert world.machine.in_step
    assert not any("--force" in line and "primary" in line for line in world.machine.log)


def sent(world: World) -> None:
    finished(world)
    assert SKIP not in world.machine.log
    assert not world.machine.in_step


# -- the server --------------------------------------------------------------------------------------


def test_an_empty_volume_is_replicated_with_nothing_sent(server: World) -> None:
    asked: list[messages.Replicate] = []
    server.peer = lambda request: asked.append(request) or EMPTY
    told: list[str] = []
    add(told.append)
    skipped(server)
    assert [(request.blank, request.only_check) for request in asked] == [(True, True), (True, False)]
    assert "local/test_a seems to be empty" in told[0]
    assert not any("could not be avoided" in line for line in told)


def test_zeroing_that_outlasts_a_request_is_asked_about_until_it_is_done(server: World) -> None:
    zeroed = iter([0, SIZE // 4, SIZE // 2])

    def slow(_: messages.Request) -> messages.Answer:
        done = next(zeroed, None)
        return EMPTY if done is None else replace(EMPTY, made=False, prepared_bytes=done)

    server.peer = slow
    told: list[str] = []
    add(told.append)
    skipped(server)
    assert [line for line in told if "zeros:" in line] == [
        "backup makes its volume zeros: 25.0% of 16 MiB",
        "backup makes its volume zeros: 50.0% of 16 MiB",
    ]


def test_other_resources_can_be_changed_while_the_backup_zeroes(server: World) -> None:
    parts = iter([0, SIZE // 2])

    def slow(request: messages.Replicate) -> messages.Answer:
        if request.only_check or (done := next(parts, None)) is None:
            return EMPTY
        with files.lock("site", 0.0), pytest.raises(Refused), files.lock("resource-test_a", 0.0):
            pass
        return replace(EMPTY, made=False, prepared_bytes=done)

    server.peer = slow
    add()
    skipped(server)
    assert next(parts, None) is None


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("power_cut", [False, True], ids=["killed", "power-cut"])
@pytest.mark.parametrize("written", [False, True], ids=["still empty", "written to meanwhile"])
def test_add_killed_at_any_program_ends_right(
    programs: Programs, root: Path, late: bool, power_cut: bool, written: bool
) -> None:
    for world in killed(lambda: served(programs, root), add, at_least=8, late=late):
        if power_cut:
            world.power_cut()
        if world.machine.synced:
            add()
            skipped(world)
        else:
            world.machine.blank = not written
            world.publish()
            add()
            (sent if written else skipped)(world)


def test_add_that_dies_after_any_step_ends_right(
    programs: Programs, root: Path, last_step: Callable[[int], None]
) -> None:
    for world in killed(lambda: served(programs, root), add, at_least=8, at=last_step):
        add()
        skipped(world)


def test_what_the_watcher_has_promoted_in_between_is_taken_as_it_is(programs: Programs, root: Path) -> None:
    """Killed after the copies were equal and before the server was served, which the circle then does."""
    for number in range(1, 40):
        world = served(programs, root)
        world.kill_at = -number
        with pytest.raises(Killed):
            add()
        world.kill_at = None
        if world.machine.synced:
            break
        forget(root)
    reconcile(config.load(), ["test_a"], lambda _: None)
    assert world.machine.kernel is not None
    assert world.machine.kernel.primary
    world.machine.blank = False
    log = list(world.machine.log)
    add()
    finished(world)
    assert SKIP not in world.machine.log[len(log) :]


def data_at(world: World, start: int) -> None:
    """Something is written to the volume itself, and shows in every look from now on."""
    publish = world.publish

    def with_data() -> None:
        publish()
        with (host.DEVICES / "local/test_a").open("r+b") as volume:
            volume.truncate(SIZE)
            volume.seek(start)
            volume.write(b"\x01")

    world.machine.blank = False
    world.publish = with_data
    world.publish()


def test_data_at_the_start_is_seen_before_the_backup_is_asked(server: World) -> None:
    data_at(server, blank.BLOCK)
    asked: list[messages.Replicate] = []
    server.peer = lambda request: asked.append(request) or replace(EMPTY, prepared_bytes=0)
    add()
    sent(server)
    assert not any(request.blank for request in asked)


def test_data_at_the_very_end_is_seen_before_the_copies_count_as_equal(
    server: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(half, "PROBE_BYTES", SIZE // 2)
    data_at(server, SIZE - 1)
    told: list[str] = []
    add(told.append)
    sent(server)
    assert told[-1].startswith("test_a: its first sync could not be avoided")


def test_a_filesystem_is_data_even_where_it_begins_with_zeros(programs: Programs, root: Path) -> None:
    world = served(programs, root, fstype="btrfs", blank=True)
    world.peer = lambda _: replace(EMPTY, prepared_bytes=0)
    add()
    sent(world)


def test_a_backup_that_cannot_say_what_its_copy_holds_gets_everything(server: World) -> None:
    """Its half was made, and the answer to that was lost."""
    server.peer = lambda _: replace(EMPTY, prepared_bytes=0)
    server.machine.peer_blank = False
    told: list[str] = []
    add(told.append)
    sent(server)
    assert "could not be avoided" in told[-1]


def test_a_backup_that_does_not_get_connected_keeps_nothing_from_being_served(programs: Programs, root: Path) -> None:
    world = served(programs, root, peer_new=False)
    told: list[str] = []
    add(told.append)
    sent(world)
    assert "drbd-offsite events has the reason" in told[-1]
    (why,) = (event["text"] for event in journal.events() if event["event"] == "first-sync")
    assert "no new copy was connected" in why


def test_what_the_kernel_refuses_is_left_to_the_first_sync(server: World, programs: Programs) -> None:
    programs.allow(drbd.skip_sync("test_a"), Answer("", 10, "Failure: (151)"))
    add()
    finished(server)
    assert not server.machine.in_step


def test_a_backup_that_goes_away_while_it_zeroes_leaves_an_add_that_goes_on(server: World) -> None:
    def gone(request: messages.Replicate) -> messages.Answer:
        server.away = not request.only_check
        return replace(EMPTY, made=False, prepared_bytes=1)

    server.peer = gone
    with pytest.raises(PeerUnreachable):
        add()
    assert list(journal.operations()) == ["add-test_a"]
    server.away = False
    server.peer = lambda _: EMPTY
    add()
    skipped(server)


# -- reading a volume --------------------------------------------------------------------------------


def volume(root: Path, size: int, *data: int) -> VolumeName:
    path = root / "dev/local/v"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.truncate(size)
        for start in data:
            file.seek(start)
            file.write(b"\xff")
    return VolumeName("local", "v")


SIZES = (1, blank.BLOCK - 1, blank.BLOCK, blank.BLOCK + 1, 3 * blank.BLOCK + 512)


@pytest.mark.parametrize("size", SIZES)
def test_zeros_are_zeros_of_any_length(root: Path, size: int) -> None:
    assert blank.only_zeros(volume(root, size), size, print)


@pytest.mark.parametrize("size", SIZES)
def test_one_byte_anywhere_is_data(root: Path, size: int) -> None:
    for at in {0, size // 2, size - 1}:
        assert not blank.only_zeros(volume(root, size, at), size, print)


def test_what_is_shorter_than_it_should_be_or_not_there_is_no_proof(root: Path) -> None:
    assert not blank.only_zeros(volume(root, 512), 513, print)
    assert not blank.only_zeros(VolumeName("local", "nothing"), 512, print)
    (root / "dev/local/directory").mkdir()
    assert not blank.only_zeros(VolumeName("local", "directory"), 512, print), "an error of read(2)"


def test_a_long_read_says_how_far_it_has_come(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blank, "TELL_SECONDS", 0.0)
    told: list[str] = []
    assert blank.only_zeros(volume(root, 2 * blank.BLOCK), 2 * blank.BLOCK, told.append)
    assert told[1] == "local/v is empty as far as it was read: 50.0% of 8 MiB"


# -- the backup --------------------------------------------------------------------------------------


@pytest.fixture
def backup(programs: Programs, root: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(blank, "ZERO_BYTES", SIZE // 4)
    return World(bare(BACKUP), programs, root)


def replicate(request: messages.Replicate = REQUEST) -> messages.Replicated:
    return half.replicate(config.load(), "server", request)


def test_the_copy_s_volume_is_zeroed_before_drbd_gets_it(backup: World) -> None:
    assert replicate() == messages.Replicated(messages.Half.of(make.replica()), SIZE, prepared_bytes=SIZE)
    finished(backup)
    log = backup.machine.log
    first, last = log.index(" ".join(filesystem.zero(DATA.path, 0, SIZE // 4))), log.index("drbdadm attach test_a")
    assert log[first - 1].startswith("lvcreate")
    assert [line.split()[0] for line in log[first : first + 8]] == ["blkdiscard", "sync"] * 4
    assert first + 8 < last


def test_a_copy_of_data_is_not_zeroed(backup: World) -> None:
    assert replicate(replace(REQUEST, blank=False)).prepared_bytes == 0
    finished(backup)
    assert not any(line.startswith("blkdiscard") for line in backup.machine.log)


def test_a_request_ends_in_time_and_the_next_one_goes_on(backup: World, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(10_000))
    monkeypatch.setattr("time.monotonic", lambda: blank.ZERO_SECONDS * 2 / 3 * next(clock))
    answers = []
    while not answers or not answers[-1].made:
        answers.append(replicate())
    assert [answer.prepared_bytes for answer in answers] == [SIZE // 4, SIZE // 2, 3 * SIZE // 4, SIZE]
    finished(backup)
    assert backup.machine.zeroed == SIZE


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("power_cut", [False, True], ids=["killed", "power-cut"])
def test_replicate_killed_at_any_program_never_says_zeros_that_are_not_there(
    programs: Programs, root: Path, monkeypatch: pytest.MonkeyPatch, late: bool, power_cut: bool
) -> None:
    monkeypatch.setattr(blank, "ZERO_BYTES", SIZE // 4)
    for world in killed(lambda: World(bare(BACKUP), programs, root), replicate, at_least=12, late=late):
        if power_cut:
            world.power_cut()
        ended = "test_a" in config.load().resources and not journal.operations()
        answer = replicate()
        finished(world)
        assert world.machine.zeroed == SIZE
        assert answer.prepared_bytes == (0 if ended else SIZE), "of one that is made nobody knows any more"


def test_a_volume_that_cannot_be_zeroed_is_an_error_and_the_next_request_goes_on(
    backup: World, programs: Programs
) -> None:
    programs.allow(filesystem.zero(DATA.path, SIZE // 4, SIZE // 4), Answer("", 1, "BLKZEROOUT ioctl failed"))
    with pytest.raises(ToolFailed, match="BLKZEROOUT"):
        replicate()
    assert list(journal.operations()) == ["replicate-test_a"]
    assert backup.machine.kernel is None
    del programs._answers[filesystem.zero(DATA.path, SIZE // 4, SIZE // 4)]
    assert replicate().prepared_bytes == SIZE
    finished(backup)


def test_a_volume_that_somebody_has_removed_meanwhile_is_zeroed_from_its_start(
    backup: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(half, "drive", lambda *_: None)
        replicate()
    del backup.machine.volumes[DATA]
    backup.machine.zeroed = backup.machine.zeroed_in_cache = 0
    assert replicate().prepared_bytes == backup.machine.zeroed == SIZE
    finished(backup)


@pytest.mark.parametrize("asked", [REQUEST, replace(REQUEST, blank=False)], ids=["empty", "data"])
@pytest.mark.parametrize("late", [False, True], ids=["before it was made", "after"])
def test_a_volume_that_somebody_else_has_made_there_is_not_touched(
    backup: World, asked: messages.Replicate, late: bool
) -> None:
    backup.kill_at = -1 if late else 1
    with pytest.raises(Killed):
        replicate(asked)
    backup.kill_at = None
    machine = backup.machine
    assert (DATA in machine.volumes) is late
    machine.volumes[DATA], machine.precious = SIZE, DATA
    machine.tags.pop(DATA, None)
    log = list(machine.log)
    with pytest.raises(Refused, match="was not made by this add, so it is not touched") as raised:
        replicate(asked)
    assert "lvrename local test_a" in raised.value.hint
    assert machine.log == log
    del machine.volumes[DATA]
    machine.precious = None
    assert replicate(asked).made
    finished(backup)


def test_one_that_was_exchanged_between_two_requests_is_not_zeroed_further(
    backup: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(10_000))
    monkeypatch.setattr("time.monotonic", lambda: blank.ZERO_SECONDS * 2 / 3 * next(clock))
    assert replicate().prepared_bytes == SIZE // 4
    first = backup.machine.tags.pop(DATA)
    backup.machine.precious = DATA
    with pytest.raises(Refused, match="was not made by this add"):
        replicate()
    del backup.machine.volumes[DATA]
    backup.machine.precious = None
    assert replicate().prepared_bytes == SIZE // 4, "from its start"
    assert backup.machine.tags[DATA] != first, "so that the first one cannot be taken for it when it comes back"


def test_what_an_earlier_version_has_begun_is_zeroed_once_its_volume_is_made(backup: World) -> None:
    task = half.Task("test_a", "server", SIZE, make.replica(), make.replica())
    begun = {key: value for key, value in task.parameters().items() if key != "copy_tag"}
    journal.begin("replicate", "test_a", begun)
    assert replicate().prepared_bytes == SIZE
    finished(backup)


def test_a_request_ends_before_the_server_gives_it_up() -> None:
    assert blank.ZERO_SECONDS + 2 * blank.ZERO_TIMEOUT < peer.ANSWER_SECONDS / 2


def test_what_drbd_has_already_is_not_zeroed_any_more(backup: World) -> None:
    """The first request was of a server that had data then."""
    for number in range(1, 40):
        backup.kill_at = -number
        backup.changes = 0
        with pytest.raises(Killed):
            replicate(replace(REQUEST, blank=False))
        if backup.machine.kernel and backup.machine.kernel.attached:
            break
    backup.kill_at = None
    assert replicate().prepared_bytes == 0
    finished(backup)
