import json
import re
import time
from datetime import UTC, datetime, timedelta

import pytest

from drbd_offsite import config, host, journal
from drbd_offsite.cli import status
from drbd_offsite.cli.progress import describe
from drbd_offsite.errors import ExitCode
from drbd_offsite.observed import ConnectionState, DiskState, Forbidden, Progress, ReplicationState, Role
from drbd_offsite.plan import slices
from drbd_offsite.plan.assess import assess
from drbd_offsite.remembered import Round

from .. import make
from ..conftest import Programs
from ..operations.world import World
from .conftest import Command

TOP = {
    "schema": int, "hostname": str, "flavour": str, "drbd_version": str, "problems": list,
    "line_share_percent": int, "peers": list,
    "operations": list, "resources": list,
}  # fmt: skip
PEER = {
    "name": str, "hostname": str, "tunnel": str, "device": str, "address_here": str, "address_there": str, "up": bool,
}  # fmt: skip
NOTHING = type(None)
RESOURCE = {
    "name": str, "level": str, "sentences": list, "volume": str, "device": str, "peer": str,
    "role": str | NOTHING, "peer_role": str | NOTHING, "disk": str | NOTHING, "peer_disk": str | NOTHING,
    "connection": str | NOTHING, "replication": str | NOTHING, "out_of_sync_bytes": int | NOTHING,
    "done_percent": float | NOTHING, "speed_bytes": int | NOTHING, "finish_seconds": int | NOTHING,
    "holds": list,
}  # fmt: skip
"""Schema 1: programs rely on it, so nothing here may go away or change its type. More may come."""


def fits(value: dict[str, object], schema: dict[str, object]) -> None:
    for key, kind in schema.items():
        assert key in value
        assert isinstance(value[key], kind), key


@pytest.fixture
def replicated(server: World) -> World:
    """The configuration says that test_a is replicated, and the kernel does it."""
    config.PATH.write_text(make.CONFIG)
    server.machine.config = make.CONFIG
    from ..plan.machine import Kernel

    server.machine.kernel = Kernel(0, attached=True, primary=True, connected=True)
    server.machine.synced = True
    server.publish()
    return server


def test_json_of_an_empty_server(command: Command, server: World) -> None:
    del server
    said = command("status", "--json")
    found = json.loads(said.out)
    fits(found, TOP)
    assert found["schema"] == 1
    assert found["flavour"] == "server"
    fits(found["peers"][0], PEER)
    assert said.code == ExitCode.DONE


def test_json_of_a_resource(command: Command, replicated: World) -> None:
    del replicated
    found = json.loads(command("status", "--json").out)
    (resource,) = found["resources"]
    fits(resource, RESOURCE)
    assert (resource["role"], resource["disk"], resource["connection"]) == ("Primary", "UpToDate", "Connecting")
    assert resource["level"] == "unprotected"


def test_json_of_a_resource_that_is_not_up(command: Command, replicated: World) -> None:
    replicated.machine.kernel = None
    said = command("status", "--json")
    (resource,) = json.loads(said.out)["resources"]
    fits(resource, RESOURCE)
    assert resource["role"] is None
    assert said.code == ExitCode.FAILED


def test_json_of_holds_and_operations(command: Command, replicated: World) -> None:
    del replicated
    journal.hold("test_a", "split brain", frozenset({Forbidden.CONNECT}), "split-brain")
    journal.hold("test_a", "there was no room", frozenset(), "restore-point")
    found = json.loads(command("status", "--json").out)
    holds = {hold["set_by"]: hold for hold in found["resources"][0]["holds"]}
    assert all(hold.pop("since").endswith("+00:00") for hold in holds.values())
    assert holds == {
        "split-brain": {"reason": "split brain", "forbids": ["connect"], "set_by": "split-brain"},
        "restore-point": {"reason": "there was no room", "forbids": [], "set_by": "restore-point"},
    }
    journal.begin("join", "server", {})
    said = command("status", "--json")
    assert json.loads(said.out)["operations"][0]["verb"] == "join"
    assert said.code == ExitCode.FAILED


def test_text_says_what_each_copy_is_worth(command: Command, replicated: World) -> None:
    del replicated
    said = command("status")
    assert re.search(r"^test_a: Waiting for backup", said.out, re.MULTILINE)
    assert "copy here   local/test_a, Primary: up to date (UpToDate)" in said.out
    assert "not visible from here (DUnknown)" in said.out
    assert "use it as   /dev/drbd/by-res/test_a/0" in said.out
    assert said.code == ExitCode.PEER_UNREACHABLE


def test_text_of_an_empty_server_says_what_to_do_next(command: Command, server: World) -> None:
    del server
    assert "No volume is replicated yet: drbd-offsite add /dev/GROUP/VOLUME" in command("status").out


def test_the_worst_comes_first(command: Command, replicated: World) -> None:
    from ..test_config import two

    config.PATH.write_text(two())
    replicated.machine.config = two()
    out = command("status").out
    assert out.index("test_b: It is not up") < out.index("test_a: Waiting")


def test_what_cannot_be_seen_is_said_and_is_an_error(command: Command, replicated: World) -> None:
    from drbd_offsite.tools import drbd

    look = replicated._look
    from ..conftest import Answer

    replicated._look = lambda argv: Answer("", 20, "no netlink") if argv == drbd.EVENTS else look(argv)
    said = command("status")
    assert "Cannot see everything: drbdsetup events2" in said.out
    assert said.code == ExitCode.FAILED


def test_status_does_not_ask_lvm(command: Command, replicated: World, programs: Programs) -> None:
    """It is run every minute by a monitor, and a scan of every disk may hang with one of them."""
    del replicated
    command("status")
    assert {argv[0] for argv in programs.ran} == {"drbdsetup"}


