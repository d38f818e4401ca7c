import pytest

from drbd_offsite import host, journal
from drbd_offsite.errors import Refused, ToolFailed
from drbd_offsite.model import Flavour, Site
from drbd_offsite.observed import Forbidden
from drbd_offsite.operations import down as module
from drbd_offsite.tools import drbd, filesystem

from .. import make
from ..conftest import Answer, Programs

SERVER, BACKUP = Flavour.SERVER, Flavour.BACKUP
CONNECTED = "exists connection name:test_a conn-name:backup connection:Connected role:Secondary\n"


def events(role: str = "Primary", replication: str = "Established", connected: bool = True) -> str:
    text = f"exists resource name:test_a role:{role} suspended:no\n"
    text += "exists device name:test_a volume:0 minor:0 disk:UpToDate\n"
    if connected:
        text += CONNECTED
        text += (
            f"exists peer-device name:test_a conn-name:backup volume:0 replication:{replication} peer-disk:UpToDate\n"
        )
    return text


@pytest.fixture(autouse=True)
def _machine(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    host.PROC_DRBD.write_text("version: 8.4.11 (api:1/proto:86-101)\n")
    programs.allow(drbd.EVENTS, events())
    programs.allow(drbd.adm("secondary", "test_a"))
    programs.allow(drbd.adm("down", "test_a"))

    def disconnect(_: str) -> Answer:
        programs.allow(drbd.EVENTS, events(connected=False))
        return Answer()

    programs.allow(drbd.adm("disconnect", "test_a"), disconnect)
    ticks = iter(range(10**6))
    monkeypatch.setattr("time.monotonic", lambda: float(next(ticks)))
    monkeypatch.setattr("time.sleep", lambda _: None)


def down(flavour: Flavour = SERVER, *, shutdown: bool = False) -> list[str]:
    told: list[str] = []
    site: Site = make.site(flavour)
    module.down(site, site.resources["test_a"], shutdown, told.append)
    return told


def changes(programs: Programs) -> list[str]:
    return [" ".join(argv) for argv in programs.ran if argv[0] in ("drbdadm", "umount")]


def test_it_is_demoted_and_taken_out_of_the_kernel_and_held_so(programs: Programs) -> None:
    told = down()
    assert changes(programs) == ["drbdadm secondary test_a", "drbdadm disconnect test_a", "drbdadm down test_a"]
    assert journal.holds()["test_a"][0].forbids == set(Forbidden)
    assert journal.events()[-1]["event"] == "down"
    assert "its data stays on local/test_a" in told[-1]


def test_what_the_peer_was_asked_is_asked_anew_when_it_comes_up_again() -> None:
    """An hour later the backup may have taken over."""
    host.consult("test_a", free=True)
    down()
    assert host.observe(make.site()).consulted == {}


def test_a_backup_is_only_taken_down(programs: Programs) -> None:
    programs.allow(drbd.EVENTS, events("Secondary"))
    down(BACKUP)
    assert changes(programs) == ["drbdadm disconnect test_a", "drbdadm down test_a"]


def test_two_machines_that_leave_at_once_refuse_each_other_only_at_first(programs: Programs) -> None:
    """Seen when both were stopped at the same instant; `drbdadm down` gives up at the first refusal."""
    refusal = "test_a: State change failed: (-10) State change was refused by peer node"

    def disconnect(_: str) -> Answer:
        programs.allow(drbd.EVENTS, events(connected=False))
        return Answer()

    programs.allow(drbd.adm("disconnect", "test_a"), Answer("", 11, refusal), disconnect)
    down(shutdown=True)
    assert changes(programs)[-3:] == ["drbdadm disconnect test_a"] * 2 + ["drbdadm down test_a"]
    programs.allow(drbd.EVENTS, events())
    programs.allow(drbd.adm("disconnect", "test_a"), Answer("", 11, refusal))
    with pytest.raises(ToolFailed, match="refused by peer node"):
        down(shutdown=True)


def test_at_shutdown_nothing_is_held(programs: Programs) -> None:
    down(shutdown=True)
    assert "drbdadm down test_a" in changes(programs)
    assert journal.holds() == {}


def mounted(*targets: str) -> None:
    host.MOUNTINFO.write_text("".join(f"1 1 147:0 / {t} rw - ext4 /dev/drbd0\n" for t in targets))


def test_a_mounted_one_is_refused_and_nothing_is_held(programs: Programs) -> None:
    mounted("/srv/a", "/mnt")
    with pytest.raises(Refused, match="mounted at /srv/a, /mnt") as raised:
        down()
    assert raised.value.hint.startswith("umount ")
    assert changes(programs) == []
    assert journal.holds() == {}


def test_at_shutdown_a_mounted_one_is_unmounted_inside_out(programs: Programs) -> None:
    targets = ["/srv/a", "/srv/a/inner"]
    mounted(*targets)

    def unmount(_: str) -> Answer:
        targets.pop()
        mounted(*targets)
        return Answer()

    programs.allow(filesystem.unmount("/srv/a/inner"), unmount)
    programs.allow(filesystem.unmount("/srv/a"), unmount)
    down(shutdown=True)
    assert changes(programs)[:2] == ["umount /srv/a/inner", "umount /srv/a"]


def test_at_shutdown_what_stays_busy_is_told_and_not_torn_away(programs: Programs) -> None:
    mounted("/srv/a")
    programs.allow(filesystem.unmount("/srv/a"), Answer("", 32, "target is busy"))
    with pytest.raises(Refused, match="mounted at /srv/a"):
        down(shutdown=True)
    assert not any(c.startswith("drbdadm") for c in changes(programs))


def test_the_backup_gets_what_it_lacks_first(programs: Programs) -> None:
    programs.allow(drbd.EVENTS, events(), events(replication="SyncSource"), events(replication="Ahead"), events())
    told = down()
    assert "sending the backup what it lacks" in told[0]
    assert changes(programs)[-1] == "drbdadm down test_a"


def test_it_does_not_wait_for_ever(programs: Programs) -> None:
    programs.allow(drbd.EVENTS, events(replication="SyncSource"))
    told = down()
    assert "sent when both are up again" in told[1]
    assert changes(programs)[-1] == "drbdadm down test_a"


@pytest.mark.parametrize("connected", [True, False])
def test_nothing_is_waited_for_where_waiting_has_no_point(programs: Programs, connected: bool) -> None:
    programs.allow(drbd.EVENTS, events(connected=connected))
    assert len(down()) == 1


def test_one_that_is_not_up_is_down_already(programs: Programs) -> None:
    programs.allow(drbd.EVENTS, "exists -\n")
    assert down() == []
    assert changes(programs) == []


def test_one_in_use_says_how_to_see_by_whom(programs: Programs) -> None:
    programs.allow(drbd.adm("secondary", "test_a"), Answer("", 11, "State change failed: Device is held open"))
    with pytest.raises(ToolFailed, match="held open") as raised:
        down()
    assert "fuser -v /dev/drbd0" in raised.value.hint
