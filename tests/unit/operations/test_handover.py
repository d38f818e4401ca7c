"""The driver of failback and switchover, with two machines that do what DRBD does (the planner's own pair)."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from drbd_offsite import messages, peer, protocol
from drbd_offsite.errors import OffsiteError, PeerUnreachable, Refused
from drbd_offsite.model import Flavour, Turn
from drbd_offsite.operations import handover
from drbd_offsite.plan.handover import Standing, Step

from .. import make
from ..plan.test_handover import BACKUP, SERVER, Pair, after_failover


def stance(standing: Standing) -> messages.Stance:
    found = standing.identifiers
    text = ":".join(f"{n:016X}" for n in (found.current, found.bitmap, *found.history)) + ":1:1" if found else ""
    return messages.Stance(
        standing.role, standing.disk, standing.connection, standing.replication,
        standing.changed_bytes, text, standing.turned or "", standing.settled, standing.leftovers, standing.blocked,
        standing.kept, standing.hindered,
    )  # fmt: skip


class Both:
    """One of two machines is this one; the other one answers."""

    def __init__(self, pair: Pair, here: Flavour, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pair, self.here = pair, here
        self.site = make.site(here)
        self.resource = self.site.resources["test_a"]
        self.keeps: list[tuple[Flavour, Turn, bool]] = []
        self.told: list[str] = []
        self.asked: list[Step] = []
        self.changes: dict[str, object] = {}
        monkeypatch.setattr(handover, "stance", lambda *_: self.stance(here))
        monkeypatch.setattr(handover, "take", lambda _s, _r, turn, keep, _t: self.take(here, turn, keep))
        monkeypatch.setattr(peer, "ask", self.ask)
        monkeypatch.setattr(handover, "_resync_seen", lambda *_: False)
        self.seconds = iter(range(0, 100_000, 10))
        monkeypatch.setattr(handover.time, "monotonic", lambda: float(next(self.seconds)))
        monkeypatch.setattr(handover.time, "sleep", lambda _: None)

    def stance(self, where: Flavour) -> messages.Stance:
        # Over the line and back, as the peer's is.
        answer = protocol.encode_answer(stance(self.pair.standing(where)))
        return protocol.decode_answer(messages.Stance, answer)

    def ask(self, _site: object, _peer: object, request: Any, kind: object, **_: object) -> object:
        request = protocol.decode_request(protocol.encode_request(request))
        if isinstance(request, messages.Stand):
            assert kind is messages.Stance
            return self.stance(self.here.other)
        self.take(self.here.other, Turn(request.turn), request.keep)
        return messages.Done()

    def take(self, where: Flavour, turn: Turn, keep: bool) -> None:
        self.keeps.append((where, turn, keep))
        self.pair.take(Step(where, turn, "", keep))

    def hand_over(
        self, want: Flavour, *, consent: Callable[[Step], bool] = lambda _: True, **options: Any
    ) -> handover.Outcome:
        return handover.hand_over(self.site, self.resource, want, consent=consent, tell=self.told.append, **options)


@pytest.mark.parametrize("here", Flavour)
@pytest.mark.parametrize(("server", "backup"), [(True, False), (False, True), (False, False)])
def test_from_either_machine_the_server_serves_in_the_end(
    here: Flavour, server: bool, backup: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = Both(after_failover(server=server, backup=backup), here, monkeypatch)
    assert both.hand_over(SERVER).complete
    sides = both.pair.sides
    assert sides[SERVER].primary
    assert sides[SERVER].data == sides[BACKUP].data


def test_nobody_is_cut_off_unasked_and_the_copies_are_the_same_by_then(monkeypatch: pytest.MonkeyPatch) -> None:
    both = Both(after_failover(server=False, backup=True), BACKUP, monkeypatch)
    asked: list[Step] = []
    outcome = both.hand_over(SERVER, consent=lambda step: bool(asked.append(step)))
    assert not outcome.complete
    assert [(step.where, step.turn) for step in asked] == [(BACKUP, Turn.YIELD)]
    assert both.pair.connected
    assert both.pair.sides[BACKUP].primary
    outcome = both.hand_over(SERVER)
    assert outcome.complete
    assert outcome.stood_still_seconds is not None


def test_what_is_given_up_is_kept_unless_the_net_is_not_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    for net in (True, False):
        both = Both(after_failover(server=True, backup=True), SERVER, monkeypatch)
        both.hand_over(SERVER, keep=SERVER, safety_net=net)
        assert (BACKUP, Turn.DISCARD, net) in both.keeps


def test_where_both_have_new_data_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    both = Both(after_failover(server=True, backup=True), SERVER, monkeypatch)
    with pytest.raises(Refused, match="Both machines have data"):
        both.hand_over(SERVER)
    assert both.keeps == []


def test_a_step_that_has_no_effect_is_not_taken_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    both = Both(after_failover(server=False, backup=True), BACKUP, monkeypatch)
    monkeypatch.setattr(both.pair, "take", lambda _: None)
    with pytest.raises(OffsiteError, match="receive on the server has no effect"):
        both.hand_over(SERVER)


def test_a_resync_that_was_refused_for_want_of_room_is_said_and_not_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    both = Both(after_failover(server=True, backup=True), BACKUP, monkeypatch)
    real = both.pair.standing

    def full(where: Flavour) -> Standing:
        found = real(where)
        return replace(found, hindered="no room in local") if (SERVER, Turn.DISCARD) in both.pair.steps else found

    monkeypatch.setattr(both.pair, "standing", full)
    monkeypatch.setattr(
        both.pair, "handshake", lambda: [setattr(m, "connecting", False) for m in both.pair.sides.values()]
    )
    with pytest.raises(Refused, match="Nothing was overwritten on the server: no room in local") as error:
        both.hand_over(SERVER, keep=BACKUP)
    assert "--without-safety-net" in error.value.hint


def test_what_is_waited_for_in_vain_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    both = Both(after_failover(server=False, backup=True), BACKUP, monkeypatch)
    monkeypatch.setattr(both.pair, "handshake", lambda: None)
    with pytest.raises(OffsiteError, match="waited until the two machines find each other"):
        both.hand_over(SERVER)


def test_a_peer_that_is_away_is_a_refusal_before_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    both = Both(after_failover(server=False, backup=True), BACKUP, monkeypatch)

    def away(*_: object, **__: object) -> None:
        raise PeerUnreachable("server does not answer", "")

    monkeypatch.setattr(peer, "ask", away)
    with pytest.raises(PeerUnreachable):
        both.hand_over(SERVER)
    assert both.keeps == []
