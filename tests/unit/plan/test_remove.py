"""Back to the plain volume, killed after any step and begun again; also from an ``add`` that was left unfinished."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from drbd_offsite import config
from drbd_offsite.errors import ExitCode, Refused
from drbd_offsite.messages import Half
from drbd_offsite.model import MAX_INDEXED_BYTES, Flavour, MetadataPlace, VolumeName
from drbd_offsite.observed import DiskState, Forbidden, Hold, Host, Role
from drbd_offsite.plan import remove
from drbd_offsite.plan.actions import AskPeer, Lift, Note, RemoveFile, Run, WriteFile, describe
from drbd_offsite.plan.circle import decide
from drbd_offsite.plan.remove import Removal
from drbd_offsite.plan.task import Task
from drbd_offsite.render import Credentials, render
from drbd_offsite.tools import filesystem

from .. import make
from .machine import BY_RES, FRESH, USED, Kernel, Machine
from .test_half import DATA, FSTAB, FSTAB_NAMES, PARSED, POOL
from .test_half import SCENES as UNFINISHED

SERVER, BACKUP = Flavour.SERVER, Flavour.BACKUP
OWN = VolumeName("local", "test_a_drbd_meta")
UNIT = "drbd-offsite@test_a.service"
MOVED = filesystem.fstab_moved(FSTAB, FSTAB_NAMES, BY_RES, UNIT)


@pytest.fixture(autouse=True)
def _read_each_text_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same few texts are read thousands of times here."""
    monkeypatch.setattr(config, "parse", PARSED)


def configuration(flavour: Flavour, *names: str) -> str:
    """A file with these resources, numbered from 0."""
    text = make.CONFIG.replace("[[backup]]", f"[[{flavour.other}]]").replace("= backup", f"= {flavour.other}")
    text = config.updated(text, {"resources.test_a": None, "site.flavour": flavour.value})
    for number, name in enumerate(names):
        text = config.updated(text, config.resource_keys(make.resource(name, number, flavour.other)))
    return text


def rendered(text: str, flavour: Flavour) -> dict[str, str]:
    credentials = {flavour.other: Credentials(make.SECRET, (make.FINGERPRINT,))}
    return {file.path: file.text for file in render(config.parse(text), credentials, flavour)}


def leaving(flavour: Flavour, removal: Removal, *names: str, **changes: object) -> Machine:
    """A machine that replicates ``names``; test_a, the first, is about to leave."""
    verb = "remove" if flavour is SERVER else "release"
    text = configuration(flavour, *(names or ("test_a",)))
    at = Machine(
        flavour,
        make.operation(verb, removal.parameters()),
        text,
        Half.of(make.replica()),
        {DATA: make.GIB, POOL: 128 * make.MIB},
        precious=DATA if flavour is SERVER else None,
        files=rendered(text, flavour),
        metadata=USED,
        synced=True,
        size=make.GIB,
        module=True,
        enabled=True,
        active=True,
        kernel=Kernel(0, attached=True, primary=flavour is SERVER, connected=True),
        in_step=True,
    )
    return replace(at, **changes)


def server(*names: str, mounts: tuple[str, ...] = (), **changes: object) -> Machine:
    """``mounts`` are those of its device."""
    removal = Removal("test_a", "backup", make.replica(), mounts)
    return leaving(SERVER, removal, *names, mounts=[("/dev/drbd0", target) for target in mounts], **changes)


def mounted(**changes: object) -> Machine:
    """As ``add --remount`` left it, and mounted in a second place by hand."""
    return server(mounts=("/srv/a", "/srv/a/again"), fstab=MOVED, **changes)


def backup(**changes: object) -> Machine:
    return leaving(BACKUP, Removal("test_a", "server", make.replica()), **changes)


def large(flavour: Flavour) -> Machine:
    here = replace(make.replica(), metadata=MetadataPlace(OWN, None))
    at = leaving(flavour, Removal("test_a", flavour.other, here), size=2 * MAX_INDEXED_BYTES)
    at.config = config.updated(at.config, {"resources.test_a.metadata": str(OWN)})
    at.volumes = {DATA: 2 * MAX_INDEXED_BYTES, OWN: make.GIB}
    at.files = rendered(at.config, flavour)
    return at


def chained(flavour: Flavour) -> Machine:
    """Of three, the middle one leaves: on the server, which says so, the third waits for the first from now on."""
    served = flavour is SERVER
    removal = Removal("test_a", flavour.other, make.replica(1), relink=("third",) if served else ())
    waiting = {"first": -1, "third": 1 if served else -1}
    at = leaving(flavour, removal, "first", "test_a", "third", neighbours=waiting)
    at.kernel = replace(at.kernel, minor=1)
    return at


