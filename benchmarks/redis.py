"""What it costs to ask a tier in Redis, beside redis-py alone and other caches in Redis; a server of its own is started for it.

Time on the clock and not of the CPU, because most of it is spent waiting for the answer: quiet machines only.
"""

import asyncio
import atexit
import functools
import random
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from benchmarks.harness import Benchmark, Build, Contestant, Slice, Turn, timed

__all__ = ("BENCHMARKS",)

ENTRIES = 1_000
MANY = 100
TTL = 3600
OURS, PEER = "otel-perfopt[redis]", "redis"


@functools.cache
def server() -> int:
    """Start a server for as long as this process lives, and return its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    folder = tempfile.mkdtemp(prefix="otel-perfopt-benchmark-")
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder]
    try:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    except FileNotFoundError:
        raise RuntimeError("it needs a redis-server on PATH: apt-get install redis-server") from None
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    atexit.register(process.wait)
    atexit.register(process.kill)
    for _ in range(500):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except ConnectionRefusedError:
            time.sleep(0.01)
        else:
            return port
    raise RuntimeError("redis-server did not start")


def values(count: int, size: int) -> dict[str, bytes]:
    """Return values under keys that nobody else has."""
    prefix = uuid.uuid4().hex[:12]
    return {f"{prefix}-{number}": random.Random(number).randbytes(size) for number in range(count)}


def tier() -> Any:
    from otel_perfopt_redis import RedisTier

    return RedisTier(f"redis://127.0.0.1:{server()}", namespace=uuid.uuid4().hex)


def raw() -> Any:
    import redis

    return redis.Redis(port=server())


# the bare tier beside the bare client ----------------------------------------------------------------


def filled_tier(entries: dict[str, bytes]) -> Any:
    from otel_perfopt.tiers import Record

    made, now = tier(), time.time()
    records = {key.encode(): Record(value, now, now + TTL, now + TTL) for key, value in entries.items()}
    made.write(records, made.mark(), replaces=False)
    made.flush()
    return made


def filled_client(entries: dict[str, bytes]) -> Any:
    client = raw()
    client.mset(entries)
    return client


def asking_tier(size: int, at_once: int = 1) -> Build:
    def build(turn: Turn) -> Slice:
        entries = values(turn.count(ENTRIES), size)
        found, keys = filled_tier(entries), [key.encode() for key in entries]
        groups = [tuple(keys[start : start + at_once]) for start in range(0, len(keys), at_once)]
        return asking(lambda keys: found.read(keys).records, groups)

    return build


def asking_client(size: int, at_once: int = 1) -> Build:
    def build(turn: Turn) -> Slice:
        entries = values(turn.count(ENTRIES), size)
        found, keys = filled_client(entries), list(entries)
        if at_once == 1:
            return asking(found.get, keys)
        return asking(found.mget, [keys[start : start + at_once] for start in range(0, len(keys), at_once)])

    return build


def asking(get: Callable[[Any], Any], keys: list[Any]) -> Slice:
    def ask() -> None:
        for key in keys:
            get(key)

    return timed(ask, laps=1, operations=len(keys), clock=time.perf_counter)


# caches that find nothing in memory -------------------------------------------------------------------


def ours(turn: Turn) -> Slice:
    from otel_perfopt import Cache

    entries = values(turn.count(ENTRIES), 100)
    cache: Any = Cache(f"benchmark-{uuid.uuid4().hex}", max_size=0, ttl=TTL, tiers=[tier()])
    cache.set_many(entries)
    cache.flush()
    return asking(cache.get, list(entries))


def dogpile(turn: Turn) -> Slice:
    from dogpile.cache import make_region

    arguments = {"host": "127.0.0.1", "port": server(), "redis_expiration_time": TTL}
    region = make_region().configure("dogpile.cache.redis", expiration_time=TTL, arguments=arguments)
    entries = values(turn.count(ENTRIES), 100)
    region.set_multi(entries)
    return asking(region.get, list(entries))


def asking_async(make: Callable[[dict[str, bytes]], Awaitable[Callable[[str], Awaitable[Any]]]]) -> Build:
    def build(turn: Turn) -> Slice:
        loop = asyncio.new_event_loop()
        entries = values(turn.count(ENTRIES), 100)
        get = loop.run_until_complete(make(entries))

        async def ask() -> None:
            for key in entries:
                await get(key)

        return timed(lambda: loop.run_until_complete(ask()), laps=1, operations=len(entries), clock=time.perf_counter)

    return build


async def ours_async(entries: dict[str, bytes]) -> Callable[[str], Awaitable[Any]]:
    from otel_perfopt import Cache

    cache: Any = Cache(f"benchmark-{uuid.uuid4().hex}", max_size=0, ttl=TTL, tiers=[tier()])
    await cache.set_many_async(entries)
    await cache.flush_async()
    get: Callable[[str], Awaitable[Any]] = cache.get_async
    return get


async def client_async(entries: dict[str, bytes]) -> Callable[[str], Awaitable[Any]]:
    import redis.asyncio

    client = redis.asyncio.Redis(port=server())
    await client.mset(entries)
    get: Callable[[str], Awaitable[Any]] = client.get
    return get


async def cashews(entries: dict[str, bytes]) -> Callable[[str], Awaitable[Any]]:
    from cashews import Cache

    cache = Cache()
    cache.setup(f"redis://127.0.0.1:{server()}")
    await cache.set_many(entries, expire=TTL)
    get: Callable[[str], Awaitable[Any]] = cache.get
    return get


async def aiocache(entries: dict[str, bytes]) -> Callable[[str], Awaitable[Any]]:
    from aiocache import RedisCache
    from aiocache.serializers import PickleSerializer

    cache = RedisCache(endpoint="127.0.0.1", port=server(), serializer=PickleSerializer())
    await cache.multi_set(list(entries.items()), ttl=TTL)
    get: Callable[[str], Awaitable[Any]] = cache.get
    return get


BENCHMARKS = (
    *(
        Benchmark(
            f"redis-get-{size}",
            f"Redis tier: get {size:,} bytes",
            (
                Contestant("otel_perfopt", asking_tier(size), OURS),
                Contestant("redis-py", asking_client(size), PEER),
            ),
            limit=1.3,
        )
        for size in (100, 10_240)
    ),
    Benchmark(
        "redis-many",
        f"Redis tier: get {MANY} values of 100 bytes at once",
        (
            Contestant("otel_perfopt", asking_tier(100, MANY), OURS),
            Contestant("redis-py", asking_client(100, MANY), PEER),
        ),
    ),
    Benchmark(
        "redis-cache",
        "a cache in Redis: get what is not in memory",
        (
            Contestant("otel_perfopt", ours, OURS),
            Contestant("redis-py", asking_client(100), PEER),
            Contestant("dogpile.cache", dogpile, "dogpile.cache"),
        ),
    ),
    Benchmark(
        "redis-cache-async",
        "the same on an event loop",
        (
            Contestant("otel_perfopt", asking_async(ours_async), OURS),
            Contestant("redis-py", asking_async(client_async), PEER),
            Contestant("cashews", asking_async(cashews), "cashews"),
            Contestant("aiocache", asking_async(aiocache), "aiocache"),
        ),
    ),
)
