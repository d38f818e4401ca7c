"""The speed of a line, changed on a machine whose resources are in use, killed at every file and every program."""

from collections.abc import Callable
from pathlib import Path

import pytest

from drbd_offsite import config, durable, journal, messages, protocol
from drbd_offsite.cli import status
from drbd_offsite.errors import ExitCode, OffsiteError, PeerUnreachable, Refused
from drbd_offsite.host import observe
from drbd_offsite.model import Flavour
from drbd_offsite.operations import speed
from drbd_offsite.operations.apply import outdated_files
from drbd_offsite.render import limits
from drbd_offsite.tools import drbd_dump

from ..conftest import Answer, Programs
from .test_tune import BROKEN, GONE, NAMES, Options, Pair
from .world import Killed

SERVER, BACKUP = Flavour.SERVER, Flavour.BACKUP


class Line(Pair):
    """Its peer is asked for another speed; and the kernel shows what it runs."""

    def __init__(self, flavour: Flavour, programs: Programs, root: Path) -> None:
        super().__init__(flavour, programs, root)
        self.peer = flavour.other
        self.speed_there = 100
        self.answers: Callable[[messages.SetSpeed], Answer | None] = lambda _: None
        """Instead of doing it."""

    def answer(self, argv: tuple[str, ...], stdin: str) -> Answer | None:
        if argv == drbd_dump.RUNNING:
            return Answer("".join(self._shown(minor, options) for minor, options in self.kernel.items()))
        if argv[0] == "ssh":
            request = protocol.decode_request(stdin)
            assert isinstance(request, messages.SetSpeed)
            return self.answers(request) or self.change(lambda: self._set_speed(request))
        return super().answer(argv, stdin)

    def _set_speed(self, request: messages.SetSpeed) -> Answer:
        if not request.only_check:
            self.speed_there = request.link_speed
        return Answer(protocol.encode_answer(messages.Done()))

    @staticmethod
    def _shown(minor: int, options: Options) -> str:
        own = "".join(f"                {key} {value};\n" for key, value in options.items() if key.startswith("c-"))
        disk = f"            device minor {minor};\n            disk {{\n{own}            }}\n"
        return f"resource {NAMES[minor]} {{\n    _this_host {{\n        volume 0 {{\n{disk}        }}\n    }}\n}}\n"

    def is_everywhere(self, link_speed: int) -> None:
        """Configuration, files and kernel of this machine say so, and nothing is under way."""
        assert config.load().peers[self.peer].link_speed == link_speed
        assert outdated_files(config.load()) == []
        wanted = limits(link_speed)
        for minor, name in enumerate(NAMES):
            said = {"c-max-rate": f"{wanted.max_rate}k", "c-min-rate": f"{wanted.min_rate}k"}
            said["c-fill-target"] = f"{wanted.fill_target}k"
            assert self.file(name) | said == self.file(name)
            if minor in self.kernel:
                assert self.kernel[minor] | said == self.kernel[minor]
        assert journal.operations() == {}


NewLine = Callable[[Flavour], Line]


@pytest.fixture
def line(programs: Programs, root: Path, monkeypatch: pytest.MonkeyPatch) -> NewLine:
    """A machine as if nothing had happened yet; each file that is written counts as a change."""
    really = durable.replace

    def new(flavour: Flavour) -> Line:
        monkeypatch.setattr(durable, "replace", really)
        for path in [*root.glob("etc/drbd.d/*"), *journal.STATE.rglob("*.json*")]:
            path.unlink()
        made = Line(flavour, programs, root)
        monkeypatch.setattr(durable, "replace", lambda *written: made.change(lambda: really(*written)))
        return made

    return new


def change(link_speed: int, told: Callable[[str], None] = lambda _: None) -> None:
    speed.change("backup", link_speed, told)


