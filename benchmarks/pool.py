"""What it costs to lease a resource that is there, and what happens when many want it, beside other libraries' pools.

All connections are dummies, see `benchmarks.dummies`: there is no network, so that only the pools differ.
"""

import asyncio
import atexit
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from typing import Any

from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from benchmarks.dummies import Dummy, asyncpg_connection, psycopg_connection, redis_connection, sqlalchemy_connection
from benchmarks.harness import Benchmark, Build, Contestant, Slice, Turn, timed

__all__ = ("BENCHMARKS",)

LEASES = 5_000
THREADS, FEW = 8, 4
TASKS, SEVERAL = 200, 10
SPELL = 0.1  # seconds for which threads take turns

Lease = Callable[[], AbstractContextManager[object]]
AsyncLease = Callable[[], Any]  # asynchronous context managers, also those whose exit is an awaitable and no coroutine


# the pools ------------------------------------------------------------------------------------------


def collected_everywhere() -> Callable[[], None]:
    """Let the library's metrics go to an application's provider as well as to the report; return what collects them."""
    reader = InMemoryMetricReader()
    metrics.set_meter_provider(MeterProvider([reader]))
    from otel_perfopt import get_performance_report

    def collect() -> None:
        reader.get_metrics_data()
        get_performance_report()

    return collect


def ours(size: int) -> Lease:
    from otel_perfopt import ResourcePool

    pool = ResourcePool("benchmark", Dummy, max_size=size)
    pool.open()
    return pool.lease


def psycopg_pool(size: int) -> Lease:
    from psycopg_pool import ConnectionPool

    pool: Any = ConnectionPool(connection_class=psycopg_connection(is_async=False), min_size=1, max_size=size, open=True)
    pool.wait()
    lease: Lease = pool.connection
    return lease


def sqlalchemy(size: int) -> Lease:
    from sqlalchemy.pool import QueuePool

    pool = QueuePool(sqlalchemy_connection, pool_size=size, max_overflow=0)  # type: ignore[arg-type, unused-ignore]

    @contextmanager
    def lease() -> Iterator[object]:
        connection = pool.connect()
        try:
            yield connection
        finally:
            connection.close()

    return lease


def redis(size: int) -> Lease:
    from redis import BlockingConnectionPool

    pool: Any = BlockingConnectionPool(connection_class=redis_connection(is_async=False), max_connections=size)

    @contextmanager
    def lease() -> Iterator[object]:
        connection = pool.get_connection()
        try:
            yield connection
        finally:
            pool.release(connection)

    return lease


async def ours_async(size: int) -> AsyncLease:
    from otel_perfopt import AsyncResourcePool

    pool = AsyncResourcePool("benchmark", Dummy, max_size=size)
    await pool.open()
    return pool.lease


async def psycopg_pool_async(size: int) -> AsyncLease:
    from psycopg_pool import AsyncConnectionPool

    pool: Any = AsyncConnectionPool(connection_class=psycopg_connection(is_async=True), min_size=1, max_size=size, open=False)
    await pool.open()
    await pool.wait()
    lease: AsyncLease = pool.connection
    return lease


async def asyncpg(size: int) -> AsyncLease:
    import asyncpg

    async def connect(*_: object, **__: object) -> Dummy:
        return asyncpg_connection()

    pool: Any = await asyncpg.create_pool(connect=connect, min_size=1, max_size=size)
    lease: AsyncLease = pool.acquire
    return lease


async def sqlalchemy_async(size: int) -> AsyncLease:
    from sqlalchemy.pool import AsyncAdaptedQueuePool
    from sqlalchemy.util import greenlet_spawn

    await greenlet_spawn(int)  # which says so if greenlet is missing
    pool = AsyncAdaptedQueuePool(sqlalchemy_connection, pool_size=size, max_overflow=0)  # type: ignore[arg-type, unused-ignore]

    @asynccontextmanager
    async def lease() -> AsyncIterator[object]:
        connection = await greenlet_spawn(pool.connect)
        try:
            yield connection
        finally:
            await greenlet_spawn(connection.close)

    return lease


async def redis_async(size: int) -> AsyncLease:
    from redis.asyncio import BlockingConnectionPool

    pool: Any = BlockingConnectionPool(connection_class=redis_connection(is_async=True), max_connections=size)

    @asynccontextmanager
    async def lease() -> AsyncIterator[object]:
        connection = await pool.get_connection()
        try:
            yield connection
        finally:
            await pool.release(connection)

    return lease


# the callers ----------------------------------------------------------------------------------------


def repeat(lease: Lease, count: int) -> None:
    for _ in range(count):
        with lease():
            pass


async def repeat_async(lease: AsyncLease, count: int) -> None:
    for _ in range(count):
        async with lease():
            pass


def new_runner() -> asyncio.Runner:
    """Return a loop that is closed when the process ends; what is left on it, such as a pool's own tasks, ends with it."""
    runner = asyncio.Runner()
    atexit.register(runner.close)
    return runner


