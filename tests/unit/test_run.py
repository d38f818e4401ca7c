"""The one place that starts programs, with real programs."""

import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from drbd_offsite import run as module
from drbd_offsite.errors import ToolFailed
from drbd_offsite.run import Completed, Dialogue, Ended, Stream, run

pytestmark = pytest.mark.usefixtures("real_programs")
PYTHON = sys.executable


def test_a_program_gets_its_input_and_gives_its_output() -> None:
    done = run(["cat"], stdin="two\nlines\n")
    assert (done.stdout, done.returncode) == ("two\nlines\n", 0)
    assert done.argv == ("cat",)


def test_a_program_without_input_does_not_wait_for_one() -> None:
    assert run(["cat"]).stdout == ""


def test_it_runs_in_the_c_locale_and_not_from_the_callers_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    monkeypatch.setenv("PATH", "/tmp/evil")
    done = run(["sh", "-c", 'echo "$LC_ALL $PATH"'])
    assert done.stdout == "C.UTF-8 /usr/sbin:/usr/bin:/sbin:/bin\n"


def test_words_are_words_and_no_shell_reads_them() -> None:
    assert run(["echo", "$HOME; reboot *"]).stdout == "$HOME; reboot *\n"


def test_a_failure_says_which_program_how_and_why() -> None:
    with pytest.raises(ToolFailed, match=r"sh -c .* failed \(exit code 3\): first; second") as raised:
        run(["sh", "-c", "echo first >&2; echo >&2; echo ' second ' >&2; exit 3"])
    assert "\n" not in raised.value.message


def test_a_failure_without_a_word_is_said_to_be_so() -> None:
    with pytest.raises(ToolFailed, match="it said nothing"):
        run(["false"])


def test_exit_codes_that_are_no_failure() -> None:
    assert run(["sh", "-c", "exit 2"], accept=(0, 2)).returncode == 2
    assert run(["sh", "-c", "exit 77"], accept=None).returncode == 77
    with pytest.raises(ToolFailed):
        run(["sh", "-c", "exit 2"], accept=(0, 1))


def test_a_program_that_is_not_there() -> None:
    with pytest.raises(ToolFailed, match="nowhere could not be started: No such file"):
        run(["nowhere"])


def test_a_program_that_hangs_is_stopped() -> None:
    with pytest.raises(ToolFailed, match=r"sleep 60 did not finish within 0.1 s"):
        run(["sleep", "60"], timeout=0.1)


def test_the_end_of_a_program_is_waited_for_and_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two looks at it a millisecond and more would pass, and each look at DRBD is a program."""
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("it sleeps"))
    silent = "exec >&- 2>&-; sleep 0.1; exit 3"
    assert run(["sh", "-c", silent], accept=None).returncode == 3


def test_where_its_end_cannot_be_waited_for_a_program_has_its_time_limit_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A kernel before 5.3, or a filter of system calls."""

    def refused(_: int) -> int:
        raise PermissionError

    monkeypatch.setattr(os, "pidfd_open", refused)
    assert run(["echo", "said"]).stdout == "said\n"
    with pytest.raises(ToolFailed, match="did not finish"):
        run(["sleep", "60"], timeout=0.1)


def test_a_program_that_does_not_listen_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TERMINATE_SECONDS", 0.1)
    stubborn = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(60)"
    )
    with pytest.raises(ToolFailed, match="was stopped"):
        run([PYTHON, "-c", stubborn], timeout=1)


def test_output_that_is_no_text_does_no_harm() -> None:
    assert "\ufffd" in run(["printf", r"\377"]).stdout


def test_a_program_that_does_not_read_its_input_is_no_failure() -> None:
    assert run(["true"], stdin="x" * 1_000_000).returncode == 0


def test_a_complaint_is_one_line_and_not_a_novel() -> None:
    assert Completed(("x",), 1, "out\n", " err \n\n more\n").complaint == "err; more"
    assert Completed(("x",), 1, "out\n", "").complaint == "out"
    assert len(Completed(("x",), 1, "", "x" * 9000).complaint) == 600


def test_verbose_shows_each_program_and_never_its_input(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "verbose", True)
    run(["cat"], stdin="secret")
    assert capsys.readouterr().err == "+ cat\n"


# -- a program at a connection -----------------------------------------------------------------------


