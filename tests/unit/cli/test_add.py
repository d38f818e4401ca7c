"""``add`` of several volumes as a shell sees it: chosen, checked together, made one after the other, awaited as one."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from drbd_offsite import config, journal
from drbd_offsite.cli import progress
from drbd_offsite.errors import ExitCode
from drbd_offsite.model import PRIORITIES
from drbd_offsite.observed import DiskState, DrbdResource, Progress, ReplicationState
from drbd_offsite.tools import lvm

from .. import make
from ..conftest import Answer, Programs
from ..operations.fleet import Fleet, Volume
from ..operations.world import Killed
from .conftest import Command, Said

TAGGED = ("add", "--all", "--tag", "@offsite")
NAMES = ["a", "b", "c"]


@pytest.fixture
def fleet(programs: Programs, root: Path) -> Fleet:
    """Three tagged volumes, and one that nobody has tagged."""
    tagged = {name: Volume(tags="offsite") for name in reversed(NAMES)}
    return Fleet(programs, root, {**tagged, "other": Volume(tags="on-site")})


@pytest.fixture
def seen_syncing(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Which syncs ran at each look; in each pause they come to their end."""
    ran: list[list[str]] = []

    def pause(_: float) -> None:
        ran.append(fleet.syncing())
        fleet.sync()

    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: 1000.0 * len(ran), sleep=pause))
    return ran


def chain(fleet: Fleet) -> dict[str, str]:
    """For whose resync each resource waits in the kernel."""
    names = {device.minor: name for name, device in fleet.kernel.items()}
    return {name: names[device.after] for name, device in fleet.kernel.items() if device.after >= 0}


def complete(fleet: Fleet, names: list[str]) -> None:
    assert journal.operations() == {}
    assert list(config.load().resources) == names
    assert set(fleet.kernel) == set(fleet.backup) == set(names)
    assert all(device.primary and device.connected for device in fleet.kernel.values())
    assert len(fleet.enabled) == len(names)
    # Two machines with two orders would wait for each other.
    assert list(fleet.backup) == names


# -- which volumes ---------------------------------------------------------------------------------


def test_the_tag_chooses_the_volumes_and_they_are_synced_one_after_the_other(
    command: Command, fleet: Fleet, seen_syncing: list[list[str]]
) -> None:
    said = command(*TAGGED)
    assert said.code == ExitCode.DONE, said.err
    complete(fleet, NAMES)
    assert chain(fleet) == {"b": "a", "c": "b"}
    assert seen_syncing == [["a"], ["b"], ["c"]]
    lines = [line for line in said.err.splitlines() if line.endswith("to come") or "up to date" in line]
    assert lines[0].startswith("a: [")
    assert [line.rpartition("; ")[2] for line in lines] == ["2 more to come", "1 more to come", lines[2]]
    assert lines[2] == "a, b, c: both copies are up to date"
    assert {f"/dev/drbd/by-res/{name}/0" in said.err for name in NAMES} == {True}


def test_the_tag_is_written_with_or_without_its_sign(command: Command, fleet: Fleet) -> None:
    assert command("add", "--all", "--tag", "offsite", "--no-wait").code == ExitCode.DONE
    complete(fleet, NAMES)


def test_the_same_command_again_does_nothing_and_says_so(
    command: Command, fleet: Fleet, seen_syncing: list[list[str]]
) -> None:
    command(*TAGGED)
    fleet.log.clear()
    seen_syncing.clear()
    said = command(*TAGGED)
    assert said.code == ExitCode.DONE
    assert fleet.log == []
    assert seen_syncing == []
    assert [f"local/{name} is replicated already, as {name}." in said.err for name in NAMES] == [True] * 3


def test_a_volume_that_was_tagged_later_is_all_that_is_added(command: Command, fleet: Fleet) -> None:
    command(*TAGGED, "--no-wait")
    fleet.volumes["other"].tags = "x,offsite"
    assert command(*TAGGED, "--no-wait").code == ExitCode.DONE
    complete(fleet, [*NAMES, "other"])


def test_several_are_added_in_the_order_of_the_command_and_each_once(command: Command, fleet: Fleet) -> None:
    assert command("add", "local/c", "/dev/local/a", "local/c", "--no-wait").code == ExitCode.DONE
    complete(fleet, ["c", "a"])
    assert chain(fleet) == {"a": "c"}


