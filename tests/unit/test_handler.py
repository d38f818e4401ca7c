import json
import os
import re
import select
import shutil
import stat
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from drbd_offsite import doorbell, durable, handler, journal
from drbd_offsite.model import RESOURCE_NAME
from drbd_offsite.observed import Forbidden
from drbd_offsite.operations import restore_point

from .conftest import Shadow

SRC = Path(handler.__file__).parents[1]
ENVIRONMENT = {"DRBD_RESOURCE": "test_a", "DRBD_MINOR": "0"}
SNAPSHOTS = ["before-resync-target", "after-resync-target"]


def words(event: str, resource: str = "test_a", policy: str = "never") -> list[str]:
    """The command line that is rendered for an event."""
    return [event, resource, *(["local/test_a", policy] if event in SNAPSHOTS else [])]


def call(event: str, resource: str = "test_a", policy: str = "never", **environment: str) -> int:
    given = {"DRBD_RESOURCE": resource, "DRBD_MINOR": "0"} | environment
    return handler.main(words(event, resource, policy), given)


@pytest.fixture(autouse=True)
def _no_snapshot(monkeypatch: pytest.MonkeyPatch) -> None:
    """test_restore_point.py has those; here they go well."""
    monkeypatch.setattr(restore_point, "before_resync", lambda *_: 0)
    monkeypatch.setattr(restore_point, "after_resync", lambda *_: 0)


# -- what is noted -----------------------------------------------------------------------------------


@pytest.mark.parametrize("event", handler.TEXTS)
def test_every_event_is_noted(event: str) -> None:
    assert call(event) == 0
    noted = journal.events()[-1]
    assert (noted["event"], noted["resource"]) == (event, "test_a")
    assert noted["text"].endswith(".")


