"""Who has changed what since when: what a person needs to decide a split brain."""

import pytest

from drbd_offsite import handler, journal, messages
from drbd_offsite.errors import PeerUnreachable
from drbd_offsite.model import Flavour
from drbd_offsite.observed import ConnectionState, DiskState, Forbidden, Host
from drbd_offsite.operations import evidence
from drbd_offsite.operations.report import LOST

from .. import make

SITE = make.site()
APART = make.seen(state=ConnectionState.STANDALONE, peer_disk=DiskState.UNKNOWN, out_of_sync_bytes=3 * make.MIB)
THEIRS = messages.ResourceReport(
    "test_a", "Secondary", "UpToDate", "StandAlone", 5 * 2**20, "2026-11-22T12:05:00+00:00"
)


class Peer:
    def __init__(self) -> None:
        self.asked = 0
        self.answer: list[messages.ResourceReport] | None = [THEIRS]

    def ask(self, *_: object, seconds: float) -> messages.MachineReport:
        assert seconds <= 15.0, "the watcher has others to look after"
        self.asked += 1
        if self.answer is None:
            raise PeerUnreachable("away", "")
        return messages.MachineReport("backup", "8.4.11", self.answer)


@pytest.fixture
def peer(monkeypatch: pytest.MonkeyPatch) -> Peer:
    there = Peer()
    monkeypatch.setattr(evidence.peer, "ask", there.ask)
    return there


def split() -> None:
    handler.main(["split-brain", "test_a"], {"DRBD_RESOURCE": "test_a", "DRBD_MINOR": "0"})


def look() -> Host:
    return make.host(drbd=[APART], holds=journal.holds())


def reason() -> str:
    (hold,) = journal.holds()["test_a"]
    assert (hold.set_by, hold.forbids) == ("split-brain", {Forbidden.CONNECT}), "it holds all the same"
    return hold.reason


def test_a_split_brain_says_who_has_changed_how_much_since_when(peer: Peer) -> None:
    journal.remember(LOST, "test_a", {"since": "2026-11-22T12:00:00+00:00"})
    split()
    since = journal.holds()["test_a"][0].since
    evidence.gather(SITE, look())
    assert reason() == (
        "split brain: server (Primary) has changed 3.0 MiB since 2026-11-22T12:00:00+00:00; "
        "backup (Secondary) has changed 5.0 MiB since 2026-11-22T12:05:00+00:00"
    )
    assert journal.holds()["test_a"][0].since == since
    assert peer.asked == 1


@pytest.mark.parametrize("answer", [None, [], [messages.ResourceReport("other", "", "", "", 0, "")]])
def test_a_peer_that_says_nothing_of_it_is_no_obstacle(
    answer: list[messages.ResourceReport] | None, peer: Peer
) -> None:
    peer.answer = answer
    split()
    evidence.gather(SITE, look())
    assert "server (Primary) has changed 3.0 MiB since the connection was lost" in reason()
    assert "what backup has changed is not known" in reason()


def test_it_is_gathered_once_for_what_comes_after_it_is_no_part_of_it(peer: Peer) -> None:
    split()
    for _ in range(3):
        evidence.gather(SITE, look())
    assert peer.asked == 1
    assert [e["event"] for e in journal.events()].count("hold") == 1


def test_the_next_split_brain_is_a_new_one(peer: Peer) -> None:
    split()
    evidence.gather(SITE, look())
    journal.lift("test_a", "connect", set_by="split-brain")
    evidence.gather(SITE, look())
    peer.answer = [messages.ResourceReport("test_a", "Primary", "UpToDate", "StandAlone", 2**30, "")]
    split()
    evidence.gather(SITE, look())
    assert "backup (Primary) has changed 1.0 GiB" in reason()
    assert peer.asked == 2


@pytest.mark.parametrize("setter", ["disconnect", "local-io-error", "taken-over"])
def test_another_hold_is_no_split_brain(setter: str, peer: Peer) -> None:
    journal.hold("test_a", "as it was", frozenset({Forbidden.CONNECT}), setter)
    evidence.gather(SITE, look())
    assert peer.asked == 0
    assert journal.holds()["test_a"][0].reason == "as it was"


def test_both_sides_gather_the_same(peer: Peer) -> None:
    split()
    evidence.gather(make.site(Flavour.BACKUP), make.host(Flavour.BACKUP, [APART], holds=journal.holds()))
    assert peer.asked == 1
    assert reason().startswith("split brain: backup (Primary) has changed 3.0 MiB")


def test_a_peer_that_was_silent_is_asked_again(peer: Peer) -> None:
    split()
    peer.answer = None
    evidence.gather(SITE, look())
    assert "is not known" in reason()
    peer.answer = [messages.ResourceReport("test_a", "Primary", "UpToDate", "StandAlone", 2**30, "")]
    evidence.gather(SITE, look())
    assert "backup (Primary) has changed 1.0 GiB" in reason()
    evidence.gather(SITE, look())
    assert peer.asked == 2, "and no more"


def test_a_silent_peer_is_waited_for_once_however_many_resources_there_are(peer: Peer) -> None:
    names = ("test_a", "test_b", "test_c")
    for name in names:
        handler.main(["split-brain", name], {"DRBD_RESOURCE": name, "DRBD_MINOR": "0"})
    peer.answer = None
    evidence.gather(make.site(resources=names), make.host(holds=journal.holds()))
    assert peer.asked == 1
    assert all("is not known" in journal.holds()[name][0].reason for name in names)