def test_it_is_in_force_on_both_machines_at_once_and_the_rest_of_the_file_is_kept(line: NewLine) -> None:
    server = line(SERVER)
    config.PATH.write_text(config.PATH.read_text().replace("[resources]", "# whose they are\n[resources]"))
    told: list[str] = []
    change(7, told.append)
    server.is_everywhere(7)
    assert server.speed_there == 7
    assert "# whose they are" in config.PATH.read_text()
    assert told[0] == "ask backup to set-speed  # its link_speed is to be 7 too"
    assert any(f"--c-max-rate={limits(7).max_rate}k" in said for said in told)
    assert "link_speed of backup is 7 now" in " ".join(event["text"] for event in journal.events())


def test_the_same_speed_again_changes_nothing_but_the_kernel_where_somebody_did(line: NewLine) -> None:
    server = line(SERVER)
    change(7)
    server.kernel[1]["c-max-rate"] = "9000k"
    calls = server.calls
    change(7)
    server.is_everywhere(7)
    assert server.calls == calls + 1


def test_what_is_detached_learns_it_when_it_is_attached(line: NewLine) -> None:
    server = line(SERVER)
    del server.kernel[1]
    change(7)
    server.is_everywhere(7)
    assert 1 not in server.kernel


@pytest.mark.parametrize("answer", [GONE, Answer(protocol.encode_error(Refused("not now", "")))])
def test_what_the_backup_refuses_or_does_not_hear_is_not_begun(line: NewLine, answer: Answer) -> None:
    server = line(SERVER)
    before = server.state()
    server.answers = lambda _: answer
    with pytest.raises((PeerUnreachable, Refused)):
        change(7)
    assert (server.state(), journal.events()) == (before, [])


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("then", [7, 100, 12])
def test_killed_anywhere_it_is_finished_by_the_same_command_or_by_another_speed(
    line: NewLine, then: int, late: bool
) -> None:
    for number in range(1, 40):
        server = line(SERVER)
        before = server.state()
        server.kill_at = -number if late else number
        try:
            change(7)
        except Killed:
            server.kill_at = None
            if (server.state(), server.speed_there) != (before, 100):
                assert list(journal.operations()) == ["link-speed-backup"], "half-done work shows"
            change(then)
            server.is_everywhere(then)
            assert server.speed_there == then
            continue
        assert number > 8, "there are more changes than that"
        return
    pytest.fail("there is no end")


def test_what_is_unfinished_shows_in_status_with_what_finishes_it(line: NewLine) -> None:
    server = line(SERVER)
    server.drbdsetup_says = lambda _: BROKEN
    with pytest.raises(OffsiteError, match="disk-options"):
        change(7)
    site = config.load()
    shown = status.as_text(site, observe(site), [])
    assert "backup: link-speed was begun at" in shown
    assert "run drbd-offsite measure-link --apply again" in shown
    assert status.exit_code(observe(site), []) == ExitCode.FAILED
    server.drbdsetup_says = lambda _: None
    change(7)
    server.is_everywhere(7)


def asked(link_speed: int = 7, *, only_check: bool = False) -> messages.Done:
    return speed.follow(config.load(), "server", messages.SetSpeed(link_speed, only_check))


def test_the_backup_does_what_it_is_asked_and_the_same_again(line: NewLine) -> None:
    backup = line(BACKUP)
    before = backup.state()
    assert asked(only_check=True) == messages.Done()
    assert (backup.state(), journal.events()) == (before, [])
    for _ in range(2):
        assert asked() == messages.Done()
        backup.is_everywhere(7)


def test_the_backup_killed_anywhere_is_put_in_order_by_the_next_request(line: NewLine) -> None:
    for number in range(1, 40):
        backup = line(BACKUP)
        backup.kill_at = number
        try:
            asked()
        except Killed:
            backup.kill_at = None
            asked(12)
            backup.is_everywhere(12)
            continue
        assert number > 6
        return
    pytest.fail("there is no end")


def test_each_machine_has_its_part_and_no_other(line: NewLine) -> None:
    backup = line(BACKUP)
    with pytest.raises(Refused, match="measure-link is for the server"):
        change(7)
    assert backup.changes == 0
    line(SERVER)
    with pytest.raises(Refused, match="set-speed is for the backup"):
        speed.follow(config.load(), "backup", messages.SetSpeed(7, only_check=False))
