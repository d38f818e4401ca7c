"""``set`` and ``tune`` on a machine whose resources are in use, killed at every file and every program."""

import errno
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest

from drbd_offsite import config, durable, host, journal, keys, messages, protocol
from drbd_offsite.cli import status
from drbd_offsite.errors import BadRequest, OffsiteError, PeerUnreachable, Refused, UsageError
from drbd_offsite.model import RESYNC_RATES, Flavour
from drbd_offsite.operations import tune
from drbd_offsite.operations.apply import apply, outdated_files
from drbd_offsite.tools import drbd

from .. import make
from ..conftest import Answer, Programs
from ..plan.machine import need
from ..plan.test_half import empty_config
from .world import Killed

SERVER, BACKUP = Flavour.SERVER, Flavour.BACKUP
NAMES = ("test_a", "test_b", "test_c")
GONE = Answer("", 255, "ssh: connect to host 10.89.33.2 port 7788: No route to host")
BROKEN = Answer("", 10, "Failure: (104) Can not open backing device.")
Options = dict[str, str]
Done = TypeVar("Done")


class Pair:
    """A machine with three resources in the kernel, as strict as drbdsetup, and a peer that has the same values."""

    def __init__(self, flavour: Flavour, programs: Programs, root: Path) -> None:
        self.root = root
        self.there: dict[tuple[str, str], str] = {}
        """What the peer was asked to have."""
        self.peer_says: Callable[[messages.Tune], Answer | None] = lambda _: None
        """Instead of doing it."""
        self.drbdsetup_says: Callable[[int], Answer | None] = lambda _: None
        """To its n-th call, instead of doing it."""
        self.calls = self.changes = 0
        self.kill_at: int | None = None
        """Before the n-th change of anything; after it where it is negative."""
        programs.machine = self.answer
        text = empty_config(flavour)
        for number, name in enumerate(NAMES):
            text = config.updated(text, config.resource_keys(make.resource(name, number, flavour.other)))
        config.PATH.write_text(text)
        keys.directory(flavour.other)
        (keys.ROOT / flavour.other / "drbd.secret").write_text(make.SECRET)
        host.PROC_DRBD.parent.mkdir(exist_ok=True)
        host.PROC_DRBD.write_text("version: 8.4.11 (api:1/proto:86-101)\n")
        apply(config.load())
        self.kernel: dict[int, Options] = {number: self.file(name) for number, name in enumerate(NAMES)}
        """What attached devices run, by minor."""

    def answer(self, argv: tuple[str, ...], stdin: str) -> Answer | None:
        if argv == drbd.EVENTS:
            return Answer("".join(f"exists {line}\n" for line in self._events()) + "exists -\n")
        if argv[0] == "ssh":
            request = protocol.decode_request(stdin)
            assert isinstance(request, messages.Tune)
            return self.peer_says(request) or self.change(lambda: self._peer(request))
        if argv[:2] == ("drbdsetup", "disk-options"):
            self.calls += 1
            return self.drbdsetup_says(self.calls) or self.change(lambda: self._disk_options(list(argv[2:])))
        return None

    def change(self, do: Callable[[], Done]) -> Done:
        self.changes += 1
        if self.kill_at == self.changes:
            raise Killed
        done = do()
        if self.kill_at == -self.changes:
            raise Killed
        return done

    def _events(self) -> Iterator[str]:
        for minor, name in enumerate(NAMES):
            yield f"resource name:{name} role:Primary suspended:no"
            yield f"device name:{name} volume:0 minor:{minor} disk:{'UpToDate' if minor in self.kernel else 'Diskless'}"

    def _peer(self, request: messages.Tune) -> Answer:
        if not request.only_check:
            self.there[request.name, request.key] = request.value
        return Answer(protocol.encode_answer(messages.Done()))

    def _disk_options(self, words: list[str]) -> Answer:
        minor, given = int(words[0]), dict(word.removeprefix("--").split("=") for word in words[1:])
        need(minor in self.kernel, "disk-options: no disk")
        for option, value in given.items():
            need(option in ("c-max-rate", "c-min-rate", "c-fill-target", "resync-after"), f"disk-options: {option}")
            need(option != "c-max-rate" or int(value.removesuffix("k")) in RESYNC_RATES, "c-max-rate: out of range")
        after = int(given.get("resync-after", "-1"))
        while after in self.kernel:
            need(after != minor, "resync-after: a circle")
            after = int(self.kernel[after]["resync-after"])
        self.kernel[minor] |= given
        return Answer()

    def file(self, name: str) -> Options:
        """What the resource file says, in drbdsetup's words."""
        (path,) = self.root.glob(f"etc/drbd.d/*_{name}.res")
        text = path.read_text()
        options = dict(re.findall(r"^ +(c-max-rate|c-min-rate|c-fill-target) (\w+);", text, re.MULTILINE))
        after = re.search(r'resync-after "(.+)/0"', text)
        return options | {"resync-after": f"{NAMES.index(after[1])}" if after else "-1"}

    def here(self, key: str, name: str = "test_b") -> str:
        return str(getattr(config.load().resources[name], key))

    def state(self) -> object:
        """Everything that ``set`` can change on this machine."""
        files = {path.name: path.read_text() for path in self.root.glob("etc/drbd.d/*.res")}
        return config.PATH.read_text(), files, {minor: dict(options) for minor, options in self.kernel.items()}

    def settled(self, key: str, value: str) -> None:
        """Configuration, files, kernel and peer say the same, and nothing is under way."""
        assert self.here(key) == value
        assert self.there["test_b", key] == value
        assert outdated_files(config.load()) == []
        assert {minor: self.file(name) for minor, name in enumerate(NAMES)} == self.kernel
        assert journal.operations() == {}


