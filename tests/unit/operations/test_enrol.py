"""An enrolment from end to end between two simulated machines, and everything that spoils one."""

import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from drbd_offsite import config, files, host, invitation, journal, keys, messages, peer, protocol
from drbd_offsite.errors import PeerUnreachable, Refused
from drbd_offsite.model import Flavour, TunnelMode
from drbd_offsite.operations import enrol, half
from drbd_offsite.tools import systemd

from .. import make
from ..conftest import Answer, Programs
from ..test_keys import maker

NOW = datetime.now(UTC)
MODES = [TunnelMode.OPENVPN, TunnelMode.STATIC_KEY, TunnelMode.WIREGUARD, TunnelMode.NONE]


class Killed(BaseException):
    pass


@dataclass
class Side:
    """Where the files of one machine are, and what it is called."""

    name: str
    config: Path
    keys: Path
    state: Path


class Pair:
    """Two machines in one process: which of the two is "this machine" is switched."""

    def __init__(self, root: Path, programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
        self.patch, self.programs = monkeypatch, programs
        self.here: Side | None = None
        self.tunnel = True
        self.log = ""
        self.big_packets = True
        self.lose: str = ""
        self.ran: list[tuple[str, tuple[str, ...]]] = []
        self.made = 0
        self.sides = {
            name: Side(name, root / name / "conf", root / name / "keys", root / name / "state")
            for name in ("server", "backup")
        }
        programs.machine = self.answer
        monkeypatch.setattr(enrol, "hostname", lambda: self.here.name if self.here else "?")
        monkeypatch.setattr(enrol.time, "sleep", lambda _: None)
        ticks = iter(range(10**6))
        monkeypatch.setattr(enrol.time, "monotonic", lambda: float(next(ticks)))

    def configure(self, mode: TunnelMode = TunnelMode.OPENVPN) -> None:
        for name, side in self.sides.items():
            side.config.parent.mkdir()
            text = config.updated(config.initial(Flavour(name)), {"site.volume_group": "local"})
            if name == "server":
                text = config.updated(
                    text, {"peers.backup.reachable_as": "server.example.org", "peers.backup.tunnel": mode.value}
                )
            side.config.write_text(text)

    @contextmanager
    def on(self, name: str) -> Iterator[None]:
        before, self.here = self.here, self.sides[name]
        self._switch()
        yield
        self.here = before
        self._switch()

    def _switch(self) -> None:
        if self.here:
            self.patch.setattr(config, "PATH", self.here.config)
            self.patch.setattr(config.load, "__defaults__", (self.here.config,))
            self.patch.setattr(keys, "ROOT", self.here.keys)
            self.patch.setattr(peer, "KEYS", self.here.keys)
            self.patch.setattr(journal, "STATE", self.here.state)
            self.patch.setattr(files, "LOCKS", self.here.state.with_name(f"{self.here.name}-locks"))

    def answer(self, argv: tuple[str, ...], stdin: str) -> Answer | None:
        assert self.here is not None
        self.ran.append((self.here.name, argv))
        if argv[0] == "ssh":
            return self._ssh(argv, stdin)
        if argv[0] == "ping":
            big = "-s" in argv
            return Answer("", 0 if self.tunnel and (self.big_packets or not big) else 1)
        if argv[0] == "journalctl":
            return Answer(self.log)
        if argv[0] in ("systemctl", "systemd-run"):
            return Answer()
        if argv[0] == "ssh-keygen":
            # Every machine's keys are its own.
            self.made += 1
            path = Path(argv[argv.index("-f") + 1])
            path.write_text(f"private {self.made}\n")
            Path(f"{path}.pub").write_text(f"ssh-ed25519 {self.made:0>68} comment\n")
            return Answer()
        return maker(argv, stdin)

    def _ssh(self, argv: tuple[str, ...], stdin: str) -> Answer:
        assert self.here is not None
        there = "backup" if self.here.name == "server" else "server"
        key = Path(argv[argv.index("-i") + 1])
        assert key.exists(), "ssh -i needs the file"
        request = protocol.decode_request(stdin)
        if self.lose == f"{request.VERB} request":
            return Answer("", 255, "connection timed out")
        with self.on(there):
            site = config.load()
            (name,) = site.peers
            try:
                if isinstance(request, messages.Enrol):
                    answer: messages.Answer = enrol.enrol(site, name, request, NOW)
                else:
                    answer = enrol.hello(site, name)
            except Refused as error:
                return Answer(protocol.encode_error(error), 3)
        if self.lose == f"{request.VERB} answer":
            return Answer("", 255, "connection reset")
        return Answer(protocol.encode_answer(answer))

    def invite(self) -> str:
        with self.on("server"):
            return invitation.compose(enrol.invite(config.load()))

    def join(self, text: str, tell: Callable[[str], None] = lambda _: None) -> None:
        with self.on("backup"):
            enrol.join(text, tell)


@pytest.fixture
def pair(root: Path, programs: Programs, monkeypatch: pytest.MonkeyPatch) -> Pair:
    return Pair(root / "pair", programs, monkeypatch) if (root / "pair").mkdir() is None else pytest.fail("no")


def enrolled(pair: Pair) -> None:
    """Both know each other by keys of their own, and nothing is left of the invitation."""
    with pair.on("server"):
        there = config.load().peers["backup"]
        assert there.hostname == "backup"
        assert keys.open_invitation("backup") is None
        assert keys.credentials(config.load())["backup"].enrol_key == ""
        server_knows = keys.credentials(config.load())["backup"]
        server_secret = keys.make_drbd_secret("backup")
    with pair.on("backup"):
        assert config.load().peers["server"].hostname == "server"
        assert not keys.guest_directory("server").exists()
        assert journal.operations() == {}
        assert keys.make_drbd_secret("server") == server_secret
        assert keys.public_ssh_key(keys.directory("server") / "ssh") == server_knows.ssh_key


@pytest.mark.parametrize("mode", MODES)
def test_two_machines_get_to_know_each_other(pair: Pair, mode: TunnelMode) -> None:
    pair.configure(mode)
    told: list[str] = []
    pair.join(pair.invite(), told.append)
    enrolled(pair)
    assert any("10.89.33.1 answers" in line for line in told)
    with pair.on("backup"):
        tunnel = config.load().peers["server"].tunnel
        assert (tunnel.mode, tunnel.reachable_as) == (mode, "server.example.org")


def test_the_backup_s_own_private_keys_never_leave_it(pair: Pair) -> None:
    pair.configure()
    pair.join(pair.invite())
    backup = {p.read_text() for p in pair.sides["backup"].keys.rglob("*") if p.is_file() and "private" in p.read_text()}
    server = {p.read_text() for p in pair.sides["server"].keys.rglob("*") if p.is_file()}
    assert {text for text in backup if text != "private\n"} & server == set()


def test_the_server_keeps_nothing_private_of_an_invitation(pair: Pair) -> None:
    pair.configure()
    made = invitation.parse(pair.invite(), NOW)
    kept = "".join(p.read_text() for p in pair.sides["server"].keys.rglob("*") if p.is_file())
    assert made.token not in kept
    assert made.ssh_key not in kept


def test_keys_are_for_root_alone_on_both(pair: Pair) -> None:
    pair.configure()
    pair.join(pair.invite())
    for side in pair.sides.values():
        for path in side.keys.rglob("*"):
            mode = stat.S_IMODE(path.stat().st_mode)
            if path.is_dir():
                assert mode == 0o700, path
            elif path.suffix not in (".pub", ".crt") and "ssh" not in path.name:  # ssh-keygen sets its own
                assert mode == 0o600, path


def test_the_same_invitation_twice_is_refused_on_the_backup(pair: Pair) -> None:
    pair.configure()
    text = pair.invite()
    pair.join(text)
    count = len(pair.ran)
    with pytest.raises(Refused, match="used on this machine already"):
        pair.join(text)
    assert len(pair.ran) == count


def test_another_machine_cannot_use_it_a_second_time(pair: Pair) -> None:
    pair.configure()
    text = pair.invite()
    pair.lose = "hello request"
    with pytest.raises(PeerUnreachable):
        pair.join(text)
    token = invitation.parse(text, NOW).token
    thief = messages.Enrol(token, "thief", make.FINGERPRINT, "ssh-ed25519 " + "T" * 68, make.SSH_KEY)
    with pair.on("server"), pytest.raises(Refused, match="used by another machine"):
        enrol.enrol(config.load(), "backup", thief, NOW)


def test_a_new_invitation_ends_the_one_before(pair: Pair) -> None:
    pair.configure()
    old = pair.invite()
    new = pair.invite()
    with pytest.raises(Refused, match="not the newest"):
        pair.join(old)
    pair.join(new)
    enrolled(pair)


def test_an_expired_invitation_is_refused_on_both_sides(pair: Pair) -> None:
    pair.configure()
    with pair.on("server"):
        old = enrol.invite(config.load(), now=NOW - timedelta(days=2))
    with pytest.raises(Refused, match="expired"):
        pair.join(invitation.compose(old))
    request = messages.Enrol(old.token, "backup", make.FINGERPRINT, make.SSH_KEY, make.SSH_KEY)
    with pair.on("server"), pytest.raises(Refused, match="expired"):
        enrol.enrol(config.load(), "backup", request, NOW)


def test_an_invitation_of_this_very_machine_is_refused(pair: Pair) -> None:
    pair.configure()
    text = invitation.compose(replace(invitation.parse(pair.invite(), NOW), server_hostname="backup"))
    with pytest.raises(Refused, match="made on a machine named backup, as this one is"):
        pair.join(text)
    request = messages.Enrol("0" * 64, "server", make.FINGERPRINT, make.SSH_KEY, make.SSH_KEY)
    with pair.on("server"):
        opened = keys.open_invitation("backup")
        assert opened is not None
        keys.keep_invitation("backup", replace(opened, token_hash=keys.token_hash("0" * 64)))
        with pytest.raises(Refused, match="Both machines are named server"):
            enrol.enrol(config.load(), "backup", request, NOW)


@pytest.mark.parametrize(("name", "text"), [("torn", "cut"), ("altered", "altered"), ("foreign", "no invitation")])
def test_a_spoilt_invitation_changes_nothing_on_the_backup(pair: Pair, name: str, text: str) -> None:
    pair.configure()
    whole = pair.invite()
    spoilt = {"torn": whole[:-100], "altered": whole.replace("Link-Speed: 100", "Link-Speed: 200"), "foreign": "hello"}
    before = pair.sides["backup"].config.read_text()
    with pytest.raises(Refused, match=text):
        pair.join(spoilt[name])
    assert pair.sides["backup"].config.read_text() == before
    assert not pair.sides["backup"].keys.exists()


def test_the_verbs_are_for_one_machine_each(pair: Pair) -> None:
    pair.configure()
    text = pair.invite()
    with pair.on("server"), pytest.raises(Refused, match="join is for the backup"):
        enrol.join(text, lambda _: None)
    with pair.on("backup"), pytest.raises(Refused, match="invite is for the server"):
        enrol.invite(config.load())


def test_an_address_to_be_reached_at_has_to_be_known_first(pair: Pair) -> None:
    pair.configure()
    with pair.on("server"):
        config.PATH.write_text(config.updated(config.PATH.read_text(), {"peers.backup.reachable_as": ""}))
        with pytest.raises(Refused, match="under which address the server") as raised:
            enrol.invite(config.load())
        assert "reachable_as" in raised.value.hint
        assert not keys.ROOT.exists()


def test_which_of_several_peers_is_invited_has_to_be_said(pair: Pair) -> None:
    pair.configure()
    second = {"reachable_as": "x", "device": "tun1", "server_address": "10.89.34.1", "backup_address": "10.89.34.2"}
    with pair.on("server"):
        changes = {f"peers.second.{key}": value for key, value in second.items()}
        config.PATH.write_text(config.updated(config.PATH.read_text(), changes))
        with pytest.raises(Refused, match="exactly one peer") as raised:
            enrol.invite(config.load())
        assert "backup, second" in raised.value.hint
        with pytest.raises(Refused, match="no peer third"):
            enrol.invite(config.load(), "third")
        assert enrol.invite(config.load(), "second").tunnel.device == "tun1"


@pytest.mark.parametrize("lost", ["enrol request", "enrol answer", "hello request", "hello answer"])
def test_what_was_lost_on_the_way_is_finished_by_the_same_command(pair: Pair, lost: str) -> None:
    pair.configure()
    text = pair.invite()
    pair.lose = lost
    with pytest.raises(PeerUnreachable):
        pair.join(text)
    with pair.on("backup"):
        assert list(journal.operations()) == ["join-server"], "status shows the half"
    pair.lose = ""
    pair.join(text)
    enrolled(pair)


def test_killed_at_any_program_joining_again_finishes(pair: Pair) -> None:
    pair.configure()
    answer = pair.answer
    for number in range(1, 60):
        text = pair.invite()
        count = 0

        def killing(argv: tuple[str, ...], stdin: str, number: int = number) -> Answer | None:
            nonlocal count
            count += pair.here is pair.sides["backup"]
            if count == number and pair.here is pair.sides["backup"]:
                raise Killed
            return answer(argv, stdin)

        pair.programs.machine = killing
        try:
            pair.join(text)
        except Killed:
            pair.programs.machine = answer
            pair.join(text)
            enrolled(pair)
            _forget(pair)
            continue
        assert number > 8
        return
    pytest.fail("there is no end")


def _forget(pair: Pair) -> None:
    import shutil

    for side in pair.sides.values():
        shutil.rmtree(side.config.parent)
    pair.configure()


def test_a_tunnel_that_does_not_come_up_says_the_likeliest_cause_from_openvpn_s_log(pair: Pair) -> None:
    pair.configure()
    pair.tunnel = False
    pair.log = "RESOLVE: Cannot resolve host address: server.example.org:1194 (Name or service not known)\n"
    text = pair.invite()
    with pytest.raises(PeerUnreachable, match="cannot be resolved") as raised:
        pair.join(text)
    assert "server.example.org, UDP port 1194" in raised.value.message
    assert "same command again" in raised.value.hint
    assert "openvpn-server@drbd-offsite-server" in raised.value.hint
    pair.tunnel = True
    pair.join(text)
    enrolled(pair)


def test_a_line_that_drops_large_packets_is_warned_of(pair: Pair) -> None:
    pair.configure()
    pair.big_packets = False
    told: list[str] = []
    pair.join(pair.invite(), told.append)
    enrolled(pair)
    assert any("MTU" in line for line in told)


def test_units_are_enabled_and_what_changed_is_restarted(pair: Pair) -> None:
    pair.configure()
    pair.join(pair.invite())
    for name in ("server", "backup"):
        ran = [argv for side, argv in pair.ran if side == name]
        assert any("enable" in argv and systemd.PEER_SOCKET in argv for argv in ran)
        tunnel = next(unit for argv in ran for unit in argv if unit.startswith("openvpn-server@"))
        assert any("restart" in argv and tunnel in argv for argv in ran)


def test_the_server_restarts_the_tunnel_only_after_its_answer_has_gone_through_it(pair: Pair) -> None:
    pair.configure()
    text = pair.invite()
    pair.ran.clear()
    pair.join(text)
    (restart,) = [argv for side, argv in pair.ran if side == "server" and argv[0] == "systemd-run"]
    assert restart[-1] == "openvpn-server@drbd-offsite-backup.service"


def test_a_greeting_ends_the_enrolment_and_later_ones_change_nothing(pair: Pair) -> None:
    pair.configure()
    pair.join(pair.invite())
    with pair.on("server"):
        before = {p: p.read_text() for p in keys.ROOT.rglob("*") if p.is_file()}
        greeting = enrol.hello(config.load(), "backup")
        assert (greeting.hostname, greeting.flavour) == ("server", "server")
        assert {p: p.read_text() for p in keys.ROOT.rglob("*") if p.is_file()} == before


def test_nobody_enrols_while_another_command_changes_the_configuration(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each would write the whole file from what it had read."""
    pair.configure()
    with pair.on("server"):
        token = enrol.invite(config.load(), now=NOW).token
    request = messages.Enrol(token, "backup", make.FINGERPRINT, make.SSH_KEY, make.SSH_KEY)
    monkeypatch.setattr(half, "LOCK_SECONDS", 0.0)
    with pair.on("server"), files.lock("site", 0.0):
        before = config.PATH.read_text()
        with pytest.raises(Refused, match="at work on site"):
            enrol.enrol(config.load(), "backup", request, NOW)
        assert config.PATH.read_text() == before


def test_a_backup_that_was_lost_is_replaced_by_a_new_invitation(pair: Pair) -> None:
    pair.configure()
    pair.join(pair.invite())
    import shutil

    lost = pair.sides["backup"]
    with pair.on("server"):
        first = keys.credentials(config.load())["backup"].ssh_key
    shutil.rmtree(lost.keys)
    shutil.rmtree(lost.state)
    text = pair.invite()
    pair.join(text)
    enrolled(pair)
    with pair.on("server"):
        assert keys.credentials(config.load())["backup"].ssh_key != first


def test_the_host_is_looked_at_with_what_can_be_seen(pair: Pair) -> None:
    pair.configure()
    host.PROC_DRBD.write_text("")
    with pair.on("server"):
        assert enrol.hello(config.load(), "backup").drbd_version == ""


def test_a_greeting_has_the_time_of_its_answer(pair: Pair) -> None:
    pair.configure()
    with pair.on("server"):
        said = datetime.fromisoformat(enrol.hello(config.load(), "backup").now)
    assert timedelta(seconds=-1) <= datetime.now(UTC) - said < timedelta(minutes=1)
