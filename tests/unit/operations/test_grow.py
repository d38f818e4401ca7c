"""``grow`` and ``enlarge`` from end to end on a simulated machine, killed at every program and at every step."""

import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from drbd_offsite import config, journal, messages
from drbd_offsite.errors import BadRequest, OffsiteError, PeerUnreachable, Refused, UsageError
from drbd_offsite.model import MAX_INDEXED_BYTES, Flavour, VolumeName
from drbd_offsite.operations import grow
from drbd_offsite.plan import restore_point
from drbd_offsite.plan.grow import Growth
from drbd_offsite.tools import lvm

from .. import make
from ..conftest import Answer, Programs
from ..plan.machine import BY_RES, EXTENT, Kernel, Machine
from ..plan.test_half import DATA, POOL
from ..plan.test_remove import configuration
from .test_remove import replicating
from .world import Killed, World, killed

pytestmark = pytest.mark.usefixtures("texts_read_once")

SERVER, BACKUP = Flavour.SERVER, Flavour.BACKUP
SIZE = make.GIB + 32 * make.MIB
OLD = VolumeName("local", "old")
ENLARGE = messages.Enlarge("test_a", SIZE, only_check=False)


def mounted(**changes: object) -> Machine:
    fstab = f"{BY_RES} /srv/a ext4 nofail 0 2\n"
    return replicating(SERVER, fstab=fstab, mounts=[("/dev/drbd0", "/srv/a")], fs_bytes=make.GIB, **changes)


def served(machine: Machine, programs: Programs, root: Path) -> World:
    """A server, and a backup that enlarges its volume."""
    world = World(machine, programs, root)

    def enlarge(request: messages.Enlarge) -> messages.Enlarged:
        if not request.only_check:
            world.machine.peer_bytes = max(world.machine.peer_bytes, request.size_bytes)
        return messages.Enlarged(world.machine.peer_bytes)

    world.peer = enlarge
    return world


@pytest.fixture
def server(programs: Programs, root: Path) -> World:
    return served(mounted(), programs, root)


@pytest.fixture
def backup(programs: Programs, root: Path) -> World:
    return World(replicating(BACKUP), programs, root)


def run(asked: str = "+32M", told: Callable[[str], None] = lambda _: None, *, dry_run: bool = False) -> str:
    site = config.load()
    return grow.grow(site, site.resources["test_a"], asked, dry_run, told)


def finished(world: World) -> None:
    at = world.machine
    assert journal.operations() == {}
    assert at.volumes[DATA] == at.size == at.fs_bytes == SIZE
    assert at.peer_bytes == SIZE
    assert at.mounts == [("/dev/drbd0", "/srv/a")]
    assert at.kernel is not None
    assert at.kernel.primary
    assert at.kernel.connected


def untouched(world: World) -> None:
    assert world.machine.log == []
    assert journal.operations() == {}
    assert world.machine.peer_bytes == make.GIB


def test_grow_enlarges_both_machines_and_the_filesystem_and_tells_every_step(server: World) -> None:
    told: list[str] = []
    assert run(told=told.append) == "", "nothing is left to the admin"
    finished(server)
    words = ["ask backup to enlarge", f"--size {SIZE}b local/test_a", "drbdadm resize test_a", "resize2fs /dev/drbd0"]
    for line, part in zip(told, words, strict=True):
        assert part in line
    assert [e["event"] for e in journal.events()] == ["operation-begun", "operation-ended"]


