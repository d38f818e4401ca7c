"""What differs between two copies, and files brought over: what is asked of the peer, and that it is always ended."""

from dataclasses import replace
from pathlib import Path

import pytest

from drbd_offsite import journal, messages, peer
from drbd_offsite.errors import OffsiteError, PeerUnreachable, Refused, ToolFailed
from drbd_offsite.model import Flavour
from drbd_offsite.observed import Role
from drbd_offsite.operations import compare, share
from drbd_offsite.plan.compare import Difference
from drbd_offsite.tools import contained, rsync
from drbd_offsite.tools.rsync import Change, What

from .. import make
from ..conftest import Answer, Programs
from .looked import SITE, Copy

RESOURCE = SITE.resources["test_a"]
OUTPUT = ">f.s....... b\n*deleting   a\ncd+++++++++ c/\n"


class Peer:
    """The other machine, as far as it is asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[str] = []
        self.fails: dict[str, OffsiteError] = {}
        monkeypatch.setattr(peer, "ask", self.ask)

    def ask(self, _site: object, there: object, request: messages.Request, kind: object, **_: object) -> object:
        assert there is SITE.peers["server"]
        assert kind is messages.Done
        assert isinstance(request, messages.Share | messages.Unshare)
        assert request.name == "test_a"
        self.asked.append(request.VERB)
        if request.VERB in self.fails:
            raise self.fails[request.VERB]
        return messages.Done()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Peer:
    return Peer(monkeypatch)


@pytest.fixture(autouse=True)
def _installed(programs: Programs) -> None:
    programs.allow(rsync.VERSION)


def argv() -> tuple[str, ...]:
    return contained.enclosed(rsync.compare("test_a", str(share.inspect.DIRECTORY / "test_a")))


def test_what_differs_is_listed_and_nothing_stays(copy: Copy, server: Peer, programs: Programs) -> None:
    def reads(_: str) -> Answer:
        assert server.asked == ["share"]
        assert len(copy.mounted) == 1
        return Answer(OUTPUT)

    programs.allow(argv(), reads)
    lines: list[str] = []
    found = compare.differences(SITE, RESOURCE, lines.append)
    assert found == [
        Difference("a", "only on the backup"), Difference("b", "differs"), Difference("c/", "only on the server"),
    ]  # fmt: skip
    assert server.asked == ["share", "unshare"]
    assert copy.left == []
    assert lines[-2:] == ["test_a: having a look made on the server", "test_a: comparing all files"]


def test_a_comparison_that_was_not_of_all_says_nothing(copy: Copy, server: Peer, programs: Programs) -> None:
    programs.allow(argv(), Answer(OUTPUT, 23, "some files \x1b[2J"))
    with pytest.raises(ToolFailed, match="what differs is not known: rsync ended with 23: some files \\?"):
        compare.differences(SITE, RESOURCE, print)
    assert server.asked == ["share", "unshare"]
    assert copy.left == []


def test_a_snapshot_that_has_overflowed_says_nothing(copy: Copy, server: Peer, programs: Programs) -> None:
    def full(_: str) -> Answer:
        copy.volumes["test_a_look"]["data_percent"] = "100.00"
        return Answer(OUTPUT)

    programs.allow(argv(), full)
    with pytest.raises(ToolFailed, match="More was written meanwhile"):
        compare.differences(SITE, RESOURCE, print)
    assert server.asked == ["share", "unshare"]


@pytest.mark.parametrize("error", [Refused("The peer says: no room"), PeerUnreachable("gone")])
def test_a_peer_that_cannot_share_is_the_reason_and_the_end(copy: Copy, server: Peer, error: OffsiteError) -> None:
    server.fails["share"] = error
    with pytest.raises(type(error), match=error.message):
        compare.differences(SITE, RESOURCE, print)
    assert server.asked == ["share", "unshare"]
    assert copy.left == []


def test_one_that_is_broken_off_ends_the_look_there_too(copy: Copy, server: Peer, programs: Programs) -> None:
    def interrupted(_: str) -> Answer:
        raise KeyboardInterrupt

    programs.allow(argv(), interrupted)
    with pytest.raises(KeyboardInterrupt):
        compare.differences(SITE, RESOURCE, print)
    assert server.asked == ["share", "unshare"]
    assert copy.left == []


def test_a_look_that_cannot_be_ended_is_told_and_what_was_found_counts(
    copy: Copy, server: Peer, programs: Programs
) -> None:
    server.fails["unshare"] = PeerUnreachable("gone.")
    programs.allow(argv(), "")
    lines: list[str] = []
    assert compare.differences(SITE, RESOURCE, lines.append) == []
    assert lines[-1] == "test_a: a look on the server could not be ended: gone. It ends by itself in 10 min."
    assert copy.left == []


def test_a_copy_here_that_cannot_be_mounted_is_the_end(copy: Copy, server: Peer) -> None:
    copy.says["mount"] = Answer("", 32, "bad superblock")
    with pytest.raises(Refused, match="files of test_a on the backup cannot be looked at"):
        compare.differences(SITE, RESOURCE, print)
    assert server.asked == [], "nothing is asked of the peer for nothing"


# -- files ---------------------------------------------------------------------------------------------


def served(monkeypatch: pytest.MonkeyPatch, role: Role = Role.PRIMARY, part: str | None = "/") -> None:
    mounts = () if part is None else (replace(make.mount((147, 0), "/srv/a"), root=part),)
    here = make.host(Flavour.BACKUP, drbd=[make.seen(role=role)], mounts=mounts)
    monkeypatch.setattr(compare, "observe", lambda _: here)


class Rsync:
    """Takes any call that brings something to /srv/a."""

    def __init__(self, programs: Programs, answer: Answer) -> None:
        self.answer, self.paths, self.argv = answer, "", ()
        programs.machine = self.run

    def run(self, argv: tuple[str, ...], _: str) -> Answer | None:
        if argv[0] != "rsync":
            return None
        (listed,) = (word.removeprefix("--files-from=") for word in argv if word.startswith("--files-from="))
        (suffix,) = (word.removeprefix("--suffix=") for word in argv if word.startswith("--suffix="))
        assert argv == rsync.bring("test_a", listed, suffix, "/srv/a")
        self.paths = Path(listed).read_text(errors="surrogateescape")
        self.suffix = suffix
        return self.answer


def test_files_are_brought_to_where_it_is_mounted(
    server: Peer, programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    served(monkeypatch)
    monkeypatch.setattr(compare.os.path, "lexists", lambda _: True)
    real = Rsync(programs, Answer(">f.s....... b\n"))
    found = compare.bring(SITE, RESOURCE, ["b", "two words/*", "latin-\udcfc"], print)
    assert real.paths == "b\0two words/*\0latin-\udcfc\0"
    assert found == compare.Brought("/srv/a", (Change(What.CONTENT, "b"),), real.suffix, "")
    assert found.suffix.startswith(".before-failback-2")
    assert server.asked == ["share", "unshare"]
    assert list(share.DIRECTORY.iterdir()) == []
    (event,) = journal.events()
    assert (event["event"], event["paths"]) == ("files-brought", ["b", "two words/*", "$'latin-\\374'"])


def test_what_is_nowhere_is_said_though_rsync_has_not(
    server: Peer, programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    served(monkeypatch)
    monkeypatch.setattr(compare.os.path, "lexists", lambda path: path == "/srv/a/b")
    Rsync(programs, Answer(">f.s....... b\n"))
    found = compare.bring(SITE, RESOURCE, ["b", "c"], print)
    assert found.complaint == "on the server there is no c"
    assert server.asked == ["share", "unshare"]


def test_what_did_not_come_is_said(server: Peer, programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    served(monkeypatch)
    Rsync(programs, Answer(">f.s....... b\n", 23, 'link_stat "/c" failed: No such file'))
    found = compare.bring(SITE, RESOURCE, ["b", "c"], print)
    assert len(found.changes) == 1
    assert found.complaint == 'rsync ended with 23: link_stat "/c" failed: No such file'
    assert server.asked == ["share", "unshare"]


@pytest.mark.parametrize(
    ("role", "part", "why"),
    [
        (Role.SECONDARY, "/", "not served from this machine"),
        (Role.PRIMARY, None, "not mounted here"),
        (Role.PRIMARY, "/part", "only a part is mounted here, at /srv/a"),
    ],
)
def test_what_is_not_served_here_gets_nothing(
    server: Peer, monkeypatch: pytest.MonkeyPatch, role: Role, part: str | None, why: str
) -> None:
    served(monkeypatch, role, part)
    with pytest.raises(Refused, match=why) as raised:
        compare.bring(SITE, RESOURCE, ["b"], print)
    assert raised.value.hint
    assert server.asked == []
