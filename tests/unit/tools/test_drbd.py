"""What DRBD prints, as it was captured (tests/data/README.md), and what it might print one day."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from drbd_offsite.model import MetadataPlace, VolumeName
from drbd_offsite.observed import ConnectionState, DiskState, DrbdResource, ReplicationState, Role
from drbd_offsite.tools import drbd

from .. import make

DATA = Path(__file__).parents[2] / "data"
PLACE = MetadataPlace(VolumeName("local", "drbd_meta"), 3)


def proc(name: str) -> drbd.ProcDrbd:
    return drbd.parse_proc((DATA / f"drbd/{name}.proc").read_text())


# -- the how-to's machines, DRBD 8.3.7 -------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "connection", "roles", "disks"),
    [
        ("server-waiting", "WFConnection", ("Primary", "Unknown"), ("UpToDate", "DUnknown")),
        ("backup-waiting", "WFConnection", ("Secondary", "Unknown"), ("UpToDate", "DUnknown")),
        ("backup-standalone", "StandAlone", ("Secondary", "Unknown"), ("UpToDate", "DUnknown")),
        ("backup-connected", "Connected", ("Secondary", "Primary"), ("UpToDate", "UpToDate")),
    ],
)
def test_the_outputs_in_the_how_to_are_understood(
    name: str, connection: str, roles: tuple[str, str], disks: tuple[str, str]
) -> None:
    found = proc(f"8.3.7/{name}")
    assert found.version == "8.3.7"
    (device,) = found.devices.values()
    assert (device.minor, device.connection) == (0, connection)
    assert (device.role, device.peer_role) == roles
    assert (device.disk, device.peer_disk) == disks
    assert device.counters["oos"] == "0"
    assert device.progress is None


def test_counters_of_the_how_to() -> None:
    counters = proc("8.3.7/server-waiting").devices[0].counters
    assert counters == {
        "ns": "184", "nr": "0", "dw": "2265076", "dr": "11114954", "al": "708", "bm": "983", "lo": "0", "pe": "0",
        "ua": "0", "ap": "0", "ep": "1", "wo": "b", "oos": "0",
    }  # fmt: skip


# -- real machines of the lab, DRBD 8.4.11 -----------------------------------------------------------

CONNECTED, CONNECTING, ALONE = ConnectionState.CONNECTED, ConnectionState.CONNECTING, ConnectionState.STANDALONE
UP, INCONSISTENT, UNKNOWN = DiskState.UP_TO_DATE, DiskState.INCONSISTENT, DiskState.UNKNOWN
STATES = {
    "first-sync-server": (CONNECTED, ReplicationState.SYNC_SOURCE, UP, INCONSISTENT),
    "first-sync-backup": (CONNECTED, ReplicationState.SYNC_TARGET, INCONSISTENT, UP),
    "paused-sync-server": (CONNECTED, ReplicationState.PAUSED_SYNC_SOURCE, UP, INCONSISTENT),
    "paused-sync-backup": (CONNECTED, ReplicationState.PAUSED_SYNC_TARGET, INCONSISTENT, UP),
    "up-to-date-server": (CONNECTED, ReplicationState.ESTABLISHED, UP, UP),
    "up-to-date-backup": (CONNECTED, ReplicationState.ESTABLISHED, UP, UP),
    "in-use-server": (CONNECTED, None, UP, None),
    "verify-server": (CONNECTED, ReplicationState.VERIFY_SOURCE, UP, UP),
    "verify-backup": (CONNECTED, ReplicationState.VERIFY_TARGET, UP, UP),
    "link-cut-server": (CONNECTING, ReplicationState.OFF, UP, UNKNOWN),
    "link-cut-backup": (CONNECTING, ReplicationState.OFF, UP, UNKNOWN),
    "tunnel-stopped-server": (CONNECTING, ReplicationState.OFF, UP, UNKNOWN),
    "tunnel-stopped-backup": (ALONE, ReplicationState.OFF, UP, UNKNOWN),
    "ahead-server": (CONNECTED, ReplicationState.AHEAD, UP, None),
    "ahead-backup": (CONNECTED, None, None, UP),  # the slow line has not told it yet
    "detached-server": (CONNECTED, ReplicationState.ESTABLISHED, DiskState.DISKLESS, UP),
    "split-brain-server": (ALONE, ReplicationState.OFF, UP, UNKNOWN),
    "split-brain-backup": (ALONE, ReplicationState.OFF, UP, UNKNOWN),
}
CAPTURED = DATA / "drbd/8.4.11"


def events(name: str) -> DrbdResource:
    return drbd.parse_events((CAPTURED / f"{name}.events2").read_text().splitlines())["test_a"]


@pytest.mark.parametrize("name", STATES)
def test_a_machine_s_state_is_read_from_events2(name: str) -> None:
    connection, replication, disk, peer_disk = STATES[name]
    seen = events(name)
    assert seen.connection is not None
    assert seen.peer_device is not None
    assert seen.connection.state is connection
    assert replication in (None, seen.peer_device.replication)
    assert disk in (None, seen.disk)
    assert peer_disk in (None, seen.peer_device.disk)
    assert seen.volumes[0].minor == 0
    assert seen.role is (Role.PRIMARY if "server" in name else seen.role)


def test_what_went_over_the_line_is_in_bytes() -> None:
    server, backup = events("link-cut-server").peer_device, events("link-cut-backup").peer_device
    assert server is not None
    assert backup is not None
    assert (server.sent_bytes, server.received_bytes) == (13149 * 1024, 0)
    assert (backup.sent_bytes, backup.received_bytes) == (0, 13148 * 1024)


@pytest.mark.parametrize("name", STATES)
def test_proc_drbd_says_the_same_as_events2(name: str) -> None:
    seen, device = events(name), proc(f"8.4.11/{name}").devices[0]
    assert (device.role, device.disk) == (seen.role, seen.disk)
    assert seen.connection is not None
    assert seen.peer_device is not None
    assert (device.peer_role, device.peer_disk) == (seen.connection.role, seen.peer_device.disk)


def test_a_running_sync_has_progress_speed_and_an_end() -> None:
    progress = proc("8.4.11/first-sync-server").devices[0].progress
    assert progress is not None
    assert 0 <= progress.done_percent < 100
    assert progress.speed_bytes is not None
    left = events("first-sync-server").peer_device
    assert left is not None
    assert left.out_of_sync_bytes > 0


def test_what_is_written_sent_and_received_is_counted() -> None:
    server, backup = events("first-sync-server"), events("first-sync-backup")
    assert server.peer_device is not None
    assert backup.peer_device is not None
    assert (server.volumes[0].written_bytes, backup.volumes[0].written_bytes) == (0, 2040 * 1024)
    assert (server.peer_device.sent_bytes, server.peer_device.received_bytes) == (2040 * 1024, 0)
    assert (backup.peer_device.sent_bytes, backup.peer_device.received_bytes) == (0, 2040 * 1024)


def test_a_running_verify_has_progress_too() -> None:
    assert proc("8.4.11/verify-server").devices[0].progress is not None


def test_writes_without_the_peer_are_counted() -> None:
    device = events("link-cut-server").peer_device
    assert device is not None
    assert device.out_of_sync_bytes > 0


def test_proc_drbd_tells_how_much_differs_and_what_is_on_its_way() -> None:
    """The handler before a resync has no time to ask another program."""
    behind = events("link-cut-server").peer_device
    assert behind is not None
    assert proc("8.4.11/link-cut-server").devices[0].out_of_sync_bytes == behind.out_of_sync_bytes
    text = "version: 8.4.11\n 0: cs:Connected ro:Primary/Secondary ds:UpToDate/UpToDate C r-----\n"
    counters = "    ns:1 nr:2 dw:3 dr:4 al:5 bm:6 lo:7 pe:8 ua:9 ap:10 ep:11 wo:f oos:12\n"
    device = drbd.parse_proc(text + counters).devices[0]
    assert (device.in_flight, device.out_of_sync_bytes) == (27, 12 * 1024)


@pytest.mark.parametrize("machine", ["server", "backup"])
def test_a_module_without_resources(machine: str) -> None:
    assert drbd.parse_events((CAPTURED / f"down-{machine}.events2").read_text().splitlines()) == {}
    assert proc(f"8.4.11/down-{machine}").version == "8.4.11"


# -- events2 of what is not captured -------------------------------------------------------------------

BACKUP = "name:test_a peer-node-id:1 conn-name:backup"
THIRD = "name:test_a peer-node-id:2 conn-name:third"
NINE = f"""\
exists resource name:test_a role:Primary suspended:no may_promote:no promotion_score:10101
exists connection {BACKUP} local:ipv4:10.89.33.1:7789 peer:ipv4:10.89.33.2:7789 connection:Connected role:Secondary
exists connection {THIRD} local:ipv4:10.89.34.1:7789 peer:ipv4:10.89.34.2:7789 connection:Connecting role:Unknown
exists device name:test_a volume:0 minor:0 backing_dev:/dev/local/test_a disk:UpToDate client:no size:1048576
exists device name:test_a volume:1 minor:9 disk:Inconsistent size:4
exists peer-device {BACKUP} volume:0 replication:SyncSource peer-disk:Inconsistent out-of-sync:2048 done:12.34
exists peer-device {THIRD} volume:0 replication:Off peer-disk:DUnknown resync-suspended:user
exists path {BACKUP} local:ipv4:10.89.33.1:7789 peer:ipv4:10.89.33.2:7789 established:yes
exists -
"""
"""DRBD 9's form, from drbdsetup-events2(8); not captured."""


