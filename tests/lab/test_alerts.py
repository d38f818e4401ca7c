"""What is wrong reaches people: by mail, by apprise and by scripts, once, and its end too."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

import pytest

from . import product
from .lab import Lab
from .machine import Machine
from .stages import REPLICATING
from .test_healing import _diverge

WATCHER = "drbd-offsite-watch"
STATE = "/var/lib/drbd-offsite"
MAILBOX = "/var/mail/root"
PASSWORD = "hunter2"
SECONDS = 180
"""From a fault to a mail: a look, a unit, and the mail program, on an emulated processor that others use too."""

RECEIVER = """\
import http.server

class Receiver(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with open("/root/received", "ab") as file:
            file.write(body + b"\\n")
        self.send_response(200)
        self.end_headers()

http.server.HTTPServer(("127.0.0.1", 8099), Receiver).serve_forever()
"""
LOG = """\
#!/bin/sh
{ echo "$1 of $2"; cat; } >>/root/alerts
"""


def handler(machine: Machine, event: str) -> None:
    """Call the handler as the kernel does."""
    machine.run(f"DRBD_RESOURCE=test_a DRBD_MINOR=0 /usr/lib/drbd-offsite/handler {event} test_a")


def mailed(machine: Machine, subject: str) -> int:
    """How many mails of exactly this subject root has."""
    return int(machine.run(f"grep -c '^Subject: {subject}$' {MAILBOX}", check=False).stdout or 0)


def await_mail(machine: Machine, subject: str) -> None:
    machine.wait_for(f"a mail: {subject}", lambda: mailed(machine, subject), SECONDS)


def known(machine: Machine, key: str) -> dict[str, Any]:
    """What is remembered of a condition; empty for nothing."""
    text = machine.run(f"cat {STATE}/alerts/sent.json", check=False).stdout or "{}"
    found: dict[str, Any] = json.loads(text).get("known", {}).get(key, {})
    return found


def set_back(machine: Machine, what: str, **span: float) -> None:
    """Let instants in the memory of the alerts be longer ago, and have the watcher look."""
    # Without the watcher, which writes the file too; when it starts it looks at everything.
    machine.run(f"systemctl stop {WATCHER}")
    memory = json.loads(machine.run(f"cat {STATE}/alerts/sent.json").stdout)
    for entry in memory["known"].values():
        if entry[what]:
            entry[what] = (datetime.fromisoformat(entry[what]) - timedelta(**span)).isoformat()
    machine.run(f"cat >{STATE}/alerts/sent.json && systemctl start {WATCHER}", input=json.dumps(memory))


def await_all_clear(machine: Machine, key: str, subject: str) -> None:
    machine.wait_for(f"{key} is seen to be over", lambda: known(machine, key).get("gone"), SECONDS)
    set_back(machine, "gone", minutes=6)
    await_mail(machine, f"Over: {subject}")


def outbox(machine: Machine) -> list[dict[str, Any]]:
    names = machine.run(f"ls {STATE}/outbox", check=False).stdout.split()
    return [json.loads(machine.run(f"cat {STATE}/outbox/{name}").stdout) for name in names if name.endswith(".json")]


def test_a_fault_is_mailed_once_and_so_is_its_end(lab: Lab) -> None:
    lab.enter(REPLICATING)
    server, subject = lab.server, "test_a on server: disk error"
    handler(server, "local-io-error")
    await_mail(server, subject)
    text = server.run(f"cat {MAILBOX}").stdout
    for words in ("I/O error and was detached", "The other machine's copy goes on", "drbd-offsite up test_a"):
        assert words in text, text
    assert "This is server, the server. test_a is Primary, UpToDate here" in text
    server.wait_for("the outbox is empty", lambda: not outbox(server))
    set_back(server, "sent", hours=25)
    await_mail(server, f"Reminder: {subject}")
    server.run("drbd-offsite up test_a")
    await_all_clear(server, "test_a local-io-error", subject)
    assert mailed(server, subject) == mailed(server, f"Reminder: {subject}") == 1
    told = server.run("drbd-offsite events").stdout
    assert told.count(f"alert: {subject}") == 1
    assert f"alert: Over: {subject}" in told
    assert server.run("systemctl show -P Result drbd-offsite-alert").stdout.strip() == "success"


@pytest.mark.expects("Split-Brain detected")
def test_a_split_brain_is_mailed_on_both_sides_with_what_each_has_changed(lab: Lab) -> None:
    lab.enter(REPLICATING)
    _diverge(lab)
    for machine in lab.machines:
        await_mail(machine, f"test_a on {machine.name}: split brain")
        text = machine.run(f"cat {MAILBOX}").stdout
        for words in ("has changed", "whose changes are given up", "connect --discard-here test_a"):
            assert words in text, text


@pytest.mark.thorough
def test_a_lost_line_is_told_after_a_time_and_later_as_silence(lab: Lab) -> None:
    lab.enter(REPLICATING)
    server = lab.server
    lab.cut_link()
    server.wait_for("it is seen", lambda: known(server, "test_a unprotected") and known(server, "backup silent"), 120)
    assert not server.run(f"cat {MAILBOX}", check=False).stdout, "not yet"
    set_back(server, "first", minutes=16)
    await_mail(server, "test_a on server: what is written does not reach the backup")
    assert "If this machine were lost now" in server.run(f"cat {MAILBOX}").stdout
    assert not mailed(server, "backup has not been heard of by server")
    set_back(server, "first", hours=12)
    await_mail(server, "backup has not been heard of by server")
    lab.mend_link()
    product.await_up_to_date(lab)
    await_all_clear(server, "backup silent", "backup has not been heard of by server")
    await_mail(server, "Over: test_a on server: what is written does not reach the backup")


def _channels(machine: Machine) -> None:
    machine.run("umask 077; cat >/etc/drbd-offsite/apprise.conf", input=f"json://lab:{PASSWORD}@127.0.0.1:8099/\n")
    machine.run("cat >/etc/drbd-offsite/alert.d/log && chmod 755 /etc/drbd-offsite/alert.d/log", input=LOG)
    machine.run("cat >/root/receiver.py", input=RECEIVER)


def _receive(machine: Machine) -> None:
    machine.run("systemd-run --quiet --unit=receiver python3 /root/receiver.py")
    machine.wait_for("the receiver listens", "ss -Htln 'sport = 8099' | grep -q LISTEN")


def _received(machine: Machine) -> list[dict[str, Any]]:
    return [json.loads(line) for line in machine.run("cat /root/received", check=False).stdout.splitlines()]


@pytest.mark.thorough
def test_every_channel_gets_it_and_one_that_fails_gets_it_later(lab: Lab) -> None:
    lab.enter(REPLICATING)
    server, subject = lab.server, "test_a on server: disk error"
    _channels(server)
    handler(server, "local-io-error")
    await_mail(server, subject)
    server.wait_for(
        "apprise is what it waits for",
        lambda: [sorted(letter["taken"]) for letter in outbox(server)] == [["alert.d/log", "mail"]],
        SECONDS,
    )
    assert not _received(server), "nobody listened"
    server.run(f"systemctl restart {WATCHER}")
    _receive(server)
    server.wait_for("it is tried again", lambda: _received(server), 300)
    server.wait_for("the outbox is empty", lambda: not outbox(server))
    (body,) = _received(server)
    assert (body["title"], body["type"]) == (subject, "warning")
    assert "drbd-offsite up test_a" in body["message"]
    lines = server.run("cat /root/alerts").stdout.splitlines()
    assert lines[:3] == ["raised of test_a local-io-error", subject, ""]
    assert sum(line.startswith("raised of") for line in lines) == mailed(server, subject) == 1
    said = server.run("journalctl --quiet --no-pager -u drbd-offsite-alert").stdout
    assert "apprise.conf has not taken it" in said
    assert PASSWORD not in server.run("drbd-offsite events").stdout
    server.run(f"! journalctl --quiet --no-pager | grep -q {PASSWORD}")
    server.run("drbd-offsite up test_a")
    await_all_clear(server, "test_a local-io-error", subject)
    server.wait_for("apprise has the all-clear", lambda: len(_received(server)) == 2, SECONDS)
    assert _received(server)[-1]["type"] == "success"
    # Scripts come last.
    server.wait_for("the script has it too", "grep -q 'cleared of test_a local-io-error' /root/alerts")


@pytest.mark.thorough
def test_a_test_alert_says_what_became_of_it(lab: Lab) -> None:
    lab.enter(REPLICATING)
    server = lab.server
    _channels(server)
    done = server.run("drbd-offsite test-alert", check=False)
    assert done.returncode == 1
    assert "mail: taken" in done.stdout
    assert "alert.d/log: taken" in done.stdout
    assert "apprise.conf: not taken" in done.stdout
    assert PASSWORD not in done.stdout + done.stderr
    _receive(server)
    server.run("drbd-offsite test-alert")
    assert [body["type"] for body in _received(server)] == ["info"]
    assert server.run("grep -c '^test of test$' /root/alerts").stdout.strip() == "2"
    server.wait_for("both were mailed", lambda: mailed(server, "Test: alerts of server reach you") == 2)
    server.run("chmod o+w /etc/drbd-offsite/alert.d/log")
    done = server.run("drbd-offsite test-alert", check=False)
    assert done.returncode == 1
    assert "others than root may write to /etc/drbd-offsite/alert.d/log" in done.stdout
    assert server.run("grep -c '^test of test$' /root/alerts").stdout.strip() == "2", "it was not run"


@pytest.mark.thorough
def test_where_nobody_can_be_told_doctor_and_test_alert_say_what_to_do(lab: Lab) -> None:
    lab.enter(REPLICATING)
    lab.backup.run("chmod a-x /usr/sbin/dma")
    for verb, code in (("doctor", 6), ("test-alert", 1)):
        done = lab.backup.run(f"drbd-offsite {verb}", check=False)
        assert done.returncode == code
        assert "Nobody can be told of an alert" in done.stdout + done.stderr
        assert "apt install dma" in done.stdout + done.stderr
