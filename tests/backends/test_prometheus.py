"""Metrics reach a real Prometheus over OTLP, by a scrape and through the Collector: the same names, and the report's figures."""

import json
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from socket import create_connection
from typing import Any

import pytest

from otel_perfopt.telemetry import names
from otel_perfopt.telemetry.names import Metric
from tests.backends.programs import program
from tests.backends.prometheus import Everything, Labels, Prometheus, running
from tests.backends.servers import Server, free_port, wait_for

RULES = Path(__file__).resolve().parents[2] / "integrations" / "prometheus"
WAYS = ("everything", "scraped", "collected")
UNITS = {"s": "_seconds", "By": "_bytes"}
OURS = '{__name__=~"(perfopt|db_client)_.+", job="%s"}'
PLACE = {"job", "instance", "exported_job", "exported_instance", "otel_scope_name", "otel_scope_version", "otel_scope_schema_url"}


def written(metric: Metric) -> str:
    """The name of a metric as Prometheus writes it, without the suffixes of a histogram."""
    return metric.name.replace(".", "_") + UNITS.get(metric.unit, "") + ("_total" if metric.kind == "counter" else "")


def families() -> dict[str, Metric]:
    """The metrics of the table by all names that Prometheus has for them."""
    suffixes = {"histogram": ("_bucket", "_count", "_sum")}
    return {written(metric) + suffix: metric for metric in names.METRICS for suffix in suffixes.get(metric.kind, ("",))}


def comparable(labels: Labels) -> Labels:
    """Labels without those of the place; boundaries of buckets as numbers, which are written in two ways."""
    return frozenset((name, str(float(value)) if name == "le" else value) for name, value in labels if name not in PLACE)


class Ways:
    """A process that Prometheus hears of in three ways at once, and its last report."""

    def __init__(self, prometheus: Prometheus, report: Any) -> None:
        self.prometheus = prometheus
        self.report = report

    def figures(self, way: str) -> dict[Labels, float]:
        """All figures that came one way, sums without their last digits: each reader adds them up in an order of its own."""
        return {comparable(labels): float(f"{value:.12g}") for labels, value in self.prometheus.query(OURS % way).items()}

    def agree(self) -> Mapping[str, dict[Labels, float]] | None:
        """The figures of all ways, once they are the same."""
        found = {way: self.figures(way) for way in WAYS}
        first, *others = found.values()
        return found if first and all(other == first for other in others) else None


@pytest.fixture(scope="module")
def ways(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ways]:
    """A process with both exporters, one of them by way of a Collector."""
    pytest.importorskip("opentelemetry.exporter.prometheus")
    folder = tmp_path_factory.mktemp("ways")
    own, through, taken = free_port(), free_port(), free_port()
    scraped = [
        {
            "job_name": job,
            "scrape_interval": "1s",
            "scrape_timeout": "1s",
            "static_configs": [{"targets": [f"127.0.0.1:{port}"]}],
        }
        for job, port in (("scraped", own), ("collected", through))
    ]
    with running(folder, {"scrape_configs": scraped}) as prometheus:
        settings = {
            "receivers": {"otlp": {"protocols": {"http": {"endpoint": f"127.0.0.1:{taken}"}}}},
            "exporters": {
                "prometheus": {"endpoint": f"127.0.0.1:{through}"},
                "otlphttp": {"metrics_endpoint": prometheus.otlp},
            },
            "service": {
                "pipelines": {"metrics": {"receivers": ["otlp"], "exporters": ["prometheus", "otlphttp"]}},
                "telemetry": {"metrics": {"level": "none"}},
            },
        }
        (folder / "collector.json").write_text(json.dumps(settings))

        def is_ready() -> bool:
            try:
                create_connection(("127.0.0.1", taken), 1).close()
            except OSError:
                return False
            return True

        variables = {
            "OTEL_METRICS_EXPORTER": "otlp,prometheus",
            "OTEL_EXPORTER_PROMETHEUS_HOST": "127.0.0.1",
            "OTEL_EXPORTER_PROMETHEUS_PORT": str(own),
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{taken}",
        }
        collector = Server([program("otelcol"), "--config", "collector.json"], ready=is_ready, folder=folder)
        with collector, Everything(variables) as process:
            process.work()
            yield Ways(prometheus, process.work())


def test_the_same_names_labels_and_values_whichever_way(ways: Ways) -> None:
    """Nothing differs but job, instance, the scope's name, and how a boundary of a bucket is written."""
    figures = wait_for(ways.agree)["everything"]
    assert len(figures) > 500


def test_everything_in_the_table_arrives_and_nothing_else(ways: Ways) -> None:
    """Each metric and each of its attributes, under the name that is made of the table's."""
    wait_for(ways.agree)
    table = families()
    found: dict[str, set[str]] = {}
    for labels in ways.figures("everything"):
        described = dict(labels)
        found.setdefault(described.pop("__name__"), set()).update(described)
    assert found.keys() == table.keys()
    for name, metric in table.items():
        bucket = {"le"} if name.endswith("_bucket") else set()
        assert found[name] == {attribute.replace(".", "_") for attribute in metric.attributes} | bucket, name


