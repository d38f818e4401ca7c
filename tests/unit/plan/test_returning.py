"""A server comes back after its backup has taken over."""

from dataclasses import replace

import pytest

from drbd_offsite.model import Flavour
from drbd_offsite.observed import ConnectionState, DiskState, DrbdResource, Forbidden, Hold, ReplicationState, Role
from drbd_offsite.plan.actions import Action, Lift, Promote
from drbd_offsite.plan.circle import RETURNING, decide

from .. import make

HOLD = Hold("test_a", "older", frozenset({Forbidden.PROMOTE}), "2026-01-01T00:00:00+00:00", RETURNING)


def actions(seen: DrbdResource) -> tuple[Action, ...]:
    site = make.site(Flavour.SERVER)
    return decide(site, make.host(drbd=[seen], holds={"test_a": (HOLD,)}), site.resources["test_a"]).actions


def seen(peer_role: Role, **changes: object) -> DrbdResource:
    found = make.seen(role=Role.SECONDARY, **changes)  # type: ignore[arg-type]
    return replace(found, connections=tuple(replace(line, role=peer_role) for line in found.connections))


def test_it_serves_again_when_it_has_the_newest_data_and_the_backup_serves_it_no_more() -> None:
    (lift,) = actions(seen(Role.SECONDARY))
    assert isinstance(lift, Lift)
    assert (lift.resource, lift.set_by) == ("test_a", RETURNING)


@pytest.mark.parametrize(
    "not_yet",
    [
        seen(Role.PRIMARY),
        seen(Role.UNKNOWN),
        seen(Role.SECONDARY, disk=DiskState.INCONSISTENT, replication=ReplicationState.SYNC_TARGET),
        seen(Role.SECONDARY, disk=DiskState.OUTDATED),
        seen(Role.SECONDARY, peer_disk=DiskState.UNKNOWN),
        seen(Role.SECONDARY, replication=ReplicationState.BITMAP_TARGET),
        seen(Role.SECONDARY, state=ConnectionState.CONNECTING),
        seen(Role.SECONDARY, state=None),
    ],
    ids=["served", "unknown", "resync", "outdated", "peer's disk", "before the resync", "connecting", "alone"],
)
def test_until_then_it_is_not_promoted_and_the_hold_stays(not_yet: DrbdResource) -> None:
    assert not [action for action in actions(not_yet) if isinstance(action, Lift | Promote)]


def test_it_connects_to_get_the_newer_data() -> None:
    (connect,) = actions(seen(Role.SECONDARY, state=None))
    assert "connect" in str(connect)
