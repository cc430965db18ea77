"""Reports to show: made from fixed random numbers, without caches or clocks."""

import random
from collections.abc import Iterable
from dataclasses import replace

from otel_perfopt._core.cells import Histogram
from otel_perfopt.report import (
    BatchRow,
    CacheRow,
    LatencySummary,
    LazyRow,
    OperationRow,
    PerformanceReport,
    PoolRow,
    Summary,
)

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


def cache(
    name: str, *, hits: int = 90, stale: int = 0, misses: int = 10, load: float = 0.01, seed: int = 1, **other: object
) -> CacheRow:
    """Return a row whose loads take about `load` seconds."""
    chance = random.Random(seed)
    values: dict[str, object] = {
        "name": name,
        "size": misses,
        "max_size": 1000,
        "hit_count": hits,
        "miss_count": misses,
        "hit_rate": hits / (hits + stale + misses) if hits + stale + misses else 0.0,
        "memory_usage": 700 * misses,
        "evictions": {},
        "invalidations": {},
        "loads": latency(load * chance.lognormvariate(0, 0.5) for _ in range(misses)),
        "load_errors": {},
        "loads_in_flight": 0,
        "load_waiters": 0,
        "stale_count": stale,
        "hits_by_tier": {"memory": hits},
    }
    return CacheRow(**(values | other))  # type: ignore[arg-type]


def tiered(name: str, *, tier: str = "sqlite", hits: int = 900, behind: int = 120, **other: object) -> CacheRow:
    """Return a row with a tier behind the memory that fails at times, a few stale answers and refreshes."""
    values: dict[str, object] = {
        "hits_by_tier": {"memory": hits - behind, tier: behind},
        "refreshes": 7,
        "tier_errors": {tier: {"otel_perfopt.errors.TierError": 12}},
    }
    return cache(name, hits=hits, stale=30, misses=70, **(values | other))  # type: ignore[arg-type]


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


def pool(name: str, *, acquires: int = 100, waited: int = 20, wait: float = 0.001, seed: int = 1, **other: object) -> PoolRow:
    """Return a row of which `waited` callers waited for about `wait` seconds, and used what they got ten times as long."""
    chance = random.Random(seed)
    waits = [wait * chance.lognormvariate(0, 0.5) for _ in range(waited)]
    values: dict[str, object] = {
        "name": name,
        "total_created": 4,
        "available": 1,
        "in_use": 3,
        "waiting": 0,
        "utilization": 0.3,
        "mean_in_use": 2.5,
        "min_size": 1,
        "max_size": 10,
        "acquires": acquires,
        "waited": waited,
        "timeouts": 0,
        "rejected": 0,
        "leaks": 0,
        "destroyed": {},
        "waits": latency([0.0] * (acquires - waited) + waits),
        "uses": latency(10 * wait * chance.lognormvariate(0, 0.5) for _ in range(acquires)),
        "creations": latency([0.02, 0.03, 0.025, 0.05]),
        "create_errors": {},
    }
    return PoolRow(**(values | other))  # type: ignore[arg-type]


