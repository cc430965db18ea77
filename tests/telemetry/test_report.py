"""The report: the keys of the specification, exact figures, and forms that anybody can read."""

import dataclasses
import gc
import inspect
import json
import math
import random
import re
import weakref
from typing import Any, Literal

import pytest

from otel_perfopt import Cache, get_performance_report, record_performance_metric
from otel_perfopt.batch import BatchProcessor
from otel_perfopt.errors import PoolFull
from otel_perfopt.lazy import LazyLoader
from otel_perfopt.pool import ResourcePool
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
from otel_perfopt.report.build import build_report
from otel_perfopt.telemetry.names import DB_USE_TIME, POOL_USE_TIME
from otel_perfopt.telemetry.pools import observed_pool
from otel_perfopt.telemetry.reader import read_metrics
from otel_perfopt.testing import DictTier, Faults, FaultyTier, ManualClock
from tests.cache.support import TIMEOUT, spawn, until

SPECIFIED = {
    PerformanceReport: {"summary", "operations", "caches", "pools", "batches"},
    Summary: {"total_operations", "total_duration", "cache_hit_rate", "pool_utilization", "batch_queue_sizes"},
    OperationRow: {
        "count", "total_duration", "min_duration", "max_duration", "avg_duration", "success_count", "error_count",
        "memory_deltas", "success_rate", "avg_memory_delta",
    },
    CacheRow: {"name", "size", "max_size", "hit_count", "miss_count", "hit_rate", "memory_usage"},
    PoolRow: {"name", "total_created", "available", "in_use", "waiting", "utilization"},
    BatchRow: {"name", "queue_size", "processing"},
    LazyRow: {"name"},
    LatencySummary: {"count", "total", "min", "max", "p50", "p95", "p99"},
}  # fmt: skip


def documented(kind: type) -> list[str]:
    """The attributes that a class's docstring lists."""
    _, _, listed = (inspect.getdoc(kind) or "").partition("Attributes:\n")
    return re.findall(r"^ {4}(\w+): \S", listed, re.MULTILINE)


def use(name: str) -> Cache:
    """A cache and an operation with something of everything."""
    cache = Cache(name, max_size=3)
    for key in (1, 1, 2, 3, 4, 5):
        cache.get(key, lambda: "value")
    with pytest.raises(ZeroDivisionError):
        cache.get(0, lambda: 1 / 0)
    cache.delete(5)
    record_performance_metric(name, 0.5, memory_delta=3)
    record_performance_metric(name, 1.5, success=False, error_type="Refused")
    return cache


def use_pool(name: str, clock: ManualClock | None = None, semconv: Literal["perfopt", "db"] = "perfopt") -> ResourcePool[Any]:
    """A pool of one resource with something of everything; two callers have got it after the first, one of them later."""
    clock = clock or ManualClock()
    makes = iter(["wrong", "1.5"])
    pool = ResourcePool(name, lambda: float(next(makes)), min_size=0, max_size=1, max_waiting=1, clock=clock, semconv=semconv)
    with pytest.raises(ValueError, match="wrong"):
        pool.acquire()
    clock.advance(60)  # past the delay after a failure
    held = pool.acquire()
    clock.advance(2)
    with pytest.raises(TimeoutError):
        pool.acquire(timeout=0)
    second = spawn(pool.acquire)
    until(lambda: pool.stats().waiting == 1)
    with pytest.raises(PoolFull):
        pool.acquire()
    clock.advance(3)
    pool.release(held)
    pool.release(second.result(TIMEOUT))
    with pool.lease():
        clock.advance(1)
    return pool


def use_batches(name: str) -> BatchProcessor[int, int]:
    """A processor with one full batch, one of a flush in which an item fails, and one item that waits."""
    processor = BatchProcessor(name, lambda items: [divided(item) for item in items], batch_size=3, batch_timeout=60, max_queue=9)
    full = [processor.add(item) for item in (1, 2, 3)]
    assert [future.result(TIMEOUT) for future in full] == [60, 30, 20]
    bad, good = processor.add(0), processor.add(4)
    processor.flush(timeout=TIMEOUT)
    assert (type(bad.exception(TIMEOUT)), good.result(TIMEOUT)) == (ZeroDivisionError, 15)
    processor.add(5)
    return processor


