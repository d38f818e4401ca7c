"""The manual pages, the completion and the README say what the code has, and all that it has."""

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from drbd_offsite import config, handler, journal
from drbd_offsite.cli import VERBS, build, manual, status
from drbd_offsite.errors import ExitCode
from drbd_offsite.model import TunnelMode
from drbd_offsite.observed import (
    ConnectionState,
    DiskState,
    DrbdConnection,
    DrbdResource,
    Forbidden,
    Hold,
    Host,
    Operation,
    PeerDevice,
    ReplicationState,
    Role,
)
from drbd_offsite.operations.restore_point import DISCARDS
from drbd_offsite.plan import agenda, metrics, slices
from drbd_offsite.plan import assess as assess_module
from drbd_offsite.plan.assess import Level, assess
from drbd_offsite.remembered import LastDrill, Round
from drbd_offsite.render import Credentials, render

README = Path(__file__).parents[3] / "README.md"
PAGES = ("drbd-offsite.8", "drbd-offsite.conf.5")
SECTIONS = ("site", "verify", "peers", "resources")
"""Those with keys of their own names."""


@pytest.fixture(scope="module")
def made() -> dict[str, str]:
    return manual.made("2026-11-22", "0.1.0")


@pytest.fixture(scope="module")
def command_page(made: dict[str, str]) -> str:
    return plain(made["drbd-offsite.8"])


@pytest.fixture(scope="module")
def file_page(made: dict[str, str]) -> str:
    return plain(made["drbd-offsite.conf.5"])


@pytest.fixture(scope="module")
def example(file_page: str) -> str:
    """The configuration that drbd-offsite.conf(5) shows."""
    found = re.search(r"^\.EX\n(\[site\].*?)^\.EE", file_page, re.MULTILINE | re.DOTALL)
    assert found
    return found[1]


def plain(page: str) -> str:
    """A page as troff input without its escapes."""
    for escape, text in (("\\-", "-"), ("\\(aq", "'"), ("\\(dq", '"'), ("\\&", ""), ("\\e", "\\")):
        page = page.replace(escape, text)
    return re.sub(r"\\f[BIRP]", "", page)


def chapter(page: str, heading: str, macro: str = "SH") -> str:
    """What is below a heading, to the next of its kind or of a higher one."""
    found = re.search(rf"^\.{macro} {re.escape(heading)}\n(.*?)(?=^\.SH|^\.{macro}|\Z)", page, re.MULTILINE | re.DOTALL)
    assert found, f"there is no {heading}"
    return found[1]


def words_of_help(verb: str, capsys: pytest.CaptureFixture[str]) -> set[str]:
    """Options and arguments as ``--help`` shows them."""
    with pytest.raises(SystemExit):
        build([verb]).parse_args([verb, "--help"])
    usage, _, rest = capsys.readouterr().out.partition("\n\n")
    listed = re.findall(r"^  (-.*?|\w+)(?:  |$)", rest, re.MULTILINE)
    assert usage
    return set(re.findall(r"--[a-z-]+", " ".join(listed))) | {w for w in listed if w.isupper()}