@pytest.mark.parametrize("event", handler.TEXTS)
def test_every_line_is_json_as_the_journal_itself_writes_it(event: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The handler writes by hand what json would take too long to load for."""
    call(event)
    journal_file = journal.STATE / journal.EVENTS
    (line,) = journal_file.read_text().splitlines()
    entry = json.loads(line)
    monkeypatch.setattr(journal, "now", lambda: entry["at"])
    journal_file.unlink()
    journal.record(event, "test_a", handler.TEXTS[event])
    assert journal_file.read_text() == line + "\n"


def test_its_clock_is_the_journal_s() -> None:
    # time(2), which has no fraction, is up to a tick of the kernel late.
    before = datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=1)
    call("pri-lost")
    at = journal.events()[0]["at"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", at)
    assert before <= datetime.fromisoformat(at) <= datetime.now(UTC)


def test_a_split_brain_is_not_reconnected_by_itself() -> None:
    call("split-brain")
    (held,) = journal.holds()["test_a"]
    assert held.forbids == {Forbidden.CONNECT}
    assert held.set_by == "split-brain"


def test_a_volume_with_an_io_error_is_not_attached_again_by_itself() -> None:
    call("local-io-error")
    assert journal.holds()["test_a"][0].forbids == {Forbidden.ATTACH}


@pytest.mark.parametrize("event", sorted(handler.HOLDS))
def test_a_hold_is_written_as_the_journal_itself_writes_it(event: str) -> None:
    call(event)
    (held,) = journal.holds()["test_a"]
    path = journal.STATE / f"holds/test_a+{event}.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    by_hand = json.loads(path.read_text())
    path.unlink()
    journal.hold("test_a", held.reason, held.forbids, event)
    assert json.loads(path.read_text()).keys() == by_hand.keys()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", held.since)


def test_two_holds_of_one_resource_are_two() -> None:
    call("local-io-error")
    call("split-brain")
    assert {hold.set_by for hold in journal.holds()["test_a"]} == {"local-io-error", "split-brain"}


@pytest.mark.parametrize("event", sorted(set(handler.TEXTS) - set(handler.HOLDS)))
def test_no_other_event_holds_anything(event: str) -> None:
    call(event)
    assert journal.holds() == {}


def test_every_event_of_the_resource_file_is_known_and_is_called_as_it_has_to_be() -> None:
    from . import golden

    text = golden.kept("backup")["/etc/drbd.d/0_test_a.res"]
    section = text.partition("handlers {")[2].partition("}")[0]
    asked = dict(re.findall(r'^ *([a-z-]+) "test ! -x \S+ \|\| (.*)";$', section, re.MULTILINE))
    assert set(asked) == set(handler.TEXTS)
    for event, command in asked.items():
        program, *arguments = command.split()
        assert program == "/usr/lib/drbd-offsite/handler"
        assert arguments[0] == event
        assert handler._refusal(arguments, ENVIRONMENT) == ""


# -- what is refused ---------------------------------------------------------------------------------

BAD: list[list[str]] = [
    [],
    ["split-brain"],
    ["split-brain", "test_a", "more"],
    ["", ""],
    ["reboot", "test_a"],
    ["SPLIT-BRAIN", "test_a"],
    ["split-brain", ""],
    ["split-brain", "../../etc/passwd"],
    ["split-brain", ".."],
    ["split-brain", "a/b"],
    ["split-brain", "test_a\n"],
    ["split-brain", "-a"],
    ["split-brain", "_a"],
    ["split-brain", 'a"b'],
    ["split-brain", "a\\b"],
    ["split-brain", "a+b"],
    ["split-brain", "x" * 64],
    ["split-brain", "x" * 1_000_000],
    ["x" * 1_000_000, "test_a"],
    ["split-brain", "a\x00b"],
    ["split-brain", "\udcff"],
    ["split-brain", "tést"],
    ["before-resync-target", "test_a"],
    ["before-resync-target", "test_a", "local/test_a"],
    ["after-resync-target", "test_a", "local/test_a", "prefer", "more"],
    ["pri-lost", "test_a", "local/test_a", "prefer"],
]


def nothing_was_done(root: Path, kernel_log: Path) -> str:
    assert not journal.STATE.exists()
    assert not (journal.VOLATILE / "holds").exists()
    assert sorted(p.name for p in root.iterdir() if p.is_file()) == ["kmsg"]
    (line,) = kernel_log.read_text().splitlines()
    assert line.startswith("<4>drbd-offsite handler: ")
    assert line.endswith("; nothing was done")
    assert len(line) < 200, "none of it is the caller's"
    return line


@pytest.mark.parametrize("arguments", BAD, ids=lambda a: repr(a)[:40])
def test_a_call_that_is_not_drbd_s_is_refused_and_noted_in_the_kernel_s_log(
    arguments: list[str], kernel_log: Path, root: Path
) -> None:
    resource = arguments[1] if len(arguments) > 1 else "test_a"
    assert handler.main(arguments, ENVIRONMENT | {"DRBD_RESOURCE": resource}) == 0
    nothing_was_done(root, kernel_log)


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"DRBD_MINOR": "0"},
        {"DRBD_RESOURCE": "test_a"},
        *(
            ENVIRONMENT | {"DRBD_RESOURCE": value}
            for value in ("", "other", "../x", "x" * 1_000_000, "test_a\n", "Test_a", "test_a\x00", " test_a")
        ),
        *(
            ENVIRONMENT | {"DRBD_MINOR": value}
            for value in ("", "-1", "+1", "0x1", "1 ", " 1", "1\n", "1.0", "1_0", "٣", "²", "9" * 8, "9" * 1_000_000)
        ),
    ],
    ids=lambda e: repr(e)[:60],
)
@pytest.mark.parametrize("event", ["split-brain", "before-resync-target"])
def test_an_environment_that_is_not_drbd_s_is_refused(
    event: str, environment: dict[str, str], kernel_log: Path, root: Path
) -> None:
    assert handler.main(words(event), environment) == 0
    assert "environment" in (line := nothing_was_done(root, kernel_log)) or "DRBD_MINOR" in line


def test_drbd_s_whole_environment_is_accepted() -> None:
    environment = {
        "DRBD_RESOURCE": "test_a", "DRBD_MINOR": "0", "DRBD_VOLUME": "0", "DRBD_LL_DISK": "/dev/local/test_a",
        "DRBD_PEER": "backup", "DRBD_PEERS": "backup", "DRBD_PEER_AF": "ipv4", "DRBD_PEER_ADDRESS": "10.89.33.2",
        "DRBD_CONF": "/etc/drbd.conf", "HOME": "/", "TERM": "linux", "PATH": "/sbin:/usr/sbin:/bin:/usr/bin:/lib/drbd",
    }  # fmt: skip
    assert handler.main(["split-brain", "test_a"], environment) == 0
    assert "test_a" in journal.holds()


def test_what_it_does_not_read_may_be_anything() -> None:
    """DRBD 9 sets other variables, and the admin's resource may have any peer."""
    assert call("split-brain", DRBD_PEER="x" * 1_000_000, DRBD_LL_DISK="../\udcff", DRBD_VOLUME="\n") == 0
    assert "test_a" in journal.holds()


@example("a" * 63)
@example("a" * 64)
@example("0.-_Z")
@given(st.text(max_size=70) | st.text("aZ09._-+/ \n", max_size=70))
def test_a_name_is_taken_if_and_only_if_the_configuration_would_take_it(name: str) -> None:
    refused = handler._refusal(["pri-lost", name], ENVIRONMENT | {"DRBD_RESOURCE": name})
    assert bool(refused) == (RESOURCE_NAME.fullmatch(name) is None)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.sampled_from([*handler.TEXTS, "test_a", "local/test_a", "prefer", ""]) | st.text(max_size=9), max_size=5
    ),
    st.dictionaries(st.sampled_from(["DRBD_RESOURCE", "DRBD_MINOR", "X"]), st.text(max_size=9) | st.just("test_a")),
)
def test_any_call_ends_with_0(arguments: list[str], environment: dict[str, str]) -> None:
    assert handler.main(arguments, environment) == 0


