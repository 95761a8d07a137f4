"""The dashboard and the alerts read what is there, in PromQL that Prometheus understands, and nothing is left out."""

from __future__ import annotations

import re
from itertools import combinations
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.charts.programs import needs, run
from tests.charts.promql import TARGET, alerts, dashboard, labels_in, names_in, panels, queries, series

if TYPE_CHECKING:
    from pathlib import Path

EXPRESSIONS = {**alerts(), **queries()}
OF_PROMETHEUS = {"up"}
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}


@pytest.mark.parametrize("expression", EXPRESSIONS.values(), ids=EXPRESSIONS)
def test_what_is_read_is_there(expression: str) -> None:
    known = series()
    names = names_in(expression)
    assert names
    assert names <= known.keys() | OF_PROMETHEUS
    everywhere = frozenset[str]().union(*known.values())
    for metric, label in labels_in(expression):
        assert label in TARGET | (known.get(metric, frozenset()) if metric else everywhere), (metric, label)


def test_every_metric_of_ours_is_shown() -> None:
    shown = set[str]().union(*map(names_in, queries().values()))
    assert {name for name in series() if name.startswith("ews_sync_")} - shown == set()


def test_names_are_told_from_functions_and_labels() -> None:
    expression = 'sum by (le, b) (rate(m_bucket{l="and m2", x!="y"}[5m])) / on (job) group_left (v) (n > bool 0) or o'
    assert names_in(expression) == {"m_bucket", "n", "o"}
    assert list(labels_in(expression)) == [
        ("m_bucket", "l"), ("m_bucket", "x"), (None, "le"), (None, "b"), (None, "job"), (None, "v"),
    ]  # fmt: skip


@needs("promtool")
def test_prometheus_understands_every_query(tmp_path: Path) -> None:
    rules = [{"record": f"query:{number}", "expr": text} for number, text in enumerate(queries().values())]
    file = tmp_path / "queries.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}), encoding="utf-8")
    result = run("promtool", "check", "rules", file)
    assert result.returncode == 0, result.stdout
    assert f"SUCCESS: {len(rules)} rules found" in result.stdout


def test_it_can_be_imported_anywhere() -> None:
    found = dashboard()
    assert found["uid"] == "ews-sync"
    assert "id" not in found
    variables = {each["name"]: each for each in found["templating"]["list"]}
    assert variables.pop("datasource")["type"] == "datasource"
    assert variables.keys() == {"namespace", "job", "instance", "mailbox"}
    for variable in variables.values():
        assert variable["datasource"] == DATASOURCE
        # A label that is not there has to match, too.
        assert (variable["includeAll"], variable["allValue"]) == (True, ".*")
    used = set(re.findall(r"\$\{?(\w+)", str(found["panels"]) + str(list(variables.values())))) - {"__rate_interval"}
    assert used == {"datasource", "namespace", "job", "instance", "mailbox", "__all"}


@pytest.mark.parametrize("panel", panels(), ids=lambda panel: panel["title"])
def test_every_panel_says_what_it_shows(panel: dict[str, Any]) -> None:
    assert panel["description"].endswith(".")
    assert panel["datasource"] == DATASOURCE
    for target in panel["targets"]:
        assert target["datasource"] == DATASOURCE
        assert 'namespace=~"$namespace"' in target["expr"]
        for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]):
            kept = re.search(r"by \(([^)]*)\)", target["expr"])
            known = kept[1] if kept else [*TARGET, *series()[next(iter(names_in(target["expr"])))]]
            assert label in known


def test_panels_do_not_lie_on_each_other() -> None:
    places = [panel["gridPos"] for panel in dashboard()["panels"]]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    for one, other in combinations(places, 2):
        apart_across = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        apart_down = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert apart_across or apart_down
    numbers = [panel["id"] for panel in dashboard()["panels"]]
    assert len(set(numbers)) == len(numbers)
    titles = [panel["title"] for panel in dashboard()["panels"]]
    assert len(set(titles)) == len(titles)
