"""Another name for a resource, killed after any step and begun again; and what a boot in between finds."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import pytest

from drbd_offsite import config
from drbd_offsite.errors import PeerUnreachable, Refused
from drbd_offsite.messages import Half, Rename
from drbd_offsite.model import Flavour
from drbd_offsite.observed import Consultation, DiskState, Forbidden, Hold, Host, Role
from drbd_offsite.plan import rename
from drbd_offsite.plan.actions import (
    Action,
    AskPeer,
    CarryOver,
    Consult,
    Disconnect,
    Lift,
    Promote,
    RemoveFile,
    Run,
    WriteFile,
    describe,
)
from drbd_offsite.plan.circle import RENAMING, decide
from drbd_offsite.plan.rename import Findings, Renaming
from drbd_offsite.render import Credentials
from drbd_offsite.tools import filesystem, systemd

from .. import make
from .machine import USED, Impossible, Kernel, Machine, need
from .test_half import DATA, PARSED, POOL
from .test_remove import configuration, rendered

SERVER, BACKUP = Flavour.SERVER, Flavour.BACKUP
OLD, NEW = "test_a", "renamed"
UNITS = {name: systemd.resource_unit(name) for name in (OLD, NEW)}
BY_RES = {name: f"/dev/drbd/by-res/{name}/0" for name in (OLD, NEW)}
LINE = f"# as add left it\n{BY_RES[OLD]}\t/srv/a  ext4 noatime,nofail,x-systemd.requires={UNITS[OLD]} 0 2 # ours\n"
LINE_AFTER = LINE.replace(OLD, NEW)
BIND = f"/srv/a/www /var/www none bind,x-systemd.after={UNITS[OLD]} 0 0\n"


@pytest.fixture(autouse=True)
def _read_each_text_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same few texts are read thousands of times here."""
    monkeypatch.setattr(config, "parse", PARSED)


