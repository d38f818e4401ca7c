"""Letters in and out of the outbox. Programs are fakes; what they are given is what counts."""

import email
import email.policy
import os
import stat
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from pathlib import Path

import pytest

from drbd_offsite import alert, files, hooks, journal, run
from drbd_offsite.errors import OffsiteError, Refused, ToolFailed
from drbd_offsite.model import Site
from drbd_offsite.plan.alerts import Kind, Message

from . import make
from .conftest import Answer, Programs

NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
SPLIT = Message(Kind.RAISED, "test_a split-brain", "test_a on server: split brain", "Both have changes: ü.\n", "")
SITE = make.site()
PASSWORD = "hunter2"


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> "Clock":
    clock = Clock()
    monkeypatch.setattr(alert, "datetime", clock)
    monkeypatch.setattr(hooks, "OWNER", os.getuid())
    return clock


class Clock:
    """Stands in for the class of that name."""

    fromisoformat = datetime.fromisoformat

    def __init__(self) -> None:
        self.instant = NOW

    def now(self, zone: object) -> datetime:
        assert zone is UTC
        return self.instant


def program(path: Path, mode: int = 0o755) -> Path:
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    path.write_text("")
    path.chmod(mode)
    return path


@pytest.fixture
def mailer(programs: Programs) -> Path:
    path = program(alert.SENDMAIL)
    programs.allow((str(path), "-i", "-t"))
    return path


def script(name: str, mode: int = 0o755) -> Path:
    return program(alert.SETTINGS / "alert.d" / name, mode)


def apprise(name: str = "apprise.conf", mode: int = 0o600) -> Path:
    program(alert.APPRISE)
    path = program(alert.SETTINGS / name, mode)
    path.write_text(f"json://user:{PASSWORD}@example.org\n")
    return path


def message(subject: str = SPLIT.subject, kind: Kind = Kind.RAISED, at: datetime = NOW) -> Message:
    return Message(kind, SPLIT.key, subject, SPLIT.text, at.isoformat())


def call(path: Path, kind: str = "raised") -> tuple[str, ...]:
    return (str(path), kind, SPLIT.key)


def deliver(site: Site = SITE) -> list[str]:
    told: list[str] = []
    alert.deliver(site, told.append)
    return told


def subjects() -> list[str]:
    return [letter.message.subject for letter in alert.waiting()]


# -- the outbox ----------------------------------------------------------------------------------


def test_a_letter_is_a_file_for_root_alone_and_comes_back_as_it_was() -> None:
    alert.post(message())
    (path,) = (journal.STATE / "outbox").iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    (letter,) = alert.waiting()
    assert letter.message == message()
    assert (letter.taken, letter.tries, letter.next) == ((), 0, NOW)


def test_letters_are_in_the_order_in_which_they_were_posted_and_can_be_withdrawn() -> None:
    names = [alert.post(message(f"{number}")) for number in range(5)]
    alert.withdraw(names[2])
    assert subjects() == ["0", "1", "3", "4"]


@pytest.mark.usefixtures("mailer")
@pytest.mark.parametrize(
    ("text", "changed"),
    [("}", ""), ("raised", "shouted"), ("2026-01-01T12", "noon"), ('"tries": 0', '"tries": "no"'), ('"key"', '"x"')],
)
def test_what_is_no_letter_is_passed_over(text: str, changed: str) -> None:
    path = journal.STATE / "outbox" / f"{alert.post(message())}.json"
    path.write_text(path.read_text().replace(text, changed))
    assert alert.waiting() == []
    assert not alert.due(NOW)
    assert deliver() == []


# -- mail ----------------------------------------------------------------------------------------


def mailed(programs: Programs) -> EmailMessage:
    found = email.message_from_string(programs.inputs[-1], policy=email.policy.default)
    assert isinstance(found, EmailMessage)
    return found


@pytest.mark.usefixtures("mailer")
def test_mail_goes_through_the_local_sendmail(programs: Programs) -> None:
    alert.post(message())
    assert deliver() == []
    mail = mailed(programs)
    hostname = os.uname().nodename
    assert mail["To"] == "root"
    assert mail["From"] == f"drbd-offsite on {hostname} <root>"
    assert mail["Subject"] == SPLIT.subject
    assert mail["Date"] == "Thu, 01 Jan 2026 12:00:00 +0000"
    assert mail["Message-ID"].endswith(f"@{hostname}>")
    assert mail["Auto-Submitted"] == "auto-generated"
    assert mail.get_content() == SPLIT.text
    assert programs.inputs[-1].isascii()
    assert "\r" not in programs.inputs[-1], "sendmail wants the lines of this system"
    assert alert.waiting() == []