def test_a_server_that_is_written_to_all_the_time_is_waited_for(server: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused in the lab: the backup was behind at just that moment, as it often is then."""
    monkeypatch.setattr("time.sleep", lambda _: None)
    server.ahead = 3
    told: list[str] = []
    run(told=told.append)
    assert "sending the backup what it lacks" in told[0]
    finished(server)


def test_a_resize_that_shows_when_the_backup_has_answered_is_waited_for(
    server: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device grows a moment after drbdadm has ended, over a slow line many moments."""
    monkeypatch.setattr("time.sleep", lambda _: None)
    server.resize_looks = 20
    told: list[str] = []
    run(told=told.append)
    finished(server)
    assert sum("drbdadm resize" in line for line in told) == 1


def test_a_size_in_all_is_a_size_in_all(server: World) -> None:
    run(f"{SIZE // make.MIB}M")
    finished(server)


def test_what_is_not_a_whole_extent_is_rounded_up_on_both_machines(server: World) -> None:
    run("+29M")
    finished(server)


def test_dry_run_prints_the_steps_and_begins_nothing(server: World) -> None:
    told: list[str] = []
    assert run(told=told.append, dry_run=True) == ""
    assert [line.split()[0] for line in told] == ["ask", "lvextend", "drbdadm", "resize2fs"]
    untouched(server)


@pytest.mark.parametrize(
    ("fstype", "left"), [("", "no filesystem on it"), ("crypto_LUKS", "crypto_LUKS"), ("btrfs", "not mounted")]
)
def test_what_it_cannot_enlarge_is_left_to_the_admin(programs: Programs, root: Path, fstype: str, left: str) -> None:
    world = served(replicating(SERVER, fstype=fstype), programs, root)
    assert left in run()
    assert journal.operations() == {}
    assert world.machine.size == SIZE


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("power_cut", [False, True], ids=["killed", "power-cut"])
@pytest.mark.parametrize("again", ["+32M", ""], ids=["same command", "without a size"])
def test_grow_killed_at_any_program_is_finished_by_the_same_command(
    programs: Programs, root: Path, late: bool, power_cut: bool, again: str
) -> None:
    for world in killed(lambda: served(mounted(), programs, root), run, at_least=5, late=late):
        if power_cut:
            world.boot()
            assert world.machine.kernel.primary, "an unfinished grow keeps nothing from being served"
        run(again if journal.operations() else "+32M")
        finished(world)


def test_grow_that_dies_after_any_step_is_finished_by_the_same_command(
    programs: Programs, root: Path, last_step: Callable[[int], None]
) -> None:
    for world in killed(lambda: served(mounted(), programs, root), run, at_least=4, at=last_step):
        run()
        finished(world)


def test_one_that_is_not_served_after_a_power_cut_stays_unfinished_until_it_is(server: World) -> None:
    server.kill_at = -4
    with pytest.raises(Killed):
        run()
    server.kill_at = None
    assert (server.machine.size, server.machine.fs_bytes) == (SIZE, make.GIB)
    server.machine.kernel.primary, server.machine.mounts = False, []
    server.publish()
    with pytest.raises(Refused, match="not served here"):
        run()
    assert list(journal.operations()) == ["grow-test_a"]
    server.machine.kernel.primary, server.machine.mounts = True, [("/dev/drbd0", "/srv/a")]
    server.publish()
    run()
    finished(server)


def test_a_backup_that_was_replaced_meanwhile_is_asked_to_enlarge_its_volume_too(server: World) -> None:
    """The lost one had the room."""
    server.kill_at = 3
    with pytest.raises(Killed):
        run()
    server.kill_at = None
    assert Growth.of(journal.operations()["grow-test_a"]).there_bytes == SIZE
    server.machine.peer_bytes = make.GIB
    told: list[str] = []
    run("", told.append, dry_run=True)
    assert "ask backup to enlarge" in told[0]
    run("")
    finished(server)


def test_an_unfinished_one_is_finished_before_another_one_is_begun(server: World) -> None:
    server.kill_at = 3
    with pytest.raises(Killed):
        run()
    server.kill_at = None
    log = list(server.machine.log)
    with pytest.raises(Refused, match=r"by an earlier grow \(\+32M\)") as raised:
        run("+64M")
    assert raised.value.hint == "Finish that first: drbd-offsite grow test_a"
    assert server.machine.log == log
    run("")
    finished(server)


def test_a_backup_that_goes_away_leaves_a_grow_that_is_finished_when_it_is_back(server: World) -> None:
    enlarge = server.peer

    def gone(request: messages.Enlarge) -> messages.Answer:
        server.away = not request.only_check
        if server.away:
            raise Killed
        return enlarge(request)

    server.peer = gone
    with pytest.raises(Killed):
        run()
    server.peer = enlarge
    with pytest.raises(PeerUnreachable):
        run()
    assert list(journal.operations()) == ["grow-test_a"]
    assert server.machine.log == []
    server.away = False
    run()
    finished(server)


def test_a_backup_that_goes_away_before_the_last_step_leaves_it_to_the_next_run(server: World) -> None:
    server.kill_at = -3
    with pytest.raises(Killed):
        run()
    server.kill_at = None
    server.machine.in_step = False
    with pytest.raises(Refused, match="backup connected") as raised:
        run()
    assert "run the same command" in raised.value.hint
    assert (server.machine.volumes[DATA], server.machine.size) == (SIZE, make.GIB)
    server.machine.in_step = True
    run()
    finished(server)


def test_a_backup_that_made_less_room_than_was_asked_for_ends_it(server: World) -> None:
    server.peer = lambda _: messages.Enlarged(make.GIB)
    with pytest.raises(Refused, match=f"has {make.GIB} bytes; {SIZE} are needed") as raised:
        run()
    assert "drbd-offsite grow test_a" in raised.value.hint
    assert server.machine.log == [], "nothing is larger here"


# -- giving up ---------------------------------------------------------------------------------------


def give_up() -> str:
    site = config.load()
    return grow.give_up(site, site.resources["test_a"])


def test_a_grow_is_given_up_as_long_as_the_device_has_its_old_size(programs: Programs, root: Path) -> None:
    given_up = 0
    for world in killed(lambda: served(mounted(), programs, root), run, at_least=5, late=True):
        log = list(world.machine.log)
        if world.machine.size == SIZE:
            with pytest.raises(Refused, match="has the new size already") as raised:
                give_up()
            assert raised.value.hint.endswith("only forward is safe: drbd-offsite grow test_a")
            run()
            finished(world)
        elif journal.operations():
            left = give_up()
            given_up += 1
            assert ("local/test_a here" in left) is (world.machine.volumes[DATA] == SIZE)
            assert "local/test_a on backup" in left
            assert world.machine.log == log, "nothing is done to anything"
            assert journal.operations() == {}
            assert journal.events()[-1]["text"] == "grow was given up."
            run()
            finished(world)
            assert world.machine.peer_bytes == SIZE, "a later grow uses the room"
    assert given_up >= 2


def test_what_drbd_took_by_itself_at_a_connect_is_not_given_up(server: World) -> None:
    """Both volumes were large enough: then it needs no resize."""
    server.kill_at = -2
    with pytest.raises(Killed):
        run()
    server.kill_at = None
    server.machine.size = SIZE
    with pytest.raises(Refused, match="has the new size already"):
        give_up()
    run()
    finished(server)


def test_a_device_that_is_not_up_is_brought_up_first(server: World) -> None:
    server.kill_at = -2
    with pytest.raises(Killed):
        run()
    server.kill_at = None
    server.machine.kernel, server.machine.mounts = None, []
    with pytest.raises(Refused, match="it cannot be seen whether its device has the new size") as raised:
        give_up()
    assert "drbd-offsite up test_a" in raised.value.hint
    assert list(journal.operations()) == ["grow-test_a"]


def test_there_is_nothing_to_give_up_where_nothing_is_unfinished(server: World) -> None:
    with pytest.raises(Refused, match="No grow of test_a is unfinished"):
        give_up()
    untouched(server)


@pytest.mark.usefixtures("backup")
def test_giving_up_is_for_the_server_too() -> None:
    with pytest.raises(Refused, match="grow is for the server"):
        give_up()


def test_a_volume_that_was_enlarged_by_hand_is_used_as_it_is(server: World) -> None:
    server.machine.volumes[DATA] = SIZE
    run()
    finished(server)
    assert not any(line.startswith("lvextend") for line in server.machine.log)


# -- refusals ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("+32M", SIZE), ("1G", make.GIB), ("+1g", 2 * make.GIB), ("1.5G", 3 * make.GIB // 2), ("2T", 2**41),
        ("+512K", make.GIB + 2**19), ("20GiB", 20 * make.GIB), ("20GB", 20 * make.GIB),
    ],
)  # fmt: skip
def test_a_size_is_more_or_in_all(text: str, size: int) -> None:
    assert grow.size(text, make.GIB) == size