def test_a_connection_is_what_a_program_reads_and_writes() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(b"hello")
        ours.shutdown(socket.SHUT_WR)
        done = module.between(["cat"], theirs.fileno(), timeout=20)
        assert (done.returncode, done.stdout) == (0, "")
        assert ours.recv(100) == b"hello"
        with pytest.raises(ToolFailed, match=r"exit code 3\): why"):
            module.between(["sh", "-c", "echo why >&2; exit 3"], theirs.fileno(), timeout=20)
        with pytest.raises(ToolFailed, match="did not finish"):
            module.between(["sleep", "60"], theirs.fileno(), timeout=0.1)


def test_one_program_becomes_another(tmp_path: Path) -> None:
    code = f"import sys; sys.path.insert(0, {str(Path(module.__file__).parents[1])!r}); from drbd_offsite import run; "
    code += "run.become(['sh', '-c', 'echo $LC_ALL $$'])"
    process = subprocess.Popen([PYTHON, "-c", code], stdout=subprocess.PIPE, text=True, cwd=tmp_path)
    assert process.communicate(timeout=20)[0] == f"C.UTF-8 {process.pid}\n"
    with pytest.raises(ToolFailed, match="nowhere could not be started"):
        module.become(["nowhere"])


# -- a program that goes on printing -----------------------------------------------------------------


def stream(script: str) -> Stream:
    return Stream(["sh", "-c", script])


def awaited(found: Stream, until: Callable[[], bool], seconds: float = 20.0) -> list[str]:
    """What came until then."""
    poller = select.poll()
    poller.register(found, select.POLLIN)
    lines: list[str] = []
    end = time.monotonic() + seconds
    while not until() and time.monotonic() < end:
        poller.poll(100)
        lines += found.lines()
    return lines


def test_lines_come_one_by_one_and_are_never_waited_for() -> None:
    found = stream("echo one; printf two; exec sleep 60")
    try:
        assert found.lines() in ([], ["one"])
    finally:
        found.close()


def test_what_is_printed_is_heard_until_the_program_ends(tmp_path: Path) -> None:
    go = tmp_path / "go"
    os.mkfifo(go)
    found = stream(f"echo one; printf t; read _ <{go}; echo wo; printf last")
    try:
        lines: list[str] = []
        lines += awaited(found, lambda: bool(found._rest))
        assert lines == ["one"], "half a line is none"
        go.write_text("\n")
        lines += awaited(found, lambda: found.ended)
        assert lines == ["one", "two"]
        assert found.lines() == []
    finally:
        found.close()


def test_a_stream_wakes_who_waits_for_it() -> None:
    found = stream("sleep 0.1; echo one")
    poller = select.poll()
    poller.register(found, select.POLLIN)
    try:
        assert poller.poll(20000)
    finally:
        found.close()


def test_it_runs_as_any_other_program_and_without_an_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    monkeypatch.setenv("PATH", "/tmp/evil")
    found = stream('echo "$LC_ALL $PATH"; cat; printf "\\377\\n"')
    try:
        assert awaited(found, lambda: found.ended) == ["C.UTF-8 /usr/sbin:/usr/bin:/sbin:/bin", "\ufffd"]
    finally:
        found.close()


