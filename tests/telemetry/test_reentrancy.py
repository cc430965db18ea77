"""Finalizers run anywhere: inside a fold, a collection, a registration. They may use everything and read the report."""

from collections.abc import Callable
from typing import Any

import pytest

from otel_perfopt import Cache, get_performance_report, record_performance_metric
from otel_perfopt.telemetry import names, reader

PRELUDE = """
import faulthandler, gc, json, sys, threading
faulthandler.dump_traceback_later(40, exit=True)
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
import otel_perfopt
from otel_perfopt import *

class Phoenix:
    # Garbage whose finalizer does something, and makes such garbage again.
    runs = 0
    flies = True

    def __init__(self, action):
        self.action, self.itself = action, self

    def __del__(self):
        if Phoenix.flies:
            Phoenix.runs += 1
            self.action(Phoenix.runs)
            Phoenix(self.action)

def land():
    Phoenix.flies = False
    gc.set_threshold(700)
"""


def test_garbage_everywhere(script: Callable[..., Any]) -> None:
    """A collection of garbage at every allocation, and a finalizer that hits, loads, measures, makes caches and reads."""
    code = """
cache = Cache("main")
cache.set(1, "value")
reader = InMemoryMetricReader()
metrics.set_meter_provider(MeterProvider([reader]))
seen = []

def action(run):
    cache.get(1)
    record_performance_metric("told", 0.25)
    if run % 3 == 0:
        cache.get(object(), lambda: "loaded")
    if run % 5 == 0:
        Cache(f"short{run % 7}").get(1)
    if run % 11 == 0:
        report = get_performance_report()
        seen.append([report.caches["main"].hit_count, report.operations["told"].count])

Phoenix(action)
gc.set_threshold(20)
for number in range(1500):
    cache.get(1)
    record_performance_metric("told", 0.25)
    if number % 10 == 0:
        Cache(f"outer{number % 3}").get(2)
    if number % 50 == 0:
        get_performance_report()
    if number % 70 == 0:
        reader.get_metrics_data()
land()
runs = Phoenix.runs
report = get_performance_report()
counts = [
    report.caches["main"].hit_count - 1500 - runs,
    report.caches["main"].miss_count - runs // 3,
    report.operations["told"].count - 1500 - runs,
    report.operations["told"].total_duration - (1500 + runs) * 0.25,
    sum(row.miss_count for name, row in report.caches.items() if name.startswith("short")) - runs // 5,
    sum(row.miss_count for name, row in report.caches.items() if name.startswith("outer")) - 150,
]
points = [point for resource in reader.get_metrics_data().resource_metrics for scope in resource.scope_metrics
          for metric in scope.metrics if metric.name == "perfopt.operation.duration" for point in metric.data.data_points]
(told,) = points
counts.append(told.count - 1500 - runs)
print(json.dumps([counts, seen == sorted(seen), runs > 500, len(seen) > 40]))
"""
    assert script(PRELUDE + code) == [[0, 0, 0, 0, 0, 0, 0], True, True, True]


def test_finalizers_and_threads(script: Callable[..., Any]) -> None:
    """Two threads collect while others work, and finalizers under a cache's lock read the report: nobody waits in a circle."""
    code = """
sys.setswitchinterval(1e-5)
reader = InMemoryMetricReader()
metrics.set_meter_provider(MeterProvider([reader]))
caches = [Cache(f"cache{number}", max_size=5) for number in range(3)]
done = threading.Event()

def action(run):
    caches[run % 3].set(run % 10, "value")
    record_performance_metric("told", 0.5)
    if run % 4 == 0:
        assert get_performance_report().operations["told"].count > run

def collect(read):
    while not done.is_set():
        read()

def work():
    for number in range(1500):
        caches[number % 3].get(number % 12, lambda: [number])
        record_performance_metric("told", 0.5)

record_performance_metric("told", 0.5)
get_performance_report()
collectors = [threading.Thread(target=collect, args=(read,)) for read in (reader.get_metrics_data, get_performance_report)]
workers = [threading.Thread(target=work) for _ in range(3)]
Phoenix(action)
gc.set_threshold(20)
for thread in collectors + workers:
    thread.start()
for thread in workers:
    thread.join()
land()
done.set()
for thread in collectors:
    thread.join()
expected = 1 + 4500 + Phoenix.runs
print(json.dumps([get_performance_report().operations["told"].count - expected, Phoenix.runs > 0]))
"""
    assert script(PRELUDE + code) == [0, True]