# -- what must not keep the kernel waiting, or drop a connection -------------------------------------


def complaints(kernel_log: Path) -> list[str]:
    return [line.removeprefix("<4>drbd-offsite handler: ") for line in kernel_log.read_text().splitlines()]


FULL, READ_ONLY = OSError(28, "No space left on device"), OSError(30, "Read-only file system")


def spoil(monkeypatch: pytest.MonkeyPatch, error: OSError, *places: str) -> None:
    """Nothing can be written below these places."""
    for name in ("append", "replace"):
        real = getattr(durable, name)

        def failing(path: str, *rest: object, real: object = real) -> None:
            if path.startswith(places):
                raise error
            real(path, *rest)  # type: ignore[operator]

        monkeypatch.setattr(durable, name, failing)


@pytest.mark.parametrize("error", [FULL, READ_ONLY], ids=["full", "read-only"])
@pytest.mark.parametrize("event", handler.TEXTS)
def test_a_journal_that_cannot_be_written_is_said_and_is_no_reason_to_drop_a_connection(
    event: str, error: OSError, kernel_log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, error, handler.STATE, handler.VOLATILE)
    assert call(event) == 0
    assert f"{event} of test_a could not be noted: {error.strerror}" in complaints(kernel_log)
    assert journal.events() == []


@pytest.mark.parametrize("error", [FULL, READ_ONLY], ids=["full", "read-only"])
@pytest.mark.parametrize("event", sorted(handler.HOLDS))
def test_with_a_full_disk_the_resource_is_held_until_the_next_boot_all_the_same(
    event: str, error: OSError, kernel_log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, error, handler.STATE)
    assert call(event) == 0
    (held,) = journal.holds()["test_a"]
    assert (held.set_by, sorted(held.forbids)) == (event, [handler.HOLDS[event][1]])
    assert (journal.VOLATILE / f"holds/test_a+{event}.json").exists()
    assert f"the hold for test_a could not be kept below {handler.STATE}: {error.strerror}" in complaints(kernel_log)


def test_a_directory_that_cannot_be_made_is_no_worse(kernel_log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handler, "STATE", "/proc/nowhere")
    assert call("split-brain") == 0
    assert "test_a" in journal.holds()
    monkeypatch.setattr(handler, "VOLATILE", "/proc/nowhere")
    assert call("split-brain") == 0
    assert len(complaints(kernel_log)) == 2 + 3


def test_a_hold_file_that_cannot_be_read_is_written_anew_and_the_others_stay() -> None:
    (journal.STATE / "holds").mkdir(parents=True)
    for setter in ("split-brain", "local-io-error"):
        (journal.STATE / f"holds/test_a+{setter}.json").write_text("{")
    assert call("split-brain") == 0
    by_setter = {hold.set_by: hold.forbids for hold in journal.holds()["test_a"]}
    assert by_setter == {"split-brain": {Forbidden.CONNECT}, "local-io-error": set(Forbidden)}