@pytest.mark.usefixtures("mailer")
def test_a_text_in_english_is_mailed_as_it_is(programs: Programs) -> None:
    text = f"{'Nothing is lost. ' * 20}\n\ndrbd-offsite status\n"
    alert.post(Message(Kind.RAISED, "x", "x", text, NOW.isoformat()))
    deliver()
    assert programs.inputs[-1].endswith(f"\n\n{text}")
    assert mailed(programs).get_content() == text


@pytest.mark.usefixtures("mailer")
def test_a_subject_cannot_bring_headers_with_it(programs: Programs) -> None:
    alert.post(message("split\r\nBcc: eve@example.org\n\nboo"))
    deliver()
    mail = mailed(programs)
    assert mail["Bcc"] is None
    assert mail["Subject"] == "split Bcc: eve@example.org boo"
    assert mail.get_content() == SPLIT.text


@pytest.mark.usefixtures("mailer")
def test_one_mail_has_one_message_id_however_often_it_is_tried(programs: Programs, clock: Clock) -> None:
    programs.allow((str(alert.SENDMAIL), "-i", "-t"), Answer("", 75, "deferred"), "")
    alert.post(message())
    deliver()
    first = mailed(programs)["Message-ID"]
    clock.instant += timedelta(hours=1)
    deliver()
    assert mailed(programs)["Message-ID"] == first
    alert.post(message(kind=Kind.CLEARED))
    deliver()
    assert mailed(programs)["Message-ID"] != first


def test_without_an_address_or_a_mail_program_nothing_is_mailed(mailer: Path) -> None:
    assert [channel.name for channel in alert.channels(SITE)] == ["mail"]
    assert alert.channels(make.site(alert_address="")) == []
    mailer.chmod(0o644)
    assert alert.channels(SITE) == []


# -- apprise -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "word"), [("raised", "warning"), ("cleared", "success"), ("test", "info")])
def test_apprise_reads_its_urls_from_the_file_and_the_text_from_standard_input(
    kind: str, word: str, programs: Programs
) -> None:
    path = apprise()
    argv = (str(alert.APPRISE), f"--config={path}", f"--title={SPLIT.subject}", f"--notification-type={word}")
    programs.allow(argv)
    alert.post(message(kind=Kind(kind)))
    assert deliver() == []
    assert programs.ran == [argv]
    assert programs.inputs == [SPLIT.text]
    assert alert.waiting() == []


def test_what_apprise_says_is_not_shown_because_it_has_urls_in_it(programs: Programs) -> None:
    path = apprise()
    said = Answer(f"Unparseable URL json://user:{PASSWORD}@example.org", 1)
    programs.machine = lambda argv, stdin: said if argv[0] == str(alert.APPRISE) else None  # noqa: ARG005
    alert.post(message())
    (line,) = deliver()
    assert "apprise.conf has not taken it: exit code 1" in line
    assert f"--config={path} --body=test -vv" in line
    assert PASSWORD not in line + str(journal.events())


def test_each_file_of_apprise_is_a_channel_and_without_apprise_none_is() -> None:
    apprise()
    apprise("apprise-phone.conf")
    assert [channel.name for channel in alert.channels(SITE)] == ["apprise-phone.conf", "apprise.conf"]
    alert.APPRISE.unlink()
    assert alert.channels(SITE) == []


# -- scripts -------------------------------------------------------------------------------------


def test_a_script_gets_kind_and_key_and_the_text(programs: Programs) -> None:
    path = script("10-pager")
    programs.allow(call(path, "cleared"))
    alert.post(message(kind=Kind.CLEARED))
    assert deliver() == []
    assert programs.inputs == [f"{SPLIT.subject}\n\n{SPLIT.text}"]


def test_scripts_have_the_names_of_run_parts_and_are_executable() -> None:
    for name in ("b_2", "A-1", "x.sh", "x~", ".hidden", "ü"):
        script(name)
    script("README", 0o644)
    (alert.SETTINGS / "alert.d/directory").mkdir()
    (alert.SETTINGS / "alert.d/nowhere").symlink_to("/nonexistent")
    assert [channel.name for channel in alert.channels(SITE)] == ["alert.d/A-1", "alert.d/b_2"]
    assert alert.refused() == []


