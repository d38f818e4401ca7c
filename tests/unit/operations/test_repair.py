"""Blocks that differ, from the verify to the end, with a module that does what the real one does."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from drbd_offsite import files, host, journal
from drbd_offsite.errors import Refused, ToolFailed
from drbd_offsite.host import observe
from drbd_offsite.model import Flavour
from drbd_offsite.observed import Forbidden
from drbd_offsite.operations import repair
from drbd_offsite.plan.findings import Outcome
from drbd_offsite.reconcile import reconcile
from drbd_offsite.tools import drbd, systemd

from .. import make
from ..conftest import Answer, Programs

BLOCKS = 4096
SITE = make.site()
RESOURCE = SITE.resources["test_a"]
CHANGING = ("disconnect", "connect", "verify")


class Killed(BaseException):
    """The process is gone, in the middle of whatever it did."""


class Pair:
    """Two copies of a volume of `BLOCKS` blocks, the module between them, and the server's journal."""

    def __init__(self, programs: Programs) -> None:
        self.differing: set[int] = set()
        self.marked: set[int] = set()
        self.connected = True
        self.role = "Primary"
        self.generation_is_new = False
        self.verifying: tuple[int, int] | None = None
        self.busy = 0
        self.log: list[str] = []
        self.changes: list[str] = []
        self.kill_at: int | None = None
        self.after_resync: Callable[[], None] = lambda: None
        self.refuse: set[str] = set()
        programs.machine = self.answer
        programs.addresses.add(make.TUNNEL.server_address)
        self.publish()

    def answer(self, argv: tuple[str, ...], _: str) -> Answer | None:
        if argv == drbd.EVENTS:
            return Answer(self.events())
        if argv == systemd.FLUSH_LOG:
            return Answer()
        if argv[0] == "journalctl":
            if argv == systemd.LOG_END:
                return Answer(f"-- cursor: s={len(self.log)}\n")
            since = next((int(word.partition("s=")[2]) for word in argv if word.startswith("--after-cursor=")), 0)
            return Answer("\n".join([*self.log[since:], f"-- cursor: s={len(self.log)}"]) + "\n")
        assert argv[0] == "drbdadm"
        command = next(word for word in argv if word in CHANGING)
        self.changes.append(" ".join(argv))
        if self.kill_at == len(self.changes):
            raise Killed
        if command in self.refuse:
            return Answer("", 11, f"{command}: refused")
        {"disconnect": self.disconnect, "connect": self.connect, "verify": lambda: self.verify(argv)}[command]()
        self.publish()
        if self.kill_at == -len(self.changes):
            raise Killed
        return Answer()

    def events(self) -> str:
        state = "Connected" if self.connected else "StandAlone"
        replication = "VerifyS" if self.verifying else "Established" if self.connected else "Off"
        peer_disk = "UpToDate" if self.connected else "DUnknown"
        return (
            f"exists resource name:test_a role:{self.role} suspended:no\n"
            f"exists connection name:test_a peer-node-id:0 conn-name:backup connection:{state} role:Secondary\n"
            f"exists device name:test_a volume:0 minor:0 disk:UpToDate size:{BLOCKS * 4}\n"
            f"exists peer-device name:test_a peer-node-id:0 conn-name:backup volume:0 replication:{replication} "
            f"peer-disk:{peer_disk} resync-suspended:no out-of-sync:{len(self.marked) * 4}\n"
            "exists -\n"
        )

    def publish(self) -> None:
        host.PROC_DRBD.write_text(
            "version: 8.4.11 (api:1/proto:86-101)\n"
            " 0: cs:Connected ro:Primary/Secondary ds:UpToDate/UpToDate A r-----\n"
            f"    ns:0 nr:0 dw:0 dr:0 al:0 bm:0 lo:0 pe:0 ua:0 ap:{self.busy} ep:1 wo:f oos:{len(self.marked) * 4}\n"
        )

    def says(self, text: str) -> None:
        self.log.append(f"block drbd0: {text}")

    def disconnect(self) -> None:
        self.connected, self.generation_is_new = False, True
        self.end_of_verify()

    def connect(self) -> None:
        assert not self.connected
        self.connected = True
        if self.generation_is_new and self.marked:
            self.differing -= self.marked
            self.marked.clear()
            self.says("Resync done (total 1 sec; paused 0 sec; 8 K/sec)")
            self.after_resync()
        self.generation_is_new = False

    def verify(self, argv: tuple[str, ...]) -> None:
        assert self.connected
        assert not self.verifying
        assert argv[1] == "--", "drbdadm of 8.4 takes no options for verify"
        options = dict(word[2:].split("=") for word in argv if "=" in word)
        start, stop = int(options["start"]), int(options.get("stop", BLOCKS * 8))
        assert start % 8 == stop % 8 == 0
        self.verifying = (start // 8, stop // 8)
        self.says(f"Starting Online Verify from sector {start}")

    def runs_to(self, block: int | None = None) -> None:
        """Compare up to a block, or to the end; only then is it over."""
        assert self.verifying
        start, stop = self.verifying
        for number in range(start, min(stop, BLOCKS) if block is None else block):
            if number in self.differing:
                self.marked.add(number)
                self.says(f"Out of sync: start={number * 8}, size=8 (sectors)")
        self.verifying = (stop, stop) if block is None else (block, stop)
        if block is None:
            self.says("Online verify done (total 1 sec; paused 0 sec; 8 K/sec)")
            if self.marked:
                self.says(f"Online verify found {len(self.marked)} 4k block out of sync!")
            self.end_of_verify()
        self.publish()

    def end_of_verify(self) -> None:
        if self.verifying and self.verifying[0] < BLOCKS:
            self.says(f"Online Verify reached sector {self.verifying[0] * 8}")
        self.verifying = None

    def look(self) -> None:
        """What the watcher does at each full look."""
        reconcile(SITE, ["test_a"], lambda _: None)
        repair.follow_up(SITE, observe(SITE))

    def settles(self, looks: int = 40) -> None:
        for _ in range(looks):
            before = len(self.changes), journal.remembered(repair.KIND)
            self.look()
            if self.verifying:
                self.runs_to()
            elif before == (len(self.changes), journal.remembered(repair.KIND)):
                return
        pytest.fail("there is no end")


@pytest.fixture
def pair(programs: Programs, root: Path) -> Pair:
    host.PROC_DRBD.parent.mkdir(exist_ok=True)
    for volume in ("test_a", "drbd_meta"):
        path = root / f"dev/local/{volume}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return Pair(programs)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look a minute."""
    instants: Iterator[datetime] = (
        datetime(2026, 11, 22, 12, tzinfo=UTC) + timedelta(minutes=number) for number in range(10_000)
    )
    monkeypatch.setattr(journal, "now", lambda: next(instants).isoformat(timespec="seconds"))


def told(event: str = "") -> list[str]:
    """The journal's events, or the texts of one kind."""
    return [e["text"] if event else e["event"] for e in journal.events() if event in ("", e["event"])]


def remarks() -> set[str]:
    return {hold.set_by for hold in journal.holds().get("test_a", ())}


def by_hand(pair: Pair) -> None:
    """``drbdadm verify test_a``, to its end."""
    pair.verify(("drbdadm", "--", "--start=0", "verify", "test_a"))
    pair.runs_to()


def test_nothing_is_asked_and_nothing_kept_while_nothing_differs(pair: Pair, programs: Programs) -> None:
    pair.look()
    assert set(programs.ran) == {drbd.EVENTS}
    assert journal.remembered(repair.KIND) == {}


def test_a_comparison_of_equal_copies(pair: Pair) -> None:
    since = repair.begin(SITE, RESOURCE)
    assert pair.changes == ["drbdadm -- --start=0 verify test_a"]
    assert repair.verdict(SITE, RESOURCE, since) is None
    pair.runs_to()
    verdict = repair.verdict(SITE, RESOURCE, since)
    assert verdict is not None
    assert verdict.outcome == Outcome.EQUAL
    assert told() == ["verify-begun", "verify-clean"]
    assert remarks() == set()


@pytest.mark.parametrize("how", ["asked", "by hand"])
def test_what_differs_is_recorded_sent_and_compared_again(pair: Pair, how: str) -> None:
    pair.differing = {904, 905}
    if how == "asked":
        repair.begin(SITE, RESOURCE)
        pair.runs_to()
    else:
        by_hand(pair)
    pair.look()
    assert remarks() == {"out-of-sync"}
    (event,) = [e for e in journal.events() if e["event"] == "out-of-sync"]
    assert event["ranges"] == [{"start": 904 * 8, "sectors": 16, "seen": 1}]
    assert event["total_bytes"] == 8192
    assert pair.changes[-2:] == ["drbdadm disconnect test_a", "drbdadm connect test_a"]
    assert pair.differing == set()
    pair.look()
    assert pair.changes[-1] == f"drbdadm -- --start={904 * 8} --stop={906 * 8} verify test_a"
    assert remarks() == {"out-of-sync"}, "until it was compared again"
    pair.runs_to()
    pair.settles()
    assert remarks() == set()
    wanted = ["out-of-sync", "remark", "repair", "repaired", "verify-begun", "verify-clean", "hold-lifted"]
    assert sorted(told()) == sorted(["verify-begun", *wanted] if how == "asked" else wanted)


def test_what_differs_again_and_again_is_suspicious_and_no_longer_compared(pair: Pair) -> None:
    pair.differing = {100, 2000}
    pair.after_resync = lambda: pair.differing.add(100)
    by_hand(pair)
    pair.settles()
    assert remarks() == {"suspicious"}
    assert sum("verify" in change for change in pair.changes) == 2
    assert sum("disconnect" in change for change in pair.changes) == 3, "sent all the same, and then left alone"
    assert [e["ranges"][0]["seen"] for e in journal.events() if e["event"] == "out-of-sync"] == [1, 2, 3]
    pair.after_resync = lambda: None
    pair.differing.clear()
    since = repair.begin(SITE, RESOURCE)
    pair.runs_to()
    verdict = repair.verdict(SITE, RESOURCE, since)
    assert verdict is not None
    assert verdict.outcome == Outcome.EQUAL
    assert remarks() == set(), "a comparison that finds it equal lifts it"


def test_a_person_can_drop_it(pair: Pair) -> None:
    pair.differing = {100}
    pair.after_resync = lambda: pair.differing.add(100)
    by_hand(pair)
    pair.settles()
    repair.forget(RESOURCE)
    assert remarks() == set()
    assert told("hold-lifted")[-1].startswith("Lifted by a person")
    before = len(pair.changes)
    pair.settles()
    assert len(pair.changes) == before


def test_a_connection_that_is_lost_is_no_end_and_it_goes_on(pair: Pair) -> None:
    pair.differing = {10, 3000}
    since = repair.begin(SITE, RESOURCE)
    pair.runs_to(1000)
    pair.disconnect()
    assert repair.verdict(SITE, RESOURCE, since) is None
    assert told()[-1] == "verify-broken-off"
    assert remarks() == {"out-of-sync"}
    pair.look()
    pair.look()
    assert pair.changes[-1] == "drbdadm -- --start=8000 verify test_a"
    pair.runs_to()
    pair.settles()
    verdict = repair.verdict(SITE, RESOURCE, since)
    assert verdict is not None
    assert (verdict.outcome, verdict.places) == (Outcome.DIFFERENT, 2)
    assert pair.differing == set()
    assert remarks() == set()


def test_a_server_that_gets_ahead_logs_no_end(pair: Pair) -> None:
    since = repair.begin(SITE, RESOURCE)
    pair.verifying = None
    assert repair.verdict(SITE, RESOURCE, since) is None
    pair.settles()
    verdict = repair.verdict(SITE, RESOURCE, since)
    assert verdict is not None
    assert verdict.outcome == Outcome.EQUAL
    assert [c for c in pair.changes if "verify" in c] == ["drbdadm -- --start=0 verify test_a"] * 2


def test_a_hold_of_a_person_keeps_the_repair_back(pair: Pair) -> None:
    journal.hold("test_a", "a look with drbdadm", frozenset(Forbidden), "hold")
    pair.differing = {100}
    by_hand(pair)
    pair.look()
    pair.look()
    assert pair.changes == []
    assert remarks() == {"hold", "out-of-sync"}
    journal.lift("test_a", "up", set_by="hold")
    pair.settles()
    assert pair.differing == set()


def test_a_busy_volume_is_waited_for(pair: Pair) -> None:
    pair.differing, pair.busy = {100}, 3
    by_hand(pair)
    pair.look()
    assert pair.changes == []
    pair.busy = 0
    pair.publish()
    pair.look()
    assert pair.differing == set()


def test_another_command_at_work_is_not_waited_for(pair: Pair) -> None:
    pair.differing = {100}
    by_hand(pair)
    with files.lock("resource-test_a", 0.0):
        repair.follow_up(SITE, observe(SITE))
    assert pair.changes == []


def test_the_backup_leaves_it_to_the_server(pair: Pair) -> None:
    by_hand(pair)
    pair.marked = {100}
    pair.role = "Secondary"
    site = make.site(Flavour.BACKUP)
    repair.follow_up(site, observe(site))
    assert pair.changes == []
    assert journal.remembered(repair.KIND) == {}


def test_what_is_known_of_a_resource_goes_with_it(pair: Pair) -> None:
    pair.differing = {100}
    by_hand(pair)
    pair.settles()
    assert "test_a" in journal.remembered(repair.KIND)
    repair.follow_up(make.site(resources=()), observe(SITE))
    assert journal.remembered(repair.KIND) == {}


def test_one_that_cannot_be_disconnected_is_told_and_tried_again_but_not_for_ever(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    pair.differing, pair.refuse = {100}, {"disconnect"}
    by_hand(pair)
    for _ in range(3):
        with pytest.raises(ToolFailed, match=r"could not be disconnected: disconnect: refused"):
            repair.follow_up(SITE, observe(SITE))
    tried = len(pair.changes)
    pair.look()
    pair.look()
    assert len(pair.changes) == tried
    assert "sending them has not helped" in journal.holds()["test_a"][0].reason


def test_a_comparison_that_cannot_be_started_leaves_nothing_behind(pair: Pair) -> None:
    pair.refuse = {"verify"}
    with pytest.raises(ToolFailed, match="verify: refused"):
        repair.begin(SITE, RESOURCE)
    pair.refuse = set()
    before = len(pair.changes)
    pair.settles()
    assert len(pair.changes) == before


LAST = BLOCKS - 1


def test_what_differs_at_the_end_after_an_attach_is_found_and_sent_with_nobody_asking(pair: Pair) -> None:
    pair.differing = {LAST}
    repair.tail_due("test_a")
    pair.settles()
    assert pair.differing == set()
    assert told("out-of-sync")
    assert remarks() == set()


def test_an_end_that_is_the_same_is_compared_once_and_worth_no_word(pair: Pair) -> None:
    repair.tail_due("test_a")
    pair.settles()
    assert pair.changes == [f"drbdadm -- --start={(BLOCKS - 64) * 8} verify test_a"]
    assert told() == []


@pytest.mark.parametrize("at", [1, -1])
def test_killed_in_the_middle_the_end_is_compared_all_the_same(pair: Pair, at: int) -> None:
    pair.differing = {LAST}
    pair.kill_at = at
    repair.tail_due("test_a")
    with pytest.raises(Killed):
        pair.look()
    pair.kill_at = None
    if pair.verifying:
        pair.runs_to()
    pair.settles()
    assert pair.differing == set()


def test_an_end_that_cannot_be_compared_is_told_once(pair: Pair) -> None:
    """A volume that was adopted as it runs may have no algorithm for it (drbdsetup: a verify-alg is needed)."""
    pair.refuse = {"verify"}
    repair.tail_due("test_a")
    with pytest.raises(ToolFailed, match="could not be started"):
        pair.look()
    pair.look()
    assert len(pair.changes) == len(told("failed")) == 1
    assert journal.remembered(repair.KIND)["test_a"]["check"] is None


def test_only_the_machine_that_serves_it_compares_and_sends(pair: Pair) -> None:
    backup = make.site(Flavour.BACKUP)
    pair.differing = {LAST}
    repair.tail_due("test_a")
    pair.role = "Secondary"
    repair.follow_up(backup, observe(backup))
    assert pair.changes == []
    pair.role = "Primary"  # it has taken over
    repair.follow_up(backup, observe(backup))
    assert pair.verifying


def test_a_person_s_comparison_waits_for_that_of_the_end(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    repair.tail_due("test_a")
    pair.look()
    assert pair.verifying
    monkeypatch.setattr(repair.time, "sleep", lambda _: pair.runs_to())
    repair.begin(SITE, RESOURCE)
    assert pair.verifying == (0, BLOCKS)


def test_why_nothing_can_be_compared_now(pair: Pair) -> None:
    pair.disconnect()
    with pytest.raises(Refused, match="not connected"):
        repair.begin(SITE, RESOURCE)


def test_a_journal_made_anew_does_not_know_the_cursor(pair: Pair, programs: Programs) -> None:
    journal.remember(repair.KIND, "test_a", {**_nothing(), "cursor": "old"})
    programs.allow(systemd.kernel_log("old"), Answer("", 1, "Failed to seek to cursor: Invalid argument"))
    pair.differing = {100}
    by_hand(pair)
    pair.settles()
    assert pair.differing == set()
    assert told("out-of-sync")


def _nothing() -> dict[str, object]:
    repair._keep("test_a", repair.Findings())
    kept: dict[str, object] = json.loads((journal.STATE / repair.KIND / "test_a.json").read_text())
    return kept


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("at", range(1, 5))
def test_killed_anywhere_it_goes_on(pair: Pair, at: int, before: bool) -> None:
    pair.differing = {100, 2000}
    pair.kill_at = at if before else -at

    def killed(what: Callable[[], object]) -> None:
        try:
            what()
        except Killed:
            pair.kill_at = None

    killed(lambda: repair.begin(SITE, RESOURCE))
    for _ in range(30):
        if pair.verifying:
            pair.runs_to()
        killed(pair.look)
    assert pair.kill_at is None, "there are so many commands"
    pair.settles()
    assert pair.connected
    assert pair.differing == set()
    assert remarks() == set()
    assert told("verify-clean")
