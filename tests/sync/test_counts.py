"""Threads that all use a cache at once: counts stay exact, limits hold, and every value belongs to its key."""

import random
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from otel_perfopt import cached
from tests.cache.support import TIMEOUT, new_cache, results, spawn

THREADS = 8


@pytest.fixture(autouse=True)
def switch_often() -> Iterator[None]:
    """Have threads take turns after almost every step."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.mark.parametrize("policy", ["s3fifo", "lru"])
def test_hits_are_counted_exactly(policy: str) -> None:
    """8 threads x 20,000 hits, half of them through a decorated function."""
    cache = new_cache(policy=policy)

    @cached(cache=cache)
    def work(number: int) -> int:
        return number

    cache.set("key", 1)
    work(5)
    start = threading.Barrier(THREADS, timeout=TIMEOUT)

    def hit() -> None:
        start.wait()
        for _ in range(10_000):
            work(5)
            cache.get("key")

    results([spawn(hit) for _ in range(THREADS)])
    stats = cache.stats()
    assert (stats.hit_count, stats.miss_count) == (THREADS * 20_000, 1)


def test_every_request_of_a_storm_is_counted_once() -> None:
    """Hits, misses, loads that are joined or fail, and look-ups without a loader: their sum is the number of requests."""
    cache = new_cache(max_size=10)

    def use(seed: int) -> int:
        rng, requests = random.Random(seed), 0
        for _ in range(2000):
            key = rng.randrange(20)
            requests += 1
            loader = rng.choice([None, lambda key=key: key, lambda key=key: key, lambda: 1 // 0])
            with suppress(ZeroDivisionError):  # its own, or that of a load that it joined
                cache.get(key, loader)
            if rng.random() < 0.05:
                cache.delete(key)
        return requests

    requests = sum(results([spawn(use, seed) for seed in range(THREADS)]))
    stats = cache.stats()
    assert stats.hit_count + stats.miss_count == requests == THREADS * 2000
    assert stats.loads_in_flight == 0


class Instance:
    """Comes and goes during a storm."""

    def __init__(self, number: int) -> None:
        self.number = number

    @cached(max_size=50)
    def value(self, key: int) -> tuple[int, int]:
        """Return something that only this instance returns."""
        return self.number, key


def check_order(cache: Any, limit: int) -> None:
    """The parts of a cache agree with each other."""
    store = cache._store
    entries = store.entries
    assert len(entries) <= limit
    assert len(store.policy) == len(entries)
    assert store.weight == pytest.approx(sum(entry.weight for entry in entries.values()))
    assert all(key == entry.key and entry.queue for key, entry in entries.items())
    assert len(store._due) <= 2 * limit + 64
    assert len(cache._flights) == 0


@pytest.mark.parametrize("policy", ["s3fifo", "lru"])
def test_a_storm_leaves_a_cache_in_order(policy: str) -> None:
    """Get, load, set, delete, expire and clear, with weights and limits: nothing is lost, doubled or mixed up."""
    cache = new_cache(max_size=20, policy=policy, max_weight=60, weigher=lambda key, value: 1 + key % 7)

    def use(seed: int) -> int:
        rng, wrong = random.Random(seed), 0
        for _ in range(1500):
            key, step = rng.randrange(60), rng.random()
            if step < 0.6:
                wrong += cache.get(key, lambda key=key: key * 10) != key * 10
            elif step < 0.8:
                cache.set(key, key * 10)
            elif step < 0.9:
                cache.delete(key)
            elif step < 0.99:
                cache.expire(key)
            else:
                cache.clear()
        return wrong

    assert results([spawn(use, seed) for seed in range(THREADS)]) == [0] * THREADS
    check_order(cache, 20)
    assert cache.stats().weight <= 60
    cache.clear()
    assert (len(cache), cache.stats().weight) == (0, 0)


def test_a_storm_of_short_lived_instances_mixes_nothing_up() -> None:
    """Threads make and drop instances, call, invalidate and clear: each gets its own values only."""
    cache: Any = Instance.value.cache

    def use(seed: int) -> int:
        rng, wrong, shelf = random.Random(seed), 0, [Instance(seed * 1_000_000)]
        for step in range(1500):
            if rng.random() < 0.3:
                shelf.append(Instance(seed * 1_000_000 + step))
            if rng.random() < 0.3:
                shelf = shelf[-3:]
            instance, key = rng.choice(shelf), rng.randrange(4)
            wrong += instance.value(key) != (instance.number, key)
            if rng.random() < 0.05:
                Instance.value.invalidate(instance, key)
            elif rng.random() < 0.01:
                cache.clear()
        return wrong

    assert results([spawn(use, seed) for seed in range(1, THREADS + 1)]) == [0] * THREADS
    last = Instance(0)
    last.value(0)
    check_order(cache, 50)
    assert len(cache) == 1, "values of dead instances stayed"
    assert set(cache._owners._groups) == {id(last)}