@pytest.mark.parametrize("mode", [0o775, 0o757])
@pytest.mark.parametrize("where", ["alert.d/pager", "alert.d"])
def test_a_script_that_others_can_write_is_refused(where: str, mode: int) -> None:
    path = script("pager")
    (alert.SETTINGS / where).chmod(mode)
    assert alert.channels(SITE) == []
    assert alert.refused() == [(path, f"others than root may write to {alert.SETTINGS / where}")]
    alert.post(message())
    assert deliver()[0].startswith(f"{path} is not run: others than root may write")


def test_a_script_of_another_owner_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    script("pager")
    monkeypatch.setattr(hooks, "OWNER", os.getuid() + 1)
    assert alert.channels(SITE) == []
    ((_, why),) = alert.refused()
    assert "does not belong to root" in why


def test_a_link_is_judged_by_what_it_leads_to() -> None:
    elsewhere = program(alert.SETTINGS / "elsewhere", 0o757)
    script("unused")
    (alert.SETTINGS / "alert.d/pager").symlink_to(elsewhere)
    assert [path.name for path, _ in alert.refused()] == ["pager"]


@pytest.mark.usefixtures("real_programs")
def test_a_real_script_takes_a_real_message(tmp_path: Path) -> None:
    path = script("pager")
    path.write_text(f'#!/bin/sh\n{{ echo "$#:$1:$2"; cat; }} >{tmp_path}/got\n')
    alert.post(message())
    assert deliver() == []
    assert (tmp_path / "got").read_text() == f"2:raised:test_a split-brain\n{SPLIT.subject}\n\n{SPLIT.text}"


# -- kept and tried again --------------------------------------------------------------------------


def test_a_letter_waits_for_each_channel_and_no_channel_gets_it_twice(programs: Programs, clock: Clock) -> None:
    good, bad = script("good"), script("bad")
    programs.allow(call(good))
    programs.allow(call(bad), Answer("", 3, "no line"), Answer("", 3, "no line"), "")
    alert.post(message())
    assert deliver() == [f"{SPLIT.subject}: alert.d/bad has not taken it: exit code 3; no line"]
    (letter,) = alert.waiting()
    assert (letter.taken, letter.tries, letter.next) == (("alert.d/good",), 1, NOW + timedelta(minutes=1))
    clock.instant += timedelta(minutes=1)
    deliver()
    assert deliver() == []
    assert alert.waiting() == []
    assert programs.ran.count(call(good)) == 1
    assert programs.ran.count(call(bad)) == 3


def test_the_pauses_grow_up_to_an_hour(programs: Programs, clock: Clock) -> None:
    programs.allow(call(script("bad")), Answer("", 1))
    alert.post(message())
    pauses = []
    for _ in range(10):
        assert alert.due(clock.instant)
        deliver()
        (letter,) = alert.waiting()
        pauses.append((letter.next - clock.instant) // timedelta(minutes=1))
        assert not alert.due(letter.next - timedelta(seconds=1))
        clock.instant = letter.next
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60, 60]


def test_a_clock_that_was_set_back_stops_no_delivery(programs: Programs, clock: Clock) -> None:
    programs.allow(call(script("bad")), Answer("", 1))
    alert.post(message())
    deliver()
    clock.instant -= timedelta(days=300)
    assert alert.due(clock.instant)


def test_one_that_is_due_takes_the_older_ones_with_it_in_their_order(programs: Programs, clock: Clock) -> None:
    path = script("pager")
    programs.allow(call(path), Answer("", 1), "")
    programs.allow(call(path, "cleared"))
    alert.post(message())
    deliver()
    alert.post(message("Over: it", Kind.CLEARED))
    assert alert.due(clock.instant)
    deliver()
    assert programs.ran == [call(path), call(path), call(path, "cleared")]
    assert alert.waiting() == []


def test_one_message_that_is_refused_does_not_keep_the_others_back(programs: Programs) -> None:
    path = script("pager")
    programs.allow(call(path), Answer("", 1))
    programs.allow(call(path, "cleared"))
    alert.post(message())
    alert.post(message(kind=Kind.CLEARED))
    deliver()
    assert [letter.message.kind for letter in alert.waiting()] == [Kind.RAISED]


