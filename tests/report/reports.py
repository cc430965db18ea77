"""Reports to show: made from fixed random numbers, without caches or clocks."""

import random
from collections.abc import Iterable

from otel_perfopt._core.cells import Histogram
from otel_perfopt.report import CacheRow, LatencySummary, OperationRow, PerformanceReport, Summary

NASTY = (
    "<script>alert(1)</script>",
    "\"quotes\" & 'more'",
    "n" * 200,
    "a b" * 70,
    "漢字キャッシュ" * 6,
    "é\u202eright to left\x00\x1b[2J\ud800",
    "{{ 7 * 7 }}",
    "]]><!-- &amp;",
)


def latency(values: Iterable[float]) -> LatencySummary:
    """Return what a report says about durations."""
    histogram = Histogram()
    histogram.observe(values)
    if not histogram.count:
        return LatencySummary()
    return LatencySummary(
        count=histogram.count,
        total=histogram.total,
        min=histogram.minimum,
        max=histogram.maximum,
        p50=histogram.percentile(0.50),
        p95=histogram.percentile(0.95),
        p99=histogram.percentile(0.99),
        distribution=histogram.distribution(),
    )


def cache(name: str, *, hits: int = 90, misses: int = 10, load: float = 0.01, seed: int = 1, **other: object) -> CacheRow:
    """Return a row whose loads take about `load` seconds."""
    chance = random.Random(seed)
    values: dict[str, object] = {
        "name": name,
        "size": misses,
        "max_size": 1000,
        "hit_count": hits,
        "miss_count": misses,
        "hit_rate": hits / (hits + misses) if hits + misses else 0.0,
        "memory_usage": 700 * misses,
        "evictions": {},
        "invalidations": {},
        "loads": latency(load * chance.lognormvariate(0, 0.5) for _ in range(misses)),
        "load_errors": {},
        "loads_in_flight": 0,
        "load_waiters": 0,
    }
    return CacheRow(**(values | other))  # type: ignore[arg-type]


def operation(
    count: int = 100,
    *,
    mean: float = 0.01,
    errors: dict[str, int] | None = None,
    deltas: list[float] | None = None,
    seed: int = 1,
) -> OperationRow:
    """Return a row whose calls take about `mean` seconds."""
    chance = random.Random(seed)
    row = latency(mean * chance.lognormvariate(0, 0.5) for _ in range(count))
    failed = sum((errors or {}).values())
    deltas = deltas or []
    return OperationRow(
        count=row.count,
        total_duration=row.total,
        min_duration=row.min,
        max_duration=row.max,
        avg_duration=row.total / row.count,
        success_count=row.count - failed,
        error_count=failed,
        memory_deltas=deltas,
        success_rate=1 - failed / row.count,
        avg_memory_delta=sum(deltas) / len(deltas) if deltas else 0.0,
        p50_duration=row.p50,
        p95_duration=row.p95,
        p99_duration=row.p99,
        errors=errors or {},
        distribution=row.distribution,
    )


def report(caches: Iterable[CacheRow] = (), operations: dict[str, OperationRow] | None = None) -> PerformanceReport:
    """Return the report of these rows."""
    rows = {row.name: row for row in caches}
    operations = operations or {}
    hits = sum(row.hit_count for row in rows.values())
    requests = hits + sum(row.miss_count for row in rows.values())
    summary = Summary(
        total_operations=sum(row.count for row in operations.values()),
        total_duration=sum(row.total_duration for row in operations.values()),
        cache_hit_rate=hits / requests if requests else 0.0,
    )
    return PerformanceReport(summary, operations, rows)


def typical() -> PerformanceReport:
    """Return a report with a bit of everything."""
    return report(
        [
            cache("users", hits=1800, misses=200, evictions={"capacity": 120, "expired": 30}, invalidations={"delete": 4}),
            cache("orders", hits=300, misses=700, load=0.2, max_size=None, load_errors={"TimeoutError": 3}),
            cache("idle", hits=0, misses=0),
        ],
        {
            "find": operation(400, errors={"KeyError": 2, "ValueError": 1}),
            "shop.orders.OrderService.find_by_customer": operation(1, mean=1.5),
            "parse": operation(1000, mean=3e-6, deltas=[1024.0, -512.0]),
        },
    )


def many(count: int = 100) -> PerformanceReport:
    """Return a report with `count` caches and as many operations."""
    return report(
        [cache(f"service.part_{i % 7}.cache_{i}", hits=50 * i, misses=i + 1, seed=i) for i in range(count)],
        {f"service.operation_{i}": operation(i + 1, mean=1e-5 * (i + 1), seed=i) for i in range(count)},
    )


def nasty() -> PerformanceReport:
    """Return a report whose names try to break the page."""
    return report(
        [cache(name, load_errors={name: 1}, evictions={name: 3}) for name in NASTY],
        {name: operation(errors={name: 2}) for name in NASTY},
    )
