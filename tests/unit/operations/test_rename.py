"""``rename`` on both machines from end to end, killed at every program and at every step."""

import json
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pytest

from drbd_offsite import config, host, journal, messages
from drbd_offsite.errors import BadRequest, OffsiteError, PeerUnreachable, Refused, ToolFailed
from drbd_offsite.host import survey
from drbd_offsite.model import Flavour
from drbd_offsite.observed import Forbidden
from drbd_offsite.operations import drive, half, remove, rename
from drbd_offsite.operations.apply import apply
from drbd_offsite.plan.actions import WriteFile
from drbd_offsite.plan.task import allocate
from drbd_offsite.reconcile import reconcile
from drbd_offsite.tools import drbd

from .. import make
from ..conftest import Answer, Programs
from ..plan.machine import Kernel
from ..plan.test_half import DATA
from ..plan.test_rename import BIND, LINE, LINE_AFTER, NEW, OLD, UNITS, TwoNames, replicating
from .world import Killed, World, forget, killed

pytestmark = pytest.mark.usefixtures("texts_read_once")

SERVER, BACKUP = Flavour.SERVER, Flavour.BACKUP
REQUEST = messages.Rename(OLD, NEW, messages.Half.of(make.replica()), only_check=False)
CHECK = replace(REQUEST, only_check=True)


class TwoNamesWorld(World):
    machine: TwoNames

    def _look(self, argv: tuple[str, ...]) -> Answer:
        if argv[-1] == UNITS[NEW]:
            return Answer("", 0 if self.machine.new_enabled else 1)
        return super()._look(argv)

    def boot(self) -> None:
        """What the enabled units bring up, and what fstab mounts after that."""
        self.power_cut()
        shutil.rmtree(host.CONSULTATIONS, ignore_errors=True)
        enabled = {OLD: self.machine.enabled, NEW: self.machine.new_enabled}
        for name in (name for name, known in enabled.items() if known):
            rename.settle([name])
            site = config.load()
            if name in site.resources:
                reconcile(site, [name], lambda _: None)
                self.collect()
                self.machine.new_active = name == NEW
                self.machine.mount_all(name)
        self.publish()


def begun_as(flavour: Flavour, **changes: object) -> TwoNames:
    """Before there is an operation: one that means nothing, for the machine to look at."""
    at = replicating(flavour, **changes)
    return replace(at, operation=replace(at.operation, verb="nothing"))


def mounted(**changes: object) -> TwoNames:
    return begun_as(SERVER, mounts=("/srv/a",), fstab=LINE + BIND, **changes)


def of(flavour: Flavour, programs: Programs, root: Path) -> World:
    return TwoNamesWorld(mounted() if flavour is SERVER else begun_as(BACKUP), programs, root)


@pytest.fixture
def server(programs: Programs, root: Path) -> World:
    return of(SERVER, programs, root)


@pytest.fixture
def backup(programs: Programs, root: Path) -> World:
    return of(BACKUP, programs, root)


def run(told: Callable[[str], None] = lambda _: None, new: str = NEW, name: str = OLD, **options: object) -> None:
    rename.rename(config.load(), name, new, tell=told, **{"remount": True} | options)


def follow(request: messages.Rename = REQUEST, requester: str = "server") -> messages.Done:
    return rename.follow(config.load(), requester, request)


def finished(world: World) -> None:
    """It has the one name on this machine, and nothing has the other."""
    world.collect()
    at = world.machine
    assert journal.operations() == {}
    assert list(config.load().resources) == [NEW]
    assert [path.name for path in world.root.glob("etc/drbd.d/*.res")] == [f"0_{NEW}.res"]
    assert [path.name for path in world.root.glob("etc/systemd/system/drbd-offsite@*")] == [f"{UNITS[NEW]}.d"]
    assert (at.enabled, at.new_enabled, at.new_active) == (False, True, True)
    assert at.kernel_name == NEW
    assert at.kernel is not None
    assert at.kernel.attached
    assert at.kernel.connected
    assert at.kernel.primary is (at.flavour is SERVER)
    assert host.consultations() == {}
    if at.flavour is SERVER:
        assert at.fstab == LINE_AFTER + BIND.replace(OLD, NEW)
        assert at.mounts == [("/dev/drbd0", "/srv/a")]


