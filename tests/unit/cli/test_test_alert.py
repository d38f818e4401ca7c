"""``test-alert``, and ``deliver``, which does for real what it tries."""

import os
from pathlib import Path

import pytest

from drbd_offsite import alert, config, hooks, journal
from drbd_offsite.errors import ExitCode
from drbd_offsite.plan.alerts import Kind, Message

from .. import make
from ..conftest import Answer, Programs
from ..test_alert import apprise, program, script
from .conftest import Command

MAIL = "-i", "-t"


@pytest.fixture(autouse=True)
def _configured(monkeypatch: pytest.MonkeyPatch) -> None:
    config.PATH.write_text(make.CONFIG)
    monkeypatch.setattr(hooks, "OWNER", os.getuid())


def mailer(programs: Programs, *answers: Answer) -> Path:
    path = program(alert.SENDMAIL)
    programs.allow((str(path), *MAIL), *answers)
    return path


def test_every_channel_gets_a_test_and_says_so(command: Command, programs: Programs) -> None:
    mailer(programs)
    pager = script("pager")
    programs.allow((str(pager), "test", "test"))
    said = command("test-alert")
    assert said.code == ExitCode.DONE
    assert said.out.splitlines()[:2] == ["mail: taken", "alert.d/pager: taken"]
    assert "look whether it has reached you" in said.out
    assert all("Nothing has happened" in text for text in programs.inputs)
    assert alert.waiting() == [], "a test is not tried again for a week"
    assert not (journal.STATE / "outbox").exists()


def test_one_that_fails_is_named_with_its_reason_and_the_others_are_tried(command: Command, programs: Programs) -> None:
    mailer(programs, Answer("", 75, "no route to mail.example.org"))
    pager = script("pager")
    programs.allow((str(pager), "test", "test"))
    said = command("test-alert")
    assert said.code == ExitCode.FAILED
    assert "mail: not taken: exit code 75; no route to mail.example.org" in said.out
    assert "alert.d/pager: taken" in said.out


def test_a_script_that_may_not_be_run_is_a_failure(command: Command, programs: Programs) -> None:
    mailer(programs)
    path = script("pager", 0o777)
    said = command("test-alert")
    assert said.code == ExitCode.FAILED
    assert f"{path}: not run: others than root may write to {path}" in said.out
    assert "mail: taken" in said.out


def test_with_no_channel_at_all_it_says_what_to_configure(command: Command) -> None:
    said = command("test-alert")
    assert said.code == ExitCode.FAILED
    for words in ("apt install dma", "alert_address", "apprise.conf", "alert.d"):
        assert words in said.err


def test_no_password_is_shown_whatever_apprise_says(command: Command, programs: Programs) -> None:
    apprise()
    answer = Answer("", 1, "Unparseable URL json://user:hunter2@example.org")
    programs.machine = lambda argv, stdin: answer if argv[0] == str(alert.APPRISE) else None  # noqa: ARG005
    said = command("test-alert", "-v")
    assert said.code == ExitCode.FAILED
    assert "apprise.conf: not taken" in said.out
    assert "hunter2" not in said.out + said.err


def test_deliver_empties_the_outbox_and_logs_what_it_could_not_do(command: Command, programs: Programs) -> None:
    mailer(programs, Answer("", 75, "deferred"), Answer())
    alert.post(Message(Kind.RAISED, "test_a x", "it is so", "text\n", journal.now()))
    said = command("deliver")
    assert said.code == ExitCode.DONE, "it is tried again; a unit that fails would be news of its own"
    assert said.err == "it is so: mail has not taken it: exit code 75; deferred\n"
    assert command("deliver").err == ""
    assert alert.waiting() == []


def test_the_doctor_says_when_nobody_is_reached(command: Command, programs: Programs) -> None:
    programs.machine = lambda argv, stdin: Answer()  # noqa: ARG005
    assert alert.NOBODY in command("doctor").out
    program(alert.SENDMAIL)
    assert alert.NOBODY not in command("doctor").out