NewPair = Callable[[Flavour], Pair]


@pytest.fixture
def pair(programs: Programs, root: Path, monkeypatch: pytest.MonkeyPatch) -> NewPair:
    """A new machine in the same place each time; it is also killed while it writes a file."""
    really = durable.replace

    def new(flavour: Flavour) -> Pair:
        monkeypatch.setattr(durable, "replace", really)
        for path in [*root.glob("etc/drbd.d/*"), *journal.STATE.rglob("*.json*")]:
            path.unlink()
        made = Pair(flavour, programs, root)
        monkeypatch.setattr(durable, "replace", lambda *written: made.change(lambda: really(*written)))
        return made

    return new


@pytest.fixture
def server(pair: NewPair) -> Pair:
    return pair(SERVER)


@pytest.fixture
def backup(pair: NewPair) -> Pair:
    return pair(BACKUP)


def change(key: str, value: str, name: str = "test_b", told: Callable[[str], None] = lambda _: None) -> str:
    return tune.change(name, key, value, told)


# -- the server --------------------------------------------------------------------------------------


def test_a_rate_is_in_force_on_both_machines_and_the_rest_of_the_file_is_kept(server: Pair) -> None:
    config.PATH.write_text(config.PATH.read_text().replace("[resources]", "# whose they are\n[resources]"))
    told: list[str] = []
    assert change("resync_rate", "500", told=told.append) == "500"
    server.settled("resync_rate", "500")
    assert server.kernel[1] | {"c-max-rate": "500k", "c-min-rate": "125k", "c-fill-target": "64k"} == server.kernel[1]
    assert server.kernel[0]["c-max-rate"] == "12207k", "the others keep theirs"
    assert "# whose they are" in config.PATH.read_text()
    assert told[0].startswith("ask backup to tune")
    assert any("--c-max-rate=500k" in line for line in told)
    assert not any(make.SECRET in line for line in told)
    change("resync_rate", "0")
    server.settled("resync_rate", "0")
    assert server.kernel[1]["c-max-rate"] == "12207k"


def test_a_priority_moves_the_resource_and_its_neighbours(server: Pair) -> None:
    change("priority", "7")
    server.settled("priority", "7")
    assert [server.kernel[minor]["resync-after"] for minor in range(3)] == ["1", "-1", "0"]
    change("priority", "-100")
    server.settled("priority", "-100")
    assert [server.kernel[minor]["resync-after"] for minor in range(3)] == ["-1", "2", "0"]


