"""The package's questions, asked by the real debconf with a database of its own."""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from drbd_offsite import config
from drbd_offsite.model import Flavour

from .test_packaging import DEBIAN, assembled

FRONTEND = Path("/usr/share/debconf/frontend")
CONFIG = "/etc/drbd-offsite/drbd-offsite.conf"
INVITATION = "QkVHSU4g" * 40

pytestmark = pytest.mark.skipif(not FRONTEND.exists(), reason="debconf is not installed")

DATABASES = """\
Config: configdb
Templates: templatedb

Name: config
Driver: File
Reject-Type: password
Filename: {place}/config.dat

Name: passwords
Driver: File
Mode: 600
Backup: false
Required: false
Accept-Type: password
Filename: {place}/passwords.dat

Name: configdb
Driver: Stack
Stack: config, passwords

Name: templatedb
Driver: File
Filename: {place}/templates.dat
"""

COMMAND = """\
#!/bin/sh
# In place of drbd-offsite: keeps what it was given, in arguments and on standard input.
echo "$*" >>{place}/commands
cat >>{place}/commands
case $* in join*) exit {join_exit} ;; esac
"""


@dataclass
class Machine:
    """A package's scripts, run as dpkg runs them, and what came of it."""

    place: Path
    flavour: Flavour

    def __post_init__(self) -> None:
        package = self.package = f"drbd-offsite-{self.flavour}"
        (self.place / "systemrc").write_text(DATABASES.format(place=self.place))
        (self.place / "bin").mkdir()
        self.provide("drbd-offsite", COMMAND.format(place=self.place, join_exit=0))
        self.provide("deb-systemd-invoke", "#!/bin/sh\n")
        self.provide("vgs", "#!/bin/sh\nexit 5\n")
        for kind in ("config", "postinst"):
            script = self.place / f"{package}.{kind}"
            script.write_text(assembled(f"{package}.{kind}").replace(CONFIG, str(self.config)))
            script.chmod(0o755)
        shutil.copy(DEBIAN / f"{package}.templates", self.place)
        # po2debconf leaves the mark of translatable fields out.
        templates = self.place / f"{package}.templates"
        templates.write_text(re.sub(r"(?m)^_+(?=\w)", "", templates.read_text()))

    @property
    def config(self) -> Path:
        return self.place / "drbd-offsite.conf"

    @property
    def environment(self) -> dict[str, str]:
        return {
            "PATH": f"{self.place}/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "DEBCONF_SYSTEMRC": str(self.place / "systemrc"),
            "DEBIAN_FRONTEND": "noninteractive",
            "LC_ALL": "C.UTF-8",
            "TERM": "dumb",
            "HOME": str(self.place),
        }

    def provide(self, name: str, text: str) -> None:
        program = self.place / "bin" / name
        program.write_text(text)
        program.chmod(0o755)

    def preseed(self, **answers: str) -> None:
        kinds = {"dials": "select", "battery_backed_cache": "boolean", "enrolment_text": "password"}
        lines = [f"{self.package} {self.package}/{n} {kinds.get(n, 'string')} {v}\n" for n, v in answers.items()]
        subprocess.run(["debconf-set-selections"], input="".join(lines), text=True, env=self.environment, check=True)

    def install(self, *options: str) -> str:
        """What the scripts say on standard error. debconf itself runs config before postinst."""
        command = [str(FRONTEND), str(self.place / f"{self.package}.postinst"), "configure", *options]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stderr

    def ask(self, **replies: str | list[str]) -> str:
        """The whole dialogue of an installation with a person.

        Who is asked again gives the next of the replies to that question; who has none left takes
        what is suggested.
        """
        left = {name: [reply] if isinstance(reply, str) else list(reply) for name, reply in replies.items()}
        to_us, from_debconf = os.pipe()
        to_debconf, from_us = os.pipe()
        person = {"DEBIAN_FRONTEND": "passthrough", "DEBIAN_PRIORITY": "low"}
        channel = {"DEBCONF_READFD": str(to_debconf), "DEBCONF_WRITEFD": str(from_debconf)}
        said = []
        with subprocess.Popen(
            [str(FRONTEND), str(self.place / f"{self.package}.postinst"), "configure", ""],
            env=self.environment | person | channel,
            pass_fds=(to_debconf, from_debconf),
            stderr=subprocess.PIPE,
            text=True,
        ) as running:
            os.close(to_debconf)
            os.close(from_debconf)
            suggested: dict[str, str] = {}
            with os.fdopen(to_us, encoding="utf-8") as lines, os.fdopen(from_us, "w", encoding="utf-8") as replying:
                for line in lines:
                    said.append(line)
                    assert len(said) < 1000, "asked again and again"
                    verb, _, rest = line.rstrip("\n").partition(" ")
                    name, _, value = rest.removeprefix(f"{self.package}/").partition(" ")
                    reply = ""
                    if verb == "SET":
                        suggested[name] = value
                    elif verb == "GET":
                        reply = left[name].pop(0) if left.get(name) else suggested.get(name, "")
                        suggested.pop(name, None)
                    print("0", reply, file=replying, flush=True)
            assert running.stderr is not None
            said.append(running.stderr.read())
        assert running.returncode == 0, said
        assert not any(left.values()), f"never asked for {left}"
        return "".join(said)

    @property
    def commands(self) -> list[str]:
        """Lines that drbd-offsite was given since the last look."""
        file = self.place / "commands"
        lines = file.read_text().splitlines() if file.exists() else []
        file.unlink(missing_ok=True)
        return lines

    @property
    def databases(self) -> str:
        """All that debconf has on disk, backup copies included."""
        return "".join(path.read_text() for path in self.place.glob("*.dat*"))