def test_a_channel_that_hangs_is_left_alone_and_the_others_are_not(
    programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    hangs, works = script("hangs"), script("works")
    programs.allow(call(works))
    asked = []
    really = run.run

    def stand_in(argv: tuple[str, ...], *, timeout: float, **options: object) -> object:
        assert timeout == alert.CHANNEL_SECONDS
        if argv[0] == str(hangs):
            asked.append(argv)
            raise ToolFailed("hangs did not finish within 60 s and was stopped.")
        return really(argv, timeout=timeout, **options)

    monkeypatch.setattr(alert, "run", stand_in)
    for _ in range(3):
        alert.post(message())
    assert len(deliver()) == 3
    assert len(asked) == 1
    assert [letter.taken for letter in alert.waiting()] == [("alert.d/works",)] * 3


def test_after_a_week_it_is_dropped_and_that_is_an_event(programs: Programs, clock: Clock) -> None:
    programs.allow(call(script("bad")), Answer("", 1))
    alert.post(message())
    clock.instant += timedelta(days=7)
    deliver()
    assert subjects() == [SPLIT.subject]
    clock.instant += timedelta(seconds=1)
    deliver()
    assert alert.waiting() == []
    (event,) = journal.events()
    assert event["event"] == "alert-dropped"
    assert event["text"] == f"Not taken by alert.d/bad for 7 days: {SPLIT.subject}"


def test_where_nobody_can_be_told_it_is_said_once_and_the_letter_waits(programs: Programs, clock: Clock) -> None:
    alert.post(message())
    (line,) = deliver()
    assert line == f"{SPLIT.subject}: {alert.NOBODY}"
    clock.instant += timedelta(hours=1)
    assert deliver() == []
    programs.allow(call(script("pager")))
    deliver()
    assert alert.waiting() == []


def test_a_channel_that_is_gone_for_a_while_does_not_get_it_twice(programs: Programs) -> None:
    good, bad = script("good"), script("bad")
    programs.allow(call(good))
    programs.allow(call(bad), Answer("", 1))
    alert.post(message())
    deliver()
    good.chmod(0o644)
    deliver()
    good.chmod(0o755)
    deliver()
    assert programs.ran.count(call(good)) == 1


def test_that_it_is_tried_is_on_disk_before_it_is_tried(programs: Programs) -> None:
    """A power cut, or a full disk, in the middle of it: it is tried again, and not at once."""

    def look(_: str) -> Answer:
        (letter,) = alert.waiting()
        assert letter.tries == 1
        assert not alert.due(NOW)
        return Answer()

    programs.allow(call(script("pager")), look)
    alert.post(message())
    deliver()
    assert programs.ran


def test_a_full_disk_has_nothing_sent_and_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    script("pager")
    alert.post(message())

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "write", full)
    with pytest.raises(OffsiteError, match="No space left"):
        deliver()


def test_two_never_deliver_at_a_time() -> None:
    with files.lock("alerts", 0.0), pytest.raises(Refused):
        deliver()


# -- for the doctor --------------------------------------------------------------------------------


def troubles() -> list[str]:
    found = list(alert.troubles(SITE))
    assert all(remedy for _, remedy in found)
    return [what for what, _ in found]


@pytest.mark.usefixtures("mailer")
def test_where_somebody_is_reached_the_doctor_has_nothing_to_say() -> None:
    assert troubles() == []


def test_the_doctor_says_that_nobody_is_reached() -> None:
    assert troubles() == [alert.NOBODY]


@pytest.mark.usefixtures("mailer")
def test_the_doctor_names_what_is_configured_and_does_not_work(programs: Programs) -> None:
    script("pager", 0o757)
    path = apprise(mode=0o644)
    alert.APPRISE.unlink()
    refused, missing, readable = troubles()
    assert "is not run" in refused
    assert missing == f"{path} is there, and apprise is not installed."
    assert "can be read by others" in readable
    programs.allow((str(alert.SENDMAIL), "-i", "-t"), Answer("", 75))
    alert.post(message())
    for _ in range(alert.STUCK_TRIES):
        assert len(troubles()) == 3
        deliver()
    assert f"the oldest ({SPLIT.subject}) since 2026-01-01T12:00:00" in troubles()[-1]