def test_drbd_9_with_several_peers_and_volumes() -> None:
    seen = drbd.parse_events(NINE.splitlines())["test_a"]
    assert [line.peer for line in seen.connections] == ["backup", "third"]
    assert seen.peer_device is not None
    assert seen.peer_device.out_of_sync_bytes == 2 * 2**20
    assert seen.peer_device.done_percent == 12.34
    assert seen.connections[1].devices[0].resync_suspended
    assert [v.minor for v in seen.volumes] == [0, 9]
    assert seen.volumes[0].size_bytes == 2**30


def test_a_later_line_about_the_same_thing_replaces_the_earlier_one() -> None:
    lines = [*NINE.splitlines(), "change resource name:test_a role:Secondary suspended:user"]
    seen = drbd.parse_events(lines)["test_a"]
    assert seen.role is Role.SECONDARY
    assert seen.suspended
    assert len(seen.connections) == 2


@pytest.mark.parametrize(
    "line",
    ["", "exists", "exists -", "exists device", "exists frobnicator name:test_a x:y", "call helper name:test_a",
     "destroy resource name:test_a", "exists resource role:Primary", "\x00", "exists resource name:test_a future:word"],
)  # fmt: skip
def test_lines_and_keys_of_another_version_are_passed_over(line: str) -> None:
    seen = drbd.parse_events([*NINE.splitlines(), line])["test_a"]
    assert len(seen.connections) == 2