def divided(item: int) -> Any:
    """60 divided by the item; an exception returned is the result of that item alone."""
    try:
        return 60 // item
    except ZeroDivisionError as error:
        return error


@pytest.mark.parametrize("kind", SPECIFIED, ids=lambda kind: kind.__name__)
def test_every_key_is_documented(kind: type) -> None:
    """Each field, in the order of the class; those of the specification are there."""
    fields = [field.name for field in dataclasses.fields(kind)]
    assert documented(kind) == fields
    assert set(fields) >= SPECIFIED[kind]


def test_to_dict_has_these_keys(name: str) -> None:
    """At every level: those of the specification, and those that the classes document beside them."""
    alive = use(name), use_pool(name), use_batches(name)
    LazyLoader(list, name=name).get()
    told = get_performance_report().to_dict()
    levels = {
        PerformanceReport: told,
        Summary: told["summary"],
        OperationRow: told["operations"][name],
        CacheRow: told["caches"][name],
        PoolRow: told["pools"][name],
        BatchRow: told["batches"][name],
        LazyRow: told["lazy_loads"][name],
        LatencySummary: told["caches"][name]["loads"],
    }
    for kind, keys in levels.items():
        assert type(keys) is dict
        assert list(keys) == documented(kind)
    del alive


def test_figures_of_a_cache(name: str) -> None:
    """The same as those of its own statistics."""
    cache = use(name)
    told, stats = get_performance_report().caches[name], cache.stats()
    for figure in (
        "name",
        "size",
        "max_size",
        "hit_count",
        "miss_count",
        "hit_rate",
        "memory_usage",
        "loads_in_flight",
        "load_waiters",
        "stale_count",
        "hits_by_tier",
        "refreshes",
    ):
        assert getattr(told, figure) == getattr(stats, figure)
    assert (told.hits_by_tier, told.tier_errors, told.open_breakers) == ({"memory": 1}, {}, [])
    assert (told.hit_count, told.miss_count, told.hit_rate) == (1, 6, 1 / 7)
    assert told.evictions == {"capacity": 2, "weight": 0, "expired": 0}
    assert told.invalidations == {"delete": 1, "expire": 0, "tag": 0, "clear": 0}
    assert (told.loads.count, told.load_errors) == (5, {"ZeroDivisionError": 1})
    assert 0 < told.loads.min <= told.loads.p50 <= told.loads.p95 <= told.loads.p99 <= told.loads.max <= told.loads.total


def use_tiers(name: str, clock: ManualClock) -> tuple[Cache, FaultyTier]:
    """A cache with two hits from memory, one from the tier behind it, and a refresh."""
    tier = FaultyTier(DictTier(clock=clock), Faults(failure_rate=0.0))
    cache = Cache(
        name, max_size=1, policy="lru", ttl=60, refresh_after=50, stale_for=3600, tiers=[tier], clock=clock, wall_clock=clock
    )
    for key in (1, 1, 2, 1):
        cache.get(key, lambda: "value")
    clock.advance(55)
    cache.get(1, lambda: "new")
    until(lambda: cache.stats().loads_in_flight == 0)
    return cache, tier


def test_figures_of_a_cache_with_tiers(name: str) -> None:
    """Hits of all tiers are hits, a stale answer is none, and a tier that fails is told as long as it is left alone."""
    clock = ManualClock()
    cache, tier = use_tiers(name, clock)
    clock.advance(61)
    with tier.faults.outage():
        assert cache.get(1, lambda: 1 / 0) == "new"
        during = get_performance_report().caches[name]
        for key in (3, 4, 5):
            cache.get(key, lambda: "value")
        away = get_performance_report().caches[name]
    assert (during.tier_errors, during.open_breakers) == ({"dict": {"otel_perfopt.errors.TierError": 1}}, [])
    assert (away.tier_errors, away.open_breakers) == ({"dict": {"otel_perfopt.errors.TierError": 3}}, ["dict"])
    stats = cache.stats()
    assert (away.hit_count, away.hits_by_tier) == (stats.hit_count, stats.hits_by_tier) == (3, {"memory": 2, "dict": 1})
    assert (away.stale_count, away.miss_count, away.refreshes) == (1, 5, 1)
    assert away.hit_rate == stats.hit_rate == 3 / 9
    clock.advance(60)
    cache.get(6, lambda: "value")
    again = get_performance_report().caches[name]
    assert (again.tier_errors, again.open_breakers) == (away.tier_errors, [])


