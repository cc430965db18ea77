"""From metric data to the report."""

from collections import defaultdict
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from otel_perfopt._core.cells import Histogram
from otel_perfopt.report.hot_keys import hot_keys
from otel_perfopt.report.model import (
    BatchRow,
    CacheRow,
    HotKeyRow,
    LatencySummary,
    LazyRow,
    OperationRow,
    PerformanceReport,
    PoolRow,
    Summary,
)
from otel_perfopt.telemetry import names
from otel_perfopt.telemetry.names import Metric
from otel_perfopt.telemetry.operations import operations
from otel_perfopt.telemetry.pools import metrics_of

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricsData

__all__ = ("build_report", "get_performance_report")


def get_performance_report() -> PerformanceReport:
    """Return what happened in this process since it began, from the library's own in-memory metric reader.

    It works with any meter provider set, or none. Times are in seconds.

    >>> report = get_performance_report()
    >>> sorted(report.to_dict())
    ['batches', 'caches', 'lazy_loads', 'operations', 'pools', 'summary']
    """
    from otel_perfopt.telemetry.reader import read_metrics  # noqa: PLC0415 - needs the SDK, which importing the library does not

    memory = {operation.name: list(operation.memory_deltas) for operation in operations()}
    return build_report(read_metrics(), memory, hot_keys())


def build_report(
    data: "MetricsData",
    memory_deltas: Mapping[str, list[float]],
    hot_keys: Mapping[str, list[HotKeyRow]] = MappingProxyType({}),
) -> PerformanceReport:
    """Return the report of metric data.

    Args:
        data: what the reader collected.
        memory_deltas: the last changes of memory by operation, which no metric can carry.
        hot_keys: those of the caches by name, which no metric may carry.
    """
    points = _Points(data)
    caches = {name: _cache(name, points, hot_keys.get(name, [])) for name in points.names(names.CACHE_REQUESTS)}
    rows = {name: _operation(name, points, memory_deltas.get(name, [])) for name in points.names(names.OPERATION_DURATION)}
    hits = sum(cache.hit_count for cache in caches.values())
    requests = sum(cache.request_count for cache in caches.values())
    pools = {name: _pool(name, points) for name in points.names(names.POOL_ACQUIRES)}
    batches = {name: _batch(name, points) for name in points.names(names.BATCH_QUEUE_SIZE, names.BATCH_FLUSHES)}
    lazy = {name: _lazy(name, points) for name in points.names(names.LAZY_LOAD_DURATION)}
    summary = Summary(
        total_operations=sum(row.count for row in rows.values()),
        total_duration=sum(row.total_duration for row in rows.values()),
        cache_hit_rate=hits / requests if requests else 0.0,
        pool_utilization={name: pool.utilization for name, pool in pools.items()},
        batch_queue_sizes={name: batch.queue_size for name, batch in batches.items()},
    )
    return PerformanceReport(summary, rows, caches, pools, batches, lazy)


