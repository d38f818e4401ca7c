"""The watcher, with every source of hints a pipe and the circle a list of calls."""

import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from drbd_offsite import config, doorbell, handler, journal, watch
from drbd_offsite.errors import ConfigError, OffsiteError, Refused, ToolFailed
from drbd_offsite.notify import notify
from drbd_offsite.operations import repair
from drbd_offsite.operations.report import LOST
from drbd_offsite.plan import overload
from drbd_offsite.plan.agenda import FULL_SECONDS, GAP_SECONDS, PATIENCE_SECONDS, SOON_SECONDS
from drbd_offsite.reconcile import Outcome
from drbd_offsite.tools import drbd

from .test_config import two

NETLINK = Path(__file__).parents[1] / "data/netlink"
EXISTS = "exists resource name:test_a role:Primary suspended:no"
CHANGE = "change resource name:test_a role:Secondary"
LOST_LINE = "change peer-device name:test_a peer-node-id:0 conn-name:peer volume:0 replication:Off peer-disk:DUnknown"
BACK_LINE = "change peer-device name:test_a peer-node-id:0 conn-name:peer volume:0 replication:Established"


class Pipe:
    """Something that can be polled: readable while there is anything in it."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        self.waiting: list[Any] = []

    def fileno(self) -> int:
        return self._reader

    def put(self, *things: Any) -> None:
        self.waiting += things
        os.write(self._writer, b"!" * len(things))

    def take(self) -> Any:
        os.read(self._reader, 1)
        return self.waiting.pop(0)

    def close(self) -> None:
        for end in (self._reader, self._writer):
            os.close(end)


class Uevents(Pipe):
    """As much of pyudev's Monitor as is used."""

    tag = ""
    started = False

    def filter_by_tag(self, tag: str) -> None:
        self.tag = tag

    def start(self) -> None:
        self.started = True

    def poll(self, timeout: float) -> Any:
        assert timeout == 0, "it is polled for already"
        thing = self.take() if self.waiting else None
        if isinstance(thing, OSError):
            raise thing
        return thing


class Device(dict[str, str]):
    def __init__(self, subsystem: str, sys_name: str, **properties: str) -> None:
        super().__init__(properties)
        self.subsystem, self.sys_name = subsystem, sys_name


def volume(name: str, group: str = "local") -> Device:
    return Device("block", "dm-0", DM_VG_NAME=group, DM_LV_NAME=name)


def interface(name: str) -> Device:
    return Device("net", name)


class Changes(Pipe):
    """run.Stream of drbdsetup's output."""

    ended = False
    closed = False

    def lines(self) -> list[str]:
        said = [self.take() for _ in list(self.waiting)]
        self.ended = "" in said
        return [line for line in said if line]

    def close(self) -> None:
        if not self.closed:
            super().close()
        self.closed = True


class Poller:
    """poll(2) by a clock of our own: what is not there yet will not come before the time is over."""

    def __init__(self, machine: "Machine") -> None:
        self._real, self._machine = select.poll(), machine
        self.register, self.unregister = self._real.register, self._real.unregister

    def poll(self, milliseconds: float) -> list[tuple[int, int]]:
        found = self._real.poll(0)
        if not found:
            self._machine.now += milliseconds / 1000
        return found


