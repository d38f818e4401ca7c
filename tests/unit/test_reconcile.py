from collections.abc import Callable

import pytest

from drbd_offsite import durable, files, host, journal, messages, protocol
from drbd_offsite.observed import Forbidden
from drbd_offsite.reconcile import ROUNDS, Outcome, reconcile
from drbd_offsite.tools import drbd

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
        self.peer: Callable[[], Answer] = lambda: Answer("", 255, "No route to host")
        self.asked = 0
        programs.machine = self.answer
        programs.addresses.add("10.89.33.1")
        self.looks = 0
        host.PROC_DRBD.write_text("version: 8.4.11 (api:1/proto:86-101)\n")
        (host.DEVICES / "local").mkdir(parents=True)
        for volume in (*names, "drbd_meta"):
            (host.DEVICES / "local" / volume).touch()

    def answer(self, argv: tuple[str, ...], _: str) -> Answer | None:
        if argv == drbd.EVENTS:
            self.looks += 1
            return Answer("".join(self._events(name) for name in self.names))
        if argv[0] == "ssh":
            self.asked += 1
            return self.peer()
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


def run(*names: str, site_names: tuple[str, ...] = (), boot_wait: float = 0.0) -> tuple[list[Outcome], list[str]]:
    told: list[str] = []
    site = make.site(resources=site_names or names, boot_wait=boot_wait)
    return reconcile(site, names, told.append, wait=0), told


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


def test_many_resources_that_lack_nothing_cost_one_look_and_no_lock(programs: Programs) -> None:
    world = Resources(programs, *"abcdefgh")
    world.states = {name: list(UP) for name in world.names}
    with files.lock("resource-c", 0):
        outcomes, _ = run(*world.names)
    assert world.looks == 1
    assert [outcome.failed for outcome in outcomes] == [None] * 8


def test_of_many_only_the_one_that_lacks_something_costs_more(programs: Programs) -> None:
    world = Resources(programs, *"abcdefgh")
    world.states = {name: list(UP) for name in world.names}
    world.states["c"] = list(UP[:-1])
    run(*world.names)
    assert world.done == [("c", "connect")]
    assert world.looks == 3, "all of them, and it before and after the step"


def test_what_another_did_meanwhile_is_not_done_again(programs: Programs) -> None:
    """The look that told of the need may be older than the lock."""
    world = Resources(programs, "a", "b")
    world.states = {"a": list(UP[:-1]), "b": list(UP)}
    answer = world.answer

    def connected_by_another(argv: tuple[str, ...], stdin: str) -> Answer | None:
        said = answer(argv, stdin)
        if world.looks == 1:
            world.states["a"] = list(UP)
        return said

    programs.machine = connected_by_another
    run("a", "b")
    assert world.done == []


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


def test_a_step_that_had_no_effect_is_not_repeated_at_once(programs: Programs) -> None:
    world = Resources(programs, "a")
    world.states["a"] = list(UP[:-1])
    answer = world.answer
    tried: list[tuple[str, ...]] = []

    def without_effect(argv: tuple[str, ...], stdin: str) -> Answer | None:
        if argv == drbd.adm("connect", "a"):
            tried.append(argv)
            return Answer()
        return answer(argv, stdin)

    programs.machine = without_effect
    (outcome,), _ = run("a")
    assert len(tried) == 1
    assert len(outcome.done) == 1
    assert outcome.soon, "it may take a moment"
    assert outcome.failed is None


def test_a_state_that_never_settles_is_left_for_later(programs: Programs) -> None:
    world = Resources(programs, "a")
    answer = world.answer

    def restless(argv: tuple[str, ...], stdin: str) -> Answer | None:
        said = answer(argv, stdin)
        if argv[0] == "drbdadm" and argv[1] == "new-minor":
            world.states["a"].clear()  # somebody takes it down again and again
        return said

    programs.machine = restless
    (outcome,), _ = run("a")
    assert len(outcome.done) == ROUNDS
    assert outcome.soon
    assert outcome.failed is None
    assert "keeps changing" in outcome.reason


