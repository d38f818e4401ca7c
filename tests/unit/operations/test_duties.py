"""What the watcher sees to beside the circle."""

import pytest

from drbd_offsite.errors import ToolFailed
from drbd_offsite.model import Site
from drbd_offsite.observed import Host
from drbd_offsite.operations import alerting, drill, duties, evidence, history, inspect, metrics, remove, repair, slices

from .. import make


@pytest.mark.parametrize(
    ("end", "words"),
    [(ToolFailed("lvm failed.", "see lvs"), "lvm failed. see lvs"), (OSError(28, "No space left"), "No space left")],
)
def test_a_duty_that_fails_does_not_keep_the_others_back(
    end: Exception, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Least of all the alert of it."""
    done: list[str] = []

    def failing(*_: object) -> None:
        done.append("failing")
        raise end

    def well(site: Site, host: Host) -> None:
        assert site.resources
        assert host.hostname
        done.append("well")

    monkeypatch.setattr(duties, "DUTIES", (failing, well))
    told: list[str] = []
    duties.see_to(make.site(), make.host(), told.append)
    assert done == ["failing", "well"]
    assert words in told[0]


def test_an_alert_says_what_the_others_have_found_out() -> None:
    assert duties.DUTIES.index(evidence.gather) < duties.DUTIES.index(alerting.review)
    assert duties.DUTIES[duties.DUTIES.index(alerting.review) + 1 :] == (metrics.leave,), "which finds nothing out"


def test_what_a_killed_look_has_left_and_whose_drills_are_waited_for_are_duties() -> None:
    assert {inspect.sweep, drill.follow_up} <= set(duties.DUTIES)


def test_a_sample_a_minute_is_a_duty() -> None:
    assert history.keep in duties.DUTIES


def test_what_was_removed_without_the_backup_is_a_duty() -> None:
    assert remove.follow_up in duties.DUTIES


def test_slices_come_after_repairs_which_need_the_line_more() -> None:
    assert duties.DUTIES.index(repair.follow_up) + 1 == duties.DUTIES.index(slices.follow_up)
