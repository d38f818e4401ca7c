import pytest

from drbd_offsite import files, host, journal
from drbd_offsite.model import Forbidden
from drbd_offsite.reconcile import ROUNDS, reconcile
from drbd_offsite.tools import drbd, iproute, lvm

from . import make
from .conftest import Answer, Programs

UP = ["new-resource", "new-minor", "attach", "primary", "connect"]


class Resources:
    """Several resources in a kernel that does what drbdadm says, one command at a time."""

    def __init__(self, programs: Programs, *names: str) -> None:
        self.names = names
        self.states: dict[str, list[str]] = {name: [] for name in names}
        self.broken: set[str] = set()
        self.done: list[tuple[str, str]] = []
        programs.machine = self.answer
        self.looks = 0
        host.PROC_DRBD.write_text("version: 8.4.11 (api:1/proto:86-101)\n")

    def answer(self, argv: tuple[str, ...], _: str) -> Answer | None:
        if argv == lvm.REPORT:
            volumes = [*self.names, "drbd_meta"]
            lv = [
                {"lv_name": v, "lv_size": "1", "lv_active": "active", "lv_device_open": "", "lv_kernel_major": "253",
                 "lv_kernel_minor": str(n), "lv_tags": ""}
                for n, v in enumerate(volumes)
            ]  # fmt: skip
            vg = [{"vg_name": "local", "vg_size": "9", "vg_free": "9", "vg_extent_size": "1"}]
            import json

            return Answer(json.dumps({"report": [{"vg": vg, "lv": lv}]}))
        if argv == iproute.ADDRESSES:
            return Answer('[{"ifname": "tun0", "flags": ["UP"], "addr_info": [{"local": "10.89.33.1"}]}]')
        if argv == drbd.EVENTS:
            self.looks += 1
            return Answer("".join(self._events(name) for name in self.names))
        if argv[0] == "drbdadm":
            command, name = argv[1], argv[-1]
            self.done.append((name, command))
            if name in self.broken:
                return Answer("", 10, "it does not work")
            self.states[name].append(command)
            return Answer()
        return None

    def _events(self, name: str) -> str:
        did = self.states[name]
        if "new-resource" not in did:
            return ""
        text = f"exists resource name:{name} role:{'Primary' if 'primary' in did else 'Secondary'} suspended:no\n"
        if "new-minor" in did:
            disk = "UpToDate" if "attach" in did else "Diskless"
            text += f"exists device name:{name} volume:0 minor:{self.names.index(name)} disk:{disk}\n"
        if "connect" in did:
            text += f"exists connection name:{name} conn-name:backup connection:Connecting role:Unknown\n"
        return text


def run(*names: str, site_names: tuple[str, ...] = ()) -> tuple[list, list[str]]:
    told: list[str] = []
    outcomes = reconcile(make.site(resources=site_names or names), names, told.append, wait=0)
    return outcomes, told


def test_a_resource_is_brought_up_step_by_step(programs: Programs) -> None:
    world = Resources(programs, "a")
    (outcome,), told = run("a")
    assert [command for _, command in world.done] == UP
    assert len(outcome.done) == len(told) == len(UP)
    assert outcome.failed is None
    assert "waiting for backup" in outcome.reason
    assert [e["event"] for e in journal.events()] == ["done"] * len(UP)


def test_each_step_is_followed_by_a_new_look(programs: Programs) -> None:
    world = Resources(programs, "a")
    seen: list[int] = []
    answer = world.answer
    programs.machine = lambda argv, stdin: (
        seen.append(world.looks) if argv[0] == "drbdadm" else None,
        answer(argv, stdin),
    )[1]
    run("a")
    assert seen == sorted(set(seen)), "no two steps rest on one look"


def test_nothing_to_do_is_nothing_done(programs: Programs) -> None:
    world = Resources(programs, "a")
    world.states["a"] = list(UP)
    (outcome,), told = run("a")
    assert (outcome.done, told, world.done) == ((), [], [])
    assert journal.events() == [], "looking is no event"


def test_one_that_fails_does_not_keep_the_others_back(programs: Programs) -> None:
    world = Resources(programs, "a", "b", "c")
    world.broken = {"b"}
    outcomes, _ = run("a", "b", "c")
    assert [o.failed is None for o in outcomes] == [True, False, True]
    assert world.states["a"] == world.states["c"] == UP
    assert "it does not work" in outcomes[1].reason
    (failed,) = [e for e in journal.events() if e["event"] == "failed"]
    assert failed["resource"] == "b"
    assert [command for name, command in world.done if name == "b"] == ["new-resource"], "a step that failed ends it"


def test_one_that_is_being_worked_on_does_not_keep_the_others_back(programs: Programs) -> None:
    world = Resources(programs, "a", "b")
    with files.lock("resource-a", 0):
        outcomes, _ = run("a", "b")
    assert outcomes[0].failed is not None
    assert outcomes[0].soon, "and is looked at again"
    assert world.states == {"a": [], "b": UP}


def test_a_hold_is_respected(programs: Programs) -> None:
    world = Resources(programs, "a", "b")
    journal.hold("a", "split brain", frozenset({Forbidden.CONNECT}), "split-brain")
    outcomes, _ = run("a", "b")
    assert world.states["a"] == UP[:-1]
    assert "split brain" in outcomes[0].reason
    assert world.states["b"] == UP


def test_a_state_that_never_settles_is_left_for_later(programs: Programs) -> None:
    world = Resources(programs, "a")
    world.states["a"] = list(UP[:-1])
    answer = world.answer
    # Connecting "works", and the connection is gone again at once, every time.
    programs.machine = lambda argv, stdin: Answer() if argv == drbd.adm("connect", "a") else answer(argv, stdin)
    (outcome,), _ = run("a")
    assert len(outcome.done) == ROUNDS
    assert outcome.soon
    assert outcome.failed is None


def test_only_the_named_resources_are_touched(programs: Programs) -> None:
    world = Resources(programs, "a", "b")
    run("b", site_names=("a", "b"))
    assert {name for name, _ in world.done} == {"b"}


@pytest.mark.parametrize("proc", ["", None])
def test_without_the_module_it_is_loaded_first(programs: Programs, proc: str | None) -> None:
    world = Resources(programs, "a")
    if proc is None:
        host.PROC_DRBD.unlink()
    else:
        host.PROC_DRBD.write_text(proc)

    def modprobe(_: str) -> Answer:
        host.PROC_DRBD.write_text("version: 8.4.11 (api:1/proto:86-101)\n")
        return Answer()

    programs.allow(("modprobe", "drbd"), modprobe)
    run("a")
    assert world.states["a"] == UP


def test_no_module_at_all_is_a_failure_that_is_told(programs: Programs) -> None:
    Resources(programs, "a")
    host.PROC_DRBD.write_text("")
    programs.allow(("modprobe", "drbd"), Answer("", 1, "modprobe: FATAL: Module drbd not found"))
    (outcome,), _ = run("a")
    assert outcome.failed is not None
    assert "Module drbd not found" in outcome.reason
