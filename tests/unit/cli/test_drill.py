"""``drill`` as a shell and systemd see it."""

import json
import signal
import time
from pathlib import Path

import pytest

from drbd_offsite import config, journal
from drbd_offsite.cli import common
from drbd_offsite.errors import ExitCode
from drbd_offsite.operations import drill as operation
from drbd_offsite.operations import inspect
from drbd_offsite.plan import drilled

from .. import make
from ..conftest import Answer, Programs
from ..operations.looked import CONFIG, SITE, Copy
from .conftest import Command


@pytest.fixture
def copy(programs: Programs, root: Path, monkeypatch: pytest.MonkeyPatch) -> Copy:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    return Copy(programs, root, monkeypatch)


def test_a_drill_that_passes(command: Command, copy: Copy) -> None:
    said = command("drill", "test_a")
    assert said.code == ExitCode.DONE
    assert said.out.startswith("test_a: passed. The copy can be used")
    assert "good     files: 3 files, 5.9 KiB" in said.out
    assert "test_a: taking a snapshot of the copy" in said.err
    assert copy.left == []


def test_without_a_name_all_are_tried(command: Command, copy: Copy) -> None:
    del copy
    assert json.loads(command("drill", "--json").out)[0]["resource"] == "test_a"


def test_json_is_what_is_kept(command: Command, copy: Copy) -> None:
    del copy
    (found,) = json.loads(command("drill", "--json", "test_a").out)
    (kept,) = (journal.STATE / "drills/test_a").glob("*.json")
    assert found == json.loads(kept.read_text())
    assert found["outcome"] == "passed"


def test_a_failure_and_what_could_not_be_done_have_their_codes(command: Command, copy: Copy) -> None:
    copy.says["e2fsck"] = Answer("bad", 4)
    said = command("drill", "test_a")
    assert said.code == ExitCode.FAILED
    assert said.out.startswith("test_a: failed.")
    copy.free = 0
    said = command("drill", "test_a")
    assert said.code == ExitCode.WARNED
    assert said.out.startswith("test_a: could not be done. The volume group local has 0 MiB free")


TWO = CONFIG + CONFIG[CONFIG.index("  [[test_a]]") :].replace("test_a", "test_b").replace("[0]", "[1]").replace(
    "= 0\n", "= 1\n"
).replace("= 7789", "= 7790")  # fmt: skip


def test_what_has_failed_is_worse_than_what_could_not_be_done(command: Command, copy: Copy) -> None:
    """Its exit code is the smaller one."""
    config.PATH.write_text(TWO)
    copy.says["e2fsck"] = Answer("bad", 4)
    said = command("drill")
    assert said.code == ExitCode.FAILED
    assert "test_b: could not be done. Whether the copy of test_b is whole is not known: it is not up here." in said.out


def test_one_that_is_looked_at_already_does_not_keep_the_others_back(command: Command, copy: Copy) -> None:
    del copy
    config.PATH.write_text(TWO)
    with inspect.opened(SITE, SITE.resources["test_a"], "test", lambda _: None):
        said = command("drill")
    assert "test_a is being looked at already" in said.err
    assert said.out.startswith("test_b: could not be done")
    assert said.code == ExitCode.WARNED


def test_where_nothing_else_happened_that_is_a_refusal(command: Command, copy: Copy) -> None:
    with inspect.opened(SITE, SITE.resources["test_a"], "test", lambda _: None):
        assert command("drill", "test_a").code == ExitCode.REFUSED
    assert copy.left == []


def test_the_server_is_told_where(command: Command, copy: Copy) -> None:
    config.PATH.write_text(make.CONFIG)
    said = command("drill")
    assert said.code == ExitCode.REFUSED
    assert "Run it on the backup" in said.err
    assert copy.changes == []


def test_an_unknown_resource(command: Command, copy: Copy) -> None:
    assert command("drill", "nothing").code == ExitCode.USAGE
    assert copy.changes == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_drill_that_is_told_to_stop_cleans_up_first(
    number: signal.Signals, command: Command, copy: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.getsignal(number)

    def stopped(*_: object) -> None:
        assert len(copy.mounted) == 1
        signal.raise_signal(number)

    monkeypatch.setattr(operation, "_counted", stopped)
    assert command("drill", "test_a").code == common.STOPPED == 143
    assert copy.left == []
    assert signal.getsignal(number) is before


def test_status_shows_the_last_one(command: Command, copy: Copy) -> None:
    del copy
    assert "last drill  none yet" in command("status").out
    command("drill")
    said = command("status")
    assert said.code == ExitCode.DONE
    at = journal.remembered(drilled.KIND)["test_a"]["at"]
    assert f"  last drill  {at}: passed\n" in said.out
    (resource,) = json.loads(command("status", "--json").out)["resources"]
    assert resource["drill"] == {"at": at, "outcome": "passed", "passed": at, "overdue": False}


def test_status_shows_a_failed_one_and_one_that_is_overdue(command: Command, copy: Copy) -> None:
    copy.says["e2fsck"] = Answer("bad", 4)
    command("drill")
    said = command("status")
    assert said.code == ExitCode.FAILED
    assert "test_a: The last drill, at " in said.out
    assert "has failed: filesystem: e2fsck -f -n /dev/local/test_a_look has found errors" in said.out
    known = journal.remembered(drilled.KIND)["test_a"]
    journal.remember(drilled.KIND, "test_a", known | {"since": "2026-01-01T00:00:00+00:00", "outcome": "untested"})
    said = command("status", "--json")
    assert said.code == ExitCode.FAILED
    (resource,) = json.loads(said.out)["resources"]
    assert resource["level"] == "broken"
    assert resource["drill"]["overdue"] is True
    assert "None ever has. The last one" in resource["sentences"][0]
