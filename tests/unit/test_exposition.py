"""What Prometheus, or node_exporter, is given to read."""

import shutil
import subprocess
import sys
from datetime import UTC, datetime

import pytest

from drbd_offsite import exposition
from drbd_offsite.model import Flavour
from drbd_offsite.plan.metrics import Kind, Metric, Sample, figures

from . import make

NOW = datetime(2026, 1, 15, 12, 0, 0, 250000, tzinfo=UTC)


def test_a_gauge_and_a_counter_as_the_format_wants_them() -> None:
    metrics = (
        Metric(
            "drbd_offsite_up",
            "Whether it is.",
            Kind.GAUGE,
            (Sample({"b": "1", "a": "2"}, 1.0), Sample({"b": "2", "a": "3"}, 0.0)),
        ),
        Metric("drbd_offsite_sent_bytes_total", "What went.", Kind.COUNTER, (Sample({}, 4096.0),)),
    )
    assert exposition.text(metrics) == (
        "# HELP drbd_offsite_up Whether it is.\n"
        "# TYPE drbd_offsite_up gauge\n"
        'drbd_offsite_up{a="2",b="1"} 1.0\n'
        'drbd_offsite_up{a="3",b="2"} 0.0\n'
        "# HELP drbd_offsite_sent_bytes_total What went.\n"
        "# TYPE drbd_offsite_sent_bytes_total counter\n"
        "drbd_offsite_sent_bytes_total 4096.0\n"
    )


def test_an_instant_loses_nothing_on_the_way() -> None:
    said = exposition.text((Metric("at", "When.", Kind.GAUGE, (Sample({}, NOW.timestamp()),)),))
    assert float(said.splitlines()[-1].split()[1]) == NOW.timestamp()


def test_what_the_kernel_calls_a_state_cannot_break_a_line() -> None:
    said = exposition.text((Metric("state", "Which.", Kind.GAUGE, (Sample({"state": 'a"b\\c\nd'}, 1.0),)),))
    assert said.splitlines()[2:] == [r'state{state="a\"b\\c\nd"} 1.0']


def test_prometheus_has_nothing_to_say_of_a_look() -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed")
    seen = make.host(Flavour.SERVER, drbd=[make.well(Flavour.SERVER)], complete={"test_a": "2026-01-15T11:59:50+00:00"})
    said = exposition.text(figures(make.site(), seen, "0.1.0", NOW))
    done = subprocess.run(["promtool", "check", "metrics"], input=said, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(exposition.NoLibrary) as raised:
        exposition.text(())
    assert raised.value.hint == "apt install python3-prometheus-client"
