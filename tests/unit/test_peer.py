import pytest

from drbd_offsite import messages, peer, protocol
from drbd_offsite.errors import BadRequest, ExitCode, PeerUnreachable, Refused
from drbd_offsite.tools import ssh

from . import make
from .conftest import Answer, Programs

SITE = make.site()
ARGV = ssh.request(
    "10.89.33.2", 7788, str(peer.KEYS / "backup/ssh"), str(peer.KEYS / "backup/known_hosts"), peer.CONNECT_SECONDS
)
GREETING = messages.Greeting("backup", "backup", "8.4.11", "2026-11-22T12:00:00+00:00")


@pytest.fixture(autouse=True)
def _real_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer, "KEYS", peer.Path("/etc/drbd-offsite/keys"))


def ask(**options: float) -> messages.Greeting:
    return peer.ask(SITE, SITE.peers["backup"], messages.Hello(), messages.Greeting, **options)


def test_one_request_one_answer_over_ssh_through_the_tunnel(programs: Programs) -> None:
    programs.allow(ARGV, protocol.encode_answer(GREETING))
    assert ask() == GREETING
    assert programs.inputs == [protocol.encode_request(messages.Hello())], "nothing of it is in the arguments"


def test_an_invitation_s_key_is_named_by_its_caller(programs: Programs) -> None:
    argv = tuple(word.replace("backup/ssh", "backup/invitation/ssh") for word in ARGV)
    programs.allow(argv, protocol.encode_answer(messages.Done()))
    peer.ask(SITE, SITE.peers["backup"], messages.Hello(), messages.Done, key="invitation/ssh")


@pytest.mark.parametrize(
    "answer",
    [
        Answer("", 255, "ssh: connect to host 10.89.33.2 port 7788: Connection timed out"),
        Answer("Connection closed", 255),
        Answer("", 0),
        Answer("", 1, "Traceback …"),
    ],
)
def test_no_answer_says_nothing_about_the_peer_s_data(programs: Programs, answer: Answer) -> None:
    programs.allow(ARGV, answer)
    with pytest.raises(PeerUnreachable) as raised:
        ask()
    assert raised.value.exit_code is ExitCode.PEER_UNREACHABLE
    assert "backup does not answer" in raised.value.message
    assert "same command again" in raised.value.hint


@pytest.mark.usefixtures("real_programs")
def test_an_ssh_that_hangs_or_is_not_there_is_an_unreachable_peer_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh, "request", lambda *_: ("/nowhere/ssh",))
    with pytest.raises(PeerUnreachable, match="could not be started"):
        ask()
    monkeypatch.setattr(ssh, "request", lambda *_: ("sleep", "60"))
    with pytest.raises(PeerUnreachable, match=r"did not finish within 0.1 s"):
        ask(seconds=0.1)


def test_who_asks_for_a_quick_answer_does_not_wait_longer_for_the_connection(programs: Programs) -> None:
    quick = tuple("ConnectTimeout=3" if word.startswith("ConnectTimeout") else word for word in ARGV)
    programs.allow(quick, protocol.encode_answer(GREETING))
    assert ask(seconds=3.5) == GREETING
    programs.allow(ARGV, protocol.encode_answer(GREETING))
    assert ask(seconds=60.0) == GREETING


@pytest.mark.parametrize(
    "junk",
    ["Welcome to Debian!\n", "{}", '{"version": 1}', protocol.encode_answer(messages.Done()), "x" * 70000, "null"],
    ids=lambda text: text[:10],
)
@pytest.mark.parametrize("returncode", [0, 1])
def test_an_answer_that_is_none_of_ours_is_a_bad_request(programs: Programs, junk: str, returncode: int) -> None:
    programs.allow(ARGV, Answer(junk, returncode))
    with pytest.raises(BadRequest):
        ask()


def test_the_peer_s_refusal_is_a_refusal(programs: Programs) -> None:
    programs.allow(ARGV, Answer(protocol.encode_error(Refused("no room", "make some")), 3))
    with pytest.raises(Refused, match="no room") as raised:
        ask()
    assert raised.value.hint == "make some"


def test_files_come_over_the_same_line_and_are_asked_for_in_the_command() -> None:
    assert peer.stream(SITE, SITE.peers["backup"], "test_a") == (*ARGV, "files", "test_a")
    assert protocol.shared_files("files test_a") == "test_a"


def test_many_requests_go_through_one_connection() -> None:
    assert peer.lines(SITE, SITE.peers["backup"]) == (*ARGV, "lines")


def test_the_line_is_measured_over_the_line() -> None:
    for gives, command in ((True, "measure give"), (False, "measure take")):
        assert peer.measuring(SITE, SITE.peers["backup"], gives=gives) == (*ARGV, command)
        assert protocol.shared_files(command) is None
