"""Drills from beginning to end: what they come to, what is kept of them, and what is remembered."""

import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from drbd_offsite import alert, hooks, host, journal
from drbd_offsite.errors import Refused, ToolFailed
from drbd_offsite.model import Flavour, Resource, Site
from drbd_offsite.observed import Operation
from drbd_offsite.operations import drill as module
from drbd_offsite.operations import inspect
from drbd_offsite.operations.drill import drill, follow_up
from drbd_offsite.operations.inspect import Busy
from drbd_offsite.plan import drilled
from drbd_offsite.plan.drill import Result
from drbd_offsite.plan.drilled import Count, Outcome
from drbd_offsite.plan.look import Source, Verdict
from drbd_offsite.run import Ended

from .. import make
from ..conftest import Answer, Shadow
from .looked import MIB, SITE, Copy

RESOURCE = SITE.resources["test_a"]
FILES, BYTES = 3, 6000


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    monkeypatch.setattr(hooks, "OWNER", os.getuid())


class Checks:
    """What an admin's commands say."""

    def __init__(self) -> None:
        self.ran: list[tuple[str, ...]] = []
        self.variables: dict[str, str] = {}
        self.seconds = 0.0
        self.ends: dict[str, Ended] = {}
        self.meanwhile: Callable[[], None] = lambda: None

    def run(self, argv: tuple[str, ...], *, directory: str, variables: dict[str, str], seconds: float) -> Ended:
        assert (Path(directory) / "deep/b").exists()
        assert argv[0] == "setpriv"
        words = argv[argv.index("--mount-proc") + 2 :]
        self.ran.append(words)
        self.variables, self.seconds = dict(variables), seconds
        self.meanwhile()
        return self.ends.get(Path(words[0]).name, Ended(0, ("fine",)))


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> Checks:
    found = Checks()
    monkeypatch.setattr(module, "bounded", found.run)
    return found


def try_it(site: Site = SITE, **changes: object) -> Result:
    resource: Resource = replace(RESOURCE, **changes)  # type: ignore[arg-type]
    return drill(site, resource, lambda _: None)


def verdict(result: Result, name: str) -> Verdict:
    return next(check.verdict for check in result.checks if check.name == name)


def script(name: str, mode: int = 0o755) -> Path:
    path = alert.SETTINGS / "drill.d" / name
    path.parent.mkdir(mode=0o755, exist_ok=True)
    path.write_text("")
    path.chmod(mode)
    return path


def kept() -> list[Path]:
    return sorted((journal.STATE / "drills/test_a").iterdir())


def test_a_good_copy_passes_and_that_is_kept(copy: Copy) -> None:
    copy.lacking = 4096
    journal.remember("complete", "server", {"test_a": "2026-01-01T06:00:00+00:00"})
    result = try_it()
    assert (result.outcome, result.count) == (Outcome.PASSED, Count(FILES, BYTES))
    assert result.seen is not None
    assert (result.seen.source, result.seen.size_bytes) == (Source.COPY, 200 * MIB)
    assert [check.name for check in result.checks] == ["journal", "filesystem", "mount", "files"]
    assert (result.peer, result.line_before.lacking_bytes) == ("server", 4096)
    assert result.seen.as_of == "2026-01-01T06:00:00+00:00"
    assert result.line_after.state == "Connected, Established, UpToDate here"
    assert copy.left == []
    assert [path.suffix for path in kept()] == [".html", ".json", ".txt"]
    assert {path.stat().st_mode & 0o777 for path in kept()} == {0o600}
    assert kept()[0].parent.stat().st_mode & 0o777 == 0o700
    assert json.loads(kept()[1].read_text())["count"] == {"files": FILES, "size_bytes": BYTES}
    entry = journal.events()[-1]
    assert (entry["event"], entry["outcome"]) == ("drill", "passed")
    assert entry["evidence"] == str(kept()[0])


def test_it_is_remembered_and_seen_by_the_next_look_at_this_machine(copy: Copy) -> None:
    del copy
    result = try_it()
    known = host.observe(SITE).drills["test_a"]
    assert (known.at, known.passed, known.outcome) == (result.begun, result.begun, "passed")
    assert known.unproven_seconds < 3600


def test_replication_is_measured_meanwhile(copy: Copy, checks: Checks) -> None:
    def comes() -> None:
        copy.received_kib += 2048
        copy.connected = False

    checks.meanwhile = comes
    result = try_it(drill_command=("check",))
    assert result.received_bytes == 2 * MIB
    assert result.line_after.state == "Connecting, UpToDate here"
    assert result.line_after.lacking_bytes is None


def test_a_server_that_does_not_answer_is_no_failure(copy: Copy) -> None:
    copy.silent = True
    result = try_it()
    assert (result.outcome, result.line_before.lacking_bytes) == (Outcome.PASSED, None)


