"""Two commands at once on one resource: one waits or is refused with the reason, and both machines agree in the end."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from . import product
from .lab import Lab
from .machine import Machine
from .stages import REPLICATING
from .test_bad_days import REFUSED, USAGE
from .test_life import size_of_device, size_of_volume

pytestmark = pytest.mark.thorough

DONE = 0
REASONS = ("is at work on", "is not finished", "is being", "is under way", "no resource", "is not served here")


@dataclass(frozen=True)
class Ended:
    code: int
    said: str


def at_once(*commands: tuple[Machine, str]) -> list[Ended]:
    """How each ended; all of them are started before any is waited for."""
    for number, (machine, command) in enumerate(commands):
        files = f"/root/said.{number}", f"/root/code.{number}"
        machine.run(f"rm -f {' '.join(files)}")
        machine.run(f"(drbd-offsite {command} >{files[0]} 2>&1; echo $? >{files[1]}) >/dev/null 2>&1 &")
    ended = []
    for number, (machine, command) in enumerate(commands):
        machine.wait_for(f"{command} has ended", f"test -s /root/code.{number}", 300)
        code = int(machine.run(f"cat /root/code.{number}").stdout)
        ended.append(Ended(code, machine.run(f"cat /root/said.{number}").stdout))
    return ended


def one_at_a_time(ended: list[Ended]) -> None:
    assert DONE in {each.code for each in ended}, ended
    for each in ended:
        assert each.code in (DONE, USAGE, REFUSED), ended
        assert each.code == DONE or any(reason in each.said for reason in REASONS), ended


def agree(lab: Lab, name: str = "test_a") -> None:
    """Nothing is unfinished, and both machines have the same."""
    for machine in lab.machines:
        assert product.status(machine)["operations"] == []
    product.await_up_to_date(lab, name)
    sizes = {size_of_device(machine) for machine in lab.machines} | {
        size_of_volume(machine) for machine in lab.machines
    }
    assert len(sizes) == 1
    keys = "grep -E '^ *(priority|resync_rate|alerts|\\[\\[)' /etc/drbd-offsite/drbd-offsite.conf | tail -n +2"
    assert lab.server.run(keys).stdout == lab.backup.run(keys).stdout


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("grow test_a +8M", "grow test_a +16M"),
        ("grow test_a +8M", "set test_a priority 5"),
        ("grow test_a +8M", "down test_a"),
    ],
)
def test_two_commands_on_the_server(lab: Lab, first: str, second: str) -> None:
    lab.enter(REPLICATING)
    one_at_a_time(at_once((lab.server, first), (lab.server, second)))
    lab.server.run("drbd-offsite up test_a")
    agree(lab)


def test_the_same_volume_is_added_once(lab: Lab) -> None:
    lab.enter(REPLICATING)
    lab.server.run("lvcreate -q -y -L 12M -n test_b local && mkfs.ext4 -q /dev/local/test_b")
    one_at_a_time(at_once(*[(lab.server, "add local/test_b")] * 2))
    product.await_up_to_date(lab, "test_b")
    agree(lab)
    assert [r["name"] for r in product.status(lab.backup)["resources"]] == ["test_a", "test_b"]


def test_what_is_removed_is_not_enlarged_too(lab: Lab) -> None:
    lab.enter(REPLICATING)
    removed, grown = at_once((lab.server, "remove test_a"), (lab.server, "grow test_a +8M"))
    one_at_a_time([removed, grown])
    for machine in lab.machines:
        assert product.status(machine)["operations"] == []
        gone = product.status(machine)["resources"] == []
        assert gone == (removed.code == DONE)
    assert size_of_volume(lab.server) == size_of_volume(lab.backup)


@pytest.mark.parametrize(
    ("here", "there", "back"),
    [
        ("grow test_a +8M", "down test_a", "up test_a"),
        ("set test_a priority 5", "disconnect test_a", "connect test_a"),
    ],
)
def test_one_command_on_each_machine(lab: Lab, here: str, there: str, back: str) -> None:
    """The backup's may come first: then the server's is refused, and nothing is half done."""
    lab.enter(REPLICATING)
    ended = at_once((lab.server, here), (lab.backup, there))
    assert ended[1].code in (DONE, REFUSED), ended
    lab.backup.run(f"drbd-offsite {back}")
    if product.status(lab.server)["operations"]:
        assert ended[0].code != DONE, ended

    def finished() -> bool:
        if product.status(lab.server)["operations"]:
            lab.server.run(f"drbd-offsite {here}", check=False, timeout=300)  # refused until they are connected again
        return not product.status(lab.server)["operations"]

    lab.server.wait_for("the same command finishes what it began", finished, 120)
    agree(lab)
