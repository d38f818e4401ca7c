import socket
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from drbd_offsite import host, journal
from drbd_offsite.errors import ToolFailed
from drbd_offsite.model import MetadataPlace, Tunnel, VolumeName
from drbd_offsite.observed import Consultation, DiskState, Forbidden, Mount, Role
from drbd_offsite.remembered import Averages, Rates
from drbd_offsite.tools import drbd, filesystem, lvm

from . import make
from .conftest import Answer, Programs

DATA = Path(__file__).parents[1] / "data"
PLACE = MetadataPlace(VolumeName("local", "drbd_meta"), 3)
SITE = make.site(resources=("test_a", "test_b"))
EVENTS = """\
exists resource name:test_a role:Primary suspended:no write-ordering:flush
exists device name:test_a volume:0 minor:0 disk:UpToDate size:1048576
exists -
"""
PROC = """\
version: 8.4.11 (api:1/proto:86-101)
 0: cs:Connected ro:Primary/Secondary ds:UpToDate/UpToDate A r-----
    ns:0 nr:0 dw:0 dr:0 al:0 bm:0 lo:0 pe:2 ua:1 ap:4 ep:1 wo:f oos:0
"""
REPORT = (DATA / "lvm/replicating-server.json").read_text()
is_here = host._is_here
"""The real one."""


def machine(programs: Programs, proc: str = PROC) -> None:
    programs.allow(lvm.REPORT, REPORT)
    programs.allow(drbd.EVENTS, EVENTS)
    programs.addresses.add("10.89.33.1")
    host.PROC_DRBD.parent.mkdir(exist_ok=True)
    host.PROC_DRBD.write_text(proc)
    host.MOUNTINFO.write_text((DATA / "mountinfo/escapes.txt").read_text())


def activate(*volumes: str) -> None:
    for volume in volumes:
        path = host.DEVICES / volume
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_what_is_known_of_the_pace_is_part_of_a_look(programs: Programs) -> None:
    machine(programs)
    now = datetime.now(UTC)
    known = {"test_a": now - timedelta(minutes=5), "test_b": now + timedelta(minutes=5)}
    at = {name: instant.isoformat() for name, instant in known.items()}
    journal.remember(host.COMPLETE, "backup", at | {"gone": "yesterday", "zoneless": "2026-01-01T00:00:00"})
    seen = host.observe(SITE)
    assert 300 <= seen.ages.pop("test_a") < 310
    assert seen.ages == {"test_b": 0.0}, "its clock is ahead, and it is not younger than new"
    assert seen.rates == {}
    entry = {
        "at": now.timestamp(),
        "serving": True,
        "connected": True,
        "looks": [],
        "averages": [1.0, None, None, None],
    }
    journal.remember(journal.HISTORY, "test_a", entry)
    journal.remember(journal.HISTORY, "test_b", entry | {"at": now.timestamp() - 3600})
    assert host.observe(SITE).rates == {"test_a": Rates(Averages(written_minute=1.0))}


def test_one_look_is_one_program_however_many_resources_there_are(programs: Programs) -> None:
    """The circle looks after each step, and LVM takes its time."""
    machine(programs)
    seen = host.observe(SITE)
    assert programs.ran == [drbd.EVENTS]
    assert seen.drbd["test_a"].role is Role.PRIMARY
    assert seen.drbd["test_a"].disk is DiskState.UP_TO_DATE
    assert Mount((254, 0), "/", "ext4", "/dev/vda") in seen.mounts
    assert seen.drbd_version == "8.4.11"
    assert seen.in_flight == {0: 7}
    assert (seen.problems, seen.blind) == ((), False)
    assert (seen.volumes, seen.groups) == ({}, {})


def test_a_mounted_btrfs_is_known_by_its_device(programs: Programs) -> None:
    """Its mounts have numbers of their own, so a volume with one looked as if nobody used it."""
    machine(programs)
    lines = ("btrfs /dev/null", "btrfs /dev/gone", "tmpfs tmpfs")
    host.MOUNTINFO.write_text("".join(f"40 28 0:3{n} / /srv/{n} rw - {line} rw\n" for n, line in enumerate(lines)))
    assert [mount.devno for mount in host.observe(SITE).mounts] == [(1, 3), (0, 31), (0, 32)]