def batch(name: str, *, items: int = 200, batches: int = 20, time: float = 0.05, seed: int = 1, **other: object) -> BatchRow:
    """Return a row whose batches take about `time` seconds."""
    chance = random.Random(seed)
    errors = other.get("item_errors") or {}
    assert isinstance(errors, dict)
    values: dict[str, object] = {
        "name": name,
        "queue_size": 0,
        "processing": False,
        "in_flight": 0,
        "max_queue": None,
        "item_count": items - sum(errors.values()),
        "item_errors": {},
        "flushes": {"size": batches} if batches else {},
        "mean_size": items / batches if batches else 0.0,
        "max_size": -(-items // batches) if batches else 0,
        "durations": latency(time * chance.lognormvariate(0, 0.5) for _ in range(batches)),
        "batch_errors": {},
        "waits": latency(0.1 * chance.random() for _ in range(batches)),
    }
    return BatchRow(**(values | other))  # type: ignore[arg-type]


def lazy(name: str, *times: float, **errors: int) -> LazyRow:
    """Return a row whose loads took these times, and failed so often."""
    return LazyRow(name, latency(times), errors)


def report(
    caches: Iterable[CacheRow] = (),
    operations: dict[str, OperationRow] | None = None,
    *,
    pools: Iterable[PoolRow] = (),
    batches: Iterable[BatchRow] = (),
    lazy_loads: Iterable[LazyRow] = (),
) -> PerformanceReport:
    """Return the report of these rows."""
    rows = {row.name: row for row in caches}
    operations = operations or {}
    hits = sum(row.hit_count for row in rows.values())
    requests = sum(row.request_count for row in rows.values())
    named_pools, named_batches = {row.name: row for row in pools}, {row.name: row for row in batches}
    summary = Summary(
        total_operations=sum(row.count for row in operations.values()),
        total_duration=sum(row.total_duration for row in operations.values()),
        cache_hit_rate=hits / requests if requests else 0.0,
        pool_utilization={name: row.utilization for name, row in named_pools.items()},
        batch_queue_sizes={name: row.queue_size for name, row in named_batches.items()},
    )
    return PerformanceReport(summary, operations, rows, named_pools, named_batches, {row.name: row for row in lazy_loads})


def typical() -> PerformanceReport:
    """Return a report with a bit of everything."""
    return report(
        [
            cache("users", hits=1800, misses=200, evictions={"capacity": 120, "expired": 30}, invalidations={"delete": 4}),
            cache("orders", hits=300, misses=700, load=0.2, max_size=None, load_errors={"TimeoutError": 3}),
            tiered("prices", open_breakers=["sqlite"]),
            cache("idle", hits=0, misses=0),
        ],
        {
            "find": operation(400, errors={"KeyError": 2, "ValueError": 1}),
            "shop.orders.OrderService.find_by_customer": operation(1, mean=1.5),
            "parse": operation(1000, mean=3e-6, deltas=[1024.0, -512.0]),
        },
        pools=[
            pool("connections", acquires=900, waited=120, timeouts=3, rejected=1, leaks=1, destroyed={"idle": 2, "invalid": 1}),
            pool(
                "process_executors",
                acquires=50,
                waited=50,
                wait=0.1,
                create_errors={"OSError": 2},
                waiting=4,
                in_use=10,
                utilization=1.0,
            ),
            pool(
                "spare",
                acquires=0,
                waited=0,
                total_created=0,
                creations=latency(()),
                available=0,
                in_use=0,
                utilization=0.0,
                mean_in_use=0.0,
            ),
            observed("legacy"),
        ],
        batches=[
            batch(
                "updates", items=1000, batches=60, flushes={"size": 40, "timeout": 19, "close": 1}, item_errors={"KeyError": 7}
            ),
            batch("mails", queue_size=50, max_queue=50, in_flight=1, processing=True),
            batch("unused", items=0, batches=0),
        ],
        lazy_loads=[lazy("settings", 0.3), lazy("shop.model", 0.2, 0.1, 0.4, OSError=1), lazy("broken", OSError=2)],
    )


def observed(name: str) -> PoolRow:
    """Return the row of a pool that is not this library's: of it only acquires and waits are known."""
    counts = replace(pool(name, waited=100), waited=None, total_created=0, available=0, in_use=0, min_size=0, max_size=0)
    return replace(counts, utilization=0.0, mean_in_use=0.0, uses=latency(()), creations=latency(()))


def many(count: int = 100) -> PerformanceReport:
    """Return a report with `count` caches, as many operations, pools, batch processors and lazy loads."""
    return report(
        [cache(f"service.part_{i % 7}.cache_{i}", hits=50 * i, misses=i + 1, seed=i) for i in range(count)],
        {f"service.operation_{i}": operation(i + 1, mean=1e-5 * (i + 1), seed=i) for i in range(count)},
        pools=[pool(f"service.pool_{i}", acquires=10 * i, waited=3 * i, seed=i) for i in range(count)],
        batches=[batch(f"service.batch_{i}", items=20 * i, batches=2 * i, seed=i) for i in range(count)],
        lazy_loads=[lazy(f"service.lazy_{i}", *([0.01 * i] * (i % 3))) for i in range(count)],
    )


def nasty() -> PerformanceReport:
    """Return a report whose names try to break the page."""
    return report(
        [
            tiered(
                name, tier=name, load_errors={name: 1}, evictions={name: 3}, tier_errors={name: {name: 2}}, open_breakers=[name]
            )
            for name in NASTY
        ],
        {name: operation(errors={name: 2}) for name in NASTY},
        pools=[pool(name, destroyed={name: 2}, create_errors={name: 1}) for name in NASTY],
        batches=[batch(name, flushes={name: 20}, item_errors={name: 1}, batch_errors={name: 1}) for name in NASTY],
        lazy_loads=[LazyRow(name, latency([0.1, 0.2]), {name: 1}) for name in NASTY],
    )
