"""Making one half of a resource, killed after any step and begun again."""

import functools
from collections.abc import Callable
from dataclasses import replace

import pytest

from drbd_offsite import config
from drbd_offsite.errors import Refused, ToolFailed
from drbd_offsite.messages import Half
from drbd_offsite.model import MAX_INDEXED_BYTES, Flavour, MetadataPlace, VolumeName
from drbd_offsite.observed import Forbidden
from drbd_offsite.plan.actions import Action, AskPeer, Note, Run, WriteFile, describe
from drbd_offsite.plan.task import Task
from drbd_offsite.tools import filesystem

from .. import make
from .machine import BY_RES, FRESH, FSTAB_NAMES, USED, Impossible, Machine

DATA = VolumeName("local", "test_a")
POOL = VolumeName("local", "drbd_meta")
LINE = "LABEL=test_a /srv/a ext4 noatime 0 2"
FSTAB = f"UUID=0f / ext4 defaults 0 1\n{LINE}\n"
LARGE = MAX_INDEXED_BYTES + 2**40


def empty_config(flavour: Flavour) -> str:
    text = config.updated(make.CONFIG, {"resources.test_a": None, "site.flavour": flavour.value})
    return text.replace("[[backup]]", f"[[{flavour.other}]]").replace(
        "hostname = backup", f"hostname = {flavour.other}"
    )


def task(flavour: Flavour, size: int = make.GIB, **changes: object) -> Task:
    here = make.replica()
    if size > MAX_INDEXED_BYTES:
        here = replace(here, metadata=MetadataPlace(VolumeName("local", "test_a_drbd_meta"), None))
    there, tag = (make.replica(3), "drbd_offsite_copy_1") if flavour is Flavour.BACKUP else (None, "")
    return replace(Task("test_a", flavour.other, size, here, there, copy_tag=tag), **changes)


def machine(flavour: Flavour, made: Task, **changes: object) -> Machine:
    verb = "add" if flavour is Flavour.SERVER else "replicate"
    volumes = {DATA: made.size_bytes} if flavour is Flavour.SERVER else {}
    new = Machine(
        flavour,
        make.operation(verb, made.parameters()),
        empty_config(flavour),
        Half.of(make.replica(3)),
        volumes,
        precious=DATA if flavour is Flavour.SERVER else None,
    )
    for name, value in changes.items():
        setattr(new, name, value)
    return new


def server(**changes: object) -> Machine:
    return machine(Flavour.SERVER, task(Flavour.SERVER), **changes)


def mounted(**changes: object) -> Machine:
    """A filesystem that fstab mounts, mounted in two places, to be moved."""
    made = task(Flavour.SERVER, mounts=("/srv/a", "/mnt"), fstab_sources=FSTAB_NAMES)
    return machine(Flavour.SERVER, made, fstab=FSTAB, mounts=[(DATA.path, "/srv/a"), (DATA.path, "/mnt")], **changes)


def listed() -> Machine:
    """A filesystem that fstab mounts and that is not mounted now."""
    return machine(Flavour.SERVER, task(Flavour.SERVER, fstab_sources=FSTAB_NAMES), fstab=FSTAB)


def empty(**changes: object) -> Machine:
    """Nothing is on the volume, and the backup has made its own so."""
    made = task(Flavour.SERVER, blank=True)
    seeming = {"blank": True, "peer_new": True, "peer_blank": True}
    return machine(Flavour.SERVER, made, **{**seeming, **changes})


def second(flavour: Flavour) -> Machine:
    """The first resource has slot 0, so the metadata volume is there and too small."""
    made = task(flavour)
    made = replace(made, here=replace(made.here, metadata=MetadataPlace(POOL, 1), minor=1, port=7790))
    return machine(
        flavour, made, volumes={**({DATA: make.GIB} if flavour is Flavour.SERVER else {}), POOL: 128 * make.MIB}
    )


def reused(flavour: Flavour) -> Machine:
    """The slot has somebody's old metadata, and the admin said that they may go."""
    made = task(flavour, overwrite_metadata=True)
    volumes = {**({DATA: make.GIB} if flavour is Flavour.SERVER else {}), POOL: 128 * make.MIB}
    return machine(flavour, made, metadata=USED, volumes=volumes)


