"""``doctor`` from its programs to its words; what it makes of them is in plan/test_examine*.py."""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from drbd_offsite import alert, hooks, journal, keys, messages
from drbd_offsite.cli import doctor
from drbd_offsite.errors import ExitCode
from drbd_offsite.operations import repair
from drbd_offsite.plan import measure
from drbd_offsite.plan.findings import Cause, Check, Findings, as_entry
from drbd_offsite.tools import drbd, lvm, lvm_filter

from .. import make
from ..conftest import Answer, Programs
from ..operations.test_half import THERE
from ..operations.world import World
from ..test_alert import program
from .conftest import Command

Tune = Callable[..., None]

LVM = 'filter=["a|.*|"]\nglobal_filter=["a|.*|"]\nuse_devicesfile=1\ndevicesfile="system.devices"\n'
DATA = Path(__file__).parents[2] / "data"
DIFFERS = (DATA / "drbdadm/adjust-differs.txt").read_text()
NOTHING = Answer()
USED = (DATA / "drbdmeta/used.txt").read_text()
GREETING = messages.Greeting("backup", "backup", "8.4.11", "")


@pytest.fixture
def tune(programs: Programs, server: World, root: Path, monkeypatch: pytest.MonkeyPatch) -> Tune:
    """Let the doctor's programs run: on a machine that is well, but for what the test says."""
    handler = program(root / "lib/handler")
    handler.write_text(f"#!{sys.executable} -IS\n")
    monkeypatch.setattr(doctor, "HANDLER", str(handler))
    monkeypatch.setattr(doctor, "TOP", root / "lib")
    monkeypatch.setattr(doctor, "OWNERS", {os.getuid()})
    monkeypatch.setattr(doctor, "ETC", root / "etc")
    monkeypatch.setattr(doctor, "USERMODE_HELPER", root / "usermode_helper")
    monkeypatch.setattr(doctor, "LVM_DEVICES_FILES", root)
    monkeypatch.setattr(hooks, "OWNER", os.getuid())
    program(alert.SENDMAIL)
    (keys.ROOT / "backup/peer_ssh.pub").write_text(make.SSH_KEY)
    for key in keys.ROOT.rglob("*.secret"):
        key.chmod(0o600)

    def allow(
        states: str = "active",
        ping: int = 0,
        ahead: int = 0,
        lvmconfig: str = LVM,
        adjust: Answer = NOTHING,
        at_boot: Callable[[str], str] = lambda unit: "disabled" if unit == "drbd.service" else "enabled",
    ) -> None:
        def machine(argv: tuple[str, ...], stdin: str) -> Answer | None:
            if "is-active" in argv:
                return Answer("\n".join([states] * (len(argv) - 3)) + "\n" if states else "", 3)
            if "is-enabled" in argv and "--quiet" not in argv:
                return Answer("".join(f"{word}\n" for unit in argv[3:] if (word := at_boot(unit))), 1)
            if argv[0] == "ping":
                return Answer("", ping)
            if argv[0] == "drbdmeta":
                assert argv[1] != "0", "that minor is test_a's"
                return Answer(USED) if argv[4] == "2" else Answer("", 1)
            return server.answer(argv, stdin)

        def greet(request: messages.Request) -> messages.Greeting:
            assert request == messages.Hello()
            return replace(GREETING, now=(datetime.now(UTC) + timedelta(seconds=ahead)).isoformat())

        server.peer = greet
        programs.machine = machine
        programs.allow(("drbdadm", "--version"), "DRBDADM_VERSION=9.22.0\n")
        programs.allow(("openvpn", "--version"), Answer("OpenVPN 2.6.14 x86_64-pc-linux-gnu\n", 1))
        programs.allow(lvm_filter.EFFECTIVE, lvmconfig)
        programs.allow(drbd.DRY_ADJUST, adjust)

    return allow


@pytest.fixture
def enrolled(command: Command, server: World, tune: Tune) -> World:
    """A server that is well, with its module loaded and nothing replicated."""
    server.machine.module = True
    server.publish()
    command("render")
    tune()
    return server


@pytest.fixture
def replicated(command: Command, server: World, tune: Tune) -> World:
    server.peer = lambda _: messages.Replicated(messages.Half.of(THERE), make.GIB)
    assert command("add", "local/test_a", "--no-wait").code == ExitCode.DONE
    tune()
    return server


