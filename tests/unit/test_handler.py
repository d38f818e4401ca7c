import os
import subprocess
import sys
from pathlib import Path

import pytest

from drbd_offsite import handler, journal
from drbd_offsite.model import Forbidden

SRC = Path(handler.__file__).parents[1]


@pytest.mark.parametrize("event", handler.TEXTS)
def test_every_event_is_noted(event: str) -> None:
    assert handler.main([event, "test_a"], {"DRBD_RESOURCE": "test_a"}) == 0
    noted = journal.events()[-1]
    assert (noted["event"], noted["resource"]) == (event, "test_a")
    assert noted["text"].endswith(".")


def test_a_split_brain_is_not_reconnected_by_itself() -> None:
    handler.main(["split-brain", "test_a"], {})
    held = journal.holds()["test_a"]
    assert held.forbids == {Forbidden.CONNECT}
    assert held.set_by == "split-brain"


def test_a_volume_with_an_io_error_is_not_attached_again_by_itself() -> None:
    handler.main(["local-io-error", "test_a"], {})
    assert journal.holds()["test_a"].forbids == {Forbidden.ATTACH}


@pytest.mark.parametrize("event", sorted(set(handler.TEXTS) - {"split-brain", "local-io-error"}))
def test_no_other_event_holds_anything(event: str) -> None:
    handler.main([event, "test_a"], {})
    assert journal.holds() == {}


def test_every_event_of_the_resource_file_is_known() -> None:
    from . import golden

    text = golden.kept("server")["/etc/drbd.d/0_test_a.res"]
    asked = {
        line.split()[0] for line in text.partition("handlers {")[2].partition("}")[0].splitlines() if "handler" in line
    }
    assert asked - {"#"} == set(handler.TEXTS)


BAD = [
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
    ["split-brain", "x" * 1_000_000],
    ["x" * 1_000_000, "test_a"],
    ["split-brain", "a\x00b"],
    ["split-brain", "\udcff"],
]


@pytest.mark.parametrize("arguments", BAD, ids=lambda a: repr(a)[:40])
def test_a_call_that_is_not_drbd_s_is_refused_and_noted_in_the_kernel_s_log(
    arguments: list[str], kernel_log: Path, root: Path
) -> None:
    assert handler.main(arguments, {}) == 0
    assert not journal.STATE.exists(), "nothing was noted"
    line = kernel_log.read_text()
    assert line.startswith("<4>drbd-offsite handler: ")
    assert len(line) < 300
    assert sorted(p.name for p in root.iterdir() if p.is_file()) == ["kmsg"]


@pytest.mark.parametrize("value", ["", "other", "../x", "x" * 1_000_000, "test_a\n"], ids=lambda v: repr(v)[:12])
def test_an_environment_that_disagrees_is_refused(value: str, kernel_log: Path) -> None:
    assert handler.main(["split-brain", "test_a"], {"DRBD_RESOURCE": value}) == 0
    assert not journal.STATE.exists()
    assert "environment" in kernel_log.read_text()


def test_drbd_s_whole_environment_is_accepted() -> None:
    environment = {
        "DRBD_RESOURCE": "test_a", "DRBD_MINOR": "0", "DRBD_VOLUME": "0", "DRBD_LL_DISK": "/dev/local/test_a",
        "DRBD_PEER": "backup", "DRBD_PEERS": "backup", "DRBD_PEER_AF": "ipv4", "DRBD_PEER_ADDRESS": "10.89.33.2",
        "DRBD_CONF": "/etc/drbd.conf", "HOME": "/", "TERM": "linux", "PATH": "/sbin:/usr/sbin:/bin:/usr/bin:/lib/drbd",
    }  # fmt: skip
    assert handler.main(["split-brain", "test_a"], environment) == 0
    assert "test_a" in journal.holds()


def test_a_journal_that_cannot_be_written_is_said_and_is_no_reason_to_drop_a_connection(
    kernel_log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "STATE", Path("/proc/nowhere"))
    for event in handler.TEXTS:
        assert handler.main([event, "test_a"], {}) == 0
    assert "could not be noted" in kernel_log.read_text()


def test_a_hold_file_that_cannot_be_read_is_no_reason_either() -> None:
    (journal.STATE / "holds").mkdir(parents=True)
    (journal.STATE / "holds/test_a.json").write_text("{")
    assert handler.main(["split-brain", "test_a"], {}) == 0
    assert Forbidden.ATTACH in journal.holds()["test_a"].forbids, "what it may have forbidden stays forbidden"


@pytest.mark.parametrize("streams", ["", " <&- >&- 2>&-"])
def test_the_kernel_starts_it_without_streams_and_it_still_says_0(streams: str) -> None:
    """Neither a journal nor a kernel log nor a standard error: the worst place to complain from."""
    code = (
        f"import sys; sys.path.append({str(SRC)!r}); from pathlib import Path; "
        "from drbd_offsite import handler, journal; journal.STATE = Path('/proc/nowhere'); "
        "handler.open = lambda *a, **k: open('/proc/nowhere/kmsg', *a[1:], **k); "
        "sys.exit(handler.main(sys.argv[1:], {}))"
    )
    command = f'exec "$0" -IS -c "$1" before-resync-target test_a{streams}'
    done = subprocess.run(["sh", "-c", command, sys.executable, code], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def test_it_uses_the_environment_that_it_was_started_with() -> None:
    assert handler.main.__defaults__ == (os.environ,)