def test_what_cannot_be_a_copy_s_source_is_never_chosen(command: Command, fleet: Fleet) -> None:
    fleet.volumes |= {
        "drbd_meta": Volume(512 * make.MIB, "offsite"),
        "snapshot": Volume(tags="offsite", origin="a", data_percent="1.00"),
        "thin_snapshot": Volume(tags="offsite", origin="other", pool="pool", data_percent="1.00"),
        "pool": Volume(tags="offsite", data_percent="5.00"),
        "[hidden]": Volume(tags="offsite"),
        "thin": Volume(tags="offsite", pool="pool", data_percent="1.00"),
        "cached": Volume(tags="offsite", origin="[cached_corig]", pool="[cpool]", data_percent="1.00"),
    }
    assert command(*TAGGED, "--no-wait").code == ExitCode.DONE
    complete(fleet, [*NAMES, "cached", "thin"])


def test_a_tag_that_no_volume_has_is_refused_with_how_to_set_it(command: Command, fleet: Fleet) -> None:
    said = command("add", "--all", "--tag", "@of-site")
    assert said.code == ExitCode.REFUSED
    assert "has the tag of-site" in said.err
    assert "lvchange --addtag of-site" in said.err
    assert fleet.log == []


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--all"],
        ["--tag", "@offsite"],
        ["--all", "--tag", "@"],
        ["local/a", "--tag", "@offsite"],
        ["local/a", "--all", "--tag", "@offsite"],
        ["local/a", "local/b", "--name", "x"],
        ["--all", "--tag", "@offsite", "--name", "x"],
        ["local/a", "b"],
        ["local/a", "--priority", str(PRIORITIES[0] - 1)],
        ["local/a", "--priority", str(PRIORITIES[-1] + 1)],
        ["local/a", "--priority", "high"],
    ],
    ids=" ".join,
)
def test_words_that_do_not_go_together_are_a_usage_error(command: Command, fleet: Fleet, words: list[str]) -> None:
    assert command("add", *words).code == ExitCode.USAGE
    assert fleet.log == []


# -- what is refused -------------------------------------------------------------------------------


def refused(said: Said, fleet: Fleet) -> None:
    assert said.code == ExitCode.REFUSED
    untouched(fleet)


def untouched(fleet: Fleet) -> None:
    assert fleet.log == []
    assert journal.operations() == {}
    assert config.load().resources == {}


def test_every_refusal_is_listed_with_its_volume_and_nothing_is_begun(command: Command, fleet: Fleet) -> None:
    fleet.volumes["a"].open = True
    fleet.backup_refuses["c"] = "local/c exists already on backup."
    said = command(*TAGGED)
    refused(said, fleet)
    assert "2 of 3 volumes cannot be added, so nothing was done:" in said.err
    assert "- local/a: local/a is in use" in said.err
    assert "- local/c: The peer says: local/c exists already" in said.err
    assert "- local/b" not in said.err


def test_what_would_be_refused_to_all_is_said_once(command: Command, fleet: Fleet) -> None:
    config.PATH.write_text(config.updated(config.PATH.read_text(), {"peers.backup.hostname": ""}))
    said = command(*TAGGED)
    refused(said, fleet)
    assert said.err.count("No backup is enrolled") == 1


def test_a_backup_that_is_away_is_noticed_before_anything_is_begun(
    command: Command, fleet: Fleet, programs: Programs
) -> None:
    answer = fleet.answer
    programs.machine = lambda argv, stdin: Answer("", 255, "timed out") if argv[0] == "ssh" else answer(argv, stdin)
    assert command(*TAGGED).code == ExitCode.PEER_UNREACHABLE
    untouched(fleet)


def test_all_slots_together_have_to_have_room(command: Command, fleet: Fleet) -> None:
    fleet.free = 256 * make.MIB
    said = command(*TAGGED)
    refused(said, fleet)
    assert "- local/c: The volume group local on" in said.err
    assert "384 MiB are needed" in said.err
    assert command("add", "local/a", "local/b", "--no-wait").code == ExitCode.DONE