def test_a_cache_with_tiers_that_is_gone(name: str) -> None:
    """What it has counted stays; its tier is left alone no more."""
    cache, tier = use_tiers(name, ManualClock())
    with tier.faults.outage():
        for key in (7, 8, 9):
            cache.get(key, lambda: "value")
    before, gone = get_performance_report().caches[name], weakref.ref(cache)
    assert before.open_breakers == ["dict"]
    del cache
    gc.collect()
    until(lambda: gone() is None)
    after = get_performance_report().caches[name]
    assert (after.hits_by_tier, after.tier_errors, after.open_breakers) == (before.hits_by_tier, before.tier_errors, [])


def test_figures_of_an_operation(name: str) -> None:
    """Successes and failures together, apart from their counts."""
    alive = use(name)
    told = get_performance_report().operations[name]
    assert (told.count, told.total_duration, told.min_duration, told.max_duration, told.avg_duration) == (2, 2.0, 0.5, 1.5, 1.0)
    assert (told.success_count, told.error_count, told.success_rate, told.errors) == (1, 1, 0.5, {"Refused": 1})
    assert (told.memory_deltas, told.avg_memory_delta) == ([3], 3.0)
    del alive


@pytest.mark.parametrize("semconv", ["perfopt", "db"])
def test_figures_of_a_pool(name: str, semconv: Literal["perfopt", "db"]) -> None:
    """Those of its own statistics, and what it has measured, wherever the metrics go."""
    pool = use_pool(name, semconv=semconv)
    held = pool.acquire()
    told, stats = get_performance_report().pools[name], pool.stats()
    for figure in (
        *("name", "total_created", "available", "in_use", "waiting", "utilization", "min_size", "max_size"),
        *("acquires", "timeouts", "rejected", "leaks", "destroyed"),
    ):
        assert getattr(told, figure) == getattr(stats, figure)
    assert (told.acquires, told.timeouts, told.rejected, told.leaks) == (4, 1, 1, 0)
    assert (told.in_use, told.available, told.utilization, told.max_size) == (1, 0, 1.0, 1)
    assert (told.total_created, told.creations.count, told.create_errors) == (1, 1, {"ValueError": 1})
    assert (told.waits.count, told.waited, told.waits.max, told.waits.min) == (4, 1, 3.0, 0.0)
    assert told.uses.count == 3
    assert (told.uses.min, told.uses.max) == (0.0, 5.0)
    pool.destroy(held)
    pool.close()  # which waits until it is destroyed
    assert get_performance_report().pools[name].destroyed == {"requested": 1}


@pytest.mark.parametrize("semconv", ["perfopt", "db"])
def test_the_mean_use_of_a_pool(name: str, semconv: Literal["perfopt", "db"]) -> None:
    """The time of all uses per the time since the process began; how many there may be has nothing to do with it."""
    clock = ManualClock()
    with ResourcePool(name, object, max_size=4, clock=clock, semconv=semconv) as pool:
        with pool.lease():
            clock.advance(1000)
        data = read_metrics()
        metric = {"perfopt": POOL_USE_TIME, "db": DB_USE_TIME}[semconv]
        (point,) = (
            point
            for each in data.resource_metrics[0].scope_metrics[0].metrics
            if each.name == metric.name
            for point in each.data.data_points
            if name in (point.attributes or {}).values()
        )
        elapsed = (point.time_unix_nano - point.start_time_unix_nano) / 1e9
        assert build_report(data, {}).pools[name].mean_in_use == pytest.approx(1000 / elapsed)


@pytest.mark.parametrize("semconv", ["perfopt", "db"])
def test_a_pool_that_is_gone(name: str, semconv: Literal["perfopt", "db"]) -> None:
    """What it has counted and measured stays; how large it was is not known any more."""
    pool = use_pool(name, semconv=semconv)
    before, gone = get_performance_report().pools[name], weakref.ref(pool)
    pool.close()
    del pool
    gc.collect()  # the errors that it has raised hold frames of it
    until(lambda: gone() is None)
    after = get_performance_report().pools[name]
    assert (after.acquires, after.waited, after.timeouts, after.waits, after.uses) == (
        *(before.acquires, before.waited, before.timeouts, before.waits, before.uses),
    )
    assert (after.max_size, after.in_use, after.utilization) == (0, 0, 0.0)
    assert 0 < after.mean_in_use <= before.mean_in_use  # by then the process is a little older
    assert name in get_performance_report().to_text()
    assert name in get_performance_report().to_html()