@pytest.mark.parametrize(
    "text",
    [
        "10",
        "ten",
        "+",
        "-1G",
        "10X",
        "1G+",
        "1 G",
        "",
        "+1.G",
        "\u0661G",
        "1e9G",
        "0x1G",
        "9" * 400 + "G",
        "10G0",
        "nanG",
    ],
)
def test_what_is_no_size_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match="is no size") as raised:
        grow.size(text, make.GIB)
    assert "+10G" in raised.value.hint
    assert len(raised.value.message) < 120


def test_what_is_no_size_changes_nothing(server: World) -> None:
    with pytest.raises(UsageError, match="is no size"):
        run("much")
    untouched(server)


def test_without_a_size_there_has_to_be_something_unfinished(server: World) -> None:
    with pytest.raises(UsageError, match="needs a size") as raised:
        run("")
    assert "drbd-offsite grow test_a +10G" in raised.value.hint
    untouched(server)


@pytest.mark.parametrize(
    ("asked", "reason", "way_on"),
    [
        ("512M", "nothing is ever made smaller", "grow test_a +512M"),
        ("1G", "has 1,024 MiB already", "grow test_a +1G"),
        ("+0G", "has 1,024 MiB already", "grow test_a +0G"),
        ("+2000000T", "at most 4 TiB", "metadata volume of its own"),
        ("+1T", "are needed", "vgextend local"),
    ],
)
def test_a_size_that_cannot_be_is_refused_with_the_way_on(server: World, asked: str, reason: str, way_on: str) -> None:
    server.machine.free = make.GIB
    with pytest.raises(Refused, match=reason) as raised:
        run(asked)
    assert way_on in raised.value.hint
    untouched(server)