def test_first_use_inside_a_collection_of_garbage(script: Callable[..., Any]) -> None:
    """The instruments are registered once, also if a finalizer needs them while they are being registered."""
    code = """
import logging
logged = []
class Handler(logging.Handler):
    def emit(self, record):
        logged.append(record.getMessage())
logging.getLogger("opentelemetry").addHandler(Handler())
reader = InMemoryMetricReader()
metrics.set_meter_provider(MeterProvider([reader]))
from otel_perfopt.telemetry import reader as _  # whose import a finalizer could not repeat

def action(run):
    Cache("inner").get(1)
    if run < 50:
        get_performance_report()

Phoenix(action)
gc.set_threshold(1)
cache = Cache("outer")
report = get_performance_report()
land()
caches = get_performance_report().caches
print(json.dumps([logged, sorted(caches), caches["inner"].miss_count == Phoenix.runs]))
"""
    assert script(PRELUDE + code) == [[], ["inner", "outer"], True]


class Nosy:
    """A value that makes a report when it is asked for its size, and another one inside that."""

    def __init__(self) -> None:
        self.depth = 0
        self.reports: list[Any] = []

    def __sizeof__(self) -> int:
        if self.depth < 2:
            self.depth += 1
            self.reports.append(get_performance_report())
        return 100


def test_a_report_inside_a_report(name: str) -> None:
    """It has the same figures, instead of waiting for itself."""
    value, cache = Nosy(), Cache(name)
    cache.set(1, value)
    cache.get(1)
    record_performance_metric(name, 0.5)
    report = get_performance_report()
    assert len(value.reports) == 2
    for each in (report, *value.reports):
        assert (each.caches[name].hit_count, each.operations[name].count) == (1, 1)
        assert each.caches[name].memory_usage > 100


def test_reports_at_the_same_time(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """While another thread collects, a report is made without the SDK, and is the same."""
    cache = Cache(name)
    cache.get(1, lambda: 1)
    record_performance_metric(name, 0.5, memory_delta=4)
    alone = get_performance_report()
    assert reader._reader is not None
    with reader._reader._turn:
        assert get_performance_report().caches[name] == alone.caches[name]
        assert get_performance_report().operations[name] == alone.operations[name]
    monkeypatch.setattr(reader, "_reader", None)
    with reader._lock:  # another thread makes the reader
        assert get_performance_report().caches[name] == alone.caches[name]
    assert reader._reader is None


class Hostile:
    """A value whose attributes raise."""

    @property
    def __class__(self) -> Any:
        raise ZeroDivisionError

    @__class__.setter
    def __class__(self, _: Any) -> None: ...

    def __sizeof__(self) -> int:
        raise ZeroDivisionError


def test_hostile_values_break_no_collection(service: Callable[..., Any], name: str) -> None:
    """The other caches' sizes and all counts are there."""
    collected = service()
    good, bad = Cache(f"{name}-good"), Cache(f"{name}-bad")
    good.set(1, "x" * 1000)
    bad.set(1, Hostile())
    bad.get(1)
    data, report = collected.collect(), get_performance_report()
    assert data.values(names.CACHE_SIZE, good.name)[""] > 1000
    assert data.values(names.CACHE_REQUESTS, bad.name)["hit,memory"] == 1
    assert data.values(names.CACHE_ENTRY_COUNT, bad.name) == {"": 1}
    assert report.caches[bad.name].hit_count == 1
    assert report.caches[good.name].memory_usage > 1000


class Unreadable(Cache):
    """A cache whose length and size cannot be told."""

    def __len__(self) -> int:
        raise RuntimeError("no length")

    def memory_usage(self) -> int:
        """Fail."""
        raise RuntimeError("no size")


def test_a_cache_that_fails_breaks_no_collection(service: Callable[..., Any], name: str) -> None:
    """Its gauges are left out; its counts and other caches are there."""
    collected = service()
    caches = [Unreadable(f"{name}-bad"), Cache(f"{name}-good")]
    for cache in caches:
        cache.set(1, "value")
        cache.get(1)
    data = collected.collect()
    for cache in caches:
        assert data.values(names.CACHE_REQUESTS, cache.name)["hit,memory"] == 1
    assert data.values(names.CACHE_ENTRY_COUNT, f"{name}-good") == {"": 1}
    assert data.points(names.CACHE_ENTRY_COUNT, f"{name}-bad") == []
    assert get_performance_report().caches[f"{name}-bad"].size == 0
