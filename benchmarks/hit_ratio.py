"""How often the eviction policy keeps what is asked for next, beside libcachesim's S3-FIFO, on twelve generated traces."""

import random
from collections.abc import Callable, Iterator
from functools import partial
from itertools import accumulate, count, cycle
from typing import Literal

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


def ours(policy: Policy, share: float) -> Build:
    """Return the hit ratio of a cache with room for a share of the keys."""

    def build(turn: Turn) -> Slice:
        from otel_perfopt import Cache

        def run() -> float:
            trace = requests(turn)
            cache = Cache("trace", max_size=room(trace, share), ttl=None, policy=policy)
            for key in trace:
                cache.get(key, lambda: True)
            return cache.stats().hit_rate

        return run

    return build


def libcachesim(share: float) -> Build:
    """Return the hit ratio of the policy's reference implementation."""

    def build(turn: Turn) -> Slice:
        from libcachesim import S3FIFO, Request

        def run() -> float:
            trace = requests(turn)
            cache, request = S3FIFO(room(trace, share)), Request()
            hits = 0
            for key in trace:
                request.obj_id = key
                hits += cache.get(request)
            return hits / len(trace)

        return run

    return build


def room(trace: list[int], share: float) -> int:
    return max(1, round(share * len(set(trace))))


BENCHMARKS = tuple(
    Benchmark(
        f"hit-ratio-{share:.0%}".removesuffix("%"),
        f"hit ratio, {len(TRACES)} traces, room for {share:.0%} of the keys",
        (
            Contestant("otel_perfopt", ours("s3fifo", share)),
            Contestant("S3-FIFO of libcachesim", libcachesim(share), "libcachesim"),
            Contestant('otel_perfopt, policy="lru"', ours("lru", share)),
        ),
        limit=1.5,
        measure="points",
        rounds=len(TRACES),
        slices=1,
    )
    for share in (0.01, 0.1)
)