@dataclass
class TwoNames(Machine):
    """A machine on which the one resource may have either name: in the kernel, in the configuration, anywhere."""

    kernel_name: str = OLD
    new_enabled: bool = False
    new_active: bool = False
    held_as: frozenset[str] = frozenset({OLD})
    remembered_as: str = OLD

    @property
    def configured(self) -> str:
        (name,) = {OLD, NEW} & self.site.resources.keys()
        return name

    def host(self) -> Host:
        seen = super().host()
        drbd = {
            self.kernel_name if name == OLD else name: replace(found, name=self.kernel_name if name == OLD else name)
            for name, found in seen.drbd.items()
        }
        holds = {
            name: (Hold(name, "somebody said so", self.forbidden, "2026-01-01T00:00:00+00:00", "test"),)
            for name in self.held_as
            if self.forbidden
        }
        return replace(seen, drbd=drbd, holds=holds)

    def found(self) -> Findings:
        credentials = {self.flavour.other: Credentials(make.SECRET, (make.FINGERPRINT,))}
        return Findings(
            self.config, self.fstab, dict(self.files), credentials, self.enabled, None, self.active,
            new_enabled=self.new_enabled, kinds=("lost",) if self.remembered_as == OLD else (),
        )  # fmt: skip

    def left(self) -> Iterator[Action]:
        return rename.remaining(self.site, self.host(), self.operation, self.found())

    def do(self, action: Action) -> None:
        match action:
            case RemoveFile(path=path):
                del self.files[path]
            case CarryOver(resource=resource, to=to, kinds=kinds):
                need((resource, to) == (OLD, NEW), "carried the wrong way")
                self.held_as |= {NEW} if self.forbidden else set()
                self.remembered_as = NEW if kinds else self.remembered_as
            case Lift(resource=resource):
                need(resource == OLD and self.held_as != {OLD}, "a hold is lost")
                self.held_as -= {resource}
            case Disconnect(resource=resource) | Promote(resource=resource):
                self._run(["drbdadm", "disconnect" if isinstance(action, Disconnect) else "primary", resource])
            case AskPeer(request=Rename(name=name, new=new, server=half)):
                need(self.flavour is SERVER, "the backup asks nobody")
                need((name, new, half) == (OLD, NEW, Half.of(self.here)), "the server's own half is sent")
                self._note("asked_peer", True)
            case _:
                super().do(action)

    def _drbdadm(self, words: list[str]) -> None:
        command, *options, name = words
        minors = [path.rpartition("/")[2].partition("_")[0] for path in self.files if path.endswith(".res")]
        need(len(minors) == len(set(minors)), "drbdadm: conflicting use of device-minor")
        need(any(path.endswith(f"_{name}.res") for path in self.files), f"drbdadm: {name} not defined in your config")
        if command == "new-resource":
            need(name == self.configured, "it comes up under a name that is no more")
            self.kernel_name = name
        need(name == self.kernel_name, "drbdadm: unknown resource")
        getattr(self, "_adm_" + command.replace("-", "_"))(options)

    def _systemctl(self, words: list[str]) -> None:
        name = next((name for name, unit in UNITS.items() if unit == words[-1]), "")
        if "disable" in words:
            need(name == OLD and self.configured == NEW, "disable: the unit would take it down")
            self.enabled = self.active = False
        elif name:
            need(name == NEW, "systemctl: what?")
            need("--now" not in words and ("enable" in words or "--no-block" in words), "it waits for our lock")
            self.new_enabled |= "enable" in words
            self.new_active |= "start" in words

    def _mount(self, words: list[str]) -> None:
        target, device = words[-1], words[0]
        need(all(mounted != target for _, mounted in self.mounts), "mount: already mounted")
        if len(words) == 1:
            need(target in filesystem.fstab_targets(self.fstab, self.device_names()), "mount: no such device")
            need(self.configured == OLD or not self.enabled, "systemd has not read fstab again, and unmounts it")
        need(len(words) == 1 or device == self.here.device, "mount: another device")
        need(self.kernel and self.kernel.primary, "mount: wrong medium type")
        self.mounts.append((self.here.device, target))

    def device_names(self) -> frozenset[str]:
        """Those that there are now."""
        if self.kernel is None:
            return frozenset()
        return frozenset({self.here.device, BY_RES[self.kernel_name], "/dev/drbd/by-disk/local/test_a"})

    def power_cut(self) -> None:
        super().power_cut()
        self.new_active = False

    def come_up(self) -> None:
        """The units that are enabled, each for what the configuration has of that name; then what fstab mounts."""
        name = self.configured
        need(self.enabled if name == OLD else self.new_enabled, "no unit brings it up")
        while name == NEW and not Renaming.of(self.operation).settled:
            self.do(next(rename.files(self.site, self.host(), self.operation, self.found())))
        self.watcher_looks()
        self.active, self.new_active = self.enabled and name == OLD, self.new_enabled and name == NEW
        self.mount_all(name)

    def mount_all(self, name: str) -> None:
        """What fstab has of the device, where the units for ``name`` are those that succeed."""
        for words in map(str.split, self.fstab.splitlines()):
            if not words or words[0] not in {*BY_RES.values(), self.here.device}:
                continue
            needed = [o.partition("=")[2] for o in words[3].split(",") if o.startswith("x-systemd.requires=")]
            after = [o.partition("=")[2] for o in words[3].split(",") if o.startswith("x-systemd.")]
            need(set(needed) <= {UNITS[name]}, "fstab: the unit that is required has failed")
            need(UNITS[name] in after, "fstab: mounted before it is served")
            if self.kernel and self.kernel.primary:
                need(words[0] in self.device_names(), f"fstab: there is no {words[0]}")
                self.mounts.append((self.here.device, words[1]))

    def watcher_looks(self) -> None:
        for _ in range(12):
            actions = decide(self.site, self.host(), self.site.resources[self.configured]).actions
            if not actions:
                return
            self.do(actions[0])

    def outcome(self) -> dict[str, object]:
        ours = ("kernel_name", "new_enabled", "new_active", "held_as", "remembered_as", "active")
        return super().outcome() | {name: getattr(self, name) for name in ours}


