"""A forked child starts from zero, with locks of its own; its parent notices nothing."""

import os
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")

PRELUDE = """
import faulthandler, gc, json, os, signal, sys, threading, warnings
faulthandler.enable()
warnings.simplefilter("ignore", DeprecationWarning)  # of os.fork in a process with threads
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
import otel_perfopt
from otel_perfopt import *

def in_child(function):
    # A child that hangs tells where, and is killed; then this returns its status.
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            faulthandler.register(signal.SIGALRM, chain=True)
            signal.alarm(20)
            os.close(reading)
            with os.fdopen(writing, "w") as pipe:
                json.dump(function(), pipe)
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        told = pipe.read()
    _, status = os.waitpid(child, 0)
    return json.loads(told) if told else status

def figures(report):
    caches = {name: [row.hit_count, row.miss_count, row.size, row.loads.count] for name, row in report.caches.items()}
    rows = report.operations.items()
    operations = {name: [row.count, row.error_count, row.total_duration, row.memory_deltas] for name, row in rows}
    return [caches, operations]
"""


def test_a_child_starts_from_zero(script: Callable[..., Any]) -> None:
    """Counts, durations and memory deltas are gone, entries stay, and everything works from there."""
    code = """
cache, dropped = (Cache("users") for _ in range(2))
cache.get(1, lambda: "value"); cache.get(1)
dropped.get(2); del dropped
gc.collect()
record_performance_metric("work", 0.5, success=False, error_type="Refused", memory_delta=5)
before = figures(get_performance_report())

def child():
    empty = figures(get_performance_report())
    cache.get(1)
    record_performance_metric("work", 0.25, memory_delta=1)
    record_performance_metric("more", 0.125)
    return [empty, figures(get_performance_report())]

print(json.dumps([before, in_child(child), figures(get_performance_report())]))
"""
    before, (empty, after), again = script(PRELUDE + code)
    assert before == [{"users": [1, 2, 1, 1]}, {"work": [1, 1, 0.5, [5]]}] == again
    assert empty == [{"users": [0, 0, 1, 0]}, {}]
    assert after == [{"users": [1, 0, 1, 0]}, {"work": [1, 0, 0.25, [1]], "more": [1, 0, 0.125, []]}]


def test_a_child_has_its_own_reader(script: Callable[..., Any]) -> None:
    """The parent's may be in the middle of a collection, with its locks held for ever."""
    code = """
from otel_perfopt.telemetry import reader
get_performance_report()
parents = reader._reader
inside, leave = threading.Event(), threading.Event()

class Slow:
    def __sizeof__(self):
        if threading.current_thread() is collector:
            inside.set()
            leave.wait()
        return 1

cache = Cache("users")
cache.set(1, Slow())
record_performance_metric("work", 0.5)
collector = threading.Thread(target=get_performance_report)
collector.start()
inside.wait()

def child():
    seen = figures(get_performance_report())
    return [seen, reader._reader is not parents]

told = in_child(child)
leave.set()
collector.join()
print(json.dumps([told, reader._reader is parents]))
"""
    assert script(PRELUDE + code) == [[[{"users": [0, 0, 1, 0]}, {}], True], True]


def test_forks_under_load(script: Callable[..., Any]) -> None:
    """Threads hit, record, load, collect and drop caches while the process forks; no child hangs, no figure is wrong."""
    code = """
sys.setswitchinterval(1e-5)
reader = InMemoryMetricReader()
metrics.set_meter_provider(MeterProvider([reader]))
cache = Cache("users")
cache.get(1, lambda: "value")
measured = measure_performance("measured", lambda: None)
get_performance_report()  # imports the SDK; an import that another thread has begun never ends in a child
stop = threading.Event()
done = [0] * 4

def work(number):
    while not stop.is_set():
        cache.get(1, lambda: "value")
        cache.get(object(), lambda: "value")
        Cache("short").get(1)
        measured()
        record_performance_metric("told", 0.25)
        done[number] += 1

def collect():
    while not stop.is_set():
        reader.get_metrics_data()
        get_performance_report()

threads = [threading.Thread(target=work, args=(number,)) for number in range(4)] + [threading.Thread(target=collect)]
for thread in threads:
    thread.start()

def child():
    empty = figures(get_performance_report())
    before = empty[0]["users"][0]
    for _ in range(500):
        cache.get(1, lambda: "value")
        measured()
        record_performance_metric("told", 0.25)
    caches, operations = figures(get_performance_report())
    hits, misses = caches["users"][:2]
    return [empty[1], hits + misses, operations["told"], operations["measured"][0], len(Cache("new"))]

children = [in_child(child) for _ in range(30)]
stop.set()
for thread in threads:
    thread.join()
report = get_performance_report()
told = [report.operations["told"].count == sum(done), report.operations["measured"].count == sum(done)]
users = report.caches["users"]
told.append(users.hit_count + users.miss_count == 2 * sum(done) + 1)
told.append(report.caches["short"].miss_count == sum(done))
print(json.dumps([children, told]))
"""
    children, told = script(PRELUDE + code)
    assert children == [[{}, 500, [500, 0, 125.0, []], 500, 0]] * 30
    assert told == [True] * 4


def test_a_child_of_a_child(script: Callable[..., Any]) -> None:
    """As a pre-forking server has them."""
    code = """
measured = measure_performance("measured", lambda: None, span=False)
measured()

def child():
    measured()
    return [figures(get_performance_report())[1]["measured"][0], in_child(grandchild)]

def grandchild():
    measured()
    measured()
    return figures(get_performance_report())[1]["measured"][0]

print(json.dumps([in_child(child), get_performance_report().operations["measured"].count]))
"""
    assert script(PRELUDE + code) == [[1, 2], 1]