SCENES: dict[str, Callable[[], Machine]] = {
    "server": server,
    "server, mounted": mounted,
    "server, only in fstab": lambda: server(fstab=MOVED),
    "server, in fstab by hand": lambda: server(fstab="/dev/drbd0 /srv/a ext4 noatime,nofail 0 2\n"),
    "server, not connected": lambda: server(in_step=False, tunnel=False),
    "server, standing alone": lambda: server(
        in_step=False, kernel=Kernel(0, attached=True, primary=True, connected=False, ended=True)
    ),
    "server, held": lambda: server(forbidden=frozenset({Forbidden.CONNECT})),
    "server, above 4 TiB": lambda: large(SERVER),
    "server, one of three": lambda: chained(SERVER),
    "backup": backup,
    "backup, copy not wanted": lambda: leaving(BACKUP, Removal("test_a", "server", make.replica(), delete_copy=True)),
    "backup, first sync not over": lambda: backup(synced=False, in_step=False),
    "backup, above 4 TiB": lambda: large(BACKUP),
    "backup, one of three": lambda: chained(BACKUP),
}
scenes = pytest.mark.parametrize("scene", SCENES)


def plain(end: Machine) -> None:
    """Nothing of the resource is left, but its volume."""
    assert end.kernel is None
    assert not end.enabled
    assert not end.active
    assert "test_a" not in end.site.resources
    assert not any("test_a" in path for path in end.files)
    assert end.metadata is None
    assert end.forbidden == frozenset()
    assert filesystem.fstab_targets(end.fstab, remove.device_names(make.resource())) == ()
    assert not any(device.startswith("/dev/drbd") for device, _ in end.mounts)
    assert OWN not in end.volumes


@scenes
def test_it_ends_with_a_plain_volume(scene: str) -> None:
    end = SCENES[scene]().at_the_end()
    plain(end)
    assert (DATA in end.volumes) is ("not wanted" not in scene)
    assert end.next_step() is None


@scenes
def test_killed_after_any_step_it_ends_the_same(scene: str) -> None:
    whole = SCENES[scene]().at_the_end()
    for step, again in SCENES[scene]().killed():
        assert again.at_the_end().outcome() == whole.outcome(), step


def same_but_for_a_boot(ours: Machine, whole: Machine, step: str) -> None:
    """A boot loads no module that nobody needs, and mounts all that fstab has."""
    assert ours.outcome() | {"module": True, "mounts": []} == whole.outcome() | {"module": True, "mounts": []}, step
    assert set(whole.mounts) <= set(ours.mounts), step
    more = {target for _, target in set(ours.mounts) - set(whole.mounts)}
    assert more <= set(filesystem.fstab_targets(ours.fstab, FSTAB_NAMES)), step


@scenes
def test_a_boot_in_between_brings_it_up_no_more_and_changes_nothing_in_the_end(scene: str) -> None:
    whole = SCENES[scene]().at_the_end()
    for step, again in SCENES[scene]().killed():
        again.power_cut()
        again.come_up()
        assert again.kernel is None, step
        same_but_for_a_boot(again.at_the_end(), whole, step)


@scenes
def test_a_watcher_that_looks_in_between_leaves_it_alone(scene: str) -> None:
    for step, at in SCENES[scene]().killed():
        if "test_a" in at.site.resources:
            decision = decide(at.site, at.host(), at.site.resources["test_a"])
            assert decision.actions == (), step
            assert "remove on the server, run again, finishes it" in decision.reason


@scenes
def test_the_data_s_own_volume_is_never_written_to(scene: str) -> None:
    at = SCENES[scene]()
    for action in at.run_to_the_end():
        if isinstance(action, Run):
            assert action.argv[0] in {"umount", "mount", "systemctl", "drbdadm", "drbdsetup", "lvremove"}
            assert action.argv[0] != "lvremove" or at.flavour is BACKUP or action.argv[-1] == str(OWN)


@scenes
def test_what_would_bring_it_up_goes_before_what_it_would_bring_up(scene: str) -> None:
    done = [describe(action).partition("  #")[0] for action in SCENES[scene]().run_to_the_end()]

    def place(start: str) -> int:
        return next(number for number, line in enumerate(done) if line.startswith(start))

    forgotten = "lvremove" if "4 TiB" in scene else "drbdadm -- --force wipe-md"
    assert place("drbdadm down") < place("systemctl") < place(forgotten) < place(f"write {config.PATH}")
    assert place(f"write {config.PATH}") < place("remove /etc/drbd.d/")