@pytest.fixture
def server(tmp_path: Path) -> Machine:
    return Machine(tmp_path, Flavour.SERVER)


@pytest.fixture
def backup(tmp_path: Path) -> Machine:
    return Machine(tmp_path, Flavour.BACKUP)


def configured(machine: Machine, **changes: str | None) -> str:
    """Give the machine a configuration file, and return its text."""
    values = {"site.volume_group": "local"}
    if machine.flavour is Flavour.SERVER:
        values["peers.backup.reachable_as"] = "vpn.example.org"
    text = config.updated(
        config.initial(machine.flavour), values | {k.replace("__", "."): v for k, v in changes.items()}
    )
    machine.config.write_text(text)
    return text


def test_without_answers_the_server_is_not_configured(server: Machine) -> None:
    said = server.install("")
    assert said == (
        "drbd-offsite-server: not configured, nothing was applied; no usable answer to: volume_group server_name."
        " Run: dpkg-reconfigure drbd-offsite-server\n"
    )
    assert server.commands == []


def test_preseeded_answers_are_handed_on(server: Machine) -> None:
    server.preseed(
        volume_group="local", dials="server", backup_name="backup.example.org", port="5000", battery_backed_cache="true"
    )
    assert server.install("") == ""
    assert server.commands == [
        "configure server",
        "site.volume_group=local",
        "peers.backup.dials=server",
        "peers.backup.reachable_as=backup.example.org",
        "peers.backup.port=5000",
        "peers.backup.server_address=10.89.33.1",
        "peers.backup.backup_address=10.89.33.2",
        "peers.backup.link_speed=100",
        "site.battery_backed_cache=yes",
        "site.alert_address=root",
    ]


