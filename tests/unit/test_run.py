"""The one place that starts programs, with real programs."""

import sys

import pytest

from drbd_offsite import run as module
from drbd_offsite.errors import ToolFailed
from drbd_offsite.run import Completed, run

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