def test_a_machine_that_is_well_has_one_sentence_and_no_failure(command: Command, enrolled: World) -> None:
    del enrolled
    said = command("doctor")
    assert (said.out, said.code) == ("Everything that was checked is as it must be.\n", ExitCode.DONE)
    assert json.loads(command("doctor", "--json").out) == []


@pytest.mark.parametrize(
    ("well", "expected", "severity"),
    [
        ({"states": "inactive"}, "does not run", "fault"),
        ({"states": ""}, "does not run", "fault"),
        ({"ping": 1}, "does not answer", "fault"),
        ({"ahead": 300}, "The clock of backup is 5 min ahead", "warning"),
        ({"ahead": -90}, "The clock of backup is 90 s behind", "warning"),
        ({"lvmconfig": "oops"}, "lvmconfig does not say", "fault"),
    ],
)
def test_what_is_wrong_is_said_with_a_remedy_and_an_exit_code(
    command: Command, enrolled: World, tune: Tune, well: dict[str, object], expected: str, severity: str
) -> None:
    del enrolled
    tune(**well)
    said = command("doctor")
    assert said.code == (ExitCode.FAILED if severity == "fault" else ExitCode.WARNED)
    assert expected in said.out
    assert all(line.startswith((f"- {severity}: ", "  ")) for line in said.out.splitlines())
    for finding in json.loads(command("doctor", "--json").out):
        assert list(finding) == ["severity", "what", "remedy"]
        assert finding["severity"] == severity


def test_a_peer_that_is_away_is_not_asked(command: Command, enrolled: World, tune: Tune, programs: Programs) -> None:
    del enrolled
    tune(ping=1)
    programs.ran.clear()
    command("doctor")
    assert "ssh" not in [argv[0] for argv in programs.ran]


def test_a_peer_that_does_not_answer_requests_is_told_of(command: Command, enrolled: World, programs: Programs) -> None:
    usual = programs.machine
    closed = Answer("", 255, "Connection refused")
    programs.machine = lambda argv, stdin: closed if argv[0] == "ssh" else usual(argv, stdin)
    said = command("doctor")
    assert "a request was not answered" in said.out
    assert "Connection refused" in said.out
    assert "drbd-offsite-peer.socket" in said.out
    assert enrolled.machine.log == []


@pytest.mark.parametrize(
    ("unit", "state"),
    [
        ("drbd-offsite-tunnel.service", "disabled"),
        ("drbd-offsite-watch.service", "masked"),
        ("drbd-offsite-peer.socket", "enabled-runtime"),
    ],
)
def test_what_the_next_boot_would_not_start_is_a_warning(
    command: Command, enrolled: World, tune: Tune, unit: str, state: str
) -> None:
    """It runs, so nobody notices before."""
    del enrolled
    tune(at_boot=lambda asked: {unit: state, "drbd.service": "disabled"}.get(asked, "enabled"))
    said = command("doctor")
    assert said.code == ExitCode.WARNED
    assert said.out.startswith(f"- warning: {unit} is not enabled")
    assert said.out.count("- warning") == 1


@pytest.mark.parametrize(("state", "told"), [("enabled", True), ("disabled", False), ("", False)])
def test_drbd_utils_own_unit_must_not_bring_up_what_is_held(
    command: Command, enrolled: World, tune: Tune, state: str, told: bool
) -> None:
    """Nothing is printed for a unit that is not there."""
    del enrolled
    tune(at_boot=lambda unit: state if unit == "drbd.service" else "enabled")
    said = command("doctor")
    assert ("drbd.service is enabled" in said.out) is told
    assert said.code == (ExitCode.WARNED if told else ExitCode.DONE)


def test_a_peer_whose_key_is_not_here_is_not_asked_and_to_be_invited(
    command: Command, enrolled: World, programs: Programs
) -> None:
    del enrolled
    (keys.ROOT / "backup/peer_ssh.pub").unlink()
    programs.ran.clear()
    said = command("doctor")
    assert "drbd-offsite invite" in said.out
    assert "peer.socket" not in said.out
    assert "ssh" not in [argv[0] for argv in programs.ran]


def test_keys_that_others_can_read_are_named(command: Command, enrolled: World) -> None:
    del enrolled
    secret = keys.ROOT / "backup/drbd.secret"
    secret.chmod(0o644)
    assert f"{secret} can be read by others" in command("doctor").out


