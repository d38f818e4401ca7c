"""Failback and switchover, step by step, on a pair that does what DRBD does."""

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drbd_offsite.errors import Refused
from drbd_offsite.model import Flavour, Turn
from drbd_offsite.observed import ConnectionState, DiskState, ReplicationState, Role
from drbd_offsite.plan.generations import Relation, relation
from drbd_offsite.plan.handover import Over, Standing, Step, Wait, decide
from drbd_offsite.tools.drbd import Identifiers

SERVER, BACKUP = Flavour.SERVER, Flavour.BACKUP
MIB = 2**20


@dataclass
class Machine:
    """One side of the pair."""

    data: set[str] = field(default_factory=lambda: {"old"})
    primary: bool = False
    connecting: bool = False
    discarding: bool = False
    changed: set[str] = field(default_factory=set)
    current: int = 0x10
    bitmap: int = 0
    history: tuple[int, ...] = ()
    turned: Turn | None = None
    held: bool = False
    kept: set[str] = field(default_factory=set)
    keeps: bool = False

    def begin_generation(self, new: int) -> None:
        if not self.bitmap:
            self.current, self.bitmap = new, self.current

    def identifiers(self) -> Identifiers:
        return Identifiers(self.current | self.primary, self.bitmap, (*self.history, 0, 0)[:2])


class Pair:
    """DRBD between them (drbd_receiver.c, drbd_sync_handshake), as far as it decides who overwrites whom."""

    def __init__(self) -> None:
        self.sides = {SERVER: Machine(), BACKUP: Machine()}
        self.connected = False
        self.next = 0x100
        self.steps: list[tuple[Flavour, Turn]] = []
        self.interrupted: list[Flavour] = []

    def write(self, where: Flavour, what: str) -> None:
        side = self.sides[where]
        assert side.primary
        side.data.add(what)
        if self.connected:
            self.sides[where.other].data.add(what)
        else:
            self.next += 0x10
            side.begin_generation(self.next)
            side.changed.add(what)

    def promote(self, where: Flavour) -> None:
        side = self.sides[where]
        side.primary = True
        if not self.connected:
            self.next += 0x10
            side.begin_generation(self.next)

    def standing(self, where: Flavour) -> Standing:
        side = self.sides[where]
        state = ConnectionState.STANDALONE
        if self.connected:
            state = ConnectionState.CONNECTED
        elif side.connecting:
            state = ConnectionState.CONNECTING
        return Standing(
            role=Role.PRIMARY if side.primary else Role.SECONDARY,
            disk=DiskState.UP_TO_DATE,
            connection=state,
            replication=ReplicationState.ESTABLISHED if self.connected else ReplicationState.OFF,
            changed_bytes=len(side.changed) * MIB,
            identifiers=side.identifiers(),
            turned=side.turned,
            leftovers=bool(side.turned or side.held),
        )

    def look(self) -> dict[Flavour, Standing]:
        return {where: self.standing(where) for where in self.sides}

    def take(self, step: Step) -> None:
        self.steps.append((step.where, step.turn))
        if step.interrupts:
            self.interrupted.append(step.where)
        side = self.sides[step.where]
        match step.turn:
            case Turn.YIELD:
                side.primary = False
            case Turn.SERVE:
                self.promote(step.where)
                side.held = False
            case Turn.SETTLE:
                side.turned, side.held = None, False
            case Turn.BEGIN:
                self.next += 0x10
                side.current, side.bitmap = self.next, side.current
            case Turn.RECEIVE | Turn.DISCARD | Turn.CONNECT:
                side.connecting = True
                if step.turn is not Turn.CONNECT:
                    side.turned, side.keeps = step.turn, step.keep
                    side.discarding = step.turn is Turn.DISCARD
        if all(machine.connecting for machine in self.sides.values()) and not self.connected:
            self.handshake()

    def handshake(self) -> None:
        server, backup = self.sides[SERVER], self.sides[BACKUP]
        found = relation(server.identifiers(), backup.identifiers())
        if found is Relation.DIVERGED:
            losers = [where for where, side in self.sides.items() if side.discarding and not side.primary]
            assert len(losers) == 1, "a split brain"
            loser = losers[0]
        elif found is Relation.SAME:
            loser = None
        else:
            loser = BACKUP if found is Relation.NEWER else SERVER
        if loser is not None:
            side, winner = self.sides[loser], self.sides[loser.other]
            assert not side.primary, "a Primary is no target"
            if side.keeps:
                side.kept |= side.data
            side.data = set(winner.data)
            side.current = winner.current
        for side in self.sides.values():
            side.bitmap, side.history = 0, (side.bitmap,)
            side.changed.clear()
        self.connected = True

    def dropped(self) -> None:
        """As a handshake that before-resync-target has refused."""
        for side in self.sides.values():
            side.connecting = False

    def hand_over(self, want: Flavour, keep: Flavour | None = None) -> None:
        for _ in range(20):
            decided = decide(self.look(), want, keep)
            if isinstance(decided, Over):
                return
            assert isinstance(decided, Step), decided
            self.take(decided)
        pytest.fail(f"no end: {self.steps}")


