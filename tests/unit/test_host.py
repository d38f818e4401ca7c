import json
from pathlib import Path

import pytest

from drbd_offsite import host, journal
from drbd_offsite.errors import ConfigError, ToolFailed
from drbd_offsite.model import DiskState, Forbidden, MetadataPlace, Mount, Role, VolumeName
from drbd_offsite.tools import drbd, filesystem, iproute, lvm

from .conftest import Answer, Programs

DATA = Path(__file__).parents[1] / "data"
PLACE = MetadataPlace(VolumeName("local", "drbd_meta"), 3)
EVENTS = """\
exists resource name:test_a role:Primary suspended:no write-ordering:flush
exists device name:test_a volume:0 minor:0 disk:UpToDate size:1048576
exists -
"""
EMPTY_REPORT = json.dumps({"report": []})


def machine(programs: Programs, proc: str = "version: 8.4.11 (api:1/proto:86-101)\n") -> None:
    programs.allow(lvm.REPORT, EMPTY_REPORT)
    programs.allow(iproute.ADDRESSES, (DATA / "ip/tun0-up.json").read_text())
    programs.allow(drbd.EVENTS, EVENTS)
    host.PROC_DRBD.parent.mkdir(exist_ok=True)
    host.PROC_DRBD.write_text(proc)
    host.MOUNTINFO.write_text((DATA / "mountinfo/escapes.txt").read_text())


def test_one_look_is_a_constant_number_of_programs(programs: Programs) -> None:
    machine(programs)
    seen = host.observe()
    assert programs.ran == [lvm.REPORT, iproute.ADDRESSES, drbd.EVENTS]
    assert seen.drbd["test_a"].role is Role.PRIMARY
    assert seen.drbd["test_a"].disk is DiskState.UP_TO_DATE
    assert seen.addresses["tun0"] == ("10.89.33.1",)
    assert Mount((254, 0), "/", "ext4", "/dev/vda") in seen.mounts
    assert seen.drbd_version == "8.4.11"
    assert seen.problems == ()


def test_without_the_module_drbd_is_not_asked(programs: Programs) -> None:
    machine(programs, proc="")
    assert host.observe().drbd_version == ""
    assert drbd.EVENTS not in programs.ran
    host.PROC_DRBD.unlink()
    assert host.observe().drbd == {}


@pytest.mark.parametrize(
    ("argv", "answer"),
    [
        (lvm.REPORT, Answer("", 5, "locking failed")),
        (lvm.REPORT, Answer("no JSON")),
        (lvm.REPORT, Answer('{"report": [1]}')),
        (lvm.REPORT, Answer('{"report": [{"vg": [{"vg_name": "x"}]}]}')),
        (iproute.ADDRESSES, Answer("", 1, "ip is confused")),
        (iproute.ADDRESSES, Answer("[1]")),
        (drbd.EVENTS, Answer("", 20, "netlink is not there")),
    ],
)
def test_what_cannot_be_seen_is_named_and_the_rest_is_seen(
    programs: Programs, argv: tuple[str, ...], answer: Answer
) -> None:
    machine(programs)
    programs.allow(argv, answer)
    seen = host.observe()
    assert len(seen.problems) == 1
    assert seen.drbd_version == "8.4.11"
    assert host.look_again(seen).problems == seen.problems, "and it is named once"


def test_looking_again_sees_drbd_mounts_and_our_notes_and_keeps_the_rest(programs: Programs) -> None:
    machine(programs)
    first = host.observe()
    programs.ran.clear()
    host.MOUNTINFO.write_text("")
    programs.allow(drbd.EVENTS, EVENTS.replace("Primary", "Secondary"))
    journal.hold("test_a", "x", frozenset({Forbidden.CONNECT}), "test")
    journal.begin("add", "test_b", {})
    again = host.look_again(first)
    assert programs.ran == [drbd.EVENTS]
    assert again.drbd["test_a"].role is Role.SECONDARY
    assert again.mounts == ()
    assert "test_a" in again.holds
    assert "add-test_b" in again.operations
    assert again.addresses == first.addresses


def test_an_unfinished_operation_that_cannot_be_read_is_an_error_and_not_nothing(programs: Programs) -> None:
    machine(programs)
    (journal.STATE / "operations").mkdir(parents=True)
    (journal.STATE / "operations/add-x.json").write_text("{")
    with pytest.raises(ConfigError, match="add-x"):
        host.observe()


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
