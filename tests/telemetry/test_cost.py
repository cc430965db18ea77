"""What telemetry costs those who never look at it: bounded memory, and few imports."""

from collections.abc import Callable
from typing import Any

import pytest

MEASURE = """
import gc, json, random, tracemalloc
from otel_perfopt import *

def growth(work):
    gc.collect()
    before = tracemalloc.get_traced_memory()[0]
    work()
    gc.collect()
    return tracemalloc.get_traced_memory()[0] - before

record_performance_metric("warm up", 0.1)
Cache("warm up").get(1, lambda: 1)
tracemalloc.start()
"""


@pytest.mark.slow
def test_durations_that_nobody_collects(script: Callable[..., Any]) -> None:
    """A thousand operations with a thousand lognormal durations each take at most ten million bytes."""
    code = f"""{MEASURE}
numbers = random.Random(1)
durations = [numbers.lognormvariate(-7, 1) for _ in range(1000)]

def work():
    for number in range(990):
        from otel_perfopt.telemetry.operations import operation
        note = operation(f"operation {{number}}").success.record
        for duration in durations:
            note(duration + 0.0)

print(json.dumps(growth(work)))"""
    assert script(code) <= 10_000_000


@pytest.mark.slow
def test_caches_that_nobody_collects(script: Callable[..., Any]) -> None:
    """A hundred caches with loads, failures and hits: durations take a few thousand bytes for each."""
    code = f"""{MEASURE}
caches = [Cache(f"cache {{number}}", max_size=10) for number in range(100)]

def load(cache):
    for number in range(100):
        cache.get(number, lambda: 1)
    try:
        cache.get(None, lambda: 1 / 0)
    except ZeroDivisionError:
        pass
    cache.clear()

print(json.dumps(growth(lambda: [load(cache) for cache in caches])))"""
    assert script(code) <= 2_000_000


def test_counts_and_dead_components_take_nothing(script: Callable[..., Any]) -> None:
    """Many hits, and thousands of caches of one name that came and went."""
    code = f"""{MEASURE}
cache = Cache("hits")
cache.set(1, 1)

def hit():
    for _ in range(200_000):
        cache.get(1)

def come_and_go():
    for _ in range(1000):
        Cache("short").get(1)

hit_once = growth(lambda: cache.get(1))
come_and_go()
print(json.dumps([growth(hit), growth(come_and_go), get_performance_report().caches["short"].miss_count]))"""
    hits, components, count = script(code)
    assert hits <= 1000
    assert components <= 20_000
    assert count == 2000


def test_collections_take_nothing(script: Callable[..., Any]) -> None:
    """Reports and collections leave nothing behind."""
    code = f"""{MEASURE}
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
reader = InMemoryMetricReader()
metrics.set_meter_provider(MeterProvider([reader]))
cache = Cache("users")

def collect():
    for number in range(50):
        cache.get(number % 3, lambda: 1)
        record_performance_metric("work", 0.5)
        get_performance_report()
        reader.get_metrics_data()

collect()
print(json.dumps(growth(collect)))"""
    assert script(code) <= 20_000


def test_imports(script: Callable[..., Any]) -> None:
    """The package needs the API and wrapt; the SDK and the renderers come with those who use them."""
    code = """
import json, sys, otel_perfopt
heavy = ["opentelemetry.sdk", "structlog", "rich", "msgspec", "psutil", "grpc", "google.protobuf", "hypothesis"]
first = [name for name in heavy if name in sys.modules]
otel_perfopt.Cache("a").get(1, lambda: 1)
otel_perfopt.measure_performance("b", lambda: 1)()
otel_perfopt.record_performance_metric("b", 1)
print(json.dumps([first, [name for name in heavy if name in sys.modules]]))"""
    assert script(code) == [[], []]
