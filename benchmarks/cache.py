"""What a hit of ``@cached`` costs, beside `functools.lru_cache` and other libraries."""

import asyncio
import functools
import threading
import time
from collections.abc import Callable
from typing import Any, Literal

from benchmarks.harness import Benchmark, Build, Contestant, Slice, Turn, timed

__all__ = ("BENCHMARKS",)

KEYS = [f"key-{number}" for number in range(1000)]
PAIRS = [(key, number) for number, key in enumerate(KEYS)]
LAPS = 10
ROOM = 2 * len(KEYS)
TTL = 3600.0

Policy = Literal["s3fifo", "lru"]
Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


# the decorators -------------------------------------------------------------------------------------


def ours(policy: Policy = "s3fifo") -> Decorator:
    from otel_perfopt import cached

    decorator: Decorator = cached(ttl=TTL, max_size=ROOM, policy=policy)
    return decorator


def lru_cache() -> Decorator:
    return functools.lru_cache(maxsize=ROOM)


def cachebox() -> Decorator:
    import cachebox

    decorator: Decorator = cachebox.cached(cachebox.TTLCache(ROOM, TTL))
    return decorator


def cachetools() -> Decorator:
    import cachetools

    decorator: Decorator = cachetools.cached(cachetools.TTLCache(ROOM, TTL), lock=threading.RLock())
    return decorator


def moka() -> Decorator:
    import moka_py

    decorator: Decorator = moka_py.cached(maxsize=ROOM, ttl=TTL)
    return decorator


def async_lru() -> Decorator:
    import async_lru

    decorator: Decorator = async_lru.alru_cache(maxsize=ROOM, ttl=TTL)
    return decorator


def plain() -> Decorator:
    return lambda function: function


# the calls, each in its loop ------------------------------------------------------------------------


def one(key: str) -> str:
    return key


async def one_async(key: str) -> str:
    return key


def two(key: str, number: int) -> tuple[str, int]:
    return key, number


class Service:
    def method(self, key: str) -> str:
        return key


def call_one(call: Callable[..., Any]) -> None:
    for key in KEYS:
        call(key)


async def await_one(call: Callable[..., Any], laps: int) -> float:
    start = time.thread_time()
    for _ in range(laps):
        for key in KEYS:
            await call(key)
    return (time.thread_time() - start) / (laps * len(KEYS))


def call_two(call: Callable[..., Any]) -> None:
    for key, number in PAIRS:
        call(key, number)


def call_keywords(call: Callable[..., Any]) -> None:
    for key, number in PAIRS:
        call(key, number=number)


def call_method(service: Any) -> None:
    for key in KEYS:
        service.method(key)


def sync(decorator: Callable[[], Decorator], function: Callable[..., Any] = one, loop: Callable[..., None] = call_one) -> Build:
    """Return the slice of a function."""

    def build(turn: Turn) -> Slice:
        call = decorator()(function)
        return timed(lambda: loop(call), laps=turn.count(LAPS), operations=len(KEYS))

    return build


def method(decorator: Callable[[], Decorator]) -> Build:
    """Return the slice of a method, which is looked up for each call."""

    def build(turn: Turn) -> Slice:
        service = type("CachedService", (), {"method": decorator()(Service.method)})()
        return timed(lambda: call_method(service), laps=turn.count(LAPS), operations=len(KEYS))

    return build


def asynchronous(decorator: Callable[[], Decorator]) -> Build:
    """Return the slice of a coroutine function, awaited on an event loop of its own."""

    def build(turn: Turn) -> Slice:
        call = decorator()(one_async)
        runner = asyncio.Runner()
        return lambda: runner.run(await_one(call, turn.count(LAPS)))

    return build


BASE = Contestant("functools.lru_cache", sync(lru_cache))

BENCHMARKS = (
    Benchmark(
        "cached",
        "@cached hit, one argument",
        (
            Contestant("otel_perfopt", sync(ours)),
            BASE,
            Contestant('otel_perfopt, policy="lru"', sync(functools.partial(ours, "lru"))),
            Contestant("moka-py", sync(moka), "moka-py"),
            Contestant("cachebox", sync(cachebox), "cachebox"),
            Contestant("cachetools and a lock", sync(cachetools), "cachetools"),
            Contestant("the function alone", sync(plain)),
        ),
        limit=3.5,
    ),
    Benchmark(
        "cached-two",
        "@cached hit, two arguments",
        (
            Contestant("otel_perfopt", sync(ours, two, call_two)),
            BASE,
            Contestant("lru_cache, two arguments", sync(lru_cache, two, call_two)),
        ),
        limit=5.0,
    ),
    Benchmark(
        "cached-keywords",
        "@cached hit, one of two by keyword",
        (
            Contestant("otel_perfopt", sync(ours, two, call_keywords)),
            BASE,
            Contestant("lru_cache, one of two by keyword", sync(lru_cache, two, call_keywords)),
        ),
        limit=5.0,
    ),
    Benchmark(
        "cached-method",
        "@cached hit, method",
        (
            Contestant("otel_perfopt", method(ours)),
            BASE,
            Contestant("lru_cache, method", method(lru_cache)),
        ),
        limit=5.0,
    ),
    Benchmark(
        "cached-async",
        "@cached hit, async",
        (
            Contestant("otel_perfopt", asynchronous(ours)),
            BASE,
            Contestant("moka-py", asynchronous(moka), "moka-py"),
            Contestant("cachebox", asynchronous(cachebox), "cachebox"),
            Contestant("async_lru", asynchronous(async_lru), "async-lru"),
            Contestant("the coroutine alone", asynchronous(plain)),
        ),
        limit=5.0,
    ),
)
