"""The dashboards: every query of every panel, variable and rule is put to a real Prometheus, and answers what the report says."""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.backends.dashboards import DASHBOARDS, INTEGRATIONS, QUERIES, Query, filled, panels
from tests.backends.expected_panels import PANELS, SOME, Facts, Figures, requests
from tests.backends.jaeger import Jaeger
from tests.backends.processes import run
from tests.backends.prometheus import Everything, Prometheus, running
from tests.backends.repositories import make_repository
from tests.backends.servers import wait_for
from tests.backends.test_readmes import commands, follow

RULES = sorted((INTEGRATIONS / "prometheus").glob("*.rules.yml"))
DEMO = """
    import sys
    from otel_perfopt import get_performance_report
    from otel_perfopt.cli import main

    assert main(sys.argv[1:]) == 0
    print(get_performance_report().to_json(indent=None))
"""


NOT_IN_THE_DEMO = {
    "batches: Failed items by error",
    "batches: Failed items by error: B",
    "batches: Queue per limit",
    "caches: Failed calls of tiers",
    "caches: Failed loads",
    "operations: Failed calls by error",
    "operations: Failed lazy loads",
    "operations: Memory per call",
    "overview: Batch queue per limit",
    "pools: Connection wait time",
    "pools: Connections in use per limit",
    "pools: Failed creations",
    "pools: Pending requests and timeouts",
    "pools: Pending requests and timeouts: B",
}
"""Nothing fails in it; its queue has no limit, and its pools are not for connections."""

COMPONENTS = {f"perfopt_{kind}_name" for kind in ("cache", "pool", "batch", "operation")}

ZERO = {"pools: Pending requests and timeouts", "operations: Memory per call"}
"""Where zero is what the reports say."""


def answered(found: dict[frozenset[tuple[str, str]], float]) -> Figures:
    """Figures by their names, without those that are zero or not a number."""
    told = {labels: value for labels, value in found.items() if value and not math.isnan(value)}
    return {
        frozenset(text for label, text in labels if label not in {"job", "__name__"}): value for labels, value in told.items()
    }


@dataclass(frozen=True)
class Fed:
    """A Prometheus that was told everything, and what the reports say about the time that the queries are for."""

    prometheus: Prometheus
    facts: Facts
    end: float
    window: float

    def answer(self, expression: str) -> Figures:
        """What a query answers, for that time."""
        return answered(self.raw(expression))

    def raw(self, expression: str) -> dict[frozenset[tuple[str, str]], float]:
        """The same as it is."""
        at = None if "ALERTS" in expression else self.end
        return self.prometheus.query(filled(expression, "everything", self.window), at)


@pytest.fixture(scope="module")
def fed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fed]:
    """A Prometheus with the rules, which hears of two rounds of everything; queries are for the time between their arrivals."""
    rules = [str(path) for path in RULES]
    config = {"global": {"evaluation_interval": "250ms"}, "rule_files": rules}
    with running(tmp_path_factory.mktemp("fed"), config) as prometheus:
        metrics = {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": prometheus.otlp, "OTEL_METRICS_EXPORTER": "otlp"}
        with Everything(metrics) as process:
            before = process.work()
            start = prometheus.arrival(1)
            after = process.work()
            end = prometheus.arrival(2)
            wait_for(lambda: prometheus.query('ALERTS{alertstate="firing"}'))
            yield Fed(prometheus, Facts(before, after, end - start), end, end - start + 0.001)


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query.name)
def test_a_panel_says_what_the_report_says(query: Query, fed: Fed) -> None:
    """None is empty, and each figure is the report's."""
    assert fed.raw(query.expression), "empty"
    found = fed.answer(query.expression)
    expected = {names: value for names, value in PANELS[query.name](fed.facts).items() if value != 0}
    if query.name.startswith(SOME) or query.name.partition(": ")[2].startswith(SOME):
        found = {names: value for names, value in found.items() if names in expected}
    assert found == expected
    assert found or query.name in ZERO


def test_latencies_lead_to_traces(fed: Fed) -> None:
    """Queries that ask for exemplars get some, each with the id of a trace."""
    times = {"start": str(fed.end - 60), "end": str(fed.end + 1)}
    asking = [
        target["expr"] for board in DASHBOARDS for panel in panels(board) for target in panel["targets"] if target["exemplar"]
    ]
    found = {
        series["seriesLabels"]["__name__"]: [exemplar["labels"] for exemplar in series["exemplars"]]
        for expression in asking
        for series in fed.prometheus.ask("query_exemplars", query=filled(expression, "everything"), **times)
    }
    assert {"perfopt_cache_load_duration_seconds_bucket", "perfopt_operation_duration_seconds_bucket"} <= found.keys()
    assert all(re.fullmatch("[0-9a-f]{32}", labels["trace_id"]) for each in found.values() for labels in each)


