"""What the watcher leaves for node_exporter."""

import stat
import sys
from pathlib import Path

import pytest

from drbd_offsite.model import Flavour
from drbd_offsite.operations import duties, metrics

from .. import make

SITE = make.site()
WELL = make.host(drbd=[make.well(Flavour.SERVER)])


@pytest.fixture
def directory() -> Path:
    """A machine with node_exporter."""
    metrics.TEXTFILES.mkdir(parents=True)
    return metrics.TEXTFILES


def test_a_look_is_left_where_node_exporter_finds_it(directory: Path) -> None:
    metrics.leave(SITE, WELL)
    (file,) = directory.iterdir()
    assert file.name.endswith(".prom")
    assert 'drbd_offsite_connected{peer="backup",resource="test_a"} 1.0\n' in file.read_text()


def test_whoever_runs_node_exporter_can_read_it(directory: Path) -> None:
    metrics.leave(SITE, WELL)
    assert stat.S_IMODE((directory / metrics.NAME).stat().st_mode) == 0o644


def test_a_new_look_takes_the_place_of_the_old_one(directory: Path) -> None:
    metrics.leave(SITE, WELL)
    metrics.leave(SITE, make.host())
    (file,) = directory.iterdir()
    assert 'drbd_offsite_connected{peer="backup",resource="test_a"} 0.0\n' in file.read_text()


def test_where_there_is_no_node_exporter_nothing_is_made() -> None:
    metrics.leave(SITE, WELL)
    assert not metrics.TEXTFILES.parent.exists()


def test_without_the_library_the_watcher_says_nothing_and_writes_nothing(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    monkeypatch.setattr(duties, "DUTIES", (metrics.leave,))
    told: list[str] = []
    duties.see_to(SITE, WELL, told.append)
    assert told == []
    assert list(directory.iterdir()) == []


def test_it_says_of_which_version_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "VERSION").write_text("0.1.0\n")
    monkeypatch.setattr(metrics, "VERSION", tmp_path / "VERSION")
    assert 'drbd_offsite_info{drbd_version="8.4.11",flavour="server",version="0.1.0"} 1.0\n' in metrics.current(
        SITE, WELL
    )