def collecting(run: Slice, collect: Callable[[], None]) -> Slice:
    """Return a slice that has everything collected after each turn, which is not the callers' time."""

    def run_and_collect() -> float:
        cost = run()
        collect()
        return cost

    return run_and_collect


def alone(make: Callable[[int], Lease]) -> Build:
    """Return the slice of one thread that finds the pool unused."""

    def build(turn: Turn) -> Slice:
        collect, count = collected_everywhere() if make is ours else lambda: None, turn.count(LEASES)
        lease = make(FEW)
        return collecting(timed(lambda: repeat(lease, count), laps=1, operations=count), collect)

    return build


def alone_async(make: Callable[[int], Any]) -> Build:
    """Return the slice of one task that finds the pool unused."""

    def build(turn: Turn) -> Slice:
        collect, count = collected_everywhere() if make is ours_async else lambda: None, turn.count(LEASES)
        runner = new_runner()
        lease = runner.run(make(FEW))

        async def run() -> float:
            start = time.thread_time()
            await repeat_async(lease, count)
            return (time.thread_time() - start) / count

        return collecting(lambda: runner.run(run()), collect)

    return build


def take_turns(lease: Lease, seconds: float) -> list[int]:
    """Let 8 threads lease and let each other run meanwhile; return how many leases each of them got."""
    ready, counts = threading.Barrier(THREADS), [0] * THREADS

    def caller(number: int) -> None:
        ready.wait()
        end = time.perf_counter() + seconds
        while not counts[number] or time.perf_counter() < end:
            with lease():
                time.sleep(0)
            counts[number] += 1

    callers = [threading.Thread(target=caller, args=(number,)) for number in range(THREADS)]
    for thread in callers:
        thread.start()
    for thread in callers:
        thread.join()
    return counts


def crowded(make: Callable[[int], Lease], cost: Callable[[list[int], float], float]) -> Build:
    """Return the slice of 8 threads on 4 resources."""

    def build(turn: Turn) -> Slice:
        collect, seconds = collected_everywhere() if make is ours else lambda: None, SPELL / 10 if turn.quick else SPELL
        lease = make(FEW)
        return collecting(lambda: cost(take_turns(lease, seconds), seconds), collect)

    return build


def time_per_lease(counts: list[int], seconds: float) -> float:
    return seconds / sum(counts)


def least_of_most(counts: list[int], _: float) -> float:
    return min(counts) / max(counts)


def crowded_async(make: Callable[[int], Any]) -> Build:
    """Return the slice of 200 tasks on 10 resources."""

    def build(turn: Turn) -> Slice:
        collect, count = collected_everywhere() if make is ours_async else lambda: None, turn.count(20)
        runner = new_runner()
        lease = runner.run(make(SEVERAL))

        async def caller() -> None:
            for _ in range(count):
                async with lease():
                    await asyncio.sleep(0)

        async def run() -> float:
            start = time.thread_time()
            await asyncio.gather(*[caller() for _ in range(TASKS)])
            return (time.thread_time() - start) / (TASKS * count)

        return collecting(lambda: runner.run(run()), collect)

    return build


def threads(of: Callable[[Callable[[int], Lease]], Build]) -> tuple[Contestant, ...]:
    return (
        Contestant("otel_perfopt", of(ours)),
        Contestant("psycopg_pool", of(psycopg_pool), "psycopg[binary] psycopg-pool"),
        Contestant("SQLAlchemy QueuePool", of(sqlalchemy), "sqlalchemy"),
        Contestant("redis-py", of(redis), "redis"),
    )


def tasks(of: Callable[[Callable[[int], Any]], Build]) -> tuple[Contestant, ...]:
    return (
        Contestant("otel_perfopt", of(ours_async)),
        Contestant("psycopg_pool", of(psycopg_pool_async), "psycopg[binary] psycopg-pool"),
        Contestant("asyncpg", of(asyncpg), "asyncpg"),
        Contestant("SQLAlchemy", of(sqlalchemy_async), "sqlalchemy[asyncio]"),
        Contestant("redis-py", of(redis_async), "redis"),
    )


BENCHMARKS = (
    Benchmark("pool-lease", "with pool.lease(), nobody else", threads(alone), limit=0.4),
    Benchmark("pool-lease-async", "async with pool.lease(), nobody else", tasks(alone_async), limit=0.20),
    Benchmark("pool-threads", "8 threads on 4 resources, per lease", threads(lambda make: crowded(make, time_per_lease))),
    Benchmark(
        "pool-fairness",
        "8 threads on 4: the least busy per the busiest",
        threads(lambda make: crowded(make, least_of_most)),
        measure="points",
    ),
    Benchmark("pool-tasks", "200 tasks on 10 resources, per lease", tasks(crowded_async)),
)