def test_the_backup_s_half_is_released_last_and_by_the_server_alone() -> None:
    for scene, start in SCENES.items():
        done = start().run_to_the_end()
        asked = [action for action in done if isinstance(action, AskPeer)]
        assert asked == (done[-1:] if scene.startswith("server") else [])


def test_the_copy_stays_unless_it_is_not_wanted() -> None:
    asked = server().run_to_the_end()[-1]
    assert isinstance(asked, AskPeer)
    assert not asked.request.delete_copy
    unwanted = leaving(SERVER, Removal("test_a", "backup", make.replica(), delete_copy=True))
    asked = unwanted.run_to_the_end()[-1]
    assert isinstance(asked, AskPeer)
    assert asked.request.delete_copy
    assert DATA in unwanted.volumes, "what goes is the copy"


def test_a_backup_that_is_no_longer_configured_is_not_waited_for() -> None:
    at = server()
    while not isinstance(action := at.next_step(), AskPeer):
        at.do(action)
    at.config = config.updated(at.config, {"peers.backup": None})
    assert not any(isinstance(action, AskPeer) for action in at.run_to_the_end())


# -- the filesystem --------------------------------------------------------------------------------


def test_a_mounted_filesystem_is_mounted_from_the_volume_in_the_same_places() -> None:
    end = mounted().at_the_end()
    assert end.mounts == [(DATA.path, "/srv/a"), (DATA.path, "/srv/a/again")]


def test_fstab_is_again_what_it_was_before_add() -> None:
    for scene in ("server, mounted", "server, only in fstab"):
        end = SCENES[scene]().at_the_end()
        assert end.fstab == FSTAB


def test_a_line_that_somebody_wrote_for_the_device_mounts_the_volume() -> None:
    end = SCENES["server, in fstab by hand"]().at_the_end()
    assert end.fstab == "/dev/local/test_a /srv/a ext4 noatime,nofail 0 2\n"
    assert end.mounts == [], "it was not mounted, so nothing is"


BY_HAND = ["/dev/drbd/by-res/test_a", "/dev/drbd/by-disk/mapper/local-test_a", "/dev/drbd_test_a"]
"""What an adopted one may have been called before: without ``volume 0 {}``, by device-mapper's name, by a name."""


@pytest.mark.parametrize("name", ["/dev/drbd0", BY_RES, "/dev/drbd/by-disk/local/test_a", *BY_HAND])
def test_fstab_may_name_the_device_in_any_way(name: str) -> None:
    end = server(mounts=("/srv/a",), fstab=f"{name} /srv/a ext4 defaults 0 2\n").at_the_end()
    assert end.fstab == "/dev/local/test_a /srv/a ext4 defaults 0 2\n"
    assert end.mounts == [(DATA.path, "/srv/a")]


def test_hyphens_of_a_group_are_doubled_in_device_mapper_s_name() -> None:
    here = make.replica(group="the-group")
    names = remove.device_names(replace(make.resource(), here=here))
    assert "/dev/drbd/by-disk/mapper/the--group-test_a" in names


def test_what_is_mounted_by_its_label_is_so_again_and_waits_for_no_unit() -> None:
    line = f"LABEL=test_a /srv/a ext4 nofail,x-systemd.requires={UNIT} 0 2\n"
    end = server(mounts=("/srv/a",), fstab=line).at_the_end()
    assert end.fstab == "LABEL=test_a /srv/a ext4 nofail 0 2\n"
    assert end.mounts == [(DATA.path, "/srv/a")]


def test_it_is_back_in_its_place_before_anybody_is_waited_for() -> None:
    done = [describe(action).partition("  #")[0] for action in mounted().run_to_the_end()]
    assert done[:9] == [
        "umount /srv/a/again",
        "umount /srv/a",
        "drbdadm secondary test_a",
        "drbdadm disconnect test_a",
        "drbdadm down test_a",
        "write /etc/fstab",
        f"systemctl --no-ask-password disable --now {UNIT}",
        "mount /srv/a",
        "mount /dev/local/test_a /srv/a/again",
    ]


def test_a_copy_that_is_mounted_is_not_torn_away() -> None:
    at = backup(mounts=[("/dev/drbd0", "/mnt")])
    with pytest.raises(Refused, match="mounted at /mnt on backup"):
        at.next_step()


# -- the others ------------------------------------------------------------------------------------