@pytest.mark.parametrize("step", ["open", "write"])
def test_a_kernel_log_that_takes_nothing_is_no_reason_either(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, FULL, handler.STATE, handler.VOLATILE)
    real = getattr(os, step)

    def failing(first: object, *rest: object) -> object:
        if first == "/dev/kmsg" or step == "write":
            raise OSError(22, "Invalid argument")
        return real(first, *rest)

    monkeypatch.setattr(handler, "os", Shadow(os, **{step: failing}))
    for event in handler.TEXTS:
        assert call(event) == 0
    assert handler.main([], {}) == 0


def test_a_long_complaint_is_cut_to_what_the_kernel_takes(kernel_log: Path) -> None:
    """It refuses a longer one as a whole."""
    handler._complain("é" * 5000 + "\udcff")
    said = kernel_log.read_bytes()
    assert len(said) <= 976
    assert said.endswith(b"\n")


# -- snapshots ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [0, 1])
def test_only_the_snapshot_before_a_resync_can_end_with_another_code(
    code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Sequence[object]] = []
    monkeypatch.setattr(restore_point, "before_resync", lambda *arguments: (asked.append(arguments[:-1]), code)[1])
    assert call("before-resync-target", policy="require", DRBD_MINOR="17") == code
    assert asked == [("test_a", 17, "local/test_a", "require")]
    for event in set(handler.TEXTS) - {"before-resync-target"}:
        assert call(event) == 0


def test_the_snapshot_is_dropped_after_the_resync(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Sequence[object]] = []
    monkeypatch.setattr(restore_point, "after_resync", lambda *arguments: (asked.append(arguments[:-1]), 0)[1])
    assert call("after-resync-target", policy="require") == 0
    assert asked == [("test_a", "local/test_a")]


def test_what_the_snapshot_has_to_say_is_in_the_kernel_s_log(kernel_log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restore_point, "before_resync", lambda *arguments: (arguments[-1]("no room"), 1)[1])
    call("before-resync-target")
    assert complaints(kernel_log) == ["no room"]


# -- the watcher is woken ----------------------------------------------------------------------------


@pytest.fixture
def bell() -> Path:
    path = Path(doorbell.PATH)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


@pytest.mark.parametrize("event", handler.TEXTS)
def test_the_watcher_is_woken_once_the_event_is_on_disk(event: str, bell: Path) -> None:
    os.mkfifo(bell)
    listener = os.open(bell, os.O_RDWR | os.O_NONBLOCK)
    try:
        call(event)
        assert os.read(listener, 100) == b"!"
    finally:
        os.close(listener)
    assert journal.events()[-1]["event"] == event


def test_without_a_watcher_nobody_is_waited_for(bell: Path) -> None:
    os.mkfifo(bell)
    assert call("split-brain") == 0
    assert "test_a" in journal.holds()


def test_a_watcher_that_does_not_listen_is_not_waited_for(bell: Path) -> None:
    os.mkfifo(bell)
    listener = os.open(bell, os.O_RDWR | os.O_NONBLOCK)
    try:
        while select.select([], [listener], [], 0)[1]:
            os.write(listener, b"!" * 4096)
        assert call("split-brain") == 0
    finally:
        os.close(listener)


