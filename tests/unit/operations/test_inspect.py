"""Looks: what they are taken of, what is done to what, and that nothing of them stays."""

import time
from collections.abc import Callable
from contextlib import suppress

import pytest

from drbd_offsite import files, journal
from drbd_offsite.errors import Refused, ToolFailed
from drbd_offsite.model import Resource
from drbd_offsite.observed import DiskState, ReplicationState
from drbd_offsite.operations import inspect, restore_point
from drbd_offsite.operations.inspect import Busy, Look, opened, sweep
from drbd_offsite.plan import look as plan
from drbd_offsite.plan.look import Source, Verdict

from .. import make
from ..conftest import Answer
from .looked import MIB, OVERLAY, SITE, TREE, Copy, options_of
from .world import Killed

RESOURCE = SITE.resources["test_a"]
OF_THE_COPY = ["lvcreate", "setpriv", "setpriv", "mount", "umount", "lvremove"]


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)


def silent(_: str) -> None:
    pass


def look(inside: Callable[[Look], None] = lambda _: None, resource: Resource = RESOURCE) -> Look:
    with opened(SITE, resource, "test", silent) as seen:
        inside(seen)
        return seen


def verdicts(seen: Look) -> list[tuple[str, Verdict]]:
    return [(check.name, check.verdict) for check in seen.checks]


GOOD = [("journal", Verdict.GOOD), ("filesystem", Verdict.GOOD), ("mount", Verdict.GOOD)]


def test_a_copy_is_replayed_checked_and_mounted_and_nothing_stays(copy: Copy) -> None:
    def inside(seen: Look) -> None:
        assert copy.mounted == [(seen.place.look.path, options_of("ext4"))]
        assert seen.directory is not None
        assert (seen.directory / "deep/b").stat().st_size == TREE["deep/b"]
        assert seen.directory.stat().st_mode & 0o077 == 0
        assert inspect.exhausted(seen) == ""
        assert copy.private == 1

    seen = look(inside)
    assert (seen.source, seen.fstype, seen.size_bytes) == (Source.COPY, "ext4", 200 * MIB)
    assert seen.as_of == "", "nobody has said"
    assert verdicts(seen) == GOOD
    assert copy.changes == OF_THE_COPY
    assert (copy.left, copy.free) == ([], 1000 * MIB)


def test_it_is_noted_before_anything_is_made_and_is_no_operation_under_way(copy: Copy) -> None:
    noted: list[bool] = []
    copy.before = lambda program: (
        noted.append("test_a" in journal.remembered(plan.KIND)) if program == "lvcreate" else None
    )
    look(lambda _: noted.append(not journal.operations()))
    assert noted == [True, True]


def test_xfs_is_replayed_by_a_mount(copy: Copy) -> None:
    copy.fstype = "xfs"
    seen = look()
    assert verdicts(seen) == GOOD
    assert copy.changes == ["lvcreate", "mount", "umount", "setpriv", "mount", "umount", "lvremove"]


def test_of_btrfs_the_kernel_forgets_the_others_first_and_the_snapshot_at_last(copy: Copy) -> None:
    copy.fstype = "btrfs"
    forgotten: list[str] = []
    really = copy.answer

    def listening(argv: tuple[str, ...], stdin: str) -> Answer | None:
        if argv[:3] == ("btrfs", "device", "scan"):
            forgotten.append(argv[-1])
        return really(argv, stdin)

    copy.programs.machine = listening
    look(lambda _: forgotten.append("mounted"))
    others, mine = forgotten[: forgotten.index("mounted")], forgotten[forgotten.index("mounted") + 1 :]
    assert {"/dev/local/test_a", "/dev/drbd0", "/dev/local/test_a_restore_point"} <= set(others)
    assert mine == ["/dev/local/test_a_look"]
    assert copy.left == []


def test_a_btrfs_over_several_devices_is_not_mounted(copy: Copy) -> None:
    copy.fstype = "btrfs"
    really = copy.answer
    copy.programs.machine = lambda argv, stdin: (
        Answer("num_devices 2\n") if "dump-super" in argv else really(argv, stdin)
    )
    seen = look()
    assert verdicts(seen) == [("filesystem", Verdict.UNKNOWN)]
    assert "over 2 devices" in seen.checks[0].text
    assert copy.changes == ["lvcreate", "lvremove"]


