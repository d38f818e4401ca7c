"""The kernel is told by one program a resource, and one look tells which."""

from pathlib import Path

import pytest

from drbd_offsite import journal
from drbd_offsite.errors import ToolFailed
from drbd_offsite.model import Hours
from drbd_offsite.observed import DiskState, ReplicationState
from drbd_offsite.operations import repair, schedule
from drbd_offsite.plan.findings import Cause, Check, Findings, as_entry
from drbd_offsite.tools import drbd, drbd_dump

from .. import make
from ..conftest import Programs

SHOWN = (Path(__file__).parents[2] / "data/adopt/show.txt").read_text().replace("9155k", "12207k")
ALWAYS = ((Hours.parse("mon-sun 00:00-24:00"), 50),)
HALF = drbd.resync_rate(0, 6103, 1024, 305)
LINE = ("ipv4:10.89.33.1:7789", "ipv4:10.89.33.2:7789")
HOST = make.host(drbd=[make.seen()])


def test_what_is_attached_gets_the_share_of_this_hour(programs: Programs) -> None:
    programs.allow(drbd_dump.RUNNING, SHOWN)
    programs.allow(HALF)
    schedule.keep(make.site(schedule=ALWAYS), HOST)
    assert programs.ran == [drbd_dump.RUNNING, HALF]


def test_without_a_schedule_the_whole_line_is_what_the_files_say(programs: Programs) -> None:
    programs.allow(drbd_dump.RUNNING, SHOWN)
    schedule.keep(make.site(), HOST)
    assert programs.ran == [drbd_dump.RUNNING]


def test_a_first_sync_makes_writes_wait_and_its_end_lets_them_go(programs: Programs) -> None:
    first = make.seen(replication=ReplicationState.SYNC_SOURCE, peer_disk=DiskState.INCONSISTENT)
    block, pull_ahead = (drbd.on_congestion(*LINE, policy, 6144) for policy in ("block", "pull-ahead"))
    programs.allow(drbd_dump.RUNNING, SHOWN, SHOWN.replace("pull-ahead", "block"))
    programs.allow(block)
    programs.allow(pull_ahead)
    schedule.keep(make.site(), make.host(drbd=[first]))
    schedule.keep(make.site(), HOST)
    assert programs.ran == [drbd_dump.RUNNING, block, drbd_dump.RUNNING, pull_ahead]


def test_where_nothing_is_up_nobody_is_asked(programs: Programs) -> None:
    schedule.keep(make.site(schedule=ALWAYS), make.host())
    assert not programs.ran


def test_numbers_that_are_not_understood_change_nothing(programs: Programs) -> None:
    programs.allow(drbd_dump.RUNNING, SHOWN.replace("12207k", "12207x"))
    with pytest.raises(ToolFailed, match="not understood"):
        schedule.keep(make.site(schedule=ALWAYS), HOST)


def test_what_a_slice_is_compared_of_has_the_slice_s_rate_until_that_has_ended(programs: Programs) -> None:
    check = Check("2026-11-23T01:00:00+00:00", 0, 80000, cause=Cause.SLICE)
    journal.remember(repair.KIND, "test_a", as_entry(Findings(check=check)))
    sliced = drbd.resync_rate(0, 20 * 1024, 1024, 610)
    programs.allow(drbd_dump.RUNNING, SHOWN)
    programs.allow(sliced)
    schedule.keep(make.site(), make.host(drbd=[make.seen(replication=ReplicationState.VERIFY_SOURCE)]))
    assert programs.ran == [drbd_dump.RUNNING, sliced]
    programs.ran.clear()
    back = drbd.resync_rate(0, 12207, 1024, 610)
    programs.allow(drbd_dump.RUNNING, SHOWN.replace("12207k", "20480k"))
    programs.allow(back)
    schedule.keep(make.site(), HOST)
    assert programs.ran == [drbd_dump.RUNNING, back]