def untouched(world: World, before: str) -> None:
    """A refusal has changed nothing, and begun nothing."""
    assert [line for line in world.machine.log if not line.startswith("ssh")] == []
    assert config.PATH.read_text() == before
    assert journal.operations() == {}
    assert half.FSTAB.read_text() == world.machine.fstab


# -- the server --------------------------------------------------------------------------------------


def test_rename_does_it_on_both_machines_and_tells_every_step(server: World) -> None:
    asked: list[messages.Request] = []
    server.peer = lambda request: asked.append(request) or messages.Done()
    before = config.PATH.read_text()
    told: list[str] = []
    run(told.append)
    finished(server)
    assert asked == [CHECK, REQUEST], "and no question in between, while it is down"
    assert told[0].startswith("umount /srv/a")
    assert told[-2].startswith("ask backup to rename")
    assert not any(make.SECRET in line for line in told)
    assert config.PATH.read_text() == before.replace(f"[[{OLD}]]", f"[[{NEW}]]")
    assert [e["event"] for e in journal.events()] == ["operation-begun", "operation-ended", "renamed"]
    assert journal.events()[-1]["resource"] == NEW


def test_holds_and_what_is_remembered_go_with_it(server: World) -> None:
    journal.hold(OLD, "the line is needed", frozenset({Forbidden.CONNECT}), "disconnect")
    journal.hold(OLD, "look at it", frozenset(), "suspicious")
    server.machine.kernel.connected = False
    for kind in rename.KINDS:
        journal.remember(kind, OLD, {"since": kind})
        journal.remember(kind, "other", {"since": "other"})
    before = journal.holds()[OLD]
    run()
    assert set(journal.holds()) == {NEW}
    assert {replace(hold, resource=OLD) for hold in journal.holds()[NEW]} == set(before)
    for kind in rename.KINDS:
        assert journal.remembered(kind) == {NEW: {"since": kind}, "other": {"since": "other"}}
    assert server.machine.kernel.primary
    assert not server.machine.kernel.connected, "what is held stays so"


def test_dry_run_prints_the_steps_and_begins_nothing(server: World) -> None:
    before = config.PATH.read_text()
    told: list[str] = []
    run(told.append, dry_run=True)
    lines = [line.partition("  #")[0] for line in told]
    assert lines[0] == "umount /srv/a"
    steps = ["drbdadm down test_a", "drbdadm attach renamed", "mount /srv/a"]
    assert [line for line in lines if line in steps] == steps
    assert lines[-2] == "ask backup to rename"
    untouched(server, before)
    assert host.consultations() == {}


def test_what_is_not_mounted_needs_no_leave_to_be_remounted(programs: Programs, root: Path) -> None:
    world = TwoNamesWorld(begun_as(SERVER, fstab=LINE + BIND), programs, root)
    run(remount=False)
    world.collect()
    assert world.machine.mounts == [], "what was not mounted is not mounted"
    assert half.FSTAB.read_text() == LINE_AFTER + BIND.replace(OLD, NEW)


def same(world: World, power_cut: bool) -> None:
    """After a kill: it is served under the name that the configuration has, and the same command finishes it."""
    world.kill_at = None
    if power_cut:
        world.boot()
        (name,) = config.load().resources
        at = world.machine
        assert at.kernel_name == name
        assert at.kernel is not None
        assert at.kernel.primary is (at.flavour is SERVER)
        assert at.mounts == ([("/dev/drbd0", "/srv/a")] if at.flavour is SERVER else [])
    if world.machine.flavour is SERVER:
        began = journal.operations() or OLD in config.load().resources
        if began:
            run()
    else:
        follow()
    finished(world)


@pytest.mark.parametrize("flavour", [SERVER, BACKUP])
@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("power_cut", [False, True], ids=["killed", "power-cut"])
def test_killed_at_any_program_it_is_finished_by_the_same_command(
    programs: Programs, root: Path, late: bool, power_cut: bool, flavour: Flavour
) -> None:
    for world in killed(
        lambda: of(flavour, programs, root), run if flavour is SERVER else follow, at_least=7, late=late
    ):
        same(world, power_cut)


@pytest.mark.parametrize("flavour", [SERVER, BACKUP])
@pytest.mark.parametrize("power_cut", [False, True], ids=["killed", "power-cut"])
def test_dead_after_any_step_it_is_finished_by_the_same_command(
    programs: Programs, root: Path, power_cut: bool, flavour: Flavour, last_step: Callable[[int], None]
) -> None:
    for world in killed(
        lambda: of(flavour, programs, root), run if flavour is SERVER else follow, at_least=14, at=last_step
    ):
        same(world, power_cut)