def test_unknown_words_are_kept() -> None:
    seen = drbd.parse_events(NINE.replace("Connected", "Levitating").splitlines())["test_a"]
    assert seen.connection is not None
    assert seen.connection.state == ConnectionState("Levitating")


# -- the stream of changes -----------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(CAPTURED.glob("*.events2")), ids=lambda path: path.stem)
def test_what_was_there_when_the_listing_began_is_no_change(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert lines[-1] == "exists -"
    assert drbd.parse_change(lines[-1]) is None
    found = [drbd.parse_change(line) for line in lines[:-1]]
    assert all(change and (change.resource, change.new) == ("test_a", False) for change in found)


@pytest.mark.parametrize(
    ("line", "kind", "keys"),
    [
        ("change connection name:test_a peer-node-id:0 conn-name:peer connection:StandAlone", "connection",
         {"connection": "StandAlone"}),
        ("change resource name:test_a role:Secondary suspended:no", "resource", {"role": "Secondary"}),
        ("create device name:test_a volume:0 minor:0 disk:Diskless", "device", {"disk": "Diskless"}),
        ("destroy connection name:test_a peer-node-id:0 conn-name:peer", "connection", {}),
        ("call helper name:test_a peer-node-id:0 helper:before-resync-target", "helper",
         {"helper": "before-resync-target"}),
        ("change path name:test_a local:ipv4:10.89.33.1:7789 peer:ipv4:10.89.33.2:7789", "path",
         {"peer": "ipv4:10.89.33.2:7789"}),
    ],
)  # fmt: skip
def test_a_change_names_its_resource_and_only_what_the_kernel_said(line: str, kind: str, keys: dict[str, str]) -> None:
    change = drbd.parse_change(line)
    assert change is not None
    assert (change.resource, change.kind, change.new) == ("test_a", kind, True)
    assert keys.items() <= change.keys.items()
    assert ("connection" in change.keys) == ("connection:" in line)


@pytest.mark.parametrize(
    "line", ["", "exists -", "change", "change resource", "change resource role:Primary", "name:a"]
)
def test_a_line_about_no_resource_is_no_change(line: str) -> None:
    assert drbd.parse_change(line) is None


WORDS = st.sampled_from(
    ["exists", "create", "change", "destroy", "resource", "device", "connection", "peer-device", "name:a", "name:",
     "role:", "volume:0", "volume:-1", "volume:²", "minor:99999999999999999999", "minor:٣", "size:x",
     "done:1.2.3", "done:٣.٣", "peer:ipv4:10.0.0.1:7789", "conn-name:b", "connection:", "disk:\u2028", "::", "-"]
)  # fmt: skip


@example(["exists device name:a volume:² minor:٣"])
@given(st.lists(st.lists(WORDS | st.text(max_size=5), max_size=7).map(" ".join), max_size=6))
def test_any_lines_are_resources(lines: list[str]) -> None:
    for name, seen in drbd.parse_events(lines).items():
        assert seen.name == name
        assert seen.disk is not None


STREAMS = sorted(CAPTURED.glob("*.changes"))


@pytest.mark.parametrize("path", STREAMS, ids=[path.stem for path in STREAMS])
def test_a_real_machine_s_stream_tells_when_the_copies_went_apart(path: Path) -> None:
    """And that two machines which find a split brain are Connected meanwhile, without replicating."""
    changes = [change for change in map(drbd.parse_change, path.read_text().splitlines()) if change]
    assert {change.resource for change in changes} == {"test_a"}
    news = [change.keys for change in changes if change.new]
    replication = [keys["replication"] for keys in news if "replication" in keys]
    assert "Off" in replication
    assert any(keys.get("connection") == "Connected" for keys in news)
    assert (replication[-1] == "Off") == path.stem.startswith("split-brain")


@given(st.lists(WORDS | st.text(max_size=5), max_size=7).map(" ".join))
def test_any_line_is_a_change_or_none(line: str) -> None:
    change = drbd.parse_change(line)
    assert change is None or (
        change.resource == change.keys["name"] and change.new == (line.split(maxsplit=1)[0] != "exists")
    )


PROC = st.sampled_from(
    ["version: 8.4.11 (api:1)\n", " 0: cs:", "Connected", " ro:Primary/Secondary", " ds:UpToDate/",
     " 1: cs:Unconfigured\n",
     "\tns:0 nr:x ", " ap:x", " oos:²", " ua:7", "sync'ed: ", "12.5%", " finish: 0:00:61", " speed: 1,024 (",
     "verified: ", "\n", "1.2.3%", "٣%", "²"]
)  # fmt: skip


@example("version: 8\n 0: cs:x\nsync'ed: 1.2.3%")
@example("version: 8\n 0: cs:x\nsync'ed: .%")
@example("version: 8\n 0: cs:x\nsync'ed: 1% finish: 0:00:00 speed: , (,)")
@given(st.lists(PROC | st.text(max_size=6), max_size=15).map("".join))
def test_any_text_is_a_proc_drbd(text: str) -> None:
    found = drbd.parse_proc(text)
    assert isinstance(found.version, str)
    assert all(device.in_flight >= 0 <= device.out_of_sync_bytes for device in found.devices.values())


def test_a_device_that_is_not_configured() -> None:
    found = drbd.parse_proc("version: 8.4.11 (api:1/proto:86-101)\nsrcversion: X\n\n 1: cs:Unconfigured\n")
    assert found.devices[1].connection == "Unconfigured"
    assert found.devices[1].disk is DiskState.UNKNOWN


def test_drbd_9_s_proc_drbd_has_a_version_alone() -> None:
    found = drbd.parse_proc("version: 9.1.17 (api:2/proto:110-122)\nTransports (api:18): tcp (9.1.17)\n")
    assert (found.version, found.devices) == ("9.1.17", {})


# -- metadata ------------------------------------------------------------------------------------------


def test_identifiers_of_a_fresh_and_of_a_used_slot() -> None:
    fresh = drbd.parse_identifiers((DATA / "drbdmeta/fresh.txt").read_text())
    assert fresh is not None
    assert fresh.just_created
    used = drbd.parse_identifiers((DATA / "drbdmeta/used.txt").read_text())
    assert used is not None
    assert not used.just_created
    assert (used.current, used.bitmap) == (0x5F7F17C0C8E5C6D9, 0x6A5B4C3D2E1F0A9B)
    assert used.history == (0x1122334455667788, 0x8877665544332210)
    assert used.flags[:4] == ("1", "1", "1", "0")


def test_writing_without_the_peer_begins_a_new_generation() -> None:
    """The proof that a side has changed: its current identifier is new, and the one before is in its bitmap's place."""
    alone = drbd.parse_identifiers((DATA / "drbdmeta/written-alone-server.txt").read_text())
    behind = drbd.parse_identifiers((DATA / "drbdmeta/left-behind-backup.txt").read_text())
    assert alone is not None
    assert behind is not None
    assert alone.current & ~1 != behind.current & ~1
    assert alone.bitmap & ~1 == behind.current & ~1, "without the flag of the Primary, which is the last bit"
    assert not alone.just_created
    assert not behind.just_created


def test_identifiers_of_an_attached_slot_can_be_read_too() -> None:
    assert drbd.parse_identifiers((DATA / "drbdmeta/attached-server.txt").read_text())


@given(st.text())
def test_any_text_is_identifiers_or_none(text: str) -> None:
    assert drbd.parse_identifiers(text) is None


def test_argv() -> None:
    assert drbd.adm("attach", "test_a") == ("drbdadm", "attach", "test_a")
    assert drbd.adm("primary", "test_a", "--force") == ("drbdadm", "primary", "--force", "test_a")
    assert drbd.meta(PLACE, 9, "get-gi") == ("drbdmeta", "9", "v08", "/dev/local/drbd_meta", "3", "get-gi")
    whole = MetadataPlace(PLACE.volume, None)
    assert drbd.meta(whole, 9, "get-gi")[4] == "flex-external"
    assert drbd.resync_after(2, 0) == ("drbdsetup", "disk-options", "2", "--resync-after=0")
    assert drbd.resync_after(2, None)[-1] == "--resync-after=-1"
    assert drbd.resync_rate(2, 500, 125, 64) == (
        "drbdsetup", "disk-options", "2", "--c-max-rate=500k", "--c-min-rate=125k", "--c-fill-target=64k"
    )  # fmt: skip
    assert drbd.verify("test_a", 0, None) == ("drbdadm", "--", "--start=0", "verify", "test_a")


DRBDADM_84 = Path("/lib/drbd/drbdadm-84")


@pytest.mark.skipif(not DRBDADM_84.exists(), reason="drbd-utils is not installed")
def test_the_drbdadm_for_an_8_4_module_hands_on_which_sectors_are_compared(tmp_path: Path) -> None:
    (tmp_path / "drbd.conf").write_text(
        f'global {{ usage-count no; }}\ninclude "{DATA / "golden/server/etc/drbd.d/0_test_a.res"}";\n'
    )
    dry_run = [DRBDADM_84, "-d", "-c", tmp_path / "drbd.conf", *drbd.verify("test_a", 800, 808)[1:]]
    environment = os.environ | {"__DRBD_NODE__": "server.example.org"}
    done = subprocess.run(dry_run, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split()[1:] == ["verify", "0", "--start=800", "--stop=808"]


# -- what drbdadm would change -------------------------------------------------------------------------

ADJUSTED = {
    "differs": {
        ("disk-options", "0"), ("disk-options", "1"), ("net-options", "ipv4:10.89.33.1:7789"),
        ("disconnect", "ipv4:10.89.33.1:7790"), ("connect", "large"),
    },
    "moved": {
        ("detach", "0"), ("detach", "1"), ("del-minor", "1"), ("new-minor", "large"), ("attach", "0"), ("attach", "5"),
    },
    "down": {
        (command, name) for command in ("new-resource", "new-minor", "connect") for name in ("test_a", "large")
    } | {("attach", "0"), ("attach", "1")},
    "apart": {
        ("new-minor", "large"), ("attach", "0"), ("attach", "1"), ("connect", "test_a"), ("connect", "large"),
    },
}  # fmt: skip


@pytest.mark.parametrize("state", ADJUSTED)
def test_what_drbdadm_would_do_is_known_without_its_secrets(state: str) -> None:
    text = (DATA / f"drbdadm/adjust-{state}.txt").read_text()
    found = drbd.parse_adjustments(text.splitlines())
    assert {(adjustment.command, adjustment.target) for adjustment in found} == ADJUSTED[state]
    assert (make.SECRET in text) == (state != "moved")
    assert make.SECRET not in repr(found)


@given(st.lists(st.text()))
def test_any_text_of_drbdadm_is_read(lines: list[str]) -> None:
    assert len(drbd.parse_adjustments(lines)) <= len(lines)


@pytest.mark.skipif(shutil.which("drbdadm") is None, reason="drbdadm is not installed")
@pytest.mark.parametrize(
    ("rate", "expected"), [("12207k", set()), ("4000k", {("disk-options", "0")})], ids=["the same", "another rate"]
)
def test_the_real_drbdadm_says_so_where_the_kernel_runs_something_else(
    rate: str, expected: set[tuple[str, str]], tmp_path: Path
) -> None:
    """The kernel's part is a script that prints what runs, as ``drbdsetup show`` does."""
    resource = (DATA / "golden/server/etc/drbd.d/0_test_a.res").read_text()
    net, disk = (re.sub(r"#.*", "", resource.split(section)[1].split("}")[0]) for section in ("net {", "disk {"))
    setup = tmp_path / "drbdsetup-84"
    setup.write_text(
        f"#!/bin/sh\ncat <<'END'\nresource test_a {{ net {{ {net} protocol A; }}\n"
        "_remote_host { address ipv4 10.89.33.2:7789; }\n_this_host { address ipv4 10.89.33.1:7789;\n"
        'volume 0 { device minor 0; disk "/dev/local/test_a"; meta-disk "/dev/local/drbd_meta" [ 0 ];\n'
        f"disk {{ {disk.replace('12207k', rate)} }} }} }} }}\nEND\n"
    )
    setup.chmod(0o755)
    (tmp_path / "test.conf").write_text(resource)
    program, *words = drbd.DRY_ADJUST
    done = subprocess.run(
        [program, "-c", tmp_path / "test.conf", *words],
        env={
            "PATH": f"{tmp_path}:{os.environ['PATH']}", "__DRBD_NODE__": "server.example.org",
            "DRBD_DRIVER_VERSION_OVERRIDE": "8.4.11",
        },
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = drbd.parse_adjustments(done.stdout.splitlines())
    assert {(adjustment.command, adjustment.target) for adjustment in found} == expected
