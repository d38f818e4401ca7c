"""Who serves a resource is changed in order: ``failback`` and ``switchover``. Pure.

There is no list of steps to be followed: each look at both machines tells the one next step, so that it can be broken
off anywhere and taken up from either machine. What is overwritten is decided by the generation identifiers and by
what each side has written alone, or by a person.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import Refused
from ..model import Flavour, Turn
from ..observed import ConnectionState, DiskState, ReplicationState, Role
from ..tools.drbd import Identifiers
from .assess import amount
from .generations import Relation, relation

SETTER = "handed-over"
"""Of the hold on a machine that has given a resource away, and does not take it back by itself."""

PROMOTING = frozenset({SETTER, "taken-over", "returning", "discards"})
"""Setters of holds that end when a machine is told to serve."""
CONNECTING = frozenset({"failover", "taken-over", "split-brain", "disconnect", "restore-point"})
"""Setters of holds that end when a person wants the two connected."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How a resource stands on one of the two machines."""

    role: Role
    disk: DiskState
    connection: ConnectionState
    replication: ReplicationState
    changed_bytes: int
    """Known to differ from the other copy; while not connected: written here since."""
    identifiers: Identifiers | None
    """None where they were not asked for: of two that are connected they say nothing."""
    turned: Turn | None = None
    """The last step of this handover that was taken here, as far as it can not be seen."""
    settled: bool = True
    """The end of the copies needs no comparison, and nothing that one has found has to be sent."""
    leftovers: bool = False
    """Something of a handover is noted here that has no meaning any more once it is over."""
    blocked: str = ""
    """Why a person's hold forbids to connect or to serve; empty where none does."""
    kept: str = ""
    """The snapshot that keeps what was given up here; empty where there is none."""
    hindered: str = ""
    """Why a resync to this machine was refused the last time: there was no room for what it overwrites."""

    @property
    def serves(self) -> bool:
        return self.role is Role.PRIMARY

    @property
    def connected(self) -> bool:
        return self.connection is ConnectionState.CONNECTED

    @property
    def alone(self) -> bool:
        return self.connection is ConnectionState.STANDALONE


@dataclass(frozen=True, slots=True)
class Step:
    """What is to be done next, on which machine."""

    where: Flavour
    turn: Turn
    why: str
    keep: bool = False
    """What is overwritten there is kept in a snapshot until a person (or the time) removes it."""
    interrupts: bool = False
    """Whoever uses the resource on that machine is cut off."""


@dataclass(frozen=True, slots=True)
class Wait:
    reason: str


@dataclass(frozen=True, slots=True)
class Over:
    """It is served where it is wanted, and both copies are up to date."""


FINDING = "the two machines find each other"

Sides = Mapping[Flavour, Standing]


def decide(sides: Sides, want: Flavour, keep: Flavour | None = None) -> Step | Wait | Over:
    """The next step on the way to ``want`` serving, with both copies the same.

    ``keep`` names the side whose data stay where both have changed. Raises Refused where a person has to decide.
    """
    for flavour, side in sides.items():
        if side.disk in (DiskState.DISKLESS, DiskState.FAILED):
            raise Refused(
                f"It is not attached on the {flavour}.",
                f"On the {flavour}: drbd-offsite up, then the same command again.",
            )
        if side.blocked:
            raise Refused(
                f"It is held on the {flavour}: {side.blocked}.",
                f"On the {flavour}: drbd-offsite status says how to end that.",
            )
    if all(side.connected for side in sides.values()):
        return _together(sides, want)
    if any(side.connected for side in sides.values()):
        return Wait(FINDING)  # one has noticed, and the other not yet
    return _apart(sides, want, keep)


