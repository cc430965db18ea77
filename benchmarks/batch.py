"""What an item of a batch costs, beside a bare future for each item and other libraries.

Batches have 100 items, and the function returns them as they are, so that everything else is what is measured.
"""

import asyncio
import queue
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Any

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from benchmarks.harness import Benchmark, Build, Contestant, Slice, Turn

__all__ = ("BENCHMARKS",)

SIZE = 100
BATCHES = 30
LINGER = 1.0
TRACER = trace.get_tracer("benchmarks")

Load = Callable[[int], Awaitable[int]]
Way = Callable[[], Load]
"""Made on the running loop; returns what takes an item and returns an awaitable of its result."""


async def same(items: list[int]) -> list[int]:
    return items


def same_in_thread(items: list[int]) -> list[int]:
    return items


# the ways to load an item ---------------------------------------------------------------------------


def ours() -> Load:
    from otel_perfopt.batch import AsyncBatchProcessor

    return AsyncBatchProcessor("benchmark", same, batch_size=SIZE, batch_timeout=LINGER).add


def bare() -> Load:
    """Return what only makes a future for each item, and sets the results of all when there are enough."""
    loop = asyncio.get_running_loop()
    futures: list[asyncio.Future[int]] = []

    def settle(full: list[asyncio.Future[int]]) -> None:
        for future in full:
            future.set_result(0)

    def load(_: int) -> asyncio.Future[int]:
        future: asyncio.Future[int] = loop.create_future()
        futures.append(future)
        if len(futures) == SIZE:
            loop.call_soon(settle, futures[:])
            futures.clear()
        return future

    return load


def aiodataloader() -> Load:
    from aiodataloader import DataLoader

    load: Load = DataLoader(same, max_batch_size=SIZE, cache=False).load
    return load


def strawberry() -> Load:
    from strawberry.dataloader import DataLoader

    load: Load = DataLoader(same, max_batch_size=SIZE, cache=False).load
    return load


def batched() -> Load:
    from batched import aio

    load: Load = aio.dynamically(same, batch_size=SIZE, timeout_ms=1.0)
    return load


def async_batcher() -> Load:
    from async_batcher.batcher import AsyncBatcher

    class Batcher(AsyncBatcher):  # type: ignore[misc, type-arg, unused-ignore]
        async def process_batch(self, batch: list[int]) -> list[int]:
            return batch

    load: Load = Batcher(max_batch_size=SIZE, max_queue_time=0.001).process
    return load


# the items, all at once or each in a task -----------------------------------------------------------


async def all_at_once(load: Load) -> None:
    await asyncio.gather(*[load(number) for number in range(SIZE)])


async def in_one_list(load: Any) -> None:
    await load(list(range(SIZE)))


async def in_tasks(load: Load) -> None:
    await asyncio.gather(*[asyncio.create_task(one(load, number)) for number in range(SIZE)])


async def one(load: Load, number: int) -> int:
    return await load(number)


async def all_at_once_in_spans(load: Load) -> None:
    futures = []
    for number in range(SIZE):
        with TRACER.start_as_current_span("request"):
            futures.append(load(number))
    await asyncio.gather(*futures)


async def in_tasks_with_spans(load: Load) -> None:
    await asyncio.gather(*[asyncio.create_task(one_in_span(load, number)) for number in range(SIZE)])


async def one_in_span(load: Load, number: int) -> int:
    with TRACER.start_as_current_span("request"):
        return await load(number)


def on_a_loop(way: Way, batch: Callable[[Any], Awaitable[None]], *, spans: bool = False) -> Build:
    """Return the slice of one item, on an event loop of its own."""

    def build(turn: Turn) -> Slice:
        if spans and not isinstance(trace.get_tracer_provider(), TracerProvider):
            trace.set_tracer_provider(TracerProvider(shutdown_on_exit=False))
        count = turn.count(BATCHES)

        async def run() -> float:
            load = way()
            await batch(load)
            start = time.thread_time()
            for _ in range(count):
                await batch(load)
            return (time.thread_time() - start) / (count * SIZE)

        return lambda: asyncio.run(run())

    return build