def unwritable(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(durable, "append", full)


def test_a_journal_that_cannot_be_written_is_told_and_keeps_nothing_from_being_served(
    programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = Resources(programs, "a")
    unwritable(monkeypatch)
    (outcome,), told = run("a")
    assert [command for _, command in world.done] == UP
    assert outcome.failed is None
    assert any("could not be noted: [Errno 28] No space left" in line for line in told)


def test_a_failure_that_cannot_be_noted_is_still_one(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    world = Resources(programs, "a", "b")
    world.broken = {"a"}
    unwritable(monkeypatch)
    outcomes, _ = run("a", "b")
    assert outcomes[0].failed
    assert "it does not work" in outcomes[0].reason
    assert world.states["b"] == UP


def test_a_lock_that_cannot_be_made_is_a_failure_of_that_resource_and_no_traceback(
    programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = Resources(programs, "a", "b")
    lock = files.lock

    def full(name: str, wait: float) -> object:
        if name == "resource-a":
            raise OSError(28, "No space left on device", "/run/drbd-offsite")
        return lock(name, wait)

    monkeypatch.setattr(files, "lock", full)
    outcomes, _ = run("a", "b")
    assert outcomes[0].failed
    assert "/run/drbd-offsite" in outcomes[0].reason
    assert world.states == {"a": [], "b": UP}


def test_a_drbd_that_cannot_be_seen_is_left_alone(programs: Programs) -> None:
    world = Resources(programs, "a")
    programs.allow(drbd.EVENTS, Answer("", 20, "netlink"))
    (outcome,), _ = run("a")
    assert world.done == []
    assert "cannot be seen" in outcome.reason


# -- at boot -----------------------------------------------------------------------------------------


def answering(role: str) -> Answer:
    theirs = messages.ResourceReport("a", role, "UpToDate", "Connecting", 0, "")
    return Answer(protocol.encode_answer(messages.MachineReport("backup", "8.4.11", [theirs])))


def test_a_server_asks_and_serves_when_it_hears_that_nobody_else_does(programs: Programs) -> None:
    world = Resources(programs, "a")
    world.peer = lambda: answering("Secondary")
    (outcome,), told = run("a", boot_wait=20.0)
    assert [command for _, command in world.done] == UP
    assert world.asked == 1
    assert len(told) == len(UP) == len(outcome.done), "a question is no step"


def test_a_server_that_hears_nothing_is_looked_at_again_soon_until_its_time_is_over(
    programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The circle itself waits for nobody: others have to be served too."""
    now = [100.0]
    monkeypatch.setattr(host.time, "monotonic", lambda: now[0])
    world = Resources(programs, "a")
    (outcome,), _ = run("a", boot_wait=20.0)
    assert world.states["a"] == UP[:3]
    assert (world.asked, outcome.soon) == (1, True)
    now[0] += 19.0
    run("a", boot_wait=20.0)
    assert (world.asked, world.states["a"]) == (2, UP[:3])
    now[0] += 1.0
    run("a", boot_wait=20.0)
    assert world.states["a"] == UP
    assert world.asked == 2


def test_a_server_that_hears_of_a_takeover_stays_secondary(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "ASK_AGAIN_SECONDS", 0.0)
    world = Resources(programs, "a")
    world.peer = lambda: answering("Primary")
    (outcome,), _ = run("a", boot_wait=20.0)
    assert world.states["a"] == UP[:3]
    assert "backup has taken over" in outcome.reason
    assert not outcome.soon, "only a person ends it"
    run("a", boot_wait=20.0)
    assert world.asked == 1
    journal.lift("a", "up", set_by="taken-over")
    run("a", boot_wait=20.0)
    assert world.asked == 2, "and then it is asked anew"
    assert world.states["a"] == UP[:3]


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
