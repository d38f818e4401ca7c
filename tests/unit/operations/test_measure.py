"""The server measures, the backup takes part: over a real socket, as sshd gives one to what it runs."""

import os
import select
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from drbd_offsite import config, files, journal, messages, peer, protocol, run
from drbd_offsite.errors import BadRequest, OffsiteError, PeerUnreachable, Refused, UsageError
from drbd_offsite.model import Flavour, Site
from drbd_offsite.observed import Host, ReplicationState
from drbd_offsite.operations import compare, flow, measure
from drbd_offsite.plan import measure as plan
from drbd_offsite.plan.measure import Measured

from .. import make
from ..conftest import Programs

MIB = 2**20
PEER = make.peer()
SERVER = make.site()
BACKUP = make.site(Flavour.BACKUP, ())
"""Without a resource: both machines are in one process here, and each locks its own."""
WELL = make.host(drbd=[make.well(Flavour.SERVER)])
RESYNC = make.host(drbd=[make.seen(replication=ReplicationState.SYNC_SOURCE)])

Part = Callable[[int, bool], None]
"""What the backup does with its end of the line, given whether it is to give."""


def takes_part(end: int, gives: bool) -> None:
    """As `peer_service` does."""
    try:
        for answer in measure.take_part(BACKUP, "server", end, end, gives=gives):
            os.write(end, f"{protocol.encode_answer(answer)}\n".encode())
    except OffsiteError as error:
        os.write(end, f"{protocol.encode_error(error)}\n".encode())
    except ConnectionError:
        pass


class Wire:
    """In the place of ssh: what `run.Dialogue` has, and the backup at the other end."""

    def __init__(self) -> None:
        self.parts: list[Part] = [takes_part, takes_part]
        """Of one connection after the other."""
        self.begun: list[str] = []
        self.ends: list[tuple[socket.socket, threading.Thread]] = []

    def __call__(self, argv: tuple[str, ...]) -> "Wire":
        assert argv[:1] == ("ssh",)
        here, there = socket.socketpair()
        part, gives = self.parts[len(self.begun)], argv[-1] == protocol.GIVE
        assert gives or argv[-1] == protocol.TAKE
        self.begun.append(argv[-1])

        def serve() -> None:
            with there:
                part(there.fileno(), gives)

        thread = threading.Thread(target=serve)
        thread.start()
        self.ends.append((here, thread))
        self.here, self.writer = here, here.dup()
        self.source, self.sink = self.here.fileno(), self.writer.fileno()
        return self

    def hear(self, seconds: float) -> str:
        assert seconds > 0
        said = b""
        while not said.endswith(b"\n"):
            select.select([self.source], [], [], 20)
            data = self.here.recv(65536)
            if not data:
                raise run.ToolFailed("ssh has ended.")
            said += data
        return said.decode()

    def end(self) -> None:
        self.here.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.here.close()
        self.writer.close()

    def over(self) -> bool:
        """Both ends of every connection have ended."""
        for here, thread in self.ends:
            thread.join(20)
            if thread.is_alive() or here.fileno() != -1:
                return False
        return True


@pytest.fixture(autouse=True)
def _in_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "MOST_BYTES", 4 * MIB)
    monkeypatch.setattr(flow, "WARM_UP_BYTES", MIB)
    monkeypatch.setattr(measure, "LOCK_SECONDS", 0.2)


@pytest.fixture
def hosts(monkeypatch: pytest.MonkeyPatch) -> dict[Flavour, list[Host]]:
    """What each machine sees when it looks, one look after the other; the last one for ever."""
    found = {Flavour.SERVER: [WELL], Flavour.BACKUP: [make.host(Flavour.BACKUP)]}

    def look(site: Site) -> Host:
        looks = found[site.flavour]
        return looks.pop(0) if len(looks) > 1 else looks[0]

    monkeypatch.setattr(measure, "look", look)
    return found


@pytest.fixture
def wire(hosts: object, monkeypatch: pytest.MonkeyPatch) -> Iterator[Wire]:
    del hosts
    found = Wire()
    monkeypatch.setattr(measure, "Dialogue", found)
    yield found
    for here, thread in found.ends:
        assert here.fileno() == -1, "it was closed"
        thread.join(20)


def measured(site: Site = SERVER, progress: measure.Progress = lambda *_: None) -> Measured:
    return measure.measure(site, site.peers["backup"], progress)


def test_both_directions_and_the_round_trip_are_measured_and_nothing_stays(wire: Wire) -> None:
    told: list[tuple[str, float, int]] = []
    found = measured(progress=lambda *far: told.append(far))
    assert wire.begun == [protocol.TAKE, protocol.GIVE]
    assert wire.over()
    assert found.there > 0 < found.here
    assert 0 < found.round_trip < 60
    assert list(dict.fromkeys(way for way, _, _ in told)) == ["to backup", "from backup"]
    (event,) = journal.events()
    assert event["event"] == "link-measured"
    assert plan.from_entry(journal.remembered(plan.KIND)["backup"]) == found
    assert journal.operations() == {}