NOT_IN_STEP: dict[str, dict[str, object]] = {
    "not connected": {"in_step": False},
    "standing alone": {"kernel": Kernel(0, attached=True, primary=True, ended=True)},
    "down": {"kernel": None, "mounts": []},
    "not served": {"kernel": Kernel(0, attached=True, connected=True), "mounts": []},
    "not up to date": {"synced": False},
}


@pytest.mark.parametrize("state", NOT_IN_STEP)
def test_one_that_is_not_replicated_now_is_refused(programs: Programs, root: Path, state: str) -> None:
    world = served(replace(mounted(), **NOT_IN_STEP[state]), programs, root)
    with pytest.raises(Refused, match="both copies up to date and backup connected") as raised:
        run()
    assert "drbd-offsite status test_a" in raised.value.hint
    untouched(world)


def test_a_snapshot_in_the_way_is_named(server: World) -> None:
    server.machine.snapshots[OLD] = DATA
    with pytest.raises(Refused, match=r"local/old on .* is a snapshot of local/test_a") as raised:
        run()
    assert "lvremove local/old" in raised.value.hint
    untouched(server)


def test_an_interrupted_export_of_the_volume_is_no_obstacle(server: World) -> None:
    journal.begin("export-seed", "test_a", {"volume": "local/test_a", "file": "/mnt/seed"})
    run()
    assert server.machine.fs_bytes == SIZE


@pytest.mark.parametrize("verb", ["add", "remove", "verify"])
def test_what_is_unfinished_is_finished_first(server: World, verb: str) -> None:
    journal.begin(verb, "test_a", {})
    with pytest.raises(Refused, match=f"{verb} of test_a is not finished"):
        run()
    assert server.machine.log == []
    assert list(journal.operations()) == [f"{verb}-test_a"]


def test_what_the_backup_refuses_is_refused_before_anything_is_begun(server: World) -> None:
    def no(request: messages.Enlarge) -> messages.Answer:
        assert request.only_check
        raise Refused("The volume group local on backup has 0 MiB free; 32 MiB are needed.", "vgextend")

    server.peer = no
    with pytest.raises(Refused, match="on backup has 0 MiB free"):
        run()
    untouched(server)


def test_an_unreachable_backup_is_noticed_before_anything_is_begun(server: World) -> None:
    server.away = True
    with pytest.raises(PeerUnreachable):
        run()
    untouched(server)


def test_a_machine_that_cannot_be_seen_is_left_alone(server: World, programs: Programs) -> None:
    programs.allow(lvm.REPORT, Answer("", 5, "no answer"))
    with pytest.raises(Refused, match="no volume local/test_a"):
        run()
    untouched(server)
    journal.begin("grow", "test_a", asdict(Growth(SIZE, "+32M")))
    with pytest.raises(OffsiteError, match=r"cannot be seen: .*no answer"):
        run()
    assert server.machine.log == []
    assert list(journal.operations()) == ["grow-test_a"]


def test_grow_is_for_the_server_and_enlarge_for_the_backup(backup: World) -> None:
    with pytest.raises(Refused, match="grow is for the server"):
        run()
    assert backup.machine.log == []


def test_enlarge_is_for_the_backup(server: World) -> None:
    with pytest.raises(Refused, match="enlarge is for the backup"):
        enlarge(requester="backup")
    untouched(server)


# -- the backup --------------------------------------------------------------------------------------


def enlarge(request: messages.Enlarge = ENLARGE, requester: str = "server") -> int:
    return grow.enlarge(config.load(), requester, request).size_bytes


def test_enlarge_makes_room_below_a_device_that_goes_on(backup: World) -> None:
    assert enlarge() == SIZE
    assert backup.machine.volumes == {DATA: SIZE, POOL: 512 * make.MIB}
    assert backup.machine.size == make.GIB, "that is the server's to change"
    assert backup.machine.kernel == replicating(BACKUP).kernel
    (event,) = journal.events()
    assert event["event"] == "enlarged"
    assert journal.operations() == {}