def test_a_damaged_filesystem_fails(copy: Copy) -> None:
    copy.says["e2fsck"] = Answer("Entry 'x' has deleted inode 12\n", 4)
    result = try_it()
    assert (result.outcome, result.count) == (Outcome.FAILED, None)
    assert "has found errors (exit code 4)" in result.reason
    assert "deleted inode 12" in kept()[2].read_text()
    assert host.observe(SITE).drills["test_a"].passed == ""
    assert copy.left == []


def test_what_cannot_be_read_fails(copy: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    del copy

    def broken(path: str) -> None:
        raise OSError(117, "Structure needs cleaning", path + "/deep")

    monkeypatch.setattr(module, "os", Shadow(os, scandir=broken))
    result = try_it()
    assert result.outcome is Outcome.FAILED
    assert "/deep cannot be read: Structure needs cleaning." in result.reason


@pytest.mark.parametrize("fstype", ["", "swap"])
def test_what_is_not_known_has_not_passed(fstype: str, copy: Copy) -> None:
    copy.fstype = fstype
    result = try_it()
    assert (result.outcome, result.count) == (Outcome.UNTESTED, None)
    assert "Nothing was checked" in result.reason


def test_no_room_is_not_the_data_s_fault(copy: Copy) -> None:
    copy.free = 0
    result = try_it()
    assert result.outcome is Outcome.UNTESTED
    assert "has 0 MiB free" in result.reason
    assert "vgextend local" in result.reason
    assert result.seen is None
    assert copy.changes == []


def test_a_program_that_is_not_there_is_not_the_data_s_fault(copy: Copy) -> None:
    copy.says["e2fsck"] = Answer("", 127, "setpriv: failed to execute e2fsck: No such file or directory")
    assert try_it().outcome is Outcome.UNTESTED
    assert copy.left == []


def test_a_snapshot_that_overflows_is_not_the_data_s_fault(copy: Copy, checks: Checks) -> None:
    def fills() -> None:
        copy.volumes["test_a_look"]["data_percent"] = "100.00"

    checks.meanwhile = fills
    checks.ends["check"] = Ended(1, ("Input/output error",))
    result = try_it(drill_command=("check",))
    assert (result.outcome, result.count) == (Outcome.UNTESTED, None)
    assert "More was written meanwhile" in result.reason
    assert copy.left == []


def test_in_the_middle_of_a_resync_it_is_the_restore_point_that_is_tried(copy: Copy) -> None:
    copy.overwritten()
    result = try_it()
    assert result.outcome is Outcome.PASSED
    assert result.seen is not None
    assert (result.seen.source, result.seen.as_of, result.age_seconds) == (Source.RESTORE_POINT, "", None)


# -- counts ------------------------------------------------------------------------------------------------------


def test_far_fewer_files_than_last_time_are_a_finding_once(copy: Copy) -> None:
    try_it()
    copy.tree = {"deep/b": 100}
    result = try_it()
    assert result.outcome is Outcome.WARNED
    assert "far fewer files" in result.reason
    assert result.count_before == Count(FILES, BYTES)
    assert host.observe(SITE).drills["test_a"].passed == result.begun
    assert try_it().outcome is Outcome.PASSED, "it is what there is"


def test_a_failed_drill_is_none_to_compare_with(copy: Copy) -> None:
    try_it()
    copy.says["e2fsck"] = Answer("", 4)
    try_it()
    del copy.says["e2fsck"]
    assert try_it().count_before == Count(FILES, BYTES)


def test_links_are_files_and_are_not_followed(copy: Copy, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/large").write_bytes(b"x" * 10**6)
    really = copy._mount

    def with_link(argv: tuple[str, ...]) -> Answer:
        said = really(argv)
        (Path(argv[-1]) / "link").symlink_to(tmp_path / "elsewhere")
        return said

    copy._mount = with_link  # type: ignore[method-assign]
    result = try_it()
    assert result.count is not None
    assert result.count.files == FILES + 1
    assert result.count.size_bytes < 10**5


def test_counting_has_an_end(copy: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    del copy
    clock = iter(range(0, 10**8, 10**5))
    monkeypatch.setattr(module, "time", Shadow(time, monotonic=lambda: next(clock)))
    result = try_it()
    assert (result.outcome, result.count) == (Outcome.WARNED, None)
    assert "after 60 min there" in result.reason


# -- the admin's own checks --------------------------------------------------------------------------------------


def test_the_command_and_the_scripts_are_run_where_it_is_mounted(copy: Copy, checks: Checks) -> None:
    script("b_2")
    script("A-1")
    script("README.txt")
    script("README", 0o644)
    result = try_it(replace(SITE, drill_minutes=5), drill_command=("check", "--all", "a b"))
    scripts = alert.SETTINGS / "drill.d"
    assert checks.ran == [("check", "--all", "a b"), (f"{scripts}/A-1",), (f"{scripts}/b_2",)]
    assert checks.seconds == 300.0
    assert checks.variables == {
        "DRBD_OFFSITE_RESOURCE": "test_a",
        "DRBD_OFFSITE_DIRECTORY": str(inspect.DIRECTORY / "test_a"),
        "DRBD_OFFSITE_AS_OF": result.seen.as_of if result.seen else "",
    }
    assert result.outcome is Outcome.PASSED
    assert [check.name for check in result.checks[-3:]] == ["command check", "drill.d/A-1", "drill.d/b_2"]
    assert result.checks[-1].output == ("fine",)
    assert copy.left == []


@pytest.mark.parametrize(
    ("ended", "outcome", "words"),
    [
        (Ended(1, ("no dump",)), Outcome.FAILED, "is not good (exit code 1)"),
        (Ended(-9, ()), Outcome.FAILED, "ended by signal 9"),
        (Ended(None, ("still at it",)), Outcome.FAILED, "was stopped after 60 min"),
        (Ended(127, ("no such file",)), Outcome.UNTESTED, "could not be run"),
    ],
)
def test_a_check_that_says_no_fails_the_drill(
    ended: Ended, outcome: Outcome, words: str, copy: Copy, checks: Checks
) -> None:
    checks.ends["check"] = ended
    script("other")
    result = try_it(drill_command=("/usr/local/bin/check",))
    assert result.outcome is outcome
    assert words in result.reason
    assert result.checks[-2].output == ended.lines
    assert verdict(result, "drill.d/other") is Verdict.GOOD, "one does not keep the next back"
    assert copy.left == []


def test_arguments_are_not_told(copy: Copy, checks: Checks) -> None:
    del copy, checks
    try_it(drill_command=("check", "--password=hunter2"))
    assert not any("hunter2" in path.read_text() for path in kept())


def test_a_script_that_others_can_write_is_not_run_and_that_is_no_pass(copy: Copy, checks: Checks) -> None:
    del copy
    script("check", 0o757)
    result = try_it()
    assert checks.ran == []
    assert result.outcome is Outcome.UNTESTED
    assert "others than root may write" in result.reason


def test_without_a_filesystem_nothing_of_the_admin_s_is_run(copy: Copy, checks: Checks) -> None:
    copy.fstype = ""
    script("check")
    try_it(drill_command=("check",))
    assert checks.ran == []


# -- what is no result -------------------------------------------------------------------------------------------


def test_the_server_is_told_where() -> None:
    with pytest.raises(Refused, match="drill is for the backup"):
        drill(make.site(), RESOURCE, lambda _: None)


def test_two_at_a_time_are_no_result(copy: Copy) -> None:
    with inspect.opened(SITE, RESOURCE, "test", lambda _: None), pytest.raises(Busy):
        try_it()
    assert not (journal.STATE / "drills").exists()
    assert copy.left == []


@pytest.mark.parametrize("end", [KeyboardInterrupt, SystemExit])
def test_one_that_is_broken_off_is_no_result_and_leaves_nothing(
    end: type[BaseException], copy: Copy, checks: Checks
) -> None:
    def ended() -> None:
        raise end

    checks.meanwhile = ended
    with pytest.raises(end):
        try_it(drill_command=("check",))
    assert not (journal.STATE / "drills").exists()
    assert journal.events()[-1]["event"] == "drill-broken-off"
    assert journal.remembered(drilled.KIND) == {}
    assert copy.left == []


def test_a_machine_that_cannot_mount_for_itself_says_so(copy: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused() -> None:
        raise ToolFailed("No place can be made.")

    monkeypatch.setattr(inspect.namespace, "private", refused)
    assert try_it().reason == "No place can be made."
    assert copy.changes == []


# -- what is kept ------------------------------------------------------------------------------------------------


def test_the_last_hundred_are_kept(copy: Copy) -> None:
    del copy
    directory = journal.STATE / "drills/test_a"
    directory.mkdir(parents=True)
    for number in range(module.KEPT + 5):
        for suffix in ("txt", "html", "json"):
            (directory / f"20250101T000{number:03}Z.{suffix}").touch()
    try_it()
    assert len(kept()) == 3 * module.KEPT
    assert kept()[0].name.startswith("20250101T000006Z")


def test_from_when_it_is_seen_first_a_resource_s_drills_are_waited_for(copy: Copy) -> None:
    del copy
    follow_up(SITE, make.host())
    entry = journal.remembered(drilled.KIND)["test_a"]
    follow_up(SITE, make.host())
    assert journal.remembered(drilled.KIND)["test_a"] == entry
    assert entry["since"]
    try_it()
    assert journal.remembered(drilled.KIND)["test_a"]["since"] == entry["since"]


def test_on_the_server_nothing_is_waited_for() -> None:
    follow_up(make.site(), make.host())
    assert journal.remembered(drilled.KIND) == {}


def test_what_is_gone_is_forgotten_but_not_in_the_middle_of_a_renaming() -> None:
    journal.remember(drilled.KIND, "old", drilled.first_seen(journal.now()))
    renaming = Operation("rename", "old", "", {})
    follow_up(SITE, make.host(operations={"rename-old": renaming}))
    assert "old" in journal.remembered(drilled.KIND)
    follow_up(SITE, make.host(Flavour.BACKUP))
    assert "old" not in journal.remembered(drilled.KIND)