def test_a_power_cut_while_the_boot_puts_the_files_right_is_one_more(
    programs: Programs, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    really = rename.execute
    for number in range(1, 10):
        world = TwoNamesWorld(mounted(), programs, root)
        monkeypatch.setattr(rename, "execute", really)
        begin_and_stop_before(world, f"0_{OLD}.res")
        left = number

        def counted(*arguments: object) -> None:
            nonlocal left
            really(*arguments)
            left -= 1
            if left == 0:
                raise Killed

        monkeypatch.setattr(rename, "execute", counted)
        try:
            world.boot()
        except Killed:
            monkeypatch.setattr(rename, "execute", really)
            same(world, power_cut=True)
            forget(root)
            continue
        assert number > 4
        return
    pytest.fail("there is no end")


def begin_and_stop_before(world: World, words: str) -> None:
    """Dies before the first step whose line has these words."""

    def look(line: str) -> None:
        if words in line.partition("#")[0]:
            raise Killed

    with pytest.raises(Killed):
        run(look)
    world.collect()


def test_what_was_begun_is_shown_and_another_name_is_refused(server: World) -> None:
    begin_and_stop_before(server, "drbdadm down")
    assert list(journal.operations()) == [f"rename-{OLD}"]
    with pytest.raises(Refused, match="is being renamed to renamed by an earlier command") as raised:
        run(new="third")
    assert raised.value.hint == "Finish that first: drbd-offsite rename test_a renamed"
    run()
    finished(server)


@pytest.mark.parametrize("words", ["drbdadm secondary", "drbdadm new-resource"])
def test_what_is_being_renamed_is_neither_removed_nor_renamed_again(server: World, words: str) -> None:
    begin_and_stop_before(server, words)
    log = list(server.machine.log)
    for name in config.load().resources:
        with pytest.raises(Refused, match="rename of test_a is not finished") as raised:
            remove.remove(config.load(), name, tell=print)
        assert "drbd-offsite rename test_a renamed" in raised.value.hint
    with pytest.raises(Refused, match=r"rename of test_a is not finished|by an earlier command"):
        run(name=next(iter(config.load().resources)), new="third")
    assert server.machine.log == log
    run()
    finished(server)


def test_files_that_somebody_has_rendered_in_between_are_in_nobody_s_way(server: World) -> None:
    begin_and_stop_before(server, "drbdadm down")
    apply(config.load())
    assert len(list(server.root.glob("etc/drbd.d/0_*.res"))) == 2
    run()
    finished(server)


def test_its_numbers_are_nobody_else_s_meanwhile(server: World) -> None:
    begin_and_stop_before(server, "drbdadm new-resource")
    with pytest.raises(Refused, match=r"rename of local/test_a as test_a is under way"):
        half.check(config.load(), survey(config.load()), DATA)
    assert allocate(config.load(), survey(config.load()), DATA, make.GIB).minor == 1


# -- somebody uses it --------------------------------------------------------------------------------


def test_a_device_that_somebody_uses_is_as_it_was(server: World) -> None:
    before = config.PATH.read_text()
    server.machine.held_open = True
    told: list[str] = []
    with pytest.raises(ToolFailed, match="held open"):
        run(told.append)
    assert journal.operations() == {}
    assert journal.events()[-1]["text"] == "rename was given up."
    assert server.machine.mounts == [("/dev/drbd0", "/srv/a")], "mounted again"
    assert told[-1].startswith("mount /srv/a")
    assert server.machine.kernel.primary
    assert config.PATH.read_text() == before
    assert half.FSTAB.read_text() == LINE + BIND
    server.machine.held_open = False
    run()
    finished(server)


def test_one_that_has_got_further_is_not_given_up(server: World) -> None:
    begin_and_stop_before(server, "write /etc/fstab")
    server.boot()
    server.machine.held_open = True
    with pytest.raises(ToolFailed, match="held open"):
        run()
    assert list(journal.operations()) == [f"rename-{OLD}"]
    server.machine.held_open = False
    run()
    finished(server)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), OffsiteError("no")])