def replicating(flavour: Flavour, *names: str, mounts: tuple[str, ...] = (), **changes: object) -> TwoNames:
    """``names`` with test_a among them; what waits for it is told about it."""
    names = names or (OLD,)
    number = names.index(OLD)
    text = configuration(flavour, *names)
    waiting = names[number + 1 : number + 2] if flavour is SERVER else ()
    renaming = Renaming(OLD, NEW, make.replica(number), mounts, f"/dev/drbd{number}", relink=waiting)
    served = flavour is SERVER
    at = TwoNames(
        flavour,
        make.operation(RENAMING, renaming.parameters()),
        text,
        Half.of(make.replica()),
        {DATA: make.GIB, POOL: 512 * make.MIB},
        precious=DATA if served else None,
        mounts=[(f"/dev/drbd{number}", target) for target in mounts],
        files=rendered(text, flavour),
        metadata=USED,
        synced=True,
        size=make.GIB,
        module=True,
        enabled=True,
        active=True,
        kernel=Kernel(number, attached=True, primary=served, connected=True),
        in_step=True,
        neighbours={name: n - 1 if served else -1 for n, name in enumerate(names) if name != OLD},
    )
    return replace(at, **changes)


DOWN = {"kernel": None, "forbidden": frozenset(Forbidden)}

SCENES: dict[str, Callable[[], TwoNames]] = {
    "server": lambda: replicating(SERVER),
    "server, mounted": lambda: replicating(SERVER, mounts=("/srv/a", "/srv/a/again"), fstab=LINE + BIND),
    "server, mounted by hand": lambda: replicating(SERVER, mounts=("/mnt",)),
    "server, only in fstab": lambda: replicating(SERVER, fstab=LINE),
    "server, in fstab by its device": lambda: replicating(
        SERVER, mounts=("/srv/a",), fstab=LINE.replace(BY_RES[OLD], "/dev/drbd0")
    ),
    "server, not connected": lambda: replicating(SERVER, in_step=False, tunnel=False),
    "server, not to be connected": lambda: replicating(
        SERVER, forbidden=frozenset({Forbidden.CONNECT}), kernel=Kernel(0, attached=True, primary=True, ended=True)
    ),
    "server, down": lambda: replicating(SERVER, **DOWN),
    "server, one of three": lambda: replicating(SERVER, "first", OLD, "third"),
    "server, first of three": lambda: replicating(SERVER, OLD, "second", "third"),
    "backup": lambda: replicating(BACKUP),
    "backup, in fstab": lambda: replicating(BACKUP, fstab=LINE.replace("noatime", "noauto")),
    "backup, no tunnel": lambda: replicating(BACKUP, in_step=False, tunnel=False),
    "backup, not usable yet": lambda: replicating(BACKUP, synced=False, in_step=False),
    "backup, one of three": lambda: replicating(BACKUP, "first", OLD, "third"),
}
scenes = pytest.mark.parametrize("scene", SCENES)


def renamed(end: TwoNames, start: TwoNames) -> None:
    """All that was there of the one name is there of the other, and of the one nothing."""
    assert end.config == start.config.replace(f"[[{OLD}]]", f"[[{NEW}]]")
    assert end.files == rendered(end.config, end.flavour)
    assert OLD not in end.fstab
    assert (end.enabled, end.active, end.new_enabled, end.new_active) == (False, False, True, True)
    assert end.kernel is None or end.kernel_name == NEW
    assert (end.held_as, end.remembered_as) == ({NEW} if start.forbidden else {OLD}, NEW)
    assert end.forbidden == start.forbidden
    assert (end.volumes, end.metadata, end.size, end.synced) == (start.volumes, USED, start.size, start.synced)
    assert end.neighbours == start.neighbours


@scenes
def test_it_ends_with_everything_under_the_new_name(scene: str) -> None:
    start, end = SCENES[scene](), SCENES[scene]()
    end.run_to_the_end()
    renamed(end, start)
    assert end.mounts == start.mounts
    assert (end.kernel is None) is (scene == "server, down"), "what is held stays down"
    if end.kernel is not None:
        assert end.kernel.attached
        assert end.kernel.primary is (end.flavour is SERVER)
        assert end.kernel.connected is (end.tunnel and not end.forbidden)
    assert end.next_step() is None


