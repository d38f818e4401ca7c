from datetime import UTC, datetime

from drbd_offsite.model import Hours
from drbd_offsite.plan import schedule
from drbd_offsite.render import limits
from drbd_offsite.tools.drbd_dump import ResyncLimits

from .. import make

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
NIGHT = datetime(2026, 11, 23, 23, tzinfo=UTC)
OFFICE = ((Hours.parse("mon-fri 08:00-18:00"), 30),)


def rates(share: int, own: int = 0) -> ResyncLimits:
    wanted = limits(100, own, share)
    return ResyncLimits(wanted.max_rate, wanted.min_rate, wanted.fill_target)


def test_in_its_hours_a_resync_gets_its_share_of_the_line_and_afterwards_all_of_it() -> None:
    site = make.site(schedule=OFFICE)
    (told,) = schedule.steps(site, {0: rates(100)}, NOON)
    assert told.argv[:3] == ("drbdsetup", "disk-options", "0")
    assert f"--c-max-rate={rates(30).max_rate}k" in told.argv
    (told,) = schedule.steps(site, {0: rates(30)}, NIGHT)
    assert f"--c-max-rate={rates(100).max_rate}k" in told.argv


def test_the_kernel_is_not_told_what_it_does_already_nor_of_what_is_not_attached() -> None:
    site = make.site(schedule=OFFICE)
    assert not list(schedule.steps(site, {0: rates(30)}, NOON))
    assert not list(schedule.steps(site, {}, NOON))


def test_the_first_entry_that_fits_counts() -> None:
    site = make.site(schedule=(*OFFICE, (Hours.parse("mon 00:00-24:00"), 5)))
    assert (site.line_share(NOON), site.line_share(NIGHT)) == (30, 5)


def test_a_share_is_a_share_of_a_resource_s_own_limit_too_and_no_less_than_drbd_takes() -> None:
    assert rates(50, own=1000).max_rate == 500
    assert rates(1, own=1000).max_rate == 250
    assert rates(30).max_rate < rates(100).max_rate


def test_while_a_slice_is_compared_its_rate_counts_and_afterwards_the_line_s() -> None:
    site = make.site(schedule=OFFICE)
    (told,) = schedule.steps(site, {0: rates(30)}, NOON, {"test_a"})
    assert f"--c-max-rate={20 * 1024}k" in told.argv
    assert f"--c-min-rate={rates(30).min_rate}k" in told.argv, "above that the application's I/O goes first"
    assert "at 20 MiB/s at most" in told.why
    sliced = rates(30)._replace(max_rate=20 * 1024)
    assert not list(schedule.steps(site, {0: sliced}, NOON, {"test_a"}))
    (told,) = schedule.steps(site, {0: sliced}, NOON)
    assert f"--c-max-rate={rates(30).max_rate}k" in told.argv