def test_every_panel_is_compared() -> None:
    """The table has what the dashboards have."""
    assert {query.name for query in QUERIES} == PANELS.keys()


@pytest.mark.parametrize("board", DASHBOARDS)
def test_variables_offer_what_there_is(board: str, fed: Fed) -> None:
    """Services, and the components of the report."""
    variables = {variable["name"]: variable for variable in DASHBOARDS[board]["templating"]["list"]}
    offered = {}
    for name, variable in variables.items():
        if variable["type"] == "query":
            selector, label = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]).groups()  # type: ignore[union-attr]
            offered[name] = set(fed.prometheus.ask(f"label/{label}/values", **{"match[]": filled(selector, "everything")}))
    assert offered.pop("service") == {"everything"}
    for component, values in offered.items():
        assert values == fed.facts.after[{"batch": "batches"}.get(component, f"{component}s")].keys()
    assert bool(offered) == (board != "overview")


def rules(prometheus: Prometheus) -> list[Any]:
    """The rules that were loaded."""
    return [rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"]]


def test_every_rule_answers(fed: Fed) -> None:
    """Each is evaluated without an error, and each recording rule has a value."""
    wait_for(lambda: all(rule["health"] == "ok" for rule in rules(fed.prometheus)))
    for rule in rules(fed.prometheus):
        assert not rule.get("lastError")
        now = rule["query"].replace(" offset 30m", "")  # there is no day before
        assert rule["type"] == "alerting" or fed.prometheus.query(now), rule["name"]


def test_rules_say_what_the_report_says(fed: Fed) -> None:
    """Those that are made of figures of the report."""
    expressions = {rule["name"]: rule["query"] for rule in rules(fed.prometheus) if "objective" not in rule.get("labels", {})}
    (instance,) = [dict(labels)["instance"] for labels in fed.raw('target_info{job="everything"}')]

    def value(rule: str) -> Figures:
        narrowed = expressions[rule].replace("[5m]", f"[{round(fed.window * 1000)}ms]")
        return {names - {instance}: value for names, value in fed.answer(narrowed).items()}

    say = {name.partition(": ")[2]: value for name, value in PANELS.items()}
    assert value("perfopt:pool_use:ratio") == nonzero(say["Pool use per limit"](fed.facts))
    assert value("perfopt:batch_queue:ratio") == nonzero(say["Queue per limit"](fed.facts))
    assert value("perfopt:operation_calls:rate5m") == nonzero(say["Calls by operation"](fed.facts))
    assert value("perfopt:cache_requests:rate5m") == nonzero(fed.facts.rate(requests(fed.facts)))
    unserved, acquires = fed.facts.added("pools", "timeouts"), fed.facts.added("pools", "acquires")
    for names, share in value("perfopt:pool_unserved:ratio5m").items():
        lost = unserved[names] + fed.facts.added("pools", "rejected")[names]
        assert share == pytest.approx(lost / (lost + acquires[names]))


def nonzero(figures: Figures) -> Figures:
    """Those that are not zero."""
    return {names: value for names, value in figures.items() if value != 0}


@pytest.mark.parametrize(
    ("alert", "component"),
    [
        ("PerfoptCacheBreakerOpen", {"remote"}),
        ("PerfoptPoolSaturated", {"connections"}),
        ("PerfoptPoolCallersTimeOut", {"flaky", "connections", "database"}),
        ("PerfoptPoolLeak", {"flaky"}),
        ("PerfoptBatchQueueFull", {"uploads"}),
        ("PerfoptCacheHitRatioCollapsed", set()),
        ("PerfoptObjectiveFastBurn", set()),
        ("PerfoptObjectiveBurn", set()),
    ],
)
def test_alerts_are_about_what_is_wrong(alert: str, component: set[str], fed: Fed) -> None:
    """Pending or firing for those components that have the trouble, and for no others."""

    def components() -> set[str]:
        (rule,) = [rule for rule in rules(fed.prometheus) if rule["name"] == alert]
        return {value for found in rule["alerts"] for label, value in found["labels"].items() if label in COMPONENTS}

    assert wait_for(lambda: components() == component or None)


def test_the_demo_fills_the_dashboards(tmp_path: Path) -> None:
    """Everything that the demo does is there, with the figures of its report; what goes wrong nowhere is nowhere."""
    repository, folder = tmp_path / "repository", tmp_path / "prometheus"
    for path in (repository, folder):
        path.mkdir()
    for number in range(60):
        (repository / f"module_{number}.py").write_text(f"import os\nNUMBER = {number}\n")
    with running(folder) as prometheus:
        variables = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": prometheus.url,
            "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": prometheus.otlp,
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_TRACES_EXPORTER": "none",
            "OTEL_LOGS_EXPORTER": "none",
            "OTEL_METRIC_EXPORT_INTERVAL": "250",
        }
        report = run(DEMO, "demo", "--repo", str(make_repository(repository)), "--requests", "300", variables=variables).result
        course = "max_over_time((%s)[1m:250ms])"
        sent = {query.name: prometheus.query(course % filled(query.expression, "otel-perfopt-demo", 2)) for query in QUERIES}
        empty = {name for name, found in sent.items() if not found}
        assert empty == NOT_IN_THE_DEMO
        assert_totals(prometheus, report)