@pytest.mark.parametrize("path", [half.FSTAB, config.PATH])
@pytest.mark.parametrize("hold", [False, True])
def test_what_cannot_be_written_leaves_it_served_and_mounted(
    server: World, monkeypatch: pytest.MonkeyPatch, error: Exception, path: Path, hold: bool
) -> None:
    if hold:
        journal.hold(OLD, "the line is needed", frozenset({Forbidden.CONNECT}), "disconnect")
        server.machine.kernel.connected = False
    really = drive.execute

    def full(action: object, site: object) -> object:
        if isinstance(action, WriteFile) and Path(action.path).name == path.name:
            raise error
        return really(action, site)

    monkeypatch.setattr(drive, "execute", full)
    with pytest.raises(OffsiteError, match=r"No space left|no"):
        run()
    server.collect()
    at = server.machine
    assert (at.kernel_name, at.kernel.primary, at.mounts) == (OLD, True, [("/dev/drbd0", "/srv/a")])
    assert list(config.load().resources) == [OLD]
    assert list(journal.operations()) == [f"rename-{OLD}"]
    monkeypatch.setattr(drive, "execute", really)
    run()
    assert server.machine.kernel.primary
    assert (server.machine.kernel_name, server.machine.mounts) == (NEW, [("/dev/drbd0", "/srv/a")])
    assert journal.operations() == {}


# -- the backup is away, or says no ------------------------------------------------------------------


def test_an_unreachable_backup_is_noticed_before_anything_is_begun(server: World) -> None:
    before = config.PATH.read_text()
    server.away = True
    with pytest.raises(PeerUnreachable):
        run()
    untouched(server, before)


def test_a_backup_that_uses_its_copy_is_a_refusal_before_anything_is_begun(server: World) -> None:
    def no(request: messages.Request) -> messages.Answer:
        assert request == CHECK
        raise Refused("test_a is in use on backup (Primary), and has to go down for a moment.", "secondary")

    before = config.PATH.read_text()
    server.peer = no
    with pytest.raises(Refused, match=r"in use on backup \(Primary\)"):
        run()
    untouched(server, before)


def test_a_backup_that_goes_away_is_asked_by_the_same_command_when_it_is_back(server: World) -> None:
    def answer(request: messages.Rename) -> messages.Done:
        server.away = request.only_check
        return messages.Done()

    server.peer = answer
    with pytest.raises(PeerUnreachable):
        run()
    assert list(journal.operations()) == [f"rename-{OLD}"]
    assert server.machine.kernel.primary
    assert server.machine.mounts == [("/dev/drbd0", "/srv/a")]
    start = f"systemctl --no-ask-password start --no-block {UNITS[NEW]}"
    assert server.machine.log[-1] == start, "it is stopped in order all the same"
    server.machine.log.clear()
    with pytest.raises(PeerUnreachable):
        run()
    assert server.machine.log == [start], "all else is done here"
    server.away = False
    server.peer = lambda _: messages.Done()
    run()
    finished(server)


@pytest.mark.parametrize("words", ["drbdadm down", "drbdadm new-resource", "mount /srv/a"])
def test_a_refusal_from_the_backup_keeps_nothing_from_being_served_once_it_is_begun(server: World, words: str) -> None:
    def no(_: messages.Request) -> messages.Answer:
        raise Refused("grow of test_a on backup is not finished.", "Finish that first.")

    begin_and_stop_before(server, words)
    server.peer = no
    with pytest.raises(Refused, match="grow of test_a on backup"):
        run()
    assert server.machine.kernel.primary
    assert (server.machine.kernel_name, server.machine.mounts) == (NEW, [("/dev/drbd0", "/srv/a")])
    server.peer = lambda _: messages.Done()
    run()
    finished(server)


def test_the_backup_s_word_outlasts_a_slow_umount(server: World) -> None:
    def slow(line: str) -> None:
        if line.startswith("umount"):
            path = host.CONSULTATIONS / f"{NEW}.json"
            entry = json.loads(path.read_text())
            path.write_text(json.dumps({**entry, "free": entry["free"] - 2 * host.ANSWER_SECONDS}))

    run(slow)
    finished(server)


def test_a_backup_that_took_over_in_between_is_not_served_against_at_boot(server: World) -> None:
    """It still has the old name, and its word is about that."""
    begin_and_stop_before(server, "drbdadm new-resource")
    server.takes_over = True
    server.power_cut()
    rename.settle([NEW])
    reconcile(config.load(), [NEW], lambda _: None)
    assert not server.machine.kernel.primary
    assert [hold.set_by for hold in journal.holds()[NEW]] == ["taken-over"]