@pytest.mark.parametrize("metric", names.METRICS, ids=written)
def test_kinds_and_descriptions_are_those_of_the_table(metric: Metric, ways: Ways) -> None:
    """What Grafana shows beside a name."""
    name, kind = written(metric), {"up-down counter": "gauge"}.get(metric.kind, metric.kind)
    known = wait_for(lambda: ways.prometheus.ask("metadata", metric=name)).get(name)
    assert known
    assert {each["type"] for each in known} == {kind}
    assert {each["help"] for each in known} == {metric.description}


@pytest.mark.parametrize("way", WAYS)
def test_figures_are_those_of_the_report(way: str, ways: Ways) -> None:
    """Counts are equal, and sums as far as floats are."""
    figures = wait_for(ways.agree)[way]

    def total(metric: Metric, suffix: str = "", **labels: str) -> float:
        wanted = {
            ("__name__", written(metric) + suffix),
            *((getattr(names, key).replace(".", "_"), value) for key, value in labels.items()),
        }
        return sum(value for series, value in figures.items() if wanted <= series)

    for name, cache in ways.report["caches"].items():
        for result, figure in (("hit", "hit_count"), ("miss", "miss_count"), ("stale", "stale_count")):
            assert total(names.CACHE_REQUESTS, CACHE_NAME=name, CACHE_RESULT=result) == cache[figure]
        loads = cache["loads"]["count"] + sum(cache["load_errors"].values())
        assert total(names.CACHE_LOAD_DURATION, "_count", CACHE_NAME=name) == loads
        assert total(names.CACHE_TIER_ERRORS, CACHE_NAME=name) == sum(map(sum, map(dict.values, cache["tier_errors"].values())))
    for name, pool in ways.report["pools"].items():
        assert total(names.POOL_ACQUIRES, POOL_NAME=name) == pool["acquires"]
        assert total(names.POOL_TIMEOUTS, POOL_NAME=name) == pool["timeouts"]
        waits, label = (names.DB_WAIT_TIME, "DB_POOL_NAME") if name == "database" else (names.POOL_WAIT_TIME, "POOL_NAME")
        assert total(waits, "_count", **{label: name}) == pool["waits"]["count"]
        assert total(waits, "_sum", **{label: name}) == pytest.approx(pool["waits"]["total"])
    for name, batch in ways.report["batches"].items():
        assert total(names.BATCH_ITEMS, BATCH_NAME=name) == batch["item_count"] + sum(batch["item_errors"].values())
        assert total(names.BATCH_FLUSHES, BATCH_NAME=name) == sum(batch["flushes"].values())
    for name, operation in ways.report["operations"].items():
        assert total(names.OPERATION_DURATION, "_count", OPERATION_NAME=name) == operation["count"]
        assert total(names.OPERATION_DURATION, "_sum", OPERATION_NAME=name) == pytest.approx(operation["total_duration"])
        assert total(names.OPERATION_MEMORY_DELTA, OPERATION_NAME=name) == operation["avg_memory_delta"]
    for name, lazy in ways.report["lazy_loads"].items():
        assert total(names.LAZY_LOAD_DURATION, "_count", LAZY_NAME=name) == lazy["loads"]["count"] + sum(
            lazy["load_errors"].values()
        )


def test_rules_are_valid() -> None:
    """Syntax, names and duplicates."""
    files = sorted(RULES.glob("*.rules.yml"))
    assert len(files) == 2
    promtool("check", "rules", "--lint=all", "--lint-fatal", *files)
    promtool("check", "config", RULES / "prometheus.yml")


def test_each_alert_fires_when_it_should_and_only_then() -> None:
    """The unit tests of the rules."""
    alerts = {line.split()[-1] for line in (RULES / "alerts.rules.yml").read_text().splitlines() if "- alert:" in line}
    tests = sorted(RULES.glob("*.test.yml"))
    assert all(f"alertname: {alert}" in "".join(test.read_text() for test in tests) for alert in alerts)
    promtool("test", "rules", *tests)


def test_each_alert_has_a_runbook() -> None:
    """The link leads to a heading."""
    page = (RULES / "README.md").read_text(encoding="utf-8")
    headings = {line.lstrip("# ").lower() for line in page.splitlines() if line.startswith("#")}
    links = [
        line.rpartition("#")[2].rstrip("'")
        for line in (RULES / "alerts.rules.yml").read_text().splitlines()
        if "runbook:" in line
    ]
    assert links
    assert set(links) <= headings


def promtool(*arguments: str | Path) -> None:
    """Run promtool, which must be content."""
    done = subprocess.run([program("promtool"), *arguments], capture_output=True, text=True, cwd=RULES)
    assert done.returncode == 0, done.stdout + done.stderr