def test_a_survey_is_two_programs_and_has_every_volume_and_group(programs: Programs) -> None:
    machine(programs)
    seen = host.survey(SITE)
    assert sorted(programs.ran) == [drbd.EVENTS, lvm.REPORT]
    assert VolumeName("local", "test_a") in seen.volumes
    assert "local" in seen.groups
    assert seen.drbd["test_a"].role is Role.PRIMARY


def test_a_volume_is_active_when_it_has_a_device(programs: Programs) -> None:
    machine(programs)
    activate("local/test_a", "local/drbd_meta", "local/other", "elsewhere/test_b")
    assert host.observe(SITE).active == {VolumeName("local", "test_a"), VolumeName("local", "drbd_meta")}


def test_of_the_addresses_the_site_s_own_are_looked_for(programs: Programs) -> None:
    machine(programs)
    programs.addresses.update({"10.89.34.1", "192.0.2.1"})
    second = Tunnel(make.TUNNEL.mode, "tun1", make.TUNNEL.dials, "", 1195, "10.89.34.1", "10.89.34.2")
    third = replace(second, server_address="10.89.35.1")
    peers = {
        name: make.peer(tunnel=tunnel)
        for name, tunnel in {"backup": make.TUNNEL, "second": second, "third": third}.items()
    }
    assert host.observe(replace(SITE, peers=peers)).addresses == {"10.89.33.1", "10.89.34.1"}


def test_an_address_is_here_when_a_socket_can_have_it() -> None:
    """What DRBD will find when it connects, without a program."""
    assert is_here("127.0.0.1")
    assert not is_here("192.0.2.1"), "an address of no machine (RFC 5737)"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as busy:
        busy.bind(("127.0.0.1", 0))
        assert is_here("127.0.0.1"), "whoever else uses it"


def test_without_the_module_drbd_is_not_asked(programs: Programs) -> None:
    machine(programs, proc="")
    assert host.observe(SITE).drbd_version == ""
    assert programs.ran == []
    host.PROC_DRBD.unlink()
    seen = host.observe(SITE)
    assert (seen.drbd, seen.blind) == ({}, False), "and that is seen, not guessed"


@pytest.mark.parametrize(
    "answer", [Answer("", 5, "locking failed"), Answer("no JSON"), Answer('{"report": [1]}'),
               Answer('{"report": [{"vg": [{"vg_name": "x"}]}]}')],
)  # fmt: skip
def test_an_lvm_that_fails_is_named_once_and_the_rest_is_seen(programs: Programs, answer: Answer) -> None:
    machine(programs)
    programs.allow(lvm.REPORT, answer)
    seen = host.survey(SITE)
    assert len(seen.problems) == 1
    assert "test_a" in seen.drbd
    assert not seen.blind
    assert host.look_again(SITE, seen).problems == seen.problems


def test_a_drbd_that_cannot_be_seen_is_not_a_drbd_without_resources(programs: Programs) -> None:
    machine(programs)
    programs.allow(drbd.EVENTS, Answer("", 20, "netlink is not there"))
    seen = host.observe(SITE)
    assert seen.blind
    assert seen.drbd == {}
    assert "netlink is not there" in seen.problems[0]
    assert host.look_again(SITE, seen).problems == seen.problems


def test_looking_again_sees_everything_anew_and_keeps_what_lvm_said(programs: Programs) -> None:
    machine(programs)
    first = host.survey(SITE)
    programs.ran.clear()
    host.MOUNTINFO.write_text("")
    programs.addresses.clear()
    programs.allow(drbd.EVENTS, EVENTS.replace("Primary", "Secondary"))
    journal.hold("test_a", "x", frozenset({Forbidden.CONNECT}), "test")
    journal.begin("add", "test_b", {})
    again = host.look_again(SITE, first)
    assert programs.ran == [drbd.EVENTS]
    assert again.drbd["test_a"].role is Role.SECONDARY
    assert (again.mounts, again.addresses) == ((), frozenset())
    assert "test_a" in again.holds
    assert "add-test_b" in again.operations
    assert (again.volumes, again.groups) == (first.volumes, first.groups)


