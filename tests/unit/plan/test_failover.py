"""Whether the backup takes over, what is said of it before, and by which steps."""

from dataclasses import replace

import pytest

from drbd_offsite.errors import Refused
from drbd_offsite.model import Flavour, VolumeName
from drbd_offsite.observed import (
    ConnectionState,
    DiskState,
    DrbdResource,
    Forbidden,
    Host,
    LogicalVolume,
    Mount,
    Operation,
    ReplicationState,
    Role,
)
from drbd_offsite.plan import failover, restore_point
from drbd_offsite.plan.actions import Action, Disconnect, Note, Once, Run, Serve, SetHold
from drbd_offsite.plan.failover import Copy, Server, copy, loss, refusal, remaining
from drbd_offsite.plan.serve import Found

from .. import make

BACKUP = Flavour.BACKUP
SITE = make.site(BACKUP)
RESOURCE = replace(SITE.resources["test_a"], mount="/srv/a")
SITE = replace(SITE, resources={"test_a": RESOURCE})
NOON = "2026-11-23T12:00:00+00:00"
LATER = "2026-11-23T12:10:00+00:00"
KIB = 1024

ALONE = make.seen(
    role=Role.SECONDARY,
    state=ConnectionState.STANDALONE,
    replication=ReplicationState.OFF,
    peer_disk=DiskState.UNKNOWN,
)
WAITING = make.seen(
    role=Role.SECONDARY,
    state=ConnectionState.CONNECTING,
    replication=ReplicationState.OFF,
    peer_disk=DiskState.UNKNOWN,
)
PLACE = VolumeName("local", "test_a_restore_point")
POINT = LogicalVolume(PLACE, 2**25, True, False, (253, 9), frozenset({restore_point.TAG}), "test_a", "", 10.0)
BROKEN_OFF = replace(ALONE, volumes=(replace(ALONE.volumes[0], disk=DiskState.INCONSISTENT),))


def host(seen: DrbdResource | None, **changes: object) -> Host:
    return make.host(BACKUP, drbd=[seen] if seen else [], **changes)


# -- whether -----------------------------------------------------------------------------------------


def refused(seen: DrbdResource | None, server: Server, *, force: bool = False) -> str:
    found = refusal(RESOURCE, host(seen), server, force)
    return found.message if found else ""


def test_a_server_that_is_silent_is_taken_over_from() -> None:
    assert refused(WAITING, Server.SILENT) == refused(ALONE, Server.IDLE) == ""


@pytest.mark.parametrize("server", [Server.SERVING, Server.OUTSIDE])
def test_one_that_is_alive_is_not_unless_it_is_forced(server: Server) -> None:
    assert server.value in refused(ALONE, server)
    assert refused(ALONE, server, force=True) == ""


def test_what_is_connected_is_handed_over_in_order() -> None:
    connected = make.seen(role=Role.SECONDARY)
    assert "alive and serves it" in refused(connected, Server.SERVING)
    assert "nothing has to be lost" in refused(connected, Server.IDLE, force=True)


def test_there_is_nothing_to_take_over_with() -> None:
    assert "not attached" in refused(None, Server.SILENT)
    assert "not attached" in refused(make.seen(disk=DiskState.DISKLESS), Server.SILENT)


# -- with what ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("disk", [DiskState.UP_TO_DATE, DiskState.CONSISTENT, DiskState.OUTDATED])
def test_a_whole_copy_is_taken_as_it_is(disk: DiskState) -> None:
    seen = replace(ALONE, volumes=(replace(ALONE.volumes[0], disk=disk),))
    assert copy(RESOURCE, host(seen, complete={"test_a": NOON}), LATER) == Copy(None, NOON, LATER, 0)


def test_a_copy_that_was_behind_is_as_old_as_that() -> None:
    missing = make.seen(
        role=Role.SECONDARY, state=ConnectionState.CONNECTING, replication=ReplicationState.OFF,
        out_of_sync_bytes=64 * KIB,
    )  # fmt: skip
    found = copy(RESOURCE, host(missing, complete={"test_a": NOON}), LATER)
    assert found == Copy(None, NOON, LATER, 64 * KIB)
    said = " ".join(loss(RESOURCE, Server.SILENT, found, LATER))
    assert f"has all that the server had acknowledged before {NOON}, 10 min ago" in said
    assert "64.0 KiB that the server had written before are known to be missing" in said


def test_one_in_the_middle_of_a_resync_gives_its_place_to_the_restore_point() -> None:
    found = copy(RESOURCE, host(BROKEN_OFF, volumes=[POINT], complete={"test_a": NOON}), LATER)
    assert found == Copy(PLACE, NOON, LATER, 0)
    assert f"{PLACE} from before that takes its place" in " ".join(loss(RESOURCE, Server.SILENT, found, LATER))


@pytest.mark.parametrize(
    ("volumes", "why"),
    [
        ([], "there is no restore point"),
        ([replace(POINT, data_percent=100.0)], "overflowed"),
        ([replace(POINT, tags=frozenset())], "there is no restore point"),
    ],
)
def test_without_a_usable_one_nothing_is_promoted(volumes: list[LogicalVolume], why: str) -> None:
    with pytest.raises(Refused, match=why):
        copy(RESOURCE, host(BROKEN_OFF, volumes=volumes), "")


