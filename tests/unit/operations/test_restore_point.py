"""Restore points as the handlers take and drop them, and as the watcher looks after them."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from drbd_offsite import durable, files, host, journal
from drbd_offsite.model import Flavour, RestorePoint, Site, VolumeName
from drbd_offsite.observed import DiskState, DrbdResource, Forbidden, Host, ReplicationState, Role
from drbd_offsite.operations import restore_point
from drbd_offsite.operations.restore_point import DISCARDS, KEPT, SETTER, TAKEN, after_resync, before_resync, look_after
from drbd_offsite.plan.restore_point import TAG
from drbd_offsite.tools import drbd, lvm

from .. import make
from ..conftest import Answer, Programs

MIB = make.MIB
SNAPSHOT = "test_a_restore_point"
SITE = make.site(Flavour.BACKUP)


class Storage:
    """A volume group, and the programs that change it."""

    def __init__(self, programs: Programs, free: int = 1000 * MIB) -> None:
        self.free = free
        self.volumes: dict[str, dict[str, str]] = {}
        self.changes: list[str] = []
        self.broken = ""
        self.programs = programs
        programs.machine = self.answer
        self.add("test_a", 200 * MIB)

    def add(self, name: str, size: int, **columns: str) -> None:
        usual = {
            "lv_name": name, "lv_size": f"{size}", "lv_active": "active", "lv_device_open": "", "lv_tags": "",
            "lv_kernel_major": "253", "lv_kernel_minor": "0", "origin": "", "pool_lv": "", "data_percent": "",
        }  # fmt: skip
        self.volumes[name] = usual | columns

    def answer(self, argv: tuple[str, ...], _: str) -> Answer | None:
        if argv == lvm.REPORT:
            vg = {"vg_name": "local", "vg_size": "9", "vg_free": f"{self.free}", "vg_extent_size": f"{4 * MIB}"}
            return Answer(json.dumps({"report": [{"vg": [vg], "lv": list(self.volumes.values())}]}))
        if argv[0] not in ("lvcreate", "lvremove", "lvextend"):
            return None
        if argv[0] == self.broken:
            return Answer("", 5, "it does not work")
        self.changes.append(argv[0])
        if argv[0] == "lvcreate":
            size = int(argv[argv.index("--size") + 1].removesuffix("b")) if "--size" in argv else 0
            name = argv[argv.index("--name") + 1]
            assert name not in self.volumes
            self.add(name, size, lv_tags=TAG, origin="test_a", data_percent="0.00")
            self.free -= size
        elif argv[0] == "lvremove":
            self.free += int(self.volumes.pop(argv[-1].partition("/")[2])["lv_size"])
        else:
            volume = self.volumes[argv[-1].partition("/")[2]]
            size = int(argv[argv.index("--size") + 1].removesuffix("b"))
            self.free -= size - int(volume["lv_size"])
            volume["lv_size"] = f"{size}"
        return Answer()

    @property
    def snapshots(self) -> list[str]:
        return sorted(set(self.volumes) - {"test_a"})


@pytest.fixture
def storage(programs: Programs) -> Storage:
    proc("UpToDate", 50 * MIB)
    return Storage(programs)


def proc(disk: str, behind: int) -> None:
    restore_point.PROC_DRBD.parent.mkdir(exist_ok=True)
    restore_point.PROC_DRBD.write_text(
        f"version: 8.4.11 (api:1/proto:86-101)\n 0: cs:WFBitMapT ro:Secondary/Primary ds:{disk}/UpToDate A r-----\n"
        f"    ns:0 nr:0 dw:0 dr:0 al:8 bm:0 lo:0 pe:0 ua:0 ap:0 ep:1 wo:f oos:{behind // 1024}\n"
    )


class Kernel:
    """What is said in its log."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def before(self, policy: str = "prefer", volume: str = "local/test_a", minor: int = 0) -> int:
        return before_resync("test_a", minor, volume, policy, self.said.append)

    def after(self, volume: str = "local/test_a") -> int:
        return after_resync("test_a", volume, self.said.append)