@dataclass
class Machine:
    now: float = 5000.0
    uevents: Uevents = field(default_factory=Uevents)
    addresses: Any = None
    changes: list[Changes] = field(default_factory=list)
    looks: list[tuple[str, ...]] = field(default_factory=list)
    duties: int = 0
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    stream_fails: bool = False

    def stream(self, argv: tuple[str, ...]) -> Changes:
        assert argv == drbd.CHANGES
        if self.stream_fails:
            raise ToolFailed("drbdsetup could not be started.")
        self.changes.append(Changes())
        return self.changes[-1]

    def reconcile(self, site: object, names: Any, tell: object, *, wait: float) -> list[Outcome]:
        assert site
        assert tell
        assert wait == 0, "what somebody works on is left to them"
        self.looks.append(tuple(names))
        return [self.outcomes.get(name, Outcome(name, (), "nothing to do")) for name in names]

    def see_to(self, site: object, host: object, tell: object) -> None:
        assert site
        assert host
        assert tell
        self.duties += 1

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    found = Machine()
    found.addresses, kernel = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    found.addresses.setblocking(False)
    found.addresses_kernel = kernel  # type: ignore[attr-defined]
    monkeypatch.setattr(watch.pyudev, "Monitor", SimpleNamespace(from_netlink=lambda _: found.uevents))
    monkeypatch.setattr(watch.pyudev, "Context", object)
    monkeypatch.setattr(watch, "_address_news", lambda: found.addresses)
    monkeypatch.setattr(watch, "Stream", found.stream)
    monkeypatch.setattr(watch, "time", SimpleNamespace(monotonic=lambda: found.now, sleep=found.sleep))
    monkeypatch.setattr(watch, "select", SimpleNamespace(poll=lambda: Poller(found), POLLIN=select.POLLIN))
    monkeypatch.setattr(watch, "reconcile", found.reconcile)
    monkeypatch.setattr(watch, "observe", lambda _: object())
    monkeypatch.setattr(watch.duties, "see_to", found.see_to)
    config.PATH.write_text(two())
    yield found
    for source in (found.uevents, *found.changes):
        source.close()
    found.addresses.close()
    kernel.close()