def same(ours: TwoNames, whole: TwoNames, step: str) -> None:
    """A boot loads no module that nobody needs, mounts all that fstab has, and nothing else."""
    passing = {"module": True, "mounts": [], "kernel": None, "operation": {}}
    assert ours.outcome() | passing == whole.outcome() | passing, step
    assert set(whole.mounts) <= set(ours.mounts), step
    if ours.kernel is not None or whole.kernel is not None:
        assert replace(ours.kernel, ended=False) == replace(whole.kernel, ended=False), step


@scenes
def test_killed_after_any_step_it_ends_the_same(scene: str) -> None:
    whole = SCENES[scene]().at_the_end()
    for step, again in SCENES[scene]().killed():
        assert again.at_the_end().outcome() == whole.outcome(), step


@scenes
def test_a_boot_in_between_serves_it_under_the_name_that_the_configuration_has(scene: str) -> None:
    """Promise 1: with its line in fstab, and with nothing else than what a boot runs."""
    whole = SCENES[scene]().at_the_end()
    for step, again in SCENES[scene]().killed():
        again.power_cut()
        again.come_up()
        if scene != "server, down":
            assert again.kernel is not None, step
            assert again.kernel_name == again.configured, step
            assert again.kernel.primary is (again.flavour is SERVER), step
        same(again.at_the_end(), whole, step)


@scenes
def test_a_watcher_that_looks_in_between_brings_nothing_up_under_the_old_name(scene: str) -> None:
    """It may serve what is down again; once it was taken out of the kernel, under the new name only."""
    whole = SCENES[scene]().at_the_end()
    left = False
    for step, again in SCENES[scene]().killed():
        left |= step.startswith("drbdadm down")
        again.watcher_looks()
        assert not left or again.kernel is None or again.kernel_name == NEW, step
        same(again.at_the_end(), whole, step)


def test_a_watcher_says_why_it_leaves_it_alone() -> None:
    for step, at in SCENES["server"]().killed():
        if step.startswith("drbdadm down"):
            decision = decide(at.site, at.host(), at.site.resources[NEW])
            assert decision.actions == ()
            assert decision.reason == "rename is under way; rename on the server, run again, finishes it"


@scenes
def test_what_somebody_s_use_can_stop_comes_before_anything_else(scene: str) -> None:
    done = [describe(action) for action in SCENES[scene]().run_to_the_end()]
    users = [n for n, line in enumerate(done) if line.startswith(("umount", "drbdadm secondary"))]
    assert users == list(range(len(users)))


@scenes
def test_nothing_is_done_to_the_data_or_its_metadata(scene: str) -> None:
    at = SCENES[scene]()
    for action in at.run_to_the_end():
        if isinstance(action, Run):
            assert action.argv[0] in {"umount", "mount", "systemctl", "drbdadm"}
            assert "md" not in action.argv[1]
            assert "--force" not in action.argv


def test_the_backup_is_asked_when_it_is_served_again_and_by_the_server_alone() -> None:
    """Then the unit is started, which waits for what the command has locked, but not for the backup."""
    for scene, start in SCENES.items():
        done = start().run_to_the_end()
        asked = [action for action in done if isinstance(action, AskPeer)]
        assert asked == (done[-2:-1] if scene.startswith("server") else [])
        assert describe(done[-1]).startswith(f"systemctl --no-ask-password start --no-block {UNITS[NEW]}")


def test_fstab_keeps_all_but_the_name() -> None:
    for scene, before, after in (
        ("server, mounted", LINE + BIND, LINE_AFTER + BIND.replace(OLD, NEW)),
        ("server, only in fstab", LINE, LINE_AFTER),
        (
            "server, in fstab by its device",
            LINE.replace(BY_RES[OLD], "/dev/drbd0"),
            LINE_AFTER.replace(BY_RES[NEW], "/dev/drbd0"),
        ),
    ):
        end = SCENES[scene]()
        assert end.fstab == before
        if "by its device" in scene:
            end.operation.parameters["stand_in"] = "/dev/drbd/by-disk/local/test_a"
        end.run_to_the_end()
        assert end.fstab == after