def test_a_pool_of_others(name: str) -> None:
    """Its callers and their times are known, but not which of them had to wait, nor how large it is."""
    acquire = observed_pool(name)(object)
    for _ in range(3):
        acquire()
    told = get_performance_report().pools[name]
    assert (told.acquires, told.waits.count, told.waited, told.max_size) == (3, 3, None, 0)


def test_figures_of_a_batch_processor(name: str) -> None:
    """Those of its own statistics, and what it has measured."""
    processor = use_batches(name)
    told, stats = get_performance_report().batches[name], processor.stats()
    for figure in ("name", "queue_size", "in_flight", "max_queue", "item_count"):
        assert getattr(told, figure) == getattr(stats, figure)
    assert (told.queue_size, told.max_queue, told.processing) == (1, 9, False)
    assert (told.item_count, told.item_errors) == (4, {"ZeroDivisionError": 1})
    assert (told.flushes, told.mean_size, told.max_size) == ({"size": 1, "manual": 1}, 2.5, 3)
    assert (told.durations.count, told.batch_errors, told.waits.count) == (2, {}, 2)
    assert 0 < told.durations.min <= told.durations.p50 <= told.durations.max <= told.durations.total
    processor.close(timeout=TIMEOUT)


def test_figures_of_a_batch_that_fails(name: str) -> None:
    """It has a time of its own, apart from those that succeed, and all its items failed."""
    with BatchProcessor(name, lambda _: 1 / 0, batch_size=2) as processor:  # type: ignore[arg-type,return-value]
        failed = [processor.add(item) for item in (1, 2)]
        assert {type(future.exception(TIMEOUT)) for future in failed} == {ZeroDivisionError}
        until(lambda: processor.stats().in_flight == 0)
        told = get_performance_report().batches[name]
    assert (told.batch_errors, told.item_errors, told.item_count) == ({"ZeroDivisionError": 1}, {"ZeroDivisionError": 2}, 0)
    assert (told.durations, told.flushes) == (LatencySummary(), {"size": 1})


def test_figures_of_a_lazy_load(name: str) -> None:
    """Successes with their times, and failures by type."""
    makes = iter(["1.5", "wrong", "2.5"])

    def make() -> float:
        return float(next(makes))

    loader = LazyLoader(make, name=name)
    assert loader.get() == 1.5
    loader.reset()
    with pytest.raises(ValueError, match="wrong"):
        loader.get()
    loader.reset()
    assert loader.get() == 2.5
    told = get_performance_report().lazy_loads[name]
    assert (told.name, told.loads.count, told.load_errors) == (name, 2, {"ValueError": 1})
    assert 0 < told.loads.min <= told.loads.p50 <= told.loads.max <= told.loads.total


def test_the_summary_adds_up() -> None:
    """All operations, and hits per request over all caches."""
    report = get_performance_report()
    requests = sum(row.hit_count + row.stale_count + row.miss_count for row in report.caches.values())
    assert report.summary.total_operations == sum(row.count for row in report.operations.values())
    assert report.summary.total_duration == pytest.approx(math.fsum(row.total_duration for row in report.operations.values()))
    hits = sum(row.hit_count for row in report.caches.values())
    assert report.summary.cache_hit_rate == (hits / requests if requests else 0.0)
    assert report.summary.pool_utilization == {key: row.utilization for key, row in report.pools.items()}
    assert report.summary.batch_queue_sizes == {key: row.queue_size for key, row in report.batches.items()}


@pytest.mark.parametrize("shape", ["uniform", "lognormal", "constant", "wide"])
def test_percentiles(name: str, shape: str) -> None:
    """Within one per cent of the exact ones."""
    numbers = random.Random(7)
    draw = {
        "uniform": lambda: numbers.uniform(0.001, 2),
        "lognormal": lambda: numbers.lognormvariate(-5, 1.5),
        "constant": lambda: 0.042,
        "wide": lambda: 10 ** numbers.uniform(-7, 3),
    }[shape]
    values = sorted(draw() for _ in range(5000))  # type: ignore[no-untyped-call]
    for value in values:
        record_performance_metric(name, value)
    told = get_performance_report().operations[name]
    for fraction, percentile in ((0.5, told.p50_duration), (0.95, told.p95_duration), (0.99, told.p99_duration)):
        assert percentile == pytest.approx(values[math.ceil(fraction * len(values)) - 1], rel=0.01)
    assert (told.min_duration, told.max_duration) == (values[0], values[-1])
    assert told.total_duration == pytest.approx(math.fsum(values), rel=1e-12)


