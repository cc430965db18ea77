"""What a report costs, beside the SDK's collection of as many series with nothing of the library in it."""

from collections.abc import Callable, Iterable

from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from benchmarks.harness import Benchmark, Contestant, Slice, Turn, timed

__all__ = ("BENCHMARKS",)

COMPONENTS = 100
CACHE = {"requests": 2, "evictions": 3, "invalidations": 3, "count": 1, "limit": 1, "size": 1, "in_flight": 1, "waiters": 1}
POOL = {"states": 2, "max": 1, "min": 1, "pending": 1, "acquires": 1, "created": 1, "leaks": 1, "rejected": 1, "timeouts": 1}
SHAPES = {**CACHE, **POOL, "destroyed": 9}
HISTOGRAMS = ("load.duration", "operation.duration", "create_time", "wait_time", "use_time")


def ours(turn: Turn) -> Slice:
    """Make caches, pools and operations, use each, and return the slice of a report."""
    from otel_perfopt import Cache, ResourcePool, get_performance_report, measure_performance

    count = turn.count(COMPONENTS)
    caches = [Cache(f"cache-{number}") for number in range(count)]
    pools = [ResourcePool(f"pool-{number}", object) for number in range(count)]
    operations = [measure_performance(f"operation-{number}", abs) for number in range(count)]
    for cache in caches:
        for key in range(200):
            cache.get(key % 100, lambda: "a value")
    for pool in pools:
        for _ in range(100):
            with pool.lease():
                pass
    for operation in operations:
        for number in range(100):
            operation(number)

    def lap() -> None:
        report = get_performance_report()
        assert len(report.caches) == len(report.pools) == len(report.operations) == count

    return timed(lap, laps=1, operations=1)


def bare(turn: Turn) -> Slice:
    """Return the slice of a collection by the SDK of as many series."""
    reader = InMemoryMetricReader()
    meter = MeterProvider([reader]).get_meter("benchmarks")
    components = [{"name": f"component-{number}"} for number in range(turn.count(COMPONENTS))]

    def observe(series: int) -> Callable[[CallbackOptions], Iterable[Observation]]:
        attributes = [{**component, "kind": str(kind)} for component in components for kind in range(series)]
        return lambda _: [Observation(1, each) for each in attributes]

    for name, series in SHAPES.items():
        meter.create_observable_counter(name, [observe(series)])
    for name in HISTOGRAMS:
        histogram = meter.create_histogram(name)
        for component in components:
            for number in range(100):
                histogram.record(number, component)
    return timed(reader.get_metrics_data, laps=1, operations=1)


BENCHMARKS = (
    Benchmark(
        "report",
        f"report of {COMPONENTS} caches, pools and operations each",
        (Contestant("get_performance_report()", ours), Contestant("bare SDK, as many series", bare)),
        limit=0.1,
        measure="seconds",
        collect_garbage=True,
    ),
)
