"""What it costs to ask the tier in a file, and to write to it, beside another cache in SQLite; values are bytes.

Sets are measured with everything that comes of them: those of the library are written behind, and the time until the file
has them is counted. All of it is CPU time of the process.
"""

import atexit
import itertools
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.harness import Benchmark, Build, Contestant, Slice, Turn, timed

__all__ = ("BENCHMARKS",)

ENTRIES = 1_000
TTL = 3600.0


class Cache(NamedTuple):
    """A cache in a file: its calls, and what waits until all is written."""

    get: Callable[[bytes], Any]
    set: Callable[[bytes, bytes], Any]
    finish: Callable[[], Any]


def folder() -> Path:
    """Return a new folder, which is gone when the process is."""
    made = Path(tempfile.mkdtemp(prefix="otel-perfopt-benchmark-"))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made


def ours() -> Cache:
    from otel_perfopt.tiers.base import Record
    from otel_perfopt.tiers.sqlite import SQLiteTier

    tier = SQLiteTier(folder() / "cache.db")

    def get(key: bytes) -> bytes:
        return tier.read((key,)).records[key].value

    def put(key: bytes, value: bytes) -> None:
        now = time.time()
        tier.write({key: Record(value, now, now + TTL, now + TTL)}, tier.mark(), replaces=True)

    return Cache(get, put, tier.flush)


def diskcache() -> Cache:
    from diskcache import Cache as DiskCache

    cache = DiskCache(str(folder()))
    return Cache(cache.get, lambda key, value: cache.set(key, value, expire=TTL), lambda: None)


def keys_of(count: int) -> list[bytes]:
    generator = random.Random(1)
    return [generator.randbytes(20) for _ in range(count)]


def getting(make: Callable[[], Cache], size: int) -> Build:
    """Return the slice of asking for what is there."""

    def build(turn: Turn) -> Slice:
        cache, keys = make(), keys_of(turn.count(ENTRIES))
        for key in keys:
            cache.set(key, random.Random(key).randbytes(size))
        cache.finish()

        def ask() -> None:
            for key in keys:
                cache.get(key)

        return timed(ask, laps=1, operations=len(keys))

    return build


def setting(make: Callable[[], Cache], size: int) -> Build:
    """Return the slice of setting again what is there."""

    def build(turn: Turn) -> Slice:
        cache, keys = make(), keys_of(turn.count(ENTRIES))
        values: Sequence[bytes] = [random.Random(number).randbytes(size) for number in range(2)]
        turns = itertools.cycle(values)

        def put() -> None:
            value = next(turns)
            for key in keys:
                cache.set(key, value)
            cache.finish()

        return timed(put, laps=1, operations=len(keys), clock=time.process_time)

    return build


LIMITS = dict.fromkeys([("get", 100), ("get", 10_240), ("set", 100), ("set", 10_240)], 1.0)
ACTS = {"get": getting, "set": setting}

BENCHMARKS = tuple(
    Benchmark(
        f"tier-{name}-{size}",
        f"SQLite tier: {name} {size:,} bytes",
        (
            Contestant("otel_perfopt", ACTS[name](ours, size)),
            Contestant("diskcache", ACTS[name](diskcache, size), "diskcache"),
        ),
        limit=limit,
    )
    for (name, size), limit in LIMITS.items()
)
