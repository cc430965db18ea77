"""How many bytes an entry takes, beside other caches: keys are small ints, and there is one value for all.

It is the growth of a fresh process for each cache, so that what is not allocated by Python counts as well. The keys count,
too: nothing else keeps them.
"""

import functools
import gc
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import timedelta
from typing import Any, Literal

from benchmarks.harness import Benchmark, Build, Contestant, Slice, Turn

__all__ = ("BENCHMARKS",)

ENTRIES = 100_000
TTL = 3600.0
VALUE = object()

Policy = Literal["s3fifo", "lru"]
Put = Callable[[int, object], object]
"""Puts an entry into a cache, and keeps the cache alive."""


def ours(policy: Policy, size: int) -> Put:
    from otel_perfopt import Cache

    cache: Cache[int, object] = Cache(f"{size} entries", max_size=size, ttl=TTL, policy=policy)
    return cache.set


def lru_cache(size: int) -> Put:
    function = functools.lru_cache(maxsize=size)(lambda _: VALUE)
    return lambda key, _: function(key)


def cachetools_ttl(size: int) -> Put:
    from cachetools import TTLCache

    cache: Any = TTLCache(size, TTL)
    put: Put = cache.__setitem__
    return put


def cachetools_lru(size: int) -> Put:
    from cachetools import LRUCache

    cache: Any = LRUCache(size)
    put: Put = cache.__setitem__
    return put


def cachebox_ttl(size: int) -> Put:
    from cachebox import TTLCache

    cache: Any = TTLCache(size, TTL)
    put: Put = cache.__setitem__
    return put


def cachebox_lru(size: int) -> Put:
    from cachebox import LRUCache

    cache: Any = LRUCache(size)
    put: Put = cache.__setitem__
    return put


def moka(size: int) -> Put:
    from moka_py import Moka

    cache: Any = Moka(size, ttl=TTL)
    put: Put = cache.set
    return put


def theine(size: int) -> Put:
    from theine import Cache

    cache: Any = Cache(size)
    return lambda key, value: cache.set(key, value, timedelta(seconds=TTL))


def growth(make: Callable[[int], Put], size: int, entries: int) -> float:
    """Return the bytes by which this process grows for each of the `size` entries that fit, when all `entries` were put in."""
    from psutil import Process

    make(1)(0, VALUE)  # what is imported and made once for all caches
    gc.collect()
    before = Process().memory_info().rss
    put = make(size)
    for key in range(entries):
        put(key, VALUE)
    gc.collect()
    return (Process().memory_info().rss - before) / size


def filling(make: Callable[[int], Put], times: int) -> Build:
    """Return the slice of filling a cache `times` over in a process of its own; its cost is the bytes of an entry."""

    def build(turn: Turn) -> Slice:
        make(1)  # imports the library, or fails to
        size = turn.count(ENTRIES)

        def run() -> float:
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
                return process.submit(growth, make, size, times * size).result()

        return run

    return build


def benchmark(name: str, title: str, *, times: int) -> Benchmark:
    return Benchmark(
        name,
        title,
        (
            Contestant("otel_perfopt", filling(functools.partial(ours, "s3fifo"), times)),
            Contestant("functools.lru_cache, no ttl", filling(lru_cache, times)),
            Contestant('otel_perfopt, policy="lru"', filling(functools.partial(ours, "lru"), times)),
            Contestant("cachetools.TTLCache", filling(cachetools_ttl, times), "cachetools"),
            Contestant("cachetools.LRUCache, no ttl", filling(cachetools_lru, times), "cachetools"),
            Contestant("cachebox.TTLCache", filling(cachebox_ttl, times), "cachebox"),
            Contestant("cachebox.LRUCache, no ttl", filling(cachebox_lru, times), "cachebox"),
            Contestant("moka-py", filling(moka, times), "moka-py"),
            Contestant("theine", filling(theine, times), "theine"),
        ),
        measure="bytes",
        rounds=3,
        slices=1,
    )


BENCHMARKS = (
    benchmark("memory-filled", f"bytes of an entry, {ENTRIES:,} entries", times=1),
    benchmark("memory-replaced", "the same, after as many were evicted five times", times=6),
)