class Watching:
    """A watcher whose first look is over."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.watcher = watch.Watcher()
        self.turn()
        self.started = machine.now

    def turn(self) -> tuple[str, ...] | None:
        """Sleep until something is due or heard, and look; what was looked at, or None."""
        before = len(self.machine.looks)
        self.watcher.wait()
        self.watcher.look()
        assert len(self.machine.looks) <= before + 1
        return self.machine.looks[-1] if len(self.machine.looks) > before else None

    def until(self, seconds: float) -> list[tuple[float, tuple[str, ...]]]:
        """What is looked at, and when, until at least so long after the first look."""
        found = []
        for _ in range(2000):
            if self.machine.now >= self.started + seconds:
                return found
            if (looked := self.turn()) is not None:
                found.append((round(self.machine.now - self.started, 3), looked))
        pytest.fail("it spins")


@pytest.fixture
def watching(machine: Machine) -> Iterator[Watching]:
    found = Watching(machine)
    yield found
    os.close(found.watcher._doorbell)


# -- looks -------------------------------------------------------------------------------------------


def test_on_its_start_it_looks_at_everything_and_listens_to_everything(machine: Machine, watching: Watching) -> None:
    """Started before LVM or after tun0, killed or upgraded: the state after is the same."""
    assert machine.looks == [("test_a", "test_b")]
    assert machine.duties == 1
    assert machine.uevents.tag == "drbd-offsite"
    assert machine.uevents.started
    assert len(machine.changes) == 1
    assert watching.started == 5000.0, "nothing was waited for"


def test_whatever_is_heard_everything_is_looked_at_every_minute(machine: Machine, watching: Watching) -> None:
    assert watching.until(3 * FULL_SECONDS) == [(n * FULL_SECONDS, ("test_a", "test_b")) for n in (1, 2, 3)]
    assert machine.duties == 4


def test_it_gives_a_sign_of_life_at_least_every_half_minute(machine: Machine, watching: Watching) -> None:
    for _ in range(10):
        before = machine.now
        watching.watcher.wait()
        assert machine.now - before <= watch.WATCHDOG_SECONDS
        watching.watcher.look()


@pytest.mark.parametrize(
    ("device", "names"),
    [
        (volume("test_a"), {"test_a"}),
        (volume("test_b"), {"test_b"}),
        (volume("drbd_meta"), {"test_a", "test_b"}),
        (interface("tun0"), {"test_a", "test_b"}),
    ],
    ids=["volume", "other-volume", "metadata", "tunnel"],
)
def test_what_appears_is_looked_at_at_once_for_whom_it_matters(
    device: Device, names: set[str], machine: Machine, watching: Watching
) -> None:
    machine.now += 7.0
    before = machine.now
    machine.uevents.put(device)
    looked = watching.turn()
    assert looked is not None
    assert set(looked) == names
    assert machine.now == before
    assert machine.duties == 1, "the duties have time until the next minute"


@pytest.mark.parametrize(
    "device",
    [volume("other"), volume("test_a", "elsewhere"), interface("tun1"), interface("eth0"), Device("block", "dm-3"),
     Device("block", "dm-3", DM_VG_NAME="local"), Device("block", "dm-3", DM_LV_NAME="../test_a", DM_VG_NAME="local")],
    ids=repr,
)  # fmt: skip
def test_what_matters_to_nobody_is_no_look(device: Device, machine: Machine, watching: Watching) -> None:
    machine.uevents.put(device)
    assert watching.turn() is None
    assert watching.until(FULL_SECONDS) == [(FULL_SECONDS, ("test_a", "test_b"))]


def test_a_storm_of_unrelated_events_costs_one_turn_and_no_look(machine: Machine, watching: Watching) -> None:
    for number in range(500):
        machine.uevents.put(volume(f"storm{number}"), interface(f"veth{number}"))
    assert watching.turn() is None
    assert machine.uevents.waiting == []
    assert len(machine.looks) == 1
    assert machine.now == watching.started


def test_a_burst_about_one_resource_is_a_look_at_its_beginning_and_one_after(
    machine: Machine, watching: Watching
) -> None:
    machine.uevents.put(*[volume("test_a")] * 20)
    machine.now += GAP_SECONDS
    assert watching.turn() == ("test_a",)
    machine.uevents.put(*[volume("test_a")] * 20)
    assert watching.turn() is None, "a moment later"
    assert watching.turn() == ("test_a",)
    assert watching.until(30.0) == []


def address(machine: Machine, name: str) -> None:
    machine.addresses_kernel.send(bytes.fromhex((NETLINK / f"{name}.hex").read_text()))  # type: ignore[attr-defined]


def test_an_address_that_appears_connects_the_resources_of_its_tunnel_at_once(
    machine: Machine, watching: Watching
) -> None:
    """It comes 160 ms after the interface, and without an event of udev's."""
    machine.now += 7.0
    address(machine, "tunnel-gets-its-address")
    assert set(watching.turn() or ()) == {"test_a", "test_b"}


@pytest.mark.parametrize("name", ["network-gets-its-address", "address-goes", "tunnel-vanishes"])
def test_another_address_is_no_look(name: str, machine: Machine, watching: Watching) -> None:
    address(machine, name)
    assert watching.turn() is None