@pytest.mark.parametrize(
    ("question", "wrong"),
    [
        ("volume_group", "../etc"),
        ("dials", "both"),
        ("server_name", "two words"),
        ("server_name", "10.0.0.256"),
        ("port", "70000"),
        ("port", "0"),
        ("server_address", "10.89.33"),
        ("backup_address", "10.89.33.1"),  # the server's own
        ("link_speed", "fast"),
        ("battery_backed_cache", "maybe"),
        ("alert_address", "root@"),
    ],
)
def test_a_wrong_answer_configures_nothing(server: Machine, question: str, wrong: str) -> None:
    server.preseed(**{"volume_group": "local", "server_name": "vpn.example.org", question: wrong})
    said = server.install("")
    assert said.count("\n") == 1
    assert f"not configured, nothing was applied; no usable answer to: {question}" in said
    assert server.commands == []
    # Corrected, it goes through.
    right = {"volume_group": "local", "dials": "backup", "server_name": "vpn.example.org", "port": "1194"}
    right |= {"server_address": "10.1.1.1", "backup_address": "10.1.1.2", "link_speed": "10"}
    right |= {"battery_backed_cache": "false", "alert_address": "admin@example.org"}
    server.preseed(**{question: right[question]})
    assert server.install("") == ""
    assert server.commands[0] == "configure server"


@pytest.mark.parametrize("host", ["vpn.example.org", "VPN", "192.0.2.1", "2001:db8::1", "a-b.example.org."])
def test_names_and_addresses_of_both_kinds_are_taken(server: Machine, host: str) -> None:
    server.preseed(volume_group="local", server_name=host)
    assert server.install("") == ""
    assert f"peers.backup.reachable_as={host}" in server.commands


def test_the_file_is_the_truth_and_the_answers_follow_it(server: Machine) -> None:
    server.preseed(volume_group="local", server_name="vpn.example.org", port="6000", alert_address="somebody")
    configured(server, peers__backup__port="5000", site__alert_address="", site__battery_backed_cache="on")
    assert server.install("") == ""
    assert server.commands == ["configure server"]
    answers = (server.place / "config.dat").read_text()
    assert "Value: 5000" in answers
    assert "Value: 6000" not in answers


def test_an_admins_hand_in_the_file_is_understood(server: Machine) -> None:
    server.preseed(volume_group="wrong", server_name="wrong.example.org", port="1", link_speed="1")
    server.config.write_text(
        "# mine\n[site]\nflavour=server\n\tvolume_group = 'data'   # quoted\n\n[ peers ]\n"
        '[[ "backup" ]]\nreachable_as = "vpn.example.org"\nport=5001 # no quotes\n'
        "[[second]]\nport = 5002\n[resources]\n[[backup]]\nport = 7789\n"
    )
    assert server.install("") == ""
    assert server.commands == ["configure server"]


def test_an_upgrade_asks_and_changes_nothing(server: Machine) -> None:
    server.preseed(volume_group="local", server_name="vpn.example.org")
    server.install("")
    configured(server)
    assert server.commands
    assert server.install("0.0.1") == ""
    assert server.commands == ["configure server"]


def test_a_person_is_asked_again_after_a_wrong_answer(server: Machine) -> None:
    server.provide("vgs", "#!/bin/sh\nprintf '  local\\n  data\\n'\n")
    said = server.ask(
        volume_group=["absent", "data"],
        dials="This server dials the backup",
        backup_name=["no host", "backup.example.org"],
        port=["99999", "1195"],
        backup_address=["10.89.33.1", "10.89.33.9"],
        link_speed=["fast", "20"],
        alert_address="admin@example.org",
    )
    for explained, answer in (
        ("bad_volume_group", "absent"),
        ("bad_name", "no host"),
        ("bad_port", "99999"),
        ("bad_other_address", "10.89.33.1"),
        ("bad_speed", "fast"),
    ):
        assert f"SUBST drbd-offsite-server/{explained} answer {answer}\n" in said
    assert "SUBST drbd-offsite-server/volume_group groups local, data\n" in said
    assert server.commands == [
        "configure server",
        "site.volume_group=data",
        "peers.backup.dials=server",
        "peers.backup.reachable_as=backup.example.org",
        "peers.backup.port=1195",
        "peers.backup.server_address=10.89.33.1",
        "peers.backup.backup_address=10.89.33.9",
        "peers.backup.link_speed=20",
        "site.battery_backed_cache=no",
        "site.alert_address=admin@example.org",
    ]


