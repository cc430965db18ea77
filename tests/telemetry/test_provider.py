"""The application's own provider: whatever it is and whenever it comes, it gets all figures, and the report stays the same."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider, ObservableCounter
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
from opentelemetry.sdk.metrics.view import (
    DropAggregation,
    ExplicitBucketHistogramAggregation,
    ExponentialBucketHistogramAggregation,
    LastValueAggregation,
    SumAggregation,
    View,
)

from otel_perfopt import Cache, get_performance_report, record_performance_metric
from otel_perfopt.telemetry import names

USE = """
import json, math
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

def use():
    cache = otel_perfopt.Cache("users")
    for key in (1, 1, 2):
        cache.get(key, lambda: "value")
    try:
        cache.get(3, lambda: 1 / 0)
    except ZeroDivisionError:
        pass
    for number in range(300):
        otel_perfopt.record_performance_metric("work", number / 1000, memory_delta=8)
    return cache

def seen(reader):
    points = {
        metric.name: list(metric.data.data_points)
        for resource in reader.get_metrics_data().resource_metrics for scope in resource.scope_metrics for metric in scope.metrics
        if scope.scope.name == "otel_perfopt"
    }
    requests = {point.attributes["perfopt.cache.result"]: point.value for point in points["perfopt.cache.requests"]}
    (work,) = points["perfopt.operation.duration"]
    loads = sum(point.count for point in points["perfopt.cache.load.duration"])
    return [requests["hit"], requests["miss"], loads, work.count, round(work.sum, 9), work.min, work.max]

def report():
    told = otel_perfopt.get_performance_report()
    users, work = told.caches["users"], told.operations["work"]
    loads = users.loads.count + sum(users.load_errors.values())
    durations = [round(work.total_duration, 9), work.min_duration, work.max_duration]
    return [users.hit_count, users.miss_count, loads, work.count, *durations]
"""
ONCE = [1, 3, 3, 300, 44.85, 0.0, 0.299]
TWICE = [2, 6, 6, 600, 89.7, 0.0, 0.299]
SET = "reader = InMemoryMetricReader(); metrics.set_meter_provider(MeterProvider([reader]))\n"


def test_no_provider(script: Callable[..., Any]) -> None:
    """The report has everything, and nobody's provider is made or set."""
    code = f"{USE}import otel_perfopt\nkeep = use()\nprint(json.dumps([report(), type(metrics.get_meter_provider()).__name__]))"
    assert script(code) == [ONCE, "_ProxyMeterProvider"]


def test_a_provider_before_the_import(script: Callable[..., Any]) -> None:
    """Both are told the same, at each collection."""
    code = f"""{USE}{SET}import otel_perfopt
a, first = use(), seen(reader)
b = use(); print(json.dumps([first, seen(reader), report()]))"""
    assert script(code) == [ONCE, TWICE, TWICE]


@pytest.mark.parametrize("report_first", [False, True])
def test_a_provider_after_the_use(script: Callable[..., Any], *, report_first: bool) -> None:
    """It is told in full what happened before it was there, counts and durations."""
    early = "report()" if report_first else "None"
    code = f"""{USE}import otel_perfopt\nkeep = use(); {early}\n{SET}first = seen(reader); more = use()
print(json.dumps([first, seen(reader), seen(reader), report()]))"""
    assert script(code) == [ONCE, TWICE, TWICE, TWICE]


def test_sdk_disabled(script: Callable[..., Any]) -> None:
    """The report works all the same, with everything in it."""
    code = f"""{USE}{SET}import otel_perfopt\nkeep = use()
print(json.dumps([report(), otel_perfopt.get_performance_report().caches["users"].size, reader.get_metrics_data() is None]))"""
    assert script(code, OTEL_SDK_DISABLED="true") == [ONCE, 2, True]


def test_settings_of_the_environment_do_not_concern_the_report(script: Callable[..., Any]) -> None:
    """Not even those with which the SDK would refuse to start."""
    code = f"{USE}import otel_perfopt\nkeep = use(); print(json.dumps(report()))"
    variables = {
        "OTEL_METRICS_EXEMPLAR_FILTER": "nonsense",
        "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "delta",
        "OTEL_RESOURCE_ATTRIBUTES": "%%%",
    }
    assert script(code, **variables) == ONCE


def test_a_provider_that_refuses_instruments(script: Callable[..., Any]) -> None:
    """Its error is logged, and the cache works."""
    code = f"""{USE}import logging, otel_perfopt
from opentelemetry.metrics import NoOpMeterProvider
class Broken(NoOpMeterProvider):
    def get_meter(self, *args, **kwargs):
        raise RuntimeError("no meters today")
logged = []
class Handler(logging.Handler):
    def emit(self, record):
        logged.append(record.levelname)
logging.getLogger("otel_perfopt").addHandler(Handler())
metrics.set_meter_provider(Broken())
keep = use(); print(json.dumps([report(), logged]))"""
    assert script(code) == [ONCE, ["ERROR"]]


