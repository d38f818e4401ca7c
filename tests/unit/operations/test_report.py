"""What this machine tells its peer."""

import pytest

from drbd_offsite import host, journal, messages, protocol
from drbd_offsite.errors import OffsiteError
from drbd_offsite.observed import ConnectionState, DiskState, DrbdResource, Role
from drbd_offsite.operations.report import LOST, of, report
from drbd_offsite.tools import drbd

from .. import make
from ..conftest import Answer, Programs

EVENTS = """\
exists resource name:test_a role:Primary suspended:no
exists connection name:test_a peer-node-id:0 conn-name:peer connection:Connecting role:Unknown
exists device name:test_a volume:0 minor:0 disk:UpToDate
exists peer-device name:test_a peer-node-id:0 volume:0 replication:Off peer-disk:DUnknown out-of-sync:4
exists -
"""


def told(*seen: DrbdResource) -> messages.ResourceReport:
    return of(make.host(drbd=seen), make.resource())


def test_the_peer_is_told_of_the_resources_that_it_shares_and_of_no_other(programs: Programs) -> None:
    host.PROC_DRBD.parent.mkdir(exist_ok=True)
    host.PROC_DRBD.write_text("version: 8.4.11 (api:1/proto:86-101)\n")
    programs.allow(drbd.EVENTS, EVENTS)
    site = make.site(resources={"test_a": make.resource(), "test_b": make.resource("test_b", 1, "third")})
    found = report(site, "backup")
    assert [resource.name for resource in found.resources] == ["test_a"]
    assert found.drbd_version == "8.4.11"
    assert protocol.decode_answer(messages.MachineReport, protocol.encode_answer(found)) == found
    assert report(site, "third").resources[0].role == Role.UNKNOWN


def test_a_report_says_who_serves_what_is_where_and_what_was_changed_here() -> None:
    journal.remember(LOST, "test_a", {"since": "2026-11-22T12:00:00+00:00"})
    seen = make.seen(state=ConnectionState.STANDALONE, peer_disk=DiskState.UNKNOWN, out_of_sync_bytes=3 * make.MIB)
    assert told(seen) == messages.ResourceReport(
        "test_a", "Primary", "UpToDate", "StandAlone", 3 * make.MIB, "2026-11-22T12:00:00+00:00"
    )


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        ([], ("Unknown", "Diskless", "StandAlone", 0)),
        ([make.seen(state=None)], ("Primary", "UpToDate", "StandAlone", 0)),
        ([make.seen(role=Role.SECONDARY, disk=DiskState.INCONSISTENT)], ("Secondary", "Inconsistent", "Connected", 0)),
    ],
)
def test_what_is_not_there_is_told_as_such(seen: list[DrbdResource], expected: tuple[str, str, str, int]) -> None:
    found = told(*seen)
    assert (found.role, found.disk, found.connection, found.changed_bytes) == expected
    assert found.disconnected_since == ""


def test_any_word_of_the_kernel_s_passes_the_protocol() -> None:
    found = told(make.seen(role=Role("Levitating"), disk=DiskState("Odd"), state=ConnectionState("Newer")))
    answer = messages.MachineReport("server", "9.3", [found])
    assert (
        protocol.decode_answer(messages.MachineReport, protocol.encode_answer(answer)).resources[0].role == "Levitating"
    )


def test_a_machine_that_cannot_see_drbd_says_so_and_not_that_it_does_not_serve(programs: Programs) -> None:
    """A server that asks would take it for a no, and serve."""
    host.PROC_DRBD.write_text("version: 8.4.11 (api:1/proto:86-101)\n")
    programs.allow(drbd.EVENTS, Answer("", 1, "no netlink today"))
    with pytest.raises(OffsiteError, match="cannot see"):
        report(make.site(), "backup")