def test_the_one_that_waited_for_it_waits_for_the_one_before_from_now_on() -> None:
    end = chained(SERVER).at_the_end()
    assert end.neighbours == {"first": -1, "third": 0}
    assert 'resync-after "first/0"' in end.files["/etc/drbd.d/2_third.res"]
    assert [line for line in end.log if line.startswith("drbdsetup")] == [
        "drbdsetup disk-options 2 --resync-after=0"
    ]  # fmt: skip
    assert end.operation.parameters["relink"] == []


def test_no_file_ever_names_a_resource_that_is_gone() -> None:
    for step, at in SCENES["server, one of three"]().killed():
        names = {path.rpartition("_")[2].removesuffix(".res") for path in at.files if path.endswith("third.res")}
        assert names
        third = at.files["/etc/drbd.d/2_third.res"]
        assert 'resync-after "test_a/0"' not in third or "/etc/drbd.d/1_test_a.res" in at.files, step


@pytest.mark.parametrize("disk", [None, DiskState.DISKLESS])
def test_one_that_is_not_attached_reads_the_new_order_when_it_will_be(disk: DiskState | None) -> None:
    at = chained(SERVER)
    at.run_to_the_end()
    at._note("relink", ["third"])
    host = at.host()
    others = {name: seen for name, seen in host.drbd.items() if name != "third"}
    if disk is not None:
        others["third"] = make.seen("third", disk=disk, minor=2)
    found = remove.Findings(at.config, at.fstab, at.files, {"backup": Credentials(make.SECRET)}, unit_enabled=False)
    left = remove.remaining(at.site, replace(host, drbd=others), at.operation, found)
    assert not any(isinstance(action, Note) or "disk-options" in describe(action) for action in left)


# -- an add that was left unfinished ---------------------------------------------------------------


def undone(at: Machine, delete_copy: bool = False) -> Machine:
    """What ``remove`` (or ``release``) makes of an unfinished ``add`` (or ``replicate``)."""
    removal = replace(Removal.of_task(Task.of(at.operation)), delete_copy=delete_copy)
    verb = "remove" if at.flavour is SERVER else "release"
    at.operation = make.operation(verb, removal.parameters())
    at.precious = DATA if at.flavour is SERVER else None
    return at


unfinished_scenes = pytest.mark.parametrize("scene", UNFINISHED)


@unfinished_scenes
@pytest.mark.parametrize("power_cut", [False, True], ids=["as it is", "after a power cut"])
def test_an_unfinished_add_is_undone_from_each_of_its_steps(scene: str, power_cut: bool) -> None:
    before = UNFINISHED[scene]()
    for step, at in UNFINISHED[scene]().killed():
        booted = filesystem.fstab_targets(at.fstab, FSTAB_NAMES) if power_cut else ()
        if power_cut:
            at.power_cut()
        theirs, ours = at.metadata, bool(at.operation.parameters["metadata_created"])
        undone(at).run_to_the_end()
        assert at.config == before.config, step
        assert not any("test_a" in path for path in at.files), step
        assert at.fstab == before.fstab, step
        wanted = {*before.mounts, *((DATA.path, target) for target in booted)}
        assert set(at.mounts) == wanted, step
        assert at.kernel is None, step
        assert not at.enabled, step
        assert at.metadata == (None if ours else theirs), f"{step}: not its own, so not its to wipe"


@unfinished_scenes
def test_undoing_is_killed_anywhere_and_ends_the_same(scene: str) -> None:
    for step, begun in UNFINISHED[scene]().killed():
        removal = undone(begun)
        whole = removal.at_the_end()
        for _, again in removal.killed():
            again.power_cut()
            same_but_for_a_boot(again.at_the_end(), whole, step)


def test_the_copy_of_an_unfinished_add_goes_where_that_is_wanted() -> None:
    for step, at in UNFINISHED["backup"]().killed():
        undone(at, delete_copy=True).run_to_the_end()
        assert DATA not in at.volumes, step


def test_a_volume_that_the_unfinished_add_has_not_made_stays() -> None:
    """It has only the name of the copy."""
    for step, at in UNFINISHED["backup"]().killed():
        at.operation = replace(
            at.operation, parameters={**at.operation.parameters, "copy_tag": "drbd_offsite_copy_other"}
        )
        if at.volumes.get(DATA) and at.tags.get(DATA) != "drbd_offsite_copy_other":
            undone(at, delete_copy=True).run_to_the_end()
            assert DATA in at.volumes, step
            return
    pytest.fail("there is no such moment")