def _together(sides: Sides, want: Flavour) -> Step | Wait | Over:
    other = want.other
    if all(side.serves for side in sides.values()):
        raise Refused("Both machines are Primary.", "Stop what uses it on one of them, there: drbdadm secondary")
    if any(side.replication is not ReplicationState.ESTABLISHED for side in sides.values()):
        return Wait("the two copies are made the same")
    if any(side.disk is not DiskState.UP_TO_DATE for side in sides.values()):
        return Wait("one of the copies is not up to date")
    if sides[want].serves:
        for flavour, side in sides.items():
            if side.leftovers:
                return Step(flavour, Turn.SETTLE, f"the {want} serves it, and both copies are the same")
        return Over()
    if sides[other].serves:
        if sides[other].changed_bytes or not sides[other].settled:
            return Wait("the end of the two copies is compared")
        return Step(other, Turn.YIELD, f"the {want} is to serve it", interrupts=True)
    return Step(want, Turn.SERVE, "nobody serves it")


def _apart(sides: Sides, want: Flavour, keep: Flavour | None) -> Step | Wait:
    found = _relation(sides)
    loser, why = _loser(sides, found, want, keep)
    winner = loser.other
    # Whether DRBD makes that side the target without being told.
    natural = found in (Relation.SAME, Relation.NEWER if loser is Flavour.BACKUP else Relation.OLDER)
    turn = Turn.RECEIVE if natural else Turn.DISCARD
    side = sides[loser]
    if side.serves:
        return Step(loser, Turn.YIELD, why, interrupts=True)
    if side.alone or side.turned is not turn:
        # A bitmap without a bit is no proof that nothing was written: an attach forgets the last (plan/repair.py).
        return Step(loser, turn, why, keep=turn is Turn.DISCARD or side.changed_bytes > 0)
    if sides[winner].alone:
        if not natural and found is not Relation.DIVERGED:
            return Step(winner, Turn.BEGIN, why)
        return Step(winner, Turn.CONNECT, why)
    return Wait(FINDING)


def _relation(sides: Sides) -> Relation:
    """Of the server's copy to the backup's. Raises Refused where it says nothing."""
    server, backup = (sides[flavour].identifiers for flavour in (Flavour.SERVER, Flavour.BACKUP))
    found = relation(server, backup) if server and backup else Relation.UNRELATED
    if found is Relation.UNRELATED:
        raise Refused(
            "The two copies have no generation in common, so which is newer cannot be known.",
            "Nothing was changed. One of them has to be made anew: if the server's is the one to keep, remove and add "
            "on the server.",
        )
    return found


def _loser(sides: Sides, found: Relation, want: Flavour, keep: Flavour | None) -> tuple[Flavour, str]:
    """The side that takes the other one's data, and why."""
    server, backup = sides[Flavour.SERVER], sides[Flavour.BACKUP]
    given_up = next((flavour for flavour, side in sides.items() if side.turned is Turn.DISCARD), None)
    if found is Relation.SAME:
        # Neither has changed, so whoever receives loses nothing.
        if server.serves is backup.serves:
            return want.other, "both copies are of the same generation"
        return (Flavour.BACKUP if server.serves else Flavour.SERVER), "both copies are of the same generation"
    if keep is not None:
        return keep.other, f"the data on the {keep} are kept"
    if given_up is not None:
        return given_up, f"what was changed on the {given_up} is given up"
    if found is Relation.NEWER:
        return Flavour.BACKUP, "only the server has new data"
    if found is Relation.OLDER:
        return Flavour.SERVER, "only the backup has new data"
    if not backup.changed_bytes:
        return Flavour.BACKUP, "nothing was written on the backup"
    if not server.changed_bytes:
        return Flavour.SERVER, "nothing was written on the server"
    raise Refused(
        f"Both machines have data that the other lacks: the server {amount(server.changed_bytes)}, the backup "
        f"{amount(backup.changed_bytes)}.",
        "--diff lists what differs file by file, --copy PATH brings files over to the machine whose data are to be "
        "kept, and --keep server or --keep backup decides. What is given up is kept in a snapshot.",
    )