def test_a_peer_is_needed_only_where_there_are_several() -> None:
    both = make.site(peers={"backup": PEER, "second": replace(PEER, name="second")})
    assert measure.chosen(SERVER, "") == measure.chosen(both, "backup") == PEER
    with pytest.raises(UsageError) as raised:
        measure.chosen(both, "")
    assert raised.value.hint == "Say which: backup, second."
    with pytest.raises(UsageError, match="no peer third"):
        measure.chosen(both, "third")
    with pytest.raises(Refused, match="backup is not enrolled yet"):
        measure.chosen(make.site(peers={"backup": replace(PEER, hostname="")}), "")


# -- where it is refused -----------------------------------------------------------------------------


def test_it_is_for_the_server_and_taking_part_for_the_backup(wire: Wire) -> None:
    with pytest.raises(Refused, match="measure-link is for the server"):
        measure.measure(make.site(Flavour.BACKUP), make.peer(Flavour.BACKUP), lambda *_: None)
    with pytest.raises(Refused, match="is for the backup"):
        next(measure.take_part(SERVER, "backup", -1, -1, gives=True))
    assert wire.begun == []


def test_in_a_resync_nobody_is_asked(wire: Wire, hosts: dict[Flavour, list[Host]]) -> None:
    hosts[Flavour.SERVER] = [RESYNC]
    with pytest.raises(Refused, match=r"test_a is being synced \(SyncSource\)\. The figure would be wrong"):
        measured()
    assert wire.begun == []
    assert journal.events() == []


