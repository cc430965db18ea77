"""The one table of names: what is collected is what it says, and what the documentation says."""

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics.export import Gauge, Histogram, Sum

from otel_perfopt import (
    BatchProcessor,
    Cache,
    PoolFull,
    PoolTimeout,
    ResourcePool,
    emit,
    lazy,
    measure_performance,
    record_performance_metric,
    subscribe,
)
from otel_perfopt.telemetry import instruments, names
from otel_perfopt.telemetry.names import METRICS, Metric
from otel_perfopt.testing import DictTier, Faults, FaultyTier, ManualClock

DOCS = Path(__file__).resolve().parent.parent.parent / "docs" / "telemetry.md"
ROW = re.compile(r"^\| `(?P<name>(perfopt|db\.client)\.[a-z._]+)` \| (?P<cells>.*) \|$", re.MULTILINE)

by_name = pytest.mark.parametrize("row", METRICS, ids=lambda row: row.name)


def use_caches(name: str) -> object:
    """Hit, miss, fail, evict and invalidate, and do without a tier."""
    cache = Cache(name, max_size=2)
    for key in range(4):
        cache.get(key, lambda: "value")
    cache.get(3)
    with pytest.raises(ZeroDivisionError):
        cache.get("x", lambda: 1 / 0)
    cache.delete(1)
    cache.expire(2)
    cache.clear()
    tier = FaultyTier(DictTier(), Faults(failure_rate=0.0))
    tiered = Cache(f"{name}.tiered", tiers=[tier])
    with tier.faults.outage():
        tiered.get(1, lambda: "value")
    return cache, tiered


def use_pools(name: str) -> object:
    """Lease, time out, refuse, leak and destroy, in pools of both conventions."""
    clock, alive = ManualClock(), []
    for semconv in ("perfopt", "db"):
        for max_waiting, error in ((None, PoolTimeout), (0, PoolFull)):
            pool = ResourcePool(name, object, max_size=1, max_waiting=max_waiting, leak_after=5, semconv=semconv, clock=clock)
            with pool.lease(), pytest.raises(error):
                pool.acquire(timeout=0)
            held = pool.acquire()
            clock.advance(6)
            pool.destroy(held)
            alive.append(pool)
    return alive


def use_batches(name: str) -> object:
    """Process a batch, and fail with one."""

    def process(items: list[int]) -> list[float]:
        return [1 / item for item in items]

    processor = BatchProcessor(name, process, max_queue=20)
    for item in (1, 0):
        processor.add(item)
        processor.flush()
    return processor


def use_lazy_values(name: str) -> object:
    """Load once."""
    value = lazy(name=name)(lambda: "value")
    assert value() == "value"
    return value


def use_operations(name: str) -> object:
    """Measure, and tell what was measured elsewhere."""
    record_performance_metric(name, 0.5, success=False, error_type="Refused", memory_delta=100)
    return measure_performance(name, lambda: None)()


def use_events(name: str) -> object:
    """Emit to one who listens and one who fails."""

    def fail(_: object) -> None:
        raise ValueError

    with subscribe(f"{name}.event", fail), subscribe(f"{name}.event", lambda _: None):
        emit(f"{name}.event")
    return None


USES = (use_caches, use_pools, use_batches, use_lazy_values, use_operations, use_events)


def use_everything(name: str) -> list[object]:
    """Make every metric have a point; returns what has to stay alive for that."""
    return [use(name) for use in USES]


def kind_of(data: Any) -> str:
    """Which instrument must have made these data."""
    if isinstance(data, Sum):
        return "counter" if data.is_monotonic else "up-down counter"
    return "gauge" if isinstance(data, Gauge) else "histogram" if isinstance(data, Histogram) else type(data).__name__


def test_everything_collected_is_in_the_table(service: Callable[..., Any], name: str) -> None:
    """Name, unit, description, instrument and attributes; nothing is missing, and nothing else is there."""
    collected = service()
    alive = use_everything(name)
    metrics = collected.collect().metrics
    assert {metric.name: (kind_of(metric.data), metric.unit, metric.description) for metric in metrics.values()} == {
        row.name: (row.kind, row.unit, row.description) for row in METRICS
    }
    for row in METRICS:
        for point in metrics[row.name].data.data_points:
            assert set(point.attributes) <= set(row.attributes)
            assert row.attributes[0] in point.attributes
            assert all(isinstance(value, str) for value in point.attributes.values())
    del alive


def test_histograms_have_boundaries_for_durations(service: Callable[..., Any], name: str) -> None:
    """The SDK's own boundaries would put everything below five seconds into one bucket."""
    collected = service()
    record_performance_metric(name, 0.02)
    (point,) = collected.collect().points(names.OPERATION_DURATION, name)
    assert tuple(point.explicit_bounds) == names.SECONDS == tuple(sorted(names.SECONDS))
    assert all(isinstance(bound, float) for bound in names.SECONDS)


@by_name
def test_naming_rules(row: Metric) -> None:
    """Prefix, form and unit follow the semantic conventions."""
    assert re.fullmatch(r"(perfopt|db\.client\.connection)(\.[a-z]+(_[a-z]+)*)+", row.name)
    assert "total" not in row.name
    assert row.description.endswith(".")
    if row.kind == "counter":
        assert re.fullmatch(r"\{[a-z]+\}", row.unit)
    if row.kind == "histogram":
        durations = {("s", last) for last in ("duration", "create_time", "wait_time", "use_time")}
        assert (row.unit, row.name.rpartition(".")[2]) in {*durations, ("{item}", "size")}
    assert row.unit in {"s", "By"} or re.fullmatch(r"\{[a-z]+\}", row.unit)


@by_name
def test_attributes_are_named(row: Metric) -> None:
    """The first attribute names the component; all are in the metric's own namespace, or the standard's error type."""
    assert row.attributes[0].endswith(".name")
    namespace = "perfopt." if row.name.startswith("perfopt.") else "db.client.connection."
    assert all(attribute.startswith(namespace) or attribute == names.ERROR_TYPE for attribute in row.attributes)
    assert len(set(row.attributes)) == len(row.attributes)


def test_names_are_unique() -> None:
    """A second instrument of one name would be dropped by the SDK without a word."""
    assert max(Counter(row.name for row in METRICS).values()) == 1
    constants = {value for value in vars(names).values() if isinstance(value, Metric)}
    assert constants == set(METRICS)


def test_the_documentation_has_the_same_table() -> None:
    """Every row, in the order of the code: name, instrument, unit, attributes and meaning."""
    told = [[match["name"], *match["cells"].split(" | ")] for match in ROW.finditer(DOCS.read_text("utf-8"))]
    assert told == [
        [row.name, row.kind, f"`{row.unit}`", ", ".join(f"`{attribute}`" for attribute in row.attributes), row.description]
        for row in METRICS
    ]


def test_no_key_or_value_of_a_cache_is_an_attribute(service: Callable[..., Any], name: str) -> None:
    """Each different one would be a time series of its own."""
    collected = service()
    cache = Cache(name)
    cache.get("zebra key", lambda: "zebra value")
    is_told = "zebra" in repr(collected.collect().metrics)  # apart from the assertion, which would compare megabytes
    assert not is_told


def test_readings_have_the_attributes_of_their_row(name: str) -> None:
    """No family observes a metric with another row's attributes."""
    alive = use_everything(name)
    for row in METRICS:
        for attributes, _ in instruments.observe(row):
            assert set(attributes) <= set(row.attributes)
    del alive
