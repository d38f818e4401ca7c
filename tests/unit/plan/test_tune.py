"""What the kernel is told of a key that is set."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drbd_offsite import config
from drbd_offsite.errors import UsageError
from drbd_offsite.model import TUNABLE, Alerts
from drbd_offsite.observed import DiskState
from drbd_offsite.plan.tune import assignment, checked, current, kernel
from drbd_offsite.render import resync_after

from .. import make

NAMES = ("a", "b", "c", "d", "e")


@given(
    st.permutations(NAMES),
    st.lists(st.integers(-2, 2), min_size=5, max_size=5),
    st.lists(st.booleans(), min_size=5, max_size=5),
    st.sets(st.sampled_from(NAMES)),
)
def test_whatever_order_the_kernel_has_it_never_sees_a_circle_and_ends_with_the_right_one(
    chain: list[str], priorities: list[int], cut: list[bool], detached: set[str]
) -> None:
    """Half-told too, as an interrupted run leaves it."""
    resources = {
        name: replace(make.resource(name, number), priority=priority)
        for number, (name, priority) in enumerate(zip(NAMES, priorities, strict=True))
    }
    site = make.site(resources=resources)
    seen = [
        make.seen(name, minor=number, disk=DiskState.DISKLESS if name in detached else DiskState.UP_TO_DATE)
        for number, name in enumerate(NAMES)
    ]
    waits = {
        name: before
        for name, before, off in zip(chain[1:], chain, cut, strict=False)
        if name not in detached and not off
    }
    for step in kernel(site, make.host(drbd=seen), resources["a"], "priority"):
        name = NAMES[int(step.argv[2])]
        earlier = int(step.argv[3].removeprefix("--resync-after="))
        assert name not in detached
        waits.pop(name, None)
        if earlier >= 0:
            waits[name] = follow = NAMES[earlier]
            while follow in waits:
                follow = waits[follow]
                assert follow != name, "the kernel refuses a circle"
    assert waits == {name: before for name, before in resync_after(site).items() if name not in detached}


@pytest.mark.parametrize("key", TUNABLE)
def test_what_is_not_attached_or_not_there_is_told_nothing(key: str) -> None:
    site = make.site()
    for drbd in ([], [make.seen(disk=DiskState.DISKLESS)]):
        assert list(kernel(site, make.host(drbd=drbd), site.resources["test_a"], key)) == []


def test_a_value_is_checked_against_the_whole_file_and_written_once() -> None:
    assert checked(make.CONFIG, "test_a", "resync_rate", "00500") == "500"
    with pytest.raises(UsageError, match="resync_rate cannot be '10'"):
        checked(make.CONFIG, "test_a", "resync_rate", "10")
    site = config.parse(make.CONFIG)
    assert assignment(site, "test_a", "alerts", "all") == {}, "the default need not be written"
    assert assignment(site, "test_a", "alerts", "none") == {"resources.test_a.alerts": "none"}
    assert current(replace(make.resource(), alerts=Alerts.NONE), "alerts") == "none"