@pytest.mark.parametrize(("fstype", "words"), [("", "There is no filesystem on it."), ("swap", "There is swap on it")])
def test_what_is_not_known_is_not_checked(fstype: str, words: str, copy: Copy) -> None:
    copy.fstype = fstype
    seen = look()
    assert (seen.fstype, seen.directory) == ("", None)
    assert verdicts(seen) == [("filesystem", Verdict.UNKNOWN)]
    assert words in seen.checks[0].text
    assert copy.left == []


@pytest.mark.parametrize("program", ["replay", "e2fsck"])
def test_what_a_check_finds_ends_the_look_and_is_no_exception(program: str, copy: Copy) -> None:
    copy.says[program] = Answer("\n".join(f"line {n}" for n in range(30)), 4)
    seen = look()
    assert seen.directory is None
    assert verdicts(seen)[-1][1] is Verdict.BAD
    assert "exit code 4" in seen.checks[-1].text
    assert seen.checks[-1].output[:2] == ("line 0", "line 1")
    assert seen.checks[-1].output[-1] == "… and 10 lines more"
    assert "mount" not in copy.changes
    assert copy.left == []


def test_what_cannot_be_mounted_is_bad(copy: Copy) -> None:
    copy.says["mount"] = Answer("", 32, "mount: wrong fs type, bad option, bad superblock")
    seen = look()
    assert seen.directory is None
    assert verdicts(seen)[-1] == ("mount", Verdict.BAD)
    assert copy.left == []


@pytest.mark.parametrize(
    ("program", "answer", "words"),
    [
        ("mount", Answer("", 32, "mount: unknown filesystem type 'ext4'."), "cannot mount it"),
        ("e2fsck", Answer("", 127, "setpriv: failed to execute e2fsck"), "could not be run"),
        ("e2fsck", Answer("", -9, ""), "ended with -9"),
        ("e2fsck", Answer("", 8, "image has unsupported feature(s): FEATURE_C12"), "cannot check it"),
    ],
)
def test_what_this_machine_cannot_do_says_nothing_of_the_data(
    program: str, answer: Answer, words: str, copy: Copy
) -> None:
    copy.says[program] = answer
    with pytest.raises(ToolFailed, match=words):
        look()
    assert copy.left == []


# -- the moment --------------------------------------------------------------------------------------------------


def test_while_a_resync_overwrites_it_a_device_is_laid_over_its_restore_point(copy: Copy) -> None:
    copy.overwritten()
    journal.record("connection-lost", "test_a", "")

    def inside(seen: Look) -> None:
        assert copy.mounted == [(f"/dev/mapper/{OVERLAY}", options_of("ext4"))]
        assert inspect.exhausted(seen) == ""

    seen = look(inside)
    assert seen.source is Source.RESTORE_POINT
    assert copy.changes == [
        "lvcreate", "dmsetup", "setpriv", "setpriv", "mount", "umount", "dmsetup", "lvremove",
    ]  # fmt: skip
    assert copy.left == []
    assert "test_a_restore_point" in copy.volumes


def test_of_a_thin_restore_point_a_snapshot_is_taken(copy: Copy) -> None:
    copy.volumes["test_a"]["pool_lv"] = "pool"
    copy.add("pool", 500 * MIB, data_percent="20.00")
    copy.overwritten(pool_lv="pool")
    assert verdicts(look(lambda seen: inspect.exhausted(seen))) == GOOD  # noqa: PLW0108
    assert copy.changes[:2] == ["lvcreate", "lvchange"]
    assert copy.left == []


def test_a_resync_that_begins_meanwhile_has_it_start_over(copy: Copy) -> None:
    def resync(program: str) -> None:
        if program == "lvcreate":
            copy.before = lambda _: None
            journal.record(plan.RESYNC_EVENT, "test_a", "")  # and it is over before anybody looks

    copy.before = resync
    assert verdicts(look()) == GOOD
    assert copy.changes == ["lvcreate", "lvremove", *OF_THE_COPY]
    assert copy.left == []


def test_one_that_goes_on_leads_to_the_restore_point(copy: Copy) -> None:
    def resync(program: str) -> None:
        if program == "lvcreate":
            copy.before = lambda _: None
            copy.overwritten()

    copy.before = resync
    assert look().source is Source.RESTORE_POINT
    assert copy.left == []


def test_resyncs_without_end_are_given_up(copy: Copy) -> None:
    copy.before = lambda program: journal.record(plan.RESYNC_EVENT, "test_a", "") if program == "lvcreate" else None
    with pytest.raises(Refused, match="faster than a snapshot"):
        look()
    assert copy.changes == ["lvcreate", "lvremove"] * inspect.TRIES
    assert copy.left == []