@pytest.fixture
def kernel() -> Kernel:
    return Kernel()


def held() -> dict[str, set[Forbidden]]:
    return {hold.set_by: set(hold.forbids) for hold in journal.holds().get("test_a", ())}


# -- before and after ----------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["prefer", "require"])
def test_it_is_there_before_the_first_block_is_overwritten_and_gone_when_the_resync_has_ended(
    policy: str, storage: Storage, kernel: Kernel
) -> None:
    assert kernel.before(policy) == 0
    assert storage.snapshots == [SNAPSHOT]
    assert int(storage.volumes[SNAPSHOT]["lv_size"]) >= 50 * MIB
    assert journal.remembered(TAKEN)["test_a"]["volume"] == f"local/{SNAPSHOT}"
    assert kernel.after() == 0
    assert storage.snapshots == []
    assert storage.free == 1000 * MIB
    assert journal.remembered(TAKEN) == {}
    assert (held(), kernel.said) == ({}, [])
    assert [e["event"] for e in journal.events()] == ["restore-point"]


def test_never_means_that_lvm_is_not_even_asked(kernel: Kernel, storage: Storage, programs: Programs) -> None:
    assert kernel.before("never") == 0
    assert programs.ran == []
    assert storage.snapshots == []


def test_lvm_is_asked_once_and_drbd_not_at_all(kernel: Kernel, storage: Storage, programs: Programs) -> None:
    """The kernel waits, and its own threads are the ones that would have to answer."""
    kernel.before()
    assert [argv[0] for argv in programs.ran] == ["lvm", "lvcreate"]
    assert storage.snapshots


@pytest.mark.parametrize(("policy", "code", "forbids"), [("prefer", 0, set()), ("require", 1, {Forbidden.CONNECT})])
@pytest.mark.parametrize("reason", ["full", "lvcreate", "lvm", "foreign"])
def test_where_none_can_be_taken_the_policy_decides_and_a_person_is_told(
    policy: str, code: int, forbids: set[Forbidden], reason: str, storage: Storage, kernel: Kernel
) -> None:
    if reason == "full":
        storage.free = 0
    elif reason == "foreign":
        storage.add(SNAPSHOT, MIB, lv_tags="mine")
    elif reason == "lvm":
        storage.programs.allow(lvm.REPORT, Answer("", 5, "no lvm"))
    else:
        storage.broken = reason
    assert kernel.before(policy) == code
    assert held() == {SETTER: forbids}
    (hold,) = journal.holds()["test_a"]
    assert ("no resync without" if code else "until the resync ends no usable copy here") in hold.reason
    assert not hold.reason.endswith(".")
    assert "no restore point for test_a: " in kernel.said[0]


def test_after_room_was_made_the_resync_may_go_on(storage: Storage, kernel: Kernel) -> None:
    storage.free = 0
    assert kernel.before("require") == 1
    storage.free = 500 * MIB
    assert kernel.before("require") == 0
    assert held() == {}


def test_that_there_is_none_is_said_until_the_resync_has_ended(storage: Storage, kernel: Kernel) -> None:
    """Also while it is interrupted and goes on: the copy is not usable all that time."""
    storage.free = 0
    kernel.before()
    proc("Inconsistent", 30 * MIB)
    assert kernel.before() == 0
    assert held() == {SETTER: set()}
    kernel.after()
    assert held() == {}


def test_a_resync_that_was_interrupted_keeps_the_one_from_before_it(storage: Storage, kernel: Kernel) -> None:
    kernel.before()
    storage.changes.clear()
    proc("Inconsistent", 30 * MIB)
    assert kernel.before("require") == 0
    assert storage.changes == []
    assert storage.snapshots == [SNAPSHOT]
    assert "test_a" in journal.remembered(TAKEN)