# threads --------------------------------------------------------------------------------------------


def ours_in_threads() -> Callable[[int], "Future[int]"]:
    from otel_perfopt.batch import BatchProcessor

    return BatchProcessor("benchmark", same_in_thread, batch_size=SIZE, batch_timeout=LINGER).add


def bare_in_threads() -> Callable[[int], "Future[int]"]:
    """Return what only makes a future for each item, whose result a thread sets when there are enough."""
    full: queue.SimpleQueue[list[Future[int]]] = queue.SimpleQueue()
    futures: list[Future[int]] = []

    def settle() -> None:
        while True:
            for future in full.get():
                future.set_running_or_notify_cancel()
                future.set_result(0)

    threading.Thread(target=settle, daemon=True).start()

    def load(_: int) -> "Future[int]":
        future: Future[int] = Future()
        futures.append(future)
        if len(futures) == SIZE:
            full.put(futures[:])
            futures.clear()
        return future

    return load


def in_threads(way: Callable[[], Callable[[int], "Future[int]"]]) -> Build:
    """Return the slice of one item: the CPU time of all threads."""

    def build(turn: Turn) -> Slice:
        load = way()
        count = turn.count(BATCHES)

        def run() -> float:
            start = time.process_time()
            for _ in range(count):
                for future in [load(number) for number in range(SIZE)]:
                    future.result()
            return (time.process_time() - start) / (count * SIZE)

        return run

    return build


BENCHMARKS = (
    Benchmark(
        "batch-add",
        "batch of 100, per item",
        (
            Contestant("otel_perfopt", on_a_loop(ours, all_at_once)),
            Contestant("a bare future", on_a_loop(bare, all_at_once)),
            Contestant("aiodataloader", on_a_loop(aiodataloader, all_at_once), "aiodataloader"),
            Contestant("strawberry", on_a_loop(strawberry, all_at_once), "strawberry-graphql"),
            Contestant("batched, one list", on_a_loop(batched, in_one_list), "batched"),
        ),
        limit=2.0,
    ),
    Benchmark(
        "batch-spans",
        "batch of 100, each in a span",
        (
            Contestant("otel_perfopt", on_a_loop(ours, all_at_once_in_spans, spans=True)),
            Contestant("a bare future", on_a_loop(bare, all_at_once_in_spans, spans=True)),
        ),
        limit=3.0,
    ),
    Benchmark(
        "batch-tasks",
        "batch of 100, one task per item",
        (
            Contestant("otel_perfopt", on_a_loop(ours, in_tasks)),
            Contestant("a bare future", on_a_loop(bare, in_tasks)),
            Contestant("aiodataloader", on_a_loop(aiodataloader, in_tasks), "aiodataloader"),
            Contestant("strawberry", on_a_loop(strawberry, in_tasks), "strawberry-graphql"),
            Contestant("async-batcher", on_a_loop(async_batcher, in_tasks), "async-batcher"),
            Contestant("batched", on_a_loop(batched, in_tasks), "batched"),
        ),
        limit=1.3,
    ),
    Benchmark(
        "batch-tasks-spans",
        "batch of 100, one task per item, in a span",
        (
            Contestant("otel_perfopt", on_a_loop(ours, in_tasks_with_spans, spans=True)),
            Contestant("a bare future", on_a_loop(bare, in_tasks_with_spans, spans=True)),
        ),
        limit=1.6,
    ),
    Benchmark(
        "batch-threads",
        "batch of 100, per item, threads",
        (
            Contestant("otel_perfopt", in_threads(ours_in_threads)),
            Contestant("a bare future", in_threads(bare_in_threads)),
        ),
    ),
)
