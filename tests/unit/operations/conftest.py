"""What tests of operations that are killed everywhere have in common."""

import functools
from collections.abc import Callable
from pathlib import Path

import pytest

from drbd_offsite import config
from drbd_offsite.operations import drive

from ..conftest import Programs
from .looked import Copy
from .world import Killed

PARSED = functools.cache(config.parse)


@pytest.fixture
def texts_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same few configurations are read thousands of times."""
    monkeypatch.setattr(config, "parse", PARSED)


@pytest.fixture
def last_step(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Have the process die after a step, whether it runs a program or not; 0 for none."""
    really = drive.execute

    def after(last: int) -> None:
        done = 0

        def counted(*arguments: object) -> object:
            nonlocal done
            answer = really(*arguments)
            done += 1
            if done == last:
                raise Killed
            return answer

        monkeypatch.setattr(drive, "execute", counted)

    return after


@pytest.fixture
def copy(programs: Programs, root: Path, monkeypatch: pytest.MonkeyPatch) -> Copy:
    """A backup with one copy that is up to date, an ext4."""
    return Copy(programs, root, monkeypatch)