def test_a_backup_that_does_not_answer_any_more_is_not_served_against_either(server: World) -> None:
    begin_and_stop_before(server, "drbdadm new-resource")
    server.away = True
    with pytest.raises(PeerUnreachable, match="whether it has taken over renamed"):
        run()
    assert not server.machine.kernel.primary
    server.away = False
    run()
    finished(server)


# -- refusals ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["nothing", "a/b", "../x", "", "x" * 100_000])
def test_what_is_no_resource_is_refused_before_it_is_the_name_of_a_file(server: World, name: str) -> None:
    before = config.PATH.read_text()
    with pytest.raises(Refused, match="There is no resource") as raised:
        run(name=name)
    assert raised.value.hint == "Configured: test_a."
    untouched(server, before)


@pytest.mark.parametrize("new", ["../x", "", "a b", OLD, "x" * 64])
def test_what_is_no_other_name_is_refused(server: World, new: str) -> None:
    before = config.PATH.read_text()
    with pytest.raises(Refused, match=r"cannot be a resource's name|has that name already"):
        run(new=new)
    untouched(server, before)


def test_a_name_in_use_is_refused(server: World, programs: Programs) -> None:
    before = config.PATH.read_text()
    programs.allow(drbd.EVENTS, f"exists resource name:{NEW} role:Primary suspended:no\nexists -\n")
    with pytest.raises(Refused, match="has a resource renamed already"):
        run()
    untouched(server, before)


def test_what_is_held_is_not_taken_down(server: World) -> None:
    before = config.PATH.read_text()
    journal.hold(OLD, "maintenance", frozenset(Forbidden), "hold")
    with pytest.raises(Refused, match=r"test_a is held on .* \(maintenance\)"):
        run()
    untouched(server, before)


@pytest.mark.parametrize("verb", ["add", "grow", "set", "replace-backup", "remove"])
def test_what_is_unfinished_is_finished_first(server: World, verb: str) -> None:
    journal.begin(verb, OLD, {})
    with pytest.raises(Refused, match=f"{verb} of test_a on .* is not finished"):
        run()
    assert server.machine.log == []
    assert list(journal.operations()) == [f"{verb}-{OLD}"]


def test_a_mounted_one_needs_leave_to_be_unmounted(server: World) -> None:
    before = config.PATH.read_text()
    with pytest.raises(Refused, match="/dev/drbd0 is mounted at /srv/a") as raised:
        run(remount=False)
    assert "--remount" in raised.value.hint
    untouched(server, before)


def test_a_machine_that_cannot_be_seen_is_left_alone(server: World, programs: Programs) -> None:
    before = config.PATH.read_text()
    programs.allow(drbd.EVENTS, Answer("", 20, "no answer"))
    with pytest.raises(Refused, match="cannot be seen"):
        run()
    untouched(server, before)


def test_a_device_name_that_fstab_has_already_stands_in_for_nothing(programs: Programs, root: Path) -> None:
    fstab = LINE + "/dev/drbd0 /srv/b ext4 noauto 0 0\n"
    world = TwoNamesWorld(begun_as(SERVER, fstab=fstab), programs, root)
    run()
    world.collect()
    assert world.machine.fstab == LINE_AFTER + "/dev/drbd0 /srv/b ext4 noauto 0 0\n"


# -- the boot ----------------------------------------------------------------------------------------


def test_a_boot_has_nothing_to_put_right_where_nothing_was_changed(server: World) -> None:
    rename.settle([])
    begin_and_stop_before(server, "drbd-offsite.conf")
    before = server.machine.files
    rename.settle([NEW])
    rename.settle([OLD])
    server.collect()
    assert server.machine.files == before


@pytest.mark.parametrize("words", ["drbdadm disconnect", "drbdadm down", f"0_{OLD}.res"])
@pytest.mark.parametrize("rendered", [False, True])
def test_what_is_up_by_its_old_name_and_unused_is_taken_down(server: World, words: str, rendered: bool) -> None:
    """drbd.service has brought it up, or nobody has taken it down."""
    begin_and_stop_before(server, words)
    if rendered:
        apply(config.load())
    rename.settle([NEW])
    server.collect()
    assert server.machine.kernel is None
    assert list(server.machine.files) == [f"/etc/drbd.d/0_{NEW}.res"]
    run()
    finished(server)