def test_a_watcher_that_ends_at_that_moment_is_no_error(bell: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(bell)
    listener = os.open(bell, os.O_RDONLY | os.O_NONBLOCK)
    opened = os.open

    def opened_then_ended(path: str, flags: int, *rest: int) -> int:
        descriptor = opened(path, flags, *rest)
        if path == str(bell):
            os.close(listener)
        return descriptor

    monkeypatch.setattr(handler, "os", Shadow(os, open=opened_then_ended))
    assert call("split-brain") == 0


def test_a_link_in_the_bell_s_place_is_not_followed(bell: Path, root: Path) -> None:
    target = root / "precious"
    target.write_text("as it was")
    bell.symlink_to(target)
    assert call("split-brain") == 0
    assert target.read_text() == "as it was"


# -- as the kernel starts it -------------------------------------------------------------------------

START = f"""\
import os, sys
sys.path.append({str(SRC)!r})
from drbd_offsite import doorbell, durable, handler
place = os.environ["PLACE"]
handler.STATE, handler.VOLATILE, doorbell.PATH = place + "/state", place + "/run", place + "/run/doorbell"
real = os.open
os.open = lambda path, *rest: real(place + "/kmsg" if path == "/dev/kmsg" else path, *rest)
if os.environ.get("PROGRAMS"):
    from pathlib import Path
    from drbd_offsite import files, journal, run
    from drbd_offsite.operations import restore_point
    journal.STATE, journal.VOLATILE, files.LOCKS = Path(handler.STATE), Path(handler.VOLATILE), Path(handler.VOLATILE)
    restore_point.PROC_DRBD = Path(place + "/proc_drbd")
    run._environment = lambda: {{"PATH": os.environ["PROGRAMS"], "PLACE": place}}
sys.exit(handler.main(sys.argv[1:]))
"""
"""Without "site" and on its own paths; programs come from a directory of ours."""


def start(arguments: list[str], place: Path, streams: str = "", **environment: str) -> int:
    command = f'exec "$0" -IS -c "$1" {" ".join(arguments)}{streams}'
    done = subprocess.run(
        ["/bin/sh", "-c", command, sys.executable, START],
        env=ENVIRONMENT | {"HOME": "/", "PLACE": str(place)} | environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode


STREAMS = pytest.mark.parametrize("streams", ["", " <&- >&- 2>&-"], ids=["streams", "no-streams"])


@STREAMS
def test_the_kernel_starts_it_with_or_without_streams_and_it_notes(streams: str, tmp_path: Path) -> None:
    assert start(["split-brain", "test_a"], tmp_path, streams) == 0
    assert json.loads((tmp_path / "state/events.jsonl").read_text())["event"] == "split-brain"
    assert (tmp_path / "state/holds/test_a+split-brain.json").exists()


@STREAMS
def test_with_nowhere_to_write_and_nobody_to_complain_to_it_still_says_0(streams: str) -> None:
    assert start(["split-brain", "test_a"], Path("/proc/nowhere"), streams) == 0


@STREAMS
@pytest.mark.parametrize(("policy", "code"), [("require", 1), ("prefer", 0), ("never", 0)])
def test_without_lvm_the_exit_code_is_the_policy_s(streams: str, policy: str, code: int, tmp_path: Path) -> None:
    arguments = ["before-resync-target", "test_a", "local/test_a", policy]
    assert start(arguments, tmp_path, streams, PROGRAMS=str(tmp_path / "none")) == code


@STREAMS
def test_a_snapshot_is_there_before_the_first_block_is_overwritten(streams: str, tmp_path: Path) -> None:
    data = Path(__file__).parents[1] / "data"
    shutil.copy(data / "lvm/replicating-backup.json", tmp_path / "report")
    shutil.copy(data / "drbd/8.4.11/link-cut-backup.proc", tmp_path / "proc_drbd")
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, script in {"lvm": "exec /bin/cat $PLACE/report", "lvcreate": 'echo "$@" >$PLACE/lvcreate'}.items():
        (programs / name).write_text(f"#!/bin/sh\n{script}\n")
        (programs / name).chmod(0o755)
    arguments = ["before-resync-target", "test_a", "local/test_a", "require"]
    assert start(arguments, tmp_path, streams, PROGRAMS=str(programs)) == 0
    assert (tmp_path / "lvcreate").read_text().endswith("--name test_a_restore_point local/test_a\n")
    assert (tmp_path / "state/restore-points/test_a.json").exists()


@pytest.mark.parametrize(
    "spoiled", ["head -c 1M /dev/zero >$PLACE/state/x 2>/dev/null", "mount -o remount,bind,ro $PLACE/state"],
    ids=["full", "read-only"],
)  # fmt: skip
def test_on_a_disk_that_is_really_full_or_read_only(spoiled: str, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "kmsg").touch()
    script = f'mount -t tmpfs -o size=64k none $PLACE/state || exit 77; {spoiled}; "$0" -IS -c "$1" split-brain test_a'
    done = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "/bin/sh", "-c", script, sys.executable, START],
        env=ENVIRONMENT | {"PLACE": str(tmp_path), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("no file system can be mounted in this sandbox")
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "run/holds/test_a+split-brain.json").exists()
    assert "could not be noted" in (tmp_path / "kmsg").read_text()


def test_it_uses_the_environment_that_it_was_started_with() -> None:
    assert handler.main.__defaults__ == (os.environ,)