def test_volumes_of_one_name_are_refused_because_their_copies_would_have_it_too(
    command: Command, fleet: Fleet, programs: Programs
) -> None:
    answer = fleet.answer

    def two_groups(argv: tuple[str, ...], stdin: str) -> Answer | None:
        said = answer(argv, stdin)
        if argv != lvm.REPORT or said is None:
            return said
        (local,) = json.loads(said.stdout)["report"]
        return Answer(json.dumps({"report": [local, {**local, "vg": [{**local["vg"][0], "vg_name": "second"}]}]}))

    programs.machine = two_groups
    said = command("add", "local/a", "second/a")
    refused(said, fleet)
    assert "local/a has the same name" in said.err
    assert "lvrename second a" in said.err


def test_the_backup_is_told_where(command: Command, fleet: Fleet) -> None:
    config.PATH.write_text(config.PATH.read_text().replace("flavour = server", "flavour = backup"))
    said = command(*TAGGED)
    refused(said, fleet)
    assert "Run it on the server" in said.err


def test_a_dry_run_of_several_shows_each_one_s_steps_with_its_own_slot(command: Command, fleet: Fleet) -> None:
    said = command(*TAGGED, "--dry-run")
    assert said.code == ExitCode.DONE
    untouched(fleet)
    steps = said.out.splitlines()
    assert [line.split(":")[0] for line in steps if "ask backup to replicate" in line] == NAMES
    made = [line for line in steps if "lvcreate" in line or "lvextend" in line]
    assert [line.split(":")[0] for line in made] == NAMES
    for slot, line in enumerate(made):
        assert f"--size {(slot + 1) * 128 * make.MIB}b" in line


# -- what stops in the middle ----------------------------------------------------------------------


@pytest.mark.parametrize("words", [TAGGED, ("add", "local/a", "local/b", "local/c")], ids=["tag", "list"])
def test_killed_anywhere_in_the_second_of_three_the_same_command_finishes_all(
    command: Command, fleet: Fleet, words: tuple[str, ...], root: Path
) -> None:
    command(*words, "--no-wait")
    log = list(fleet.log)
    begins, ends = (n for n, line in enumerate(log) if line.startswith("lvextend"))
    assert ends - begins > 6
    for number in range(begins + 1, ends + 1):
        _forget(root)
        fleet = Fleet(fleet.programs, root, {name: Volume(tags="offsite") for name in NAMES}, kill_at=number)
        with pytest.raises(Killed):
            command(*words, "--no-wait")
        assert list(journal.operations()) == ["add-b"]
        fleet.kill_at = None
        said = command(*words, "--no-wait")
        assert said.code == ExitCode.DONE, said.err
        assert "local/a is replicated already, as a." in said.err
        assert "local/b is replicated already" not in said.err
        complete(fleet, NAMES)
        assert chain(fleet) == {"b": "a", "c": "b"}


def _forget(root: Path) -> None:
    """A new machine in the same place."""
    for path in [*root.glob("etc/drbd.d/*"), *root.glob("etc/systemd/**/*.conf"), *journal.STATE.rglob("*.json*")]:
        path.unlink()


def test_what_was_begun_is_finished_first_so_that_both_machines_have_one_order(command: Command, fleet: Fleet) -> None:
    fleet.kill_at = 3
    with pytest.raises(Killed):
        command("add", "local/c", "--no-wait")
    fleet.kill_at = None
    assert command(*TAGGED, "--no-wait").code == ExitCode.DONE
    complete(fleet, ["c", "a", "b"])


def test_an_unfinished_add_is_resumed_under_its_own_name(command: Command, fleet: Fleet) -> None:
    fleet.kill_at = 2
    with pytest.raises(Killed):
        command("add", "local/a", "local/b", "--no-wait", "--priority", "3")
    fleet.kill_at = None
    assert command("add", "local/b", "local/a", "--no-wait").code == ExitCode.DONE
    assert [r.priority for r in config.load().resources.values()] == [3, 0], "what was begun keeps its priority"


def test_a_backup_that_runs_out_of_room_stops_it_and_what_is_done_stays(command: Command, fleet: Fleet) -> None:
    fleet.backup_room = 1
    said = command(*TAGGED, "--no-wait")
    assert said.code == ExitCode.REFUSED
    assert "local/b: The peer says: The volume group local has 0 MiB free." in said.err
    assert "Replicated now: local/a. Unfinished: local/b. Not begun: local/c." in said.err
    assert "Nothing is lost, and the same command goes on from here." in said.err
    fleet.backup_room = 3
    assert command(*TAGGED, "--no-wait").code == ExitCode.DONE
    complete(fleet, NAMES)