SCENES: dict[str, Callable[[], Machine]] = {
    "server": server,
    "server, module loaded": lambda: server(module=True),
    "server, no tunnel": lambda: server(tunnel=False),
    "server, mounted": mounted,
    "server, only in fstab": listed,
    "server, second slot": lambda: second(Flavour.SERVER),
    "server, old metadata": lambda: reused(Flavour.SERVER),
    "server, above 4 TiB": lambda: machine(Flavour.SERVER, task(Flavour.SERVER, LARGE)),
    "server, fresh metadata found": lambda: server(metadata=FRESH, volumes={DATA: make.GIB, POOL: 128 * make.MIB}),
    "server, empty": empty,
    "server, empty, no tunnel": lambda: empty(tunnel=False),
    "server, empty, backup away": lambda: empty(peer_new=False),
    "server, not empty after all": lambda: empty(blank=False),
    "backup": lambda: machine(Flavour.BACKUP, task(Flavour.BACKUP)),
    "backup, no tunnel": lambda: machine(Flavour.BACKUP, task(Flavour.BACKUP), tunnel=False),
    "backup, second slot": lambda: second(Flavour.BACKUP),
    "backup, old metadata": lambda: reused(Flavour.BACKUP),
    "backup, above 4 TiB": lambda: machine(Flavour.BACKUP, task(Flavour.BACKUP, LARGE)),
}
scenes = pytest.mark.parametrize("scene", SCENES)


