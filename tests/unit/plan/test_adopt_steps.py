from dataclasses import replace

from drbd_offsite import config
from drbd_offsite.plan.actions import Run, WriteFile
from drbd_offsite.plan.adopt import Found, decide
from drbd_offsite.plan.adopt_steps import Progress, steps
from drbd_offsite.render import HEADER, Credentials, render

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
    made = planned(found(files={"/etc/drbd.d/mine.res": by_hand("test_a")}))
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


def test_the_watcher_is_started_where_it_had_nothing_to_watch() -> None:
    last = planned(found())[-1]
    assert isinstance(last, Run)
    assert last.argv[-1] == "drbd-offsite-watch.service"
    watched = planned(found(), replace(PROGRESS, watched=True))
    assert not any(isinstance(step, Run) and "start" in step.argv for step in watched)