def test_another_resource_s_resync_is_none_of_its_business(copy: Copy) -> None:
    copy.before = lambda program: journal.record(plan.RESYNC_EVENT, "other", "") if program == "lvcreate" else None
    look()
    assert copy.changes == OF_THE_COPY


def test_a_restore_point_that_is_about_to_be_taken_is_waited_for(copy: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    copy.disk, copy.replication = DiskState.OUTDATED, ReplicationState.BITMAP_TARGET
    monkeypatch.setattr(time, "sleep", lambda _: copy.overwritten())
    assert look().source is Source.RESTORE_POINT


def test_a_restore_point_that_goes_meanwhile_has_it_start_over(copy: Copy) -> None:
    copy.overwritten()
    really = copy.answer

    def gone(argv: tuple[str, ...], stdin: str) -> Answer | None:
        if argv[:2] == ("dmsetup", "create"):
            copy.programs.machine = really
            copy.disk, copy.replication = DiskState.UP_TO_DATE, ReplicationState.ESTABLISHED
            del copy.volumes["test_a_restore_point"]
            return Answer("", 1, "No such device")
        return really(argv, stdin)

    copy.programs.machine = gone
    assert look().source is Source.COPY
    assert copy.left == []


def test_a_copy_behind_a_cut_line_has_what_was_marked_before(copy: Copy) -> None:
    copy.connected = False
    journal.remember("complete", "server", {"test_a": "2026-01-01T06:00:00+00:00"})
    assert look().as_of == "2026-01-01T06:00:00+00:00"


@pytest.mark.parametrize("free", [0, 20 * MIB])
def test_no_room_is_refused_and_leaves_nothing(free: int, copy: Copy) -> None:
    copy.free = free
    with pytest.raises(Refused, match="MiB free"):
        look()
    assert (copy.changes, copy.left) == ([], [])


def test_somebody_s_volume_of_that_name_stays(copy: Copy) -> None:
    copy.add("test_a_look", MIB)
    with pytest.raises(Refused, match="There is a volume"):
        look()
    assert copy.changes == []
    assert "test_a_look" in copy.volumes


def test_a_snapshot_that_overflows_says_so(copy: Copy) -> None:
    def inside(seen: Look) -> None:
        copy.volumes["test_a_look"]["data_percent"] = "100.00"
        assert "More was written meanwhile" in inspect.exhausted(seen)

    look(inside)


# -- a restore point that replication needs ----------------------------------------------------------------------


def test_a_look_gives_way_to_another_resync(copy: Copy) -> None:
    copy.overwritten()

    def inside(seen: Look) -> None:
        copy.disk, copy.replication = DiskState.UP_TO_DATE, ReplicationState.ESTABLISHED
        restore_point.PROC_DRBD.write_text(
            "version: 8.4.11 (api:1/proto:86-101)\n"
            " 0: cs:WFBitMapT ro:Secondary/Primary ds:Outdated/UpToDate A r-----\n"
            "    ns:0 nr:0 dw:0 dr:0 al:8 bm:0 lo:0 pe:0 ua:0 ap:0 ep:1 wo:f oos:1024\n"
        )
        said: list[str] = []
        assert restore_point.before_resync("test_a", 0, "local/test_a", "require", said.append) == 0
        assert said == []
        assert "gave way" in inspect.exhausted(seen)

    look(inside)
    assert "test_a_restore_point" in copy.volumes
    assert journal.holds() == {}
    assert copy.left == []


def test_one_that_is_looked_at_is_dropped_later(copy: Copy) -> None:
    copy.overwritten()

    def inside(_: Look) -> None:
        copy.volumes["test_a_restore_point"]["lv_device_open"] = "open"
        said: list[str] = []
        assert restore_point.after_resync("test_a", "local/test_a", said.append) == 0
        assert said == []
        assert "test_a_restore_point" in copy.volumes
        assert "test_a" in journal.remembered(restore_point.TAKEN)

    look(inside)
    copy.volumes["test_a_restore_point"]["lv_device_open"] = ""
    restore_point.look_after(SITE, make.host(SITE.flavour, [make.well(SITE.flavour)]))
    assert "test_a_restore_point" not in copy.volumes
    assert journal.remembered(restore_point.TAKEN) == {}


# -- nothing stays -----------------------------------------------------------------------------------------------


def test_there_is_one_at_a_time(copy: Copy) -> None:
    def inside(_: Look) -> None:
        with pytest.raises(Busy, match="being looked at already"):
            look()
        sweep(SITE, make.host())
        assert len(copy.mounted) == 1

    look(inside)
    assert copy.changes == OF_THE_COPY


@pytest.mark.parametrize("end", [Refused("x"), KeyboardInterrupt(), SystemExit(143), ValueError()])
def test_whatever_happens_inside_nothing_stays(end: BaseException, copy: Copy) -> None:
    def inside(_: Look) -> None:
        raise end

    with pytest.raises(type(end)):
        look(inside)
    assert copy.changes == OF_THE_COPY
    assert copy.left == []


def test_what_cannot_be_removed_is_said_and_left_to_the_watcher(copy: Copy) -> None:
    really = copy.answer
    copy.programs.machine = lambda argv, stdin: (
        Answer("", 5, "in use") if argv[0] == "lvremove" else really(argv, stdin)
    )
    said: list[str] = []
    with opened(SITE, RESOURCE, "test", said.append):
        pass
    assert "The watcher tries again" in said[-1]
    assert copy.left == ["test_a_look", "test_a", "test_a"], "the volume, its note and its directory"
    copy.programs.machine = really
    sweep(SITE, make.host())
    assert copy.left == []
    assert journal.events()[-1]["event"] == "look-swept"


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("source", Source)
@pytest.mark.parametrize("fstype", ["ext4", "xfs", "btrfs"])
@pytest.mark.parametrize("rebooted", [False, True])
def test_wherever_it_is_killed_the_watcher_removes_what_is_left(
    rebooted: bool, fstype: str, source: Source, late: bool, copy: Copy
) -> None:
    copy.fstype = fstype
    if source is Source.RESTORE_POINT:
        copy.overwritten()
    for number in range(1, 30):
        copy.changes.clear()
        copy.kill_at = -number if late else number
        with suppress(Killed):
            look()
            break
        copy.reboot() if rebooted else copy.die()
        sweep(SITE, make.host())
        assert copy.left == []
        assert copy.free == 1000 * MIB
        assert ("test_a_restore_point" in copy.volumes) == (source is Source.RESTORE_POINT)
    assert number > 5


def test_the_next_look_removes_what_a_killed_one_has_left(copy: Copy) -> None:
    copy.kill_at = 3
    with suppress(Killed):
        look()
    copy.die()
    assert verdicts(look()) == GOOD
    assert copy.left == []


def test_what_nobody_has_noted_is_removed_by_its_tag(copy: Copy) -> None:
    """lvcreate outlives a process that is killed in the middle of it, and may end after the watcher has looked."""
    copy.add("test_a_look", 40 * MIB, lv_tags=plan.TAG, origin="test_a")
    look()
    assert copy.changes == ["lvremove", *OF_THE_COPY]


@pytest.mark.parametrize("entry", [{}, {"volume": "x"}, {"volume": 3}])
def test_a_note_that_is_none_is_forgotten(entry: dict[str, object], copy: Copy) -> None:
    journal.remember(plan.KIND, "test_a", entry)
    sweep(SITE, make.host())
    assert journal.remembered(plan.KIND) == {}
    assert copy.changes == []


def test_where_nothing_is_left_no_program_is_run(copy: Copy) -> None:
    sweep(SITE, make.host())
    assert copy.programs.ran == []


def test_the_lock_is_not_the_resource_s(copy: Copy) -> None:
    del copy
    with files.lock("resource-test_a", 0.0):
        look()


# -- for a person ------------------------------------------------------------------------------------


def test_a_person_s_look_stays_until_it_is_closed(copy: Copy) -> None:
    seen = inspect.stay(SITE, RESOURCE, silent)
    assert seen.directory is not None
    assert copy.mounted == [(seen.place.look.path, options_of("ext4"))]
    assert copy.private == 0, "everybody sees it"
    sweep(SITE, make.host())
    assert copy.mounted
    with pytest.raises(Busy, match="is open for a person"):
        look()
    assert inspect.close("test_a")
    assert (copy.left, copy.free) == ([], 1000 * MIB)
    assert not inspect.close("test_a")


def test_a_reboot_ends_a_person_s_look(copy: Copy) -> None:
    inspect.stay(SITE, RESOURCE, silent)
    copy.reboot()
    sweep(SITE, make.host())
    assert copy.left == []


def test_one_that_cannot_be_mounted_does_not_stay(copy: Copy) -> None:
    copy.says["e2fsck"] = Answer("damaged", 4)
    assert inspect.stay(SITE, RESOURCE, silent).directory is None
    assert copy.left == []


def test_only_a_person_s_look_is_closed(copy: Copy) -> None:
    closed = []
    look(lambda _: closed.append(inspect.close("test_a")))
    assert closed == [False]
    assert copy.left == []