def test_the_same_request_again_finds_it_done(backup: World) -> None:
    enlarge()
    log = list(backup.machine.log)
    assert enlarge() == SIZE
    backup.machine.snapshots[OLD] = DATA
    assert enlarge() == SIZE, "what is large enough is in nobody's way"
    assert backup.machine.log == log


def test_what_is_no_whole_extent_there_is_rounded_up(backup: World) -> None:
    assert enlarge(replace(ENLARGE, size_bytes=SIZE + 1)) == SIZE + EXTENT
    assert backup.machine.volumes[DATA] == SIZE + EXTENT


def test_a_check_enlarges_nothing(backup: World) -> None:
    assert enlarge(replace(ENLARGE, only_check=True)) == make.GIB
    assert backup.machine.log == []


@pytest.mark.parametrize(
    ("state", "size", "reason"),
    [
        ({"free": 0}, SIZE, "are needed"),
        ({"snapshots": {OLD: DATA}}, SIZE, "is a snapshot of local/test_a"),
        ({}, MAX_INDEXED_BYTES + 1, "at most 4 TiB"),
        ({"volumes": {POOL: 512 * make.MIB}}, SIZE, "no volume local/test_a"),
    ],
    ids=["no room", "a snapshot in the way", "beyond a slot", "no volume"],
)
@pytest.mark.parametrize("only_check", [True, False])
def test_what_the_backup_cannot_do_it_refuses_when_it_is_asked(
    programs: Programs, root: Path, state: dict[str, object], size: int, reason: str, only_check: bool
) -> None:
    world = World(replicating(BACKUP, **state), programs, root)
    with pytest.raises(Refused, match=reason):
        enlarge(messages.Enlarge("test_a", size, only_check))
    assert world.machine.log == []


@pytest.mark.parametrize("only_check", [True, False])
def test_a_backup_that_could_not_take_the_restore_point_that_it_requires_says_so(
    programs: Programs, root: Path, only_check: bool
) -> None:
    requiring = config.updated(configuration(BACKUP, "test_a"), {"site.resync_snapshot": "require"})
    world = World(replicating(BACKUP, config=requiring, free=SIZE - make.GIB), programs, root)
    with pytest.raises(Refused, match="with the restore point that is required there"):
        enlarge(replace(ENLARGE, only_check=only_check))
    assert world.machine.log == []
    world.machine.free = make.GIB
    assert enlarge() == SIZE


RESTORE_POINT = restore_point.place(DATA)
IN_RESYNC = Answer("", 5, "Snapshot origin volumes can be resized only while inactive: try lvchange -an.")


def in_resync(world: World, programs: Programs, monkeypatch: pytest.MonkeyPatch, seconds: int) -> None:
    """For so long, a resync keeps its restore point."""
    world.machine.snapshots[RESTORE_POINT] = DATA

    def sleep(_: float) -> None:
        nonlocal seconds
        seconds -= 1
        if not seconds:
            del world.machine.snapshots[RESTORE_POINT]

    def answer(argv: tuple[str, ...], stdin: str) -> Answer | None:
        held = argv[0] == "lvextend" and RESTORE_POINT in world.machine.snapshots
        return IN_RESYNC if held else world.answer(argv, stdin)

    monkeypatch.setattr(time, "sleep", sleep)
    programs.machine = answer


def test_a_resync_that_began_meanwhile_is_waited_for(
    backup: World, programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a server that is written to all the time, one may begin at any moment."""
    in_resync(backup, programs, monkeypatch, 5)
    assert enlarge(replace(ENLARGE, only_check=True)) == make.GIB
    assert enlarge() == SIZE


def test_a_resync_that_does_not_end_is_the_reason(
    backup: World, programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_resync(backup, programs, monkeypatch, 1000)
    with pytest.raises(Refused, match="A resync goes on") as raised:
        enlarge()
    assert "goes on from here" in raised.value.hint
    assert backup.machine.volumes[DATA] == make.GIB


@pytest.mark.parametrize(("name", "requester"), [("test_a", "somebody"), ("nothing", "server")])
def test_nobody_else_s_resource_is_enlarged(backup: World, name: str, requester: str) -> None:
    with pytest.raises(BadRequest, match=f"has no resource {name} here"):
        enlarge(replace(ENLARGE, name=name), requester)
    assert backup.machine.log == []


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
def test_enlarge_killed_is_finished_by_the_same_request(backup: World, late: bool) -> None:
    backup.kill_at = -1 if late else 1
    with pytest.raises(Killed):
        enlarge()
    backup.kill_at = None
    assert enlarge() == SIZE