def after_failover(*, server: bool, backup: bool, server_primary: bool = False) -> Pair:
    """The backup has taken over; either side was written to alone, or not."""
    pair = Pair()
    pair.sides[SERVER].primary = True
    if server:
        pair.write(SERVER, "server's")
    pair.promote(BACKUP)
    if backup:
        pair.write(BACKUP, "backup's")
    pair.sides[SERVER].primary = server_primary or server
    return pair


def test_case_1_nothing_was_written_on_the_backup() -> None:
    pair = after_failover(server=True, backup=False)
    pair.hand_over(SERVER)
    assert pair.sides[SERVER].data == pair.sides[BACKUP].data == {"old", "server's"}
    assert pair.interrupted == [BACKUP]


def test_case_2_only_the_backup_has_new_data_and_serves_until_both_are_the_same() -> None:
    pair = after_failover(server=False, backup=True)
    pair.hand_over(SERVER)
    assert pair.sides[SERVER].data == pair.sides[BACKUP].data == {"old", "backup's"}
    assert pair.interrupted == [BACKUP]
    assert pair.steps.index((BACKUP, Turn.YIELD)) > pair.steps.index((BACKUP, Turn.CONNECT))


def test_case_3_only_the_server_has_new_data() -> None:
    pair = after_failover(server=True, backup=False)
    pair.sides[BACKUP].primary = False
    pair.hand_over(SERVER)
    assert pair.sides[BACKUP].data == {"old", "server's"}
    assert pair.interrupted == []


@pytest.mark.parametrize("keep", Flavour)
def test_case_4_both_have_new_data_and_a_person_decides(keep: Flavour) -> None:
    pair = after_failover(server=True, backup=True)
    with pytest.raises(Refused, match="Both machines have data"):
        pair.hand_over(SERVER)
    assert pair.steps == []
    pair.hand_over(SERVER, keep)
    assert pair.sides[SERVER].data == pair.sides[BACKUP].data == {"old", f"{keep}'s"}
    assert f"{keep.other}'s" in pair.sides[keep.other].kept
    assert pair.sides[SERVER].primary


@pytest.mark.parametrize("keep", Flavour)
def test_a_person_may_keep_the_older_data_too(keep: Flavour) -> None:
    pair = after_failover(server=keep is BACKUP, backup=keep is SERVER)
    pair.hand_over(SERVER, keep)
    assert pair.sides[SERVER].data == pair.sides[BACKUP].data == {"old"}
    assert f"{keep.other}'s" in pair.sides[keep.other].kept