def test_a_backup_that_needs_the_line_itself_does_not_agree(
    wire: Wire, hosts: dict[Flavour, list[Host]], monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts[Flavour.BACKUP] = [RESYNC]
    monkeypatch.setattr(plan, "busy", lambda _, host, __: "test_a is being synced" if host is RESYNC else "")
    with pytest.raises(Refused, match="The peer says: The line is not measured now: test_a is being synced"):
        measured()
    assert wire.over()
    assert journal.events() == []


def test_what_was_measured_while_a_resync_began_is_thrown_away(wire: Wire, hosts: dict[Flavour, list[Host]]) -> None:
    hosts[Flavour.SERVER] = [WELL, RESYNC]
    with pytest.raises(Refused, match=r"worth nothing: by now test_a is being synced \(SyncSource\)"):
        measured()
    assert len(wire.begun) == 2
    assert journal.remembered(plan.KIND) == {}


@pytest.mark.parametrize("held", ["measure-backup", compare.lock("test_a")])
def test_while_files_go_through_the_line_or_somebody_else_measures_it_is_refused(wire: Wire, held: str) -> None:
    with files.lock(held, 0.0), pytest.raises(Refused, match=f"at work on {held}"):
        measured()
    assert wire.begun == []


@pytest.mark.usefixtures("hosts")
def test_the_backup_compares_no_files_while_it_takes_part() -> None:
    site = make.site(Flavour.BACKUP)
    with files.lock(compare.lock("test_a"), 0.0), pytest.raises(Refused):
        next(measure.take_part(site, "server", -1, -1, gives=True))
    part = measure.take_part(site, "server", -1, -1, gives=True)
    assert next(part) == messages.Agreed()
    with pytest.raises(Refused), files.lock(compare.lock("test_a"), 0.0):
        pass
    part.close()  # type: ignore[attr-defined]
    with files.lock(compare.lock("test_a"), 0.0):
        pass


# -- a backup that is gone, older, or not to be trusted ------------------------------------------------


def agreeing(then: Callable[[int], object]) -> Part:
    """Agrees, sends the bytes of the round trip back, and then does something else."""

    def part(end: int, _: bool) -> None:
        os.write(end, f"{protocol.encode_answer(messages.Agreed())}\n".encode())
        flow.echo(end, end)
        then(end)

    return part


def says(text: str) -> Part:
    def part(end: int, _: bool) -> None:
        os.write(end, text.encode())

    return part


def nothing_kept() -> None:
    assert journal.remembered(plan.KIND) == {}
    assert journal.events() == []


@pytest.mark.parametrize("part", [lambda *_: None, agreeing(lambda _: None), says('{"half of')])
@pytest.mark.parametrize("connection", [0, 1])
def test_a_backup_that_goes_at_any_moment_leaves_no_figure(wire: Wire, part: Part, connection: int) -> None:
    wire.parts[connection] = part
    with pytest.raises(PeerUnreachable, match="The line to backup could not be measured") as raised:
        measured()
    assert "same version" in raised.value.hint
    assert wire.over()
    nothing_kept()


@pytest.mark.parametrize("connection", [0, 1])
@pytest.mark.parametrize("text", ["yes\n", "{}\n", f"{protocol.encode_answer(messages.Arrived(1, 1))}\n"])
def test_an_answer_that_is_none_is_refused(wire: Wire, text: str, connection: int) -> None:
    wire.parts[connection] = says(text)
    with pytest.raises(BadRequest):
        measured()
    assert wire.over()
    nothing_kept()


def claims(size_bytes: int, microseconds: int) -> Part:
    def then(end: int) -> None:
        while os.read(end, 65536):
            pass
        os.write(end, f"{protocol.encode_answer(messages.Arrived(size_bytes, microseconds))}\n".encode())

    return agreeing(then)


def test_more_than_was_sent_cannot_have_arrived(wire: Wire) -> None:
    wire.parts[0] = claims(4 * MIB + 1, 1_000_000)
    with pytest.raises(BadRequest, match="more has arrived than was sent"):
        measured()
    nothing_kept()
    wire.begun.clear()
    wire.parts[0] = claims(4 * MIB, 1_000_000)
    assert measured().there == pytest.approx(33.55, abs=0.01)


def test_a_backup_that_counts_and_fails_says_why(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "WARM_UP_BYTES", 2**60)
    with pytest.raises(OffsiteError, match="The peer says: it ended after"):
        measured()
    assert wire.over()
    nothing_kept()


def test_a_backup_that_gives_without_end_is_not_listened_to_for_longer_than_the_bound(wire: Wire) -> None:
    given = 0

    def gives(end: int) -> None:
        nonlocal given
        with suppress(ConnectionError):
            while True:
                given += os.write(end, b"x" * 65536)

    wire.parts[1] = agreeing(gives)
    assert measured().here > 0
    assert wire.over()
    assert given >= 4 * MIB


@pytest.mark.usefixtures("hosts")
def test_the_backup_takes_no_more_than_its_bound_and_its_answer_arrives_though_more_is_on_the_way() -> None:
    here, there = socket.socketpair()

    def serve() -> None:
        with there:
            takes_part(there.fileno(), False)

    def gives() -> None:
        with suppress(ConnectionError):
            while True:
                here.sendall(b"x" * MIB)

    with here:
        threads = [threading.Thread(target=work) for work in (serve, gives)]
        threads[0].start()
        assert protocol.decode_answer(messages.Agreed, here.recv(1000).decode()) == messages.Agreed()
        flow.round_trip(here.fileno(), here.fileno())
        threads[1].start()
        for thread in threads:
            thread.join(20)
            assert not thread.is_alive()
        answer = protocol.decode_answer(messages.Arrived, here.recv(1000).decode())
        assert 0 < answer.size_bytes <= 3 * MIB


# -- with real programs --------------------------------------------------------------------------------

PEER_SERVICE = """
import os, sys
from pathlib import Path
sys.path[:0] = [{source!r}]
from drbd_offsite import config, files, host, journal, peer_service
from drbd_offsite.operations import flow
root = Path({root!r})
(root / "run").mkdir(parents=True, exist_ok=True)
host.PROC_DRBD = root / "none"
host.CONSULTATIONS = root / "none"
host.MOUNTINFO = Path("/proc/self/mountinfo")
journal.STATE = journal.VOLATILE = root / "state"
files.LOCKS = root / "run"
flow.MOST_BYTES, flow.WARM_UP_BYTES = {most}, {most} // 4
config.load.__defaults__ = (root / "conf",)
os.environ["SSH_ORIGINAL_COMMAND"] = sys.argv[-1]
sys.exit(peer_service.serve("server", enrolling=False))
"""


@pytest.mark.usefixtures("real_programs", "hosts")
def test_the_peer_s_service_takes_part_as_a_program_within_bounds_of_its_own(
    programs: Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del programs
    source = str(Path(measure.__file__).parents[2])
    script = tmp_path / "peer-service"
    code = PEER_SERVICE.format(source=source, root=str(tmp_path / "there"), most=2 * MIB)
    script.write_text(f"#!{sys.executable}\n{code}")
    script.chmod(0o755)
    (tmp_path / "there").mkdir()
    text = make.CONFIG.partition("[resources]")[0].replace("flavour = server", "flavour = backup")
    (tmp_path / "there/conf").write_text(text.replace("[[backup]]", "[[server]]") + "[resources]\n")
    config.parse((tmp_path / "there/conf").read_text())
    really = peer.measuring
    monkeypatch.setattr(peer, "measuring", lambda site, to, *, gives: (str(script), really(site, to, gives=gives)[-1]))
    found = measured()
    assert found.there > 0 < found.here
    assert (tmp_path / "there/run/measure-server.lock").exists()
    with files.lock("measure-backup", 0.0):
        pass
