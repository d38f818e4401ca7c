import errno
import os

import pytest

from drbd_offsite import cli, config, journal
from drbd_offsite.cli import VERBS
from drbd_offsite.errors import ExitCode, Held, OffsiteError, PeerUnreachable, Refused, UsageError

from .. import make
from .conftest import Command


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(command: Command, verb: str) -> None:
    said = command(verb, "--help")
    assert said.code == ExitCode.DONE
    assert said.out.startswith(f"usage: drbd-offsite {verb}")
    assert said.err == ""


def test_help_lists_every_verb(command: Command) -> None:
    said = command("--help")
    assert said.code == ExitCode.DONE
    assert set(VERBS) <= set(said.out.split())


@pytest.mark.parametrize(
    "words",
    [[], ["frobnicate"], ["status", "--frobnicate"], ["--json"], ["add"], ["join"], ["configure"], ["configure", "x"],
     ["status", "--json=maybe"], ["peer-service"], [""], ["invite", "a", "b"]],
    ids=" ".join,
)  # fmt: skip
def test_wrong_words_are_a_usage_error(command: Command, words: list[str]) -> None:
    said = command(*words)
    assert said.code == ExitCode.USAGE
    assert said.err.startswith("usage: drbd-offsite")
    assert said.out == ""


WANTED = {
    "add": ["local/test_a"],
    "export-seed": ["local/test_a", "/mnt/seed"],
    "grow": ["test_a"],
    "remove": ["test_a"],
    "rename": ["test_a", "b"],
    "set": ["test_a"],
    "verify": ["test_a"],
    "failback": ["test_a"],
    "switchover": ["test_a"],
    "turn": ["yield:test_a"],
    "files": ["test_a"],
    "peer-files": ["test_a", "peer", "rsync"],
}
"""What a verb cannot do without."""

CONFIGURED = sorted(set(VERBS) - {"adopt", "watch", "peer-service", "configure", "join", "events", "check"})
"""All but those that do without, and ``check``, which says it as a monitor reads it."""


@pytest.mark.parametrize("verb", CONFIGURED)
def test_before_the_configuration_there_is_one_sentence_and_the_way_on(command: Command, verb: str) -> None:
    said = command(verb, *WANTED.get(verb, []))
    assert said.code == ExitCode.FAILED
    assert said.err.startswith("drbd-offsite: drbd-offsite is not configured yet")
    assert "dpkg-reconfigure" in said.err
    assert not journal.STATE.exists()


@pytest.mark.parametrize("verb", CONFIGURED)
def test_a_configuration_with_a_mistake_is_shown_by_every_verb(command: Command, verb: str) -> None:
    config.PATH.write_text(make.CONFIG.replace("link_speed = 100", "link_speed = fast"))
    said = command(verb, *WANTED.get(verb, []))
    assert said.code == ExitCode.FAILED
    assert "[peers] [[backup]] link_speed = fast: not a whole number from 1 to 100000" in said.err
    assert "Nothing was applied" in said.err


@pytest.mark.parametrize(
    "verb", ["status", "grow", "set", "up", "down", "connect", "disconnect", "hold", "plan", "verify"]
)
def test_a_resource_that_is_not_configured_is_a_usage_error_that_names_those_that_are(
    command: Command, verb: str, server: object
) -> None:
    del server
    config.PATH.write_text(make.CONFIG)
    said = command(verb, "nothing")
    assert said.code == ExitCode.USAGE
    assert "There is no resource nothing" in said.err
    assert "Configured: test_a" in said.err


def test_only_root_may(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    said = command("status")
    assert said.code == ExitCode.FAILED
    assert "root" in said.err
    assert command("status", "--help").code == ExitCode.DONE, "reading help needs no power"


class Verb:
    """A verb that ends in some way."""

    def __init__(self, end: BaseException) -> None:
        self.end = end

    def arguments(self, parser: object) -> None:
        pass

    def run(self, _: object) -> int:
        raise self.end


@pytest.mark.parametrize(
    ("end", "code"),
    [
        (OffsiteError("a", "b"), ExitCode.FAILED),
        (UsageError("a", "b"), ExitCode.USAGE),
        (Refused("a", "b"), ExitCode.REFUSED),
        (PeerUnreachable("a", "b"), ExitCode.PEER_UNREACHABLE),
        (Held("a", "b"), ExitCode.HELD),
        (KeyboardInterrupt(), 130),
    ],
)
def test_each_end_has_its_exit_code(
    command: Command, monkeypatch: pytest.MonkeyPatch, end: BaseException, code: int
) -> None:
    monkeypatch.setattr(cli, "module", lambda _: Verb(end))
    said = command("status")
    assert said.code == code
    assert said.out == ""
    if isinstance(end, OffsiteError):
        assert said.err == "drbd-offsite: a\nb\n"


def test_a_full_disk_is_said_in_a_sentence(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/var/lib/drbd-offsite/x")
    monkeypatch.setattr(cli, "module", lambda _: Verb(full))
    said = command("status")
    assert said.code == ExitCode.FAILED
    first, second = said.err.splitlines()
    assert "No space left on device" in first
    assert "/var/lib/drbd-offsite/x" in first
    assert "goes on" in second


def test_exit_codes_are_the_documented_ones() -> None:
    assert {code.name: int(code) for code in ExitCode} == {
        "DONE": 0, "FAILED": 1, "USAGE": 2, "REFUSED": 3, "PEER_UNREACHABLE": 4, "HELD": 5, "WARNED": 6,
    }  # fmt: skip


def test_what_is_written_is_for_root_alone(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "module", lambda _: Verb(KeyboardInterrupt()))
    command("status")
    assert os.umask(0o022) == 0o077


def test_one_verb_does_not_load_the_others() -> None:
    import subprocess
    import sys
    from pathlib import Path

    source = Path(cli.__file__).parents[2]
    code = (
        f"import sys; sys.path.insert(0, {str(source)!r}); from drbd_offsite.cli import build; build(['events']); "
        "print(*sorted(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "drbd_offsite.cli.events" in loaded
    assert not loaded & {"drbd_offsite.cli.watch", "pyudev", "jinja2", "drbd_offsite.operations.enrol"}