@pytest.mark.parametrize("want", Flavour)
def test_switchover_interrupts_once_and_loses_nothing(want: Flavour) -> None:
    pair = Pair()
    pair.connected = True
    for side in pair.sides.values():
        side.connecting = True
    pair.sides[want.other].primary = True
    pair.write(want.other, "new")
    pair.hand_over(want)
    assert pair.steps[:2] == [(want.other, Turn.YIELD), (want, Turn.SERVE)]
    assert pair.interrupted == [want.other]
    assert "new" in pair.sides[want].data


@given(
    st.booleans(), st.booleans(), st.booleans(), st.sampled_from([None, SERVER, BACKUP]), st.lists(st.integers(0, 8))
)
def test_broken_off_anywhere_and_taken_up_again_nothing_unsaid_is_given_up(
    server: bool, backup: bool, crashed: bool, keep: Flavour | None, breaks: list[int]
) -> None:
    pair = after_failover(server=server, backup=backup)
    if crashed:  # and came back, held
        pair.sides[SERVER].primary = False
    wanted = keep
    for number in breaks:
        for _ in range(number):
            try:
                decided = decide(pair.look(), SERVER, wanted)
            except Refused:
                assert server
                assert backup
                assert keep is None
                return
            if isinstance(decided, Step):
                pair.take(decided)
        # The next one is told nothing: what was decided is noted.
        wanted = None if pair.steps and any(turn is Turn.DISCARD for _, turn in pair.steps) else keep
    try:
        pair.hand_over(SERVER, wanted)
    except Refused:
        assert server
        assert backup
        assert keep is None
        return
    sides = pair.sides
    assert sides[SERVER].data == sides[BACKUP].data
    assert sides[SERVER].primary
    assert not sides[BACKUP].primary
    written = {"old"} | ({"server's"} if server else set()) | ({"backup's"} if backup else set())
    for what in written - sides[SERVER].data:
        assert any(what in side.kept for side in sides.values()), f"{what} is lost"


# -- what is waited for, and what is refused ------------------------------------------------------------


def together(**server: object) -> dict[Flavour, Standing]:
    pair = Pair()
    pair.connected = True
    pair.sides[BACKUP].primary = True
    sides = pair.look()
    return {**sides, SERVER: replace(sides[SERVER], **server)}  # type: ignore[arg-type]


def test_a_resync_is_waited_for_before_anybody_is_cut_off() -> None:
    assert isinstance(decide(together(replication=ReplicationState.SYNC_TARGET), SERVER), Wait)
    assert isinstance(decide(together(disk=DiskState.INCONSISTENT), SERVER), Wait)


@pytest.mark.parametrize("where", Flavour)
def test_what_only_one_of_them_has_noticed_is_waited_for(where: Flavour) -> None:
    sides = together()
    alone = replace(sides[where], connection=ConnectionState.STANDALONE)
    assert isinstance(decide({**sides, where: alone}, SERVER), Wait)


def test_the_end_of_the_copies_is_compared_before_the_other_machine_serves() -> None:
    sides = together()
    for change in ({"settled": False}, {"changed_bytes": 4096}):
        unsettled = {**sides, BACKUP: replace(sides[BACKUP], **change)}  # type: ignore[arg-type]
        assert isinstance(decide(unsettled, SERVER), Wait)


def test_what_a_person_holds_or_is_not_there_is_refused() -> None:
    with pytest.raises(Refused, match="held on the server: the array is rebuilt"):
        decide(together(blocked="the array is rebuilt"), SERVER)
    with pytest.raises(Refused, match="not attached on the server"):
        decide(together(disk=DiskState.DISKLESS), SERVER)
    with pytest.raises(Refused, match="Both machines are Primary"):
        decide(together(role=Role.PRIMARY), SERVER)


def test_copies_that_have_nothing_in_common_are_left_alone() -> None:
    pair = Pair()
    pair.sides[SERVER].current = 0x990
    with pytest.raises(Refused, match="no generation in common"):
        decide(pair.look(), SERVER, BACKUP)