def test_a_neighbour_that_came_up_without_its_order_is_told() -> None:
    at = replicating(SERVER, "first", OLD, "third")
    while not at.files.keys() >= {f"/etc/drbd.d/1_{NEW}.res"}:
        action = at.next_step()
        assert action is not None
        at.do(action)
        if isinstance(action, RemoveFile) and action.path.endswith(".res"):
            at.power_cut()
            assert at.neighbours["third"] == 0
    at.run_to_the_end()
    assert at.neighbours == {"first": -1, "third": 1}


# -- what stops it -----------------------------------------------------------------------------------


def until(at: TwoNames, start: str) -> TwoNames:
    """Up to just before a step."""
    while not describe(action := at.next_step()).startswith(start):
        at.do(action)
    return at


def test_a_peer_that_has_not_said_whether_it_has_taken_over_is_not_served_against() -> None:
    """It was asked at the beginning; this is a run after an interruption."""
    at = until(SCENES["server, mounted"](), "ask backup whether it serves")
    action = at.next_step()
    assert isinstance(action, Consult)
    at.consulted[NEW] = Consultation(1.0, free=False)
    with pytest.raises(PeerUnreachable, match="has taken over renamed, and does not answer") as raised:
        at.next_step()
    assert "The watcher serves it by itself" in raised.value.hint
    at.consulted[NEW] = Consultation(20.0, free=False)
    at.watcher_looks()
    assert at.kernel is not None
    assert at.kernel.primary
    at.run_to_the_end()
    assert ("/dev/drbd0", "/srv/a") in at.mounts


def test_what_is_held_before_it_is_served_again_is_mounted_later() -> None:
    at = until(SCENES["server, mounted"](), "ask backup whether it serves")
    at.forbidden, at.held_as = frozenset({Forbidden.PROMOTE}), frozenset({NEW})
    with pytest.raises(Refused, match=r"not served, so it is not mounted at /srv/a, /srv/a/again yet: held: "):
        at.run_to_the_end()
    at.forbidden = frozenset()
    at.run_to_the_end()
    assert len(at.mounts) == 2


def test_somebody_s_work_on_the_backup_is_not_unmounted() -> None:
    at = replicating(BACKUP, mounts=("/mnt",))
    with pytest.raises(Refused, match="is mounted at /mnt on backup"):
        at.next_step()


@pytest.mark.parametrize(("names", "words"), [((OLD, NEW), "both test_a and renamed"), (("x",), "neither test_a nor")])
def test_a_configuration_that_somebody_has_changed_meanwhile_is_left_to_them(
    names: tuple[str, ...], words: str
) -> None:
    at = replicating(SERVER)
    at.config = configuration(SERVER, *names)
    with pytest.raises(Refused, match=words):
        rename.under(at.site, Renaming.of(at.operation))


def test_both_files_at_once_are_impossible() -> None:
    """The simulated drbdadm is as strict as the real one."""
    at = replicating(SERVER)
    at.files[f"/etc/drbd.d/0_{NEW}.res"] = ""
    with pytest.raises(Impossible, match="conflicting use"):
        at.do(Run(("drbdadm", "down", OLD), ""))


def test_what_is_written_is_read_again() -> None:
    renaming = Renaming(OLD, NEW, make.replica(), ("/srv/a",), "/dev/drbd0", settled=True, relink=("third",))
    assert Renaming.of(make.operation(RENAMING, renaming.parameters())) == renaming


def test_each_write_of_fstab_is_one_that_a_boot_can_live_with() -> None:
    """Under either name: what mounts it names no resource and requires none of the two units."""
    texts = [
        a.text for a in SCENES["server, mounted"]().run_to_the_end() if isinstance(a, WriteFile) and "fstab" in a.path
    ]
    assert texts[0].startswith("# as add left it\n/dev/drbd0\t/srv/a  ext4 noatime,nofail,x-systemd.after=")
    assert "requires" not in texts[0]
    assert len(texts) == 2