def test_no_secret_is_shown(command: Command, replicated: World) -> None:
    del replicated
    for words in (["status"], ["status", "--json"], ["render", "--diff"], ["events"], ["plan"]):
        said = command(*words)
        assert make.SECRET not in said.out + said.err


def test_a_machine_without_the_module_can_be_asked(command: Command, replicated: World) -> None:
    replicated.machine.module, replicated.machine.kernel = False, None
    replicated.publish()
    assert host.PROC_DRBD.read_text() == ""
    assert json.loads(command("status", "--json").out)["drbd_version"] == ""


def test_how_far_a_copy_is_behind_is_said_and_costs_nothing(
    command: Command, replicated: World, programs: Programs
) -> None:
    looks = [[time.time() - 100, 5 * 2**20], [time.time() - 40, 0]]
    averages = [100.0, 200.0, None, 400.0]
    entry = {"at": time.time() - 40, "serving": True, "connected": False, "looks": looks, "averages": averages}
    journal.remember(journal.HISTORY, "test_a", entry)
    journal.remember(host.COMPLETE, "backup", {"test_a": (datetime.now(UTC) - timedelta(hours=3)).isoformat()})
    assert "  pace        Not connected: nothing is outstanding. The copy has everything up to 3 h 0 min ago.\n" in (
        command("status").out
    )
    (resource,) = json.loads(command("status", "--json").out)["resources"]
    pace = resource["pace"]
    assert 10800 <= pace.pop("age_seconds") < 10900
    assert pace.pop("drained") == pytest.approx(5 * 2**20 / 60)
    assert pace == {
        "verdict": "not connected",
        "sentence": "Not connected: nothing is outstanding. The copy has everything up to 3 h 0 min ago.",
        "outstanding_bytes": 0,
        "written_minute": 100.0,
        "written_hour": 200.0,
        "written_day": None,
        "carried": 400.0,
        "eta_seconds": None,
    }
    assert {argv[0] for argv in programs.ran} == {"drbdsetup"}
    replicated.machine.kernel = None
    (resource,) = json.loads(command("status", "--json").out)["resources"]
    assert resource["pace"] is None


def test_nothing_is_said_of_the_pace_of_what_is_up_to_date() -> None:
    site = make.site()
    assessment = assess(site, make.host(drbd=[make.seen()]), site.resources["test_a"])
    assert "pace" not in status.as_text(site, make.host(drbd=[make.seen()]), [assessment])
    behind = make.host(drbd=[make.seen()], ages={"test_a": 90.0})
    assert "  pace        What is written is sent at once." in status.as_text(site, behind, [assessment])


SYNC = {"replication": ReplicationState.SYNC_SOURCE, "peer_disk": DiskState.INCONSISTENT, "out_of_sync_bytes": 2**28}


@pytest.mark.parametrize(
    ("seen", "words", "finished"),
    [
        (None, "not up", True),
        (make.seen(state=None), "not connected", True),
        (make.seen(state=ConnectionState.STANDALONE, peer_disk=DiskState.UNKNOWN), "not connected", True),
        (make.seen(), "both copies are up to date", True),
        (make.seen(**SYNC), "256 MiB left", False),
        (make.seen(**SYNC | {"replication": ReplicationState.PAUSED_SYNC_SOURCE}), "256 MiB left", False),
        (make.seen(peer_disk=DiskState.INCONSISTENT), "the backup's copy is Inconsistent", False),
        (make.seen(replication=ReplicationState("Frobnicating"), peer_disk=DiskState("Odd")), "Frobnicating", False),
    ],
)
def test_a_sync_s_line_and_whether_there_is_more_to_wait_for(seen: object, words: str, finished: bool) -> None:
    line, done = describe(seen, None)
    assert words in line
    assert done is finished


def test_a_bar_shows_share_rest_rate_and_time() -> None:
    line, _ = describe(make.seen(**SYNC), Progress(50.0, 2 * 2**20, 3725))
    assert line == "[===============               ]  50.0%, 256 MiB left, 2.0 MiB/s, 1:02:05 to go"


@pytest.mark.parametrize("percent", [-5.0, 0.0, 100.0, 250.0])
def test_a_bar_stays_a_bar(percent: float) -> None:
    line, _ = describe(make.seen(**SYNC), Progress(percent, None, None))
    assert line.index("]") == 31


def test_roles_are_the_kernel_s_words() -> None:
    assert Role("Primary") is Role.PRIMARY
    assert ConnectionState("Connected") is ConnectionState.CONNECTED


def test_how_far_the_copies_were_compared_is_one_line(command: Command, replicated: World) -> None:
    del replicated
    known = Round(datetime(2026, 11, 1, 1, tzinfo=UTC), datetime(2026, 11, 22, 1, tzinfo=UTC), 8)
    journal.remember(slices.KIND, "test_a", slices.as_entry(known))
    said = command("status").out
    assert re.search(
        r"^  compared    \d+ % since 2026-11-22T01:00:00\+00:00; no whole round has ended yet$", said, re.MULTILINE
    )
    (resource,) = json.loads(command("status", "--json").out)["resources"]
    assert resource["verify"].keys() == {"since", "done_percent", "ended", "overdue"}
    assert resource["verify"]["since"] == "2026-11-22T01:00:00+00:00"
    journal.remember(slices.KIND, "test_a", slices.as_entry(slices.ended(known, known.first)))
    assert "the last whole round ended at 2026-11-01T01:00:00+00:00\n" in command("status").out
    journal.forget(slices.KIND, "test_a")
    assert "compared" not in command("status").out