def test_what_somebody_uses_by_its_old_name_is_left_to_them(server: World) -> None:
    """drbdadm needs its file to take it down."""
    begin_and_stop_before(server, "drbdadm down")
    server.machine.kernel.primary = True
    rename.settle([NEW])
    server.collect()
    assert list(server.machine.files) == [f"/etc/drbd.d/0_{OLD}.res"]
    run()
    finished(server)


def test_a_boot_waits_for_who_is_at_work_as_long_as_the_circle_does(
    server: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin_and_stop_before(server, "drbdadm down")
    really, waits = rename.files.lock, {}

    def lock(name: str, wait: float) -> AbstractContextManager[None]:
        waits[name] = wait
        return really(name, wait)

    monkeypatch.setattr(rename.files, "lock", lock)
    rename.settle([NEW])
    assert waits == dict.fromkeys(["site", f"resource-{OLD}", f"resource-{NEW}"], 60.0)


# -- the backup --------------------------------------------------------------------------------------


def test_the_backup_follows_and_the_same_request_again_finds_it_done(backup: World) -> None:
    follow(CHECK)
    assert backup.machine.log == []
    follow()
    finished(backup)
    log = list(backup.machine.log)
    follow()
    follow(CHECK)
    assert backup.machine.log == log
    assert [e["event"] for e in journal.events()] == ["operation-begun", "operation-ended", "renamed"]


@pytest.mark.parametrize("request_", [CHECK, REQUEST])
@pytest.mark.parametrize("changes", [{"kernel": Kernel(0, attached=True, primary=True)}, {"mounts": ("/mnt",)}])
def test_a_copy_that_somebody_uses_is_not_taken_down(
    programs: Programs, root: Path, request_: messages.Rename, changes: dict[str, object]
) -> None:
    world = TwoNamesWorld(begun_as(BACKUP, **changes), programs, root)
    with pytest.raises(Refused, match=r"in use on .* \((Primary|mounted at /mnt)\)"):
        follow(request_)
    assert world.machine.log == []
    assert journal.operations() == {}


@pytest.mark.parametrize(
    ("request_", "requester"),
    [
        (REQUEST, "somebody"),
        (replace(REQUEST, name="nothing"), "server"),
        (replace(REQUEST, server=messages.Half.of(make.replica(3))), "server"),
        (replace(REQUEST, name="nothing", new=OLD, server=messages.Half.of(make.replica(3))), "server"),
    ],
)
def test_nobody_else_s_resource_is_renamed(backup: World, request_: messages.Rename, requester: str) -> None:
    with pytest.raises(BadRequest, match=r"has no (such )?resource"):
        follow(request_, requester)
    assert backup.machine.log == []


@pytest.mark.parametrize("verb", ["replicate", "release", "rename"])
def test_what_is_unfinished_there_is_finished_first(backup: World, verb: str) -> None:
    journal.begin(verb, OLD if verb != "rename" else "other", {"new": NEW})
    with pytest.raises(Refused, match="is not finished"):
        follow(CHECK)
    assert backup.machine.log == []


def test_another_name_than_the_one_that_was_begun_is_refused_there_too(backup: World) -> None:
    backup.kill_at = 3
    with pytest.raises(Killed):
        follow()
    backup.kill_at = None
    with pytest.raises(BadRequest, match="no resource third"):
        follow(replace(REQUEST, new="third"))
    follow()
    finished(backup)


def test_each_is_for_its_own_machine(server: World) -> None:
    with pytest.raises(Refused, match="is for the backup"):
        follow(requester="backup")
    config.PATH.write_text(config.PATH.read_text().replace("flavour = server", "flavour = backup"))
    with pytest.raises(Refused, match="rename is for the server"):
        run()
    assert server.machine.log == []


def test_one_that_cannot_be_seen_any_more_is_taken_no_further(server: World, programs: Programs) -> None:
    begin_and_stop_before(server, "drbdadm new-resource")
    programs.allow(drbd.EVENTS, Answer("", 20, "no answer"))
    log = list(server.machine.log)
    with pytest.raises(OffsiteError, match=r"cannot be seen: .*no answer"):
        run()
    assert server.machine.log == [*log, f"systemctl --no-ask-password start --no-block {UNITS[NEW]}"]
