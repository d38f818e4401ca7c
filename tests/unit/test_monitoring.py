"""What is shipped for Prometheus and Grafana: it asks for figures that there are, and says what they mean."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from drbd_offsite.plan import metrics
from drbd_offsite.plan.assess import Level

ROOT = Path(__file__).parents[2]
RULES = ROOT / "etc/prometheus/drbd-offsite.rules.yml"
CASES = ROOT / "tests/data/prometheus/drbd-offsite.test.yml"
DASHBOARD = ROOT / "etc/grafana/drbd-offsite.json"
NAME = re.compile(metrics.PREFIX + r"\w+")

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool, of the package prometheus, is not installed"
)


def promtool(*words: str | Path) -> str:
    done = subprocess.run(["promtool", *words], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def alerts() -> dict[str, str]:
    """The text of each rule, by its name."""
    _, *rules = re.split(r"^ +- alert: ", RULES.read_text(), flags=re.MULTILINE)
    return {rule.partition("\n")[0]: rule for rule in rules}


@pytest.fixture(scope="module")
def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return found


def expressions(dashboard: dict[str, Any]) -> Iterator[str]:
    for panel in dashboard["panels"]:
        yield from (target["expr"] for target in panel["targets"])


@needs_promtool
def test_prometheus_takes_the_rules() -> None:
    assert f"{len(alerts())} rules found" in promtool("check", "rules", RULES)


@needs_promtool
def test_each_alert_comes_when_it_should_and_not_before() -> None:
    assert "SUCCESS" in promtool("test", "rules", CASES)


def test_each_alert_has_a_case() -> None:
    assert len(alerts()) >= 8
    assert set(alerts()) == set(re.findall(r"DrbdOffsite\w+", CASES.read_text()))


@pytest.mark.parametrize("name", alerts())
def test_an_alert_says_which_machine_how_bad_and_what_to_do(name: str) -> None:
    text = alerts()[name]
    assert re.search(r"severity: (critical|warning)\n", text)
    assert "$labels.instance" in text
    assert re.search(r"drbd-offsite (status|doctor|drill)|systemctl status", text)
    assert "!" not in text


@pytest.mark.parametrize("path", [RULES, CASES, DASHBOARD], ids=lambda path: path.name)
def test_nothing_asks_for_a_figure_that_there_is_not(path: Path) -> None:
    """An expression on a name that nobody gives is never true, and an alert on it never comes."""
    used = set(NAME.findall(path.read_text()))
    assert used
    assert used <= metrics.NAMES


def test_a_case_has_the_labels_that_there_are() -> None:
    for name, labels in re.findall(r"(drbd_offsite_\w+){([^}]*)}", CASES.read_text()):
        named = set(re.findall(r"(\w+)=", labels)) - {"instance"}
        # What is not configured has an empty peer, which is none.
        assert named in ({"resource", "peer"}, {"resource"}, set()), name


def test_the_dashboard_has_what_matters(dashboard: dict[str, Any]) -> None:
    used = {name for expression in expressions(dashboard) for name in NAME.findall(expression)}
    assert {metrics.PREFIX + name for name in ("complete_timestamp_seconds", "level", "drill_failed")} <= used


def test_the_dashboard_s_panels_have_a_place_and_a_source_of_their_own(dashboard: dict[str, Any]) -> None:
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(cells)) == len(cells), "they overlap"
    assert max(x for x, _ in cells) == 23, "a row has 24 columns"
    assert {panel["datasource"]["uid"] for panel in panels} == {"${datasource}"}


def test_the_dashboard_names_each_level_as_status_does(dashboard: dict[str, Any]) -> None:
    (panel,) = (p for p in dashboard["panels"] if p["targets"][0]["expr"].startswith(metrics.PREFIX + "level"))
    (mapping,) = panel["fieldConfig"]["defaults"]["mappings"]
    named = {int(value): option["text"] for value, option in mapping["options"].items()}
    assert named == {int(level): level.name.lower().replace("_", " ") for level in Level}


@needs_promtool
def test_prometheus_takes_what_the_dashboard_asks(dashboard: dict[str, Any], tmp_path: Path) -> None:
    rules = [{"record": f"panel:{number}", "expr": asked} for number, asked in enumerate(expressions(dashboard))]
    file = tmp_path / "rules.yml"
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    assert f"{len(rules)} rules found" in promtool("check", "rules", file)


def test_both_are_in_the_package() -> None:
    installed = (ROOT / "debian/drbd-offsite-common.install").read_text()
    for path in (RULES, DASHBOARD):
        assert f"{path.relative_to(ROOT)} usr/share/drbd-offsite/{path.parent.name}\n" in installed
