"""The command line as a shell sees it: words in, two streams and an exit code out."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from drbd_offsite import run
from drbd_offsite.cli import main
from drbd_offsite.model import Flavour

from ..conftest import Programs
from ..operations.test_half import bare
from ..operations.world import World


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str


Command = Callable[..., Said]


@pytest.fixture
def command(superuser: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run ``drbd-offsite WORDS…``; an exception that is no exit fails the test, as a traceback would."""
    del superuser
    monkeypatch.setattr(run, "verbose", False)

    def call(*words: str) -> Said:
        try:
            code = main(words)
        except SystemExit as exit_:
            code = int(exit_.code or 0)
        said = capsys.readouterr()
        assert "Traceback" not in said.out + said.err
        return Said(int(code), said.out, said.err)

    return call


@pytest.fixture
def server(programs: Programs, root: Path) -> World:
    """An enrolled server with a volume, nothing replicated."""
    return World(bare(Flavour.SERVER), programs, root)