def assert_totals(prometheus: Prometheus, report: Any) -> None:
    """The last figures of all counters are those of the report."""
    for figure in ("hit", "miss", "stale"):
        result = f'{{perfopt_cache_result="{figure}"}}'
        assert totals(prometheus, f"perfopt_cache_requests_total{result}", "perfopt_cache_name") == last(
            report, "caches", f"{figure}_count"
        )
    for metric, label, kind, path in (
        ("perfopt_cache_load_duration_seconds_count", "perfopt_cache_name", "caches", ["loads", "count"]),
        ("perfopt_pool_acquires_total", "perfopt_pool_name", "pools", ["acquires"]),
        ("perfopt_pool_created_total", "perfopt_pool_name", "pools", ["total_created"]),
        ("perfopt_batch_items_total", "perfopt_batch_name", "batches", ["item_count"]),
        ("perfopt_batch_flushes_total", "perfopt_batch_name", "batches", ["waits", "count"]),
        ("perfopt_operation_duration_seconds_count", "perfopt_operation_name", "operations", ["count"]),
        ("perfopt_operation_duration_seconds_sum", "perfopt_operation_name", "operations", ["total_duration"]),
    ):
        assert totals(prometheus, metric, label) == pytest.approx(last(report, kind, *path))


def last(report: Any, kind: str, *path: str) -> Figures:
    """Figures of a report that are not zero."""
    return nonzero(Facts(report, report, 0.0).now(kind, *path))


def totals(prometheus: Prometheus, metric: str, *labels: str) -> Figures:
    """The sums of a counter."""
    return answered(prometheus.query(f"sum by ({', '.join(labels)}) ({metric})"))


def test_an_empty_prometheus_answers_every_query(tmp_path: Path) -> None:
    """Nothing there is no error."""
    with running(tmp_path, {"rule_files": [str(path) for path in RULES]}) as prometheus:
        for query in QUERIES:
            found = prometheus.query(filled(query.expression, "shop"))
            assert answered(found) == {}


def test_the_lines_of_the_prometheus_page(tmp_path: Path) -> None:
    """Whoever follows them finds hits and misses of the demo."""
    with running(tmp_path) as prometheus:
        lines = commands(INTEGRATIONS / "prometheus" / "README.md")
        printed = follow(lines, {"http://localhost:9090": prometheus.url}, make_repository(tmp_path / "repository"))
        rows = json.loads(printed.splitlines()[-1])["data"]["result"]
        assert {(row["metric"]["perfopt_cache_name"], row["metric"]["perfopt_cache_result"]) for row in rows} >= {
            ("git_info", "hit"),
            ("git_info", "miss"),
        }


def test_the_lines_of_the_grafana_page(jaeger: Jaeger, tmp_path: Path) -> None:
    """Whoever follows them finds filled panels, and the trace that an exemplar leads to in Jaeger."""
    with running(tmp_path) as prometheus:
        lines = commands(INTEGRATIONS / "grafana" / "README.md")
        addresses = {"http://localhost:4318": jaeger.otlp_http, "http://localhost:9090": prometheus.url}
        protocol = {"OTEL_EXPORTER_OTLP_ENDPOINT=": "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf OTEL_EXPORTER_OTLP_ENDPOINT="}
        follow(lines, {**addresses, **protocol, "demo": "demo --requests 200"}, make_repository(tmp_path / "repository"))
        (board,) = [line.rpartition("/")[2].partition("?")[0] for line in lines if line.startswith("xdg-open")]
        assert board in {document["uid"] for document in DASHBOARDS.values()}
        loads = 'perfopt_cache_load_duration_seconds_bucket{job="otel-perfopt-demo"}'
        found = prometheus.ask("query_exemplars", query=loads, start="0", end="9999999999")
        exemplar = found[0]["exemplars"][0]
        spans = jaeger.trace(exemplar["labels"]["trace_id"])
        assert exemplar["labels"]["span_id"] in {span.span_id for span in spans if span.name.startswith("load ")}
