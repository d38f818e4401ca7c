"""The first copy on a disk: written on the server, carried, and filled into the backup's volume."""

import json
import os
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from drbd_offsite import config, host, journal, messages
from drbd_offsite.errors import OffsiteError, Refused
from drbd_offsite.model import Flavour, VolumeName
from drbd_offsite.operations import half, seed
from drbd_offsite.plan.restore_point import TAG
from drbd_offsite.tools import lvm
from drbd_offsite.tools.seed import CHUNK

from .. import make
from ..conftest import Answer, Programs
from ..plan.test_half import DATA, empty_config
from .test_half import THERE, add, bare, finished
from .world import Killed, World, killed

pytestmark = pytest.mark.usefixtures("texts_read_once")

EXTENT = 4 * make.MIB
SIZE = 5 * CHUNK
SERVER, BACKUP = Flavour.SERVER, Flavour.BACKUP
SNAPSHOT = VolumeName("local", "test_a_seed")


def content() -> bytes:
    """A chunk of noise, one of text, zeros, and a byte at the very end."""
    noise = random.Random(0).randbytes(CHUNK)
    return noise + b"text" * (CHUNK // 4) + bytes(3 * CHUNK - 1) + b"\x01"


class Group:
    """One volume group behind `run`; its volumes are files."""

    def __init__(self, programs: Programs, pool: str = "") -> None:
        self.programs = programs
        self.devices = host.DEVICES / "local"
        self.devices.mkdir(parents=True)
        self.origins: dict[str, str] = {}
        self.tags: dict[str, str] = {}
        self.pool = pool
        self.free = 2**40
        self.filled = "1.00"
        self.log: list[str] = []
        self.kill_at = 0
        self.write("test_a", content())
        programs.machine = self.answer

    def write(self, name: str, data: bytes) -> None:
        (self.devices / name).write_bytes(data)

    def answer(self, argv: tuple[str, ...], _: str) -> Answer | None:
        if argv == lvm.REPORT:
            return Answer(json.dumps({"report": [self._report()]}))
        self.log.append(argv[0])
        if self.kill_at == len(self.log):
            raise Killed
        name = VolumeName.parse(argv[-1]).name
        match argv[0]:
            case "lvcreate":
                made = argv[argv.index("--name") + 1]
                assert made not in self.origins
                assert ("--size" in argv) is not bool(self.pool)
                self.origins[made], self.tags[made] = name, argv[argv.index("--addtag") + 1]
                self.write(made, (self.devices / name).read_bytes())
                # What is written to the volume from now on is not in the snapshot.
                self.write(name, b"later" * 10)
                self.write(name, (self.devices / name).read_bytes().ljust(SIZE, b"\x02"))
            case "lvchange":
                assert self.pool
            case "lvextend":
                self.filled = "50.00"
            case "lvremove":
                assert name in self.origins, "somebody's data"
                del self.origins[name]
                (self.devices / name).unlink()
            case _:
                return None
        return Answer()

    def _report(self) -> dict[str, object]:
        volumes = [
            {
                "lv_name": path.name, "lv_size": f"{path.stat().st_size}", "lv_tags": self.tags.get(path.name, ""),
                "lv_active": "active", "lv_device_open": "", "lv_kernel_major": "253", "lv_kernel_minor": "0",
                "origin": self.origins.get(path.name, ""), "pool_lv": self.pool,
                "data_percent": self.filled if path.name in self.origins else "",
            }
            for path in self.devices.iterdir()
        ]  # fmt: skip
        group = {
            "vg_name": "local", "vg_size": f"{2**40}", "vg_free": f"{self.free}", "vg_extent_size": f"{EXTENT}",
        }  # fmt: skip
        return {"vg": [group], "lv": volumes}


@pytest.fixture
def group(programs: Programs, root: Path) -> Group:
    del root
    config.PATH.write_text(empty_config(SERVER))
    return Group(programs)


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    return tmp_path / "seed"


def export(path: Path, told: Callable[[str], None] = lambda _: None, volume: VolumeName = DATA) -> None:
    seed.export(config.load(), volume, path, told)


def nothing_left(group: Group, path: Path) -> None:
    assert group.origins == {}
    assert list(path.parent.iterdir()) == []
    assert journal.operations() == {}


# -- on the server -----------------------------------------------------------------------------------


def test_what_was_on_the_volume_when_it_began_is_in_the_file(group: Group, disk: Path) -> None:
    export(disk)
    assert (group.devices / "test_a").read_bytes() != content(), "it was in use all the time"
    assert group.origins == {}
    assert journal.operations() == {}
    assert disk.stat().st_mode & 0o777 == 0o600
    assert CHUNK < disk.stat().st_size < 1.1 * CHUNK, "all but the noise shrinks, and zeros take no room"
    assert list(disk.parent.iterdir()) == [disk]
    assert filled(disk) == content()


def test_a_thin_snapshot_is_activated(programs: Programs, root: Path, disk: Path) -> None:
    del root
    config.PATH.write_text(empty_config(SERVER))
    group = Group(programs, pool="pool")
    export(disk)
    assert group.log == ["lvcreate", "lvchange", "lvremove"]


def test_a_long_one_says_how_far_it_has_come_and_its_snapshot_grows(
    group: Group, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seed, "TELL_SECONDS", 0.0)
    group.filled = "80.00"
    told: list[str] = []
    export(disk, told.append)
    assert told[2] == "local/test_a: 40.0% of 20 MiB"
    assert group.log == ["lvcreate", "lvextend", "lvremove"]


@pytest.mark.parametrize("number", [1, 2])
def test_an_interruption_leaves_no_file_and_the_same_command_works(group: Group, disk: Path, number: int) -> None:
    group.kill_at = number
    with pytest.raises(Killed):
        export(disk)
    group.kill_at = 0
    if number == 2:
        assert list(journal.operations()) == ["export-seed-local:test_a"], "its snapshot is there, and status says so"
        disk.unlink()
    group.write("test_a", content())
    export(disk)
    assert filled(disk) == content()
    assert group.origins == {}
    assert journal.operations() == {}


def test_what_a_power_cut_has_left_is_taken_away_first(group: Group, disk: Path) -> None:
    group.origins["test_a_seed"], group.tags["test_a_seed"] = "test_a", TAG
    group.write("test_a_seed", b"old")
    disk.with_name(".seed.part").write_bytes(b"half of it")
    journal.begin("export-seed", "local:test_a", {"volume": "local/test_a", "file": str(disk)})
    export(disk)
    assert group.log == ["lvremove", "lvcreate", "lvremove"]
    assert filled(disk) == content()
    assert list(disk.parent.iterdir()) == [disk]


def test_what_is_left_of_one_is_taken_away_also_when_the_volume_is_replicated_now(group: Group, disk: Path) -> None:
    group.origins["test_a_seed"], group.tags["test_a_seed"] = "test_a", TAG
    group.write("test_a_seed", b"old")
    for key, volume in {"local:test_a": "local/test_a", "other:test_a": "other/test_a"}.items():
        journal.begin("export-seed", key, {"volume": volume, "file": str(disk)})
    config.PATH.write_text(make.CONFIG)
    with pytest.raises(Refused, match="is replicated already, as test_a"):
        export(disk)
    assert group.log == ["lvremove"]
    assert list(journal.operations()) == ["export-seed-other:test_a"], "that one has a snapshot of its own"


def test_a_full_disk_leaves_nothing(group: Group, disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with monkeypatch.context() as patch:
        patch.setattr(seed.journal, "begin", lambda *_: make.operation("export-seed", {}))
        patch.setattr(seed.journal, "end", lambda *_: None)
        with pytest.raises(OffsiteError, match="No space left on device") as raised:
            export(disk)
    assert "Nothing of the file is left" in raised.value.hint
    nothing_left(group, disk)


def test_a_snapshot_that_overflows_is_no_seed(group: Group, disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    really = os.pread

    def overflowed(descriptor: int, length: int, start: int) -> bytes:
        if start and length == CHUNK:
            raise OSError(5, "Input/output error")
        return really(descriptor, length, start)

    monkeypatch.setattr(os, "pread", overflowed)
    with pytest.raises(OffsiteError, match="Input/output error"):
        export(disk)
    nothing_left(group, disk)


def test_what_cannot_be_exported_is_refused_with_nothing_begun(group: Group, disk: Path) -> None:
    with pytest.raises(Refused, match="no active volume local/other"):
        export(disk, volume=VolumeName("local", "other"))
    with pytest.raises(Refused, match="There is no directory"):
        export(disk / "x")
    nothing_left(group, disk)
    disk.write_text("somebody's")
    with pytest.raises(Refused, match="exists already"):
        export(disk)
    assert disk.read_text() == "somebody's"
    config.PATH.write_text(make.CONFIG)
    with pytest.raises(Refused, match="is replicated already, as test_a"):
        export(disk.with_name("other"))
    assert group.log == []


def test_somebody_else_s_volume_of_that_name_stays(group: Group, disk: Path) -> None:
    group.write("test_a_seed", b"data")
    with pytest.raises(Refused, match="There is a volume local/test_a_seed already"):
        export(disk)
    assert group.log == []
    assert (group.devices / "test_a_seed").read_bytes() == b"data"
    assert journal.operations() == {}


def test_a_group_without_room_for_a_snapshot_is_refused(group: Group, disk: Path) -> None:
    group.free = 0
    with pytest.raises(Refused, match=r"which takes a snapshot\. The volume group local has 0 MiB free"):
        export(disk)
    nothing_left(group, disk)


@pytest.mark.usefixtures("group")
def test_it_is_for_the_server(disk: Path) -> None:
    config.PATH.write_text(empty_config(BACKUP))
    with pytest.raises(Refused, match="export-seed is for the server"):
        export(disk)


# -- on the backup -----------------------------------------------------------------------------------


def request(path: Path, **changes: object) -> messages.Replicate:
    here = messages.Half.of(make.replica())
    asked = messages.Replicate("test_a", SIZE, here, overwrite_metadata=False, only_check=False, seed=str(path))
    return replace(asked, **changes)


def filled(path: Path) -> bytes:
    """What a volume holds after the seed was written to it, in one request."""
    target = host.DEVICES / "local/test_a"
    target.write_bytes(b"\x07" * SIZE)
    task = half.Task("test_a", "server", SIZE, make.replica(), make.replica())
    operation = seed.fill(journal.begin("replicate", "test_a", task.parameters()), request(path))
    journal.end(operation)
    assert seed.done_bytes(operation) == SIZE
    return target.read_bytes()


@pytest.fixture
def carried(group: Group, disk: Path) -> Path:
    export(disk)
    for path in group.devices.iterdir():
        path.unlink()
    return disk


@pytest.fixture
def backup(carried: Path, programs: Programs, root: Path) -> World:
    del carried
    return with_content(World(bare(BACKUP), programs, root))


def with_content(world: World) -> World:
    """Its volume keeps what is written to it."""
    publish = world.publish

    def keeping() -> None:
        path = host.DEVICES / "local/test_a"
        held = path.read_bytes() if path.exists() else b""
        publish()
        if path.exists():
            path.write_bytes(held.ljust(SIZE, b"\x07"))

    world.publish = keeping
    return world


def replicate(asked: messages.Replicate) -> messages.Replicated:
    return half.replicate(config.load(), "server", asked)


def seeded(world: World) -> None:
    finished(world)
    assert (host.DEVICES / "local/test_a").read_bytes() == content()
    assert not world.machine.synced, "nothing of it is believed: the first sync is to come"


def test_the_copy_s_volume_is_filled_before_drbd_gets_it(backup: World, disk: Path) -> None:
    answer = replicate(request(disk))
    assert (answer.made, answer.prepared_bytes) == (True, SIZE)
    seeded(backup)


def test_a_request_ends_in_time_and_the_next_one_goes_on(
    backup: World, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seed, "NOTE_BYTES", CHUNK)
    clock = iter(range(10_000))
    monkeypatch.setattr("time.monotonic", lambda: seed.FILL_SECONDS * 2 / 3 * next(clock))
    answers = []
    while not answers or not answers[-1].made:
        answers.append(replicate(request(disk)))
    assert [answer.prepared_bytes for answer in answers] == [CHUNK, 2 * CHUNK, 3 * CHUNK, 4 * CHUNK, SIZE]
    seeded(backup)


def test_a_file_that_becomes_a_pipe_when_it_is_opened_is_not_waited_for(
    backup: World, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    really, regular = os.lstat, disk.lstat()
    disk.unlink()
    os.mkfifo(disk)
    monkeypatch.setattr(os, "lstat", lambda path, **how: regular if path == str(disk) else really(path, **how))
    with pytest.raises(Refused, match="is not the whole seed"):
        replicate(request(disk))
    assert backup.machine.log == []


def test_a_volume_that_somebody_else_has_made_meanwhile_is_not_written_to(
    backup: World, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(seed, "FILL_SECONDS", -1.0)
        assert not replicate(request(disk)).made
    backup.machine.tags.clear()
    with pytest.raises(Refused, match="was not made by this add"):
        replicate(request(disk))
    assert (host.DEVICES / "local/test_a").read_bytes() == b"\x07" * SIZE


def test_killed_at_any_note_or_program_the_next_request_goes_on(
    carried: Path, programs: Programs, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seed, "NOTE_BYTES", CHUNK)
    really = journal.begin

    def last_note(last: int) -> None:
        noted = 0

        def begin(*arguments: object) -> object:
            nonlocal noted
            noted += 1
            if noted == last:
                raise Killed
            return really(*arguments)

        monkeypatch.setattr(journal, "begin", begin)

    def start() -> World:
        return with_content(World(bare(BACKUP), programs, root))

    for world in killed(start, lambda: replicate(request(carried)), at_least=5, at=last_note):
        replicate(request(carried))
        seeded(world)


def test_a_volume_that_was_zeroed_and_then_seeded_is_never_called_empty(
    backup: World, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that has forgotten its first, empty try: two copies that differ would count as equal."""
    with monkeypatch.context() as patch:
        patch.setattr(half, "drive", lambda *_: None)
        empty = request(disk, seed="", blank=True)
        assert replicate(empty).prepared_bytes == SIZE
        patch.setattr(seed, "FILL_SECONDS", -1.0)
        assert not replicate(request(disk)).made
    (operation,) = journal.operations().values()
    assert half.Task.of(operation).zeroed_bytes == 0
    replicate(request(disk))
    seeded(backup)


def altered(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


BROKEN: dict[str, Callable[[Path], object]] = {
    "a byte of the data": lambda path: altered(path, 1000),
    "a byte of a digest": lambda path: altered(path, len(header(path)) + 10),
    "a byte of a length": lambda path: altered(path, len(header(path))),
    "a byte of the end": lambda path: altered(path, -1),
    "something after the end": lambda path: path.write_bytes(path.read_bytes() + path.read_bytes()[-36:]),
    "a record too few": lambda path: without(path, path.read_bytes().rindex(b"\0\0\0\0")),
}


def header(path: Path) -> bytes:
    return path.read_bytes().split(b"\n")[0] + b"\n"


def without(path: Path, at: int) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:at] + data[at + 4 :])


@pytest.mark.parametrize("what", BROKEN)
def test_what_was_altered_is_refused_and_a_good_one_is_taken_from_the_start(
    backup: World, disk: Path, what: str
) -> None:
    whole = disk.read_bytes()
    BROKEN[what](disk)
    with pytest.raises(Refused, match="is not what export-seed wrote") as raised:
        replicate(request(disk))
    assert "drbd-offsite remove test_a" in raised.value.hint
    assert backup.machine.kernel is None, "DRBD has nothing of it"
    disk.write_bytes(whole)
    replicate(request(disk))
    seeded(backup)


def test_one_that_was_exchanged_for_another_on_the_way_is_refused(
    backup: World, disk: Path, group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of them is whole; the volume would hold the beginning of one and the end of the other."""
    monkeypatch.setattr(seed, "NOTE_BYTES", CHUNK)
    clock = iter(range(10_000))
    monkeypatch.setattr("time.monotonic", lambda: seed.FILL_SECONDS * 2 / 3 * next(clock))
    assert replicate(request(disk)).prepared_bytes == CHUNK
    answer, backup_s = group.programs.machine, (host.DEVICES / "local/test_a").read_bytes()
    text = config.PATH.read_text()
    config.PATH.write_text(empty_config(SERVER))
    group.programs.machine = group.answer
    group.write("test_a", random.Random(1).randbytes(CHUNK) + content()[CHUNK:])
    disk.unlink()
    export(disk)
    config.PATH.write_text(text)
    group.programs.machine = answer
    group.write("test_a", backup_s)
    for _ in range(3):
        replicate(request(disk))
    with pytest.raises(Refused, match="not those that were written, or not in their order"):
        replicate(request(disk))
    assert backup.machine.kernel is None


REFUSED: dict[str, Callable[[Path], object]] = {
    "missing": lambda path: path.unlink(),
    "a directory": lambda path: (path.unlink(), path.mkdir()),
    "a pipe": lambda path: (path.unlink(), os.mkfifo(path)),
    "a link": lambda path: (path.rename(path.with_name("x")), path.symlink_to("x")),
    "foreign": lambda path: path.write_bytes(b"\x7fELF" * 1000),
    "empty": lambda path: path.write_bytes(b""),
    "deep": lambda path: path.write_bytes(b"[" * 1000 + b"\n"),
    "only a header": lambda path: path.write_bytes(header(path)),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "another volume's": lambda path: path.write_bytes(path.read_bytes().replace(b"test_a", b"test_b", 1)),
    "of another size": lambda path: path.write_bytes(
        path.read_bytes().replace(f"{SIZE}".encode(), f"{SIZE - 512}".encode(), 1)
    ),
}


@pytest.mark.parametrize("what", REFUSED)
@pytest.mark.parametrize("only_check", [True, False])
def test_what_cannot_be_the_seed_is_refused_before_anything_is_begun(
    backup: World, disk: Path, what: str, only_check: bool
) -> None:
    REFUSED[what](disk)
    with pytest.raises(Refused) as raised:
        replicate(request(disk, only_check=only_check))
    said = f"is not there, or is not the whole seed of {DATA} with 20 MiB."
    assert raised.value.message == f"{disk} on {os.uname().nodename} {said}", "the peer learns nothing else of files"
    assert backup.machine.log == []
    assert journal.operations() == {}


def test_a_volume_that_cannot_be_written_is_an_error_and_the_next_request_goes_on(
    backup: World, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> int:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", broken)
        with pytest.raises(OffsiteError, match="Input/output error"):
            replicate(request(disk))
    replicate(request(disk))
    seeded(backup)


# -- from the server ---------------------------------------------------------------------------------


def test_add_asks_the_backup_until_its_volume_is_filled_and_has_its_first_sync(programs: Programs, root: Path) -> None:
    made = replace(bare(SERVER), volumes={DATA: SIZE}, fstype="", blank=True)
    world = World(made, programs, root)
    parts = iter([0, SIZE // 2])
    asked: list[messages.Replicate] = []

    def fill(request: messages.Replicate) -> messages.Replicated:
        asked.append(request)
        done = next(parts, None)
        whole = messages.Replicated(messages.Half.of(THERE), SIZE, prepared_bytes=SIZE)
        return whole if done is None else replace(whole, made=False, prepared_bytes=done)

    world.peer = fill
    told: list[str] = []
    add(told.append, seed="/mnt/seed")
    finished(world)
    assert [(request.seed, request.blank) for request in asked] == [("/mnt/seed", False)] * 3
    assert "backup fills its volume from the seed: 50.0% of 20 MiB" in told
    assert "drbdadm primary --force test_a" in world.machine.log
    assert not world.machine.in_step