def test_an_age_that_nobody_has_noted_is_said_to_be_unknown() -> None:
    assert "is not known." in " ".join(loss(RESOURCE, Server.SILENT, Copy(None, "", "", 0), NOON))
    said = " ".join(loss(RESOURCE, Server.SILENT, Copy(None, "", NOON, 0), LATER))
    assert f"is not known. Nothing has arrived since {NOON}." in said


# -- how ---------------------------------------------------------------------------------------------


def steps(now: Host, parameters: dict[str, object], found: Found) -> list[Action]:
    operation = Operation("failover", "test_a", NOON, parameters)
    return list(remaining(SITE, now, operation, found))


EXT4 = Found("ext4", "", ("/etc/drbd-offsite/failover.d/a",))
AS_IT_IS = failover.parameters(Copy(None, NOON, LATER, 0))
HELD = make.hold(Forbidden.CONNECT, set_by="failover")


def first(now: Host, parameters: dict[str, object] = AS_IT_IS, found: Found = EXT4) -> Action | None:
    return next(iter(steps(now, parameters, found)), None)


def test_from_a_copy_to_a_mounted_filesystem() -> None:
    held = first(host(WAITING))
    assert isinstance(held, SetHold)
    assert held.hold.forbids == {Forbidden.CONNECT}
    assert isinstance(first(host(WAITING, holds=HELD)), Disconnect)
    promoting = first(host(ALONE, holds=HELD))
    assert isinstance(promoting, Run)
    assert promoting.argv == ("drbdadm", "primary", "test_a")
    primary = replace(ALONE, role=Role.PRIMARY)
    assert isinstance(first(host(primary, holds=HELD)), Serve)
    serving = {"holds": HELD, "serving": frozenset({"test_a"})}
    checking = first(host(primary, **serving))
    assert isinstance(checking, Once)
    assert isinstance(checking.step, Run)
    assert (checking.step.argv, checking.step.accept) == (("e2fsck", "-p", "/dev/drbd0"), (0, 1))
    mounting = first(host(primary, **serving), {**AS_IT_IS, "checked": True})
    assert isinstance(mounting, Run)
    assert mounting.argv == ("mount", "-o", "X-mount.mkdir", "/dev/drbd0", "/srv/a")
    mounted = host(primary, **serving, mounts=(Mount((147, 0), "/srv/a", "ext4", "/dev/drbd0"),))
    hook = first(mounted, {**AS_IT_IS, "checked": True})
    assert isinstance(hook, Once)
    assert isinstance(hook.step, Run)
    assert hook.step.argv[1:] == ("start", "test_a", "/dev/drbd0", "/srv/a")
    assert hook.note.value == 1
    assert first(mounted, {**AS_IT_IS, "checked": True, "hooks": 1}) is None


def test_what_is_mounted_nowhere_is_served_as_a_device() -> None:
    primary = host(replace(ALONE, role=Role.PRIMARY), holds=HELD, serving=frozenset({"test_a"}))
    assert first(primary, AS_IT_IS, Found("", "")) is None


def test_fstab_has_the_word_where_it_knows_the_mount_point() -> None:
    primary = host(replace(ALONE, role=Role.PRIMARY), holds=HELD, serving=frozenset({"test_a"}))
    mounting = first(primary, AS_IT_IS, Found("xfs", "/dev/drbd0 /srv/a xfs noauto 0 0\n"))
    assert isinstance(mounting, Run)
    assert mounting.argv == ("mount", "-o", "X-mount.mkdir", "/srv/a")


def test_an_outdated_copy_is_promoted_by_force() -> None:
    outdated = replace(ALONE, volumes=(replace(ALONE.volumes[0], disk=DiskState.OUTDATED),))
    promoting = first(host(outdated, holds=HELD))
    assert isinstance(promoting, Run)
    assert promoting.argv == ("drbdadm", "primary", "--force", "test_a")


def test_the_restore_point_is_merged_and_everything_marked_before_it_is_promoted() -> None:
    put_back = failover.parameters(Copy(PLACE, NOON, LATER, 0))
    down = first(host(BROKEN_OFF, holds=HELD, volumes=[POINT]), put_back)
    assert isinstance(down, Run)
    assert down.argv == ("drbdadm", "down", "test_a")
    merging = first(host(None, holds=HELD, volumes=[POINT]), put_back)
    assert isinstance(merging, Run)
    assert merging.argv[0] == "lvconvert"
    assert "--merge" in merging.argv
    attaching = [a.argv[1] for a in steps(host(None, holds=HELD), put_back, EXT4) if isinstance(a, Run)]
    assert attaching[:3] == ["new-resource", "new-minor", "attach"]
    marking = first(host(BROKEN_OFF, holds=HELD), put_back)
    assert isinstance(marking, Once)
    assert isinstance(marking.step, Run)
    assert marking.step.argv == ("drbdadm", "invalidate", "test_a")
    assert isinstance(marking.note, Note)
    promoting = first(host(BROKEN_OFF, holds=HELD), {**put_back, "marked": True})
    assert isinstance(promoting, Run)
    assert promoting.argv == ("drbdadm", "primary", "--force", "test_a")
