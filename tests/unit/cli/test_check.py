"""``check`` as a monitor sees it: the first line, and the exit code."""

import re
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drbd_offsite import config
from drbd_offsite.cli import check, manual
from drbd_offsite.cli.check import State, judge
from drbd_offsite.model import Flavour, Site
from drbd_offsite.observed import ConnectionState, DiskState, Forbidden, Host, ReplicationState
from drbd_offsite.plan.assess import Level

from .. import make
from ..conftest import Programs
from .conftest import Command
from .test_manual import chapter, plain

WELL = make.host(drbd=[make.well(Flavour.SERVER)])
FIGURE = re.compile(r"[\w.-]+=\d+(s|B);\d*;\d*;0")


class Machine:
    """What the next look sees."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.host = WELL
        self.old(seconds=4)
        monkeypatch.setattr(check, "observe", self._observe)

    def old(self, **span: float) -> None:
        """So old is the copy."""
        self.host = replace(self.host, ages={"test_a": timedelta(**span).total_seconds()})

    def sees(self, **changes: object) -> None:
        self.host = replace(self.host, **changes)

    def _observe(self, site: Site) -> Host:
        assert site.resources
        return self.host


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    config.PATH.write_text(make.CONFIG)
    return Machine(monkeypatch)


def drbd(**changes: object) -> dict[str, object]:
    return {"test_a": make.seen(**changes)}


def test_all_is_well(command: Command, machine: Machine) -> None:
    del machine
    said = command("check")
    first, *more = said.out.splitlines()
    assert re.fullmatch(
        r"OK: test_a is ok, the copy is [45] s old \| test_a_age=[45]s;300;3600;0 test_a_out_of_sync=0B;;;0", first
    )
    assert more == ["test_a: Both copies are up to date; every write is replicated."]
    assert said.code == State.OK == 0


AWAY = {"state": ConnectionState.CONNECTING, "replication": ReplicationState.OFF, "peer_disk": DiskState.UNKNOWN}
SYNC = {"replication": ReplicationState.SYNC_SOURCE, "peer_disk": DiskState.INCONSISTENT, "out_of_sync_bytes": 4096}


@pytest.mark.parametrize(
    ("changes", "age", "state"),
    [
        ({}, 301, State.WARNING),
        ({}, 3700, State.CRITICAL),
        (SYNC, 4, State.OK),
        (SYNC, 310, State.WARNING),
        (SYNC, 86400, State.WARNING),
        (AWAY, 4, State.WARNING),
        (AWAY, 310, State.WARNING),
        (AWAY, 3700, State.CRITICAL),
        ({"disk": DiskState.FAILED}, 4, State.CRITICAL),
    ],
)
def test_the_state_is_by_the_level_and_by_the_age_of_the_copy(
    changes: dict[str, object], age: float, state: State, command: Command, machine: Machine
) -> None:
    machine.sees(drbd=drbd(**changes))
    machine.old(seconds=age)
    said = command("check")
    assert said.out.startswith(f"{state.name}: test_a is ")
    assert said.code == state


def test_the_limits_are_the_admin_s(command: Command, machine: Machine) -> None:
    machine.old(seconds=100)
    assert command("check", "--warning", "60").code == State.WARNING
    said = command("check", "--warning", "30", "--critical", "60", "test_a")
    assert said.code == State.CRITICAL
    assert re.search(r"test_a_age=10[01]s;30;60;0", said.out)


def test_an_age_that_is_not_known_is_no_good_one(command: Command, machine: Machine) -> None:
    machine.sees(ages={})
    said = command("check")
    assert said.out.startswith("WARNING: test_a is ok, how old the copy is is not known | test_a_out_of_sync=0B;;;0\n")
    assert said.code == State.WARNING


def test_what_a_person_has_had_held_is_a_warning(command: Command, machine: Machine) -> None:
    machine.sees(drbd=drbd(**AWAY), holds=make.hold(Forbidden.CONNECT, set_by="disconnect", reason="noon | or\nlater"))
    machine.old(days=2)
    said = command("check")
    assert said.code == State.WARNING
    assert said.out.count("|") == 1, "the bar begins the figures"
    assert "\ntest_a: Noon / or later (since " in said.out


def test_an_unfinished_command_is_as_bad_as_status_has_it(command: Command, machine: Machine) -> None:
    machine.sees(operations={"join-server": make.operation("join", {}, "server")})
    said = command("check", "test_a")
    assert said.code == State.CRITICAL
    assert said.out.startswith("CRITICAL: server: join was begun at ")


def test_a_note_that_cannot_be_understood_is_not_passed_over(command: Command, machine: Machine) -> None:
    machine.sees(problems=("x.json cannot be understood",))
    said = command("check")
    assert said.out.startswith("CRITICAL: Cannot see everything: x.json cannot be understood; test_a is ok")


def test_who_sees_nothing_does_not_know(command: Command, machine: Machine) -> None:
    machine.sees(drbd={}, blind=True, problems=("drbdsetup failed.",))
    said = command("check")
    assert re.match(r"UNKNOWN: Cannot see everything: drbdsetup failed. \| test_a_age=[45]s;300;3600;0\n", said.out)
    assert said.code == State.UNKNOWN == 3


def test_a_machine_that_is_not_configured_is_unknown(command: Command) -> None:
    said = command("check")
    assert re.fullmatch(r"UNKNOWN: .* not configured yet.* dpkg-reconfigure .*\n", said.out)
    assert said.code == State.UNKNOWN


def test_a_configuration_with_a_mistake_is_unknown(command: Command) -> None:
    config.PATH.write_text(make.CONFIG.replace("link_speed = 100", "link_speed = fast"))
    said = command("check")
    assert re.fullmatch(r"UNKNOWN: .*link_speed = fast: not a whole number.*\n", said.out)
    assert said.code == State.UNKNOWN


def test_where_nothing_is_replicated_yet_nothing_can_be_well(
    command: Command, programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    del programs
    config.PATH.write_text(make.CONFIG.partition("  [[test_a]]")[0])
    monkeypatch.setattr(check, "observe", lambda _: make.host())
    assert command("check").out == "UNKNOWN: No volume is replicated yet.\n"


def test_a_resource_that_is_not_there_is_unknown(command: Command, machine: Machine) -> None:
    """It may have been renamed; 2, the code of other verbs, would call it critical."""
    del machine
    said = command("check", "test_b")
    assert said.out == "UNKNOWN: There is no resource test_b. Configured: test_a.\n"
    assert said.code == State.UNKNOWN


def test_the_worst_comes_first(command: Command, machine: Machine) -> None:
    from ..test_config import two

    del machine
    config.PATH.write_text(two())
    said = command("check")
    assert said.out.startswith("CRITICAL: test_b is broken, how old the copy is is not known; test_a is ok, ")
    assert command("check", "test_a").code == State.OK


def test_figures_are_as_monitors_read_them(command: Command, machine: Machine) -> None:
    machine.sees(drbd=drbd(**SYNC))
    _, bar, figures = command("check").out.splitlines()[0].partition(" | ")
    assert bar
    assert len(figures.split()) == 2
    assert all(FIGURE.fullmatch(figure) for figure in figures.split())
    assert "test_a_out_of_sync=4096B" in figures


def test_a_full_disk_says_nothing_of_the_data(
    command: Command, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    del machine

    def failing(_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(check, "observe", failing)
    said = command("check")
    assert said.out.startswith("UNKNOWN: [Errno 5] Input/output error")
    assert said.code == State.UNKNOWN


@given(st.sampled_from(Level), st.none() | st.floats(0, 1e9))
def test_the_worse_never_looks_the_better(level: Level, age: float | None) -> None:
    now = judge(level, age, 300, 3600)
    assert now is not State.UNKNOWN
    if level not in (Level.OK, Level.CATCHING_UP):
        assert now >= State.WARNING
    if age is not None:
        assert judge(level, age * 2, 300, 3600) >= now


def test_nothing_is_asked_of_lvm_or_of_the_peer(command: Command, programs: Programs) -> None:
    """It is run every minute by a monitor."""
    config.PATH.write_text(make.CONFIG)
    said = command("check")
    assert said.code == State.CRITICAL, "it is not up"
    assert programs.ran == []


@pytest.mark.parametrize("state", State)
def test_each_exit_code_is_in_the_page(state: State) -> None:
    section = chapter(plain(manual.made("2026-11-22", "0.1.0")["drbd-offsite.8"]), "check", "SS")
    assert f".B {int(state)}\n.BR {state.name} :" in section