def test_the_report_adds_no_reader(service: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each further reader would make every measurement of every library slower."""
    collected = service()
    get_performance_report()
    assert list(collected.provider._measurement_consumer._reader_storages) == list(collected.readers)


def use(name: str) -> Cache:
    """Some requests, loads and durations."""
    cache = Cache(name)
    for key in (1, 1, 2):
        cache.get(key, lambda: "value")
    for number in range(200):
        record_performance_metric(name, number / 1000 + 0.001, success=number % 2 == 0)
    return cache


def check_report(name: str, times: int = 1) -> None:
    """The report has all of it."""
    report = get_performance_report()
    row, cache = report.operations[name], report.caches[name]
    assert (row.count, row.error_count, cache.hit_count, cache.miss_count) == (200 * times, 100 * times, times, 2 * times)
    assert row.total_duration == pytest.approx(20.1 * times, rel=1e-12)
    assert (row.min_duration, row.max_duration) == (0.001, 0.2)


def test_the_histogram_agrees_with_the_report(service: Callable[..., Any], name: str) -> None:
    """Count, sum, minimum and maximum, for successes and for failures; buckets within the report's accuracy."""
    collected = service()
    alive = use(name)
    points = {point.attributes.get("error.type"): point for point in collected.collect().points(names.OPERATION_DURATION, name)}
    assert {kind: point.count for kind, point in points.items()} == {None: 100, "_OTHER": 100}
    assert points[None].sum == pytest.approx(10.0, rel=1e-12)
    assert (points[None].min, points[None].max) == (0.001, 0.199)
    assert (points["_OTHER"].min, points["_OTHER"].max) == (0.002, 0.2)
    below = points[None].bucket_counts[: list(points[None].explicit_bounds).index(0.1) + 1]
    assert sum(below) in {49, 50, 51}
    check_report(name)
    del alive


def test_two_readers(service: Callable[..., Any], name: str) -> None:
    """Both get everything, whoever collects first."""
    collected = service(InMemoryMetricReader(), InMemoryMetricReader())
    alive = [use(name)]
    assert collected.collect(0).total(names.OPERATION_DURATION, name)[0] == 200
    alive.append(use(name))
    for reader in (1, 0, 1):
        assert collected.collect(reader).total(names.OPERATION_DURATION, name) == (400, pytest.approx(40.2, rel=1e-12))
        assert collected.collect(reader).values(names.CACHE_REQUESTS, name) == {"hit,memory": 2, "stale,memory": 0, "miss": 4}
    check_report(name, 2)


def test_delta_temporality(service: Callable[..., Any], name: str) -> None:
    """Each collection has what is new since the one before."""
    delta: dict[type, AggregationTemporality] = dict.fromkeys(
        (Counter, ObservableCounter, Histogram), AggregationTemporality.DELTA
    )
    collected = service(InMemoryMetricReader(preferred_temporality=delta))
    alive = []
    for _ in range(2):
        alive.append(use(name))
        data = collected.collect()
        assert data.total(names.OPERATION_DURATION, name) == (200, pytest.approx(20.1, rel=1e-12))
        assert data.values(names.CACHE_REQUESTS, name) == {"hit,memory": 1, "stale,memory": 0, "miss": 2}
    data = collected.collect()
    assert data.total(names.OPERATION_DURATION, name) == (0, 0)
    check_report(name, 2)


def view(pattern: str = "perfopt.*", **options: Any) -> View:
    """A View of some of the library's instruments."""
    return View(instrument_name=pattern, **options)


VIEWS = {
    "drop everything": ([view("*", aggregation=DropAggregation())], {}),
    "drop the one that replays": ([view("perfopt.[oe]*.[mef]*", aggregation=DropAggregation())], {}),
    "drop one": ([view("perfopt.cache.requests", aggregation=DropAggregation())], {}),
    "rename": ([view("perfopt.operation.duration", name="my.duration")], {"perfopt.operation.duration": "my.duration"}),
    "no attributes": ([view(attribute_keys=set())], {}),
    "sum": ([view("perfopt.*.duration", aggregation=SumAggregation())], {}),
    "last value": ([view("perfopt.*.duration", aggregation=LastValueAggregation())], {}),
    "wrong histogram": ([view(aggregation=ExplicitBucketHistogramAggregation([1.0]))], {}),
    "exponential": ([view("perfopt.*.duration", aggregation=ExponentialBucketHistogramAggregation())], {}),
    "own buckets": ([view("perfopt.*.duration", aggregation=ExplicitBucketHistogramAggregation([0.05]))], {}),
}


@pytest.mark.filterwarnings("ignore")  # the SDK's own, about some of these Views
@pytest.mark.parametrize("label", VIEWS)
def test_hostile_views(service: Callable[..., Any], name: str, label: str) -> None:
    """The report is the same under any View, and what a View leaves over is exact."""
    views, renamed = VIEWS[label]
    collected = service(views=views)
    alive = use(name)
    data = collected.collect()
    check_report(name)
    points = data.points(renamed.get("perfopt.operation.duration", "perfopt.operation.duration"))
    if label in {"drop one", "drop the one that replays", "rename", "exponential", "own buckets"}:
        own = [point for point in points if name in point.attributes.values()]
        assert sum(point.count for point in own) == 200
        assert sum(point.sum for point in own) == pytest.approx(20.1, rel=1e-12)
    if label == "no attributes":
        assert sum(point.count for point in points) >= 200
    if label == "sum":
        own = [point for point in points if name in point.attributes.values()]
        assert sum(point.value for point in own) == pytest.approx(20.1, rel=1e-12)
    assert bool(data.points(names.CACHE_REQUESTS)) == (label not in {"drop everything", "drop one"})
    del alive


def test_a_cardinality_limit(service: Callable[..., Any], name: str) -> None:
    """The overflow goes where the SDK puts it; the report has every name."""
    if "aggregation_cardinality_limit" not in inspect.signature(View).parameters:
        pytest.skip("this SDK has no such limits")
    collected = service(views=[view("perfopt.operation.duration", aggregation_cardinality_limit=3)])
    for number in range(10):
        record_performance_metric(f"{name}-{number}", 0.5)
    points = collected.collect().points(names.OPERATION_DURATION)
    assert len(points) <= 4
    assert sum(point.count for point in points) >= 10
    assert sum(key.startswith(name) for key in get_performance_report().operations) == 10


def test_another_library_s_instruments_are_not_in_the_way(service: Callable[..., Any], name: str) -> None:
    """One that fails, one with the same name in another scope."""
    collected = service()

    def fail(_: object) -> Any:
        raise ZeroDivisionError

    meter = collected.provider.get_meter("somebody.else")
    meter.create_observable_counter("theirs", [fail])
    meter.create_counter("perfopt.cache.requests").add(5)
    alive = use(name)
    data = collected.collect()
    assert data.total(names.OPERATION_DURATION, name)[0] == 200
    check_report(name)
    del alive


def test_replayed_values_carry_nobody_s_context(service: Callable[..., Any], name: str) -> None:
    """An exemplar with the collecting thread's span would tell a lie."""
    from opentelemetry.sdk.metrics import AlwaysOnExemplarFilter
    from opentelemetry.sdk.trace import TracerProvider

    collected = service(exemplar_filter=AlwaysOnExemplarFilter())
    record_performance_metric(name, 0.5)
    with TracerProvider(shutdown_on_exit=False).get_tracer("scrape").start_as_current_span("scrape"):
        (point,) = collected.collect().points(names.OPERATION_DURATION, name)
    assert [exemplar.trace_id for exemplar in point.exemplars] in ([], [None], [0])


def test_the_memory_gauge(service: Callable[..., Any], name: str) -> None:
    """The mean of the deltas, as the last value."""
    collected = service()
    record_performance_metric(name, 0.5, memory_delta=10)
    record_performance_metric(name, 0.5, memory_delta=-30)
    assert collected.collect().values(names.OPERATION_MEMORY_DELTA, name) == {"": -10}


def test_a_provider_that_is_shut_down(name: str) -> None:
    """The library goes on, and so does the report."""
    from otel_perfopt.telemetry import instruments

    provider = MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False)
    instruments.observe_all_with(provider.get_meter(names.SCOPE), replay=True)
    provider.shutdown()
    alive = use(name)
    check_report(name)
    del alive


def test_a_series_begins_before_it_is_collected(script: Callable[..., Any]) -> None:
    """By a millisecond at least: Prometheus, which counts these, would not see the first failure of an operation otherwise."""
    code = f"""{USE}{SET}import otel_perfopt
first = use(); seen(reader)
otel_perfopt.record_performance_metric("work", 0.01, success=False, error_type="Late")
(point,) = [
    point
    for resource in reader.get_metrics_data().resource_metrics for scope in resource.scope_metrics for metric in scope.metrics
    for point in metric.data.data_points if point.attributes.get("error.type") == "Late"
]
print(json.dumps(point.time_unix_nano // 10**6 - point.start_time_unix_nano // 10**6))"""
    assert script(code) >= 1