def test_a_key_of_another_owner_can_be_read_by_him(
    command: Command, enrolled: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    del enrolled
    monkeypatch.setattr(doctor, "OWNERS", {os.getuid() + 1})
    secret = keys.ROOT / "backup/drbd.secret"
    said = command("doctor").out
    assert f"{secret} can be read by others" in said
    assert f"chown root {secret}; chmod go= {secret}" in said


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (f'common {{ net {{ shared-secret "{make.SECRET}"; }} }}\n', True),
        (f'common {{\n  net {{\n    # shared-secret "{make.SECRET}";\n  }}\n}}\n', False),
        ("common {\n}\n", False),
    ],
)
def test_a_secret_in_a_file_of_drbd_s_that_all_can_read_is_told_of_and_not_shown(
    command: Command, enrolled: World, text: str, told: bool
) -> None:
    """As drbd-utils ships it global_common.conf can be read by all."""
    common = enrolled.root / "etc/drbd.d/global_common.conf"
    common.parent.mkdir(parents=True, exist_ok=True)
    common.write_text(text)
    common.chmod(0o644)
    said = command("doctor").out
    assert (f"{common} can be read by others than root" in said) is told
    assert make.SECRET not in said


# -- what the kernel calls -------------------------------------------------------------------------


def test_drbdadm_is_what_the_kernel_has_to_call(command: Command, enrolled: World) -> None:
    drbdadm = program(enrolled.root / "sbin/drbdadm")
    (enrolled.root / "usermode_helper").write_text(f"{drbdadm}\n")
    assert command("doctor").code == ExitCode.DONE


@pytest.mark.parametrize("helper", ["/bin/true", "disabled", "", "/nowhere/drbdadm", "{drbdadm}\n"])
def test_a_kernel_that_calls_something_else_runs_no_handler(command: Command, enrolled: World, helper: str) -> None:
    """The last one is what echo leaves behind: the line break belongs to the name."""
    drbdadm = program(enrolled.root / "sbin/drbdadm")
    (enrolled.root / "usermode_helper").write_text(helper.format(drbdadm=drbdadm) + "\n")
    said = command("doctor")
    assert said.code == ExitCode.FAILED
    assert "and not drbdadm. So no handler is run" in said.out
    assert "printf /sbin/drbdadm >" in said.out


@pytest.mark.parametrize("first", ["#!/nowhere/python3 -IS", "#!", "import sys", None])
def test_a_handler_without_its_interpreter_cannot_be_executed(
    command: Command, enrolled: World, first: str | None
) -> None:
    handler = enrolled.root / "lib/handler"
    handler.unlink() if first is None else handler.write_text(f"{first}\n")
    said = command("doctor")
    assert said.code == ExitCode.FAILED
    assert "handler that the kernel calls cannot be executed" in said.out


def test_a_handler_that_is_no_program_cannot_be_executed(command: Command, enrolled: World) -> None:
    (enrolled.root / "lib/handler").chmod(0o644)
    assert "handler that the kernel calls cannot be executed" in command("doctor").out


@pytest.mark.parametrize("place", ["lib", "lib/handler"])
def test_whoever_may_change_the_handler_or_a_directory_above_it_is_root(
    command: Command, enrolled: World, place: str
) -> None:
    (enrolled.root / place).chmod(0o775)
    said = command("doctor")
    assert said.code == ExitCode.FAILED
    assert f"Others than root may change {enrolled.root / place}," in said.out
    assert said.out.count("- fault") == 1
    (enrolled.root / place).chmod(0o755)
    assert command("doctor").code == ExitCode.DONE


def test_a_script_that_a_failover_would_refuse_is_told_of_before_the_worst_day(
    command: Command, enrolled: World
) -> None:
    del enrolled
    path = program(alert.SETTINGS / "failover.d/address", 0o775)
    said = command("doctor")
    assert said.code == ExitCode.WARNED
    assert f"{path} will not be run: others than root may write to {path}" in said.out
    path.chmod(0o755)
    assert command("doctor").code == ExitCode.DONE


# -- with a resource -------------------------------------------------------------------------------


def found(command: Command) -> dict[str, str]:
    """What was found, each with its severity."""
    return {finding["what"]: finding["severity"] for finding in json.loads(command("doctor", "--json").out)}