class _Points:
    """The data points of a collection, by metric and component."""

    def __init__(self, data: "MetricsData") -> None:
        self._points: defaultdict[Metric, defaultdict[str, list[Any]]] = defaultdict(lambda: defaultdict(list))
        rows = {row.name: row for row in names.METRICS}
        for metric in (m for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics):
            row = rows[metric.name]
            for point in metric.data.data_points:
                self._points[row][str((point.attributes or {})[row.attributes[0]])].append(point)

    def names(self, *metrics: Metric) -> list[str]:
        """Return the components that have points of any of these metrics, sorted."""
        return sorted({name for metric in metrics for name in self._points[metric]})

    def number(self, metric: Metric, name: str) -> Any:
        """Return the value of a metric that has one point per component; None without one."""
        points = self._points[metric].get(name)
        return points[0].value if points else None

    def numbers(
        self, metric: Metric, name: str, attribute: str, where: Mapping[str, str] = MappingProxyType({})
    ) -> dict[str, int]:
        """Return the values of a metric by one of its attributes, of the points that have it, and have the others `where`."""
        found: dict[str, int] = {}
        for point in self._points[metric].get(name, ()):
            if attribute in point.attributes and where.items() <= point.attributes.items():
                kind = point.attributes[attribute]
                found[kind] = found.get(kind, 0) + point.value
        return found

    def durations(self, metric: Metric, name: str) -> tuple[Histogram, dict[str, Histogram]]:
        """Return the durations of successes, and those of failures by error type."""
        success, failures = Histogram(), {}
        for point in self._points[metric].get(name, ()):
            error_type = point.attributes.get(names.ERROR_TYPE)
            if error_type is None:
                success = _histogram(point)
            else:
                failures[error_type] = _histogram(point)
        return success, failures

    def total(self, metric: Metric, name: str) -> int:
        """Return the sum of all points of a metric."""
        return sum(point.value for point in self._points[metric].get(name, ()))

    def seconds(self, metric: Metric, name: str) -> float:
        """Return for how long a metric has been collected."""
        points = self._points[metric].get(name)
        return (points[0].time_unix_nano - points[0].start_time_unix_nano) / 1e9 if points else 0.0


def _histogram(point: Any) -> Histogram:
    return Histogram.of(
        total=point.sum,
        minimum=point.min,
        maximum=point.max,
        zeros=point.zero_count,
        offset=point.positive.offset,
        buckets=point.positive.bucket_counts,
    )


def _cache(name: str, points: _Points, hot_keys: list[HotKeyRow]) -> CacheRow:
    results = points.numbers(names.CACHE_REQUESTS, name, names.CACHE_RESULT)
    hits, stale, misses = (results.get(result, 0) for result in ("hit", "stale", "miss"))
    requests = hits + stale + misses
    loads, failures = points.durations(names.CACHE_LOAD_DURATION, name)
    return CacheRow(
        name=name,
        size=points.number(names.CACHE_ENTRY_COUNT, name) or 0,
        max_size=points.number(names.CACHE_ENTRY_LIMIT, name),
        hit_count=hits,
        miss_count=misses,
        hit_rate=hits / requests if requests else 0.0,
        memory_usage=points.number(names.CACHE_SIZE, name) or 0,
        evictions=points.numbers(names.CACHE_EVICTIONS, name, names.EVICTION_REASON),
        invalidations=points.numbers(names.CACHE_INVALIDATIONS, name, names.INVALIDATION_REASON),
        loads=_summary(loads),
        load_errors={kind: histogram.count for kind, histogram in failures.items()},
        loads_in_flight=points.number(names.CACHE_LOAD_IN_FLIGHT, name) or 0,
        load_waiters=points.number(names.CACHE_LOAD_WAITERS, name) or 0,
        stale_count=stale,
        hits_by_tier=points.numbers(names.CACHE_REQUESTS, name, names.CACHE_TIER, {names.CACHE_RESULT: "hit"}),
        refreshes=points.number(names.CACHE_REFRESHES, name) or 0,
        tier_errors=_tier_errors(name, points),
        open_breakers=sorted(_positive(points.numbers(names.CACHE_BREAKER_OPEN, name, names.CACHE_TIER))),
        hot_keys=hot_keys,
    )


def _tier_errors(name: str, points: _Points) -> dict[str, dict[str, int]]:
    failed = _positive(points.numbers(names.CACHE_TIER_ERRORS, name, names.CACHE_TIER))
    return {
        tier: _positive(points.numbers(names.CACHE_TIER_ERRORS, name, names.ERROR_TYPE, {names.CACHE_TIER: tier}))
        for tier in sorted(failed)
    }


