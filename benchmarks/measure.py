"""What measuring an operation costs, beside a timer and the SDK's ``Histogram.record`` by hand, with a meter provider set.

Each side has a meter provider and a reader of its own, so that either collects only what is its own.
"""

import threading
import time
from collections.abc import Callable

from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from benchmarks.harness import Benchmark, Build, Contestant, Slice, Turn, timed

__all__ = ("BENCHMARKS",)

CALLS = 2_000
CALLS_PER_COLLECTION = 20_000
ATTRIBUTES = {"perfopt.operation.name": "benchmark"}

Call = Callable[[int], int]
Way = Callable[[], tuple[Call, InMemoryMetricReader]]


def work(number: int) -> int:
    return number


def ours() -> tuple[Call, InMemoryMetricReader]:
    """Return the measured function, and the reader of the application."""
    reader = InMemoryMetricReader()
    metrics.set_meter_provider(MeterProvider([reader]))
    from otel_perfopt import measure_performance

    return measure_performance("benchmark", work, span=False), reader


def by_hand() -> tuple[Call, InMemoryMetricReader]:
    """Return what one writes without the library."""
    reader = InMemoryMetricReader()
    histogram = MeterProvider([reader]).get_meter("benchmarks").create_histogram("benchmark.duration", "s")

    def measured(number: int) -> int:
        start = time.perf_counter()
        try:
            return work(number)
        finally:
            histogram.record(time.perf_counter() - start, ATTRIBUTES)

    return measured, reader


def plain() -> tuple[Call, InMemoryMetricReader]:
    """Return the function itself."""
    return work, InMemoryMetricReader()


def repeat(call: Call, count: int) -> None:
    for number in range(count):
        call(number)


def on_the_caller(way: Way) -> Build:
    """Return the slice of the caller's time, in one thread."""

    def build(turn: Turn) -> Slice:
        call, _ = way()
        count = turn.count(CALLS)
        return timed(lambda: repeat(call, count), laps=1, operations=count)

    return build


def on_many_callers(way: Way, threads: int) -> Build:
    """Return the slice of the callers' time, from the moment when all threads are there until the last one is done."""

    def build(turn: Turn) -> Slice:
        call, _ = way()
        count = turn.count(CALLS)

        def run() -> float:
            ready, done = threading.Barrier(threads + 1), threading.Barrier(threads + 1)

            def caller() -> None:
                ready.wait()
                repeat(call, count)
                done.wait()

            callers = [threading.Thread(target=caller) for _ in range(threads)]
            for thread in callers:
                thread.start()
            ready.wait()
            start = time.perf_counter()
            done.wait()
            seconds = time.perf_counter() - start
            for thread in callers:
                thread.join()
            return seconds / (threads * count)

        return run

    return build


def with_collection(way: Way) -> Build:
    """Return the slice of the process's CPU time, with one collection after many calls."""

    def build(turn: Turn) -> Slice:
        call, reader = way()
        count = turn.count(CALLS_PER_COLLECTION)

        def lap() -> None:
            repeat(call, count)
            reader.get_metrics_data()

        return timed(lap, laps=1, operations=count, clock=time.process_time)

    return build


def contestants(of: Callable[[Way], Build]) -> tuple[Contestant, ...]:
    return (
        Contestant("otel_perfopt", of(ours)),
        Contestant("timer and SDK Histogram.record", of(by_hand)),
        Contestant("the function alone", of(plain)),
    )


BENCHMARKS = (
    Benchmark("measure-caller", "@measure_performance(span=False), on the caller", contestants(on_the_caller), limit=0.35),
    Benchmark(
        "measure-threads",
        "@measure_performance(span=False), 8 threads",
        contestants(lambda way: on_many_callers(way, 8)),
        limit=0.35,
    ),
    Benchmark(
        "measure-cpu",
        "@measure_performance(span=False), all CPU",
        contestants(with_collection)[:2],
        limit=1.4,
        collect_garbage=True,
        slices=5,
    ),
)
