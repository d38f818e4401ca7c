import pytest

from drbd_offsite import host, journal
from drbd_offsite.errors import Refused, ToolFailed
from drbd_offsite.model import Flavour
from drbd_offsite.observed import Forbidden
from drbd_offsite.operations.discard import discard_here
from drbd_offsite.operations.restore_point import DISCARDS, KEPT, after_resync
from drbd_offsite.tools import drbd, lvm

from .. import make
from ..conftest import Answer, Programs
from .test_down import events

CONNECT = drbd.adm("connect", "test_a", "--discard-my-data")
SECONDARY = drbd.adm("secondary", "test_a")


@pytest.fixture(autouse=True)
def _split_brain(programs: Programs) -> None:
    host.PROC_DRBD.write_text("version: 8.4.11 (api:1/proto:86-101)\n")
    programs.allow(drbd.EVENTS, events("Primary", connected=False))
    programs.allow(SECONDARY)
    programs.allow(CONNECT)
    journal.hold("test_a", "split brain", frozenset({Forbidden.CONNECT}), "split-brain")


def discard(*, safety_net: bool = True) -> list[str]:
    told: list[str] = []
    site = make.site(Flavour.SERVER)
    discard_here(site, site.resources["test_a"], safety_net, told.append)
    return told


def holders() -> list[str]:
    return [hold.set_by for hold in journal.holds().get("test_a", ())]


def test_the_changes_here_are_given_up_and_nothing_serves_them_meanwhile(programs: Programs) -> None:
    told = discard()
    assert [argv for argv in programs.ran if argv[0] == "drbdadm"] == [SECONDARY, CONNECT]
    (hold,) = journal.holds()["test_a"]
    assert (hold.set_by, hold.forbids) == (DISCARDS, {Forbidden.PROMOTE}), "or the server would serve it again at once"
    assert "drbd-offsite connect test_a" in told[-1], "what is to be done on the other machine"


@pytest.mark.parametrize("safety_net", [True, False])
def test_the_handler_will_know_whether_a_snapshot_is_required(safety_net: bool) -> None:
    discard(safety_net=safety_net)
    assert journal.remembered(DISCARDS)["test_a"] == {"safety_net": safety_net}


def test_the_end_of_the_resync_ends_it(programs: Programs) -> None:
    discard()
    programs.allow(lvm.REPORT, '{"report": []}')
    assert after_resync("test_a", "local/test_a", print) == 0
    assert holders() == []
    assert journal.remembered(DISCARDS) == {}


def test_without_a_split_brain_nothing_is_discarded(programs: Programs) -> None:
    journal.lift("test_a", "a person")
    with pytest.raises(Refused, match="no split brain"):
        discard()
    assert [argv for argv in programs.ran if argv[0] == "drbdadm"] == []
    assert journal.remembered(DISCARDS) == {}


def test_what_is_mounted_is_not_discarded(programs: Programs) -> None:
    host.MOUNTINFO.write_text("1 1 147:0 / /srv/data rw - ext4 /dev/drbd0\n")
    with pytest.raises(Refused, match="mounted at /srv/data"):
        discard()
    assert [argv for argv in programs.ran if argv[0] == "drbdadm"] == []
    assert holders() == ["split-brain"]


@pytest.mark.parametrize("failing", [SECONDARY, CONNECT])
def test_one_that_was_broken_off_can_be_done_again(programs: Programs, failing: tuple[str, ...]) -> None:
    programs.allow(failing, Answer("", 17, "State change failed"), Answer())
    with pytest.raises(ToolFailed):
        discard()
    assert "split-brain" in holders(), "it stays apart"
    discard()
    assert holders() == [DISCARDS]


def test_what_was_given_up_earlier_is_not_overwritten() -> None:
    journal.remember(KEPT, "test_a", {"volume": "local/test_a_discarded"})
    with pytest.raises(Refused, match="local/test_a_discarded on the server still keeps"):
        discard()
    assert holders() == ["split-brain"]