def test_an_unfinished_operation_that_cannot_be_read_is_named_and_keeps_nobody_else_back(programs: Programs) -> None:
    machine(programs)
    journal.begin("add", "test_b", {})
    (journal.STATE / "operations/add-x.json").write_text("{")
    seen = host.observe(SITE)
    assert "add-x.json cannot be understood" in seen.problems[0]
    assert not seen.blind
    assert list(seen.operations) == ["add-test_b"]


# -- what the peer was asked ---------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(host.time, "monotonic", lambda: now[0])
    return now


def consulted(programs: Programs) -> dict[str, Consultation]:
    machine(programs)
    return dict(host.observe(SITE).consulted)


def test_the_time_to_answer_runs_from_the_first_question(programs: Programs, clock: list[float]) -> None:
    host.consult("test_a", free=False)
    clock[0] += 7
    host.consult("test_a", free=False)
    clock[0] += 5
    assert consulted(programs) == {"test_a": Consultation(12.0, free=False)}


def test_an_answer_is_good_for_a_moment(programs: Programs, clock: list[float]) -> None:
    """The backup may be promoted in the next one."""
    host.consult("test_a", free=True)
    clock[0] += host.ANSWER_SECONDS - 1
    assert consulted(programs)["test_a"].free
    clock[0] += 1
    assert consulted(programs)["test_a"] == Consultation(host.ANSWER_SECONDS, free=False)


def test_a_question_takes_the_last_answer_back(programs: Programs, clock: list[float]) -> None:
    host.consult("test_a", free=True)
    clock[0] += 1
    host.consult("test_a", free=False)
    assert not consulted(programs)["test_a"].free


def test_what_is_settled_is_asked_anew_the_next_time(programs: Programs) -> None:
    host.consult("test_a", free=True)
    host.consult("test_b", free=False)
    host.end_consultation("test_a")
    host.end_consultation("test_a")
    assert list(consulted(programs)) == ["test_b"]


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"begun": "x", "free": null}', '{"begun": 1.0}'])
def test_a_question_that_cannot_be_read_was_not_asked(text: str, programs: Programs) -> None:
    host.CONSULTATIONS.mkdir(parents=True)
    (host.CONSULTATIONS / "test_a.json").write_text(text)
    assert consulted(programs) == {}
    host.consult("test_a", free=False)
    assert "test_a" in consulted(programs)


META = drbd.meta(PLACE, 0, "get-gi")


@pytest.mark.parametrize(
    ("answer", "current"),
    [
        (Answer((DATA / "drbdmeta/fresh.txt").read_text()), drbd.JUST_CREATED),
        (Answer((DATA / "drbdmeta/used.txt").read_text()), 0x5F7F17C0C8E5C6D9),
        # what drbdmeta 9.22 says of a place without metadata, and of one beyond the volume's end
        (Answer("", 1), None),
        (Answer("", 10, "Device too small: expecting meta data block at\nbyte offset 671088640, but …"), None),
    ],
)
def test_what_a_metadata_place_holds(programs: Programs, answer: Answer, current: int | None) -> None:
    programs.allow(META, answer)
    found = host.metadata_found(PLACE, 0)
    assert (found.current if found else None) == current


@pytest.mark.parametrize(
    "answer",
    [
        Answer("", 20, "open(/dev/local/drbd_meta) failed: No such file or directory"),
        Answer("", 20, "Device '0' is configured!"),
        Answer("something new", 0),
        Answer("", 139),
    ],
)
def test_a_place_that_could_not_be_looked_at_is_not_called_empty(programs: Programs, answer: Answer) -> None:
    """Its metadata would be overwritten."""
    programs.allow(META, answer)
    with pytest.raises(ToolFailed):
        host.metadata_found(PLACE, 0)


def test_an_empty_volume_has_no_identity(programs: Programs) -> None:
    programs.allow(filesystem.identity("/dev/local/x"), Answer("", 2))
    assert host.identity("/dev/local/x") == {}
    programs.allow(filesystem.identity("/dev/local/x"), (DATA / "blkid/ext4.txt").read_text())
    assert host.identity("/dev/local/x")["LABEL"] == "test_a"
    programs.allow(filesystem.identity("/dev/local/x"), Answer("", 4, "usage"))
    with pytest.raises(ToolFailed):
        host.identity("/dev/local/x")
