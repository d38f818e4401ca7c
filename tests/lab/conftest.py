"""Fixtures for tests on real machines."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from .evidence import Watch, collect
from .lab import Lab
from .stages import CLEAN

if TYPE_CHECKING:
    from collections.abc import Iterator

FAILED = pytest.StashKey[bool]()


def pytest_configure() -> None:
    """Let a SIGTERM end the machines in order, as Ctrl-C does."""
    signal.signal(signal.SIGTERM, lambda *_: pytest.exit("SIGTERM"))


def pytest_exception_interact(node: pytest.Item | pytest.Collector, report: pytest.TestReport) -> None:
    """Remember for the fixtures that the test failed; whoever follows a run of hours sees why at once."""
    node.stash[FAILED] = True
    print(f"\n{report.longreprtext[-4000:]}", flush=True)


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """Both machines, running; a test that starts from a known instant asks for a stage instead."""
    lab = Lab.start()
    try:
        lab.enter(CLEAN)
        yield lab
    finally:
        lab.close()


@pytest.fixture
def clean_lab(lab: Lab) -> Lab:
    """Both machines as freshly installed, with a volume of known files on the server."""
    lab.enter(CLEAN)
    return lab


@pytest.fixture(autouse=True)
def _watched(request: pytest.FixtureRequest) -> Iterator[None]:
    """After each test: no forbidden word in any log, and the logs of a failed test kept."""
    if "lab" not in request.fixturenames:
        yield
        return
    lab: Lab = request.getfixturevalue("lab")
    watch = Watch(lab)
    yield
    allowed = [word for mark in request.node.iter_markers("expects") for word in mark.args]
    findings = watch.findings(allowed)
    if findings or FAILED in request.node.stash:
        collect(lab, request.node.name)
    if findings:
        pytest.fail("forbidden words were logged:\n" + "\n".join(findings), pytrace=False)