def test_a_wrong_preseed_is_explained_where_somebody_is_there(server: Machine) -> None:
    server.preseed(volume_group="local", server_name="vpn.example.org", port="70000", dials="both")
    said = server.ask(port="1196", dials="The backup dials this server")
    assert "SUBST drbd-offsite-server/bad_port answer 70000\n" in said
    assert "SUBST drbd-offsite-server/bad_dials answer both\n" in said
    assert "peers.backup.port=1196" in server.commands


def test_what_a_person_answers_overrules_the_file(server: Machine) -> None:
    """Though debconf runs the config script, which begins with the file, once more before postinst."""
    configured(server, peers__backup__port="5000")
    said = server.ask(port="5001")
    assert "SET drbd-offsite-server/port 5000\n" in said
    assert server.commands == ["configure server", "peers.backup.port=5001"]


def test_a_person_who_changes_nothing_changes_nothing(server: Machine) -> None:
    text = configured(server, peers__backup__link_speed=None, site__alert_address="")
    assert "link_speed =" not in text
    server.ask()
    assert server.commands == ["configure server"]


def test_a_person_may_leave_it_for_later(server: Machine) -> None:
    server.provide("vgs", "#!/bin/sh\nprintf '  local\\n  data\\n'\n")
    said = server.ask()
    assert "not configured, nothing was applied; no usable answer to: volume_group" in said
    assert server.commands == []


def test_the_only_volume_group_is_suggested(server: Machine) -> None:
    server.provide("vgs", "#!/bin/sh\necho '  only'\n")
    server.ask(server_name="vpn.example.org")
    assert "site.volume_group=only" in server.commands


def test_nobody_there_means_no_volume_group_is_chosen(server: Machine) -> None:
    server.provide("vgs", "#!/bin/sh\necho '  only'\n")
    server.preseed(server_name="vpn.example.org")
    assert "no usable answer to: volume_group" in server.install("")


def test_a_pasted_enrolment_reaches_join_and_stays_nowhere(backup: Machine) -> None:
    backup.preseed(volume_group="local", enrolment_text=INVITATION)
    assert backup.install("") == ""
    assert backup.commands == [
        "configure backup", "site.volume_group=local", "site.alert_address=root", "join -", INVITATION,
    ]  # fmt: skip
    assert INVITATION not in backup.databases
    # It is good once: an upgrade does not try again.
    assert backup.install("0.0.1") == ""
    assert not any(line.startswith("join") for line in backup.commands)


def test_an_enrolment_file_is_named_to_join(backup: Machine) -> None:
    backup.preseed(volume_group="local", enrolment_file="/root/backup.invite")
    assert backup.install("") == ""
    assert "join /root/backup.invite" in backup.commands


@pytest.mark.parametrize("answers", [{"enrolment_file": "backup.invite"}, {"enrolment_text": "much too short"}])
def test_a_wrong_enrolment_configures_nothing_and_is_not_kept(backup: Machine, answers: dict[str, str]) -> None:
    backup.preseed(volume_group="local", **answers)
    said = backup.install("")
    assert said.count("\n") == 1
    assert f"no usable answer to: {next(iter(answers))}" in said
    assert backup.commands == []
    assert "much too short" not in backup.databases


def test_a_join_that_fails_does_not_fail_the_installation(backup: Machine) -> None:
    backup.provide("drbd-offsite", COMMAND.format(place=backup.place, join_exit=3))
    backup.preseed(volume_group="local", enrolment_file="/root/backup.invite")
    assert backup.install("") == (
        "drbd-offsite-backup: configured, but not enrolled. Run: drbd-offsite join /root/backup.invite\n"
    )


def test_a_person_pastes_an_enrolment(backup: Machine) -> None:
    said = backup.ask(
        volume_group="local", enrolment_file=["/nowhere/backup.invite", ""], enrolment_text=["nonsense", INVITATION]
    )
    assert "INPUT critical drbd-offsite-backup/bad_file\n" in said
    assert "INPUT critical drbd-offsite-backup/bad_text\n" in said
    assert "nonsense" not in backup.databases
    assert backup.commands[-2:] == ["join -", INVITATION]
    assert INVITATION not in backup.databases
