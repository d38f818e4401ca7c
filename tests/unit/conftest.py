"""No test starts a program or touches a file of this machine unless it says so."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Self

import hypothesis
import pytest

from drbd_offsite import alert, config, doorbell, execute, files, handler, host, journal, keys, peer, run
from drbd_offsite.operations import alerting, apply, half, history, inspect, metrics, restore_point, share

# A build's PATH may lack the directories of root's programs, where drbdadm and openvpn are.
os.environ["PATH"] = f"{os.environ.get('PATH', '/usr/bin:/bin')}:/usr/sbin:/sbin"

# The same examples every time, so that a package build never fails by chance; --hypothesis-profile=search
# looks further.
hypothesis.settings.register_profile("steady", deadline=None, database=None, derandomize=True, max_examples=50)
hypothesis.settings.register_profile("search", deadline=None, database=None, max_examples=3000)
hypothesis.settings.load_profile("steady")


@dataclass(frozen=True)
class Answer:
    """What a program printed, and how it ended."""

    stdout: str = ""
    returncode: int = 0
    stderr: str = ""


class Programs:
    """Stands in for every external program; one that the test has not allowed fails the test."""

    def __init__(self) -> None:
        self.ran: list[tuple[str, ...]] = []
        self.inputs: list[str] = []
        self.addresses: set[str] = set()
        """What the kernel lets a socket have."""
        self._answers: dict[tuple[str, ...], list[Answer | Callable[[str], Answer]]] = {}
        self.machine: Callable[[tuple[str, ...], str], Answer | None] = lambda argv, stdin: None  # noqa: ARG005

    def allow(self, argv: Sequence[str], *answers: Answer | str | Callable[[str], Answer]) -> None:
        """Let exactly this command line run; several answers are given in turn, the last one for ever."""
        given = [Answer(a) if isinstance(a, str) else a for a in answers]
        self._answers[tuple(argv)] = list(given) or [Answer()]

    def popen(self, argv: Sequence[str], **options: Any) -> "_Process":
        assert isinstance(argv, list), "a program is started from a list of words"
        assert not options.get("shell"), "no shell"
        assert options["env"]["LC_ALL"] == "C.UTF-8", "programs speak the C locale"
        return _Process(self, tuple(argv))

    def answer(self, argv: tuple[str, ...], stdin: str) -> Answer:
        self.ran.append(argv)
        self.inputs.append(stdin)
        if argv in self._answers:
            queue = self._answers[argv]
            answer = queue.pop(0) if len(queue) > 1 else queue[0]
            return answer(stdin) if callable(answer) else answer
        answer = self.machine(argv, stdin)
        if answer is None:
            pytest.fail(f"this program was not to be run: {' '.join(argv)}")
        return answer


class _Process:
    """As much of subprocess.Popen as run.py uses."""

    def __init__(self, programs: Programs, argv: tuple[str, ...]) -> None:
        self._programs, self._argv = programs, argv
        self.returncode = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def communicate(self, stdin: str, timeout: float) -> tuple[str, str]:
        assert timeout > 0, "every program has a time limit"
        answer = self._programs.answer(self._argv, stdin)
        self.returncode = answer.returncode
        return answer.stdout, answer.stderr

    def terminate(self) -> None:
        pass

    def wait(self, timeout: float | None = None) -> int:
        del timeout
        return self.returncode


@pytest.fixture(autouse=True)
def programs(monkeypatch: pytest.MonkeyPatch) -> Programs:
    """Every program is a fake in every test."""
    fake = Programs()
    stand_in = SimpleNamespace(Popen=fake.popen, PIPE=subprocess.PIPE, TimeoutExpired=subprocess.TimeoutExpired)
    monkeypatch.setattr(run, "subprocess", stand_in)
    monkeypatch.setattr(run, "_Program", fake.popen)
    monkeypatch.setattr(host, "_is_here", fake.addresses.__contains__)
    return fake


_PROGRAM = run._Program


@pytest.fixture
def real_programs(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for a test that is about starting programs."""
    del programs
    monkeypatch.setattr(run, "subprocess", subprocess)
    monkeypatch.setattr(run, "_Program", _PROGRAM)


@pytest.fixture(scope="session")
def machine_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("machine")


PATHS = (
    (config, "PATH"),
    (files, "LOCKS"),
    (journal, "STATE"),
    (journal, "VOLATILE"),
    (handler, "STATE"),
    (handler, "VOLATILE"),
    (doorbell, "PATH"),
    (keys, "ROOT"),
    (peer, "KEYS"),
    (host, "PROC_DRBD"),
    (host, "MOUNTINFO"),
    (host, "DEVICES"),
    (host, "CONSULTATIONS"),
    (restore_point, "PROC_DRBD"),
    (restore_point, "MAPPER"),
    (inspect, "DIRECTORY"),
    (inspect, "MAPPER"),
    (share, "DIRECTORY"),
    (half, "FSTAB"),
    (history, "PROGRAM"),
    (apply, "RUNNING_SYSTEMD"),
    (alert, "SETTINGS"),
    (alert, "SENDMAIL"),
    (alert, "APPRISE"),
    (alerting, "BOOT_ID"),
    (metrics, "TEXTFILES"),
)


@pytest.fixture(autouse=True)
def root(machine_directory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Every path of the product lies below this directory, where there is nothing yet."""

    def rerooted(path: str | Path) -> Path:
        return machine_directory / str(path).removeprefix(str(machine_directory)).lstrip("/")

    for module, name in PATHS:
        path = getattr(module, name)
        monkeypatch.setattr(module, name, type(path)(rerooted(path)))
    monkeypatch.setattr(config.load, "__defaults__", (config.PATH,))
    # Rendered files have absolute paths in the plan; they are written here.
    monkeypatch.setattr(execute, "Path", rerooted)
    monkeypatch.setattr(apply, "Path", rerooted)
    mounts = host.MOUNTINFO
    if not mounts.exists():
        for path in (files.LOCKS.parent, config.PATH.parent, mounts.parent):
            path.mkdir(parents=True, exist_ok=True)
        mounts.touch()
    yield machine_directory
    found = [os.path.join(place, name) for place, _, names in os.walk(machine_directory) for name in names]  # noqa: PTH118
    if found != [str(mounts)] or mounts.stat().st_size:
        for path in machine_directory.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()


class Shadow:
    """A module in which some names are others, for one of its users alone."""

    def __init__(self, module: ModuleType, **names: object) -> None:
        self.__dict__.update(vars(module) | names)


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """test_files.py has what is asked of the disk and in which order."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture(autouse=True)
def kernel_log(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the handler writes to /dev/kmsg."""
    log = root / "kmsg"
    really_open = os.open

    def stand_in(path: str, flags: int, *arguments: Any, **options: Any) -> int:
        if path == "/dev/kmsg":
            return really_open(log, flags | os.O_CREAT | os.O_APPEND, 0o600)
        return really_open(path, flags, *arguments, **options)

    monkeypatch.setattr(handler, "os", Shadow(os, open=stand_in))
    return log


@pytest.fixture
def superuser(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The command line wants to be root, and sets the umask of its process."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    umask = os.umask(0o022)
    yield
    os.umask(umask)
