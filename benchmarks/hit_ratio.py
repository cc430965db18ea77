"""How often the eviction policies keep what is asked for next, beside those of others, on twelve generated traces."""

import random
from collections.abc import Callable, Iterator
from functools import partial
from itertools import accumulate, count, cycle
from typing import Any, Literal

from benchmarks.harness import Benchmark, Build, Contestant, Slice, Turn

__all__ = ("BENCHMARKS", "TRACES", "Trace")

KEYS = 10_000
REQUESTS = 100_000

Policy = Literal["s3fifo", "lru"]
Trace = Callable[[random.Random, int], Iterator[int]]


def zipf(rng: random.Random, length: int, *, exponent: float = 0.9) -> Iterator[int]:
    """Some keys are asked for more often than others, and stay so."""
    weights = list(accumulate((rank + 1) ** -exponent for rank in range(KEYS)))
    return iter(rng.choices(range(KEYS), cum_weights=weights, k=length))


def mixed(rng: random.Random, length: int, *, share: float, others: Iterator[int]) -> Iterator[int]:
    """A share of the requests is for other keys."""
    return (next(others) if rng.random() < share else key for key in zipf(rng, length))


def scan(rng: random.Random, length: int, *, share: float) -> Iterator[int]:
    """A share of the requests is for keys that nobody asks for again."""
    return mixed(rng, length, share=share, others=count(KEYS))


def loop(rng: random.Random, length: int, *, period: int) -> Iterator[int]:
    """A third of the requests goes round and round."""
    return mixed(rng, length, share=1 / 3, others=cycle(range(KEYS, KEYS + period)))


def shifting(rng: random.Random, length: int, *, times: int) -> Iterator[int]:
    """What is popular changes all at once, several times."""
    for _ in range(times):
        names = rng.sample(range(KEYS), KEYS)
        yield from (names[key] for key in zipf(rng, length // times))


TRACES: tuple[Trace, ...] = (
    *(partial(zipf, exponent=exponent) for exponent in (0.7, 0.9, 1.1)),
    *(partial(scan, share=share) for share in (0.1, 0.3, 0.5)),
    *(partial(loop, period=period) for period in (500, 1000, 2000)),
    *(partial(shifting, times=times) for times in (2, 6, 20)),
)


def requests(turn: Turn) -> list[int]:
    """Return the requests of a round's trace."""
    return list(TRACES[turn.number % len(TRACES)](random.Random(turn.number), turn.count(REQUESTS)))


Ask = Callable[[int], bool]
"""Asks for a key, puts it in if it is not there, and returns whether it was."""


def asking(get: Callable[[int], object], put: Callable[[int, str], object]) -> Ask:
    """Return how to ask a cache that does these two."""

    def ask(key: int) -> bool:
        found = get(key) is not None
        if not found:
            put(key, "a value")
        return found

    return ask


def ours(policy: Policy, size: int) -> Ask:
    from otel_perfopt import Cache

    cache: Cache[int, str] = Cache("trace", max_size=size, ttl=None, policy=policy)
    return asking(cache.get, cache.set)


def libcachesim(size: int) -> Ask:
    from libcachesim import S3FIFO, Request

    cache, request = S3FIFO(size), Request()

    def ask(key: int) -> bool:
        request.obj_id = key
        return bool(cache.get(request))

    return ask


def cachetools(size: int) -> Ask:
    from cachetools import LRUCache

    cache: Any = LRUCache(size)
    return asking(cache.get, cache.__setitem__)


def theine(size: int) -> Ask:
    from theine import Cache

    cache: Any = Cache(size)
    return asking(lambda key: cache.get(key)[0], cache.set)


def moka(size: int) -> Ask:
    from moka_py import Moka

    cache: Any = Moka(size)
    return asking(cache.get, cache.set)


def replaying(make: Callable[[int], Ask], share: float) -> Build:
    """Return the slice of replaying a trace, in a cache with room for a share of the keys; its cost is the hit ratio."""

    def build(turn: Turn) -> Slice:
        make(KEYS)  # imports the library, or fails to

        def run() -> float:
            trace = requests(turn)
            return sum(map(make(room(trace, share)), trace)) / len(trace)

        return run

    return build


def room(trace: list[int], share: float) -> int:
    return max(1, round(share * len(set(trace))))


BENCHMARKS = tuple(
    Benchmark(
        f"hit-ratio-{share:.0%}".removesuffix("%"),
        f"hit ratio, {len(TRACES)} traces, room for {share:.0%} of the keys",
        (
            Contestant("otel_perfopt", replaying(partial(ours, "s3fifo"), share)),
            Contestant("S3-FIFO of libcachesim", replaying(libcachesim, share), "libcachesim"),
            Contestant('otel_perfopt, policy="lru"', replaying(partial(ours, "lru"), share)),
            Contestant("cachetools, LRU", replaying(cachetools, share), "cachetools"),
            Contestant("theine, W-TinyLFU", replaying(theine, share), "theine"),
            Contestant("moka-py, W-TinyLFU", replaying(moka, share), "moka-py"),
        ),
        limit=1.5,
        measure="points",
        rounds=len(TRACES),
        slices=1,
    )
    for share in (0.01, 0.03, 0.1)
)