def test_news_that_were_lost_may_have_been_about_anybody(
    machine: Machine, watching: Watching, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ENOBUFS: it was busy while too much happened."""
    lost = OSError(105, "No buffer space available")
    machine.now += GAP_SECONDS
    machine.uevents.put(volume("other"), lost, volume("other"))
    assert set(watching.turn() or ()) == {"test_a", "test_b"}
    assert machine.uevents.waiting == []

    def recv(_: int) -> bytes:
        raise lost

    machine.now += GAP_SECONDS
    monkeypatch.setattr(watching.watcher, "_addresses", SimpleNamespace(recv=recv))
    machine.uevents.put(volume("other"))
    assert set(watching.turn() or ()) == {"test_a", "test_b"}


# -- DRBD's own changes ------------------------------------------------------------------------------


def test_what_drbd_has_changed_is_looked_at_with_patience(machine: Machine, watching: Watching) -> None:
    """A person with drbdadm is given time; then it is healed."""
    machine.changes[0].put(CHANGE)
    assert watching.until(30.0) == [(PATIENCE_SECONDS, ("test_a",))]


@pytest.mark.parametrize(
    "line", [EXISTS, "exists -", CHANGE.replace("test_a", "other"), "call helper name:other helper:x", "nonsense"]
)
def test_what_was_there_and_what_is_not_ours_is_no_reason_to_look(
    line: str, machine: Machine, watching: Watching
) -> None:
    machine.changes[0].put(line)
    assert watching.until(30.0) == []


def test_a_listing_that_ends_is_closed_and_begun_anew_with_the_next_full_look(
    machine: Machine, watching: Watching
) -> None:
    """The module is not loaded, or was unloaded: no storm of attempts."""
    machine.changes[0].put(CHANGE, "")
    watching.until(30.0)
    assert machine.changes[0].closed
    assert len(machine.changes) == 1
    watching.until(FULL_SECONDS)
    assert len(machine.changes) == 2
    machine.changes[1].put(CHANGE)
    assert watching.until(FULL_SECONDS + PATIENCE_SECONDS)[-1][1] == ("test_a",)


def test_without_drbd_s_tools_the_rest_goes_on(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine.stream_fails = True
    watching = Watching(machine)
    assert "drbdsetup could not be started" in capsys.readouterr().err
    machine.uevents.put(volume("test_a"))
    machine.now += GAP_SECONDS
    assert watching.turn() == ("test_a",)
    machine.stream_fails = False
    watching.until(FULL_SECONDS)
    assert len(machine.changes) == 1
    os.close(watching.watcher._doorbell)


# -- since when it is not connected ------------------------------------------------------------------


def since() -> str | None:
    return journal.remembered(LOST).get("test_a", {}).get("since")


@pytest.fixture
def hour(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    at = ["12:00"]
    monkeypatch.setattr(journal, "now", lambda: f"2026-11-22T{at[0]}:00+00:00")
    return at


def test_it_is_noted_when_the_connection_was_lost_and_when_it_came_back(
    machine: Machine, watching: Watching, hour: list[str]
) -> None:
    machine.changes[0].put("change connection name:test_a conn-name:peer connection:Connecting", LOST_LINE)
    watching.turn()
    assert since() == "2026-11-22T12:00:00+00:00"
    hour[0] = "13:00"
    machine.changes[0].put(LOST_LINE)
    watching.turn()
    assert since() == "2026-11-22T12:00:00+00:00", "the first moment counts"
    machine.changes[0].put(
        "change connection name:test_a conn-name:peer connection:Connected role:Secondary", BACK_LINE
    )
    watching.turn()
    assert since() is None
    assert [e["event"] for e in journal.events()] == ["connection-lost", "connected"]
    assert set(journal.remembered(repair.TAILS)) == {"test_a"}


def test_a_split_brain_does_not_hide_since_when_the_copies_have_gone_apart(
    machine: Machine, watching: Watching, hour: list[str]
) -> None:
    """While they compare they are Connected; that is not the end of what a person will ask for."""
    machine.changes[0].put(LOST_LINE)
    watching.turn()
    hour[0] = "13:00"
    for state in ("Connected", "Disconnecting", "StandAlone"):
        machine.changes[0].put(f"change connection name:test_a peer-node-id:0 conn-name:peer connection:{state}")
    watching.turn()
    assert since() == "2026-11-22T12:00:00+00:00"
    assert [e["event"] for e in journal.events()] == ["connection-lost"]


ATTACH_LINE = "change device name:test_a volume:0 minor:0 disk:Attaching"


@pytest.mark.parametrize("line", [ATTACH_LINE, "exists device name:test_a volume:0 minor:0 disk:UpToDate"])
def test_what_was_attached_or_was_there_when_the_listening_began_has_its_end_compared(
    line: str, machine: Machine, watching: Watching
) -> None:
    machine.changes[0].put("change device name:test_a volume:0 minor:0 disk:Consistent", LOST_LINE)
    watching.turn()
    assert not journal.remembered(repair.TAILS)
    machine.changes[0].put(line)
    watching.turn()
    assert set(journal.remembered(repair.TAILS)) == {"test_a"}


@pytest.mark.parametrize("replication", ["SyncSource", "WFBitMapT", "Ahead", "VerifyS", "Frobnicating"])
def test_whatever_two_that_are_connected_do_they_are(replication: str, machine: Machine, watching: Watching) -> None:
    machine.changes[0].put(LOST_LINE, BACK_LINE.replace("Established", replication))
    watching.turn()
    assert since() is None


def test_a_line_that_does_not_take_what_is_written_is_noted_until_the_copy_has_caught_up(
    machine: Machine, watching: Watching
) -> None:
    for state in ("Ahead", "SyncSource", "Ahead"):
        machine.changes[0].put(BACK_LINE.replace("Established", state))
    watching.turn()
    assert overload.from_entry(journal.remembered(overload.KIND)["test_a"]).overload.turns == 2
    for state in ("SyncSource", "Established"):
        machine.changes[0].put(BACK_LINE.replace("Established", state))
    watching.turn()
    assert not journal.remembered(overload.KIND)
    assert [e["event"] for e in journal.events()] == ["overload", "caught-up"]


@pytest.mark.parametrize("state", ["SyncSource", "SyncTarget", "Established"])
def test_a_resync_that_begins_or_ends_has_the_limits_looked_at_at_once(
    state: str, machine: Machine, watching: Watching
) -> None:
    before = machine.duties
    machine.changes[0].put(BACK_LINE.replace("Established", state))
    watching.turn()
    assert machine.duties == before + 1


def test_the_many_resyncs_of_an_overload_are_no_reason_to_look(machine: Machine, watching: Watching) -> None:
    machine.changes[0].put(BACK_LINE.replace("Established", "Ahead"))
    watching.turn()
    before = machine.duties
    machine.changes[0].put(
        *(BACK_LINE.replace("Established", state) for state in ("SyncSource", "Ahead", "SyncSource"))
    )
    watching.turn()
    assert machine.duties == before


def test_a_watcher_that_starts_knows_who_is_not_connected(machine: Machine, watching: Watching) -> None:
    """The listing begins with what is."""
    machine.changes[0].put(LOST_LINE.replace("change", "exists"), "exists -")
    assert watching.turn() is None
    assert since()


def test_an_outage_longer_than_the_watcher_s_life_began_when_it_began(
    machine: Machine, watching: Watching, hour: list[str]
) -> None:
    journal.remember(LOST, "test_a", {"since": "2026-11-20T00:00:00+00:00"})
    machine.changes[0].put(LOST_LINE.replace("change", "exists"))
    watching.turn()
    assert since() == "2026-11-20T00:00:00+00:00"
    assert hour == ["12:00"]


def test_a_full_disk_ends_no_watch(
    machine: Machine, watching: Watching, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(journal, "remember", full)
    machine.changes[0].put(LOST_LINE, CHANGE)
    assert watching.until(30.0) == [(PATIENCE_SECONDS, ("test_a",))]
    assert "No space left" in capsys.readouterr().err


# -- a handler rings ---------------------------------------------------------------------------------


def test_a_handler_that_rings_has_the_duties_seen_to_at_once_and_once(machine: Machine, watching: Watching) -> None:
    """An alert of a split brain does not wait for the next minute."""
    machine.now += 7.0
    before = machine.now
    for _ in range(3):
        handler.main(["pri-lost", "test_a"], {"DRBD_RESOURCE": "test_a", "DRBD_MINOR": "0"})
    assert watching.turn() is None, "the circle itself has nothing to do with it"
    assert (machine.duties, machine.now) == (2, before)
    watching.watcher.wait()
    watching.watcher.look()
    assert machine.now < watching.started + FULL_SECONDS
    assert machine.duties == 2


def test_a_ring_at_which_nobody_could_be_told_is_not_forgotten(
    machine: Machine, watching: Watching, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> list[Outcome]:
        raise OffsiteError("it is broken", "")

    monkeypatch.setattr(watch, "reconcile", broken)
    machine.now += GAP_SECONDS
    machine.uevents.put(volume("test_a"))
    doorbell.ring()
    watching.turn()
    assert machine.duties == 1
    monkeypatch.setattr(watch, "reconcile", machine.reconcile)
    watching.turn()
    assert machine.duties == 2


@pytest.mark.parametrize("before", ["nothing", "fifo", "file", "link"])
def test_the_bell_is_there_whatever_was_in_its_place(before: str, machine: Machine, root: Path) -> None:
    bell = Path(doorbell.PATH)
    bell.parent.mkdir(parents=True, exist_ok=True)
    target = root / "precious"
    target.write_text("x")
    if before == "fifo":
        os.mkfifo(bell)
    elif before == "file":
        bell.write_text("x")
    elif before == "link":
        bell.symlink_to(target)
    watching = Watching(machine)
    doorbell.ring()
    watching.turn()
    assert machine.duties == 2
    assert target.read_text() == "x"
    os.close(watching.watcher._doorbell)


# -- how a look ends ---------------------------------------------------------------------------------


def test_what_comes_without_an_event_is_looked_at_again_soon(machine: Machine, watching: Watching) -> None:
    machine.outcomes["test_a"] = Outcome("test_a", (), "asking backup", soon=True)
    machine.now += GAP_SECONDS
    machine.uevents.put(volume("test_a"))
    watching.turn()
    del machine.outcomes["test_a"]
    assert watching.until(30.0) == [(GAP_SECONDS + SOON_SECONDS, ("test_a",))]


def test_what_was_helped_is_looked_at_again_to_see_whether_it_helped(machine: Machine, watching: Watching) -> None:
    machine.outcomes["test_a"] = Outcome("test_a", ("drbdadm connect test_a",), "then waiting")
    machine.now += GAP_SECONDS
    machine.uevents.put(volume("test_a"))
    watching.turn()
    del machine.outcomes["test_a"]
    assert watching.until(50.0) == [(GAP_SECONDS + 2 * PATIENCE_SECONDS, ("test_a",))]


def test_a_failure_is_logged_and_tried_again_at_longer_and_longer_intervals(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    """No storm of commands, and no flood of lines."""
    machine.outcomes["test_a"] = Outcome("test_a", (), "x", soon=True, failed=ConfigError("it broke.", "mend it"))
    watching = Watching(machine)
    assert "test_a: it broke. mend it" in capsys.readouterr().err
    looks = watching.until(3600.0)
    assert 4 < len([names for _, names in looks if "test_a" in names]) < 15
    assert len([names for _, names in looks if "test_b" in names]) == 60, "the others are looked at as ever"
    os.close(watching.watcher._doorbell)


def test_a_resource_that_is_being_worked_on_is_no_news(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine.outcomes["test_a"] = Outcome("test_a", (), "busy", soon=True, failed=Refused("busy", ""))
    watching = Watching(machine)
    assert capsys.readouterr().err == ""
    assert [names for _, names in watching.until(30.0)] == [("test_a",)], "and it is looked at when they are done"
    os.close(watching.watcher._doorbell)


# -- the configuration -------------------------------------------------------------------------------


def test_what_is_added_to_the_configuration_is_looked_at_without_a_restart(
    machine: Machine, watching: Watching
) -> None:
    config.PATH.write_text(two().replace("[[test_b]]", "[[test_c]]"))
    assert watching.until(FULL_SECONDS) == [(FULL_SECONDS, ("test_a", "test_c"))]
    assert machine.duties == 2


@pytest.mark.parametrize("text", ["[site]\nnonsense", "[site]\nflavour = judge", ""])
def test_with_a_mistake_in_the_configuration_what_is_served_goes_on_and_it_is_said_once(
    text: str, machine: Machine, watching: Watching, capsys: pytest.CaptureFixture[str]
) -> None:
    config.PATH.write_text(text)
    looks = watching.until(3 * FULL_SECONDS)
    assert [names for _, names in looks] == [("test_a", "test_b")] * 3
    assert machine.duties == 4
    said = capsys.readouterr().err
    assert str(config.PATH) in said
    assert said.count("Nothing was applied") == 1
    config.PATH.write_text(two())
    watching.until(4 * FULL_SECONDS)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("text", [None, "[site]\nnonsense"])
def test_before_there_is_a_configuration_it_waits_for_one_and_asks_nothing(text: str | None, machine: Machine) -> None:
    if text is None:
        config.PATH.unlink()
    else:
        config.PATH.write_text(text)
    watching = Watching(machine)
    machine.uevents.put(volume("test_a"))
    address(machine, "tunnel-gets-its-address")
    watching.until(10 * FULL_SECONDS)
    assert machine.looks == []
    assert machine.duties == 0
    config.PATH.write_text(two())
    started = machine.now
    watching.until(started + FULL_SECONDS - watching.started)
    assert machine.looks
    os.close(watching.watcher._doorbell)


def test_before_there_is_a_configuration_it_does_not_spin(machine: Machine) -> None:
    """What it has heard stays unread, and would wake it again and again."""
    config.PATH.unlink()
    watching = Watching(machine)
    machine.uevents.put(volume("test_a"))
    before = machine.now
    for _ in range(20):
        watching.turn()
    assert machine.now - before >= 20.0
    os.close(watching.watcher._doorbell)


# -- as a service ------------------------------------------------------------------------------------


def test_systemd_is_told_that_it_listens_and_then_that_it_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    class Brief:
        def __init__(self) -> None:
            said.append("listening")

        def wait(self) -> None:
            if said.count("looked") == 2:
                raise SystemExit(0)

        def look(self) -> None:
            said.append("looked")

    monkeypatch.setattr(watch, "Watcher", Brief)
    monkeypatch.setattr(watch, "notify", said.append)
    with pytest.raises(SystemExit):
        watch.watch()
    assert said == ["listening", "READY=1", *["looked", "WATCHDOG=1"] * 2], (
        "and what has appeared has not to wait for that"
    )


@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_is_told(abstract: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"@drbd-offsite-test-{tmp_path}"[:100] if abstract else str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
        line.bind("\0" + name[1:] if abstract else name)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        notify("READY=1")
        assert line.recv(100) == b"READY=1"


def test_without_systemd_nobody_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify("READY=1")


def test_the_kernel_s_news_of_addresses_can_be_heard() -> None:
    try:
        news = watch._address_news()
    except PermissionError:
        pytest.skip("no netlink in this sandbox")
    with news, pytest.raises(BlockingIOError):
        news.recv(1)


IN_A_DESTRUCTOR = """
import time
from drbd_offsite import watch

class Busy:
    def __del__(self):
        print("there", flush=True)
        time.sleep(600)

class Watcher:
    def wait(self):
        Busy()
    def look(self):
        pass

watch.Watcher = Watcher
watch.watch()
"""


def test_sigterm_ends_it_in_a_destructor_too() -> None:
    """Where an exception out of a signal handler is printed and forgotten: a lab's log had the traceback."""
    watcher = subprocess.Popen(
        [sys.executable, "-c", IN_A_DESTRUCTOR],
        stdout=subprocess.PIPE,
        env={"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    with watcher:
        try:
            assert watcher.stdout
            assert watcher.stdout.readline() == b"there\n"
            watcher.terminate()
            assert watcher.wait(60) == -signal.SIGTERM
        finally:
            watcher.kill()