def test_which_alerts_are_sent_is_no_business_of_the_kernel(server: Pair) -> None:
    change("alerts", "none")
    server.settled("alerts", "none")
    assert server.calls == 0


def test_a_value_is_kept_as_the_configuration_writes_it(server: Pair) -> None:
    assert change("priority", " +05") == "5"
    server.settled("priority", "5")


def test_the_same_value_again_puts_right_what_somebody_has_changed_meanwhile(server: Pair) -> None:
    change("resync_rate", "500")
    server.there.clear()
    server.kernel[1]["c-max-rate"] = "9000k"
    change("resync_rate", "500")
    server.settled("resync_rate", "500")


def test_what_is_detached_learns_it_when_it_is_attached(server: Pair) -> None:
    del server.kernel[1]
    change("resync_rate", "500")
    change("priority", "1")
    assert server.file("test_b")["c-max-rate"] == "500k"
    assert server.file("test_b")["resync-after"] == "-1"
    assert server.kernel[0]["resync-after"] == "1"
    assert 1 not in server.kernel


WRONG = [
    ("priority", "101"), ("priority", "high"), ("priority", ""), ("priority", "1, 2"), ("priority", "1\n[site]"),
    ("priority", "'''\"\"\""), ("priority", "9" * 9999), ("resync_rate", "249"), ("resync_rate", "-1"),
    ("resync_rate", "4194305"), ("resync_rate", "1M"), ("alerts", "some"), ("alerts", "ALL"),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value"), WRONG)
def test_a_wrong_value_is_refused_with_what_is_allowed_and_nobody_is_asked(
    server: Pair, programs: Programs, key: str, value: str
) -> None:
    before = server.state()
    with pytest.raises(UsageError, match=f"{key} cannot be") as raised:
        change(key, value)
    assert {
        "priority": "a whole number from -100 to 100",
        "resync_rate": "0, or a whole number from 250 to 4194304",
        "alerts": "one of all, faults, none",
    }[key] in raised.value.hint
    assert len(raised.value.message) < 200
    assert (server.state(), journal.events(), programs.ran) == (before, [], [])


@pytest.mark.parametrize("key", ["volume", "peer", "minor", "x", ""])
def test_a_key_that_cannot_be_changed_live_is_refused_with_those_that_can(server: Pair, key: str) -> None:
    before = server.state()
    with pytest.raises(UsageError) as raised:
        change(key, "1")
    assert "priority, resync_rate, alerts" in raised.value.hint
    assert server.state() == before


def test_it_is_for_the_server_and_for_a_resource_that_there_is(backup: Pair) -> None:
    with pytest.raises(Refused, match="set is for the server"):
        change("priority", "1")
    config.PATH.write_text(config.PATH.read_text().replace("flavour = backup", "flavour = server"))
    with pytest.raises(Refused, match="no resource gone"):
        change("priority", "1", "gone")
    assert backup.changes == 0


def test_an_unreachable_backup_is_noticed_before_anything_is_begun(server: Pair) -> None:
    before = server.state()
    server.peer_says = lambda _: GONE
    with pytest.raises(PeerUnreachable):
        change("priority", "1")
    assert (server.state(), journal.events()) == (before, [])


@pytest.mark.parametrize("error", [Refused("not there", "x"), BadRequest("what?"), OffsiteError("broken", "x")])
def test_what_the_backup_refuses_is_refused_before_anything_is_begun(server: Pair, error: OffsiteError) -> None:
    before = server.state()
    server.peer_says = lambda _: Answer(protocol.encode_error(error))
    with pytest.raises(OffsiteError, match=error.message.replace("?", r"\?")):
        change("priority", "1")
    assert (server.state(), journal.events()) == (before, [])


def test_a_machine_that_is_blind_changes_nothing(server: Pair, programs: Programs) -> None:
    before = server.state()
    programs.allow(drbd.EVENTS, Answer("", 20, "no answer from the kernel"))
    with pytest.raises(Refused, match="cannot be seen"):
        change("priority", "1")
    assert (server.state(), server.there, journal.events()) == (before, {}, [])


@pytest.mark.parametrize("verb", ["add", "remove", "grow"])
def test_another_operation_is_finished_first(server: Pair, verb: str) -> None:
    before = server.state()
    journal.begin(verb, "test_b", {})
    with pytest.raises(Refused, match=f"{verb} of test_b is not finished"):
        change("priority", "1")
    assert server.state() == before
    change("priority", "1", "test_a")
    assert list(journal.operations()) == [f"{verb}-test_b"]


# -- killed ------------------------------------------------------------------------------------------

CHANGES = [("resync_rate", "500", "0", "700"), ("priority", "9", "0", "-9"), ("alerts", "faults", "all", "none")]


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("then", ["the same", "the old", "another"])
@pytest.mark.parametrize(("key", "value", "old", "other"), CHANGES)
def test_killed_anywhere_it_is_finished_by_the_same_command_or_by_another_value(
    pair: NewPair, key: str, value: str, old: str, other: str, then: str, late: bool
) -> None:
    for number in range(1, 40):
        world = pair(SERVER)
        before = world.state()
        world.kill_at = -number if late else number
        try:
            change(key, value)
        except Killed:
            world.kill_at = None
            if (world.state(), world.there) != (before, {}):
                assert [o.verb for o in journal.operations().values()] == ["set"], "half-done work shows"
            last = {"the same": value, "the old": old, "another": other}[then]
            assert change(key, last) == last
            world.settled(key, last)
            continue
        assert number > 4, "there are more changes than that"
        return
    pytest.fail("there is no end")


def test_what_is_unfinished_shows_in_status_and_keeps_other_keys_back(server: Pair) -> None:
    server.kill_at = 4
    with pytest.raises(Killed):
        change("resync_rate", "500")
    server.kill_at = None
    site = config.load()
    shown = status.as_text(
        site, host.observe(site), [status.assess(site, host.observe(site), site.resources["test_b"])]
    )
    assert "set was begun at" in shown
    assert "run set again" in shown
    with pytest.raises(Refused, match="resync_rate of test_b") as raised:
        change("priority", "1")
    assert "drbd-offsite set test_b resync_rate 500" in raised.value.hint
    change("resync_rate", "500")
    change("priority", "1")
    server.settled("priority", "1")


def test_a_backup_that_is_lost_on_the_way_leaves_it_unfinished_and_nothing_changed_here(server: Pair) -> None:
    before = server.state()
    server.peer_says = lambda request: None if request.only_check else GONE
    with pytest.raises(PeerUnreachable, match="does not answer") as raised:
        change("priority", "1")
    assert "same command" in raised.value.hint
    assert server.state() == before
    assert list(journal.operations()) == ["set-test_b"]
    server.peer_says = lambda _: GONE
    with pytest.raises(PeerUnreachable):
        change("priority", "1")
    assert list(journal.operations()) == ["set-test_b"], "it may have been changed there"
    server.peer_says = lambda _: None
    change("priority", "1")
    server.settled("priority", "1")


# -- what cannot be done is undone -------------------------------------------------------------------


@pytest.mark.parametrize(("key", "value", "calls"), [("resync_rate", "500", 1), ("priority", "9", 3)])
def test_what_the_kernel_refuses_here_is_put_back_on_both(pair: NewPair, key: str, value: str, calls: int) -> None:
    for refused in range(1, calls + 1):
        world = pair(SERVER)
        before = world.state()
        world.drbdsetup_says = lambda call, refused=refused: BROKEN if call == refused else None
        with pytest.raises(OffsiteError, match="disk-options") as raised:
            change(key, value)
        assert f"The {key} of test_b is 0 as before, on both machines" in raised.value.message
        assert world.state() == before
        world.settled(key, "0")
        assert journal.events()[-1]["text"] == "set was put back."


def test_what_the_backup_cannot_do_is_put_back_on_both(server: Pair) -> None:
    before = server.state()
    failed = Answer(protocol.encode_error(OffsiteError("drbdsetup failed", "See there.")))
    server.peer_says = lambda request: failed if (request.value, request.only_check) == ("9", False) else None
    with pytest.raises(OffsiteError, match=r"The peer says: drbdsetup failed .* 0 as before"):
        change("priority", "9")
    assert server.state() == before
    server.settled("priority", "0")


def test_where_the_disk_is_full_the_backup_is_put_back_too(server: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    before, save = server.state(), tune.save

    def full(_: object) -> None:
        monkeypatch.setattr(tune, "save", save)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tune, "save", full)
    with pytest.raises(OffsiteError, match=r"No space left .* 0 as before"):
        change("priority", "9")
    assert server.state() == before
    server.settled("priority", "0")


def test_what_cannot_be_put_back_either_is_said_and_left_to_be_finished(server: Pair) -> None:
    server.drbdsetup_says = lambda _: BROKEN
    with pytest.raises(OffsiteError, match="Putting the old value back has failed too") as raised:
        change("resync_rate", "500")
    assert raised.value.hint.endswith("drbd-offsite set test_b resync_rate 0")
    assert list(journal.operations()) == ["set-test_b"]
    assert server.here("resync_rate") == "0"
    server.drbdsetup_says = lambda _: None
    change("resync_rate", "0")
    server.settled("resync_rate", "0")


def test_the_old_value_is_the_one_before_all_attempts(server: Pair) -> None:
    server.kill_at = 4
    with pytest.raises(Killed):
        change("resync_rate", "500")
    server.kill_at = None
    server.drbdsetup_says = lambda call: BROKEN if call == 1 else None
    with pytest.raises(OffsiteError, match="is 0 as before"):
        change("resync_rate", "700")
    server.settled("resync_rate", "0")


# -- the backup --------------------------------------------------------------------------------------

REQUEST = messages.Tune("test_b", "resync_rate", "500", only_check=False)


def asked(request: messages.Tune = REQUEST, requester: str = "server") -> messages.Done:
    return tune.tune(config.load(), requester, request)


def on_backup(world: Pair, request: messages.Tune = REQUEST) -> None:
    world.there[request.name, request.key] = request.value
    world.settled(request.key, request.value)


@pytest.mark.parametrize(("key", "value"), [change[:2] for change in CHANGES])
def test_the_backup_does_what_it_is_asked_and_the_same_again(backup: Pair, key: str, value: str) -> None:
    request = replace(REQUEST, key=key, value=value)
    for _ in range(2):
        assert asked(request) == messages.Done()
        on_backup(backup, request)


def test_a_check_changes_nothing(backup: Pair) -> None:
    before = backup.state()
    assert asked(replace(REQUEST, only_check=True)) == messages.Done()
    assert (backup.state(), backup.changes, journal.events()) == (before, 0, [])


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(("key", "value", "old", "other"), CHANGES)
def test_the_backup_killed_anywhere_is_put_in_order_by_the_next_request(
    pair: NewPair, key: str, value: str, old: str, other: str, late: bool
) -> None:
    for number in range(1, 40):
        for then in (value, old, other):
            world = pair(BACKUP)
            world.kill_at = -number if late else number
            try:
                asked(replace(REQUEST, key=key, value=value))
            except Killed:
                world.kill_at = None
                asked(replace(REQUEST, key=key, value=then))
                on_backup(world, replace(REQUEST, key=key, value=then))
                continue
            assert number > 1
            return
    pytest.fail("there is no end")


@pytest.mark.parametrize("only_check", [True, False])
@pytest.mark.parametrize(("key", "value"), [wrong for wrong in WRONG if messages.TUNED.match(wrong[1])])
def test_the_backup_looks_at_the_value_itself(backup: Pair, key: str, value: str, only_check: bool) -> None:
    before = backup.state()
    with pytest.raises(BadRequest, match=f"{key} cannot be"):
        asked(messages.Tune("test_b", key, value, only_check))
    assert backup.state() == before


def test_another_s_resource_is_none_of_its_business(backup: Pair) -> None:
    before = backup.state()
    for request, requester in ((replace(REQUEST, name="gone"), "server"), (REQUEST, "somebody")):
        with pytest.raises(BadRequest, match="has no resource"):
            asked(request, requester)
    assert backup.state() == before


def test_tune_is_for_the_backup(server: Pair) -> None:
    before = server.state()
    with pytest.raises(Refused, match="tune is for the backup"):
        asked(requester="backup")
    assert server.state() == before