@pytest.mark.parametrize("script", ["exec sleep 60", "true", "trap '' TERM; echo deaf; while :; do sleep 60; done"])
def test_it_is_gone_when_it_is_closed(script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TERMINATE_SECONDS", 0.1)
    found = stream(script)
    if "deaf" in script:
        assert awaited(found, lambda: False, 1.0) == ["deaf"]
    found.close()
    assert found._process.returncode is not None
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.read(found.fileno(), 1)


def test_a_stream_of_a_program_that_is_not_there() -> None:
    with pytest.raises(ToolFailed, match="nowhere could not be started"):
        Stream(["nowhere"])


def test_a_secret_that_a_program_repeats_is_not_shown() -> None:
    said = (
        "test_a: Failure: (123) --discard-my-data not allowed when primary.\n"
        "Command 'drbdsetup-84 connect test_a ipv4:10.89.33.2:7789 ipv4:10.89.33.1:7789 --protocol=A "
        "--cram-hmac-alg=sha256 --shared-secret=0123456789abcdef --sndbuf-size=10M' terminated with exit code 10\n"
    )
    done = Completed(("drbdadm", "connect", "test_a"), 10, "", said)
    assert "0123456789abcdef" not in done.complaint
    assert "--shared-secret=(not shown) --sndbuf-size=10M" in done.complaint
    with pytest.raises(ToolFailed) as error:
        run(["sh", "-c", "echo --shared-secret=01234567''89abcdef >&2; exit 1"])
    assert "0123456789abcdef" not in str(error.value)


# -- programs that are not ours ----------------------------------------------------------------------------


def bounded(*argv: str, seconds: float = 20.0, directory: str = "/", **variables: str) -> Ended:
    return module.bounded(argv, directory=directory, variables=variables, seconds=seconds)


def test_somebody_else_s_program_says_what_it_has_to_say_and_how_it_ended(tmp_path: Path) -> None:
    ended = bounded("sh", "-c", "echo $WHO; pwd >&2; echo; cat; exit 3", directory=str(tmp_path), WHO="me")
    assert ended == Ended(3, ("me", str(tmp_path)))


def test_it_is_stopped_at_its_limit_with_what_it_has_started() -> None:
    begun = time.monotonic()
    ended = bounded("sh", "-c", "sleep 60 & echo $!; wait", seconds=0.5)
    assert time.monotonic() - begun < 10
    assert ended.returncode is None
    state = Path(f"/proc/{ended.lines[0]}/stat")
    while state.exists() and ") Z " not in state.read_text():  # killed, and for init to bury
        assert time.monotonic() - begun < 10
        time.sleep(0.05)


def test_what_it_leaves_in_the_background_is_not_waited_for() -> None:
    begun = time.monotonic()
    assert bounded("sh", "-c", "sleep 60 & yes & exit 0").returncode == 0
    assert time.monotonic() - begun < 10


def test_of_one_that_talks_without_end_the_last_is_kept() -> None:
    ended = bounded("sh", "-c", "yes | head -c 1000000; echo the end")
    assert ended.returncode == 0
    assert ended.lines[-1] == "the end"
    assert sum(map(len, ended.lines)) <= module.TOLD_BYTES


def test_one_that_closes_its_output_is_waited_for() -> None:
    assert bounded("sh", "-c", "exec >&- 2>&-; sleep 0.3; exit 4") == Ended(4, ())


def test_one_that_is_killed_and_one_that_is_not_there() -> None:
    assert bounded("sh", "-c", "kill -9 $$").returncode == -9
    with pytest.raises(ToolFailed, match="nowhere could not be started"):
        bounded("nowhere")


# -- programs that answer a line with a line ---------------------------------------------------------------


def test_each_line_has_its_answer() -> None:
    found = Dialogue(["sh", "-c", 'while read -r line; do echo "$line and more"; done'])
    assert [found.ask(word, 20.0) for word in ("one", "two")] == ["one and more\n", "two and more\n"]
    found.close()
    assert found._process.returncode is not None


def test_an_answer_may_be_long_and_come_in_pieces() -> None:
    found = Dialogue(["sh", "-c", "read -r _; printf a; sleep 0.1; yes | head -c 200000 | tr -d '\\n'; echo; sleep 60"])
    assert len(found.ask("go", 20.0)) == 100_002
    found.close()


@pytest.mark.parametrize("script", ["exit 3", "read -r _; exit 0", "read -r _; printf 'half of one'; exit 0"])
def test_one_that_ends_has_no_answer(script: str) -> None:
    found = Dialogue(["sh", "-c", script])
    with pytest.raises(ToolFailed, match="sh has ended"):
        found.ask("go", 20.0)
    with pytest.raises(ToolFailed, match="sh has ended"):
        found.ask("and on", 20.0)
    found.close()


def test_one_that_does_not_answer_is_not_waited_for() -> None:
    begun = time.monotonic()
    found = Dialogue(["sleep", "60"])
    with pytest.raises(ToolFailed, match="sleep did not answer in time"):
        found.ask("go", 0.1)
    found.close()
    assert time.monotonic() - begun < 10
    with pytest.raises(ToolFailed, match="nowhere could not be started"):
        Dialogue(["nowhere"])


def test_a_program_may_speak_first_and_go_on_in_bytes() -> None:
    found = Dialogue(["sh", "-c", "echo ready; head -c 3; cat >/dev/null; echo done; exec sleep 60"])
    assert found.hear(20.0) == "ready\n"
    os.write(found.sink, b"abc")
    assert os.read(found.source, 3) == b"abc"
    found.end()
    assert found.hear(20.0) == "done\n", "it was told no more, and could go on"
    with pytest.raises(ToolFailed, match="sh did not answer in time"):
        found.hear(0.1)
    found.close()
    assert found._process.returncode is not None