def test_one_that_is_refused_at_its_turn_is_not_begun(command: Command, fleet: Fleet) -> None:
    """Somebody has mounted it since the check."""
    answer = fleet.answer

    def busy(argv: tuple[str, ...], stdin: str) -> Answer | None:
        fleet.volumes["b"].open = fleet.volumes["b"].open or "a" in fleet.backup
        return answer(argv, stdin)

    fleet.programs.machine = busy
    said = command("add", "local/a", "local/b", "--no-wait")
    assert said.code == ExitCode.REFUSED
    assert "Replicated now: local/a. Not begun: local/b." in said.err
    assert journal.operations() == {}


# -- priority --------------------------------------------------------------------------------------


def test_a_higher_priority_goes_before_what_is_up_already(
    command: Command, fleet: Fleet, seen_syncing: list[list[str]]
) -> None:
    command("add", "local/a", "local/b", "--no-wait")
    said = command("add", "local/c", "--priority", "10")
    assert said.code == ExitCode.DONE, said.err
    assert chain(fleet) == {"a": "c", "b": "a"}
    assert seen_syncing[0] == ["c"]
    told = fleet.log.index("drbdsetup disk-options 0 --resync-after=2")
    assert fleet.log.index("drbdadm attach c") < told < fleet.log.index("drbdadm connect c"), "before its sync begins"
    assert 'resync-after "c/0"' in (fleet.root / "etc/drbd.d/0_a.res").read_text()


def test_a_volume_that_comes_last_changes_nobody_else_s_order(command: Command, fleet: Fleet) -> None:
    command(*TAGGED, "--no-wait")
    assert not any(line.startswith("drbdsetup") for line in fleet.log)


def test_killed_anywhere_the_same_command_tells_the_kernel_the_order(
    command: Command, root: Path, fleet: Fleet
) -> None:
    for number in range(1, 30):
        _forget(root)
        fleet = Fleet(fleet.programs, root, {name: Volume() for name in NAMES})
        command("add", "local/a", "local/b", "--no-wait")
        fleet.kill_at = len(fleet.log) + number
        try:
            command("add", "local/c", "--priority", "1", "--no-wait")
        except Killed:
            fleet.kill_at = None
            assert command("add", "local/c", "--priority", "1", "--no-wait").code == ExitCode.DONE
        else:
            assert number > 8
            return
        assert chain(fleet) == {"a": "c", "b": "a"}
        assert journal.operations() == {}
    pytest.fail("there is no end")


# -- several syncs as one --------------------------------------------------------------------------

PAUSED = {"replication": ReplicationState.PAUSED_SYNC_SOURCE, "peer_disk": DiskState.INCONSISTENT}
RUNNING = {**PAUSED, "replication": ReplicationState.SYNC_SOURCE}


def together(*seen: DrbdResource, **changes: object) -> tuple[str, bool]:
    return progress.together([resource.name for resource in seen], make.host(drbd=seen, **changes))


def test_the_line_is_about_the_one_that_runs() -> None:
    line, finished = together(
        make.seen("a", minor=0, **PAUSED), make.seen("b", minor=1, **RUNNING), progress={1: Progress(50.0, None, None)}
    )
    assert line.startswith("b: [=")
    assert " 50.0%" in line
    assert line.endswith("; 1 more to come")
    assert not finished


def test_where_none_runs_it_is_about_the_first_that_waits() -> None:
    line, finished = together(make.seen("a"), make.seen("b", **PAUSED), make.seen("c", **PAUSED))
    assert line.startswith("b: [")
    assert not finished


def test_what_waits_for_a_backup_that_is_away_is_not_awaited() -> None:
    line, finished = together(make.seen("a"), make.seen("b", state=None))
    assert line.startswith("a: both copies are up to date; b: not connected; the sync goes on once it is")
    assert finished


def test_a_resource_that_is_gone_is_not_awaited() -> None:
    line, finished = progress.together(["a", "b"], make.host(drbd=[make.seen("a", **RUNNING)]))
    assert line.startswith("a: [")
    assert not finished
    assert progress.together(["b"], make.host()) == ("b: it is not up", True)