def _pool(name: str, points: _Points) -> PoolRow:
    kind = metrics_of("perfopt" if points.number(names.DB_TIMEOUTS, name) is None else "db")
    created = points.number(names.POOL_CREATED, name) or 0
    states = points.numbers(kind.states, name, kind.states.attributes[1])
    max_size, in_use = points.number(kind.maximum, name) or 0, states.get("used", 0)
    waits, _ = points.durations(kind.wait_time, name)
    uses, _ = points.durations(kind.use_time, name)
    creations, _ = points.durations(kind.create_time, name)
    _, failures = points.durations(names.POOL_CREATE_TIME, name)
    elapsed = points.seconds(kind.use_time, name)
    return PoolRow(
        name=name,
        total_created=created,
        available=states.get("idle", 0),
        in_use=in_use,
        waiting=points.number(kind.pending, name) or 0,
        utilization=in_use / max_size if max_size else 0.0,
        mean_in_use=uses.total / elapsed if elapsed else 0.0,
        min_size=points.number(kind.idle_min, name) or 0,
        max_size=max_size,
        acquires=points.number(names.POOL_ACQUIRES, name) or 0,
        waited=waits.count - waits.zeros if created or not waits.count else None,
        timeouts=points.number(names.POOL_TIMEOUTS, name) or 0,
        rejected=points.number(names.POOL_REJECTED, name) or 0,
        leaks=points.number(names.POOL_LEAKS, name) or 0,
        destroyed=_positive(points.numbers(names.POOL_DESTROYED, name, names.DESTROY_REASON)),
        waits=_summary(waits),
        uses=_summary(uses),
        creations=_summary(creations),
        create_errors={error: histogram.count for error, histogram in failures.items()},
    )


def _batch(name: str, points: _Points) -> BatchRow:
    flushes = points.numbers(names.BATCH_FLUSHES, name, names.FLUSH_REASON)
    sizes, _ = points.durations(names.BATCH_SIZE, name)
    durations, failures = points.durations(names.BATCH_DURATION, name)
    waits, _ = points.durations(names.BATCH_WAIT_TIME, name)
    in_flight = points.number(names.BATCH_IN_FLIGHT, name) or 0
    errors = _positive(points.numbers(names.BATCH_ITEMS, name, names.ERROR_TYPE))
    return BatchRow(
        name=name,
        queue_size=points.number(names.BATCH_QUEUE_SIZE, name) or 0,
        processing=in_flight > 0,
        in_flight=in_flight,
        max_queue=points.number(names.BATCH_QUEUE_CAPACITY, name),
        item_count=points.total(names.BATCH_ITEMS, name) - sum(errors.values()),
        item_errors=errors,
        flushes=_positive(flushes),
        mean_size=sizes.total / sizes.count if sizes.count else 0.0,
        max_size=int(sizes.maximum) if sizes.count else 0,
        durations=_summary(durations),
        batch_errors={error: histogram.count for error, histogram in failures.items()},
        waits=_summary(waits),
    )


def _lazy(name: str, points: _Points) -> LazyRow:
    loads, failures = points.durations(names.LAZY_LOAD_DURATION, name)
    return LazyRow(name, _summary(loads), {error: histogram.count for error, histogram in failures.items()})


def _positive(counts: dict[str, int]) -> dict[str, int]:
    return {kind: count for kind, count in counts.items() if count}


def _operation(name: str, points: _Points, memory_deltas: list[float]) -> OperationRow:
    success, failures = points.durations(names.OPERATION_DURATION, name)
    everything = Histogram()
    for histogram in (success, *failures.values()):
        everything.merge(histogram)
    summary = _summary(everything)
    return OperationRow(
        count=summary.count,
        total_duration=summary.total,
        min_duration=summary.min,
        max_duration=summary.max,
        avg_duration=summary.total / summary.count,
        success_count=success.count,
        error_count=summary.count - success.count,
        memory_deltas=memory_deltas,
        success_rate=success.count / summary.count,
        avg_memory_delta=sum(memory_deltas) / len(memory_deltas) if memory_deltas else 0.0,
        p50_duration=summary.p50,
        p95_duration=summary.p95,
        p99_duration=summary.p99,
        errors={kind: histogram.count for kind, histogram in failures.items()},
        distribution=summary.distribution,
    )


def _summary(histogram: Histogram) -> LatencySummary:
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