def test_new_metadata_of_which_nothing_was_noted_are_nobody_s_and_may_stay() -> None:
    """The next add takes a slot with such metadata without a question."""
    for step, at in UNFINISHED["server"]().killed():
        if at.metadata == FRESH and not at.operation.parameters["metadata_created"]:
            undone(at).run_to_the_end()
            assert at.metadata == FRESH, step
            return
    pytest.fail("there is no such moment")


# -- refusals --------------------------------------------------------------------------------------


def said(refusal: Refused | None) -> str:
    assert refusal is not None
    assert refusal.hint
    assert refusal.exit_code is ExitCode.REFUSED
    return refusal.message


def held(*setters: str, forbids: tuple[Forbidden, ...] = (Forbidden.CONNECT,)) -> dict[str, tuple[Hold, ...]]:
    return {"test_a": tuple(Hold("test_a", f"so said {by}", frozenset(forbids), "2026", by) for by in setters)}


def machine(**changes: object) -> Host:
    return make.host(**{"drbd": [make.seen()]} | changes)


@pytest.mark.parametrize("setters", [[], ["disconnect"], ["hold", "disconnect"]])
def test_a_server_that_has_all_of_the_data_can_do_without_the_copy(setters: list[str]) -> None:
    assert remove.removable(machine(holds=held(*setters)), "test_a") is None
    alone = machine(drbd=[make.seen(state=None)], holds=held(*setters))
    assert remove.removable(alone, "test_a") is None


@pytest.mark.parametrize("setter", sorted(remove.UNSETTLED))
@pytest.mark.parametrize("first", [[], ["hold"]], ids=["alone", "behind another one"])
def test_where_the_other_copy_may_have_more_nothing_is_removed(setter: str, first: list[str]) -> None:
    both = held(*first, setter, forbids=(Forbidden.CONNECT, Forbidden.PROMOTE))
    assert f"so said {setter}" in said(remove.removable(machine(holds=both), "test_a"))


SERVED_THERE = Kernel(0, attached=True, connected=True)


def test_what_the_backup_serves_is_not_removed_from_under_it() -> None:
    """Both copies are the same now; what is written from now on would be on the backup alone."""
    refusal = remove.removable(machine(drbd=[make.seen(role=Role.SECONDARY)]), "test_a")
    assert "test_a is Primary on the backup" in said(refusal)
    assert "drbdadm secondary test_a" in refusal.hint


def test_a_backup_that_has_taken_over_since_it_was_begun_stops_it() -> None:
    at = server(kernel=SERVED_THERE, peer_serves=True)
    with pytest.raises(Refused, match="test_a is Primary on the backup"):
        at.next_step()
    at.peer_serves = False
    plain(at.at_the_end())


def test_a_remark_is_no_reason_to_keep_a_resource() -> None:
    remarks = held("restore-point", "out-of-sync", forbids=())
    assert remove.removable(machine(holds=remarks), "test_a") is None


@pytest.mark.parametrize("disk", [disk for disk in DiskState if disk is not DiskState.UP_TO_DATE])
def test_a_disk_that_is_not_up_to_date_is_not_all_of_the_data(disk: DiskState) -> None:
    assert f"its disk is {disk}" in said(remove.removable(machine(drbd=[make.seen(disk=disk)]), "test_a"))


def test_one_that_is_down_is_brought_up_first() -> None:
    assert "it is not up" in said(remove.removable(machine(drbd=[]), "test_a"))
    by_hand = held("down", forbids=tuple(Forbidden))
    assert "so said down" in said(remove.removable(machine(drbd=[], holds=by_hand), "test_a"))


@pytest.mark.parametrize("delete_copy", [False, True])
def test_what_it_has_decided_comes_back_from_disk(delete_copy: bool) -> None:
    import json

    removal = Removal("test_a", "backup", make.replica(3), ("/srv/a",), own_metadata=False, delete_copy=delete_copy)
    removal = replace(removal, asked_peer=True, relink=("test_b", "test_c"))
    on_disk = json.loads(json.dumps(removal.parameters()))
    assert Removal.of(make.operation("remove", on_disk)) == removal


def test_every_step_can_be_shown_to_a_person_without_a_secret() -> None:
    kinds = set()
    for scene in SCENES.values():
        for action in scene().run_to_the_end():
            kinds.add(type(action))
            line = describe(action)
            assert "\n" not in line
            assert "  # " in line
            assert make.SECRET not in line
    assert {WriteFile, RemoveFile, Lift, AskPeer, Run} <= kinds
