from dataclasses import replace

from drbd_offsite import config
from drbd_offsite.plan.actions import Run, WriteFile
from drbd_offsite.plan.adopt import decide
from drbd_offsite.plan.adopt_found import Found
from drbd_offsite.plan.adopt_steps import Progress, other_starters, steps
from drbd_offsite.render import HEADER, Credentials, render
from drbd_offsite.tools import systemd

from .test_adopt import DUMP, by_hand, found, numbered, site_of

PROGRESS = Progress({}, {}, frozenset(), watched=False)


def planned(look: Found, progress: Progress = PROGRESS) -> list[Run | WriteFile]:
    adoption = decide(look, (), None)
    credentials = {peer: Credentials(secret) for peer, secret in adoption.secrets.items()}
    wanted = render(site_of(adoption), credentials, look.hostname)
    done = list(steps(look, adoption, wanted, progress))
    assert all(isinstance(step, Run | WriteFile) for step in done)
    return done  # type: ignore[return-value]


def test_drbd_s_files_are_ours_before_our_configuration_names_the_resource() -> None:
    paths = [step.path for step in planned(found()) if isinstance(step, WriteFile)]
    assert paths[:4] == [
        "/var/lib/drbd-offsite/adopted/0_test_a.res",
        "/etc/drbd-offsite/keys/backup/drbd.secret",
        "/etc/drbd.d/0_test_a.res",
        str(config.PATH),
    ]


def test_nothing_that_is_done_is_told_to_drbd() -> None:
    programs = {step.argv[0] for step in planned(found(DUMP, numbered(1))) if isinstance(step, Run)}
    assert programs == {"systemctl"}


def test_a_file_of_another_name_gets_its_new_content_first_and_its_new_name_then() -> None:
    mine = "/etc/drbd.d/mine.res"
    made = planned(found(files={mine: by_hand("test_a")}, dump={"test_a": replace(DUMP, file=mine)}))
    place = made.index(Run(("mv", "--no-target-directory", "/etc/drbd.d/mine.res", "/etc/drbd.d/0_test_a.res"),
                           "and has the name of ours"))  # fmt: skip
    before = made[place - 1]
    assert isinstance(before, WriteFile)
    assert before.path == "/etc/drbd.d/mine.res"
    assert before.text.startswith(HEADER)


def test_what_was_kept_earlier_is_not_overwritten() -> None:
    first = planned(found(), replace(PROGRESS, kept={"0_test_a.res": "of another time"}))[0]
    assert isinstance(first, WriteFile)
    assert first.path == "/var/lib/drbd-offsite/adopted/0_test_a.res.1"
    kept = replace(PROGRESS, kept={"0_test_a.res": "of another time", "0_test_a.res.1": by_hand("test_a")})
    again = planned(found(), kept)[0]
    assert isinstance(again, WriteFile)
    assert again.path.endswith("drbd.secret")


BY_LINK = "/dev/drbd/by-res/test_a /srv/a ext4 defaults 0 2\n"


def test_fstab_has_lost_the_links_before_they_go_and_waits_for_our_unit_once_there_is_one() -> None:
    made = planned(found(fstab=BY_LINK))
    fstab = [number for number, step in enumerate(made) if isinstance(step, WriteFile) and step.path == "/etc/fstab"]
    paths = [step.path if isinstance(step, WriteFile) else "" for step in made]
    assert len(fstab) == 2
    assert fstab[0] < paths.index("/etc/drbd.d/0_test_a.res") < paths.index(str(config.PATH)) < fstab[1]
    assert all(made[number + 1].argv == systemd.DAEMON_RELOAD for number in fstab)  # type: ignore[union-attr]
    assert not [step for step in planned(found()) if isinstance(step, Run) and step.argv == systemd.DAEMON_RELOAD]


def commands(*made: Run | WriteFile) -> list[tuple[str, ...]]:
    return [step.argv[2:] for step in made if isinstance(step, Run) and step.argv[0] == "systemctl"]


def test_nothing_else_brings_the_resources_up_at_boot_once_ours_does_and_nothing_is_stopped() -> None:
    progress = replace(PROGRESS, starters=("drbd@test_a.target", "drbd.service"))
    assert commands(*planned(found(), progress)) == [
        ("enable", "--now", "--no-block", "drbd-offsite@test_a.service"),
        ("disable", "drbd@test_a.target"),
        ("disable", "drbd.service"),
        ("start", "--no-block", "drbd-offsite-watch.service"),
    ]


def test_what_brings_up_other_resources_too_is_left_enabled() -> None:
    look = found(DUMP, numbered(1))
    assert other_starters(decide(look, ["test_a"], None)) == ("drbd@test_a.target",)
    assert other_starters(decide(look, (), None)) == ("drbd@test_a.target", "drbd@test_b.target", "drbd.service")


def test_the_watcher_is_started_where_it_had_nothing_to_watch() -> None:
    last = planned(found())[-1]
    assert isinstance(last, Run)
    assert last.argv[-1] == "drbd-offsite-watch.service"
    watched = planned(found(), replace(PROGRESS, watched=True))
    assert not any(isinstance(step, Run) and "start" in step.argv for step in watched)