def test_what_runs_otherwise_is_told_and_no_secret_with_it(command: Command, replicated: World, tune: Tune) -> None:
    del replicated
    tune(adjust=Answer(DIFFERS))
    said = command("doctor", "-v")
    assert "test_a runs with other disk options and other network options" in said.out
    assert make.SECRET in DIFFERS
    assert make.SECRET not in said.out + said.err


def test_the_rate_of_a_slice_that_runs_is_nobody_s_change(command: Command, replicated: World, tune: Tune) -> None:
    del replicated
    check = Check("2026-11-22T01:00:00+00:00", 0, 80000, cause=Cause.SLICE)
    journal.remember(repair.KIND, "test_a", as_entry(Findings(check=check)))
    tune(adjust=Answer(DIFFERS))
    assert "test_a runs with other network options" in command("doctor").out


def test_files_that_drbdadm_refuses_are_a_fault_and_not_quoted(command: Command, replicated: World, tune: Tune) -> None:
    del replicated
    tune(adjust=Answer("", 10, f"test.res:29: Parse error: ';' expected, but got '{make.SECRET}'"))
    said = command("doctor")
    assert "fault: drbdadm refuses what is in /etc/drbd.d" in said.out
    assert make.SECRET not in said.out + said.err


def test_drbdadm_is_not_asked_where_nothing_can_run(command: Command, enrolled: World, programs: Programs) -> None:
    del enrolled
    programs.ran.clear()
    command("doctor")
    assert drbd.DRY_ADJUST not in programs.ran


def test_what_was_measured_last_is_held_against_what_is_configured(command: Command, enrolled: World) -> None:
    del enrolled
    journal.remember(measure.KIND, "backup", asdict(measure.Measured(journal.now(), 7.4, 41.0, 0.04)))
    said = command("doctor")
    assert said.code == ExitCode.WARNED
    assert "the slower direction carried 7.4 Mbit/s" in said.out
    journal.remember(measure.KIND, "backup", {"what": "is this"})
    assert command("doctor").code == ExitCode.DONE


def test_lvm_is_to_be_kept_off_the_devices_unless_a_devices_file_does(
    command: Command, replicated: World, root: Path
) -> None:
    del replicated
    (what,) = (what for what in found(command) if "LVM's commands read" in what)
    assert found(command)[what] == "note"
    (root / "system.devices").touch()
    assert what not in found(command)


def test_the_worst_comes_first_and_notes_alone_are_no_failure(
    command: Command, replicated: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    del replicated
    severities = list(found(command).values())
    assert severities == sorted(severities, key=["fault", "warning", "note"].index)
    assert {severities[0], severities[-1]} == {"fault", "note"}
    everything = doctor.examine
    only_notes = lambda *given: (f for f in everything(*given) if f.severity is doctor.Severity.NOTE)  # noqa: E731
    monkeypatch.setattr(doctor, "examine", only_notes)
    said = command("doctor")
    assert said.code == ExitCode.DONE
    assert said.out.startswith("Everything that was checked is as it must be. Good to know:\n- note: ")


def test_metadata_left_in_a_slot_is_found_by_a_program_for_each_free_slot(
    command: Command, replicated: World, programs: Programs
) -> None:
    replicated.machine.volumes[make.replica().metadata.volume] = 3 * 128 * make.MIB
    programs.ran.clear()
    (what,) = (what for what in found(command) if "no resource here owns it" in what)
    assert what.startswith("local/drbd_meta[2] holds DRBD metadata (current generation 5F7F17C0C8E5C6D9)")
    asked = [argv[4] for argv in programs.ran if argv[0] == "drbdmeta"]
    assert asked == ["1", "2"]


def test_nothing_but_looks_is_run(command: Command, replicated: World, programs: Programs) -> None:
    programs.ran.clear()
    replicated.machine.log.clear()
    before = journal.events()
    command("doctor")
    looks = {
        lvm.REPORT, drbd.EVENTS, drbd.DRY_ADJUST, lvm_filter.EFFECTIVE,
        ("drbdadm", "--version"), ("openvpn", "--version"),
    }  # fmt: skip
    others = [argv for argv in programs.ran if argv not in looks]
    assert {argv[0] for argv in others} <= {"systemctl", "ping", "ssh"}
    assert len(programs.ran) == len(looks) + 4
    assert replicated.machine.log == []
    assert journal.events() == before