# -- guards ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("new", ["", ".x", "-x", "a/b", "a b", "a+b", "x" * 64, "a\n", "ä"])
def test_what_is_no_name_is_refused(new: str) -> None:
    refusal = rename.named(OLD, new)
    assert refusal
    assert "cannot be a resource's name" in refusal.message


def test_the_same_name_is_refused() -> None:
    refusal = rename.named(OLD, OLD)
    assert refusal
    assert "has that name already" in refusal.message
    assert rename.named(OLD, NEW) is None


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        (make.host(drbd=[make.seen(NEW)]), "server has a resource renamed already"),
        (make.host(blind=True, problems=("no answer",)), "cannot be seen: no answer"),
        (make.host(operations={"grow-test_a": make.operation("grow", {})}), "grow of test_a on server is not finished"),
        (make.host(operations={"add-renamed": make.operation("add", {}, NEW)}), "add of renamed on server is not"),
        (make.host(operations={"a": make.operation(RENAMING, {"new": NEW}, "x")}), "rename of x is not finished"),
        (make.host(operations={"a": make.operation(RENAMING, {"new": OLD}, "x")}), "rename of x is not finished"),
    ],
)
def test_a_name_in_use_and_an_operation_that_is_not_finished_are_refused(host: Host, reason: str) -> None:
    refusal = rename.free(make.site(), host, OLD, NEW)
    assert refusal
    assert reason in refusal.message


def test_a_name_that_is_nobody_s_is_free() -> None:
    others = {
        "a": make.operation("grow", {}, "x"),
        "b": make.operation(RENAMING, {"new": "z"}, "y"),
        "c": make.operation("export-seed", {"volume": "local/test_a", "file": "/mnt/seed"}),
        "d": make.operation("export-seed", {"volume": "local/renamed", "file": "/mnt/seed"}, NEW),
    }
    assert rename.free(make.site(), make.host(drbd=[make.seen()], operations=others), OLD, NEW) is None


PRIMARY, SECONDARY = Role.PRIMARY, Role.SECONDARY


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        (make.host(drbd=[make.seen()], holds=make.hold(*Forbidden)), "is held on server (somebody said so)"),
        (make.host(drbd=[make.seen(role=SECONDARY)], holds=make.hold(Forbidden.ATTACH)), "is held on server"),
        (make.host(drbd=[make.seen()], holds=make.hold(Forbidden.PROMOTE)), "is held on server"),
        (make.host(drbd=[make.seen(disk=DiskState.DISKLESS)]), "has a copy on server that is Diskless"),
        (make.host(drbd=[make.seen(disk=DiskState.INCONSISTENT)]), "has a copy on server that is Inconsistent"),
    ],
)
def test_what_would_not_come_up_again_is_not_taken_down(host: Host, reason: str) -> None:
    refusal = rename.free(make.site(), host, OLD, NEW)
    assert refusal
    assert reason in refusal.message
    assert "would not come up again" in refusal.message
    assert "drbd-offsite status test_a" in refusal.hint


@pytest.mark.parametrize(
    "host",
    [
        make.host(holds=make.hold(*Forbidden)),
        make.host(drbd=[make.seen()], holds=make.hold(Forbidden.CONNECT)),
        make.host(drbd=[make.seen(role=SECONDARY)], holds=make.hold(Forbidden.PROMOTE)),
        make.host(drbd=[make.seen(role=SECONDARY, disk=DiskState.INCONSISTENT)]),
    ],
)
def test_what_is_down_or_comes_up_as_it_was_may_be_renamed(host: Host) -> None:
    assert rename.free(make.site(), host, OLD, NEW) is None


def test_a_name_that_is_configured_is_in_use() -> None:
    refusal = rename.free(make.site(resources=[OLD, NEW]), make.host(), OLD, NEW)
    assert refusal
    assert "has a resource renamed already" in refusal.message