@pytest.fixture(autouse=True)
def _read_each_text_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same few texts are read thousands of times here."""
    updated = functools.cache(lambda text, changes: UPDATED(text, dict(changes)))
    monkeypatch.setattr(config, "parse", PARSED)
    monkeypatch.setattr(config, "updated", lambda text, changes: updated(text, tuple(changes.items())))


PARSED = functools.cache(config.parse)
UPDATED = config.updated


@scenes
def test_it_ends_with_everything_in_its_place(scene: str) -> None:
    end = SCENES[scene]().at_the_end()
    here = end.task.here
    assert end.kernel is not None
    assert end.kernel.attached
    assert end.kernel.primary is (end.flavour is Flavour.SERVER)
    assert end.kernel.connected is end.tunnel
    assert end.enabled
    assert end.site.resources["test_a"].here == here
    assert end.site.resources["test_a"].there == make.replica(3)
    assert f"/etc/drbd.d/{here.minor}_test_a.res" in end.files
    assert end.volumes[here.volume] >= end.task.size_bytes
    assert end.synced is (end.flavour is Flavour.SERVER), "the backup waits for the first sync"


@scenes
def test_a_finished_one_has_nothing_left_to_do(scene: str) -> None:
    end = SCENES[scene]().at_the_end()
    assert end.next_step() is None


@scenes
def test_killed_after_any_step_it_ends_the_same(scene: str) -> None:
    whole = SCENES[scene]().at_the_end()
    for step, again in SCENES[scene]().killed():
        assert again.at_the_end().outcome() == whole.outcome(), step


@scenes
def test_a_power_cut_after_any_step_changes_nothing_in_the_end(scene: str) -> None:
    whole = SCENES[scene]().at_the_end()
    for step, again in SCENES[scene]().killed():
        if again.next_step() is None:
            continue  # from here on it is the unit's work
        again.power_cut()
        # What was mounted by hand and is not in fstab is mounted again as well: it is in the task.
        assert again.at_the_end().outcome() == whole.outcome(), step


@scenes
def test_killed_twice_it_still_ends_the_same(scene: str) -> None:
    whole = SCENES[scene]().at_the_end()
    for _, first in SCENES[scene]().killed():
        for _ in range(3):
            if (action := first.next_step()) is not None:
                first.do(action)
        first.power_cut()
        if (action := first.next_step()) is not None:
            first.do(action)
        assert first.at_the_end().outcome() | {"kernel": None} == whole.outcome() | {"kernel": None}


@scenes
def test_an_answer_of_the_peer_that_was_lost_is_asked_for_again(scene: str) -> None:
    whole = SCENES[scene]()
    asked = [action for action in whole.run_to_the_end() if isinstance(action, AskPeer)]
    assert len(asked) == (whole.flavour is Flavour.SERVER)
    again = SCENES[scene]()
    while (action := again.next_step()) is not None and not isinstance(action, AskPeer):
        again.do(action)
    assert again.next_step() == action


@scenes
def test_the_data_s_own_volume_is_never_made_resized_or_written_to(scene: str) -> None:
    at = SCENES[scene]()
    size = at.volumes.get(DATA)
    for action in at.run_to_the_end():
        if isinstance(action, Run) and at.flavour is Flavour.SERVER:
            assert action.argv[0] not in ("lvcreate", "lvextend") or DATA.name not in action.argv
            assert not any("mkfs" in word or "wipefs" in word for word in action.argv)
    assert size in (None, at.volumes[DATA])


@scenes
def test_force_is_said_only_to_new_metadata(scene: str) -> None:
    at = SCENES[scene]()
    while (action := at.next_step()) is not None:
        if isinstance(action, Run) and "--force" in action.argv:
            assert {"create-md", "wipe-md", "primary"} & set(action.argv)
            assert not at.synced, "these metadata describe data"
            assert action.argv[1] != "primary" or at.flavour is Flavour.SERVER
        at.do(action)


@scenes
def test_what_is_on_disk_comes_before_what_relies_on_it(scene: str) -> None:
    done = [describe(action).partition("  #")[0] for action in SCENES[scene]().run_to_the_end()]

    def place(start: str) -> int:
        return next(number for number, line in enumerate(done) if line.startswith(start))

    assert (
        place(f"write {config.PATH}")
        < place("write /etc/drbd.d/")
        < place("drbdadm create-md" if "found" not in scene else "note")
    )
    assert place("note metadata_created") < place("drbdadm attach")
    assert done[-1].startswith("systemctl"), "the unit comes last: what it would bring up is complete"


def test_a_volume_that_has_taken_the_copy_s_place_is_never_overwritten() -> None:
    for step, at in SCENES["backup"]().killed():
        if at.kernel and at.kernel.attached:
            break
        at.volumes[DATA] = make.GIB
        at.tags, at.precious = {}, DATA
        with pytest.raises(Refused, match="local/test_a on backup was not made by this add") as raised:
            at.run_to_the_end()
        assert "lvrename local test_a" in raised.value.hint, step


def test_a_copy_that_an_earlier_version_has_begun_is_finished() -> None:
    begun = machine(Flavour.BACKUP, task(Flavour.BACKUP, copy_tag=""), volumes={DATA: make.GIB})
    assert begun.at_the_end().kernel == SCENES["backup"]().at_the_end().kernel


def test_old_metadata_are_wiped_only_when_that_was_allowed() -> None:
    at = server(metadata=USED, volumes={DATA: make.GIB, POOL: 128 * make.MIB})
    with pytest.raises(Impossible, match="nobody allowed"):
        at.run_to_the_end()


def test_a_mounted_filesystem_is_mounted_again_on_the_replicated_device() -> None:
    end = mounted().at_the_end()
    assert sorted(end.mounts) == [("/dev/drbd0", "/mnt"), ("/dev/drbd0", "/srv/a")]
    first, kept, moved = end.fstab.splitlines()
    assert (first, kept) == (FSTAB.splitlines()[0], filesystem.WAS + LINE)
    assert moved.startswith(f"{BY_RES} /srv/a ext4 noatime,nofail,")


def test_a_nested_mount_is_left_inside_out() -> None:
    made = task(Flavour.SERVER, mounts=("/srv/a", "/srv/a/again"), fstab_sources=FSTAB_NAMES)
    nested = machine(Flavour.SERVER, made, mounts=[(DATA.path, "/srv/a"), (DATA.path, "/srv/a/again")])
    nested.run_to_the_end()
    assert [target for _, target in nested.mounts] == ["/srv/a", "/srv/a/again"]


def test_what_fstab_would_mount_at_the_next_boot_is_moved_even_if_it_is_not_mounted_now() -> None:
    end = listed().at_the_end()
    assert filesystem.fstab_targets(end.fstab, frozenset({BY_RES})) == ("/srv/a",)
    assert filesystem.fstab_targets(end.fstab, FSTAB_NAMES) == ()
    assert end.mounts == []


@pytest.mark.parametrize("scene", ["server, mounted", "server, only in fstab"])
def test_once_it_can_be_copied_no_boot_mounts_the_volume_past_drbd(scene: str) -> None:
    """Such writes would be in no bitmap: two copies that differ and say that they do not."""
    for step, at in SCENES[scene]().killed():
        if at.synced:
            assert filesystem.fstab_targets(at.fstab, FSTAB_NAMES) == (), step


def test_without_remount_fstab_is_left_alone() -> None:
    end = server(fstab=FSTAB).at_the_end()
    assert end.fstab == FSTAB


def test_the_backup_mounts_and_promotes_nothing() -> None:
    for scene, start in SCENES.items():
        if scene.startswith("backup"):
            end = start().at_the_end()
            assert not [line for line in end.log if line.startswith(("mount", "umount", "drbdadm primary"))]


def test_a_hold_keeps_even_a_finished_half_from_connecting() -> None:
    held = server(forbidden=frozenset({Forbidden.CONNECT}))
    held.run_to_the_end()
    assert held.kernel is not None
    assert held.kernel.attached
    assert not held.kernel.connected


# -- the first sync of an empty volume ---------------------------------------------------------------

SKIP = "drbdadm new-current-uuid --clear-bitmap test_a/0"


def served(log: list[str]) -> list[str]:
    """What was done with DRBD once it had the volume."""
    after = log[log.index("drbdadm attach test_a") + 1 :]
    return [line.removeprefix("drbdadm ") for line in after if line.startswith("drbdadm ")]


def test_two_empty_copies_are_equal_before_the_server_is_served() -> None:
    end = empty().at_the_end()
    assert served(end.log)[:3] == ["connect test_a", SKIP.removeprefix("drbdadm "), "primary test_a"]
    assert end.in_step


@pytest.mark.parametrize(
    "scene", ["server", "server, mounted", "server, empty, no tunnel", "server, not empty after all"]
)
def test_a_volume_that_is_not_proven_empty_is_served_at_once_and_then_connected(scene: str) -> None:
    end = SCENES[scene]().at_the_end()
    assert served(end.log)[:2] == ["primary --force test_a", "connect test_a"][: 1 + end.tunnel]
    assert not end.in_step, "its first sync is to come"


def test_a_backup_that_is_not_connected_in_time_keeps_nothing_from_being_served() -> None:
    end = SCENES["server, empty, backup away"]().at_the_end()
    assert served(end.log)[:2] == ["connect test_a", "primary --force test_a"]


def test_what_was_enlarged_meanwhile_is_sent() -> None:
    """The end of the copy was not made zeros."""
    end = empty(volumes={DATA: 2 * make.GIB}).at_the_end()
    assert SKIP not in end.log
    assert not end.in_step


def test_a_hold_is_no_reason_to_wait() -> None:
    end = empty(forbidden=frozenset({Forbidden.CONNECT})).at_the_end()
    assert served(end.log)[0] == "primary --force test_a"


def test_written_to_after_any_interruption_it_has_its_first_sync() -> None:
    """Somebody makes a filesystem on the volume itself before the command is run again."""
    for step, again in SCENES["server, empty"]().killed():
        if again.synced:
            continue  # DRBD has it, and knows of every write from here on
        again.power_cut()
        again.blank = False
        again.run_to_the_end()
        assert SKIP not in again.log, step
        assert not again.in_step, step


def test_promoted_by_hand_after_any_interruption_it_has_its_first_sync() -> None:
    promoted = 0
    for step, again in SCENES["server, empty"]().killed():
        if again.synced or not (again.kernel and again.kernel.attached):
            continue
        again.do(Run(("drbdadm", "primary", "--force", "test_a"), "somebody thought so"))
        again.blank = False
        again.run_to_the_end()
        assert SKIP not in again.log, step
        promoted += 1
    assert promoted


def test_what_has_the_mark_of_a_write_is_not_taken_as_equal() -> None:
    """The kernel's own guard: its metadata are not new any more."""
    at = empty()
    while not (at.kernel and at.kernel.attached):
        at.do(at.next_step())
    at.metadata = USED
    with pytest.raises(ToolFailed, match="151"):
        at.do(at.next_step())


def test_every_step_can_be_shown_to_a_person_without_a_secret() -> None:
    for scene in SCENES.values():
        for action in scene().run_to_the_end():
            line = describe(action)
            assert "\n" not in line
            assert "  # " in line
            assert make.SECRET not in line


def test_the_secret_is_in_files_for_root_alone() -> None:
    actions: list[Action] = server().run_to_the_end()
    with_secret = [a for a in actions if make.SECRET in str(a)]
    assert with_secret
    assert all(isinstance(a, WriteFile) and a.mode == 0o600 for a in with_secret)
    assert not any(make.SECRET in str(a) for a in actions if isinstance(a, Note | Run | AskPeer))