def leaves(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from leaves(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from leaves(inner)


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_with_all_its_options_is_in_the_page(
    verb: str, command_page: str, capsys: pytest.CaptureFixture[str]
) -> None:
    its_own = chapter(command_page, verb, "SS")
    shared = chapter(command_page, "OPTIONS")
    assert f"drbd-offsite {verb}" in its_own
    for word in words_of_help(verb, capsys):
        assert re.search(rf"(?<![\w-]){word}(?![\w-])", its_own + shared), word


def test_global_options_are_in_the_page(command_page: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        build([]).parse_args(["--help"])
    for option in set(re.findall(r"--[a-z-]+", capsys.readouterr().out)):
        assert option in chapter(command_page, "OPTIONS")


def test_prose_is_for_verbs_that_exist(made: dict[str, str]) -> None:
    source = Path(manual.__file__).parents[1] / "manual" / "commands.in"
    assert set(re.findall(r"^@(.+)$", source.read_text(encoding="utf-8"), re.MULTILINE)) <= set(VERBS)
    assert set(manual.CALLED) <= set(VERBS)
    for name, text in made.items():
        assert not re.search(r"@\w+@", text), f"{name} has a place that was not filled"


@pytest.mark.parametrize("code", ExitCode)
def test_each_exit_code_is_in_the_page(code: ExitCode, command_page: str) -> None:
    assert f".B {int(code)}\n{manual.EXIT_CODES[code]}" in chapter(command_page, "EXIT STATUS")


@pytest.mark.parametrize("level", Level)
def test_each_level_is_in_the_page_with_its_exit_code(level: Level, command_page: str) -> None:
    assert f'{level.name.lower()} " (exit code {int(level.exit_code)})"' in chapter(command_page, "STATUS")


@pytest.mark.parametrize("name", sorted(metrics.NAMES))
def test_each_metric_is_in_the_page(name: str, command_page: str) -> None:
    described = " ".join(chapter(command_page, "METRICS").split())
    assert f".TP .B {name} {metrics.HELP[name.removeprefix(metrics.PREFIX)]}" in described


@pytest.mark.parametrize("event", handler.HOLDS)
def test_each_hold_of_the_kernel_s_making_is_in_the_page(event: str, command_page: str) -> None:
    holds = chapter(command_page, "HOLDS")
    assert f".B {event}\n" in holds
    assert all(word in holds.partition(event)[2] for word in handler.HOLDS[event])


@pytest.mark.parametrize("setter", [*assess_module._WAY_ON, DISCARDS])
def test_each_setter_of_a_hold_is_in_the_page(setter: str, command_page: str) -> None:
    assert re.search(rf"^\.BR? .*\b{setter}\b", chapter(command_page, "HOLDS"), re.MULTILINE)


@pytest.mark.parametrize("event", handler.TEXTS)
def test_each_event_of_the_kernel_is_in_the_page(event: str, command_page: str) -> None:
    assert event in chapter(command_page, "HANDLERS")


def test_the_page_has_the_watcher_s_and_the_journal_s_figures(command_page: str) -> None:
    watcher = chapter(command_page, "THE WATCHER")
    assert f"After {agenda.PATIENCE_SECONDS:.0f} seconds" in watcher
    assert f"up to {agenda.LONGEST_SECONDS / 60:.0f} minutes" in watcher
    assert agenda.FULL_SECONDS == 60
    assert f"A file of {journal.EVENTS_BYTES // 2**20} MiB" in chapter(command_page, "FILES")


@pytest.mark.parametrize("section", SECTIONS)
def test_each_key_is_in_the_page_with_its_comment_bounds_and_default(section: str, file_page: str) -> None:
    text = " ".join(chapter(file_page, f"SECTION [{section}]").split())
    for name, comment, check in config.keys(section):
        entry = re.search(rf"\.T[PQ] \.B {name} (.*?)(?=\.TP|$)", text)
        assert entry, f"{section}.{name}"
        assert " ".join(comment) in entry[1]
        assert f"Allowed: {config.allowed(check)}." in entry[1]
        assert (config.default_of(check) or "") in entry[1]


def test_the_sections_are_all_that_the_configspec_has(file_page: str) -> None:
    found = tuple(re.findall(r"^\.SH SECTION \[(\w+)\]", file_page, re.MULTILINE))
    assert found == ("site", "schedule", *SECTIONS[1:])


def test_the_page_says_how_long_a_slice_takes(file_page: str) -> None:
    assert timedelta(minutes=4) == slices.LONGEST
    assert "four minutes at most" in chapter(file_page, "SECTION [verify]")


def test_the_page_s_example_is_a_valid_file(example: str) -> None:
    assert list(config.parse(example).resources) == ["test_a"]


def test_each_field_of_the_json_is_in_the_page(command_page: str, example: str) -> None:
    site = config.parse(example)
    host = seen_host()
    found = [assess(site, host, resource) for resource in site.resources.values()]
    fields: dict[str, Any] = status.as_json(site, host, found)
    described = chapter(command_page, f"JSON, schema {status.SCHEMA}", "SS")
    entries = set(re.findall(r"\w+", " ".join(re.findall(r"^\.BR? (.*)$", described, re.MULTILINE))))
    assert set(leaves(fields)) <= entries


def seen_host() -> Host:
    """One of everything, so that no object of the JSON is null or empty."""
    device = PeerDevice(0, ReplicationState.ESTABLISHED, DiskState.UP_TO_DATE)
    connection = DrbdConnection("backup", ConnectionState.CONNECTED, Role.SECONDARY, (device,))
    return Host(
        hostname="server",
        drbd_version="8.4.11",
        active=frozenset(),
        addresses=frozenset(),
        drbd={"test_a": DrbdResource("test_a", Role.PRIMARY, connections=(connection,))},
        progress={},
        in_flight={},
        mounts=(),
        holds={"test_a": (Hold("test_a", "a reason", frozenset(Forbidden), "2026-11-22T12:00:00+00:00", "down"),)},
        drills={"test_a": LastDrill("2026-11-22T12:00:00+00:00", "passed", "", "2026-11-22T12:00:00+00:00", 0.0)},
        rounds={"test_a": Round(datetime(2026, 11, 22, tzinfo=UTC))},
        operations={"add-test_a": Operation("add", "test_a", "2026-11-22T12:00:00+00:00")},
    )


def test_each_rendered_file_is_in_the_page(command_page: str, example: str) -> None:
    listed = chapter(command_page, "FILES").replace(" ", "")
    for mode in TunnelMode:
        site = config.parse(example.replace("reachable_as", f"tunnel = {mode}\n    reachable_as"))
        for file in render(site, {"backup": Credentials(drbd_secret="s", fingerprints=("f",))}, "server"):
            path = file.path.replace("0_test_a", "MINOR_RESOURCE").replace("@test_a", "@RESOURCE")
            path = path.replace("-backup.conf", "-PEER.conf").replace("/tun0.", "/DEVICE.")
            assert path in listed or path.startswith("/etc/drbd-offsite/keys/"), path


def test_each_command_in_the_examples_can_be_parsed(command_page: str) -> None:
    assert check_commands(re.findall(r"^(?:server|backup)# (drbd-offsite .*)$", command_page, re.MULTILINE)) > 5


def test_each_command_in_the_readme_can_be_parsed() -> None:
    text = README.read_text(encoding="utf-8")
    prompted = re.findall(r"^ *(?:server|backup)# (drbd-offsite .*)$", text, re.MULTILINE)
    quoted = re.findall(r"`(drbd-offsite [^`]*)`", text)
    assert check_commands(prompted + quoted) > 10


def check_commands(lines: list[str]) -> int:
    for line in lines:
        words = shlex.split(re.split(r" [>|#]", line)[0])[1:]
        verb = words[0]
        if verb == "--version":
            continue
        assert verb in VERBS, line
        try:
            build([verb]).parse_args(words)
        except SystemExit:
            pytest.fail(f"this cannot be typed: {line}")
    return len(lines)


def test_the_same_source_and_date_give_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1795348800")
    written = []
    for place, zone in (("one", "UTC"), ("two", "Pacific/Kiritimati")):
        monkeypatch.setenv("TZ", zone)
        (tmp_path / place).mkdir()
        manual.main(tmp_path / place)
        written.append({path.name: path.read_bytes() for path in (tmp_path / place).iterdir()})
    assert written[0] == written[1]
    assert set(written[0]) == {*PAGES, "drbd-offsite"}
    for name in PAGES:
        assert b'"2026-11-22"' in written[0][name]


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("checker", [["man", "--warnings", "-E", "UTF-8", "-l", "-Z"], ["mandoc", "-T", "lint"]])
def test_formatters_have_nothing_to_say(name: str, checker: list[str], made: dict[str, str], tmp_path: Path) -> None:
    if shutil.which(checker[0]) is None:
        pytest.skip(f"{checker[0]} is not installed")
    (tmp_path / name).write_text(made[name], encoding="utf-8")
    environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "MANROFFSEQ": "", "MANWIDTH": "80"}
    done = subprocess.run([*checker, name], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    said = done.stderr if checker[0] == "man" else done.stdout + done.stderr
    assert (said, done.returncode) == ("", 0)


CONF = """\
[site]
flavour = server  # [resources]
[peers]
  [[backup]]
  [[ "other" ]]
[resources]
  [[test_a]]  # the first
  [[test_b]]
"""

STUBS = """
_init_completion() {
    cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} words=("${COMP_WORDS[@]}") cword=$COMP_CWORD
}
_filedir() { COMPREPLY=(FILES); }
complete() { :; }
"""


def completed(text: str, tmp_path: Path, *words: str) -> list[str]:
    """What the completion offers for the last word."""
    conf = tmp_path / "drbd-offsite.conf"
    script = STUBS + text.replace("/etc/drbd-offsite/drbd-offsite.conf", str(conf))
    script += f"COMP_WORDS=({shlex.join(['drbd-offsite', *words])}) COMP_CWORD={len(words)}\n"
    script += '_drbd_offsite\nprintf "%s\\n" "${COMPREPLY[@]}"\n'
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout.split()


def test_completion_offers_verbs_options_resources_and_files(made: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "drbd-offsite.conf").write_text(CONF)
    text = made["drbd-offsite"]
    assert completed(text, tmp_path, "") == [verb for verb in VERBS if verb not in manual.CALLED]
    assert completed(text, tmp_path, "st") == ["status"]
    assert completed(text, tmp_path, "status", "") == ["test_a", "test_b"]
    assert completed(text, tmp_path, "status", "-v", "test_b", "test_a") == ["test_a"]
    assert completed(text, tmp_path, "status", "--w") == ["--watch"]
    assert completed(text, tmp_path, "join", "") == ["FILES"]
    assert completed(text, tmp_path, "add", "/dev/lo") == ["FILES"]
    assert completed(text, tmp_path, "add", "--peer", "") == ["backup", "other"]
    assert completed(text, tmp_path, "disconnect", "--reason", "") == []
    assert completed(text, tmp_path, "invite", "b") == ["backup"]
    assert completed(text, tmp_path, "configure", "") == ["server", "backup"]
    assert completed(text, tmp_path, "unheard-of", "") == []


def test_completion_is_silent_without_a_configuration(made: dict[str, str], tmp_path: Path) -> None:
    assert completed(made["drbd-offsite"], tmp_path, "status", "") == []


@pytest.mark.parametrize("verb", VERBS)
def test_completion_has_each_option(
    verb: str, made: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    offered = completed(made["drbd-offsite"], tmp_path, verb, "--")
    assert {word for word in words_of_help(verb, capsys) if word.startswith("--")} == set(offered)


def test_shellcheck_has_nothing_to_say_of_the_completion(made: dict[str, str]) -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    done = subprocess.run(
        ["shellcheck", "--shell=bash", "-"], input=made["drbd-offsite"], capture_output=True, text=True, check=False
    )
    assert done.stdout == ""
