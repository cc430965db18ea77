"""The files of the dashboards: as the programs make them, and in the order that Grafana's linter wants."""

import re
from typing import Any

import pytest

from tests.backends.dashboards import DASHBOARDS, FILES, panels


@pytest.mark.parametrize("board", DASHBOARDS)
def test_a_dashboard_is_in_order(board: str) -> None:
    """The rules of Grafana's own linter, and what makes a panel readable when it is empty."""
    document = DASHBOARDS[board]
    assert document["uid"] == f"otel-perfopt-{board}"
    assert document["editable"] is False
    assert "otel-perfopt" in document["tags"]
    variables = {variable["name"]: variable for variable in document["templating"]["list"]}
    assert [variables[name]["query"] for name in ("metrics", "traces")] == ["prometheus", "jaeger"]
    assert all(variable["label"] and variable["description"] for variable in variables.values())
    titles = [panel["title"] for panel in panels(board)]
    assert len(set(titles)) == len(titles)
    identifiers = [panel["id"] for panel in document["panels"]]
    assert len(set(identifiers)) == len(identifiers)
    for panel in panels(board):
        lint(panel)


def lint(panel: Any) -> None:
    """Check one panel."""
    title, defaults = panel["title"], panel["fieldConfig"]["defaults"]
    assert len(panel["description"]) > 10, title
    assert panel["description"].endswith("."), title
    assert defaults["unit"], title
    assert defaults["noValue"], title
    assert panel["datasource"] == {"type": "prometheus", "uid": "${metrics}"}
    for target in panel["targets"]:
        expression = target["expr"]
        assert target["datasource"] == panel["datasource"]
        assert target["legendFormat"]
        assert 'job=~"$service"' in expression
        assert all(window in {"$__rate_interval", "$__range"} for window in re.findall(r"\[([^\]]+)\]", expression)), title
        assert "rate(" not in expression or "sum" in expression
        is_latency = "histogram_quantile" in expression or (panel["type"] == "heatmap" and "_seconds_bucket" in expression)
        assert target["exemplar"] is is_latency, title


@pytest.mark.parametrize(
    ("board", "title"), [("overview", "Fullest pool"), ("pools", "Fullest pool"), ("pools", "Callers waiting")]
)
def test_figures_of_all_pools_are_of_those_for_databases_as_well(board: str, title: str) -> None:
    """They have the same names on the page, and other names in Prometheus."""
    (expression,) = [target["expr"] for panel in panels(board) if panel["title"] == title for target in panel["targets"]]
    assert "perfopt_pool_" in expression
    assert "db_client_connection_" in expression


@pytest.mark.parametrize("board", DASHBOARDS)
def test_a_graph_shows_its_limits(board: str) -> None:
    """An error in a hundred would be invisible below an axis of 100 %."""
    for panel in panels(board):
        defaults = panel["fieldConfig"]["defaults"]
        if panel["type"] == "timeseries" and defaults["unit"] == "percentunit":
            limits = [step["value"] for step in defaults["thresholds"]["steps"] if step["value"]]
            assert defaults["custom"]["axisSoftMax"] == max(limits, default=1)
            assert "max" not in defaults


@pytest.mark.parametrize("board", DASHBOARDS)
def test_panels_do_not_overlap(board: str) -> None:
    """Each place of the grid belongs to one panel."""
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARDS[board]["panels"]:
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        assert not cells & taken
        assert place["x"] + place["w"] <= 24
        taken |= cells


def test_the_files_are_what_the_programs_make() -> None:
    """Nobody has edited the JSON."""
    pytest.importorskip("grafana_foundation_sdk", reason="needs the dependency group dashboards")
    from grafana.build import documents

    assert documents() == {path.name: path.read_text(encoding="utf-8") for path in FILES}