def test_one_that_was_left_behind_is_replaced(storage: Storage, kernel: Kernel) -> None:
    kernel.before()
    storage.changes.clear()
    assert kernel.before() == 0
    assert storage.changes == ["lvremove", "lvcreate"]
    assert storage.snapshots == [SNAPSHOT]


def test_somebody_else_s_snapshot_is_never_dropped(storage: Storage, kernel: Kernel) -> None:
    storage.add(SNAPSHOT, 100 * MIB, lv_tags="mine", origin="test_a")
    assert kernel.after() == 0
    assert storage.snapshots == [SNAPSHOT]


def test_it_is_known_of_before_it_is_made(storage: Storage, kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """A power cut in between must not leave a snapshot behind that fills up for ever."""
    del storage

    class PowerCut(BaseException):
        pass

    def cut(argv: tuple[str, ...], **_: object) -> Answer:
        if argv[0] == "lvcreate":
            raise PowerCut
        return real(argv)

    real = restore_point.run
    monkeypatch.setattr(restore_point, "run", cut)
    with pytest.raises(PowerCut):
        kernel.before()
    assert "test_a" in journal.remembered(TAKEN)


@pytest.mark.parametrize("policy", ["", "maybe", "Require", "require\n", "x" * 1_000_000])
def test_a_policy_that_nobody_knows_is_taken_for_the_strictest(policy: str, storage: Storage, kernel: Kernel) -> None:
    assert kernel.before(policy) == 1
    assert storage.changes == []
    assert held() == {SETTER: {Forbidden.CONNECT}}


@pytest.mark.parametrize("volume", ["", "test_a", "local/../x", "/dev/sda1", "local/nothing", "elsewhere/test_a"])
def test_what_is_no_volume_here_gets_no_snapshot(volume: str, storage: Storage, kernel: Kernel) -> None:
    assert kernel.before("require", volume) == 1
    assert storage.changes == []
    assert kernel.after(volume) == 0
    assert storage.changes == []


@pytest.mark.parametrize(("policy", "code"), [("require", 1), ("prefer", 0), ("never", 0)])
def test_a_full_disk_changes_nothing_in_what_the_exit_code_means(
    policy: str, code: int, storage: Storage, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(durable, "replace", full)
    monkeypatch.setattr(durable, "append", full)
    assert kernel.before(policy) == code
    assert storage.changes == [], "one that nobody knows of would stay for ever"
    assert any("No space left" in line for line in kernel.said) == (policy != "never")


def test_what_cannot_be_dropped_is_said_and_tried_again_by_the_watcher(storage: Storage, kernel: Kernel) -> None:
    kernel.before()
    storage.broken = "lvremove"
    assert kernel.after() == 0
    assert "could not be dropped" in kernel.said[0]
    assert "test_a" in journal.remembered(TAKEN)
    storage.broken = ""
    look_after(SITE, machine(make.well(Flavour.BACKUP)))
    assert storage.snapshots == []
    assert journal.remembered(TAKEN) == {}


# -- DRBD 9, whose /proc/drbd lists nothing --------------------------------------------------------------


def nine(*lines: str) -> str:
    return "".join(f"exists {line}\n" for line in lines)


def test_drbd_9_is_asked_for_its_state(storage: Storage, kernel: Kernel, programs: Programs) -> None:
    restore_point.PROC_DRBD.write_text("version: 9.1.17 (api:2/proto:110-122)\n")
    said = nine(
        "resource name:test_a role:Secondary suspended:no",
        "connection name:test_a peer-node-id:0 conn-name:server connection:Connected role:Primary",
        "device name:test_a volume:0 minor:0 disk:Outdated size:1",
        f"peer-device name:test_a peer-node-id:0 volume:0 replication:WFBitMapT out-of-sync:{90 * 1024}",
    )
    programs.allow(drbd.EVENTS, said)
    assert kernel.before("require") == 0
    assert int(storage.volumes[SNAPSHOT]["lv_size"]) >= 90 * MIB


@pytest.mark.parametrize("answer", ["", nine("resource name:other role:Secondary"), Answer("", 20, "netlink")])
@pytest.mark.parametrize(("policy", "code"), [("require", 1), ("prefer", 0)])
def test_a_drbd_that_says_nothing_is_no_traceback(
    answer: str | Answer, policy: str, code: int, storage: Storage, kernel: Kernel, programs: Programs
) -> None:
    restore_point.PROC_DRBD.unlink()
    programs.allow(drbd.EVENTS, answer)
    assert kernel.before(policy) == code
    assert storage.changes == []


# -- what a person has given up --------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["never", "prefer", "require"])
def test_what_is_given_up_is_kept_whatever_the_policy_is_and_stays(
    policy: str, storage: Storage, kernel: Kernel
) -> None:
    journal.remember(DISCARDS, "test_a", {"safety_net": True})
    assert kernel.before(policy) == 0
    assert storage.snapshots == ["test_a_discarded"]
    assert kernel.after() == 0
    assert storage.snapshots == ["test_a_discarded"], "a person removes it"
    assert "test_a" in journal.remembered(KEPT)
    assert journal.remembered(DISCARDS) == {}, "and the next resync is one like any other"


def test_nothing_is_given_up_without_a_snapshot_of_it(storage: Storage, kernel: Kernel) -> None:
    storage.free = 0
    journal.remember(DISCARDS, "test_a", {"safety_net": True})
    assert kernel.before("never") == 1
    assert held() == {SETTER: {Forbidden.CONNECT}}


def test_without_a_safety_net_means_it(storage: Storage, kernel: Kernel) -> None:
    storage.free = 0
    journal.remember(DISCARDS, "test_a", {"safety_net": False})
    assert kernel.before("require") == 0
    assert storage.changes == []


# -- looked after by the watcher -------------------------------------------------------------------------


def machine(*seen: DrbdResource) -> Host:
    return make.host(Flavour.BACKUP, seen)


SYNCING = make.seen(role=Role.SECONDARY, disk=DiskState.INCONSISTENT, replication=ReplicationState.SYNC_TARGET)


def test_where_there_is_none_lvm_is_not_asked(programs: Programs, storage: Storage) -> None:
    del storage
    look_after(SITE, machine(SYNCING))
    assert programs.ran == []


OVER = [make.well(Flavour.BACKUP)]
NOT_OVER = {
    "syncing": [SYNCING],
    "not connected": [make.seen(role=Role.SECONDARY, state=None)],
    "about to begin": [make.seen(role=Role.SECONDARY, replication=ReplicationState.BITMAP_TARGET)],
    "behind": [make.seen(role=Role.SECONDARY, replication=ReplicationState.BEHIND)],
    "half a copy": [make.seen(role=Role.SECONDARY, disk=DiskState.INCONSISTENT)],
    "down": [],
}


def test_one_that_no_resync_needs_any_more_is_dropped(storage: Storage, kernel: Kernel) -> None:
    """The handler after the resync may have been killed, or the machine with it."""
    kernel.before()
    look_after(SITE, machine(*OVER))
    assert storage.snapshots == []
    assert journal.remembered(TAKEN) == {}


@pytest.mark.parametrize("state", NOT_OVER)
def test_one_that_may_be_needed_stays(state: str, storage: Storage, kernel: Kernel) -> None:
    kernel.before()
    look_after(SITE, machine(*NOT_OVER[state]))
    assert storage.snapshots == [SNAPSHOT]
    assert storage.changes == ["lvcreate"]


def test_one_that_fills_up_is_enlarged_and_that_is_an_event(storage: Storage, kernel: Kernel) -> None:
    kernel.before()
    before = int(storage.volumes[SNAPSHOT]["lv_size"])
    storage.volumes[SNAPSHOT]["data_percent"] = "81.20"
    look_after(SITE, machine(SYNCING))
    assert int(storage.volumes[SNAPSHOT]["lv_size"]) > before
    assert journal.events()[-1]["event"] == "restore-point-grown"
    assert held() == {}


def test_one_that_has_overflowed_is_told_once_and_holds_nothing(storage: Storage, kernel: Kernel) -> None:
    kernel.before()
    storage.volumes[SNAPSHOT]["data_percent"] = "100.00"
    for _ in range(3):
        look_after(SITE, machine(SYNCING))
    assert held() == {SETTER: set()}
    assert "has overflowed and keeps nothing" in journal.holds()["test_a"][0].reason
    assert [e["event"] for e in journal.events()] == ["restore-point", "remark"]
    look_after(SITE, machine(*OVER))
    assert held() == {}
    assert storage.snapshots == []


class Receiving:
    """A kernel that receives a resync until it is told to disconnect."""

    def __init__(self, storage: Storage) -> None:
        self.told: list[tuple[str, ...]] = []
        self._storage, self._connected = storage, True
        storage.programs.machine = self.answer

    def answer(self, argv: tuple[str, ...], stdin: str) -> Answer | None:
        if argv == drbd.adm("disconnect", "test_a"):
            self.told.append(argv)
            self._connected = False
            return Answer("", 5, "it takes long")
        if argv == drbd.EVENTS:
            state = "Connected" if self._connected else "StandAlone"
            return Answer(f"exists connection name:test_a peer-node-id:0 conn-name:server connection:{state}\n")
        return self._storage.answer(argv, stdin)


STRICT = make.site(Flavour.BACKUP, resync_snapshot=RestorePoint.REQUIRE)


def receiving(to_come: int) -> Host:
    return machine(
        make.seen(
            role=Role.SECONDARY,
            disk=DiskState.INCONSISTENT,
            replication=ReplicationState.SYNC_TARGET,
            out_of_sync_bytes=to_come,
        )
    )


@pytest.fixture
def filling(storage: Storage, kernel: Kernel) -> Storage:
    """A restore point three quarters full, in a group that has nothing more."""
    kernel.before("require")
    storage.free = 0
    storage.volumes[SNAPSHOT]["data_percent"] = "75.00"
    storage.changes.clear()
    return storage


def test_before_one_that_is_required_overflows_the_resync_is_stopped(filling: Storage) -> None:
    world = Receiving(filling)
    look_after(STRICT, receiving(60 * MIB))
    assert len(world.told) == 1
    assert held() == {SETTER: {Forbidden.CONNECT}}
    assert "was about to overflow" in journal.holds()["test_a"][0].reason
    look_after(STRICT, machine(make.seen(role=Role.SECONDARY, disk=DiskState.INCONSISTENT, state=None)))
    assert len(world.told) == 1, "it has ended"
    assert filling.snapshots == [SNAPSHOT], "it is what the copy was before"


def test_when_there_is_room_the_resync_that_was_stopped_goes_on_from_where_it_was(
    filling: Storage, kernel: Kernel
) -> None:
    world = Receiving(filling)
    look_after(STRICT, receiving(60 * MIB))
    filling.free = 400 * MIB
    journal.lift("test_a", "connect")
    proc("Inconsistent", 60 * MIB)
    assert kernel.before("require") == 0
    look_after(STRICT, receiving(60 * MIB))
    assert filling.changes == ["lvextend"]
    assert (held(), len(world.told)) == ({}, 1)


@pytest.mark.parametrize(
    ("site", "to_come"), [(STRICT, 10 * MIB), (SITE, 60 * MIB)], ids=["it is enough", "preferred only"]
)
def test_a_resync_whose_restore_point_fills_up_goes_on(site: Site, to_come: int, filling: Storage) -> None:
    world = Receiving(filling)
    look_after(site, receiving(to_come))
    assert (world.told, held()) == ([], {})


def test_what_a_person_gives_up_is_not_left_to_overflow_whatever_the_policy_is(
    storage: Storage, kernel: Kernel
) -> None:
    world = Receiving(storage)
    journal.remember(DISCARDS, "test_a", {"safety_net": True})
    kernel.before("prefer")
    storage.free = 0
    storage.volumes["test_a_discarded"]["data_percent"] = "75.00"
    look_after(SITE, receiving(80 * MIB))
    assert (len(world.told), held()) == (1, {SETTER: {Forbidden.CONNECT}})


def test_what_was_given_up_once_stops_no_later_resync(storage: Storage, kernel: Kernel) -> None:
    world = Receiving(storage)
    journal.remember(DISCARDS, "test_a", {"safety_net": True})
    kernel.before("prefer")
    kernel.after()
    storage.free = 0
    storage.volumes["test_a_discarded"]["data_percent"] = "75.00"
    look_after(SITE, receiving(80 * MIB))
    assert (world.told, held()) == ([], {})


def test_while_somebody_works_on_it_the_resync_is_not_stopped(filling: Storage) -> None:
    world = Receiving(filling)
    with files.lock("resource-test_a", 0.0):
        look_after(STRICT, receiving(60 * MIB))
    assert (world.told, held()) == ([], {})


def test_with_one_that_has_overflowed_the_resync_goes_on_because_its_end_alone_helps(filling: Storage) -> None:
    world = Receiving(filling)
    filling.volumes[SNAPSHOT]["data_percent"] = "100.00"
    look_after(STRICT, receiving(60 * MIB))
    assert world.told == []
    assert held() == {SETTER: set()}


def test_one_that_a_person_has_removed_is_not_missed(storage: Storage, kernel: Kernel) -> None:
    kernel.before()
    del storage.volumes[SNAPSHOT]
    look_after(SITE, machine(SYNCING))
    look_after(SITE, machine(*OVER))
    assert journal.remembered(TAKEN) == {}


def given_up(kernel: Kernel) -> None:
    journal.remember(DISCARDS, "test_a", {"safety_net": True})
    kernel.before()
    kernel.after()


def test_what_was_given_up_is_looked_after_until_a_person_removes_it(storage: Storage, kernel: Kernel) -> None:
    given_up(kernel)
    storage.volumes["test_a_discarded"]["data_percent"] = "90.00"
    look_after(SITE, machine(*OVER))
    assert storage.changes == ["lvcreate", "lvextend"]
    del storage.volumes["test_a_discarded"]
    look_after(SITE, machine(*OVER))
    assert journal.remembered(KEPT) == {}


@pytest.mark.parametrize(("days", "goes"), [(13, False), (15, True)])
def test_what_was_given_up_is_removed_after_so_many_days(
    storage: Storage, kernel: Kernel, monkeypatch: pytest.MonkeyPatch, days: int, goes: bool
) -> None:
    given_up(kernel)
    later = datetime.now(UTC) + timedelta(days=days)
    monkeypatch.setattr(journal, "now", lambda: later.isoformat(timespec="seconds"))
    look_after(SITE, machine(*OVER))
    assert ("test_a_discarded" not in storage.volumes) is goes
    look_after(replace(SITE, keep_discarded_days=0), machine(*OVER))
    assert ("test_a_discarded" not in storage.volumes) is goes


def test_a_resource_that_is_configured_no_longer_is_not_looked_after(storage: Storage, kernel: Kernel) -> None:
    kernel.before()
    storage.programs.ran.clear()
    look_after(make.site(Flavour.BACKUP, ()), machine())
    assert storage.programs.ran == []


def test_the_volume_s_own_group_is_the_snapshot_s() -> None:
    assert restore_point.plan.place(VolumeName("fast", "x")) == VolumeName("fast", f"x{restore_point.plan.SUFFIX}")


def test_the_machine_s_look_and_the_handler_s_read_the_same_file() -> None:
    assert restore_point.PROC_DRBD == host.PROC_DRBD