ODD = [
    "[red]x[/red]",
    "naïve café ☕",
    "tab\tand\nnewline",
    "\x00\x1b[31m",
    "file-\udcff\ud83d",
    '"quoted\\"',
    "</script>",
    "\N{GOTHIC LETTER AHSA}" * 300,
    "-",
]


@pytest.mark.parametrize("odd", ODD)
def test_json(name: str, odd: str) -> None:
    """Comes back as it was, whatever the names are; there is nothing in it that JSON does not know."""
    cache = Cache(name + odd)
    cache.get(1, lambda: 1)
    record_performance_metric(name + odd, 1e-9, success=False, error_type=odd)
    record_performance_metric(name + odd, 1e9, memory_delta=-1e300)
    report = get_performance_report()

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    for text in (report.to_json(), report.to_json(indent=None)):
        text.encode()
        assert json.loads(text, parse_constant=refuse) == json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert "\n" not in report.to_json(indent=None)
    assert sum(key.startswith(name) for key in report.operations) == sum(key.startswith(name) for key in report.caches) == 1


def test_json_of_an_unlimited_cache(name: str) -> None:
    """No limit is null, and a huge one is a number."""
    caches = [Cache(name, max_size=None), Cache(f"{name}-huge", max_size=10**30)]
    told = json.loads(get_performance_report().to_json())["caches"]
    assert told[name]["max_size"] is None
    assert told[f"{name}-huge"]["max_size"] == 10**30
    assert [cache.stats().max_size for cache in caches] == [None, 10**30]


def test_a_report_does_not_change(name: str) -> None:
    """It says what was true when it was made; a dict made of it is the reader's own."""
    alive = use(name)
    report = get_performance_report()
    first = report.to_dict()
    record_performance_metric(name, 5.0)
    alive.get(1)
    assert report.to_dict() == first
    first["operations"][name]["memory_deltas"].append(99)
    assert report.operations[name].memory_deltas == [3]
    with pytest.raises(dataclasses.FrozenInstanceError):
        report.summary = Summary()  # type: ignore[misc]


def test_components_are_sorted(name: str) -> None:
    """By name, in every form."""
    caches = [Cache(f"{name}-{letter}") for letter in "cab"]
    pools = [ResourcePool(f"{name}-{letter}", object) for letter in "cab"]
    for letter in "zxy":
        record_performance_metric(f"{name}-{letter}", 1)
        LazyLoader(list, name=f"{name}-{letter}").get()
    report = get_performance_report()
    assert list(report.caches) == sorted(report.caches)
    assert list(report.operations) == sorted(report.operations)
    assert list(report.pools) == sorted(report.pools)
    assert list(report.lazy_loads) == sorted(report.lazy_loads)
    assert len(caches) == len(pools) == 3


def test_an_empty_report(script: Any) -> None:
    """All keys, all zero, and a sentence."""
    code = """
import json, otel_perfopt
report = otel_perfopt.get_performance_report()
print(json.dumps([report.to_dict(), json.loads(report.to_json()), str(report)]))"""
    told, parsed, text = script(code)
    assert told == parsed
    assert told["summary"] == {
        "total_operations": 0, "total_duration": 0, "cache_hit_rate": 0, "pool_utilization": {}, "batch_queue_sizes": {},
    }  # fmt: skip
    assert [told[kind] for kind in ("operations", "caches", "pools", "batches", "lazy_loads")] == [{}] * 5
    assert text == "Performance report: nothing was cached or measured yet.\n"


def test_a_report_of_collected_data(name: str) -> None:
    """It can be made of metric data alone."""
    alive = use(name)
    row = build_report(read_metrics(), {name: [1.0, 2.0]}).operations[name]
    assert (row.count, row.memory_deltas, row.avg_memory_delta) == (2, [1.0, 2.0], 1.5)
    del alive
