"""Never a stale value: whatever threads and loops do at once, nobody sees what was deleted before they asked."""

import asyncio
import math
import random
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_perfopt import cached
from otel_perfopt.testing import ManualClock
from tests.cache.support import LoopThread, new_cache, results, spawn

KEYS = 3
STEPS = 250


@pytest.fixture(autouse=True)
def switch_often() -> Iterator[None]:
    """Have threads take turns after almost every step."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


class Source:
    """A source of truth: each key has a version, which only goes up."""

    def __init__(self) -> None:
        self.current = [0] * KEYS
        self._lock = threading.Lock()

    def read(self, key: int) -> int:
        """Load; lets others run between reading and returning, as a real source does."""
        version = self.current[key]
        time.sleep(0)
        return version

    async def read_async(self, key: int) -> int:
        """Load on a loop."""
        version = self.current[key]
        await asyncio.sleep(0)
        return version

    def write(self, key: int) -> int:
        """Change the truth, and return the new version."""
        with self._lock:
            self.current[key] += 1
            return self.current[key]


class User:
    """Reads and writes in turn, and remembers what must not be seen again.

    A value read is stale if it is older than a version that was current when a deletion had returned before the read began.
    """

    def __init__(self, cache: Any, source: Source, floors: list[int], seed: int) -> None:
        self.cache, self.source, self.floors = cache, source, floors
        self.random = random.Random(seed)
        self.stale: list[tuple[int, int, int]] = []

    def change(self, key: int) -> None:
        """Write, invalidate, and only then announce the version."""
        version = self.source.write(key)
        if self.random.random() < 0.3:
            self.cache.clear()
        else:
            self.cache.delete(key)
        while self.floors[key] < version:
            self.floors[key] = version

    def check(self, key: int, floor: int, value: int) -> None:
        """Compare what was read with what had been announced before."""
        if value < floor:
            self.stale.append((key, floor, value))

    def run(self) -> list[tuple[int, int, int]]:
        """Be a thread."""
        for _ in range(STEPS):
            key = self.random.randrange(KEYS)
            if self.random.random() < 0.25:
                self.change(key)
            else:
                floor = self.floors[key]
                self.check(key, floor, self.cache.get(key, partial(self.source.read, key)))
        return self.stale

    async def run_async(self) -> list[tuple[int, int, int]]:
        """Be a task."""
        for _ in range(STEPS):
            key = self.random.randrange(KEYS)
            if self.random.random() < 0.25:
                self.change(key)
            else:
                floor = self.floors[key]
                read: Any = self.source.read if self.random.random() < 0.3 else self.source.read_async
                self.check(key, floor, await self.cache.get_async(key, partial(read, key)))
            await asyncio.sleep(0)
        return self.stale


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("max_size", [1000, 2, 0])
def test_nobody_sees_what_was_deleted_before(seed: int, max_size: int) -> None:
    """Four threads and two loops with four tasks each; versions only go up for whoever asks after a deletion."""
    cache, source, floors = new_cache(max_size=max_size), Source(), [0] * KEYS
    users = [User(cache, source, floors, seed * 100 + number) for number in range(12)]
    with LoopThread() as one, LoopThread() as two:
        futures = [spawn(user.run) for user in users[:4]]
        futures += [one.submit(user.run_async()) for user in users[4:8]]
        futures += [two.submit(user.run_async()) for user in users[8:]]
        assert results(futures) == [[]] * 12
    assert cache.stats().loads_in_flight == 0
    assert sum(source.current) > 0


def test_nobody_sees_what_was_invalidated_through_a_function() -> None:
    """The same for a decorated function, whose hits pass no lock."""
    source, floors = Source(), [0] * KEYS

    @cached
    def read(key: int) -> int:
        return source.read(key)

    def user(seed: int) -> list[Any]:
        rng, stale = random.Random(seed), []
        for _ in range(STEPS * 2):
            key = rng.randrange(KEYS)
            if rng.random() < 0.2:
                version = source.write(key)
                read.invalidate(key)
                while floors[key] < version:
                    floors[key] = version
            else:
                floor = floors[key]
                value = read(key)
                if value < floor:
                    stale.append((key, floor, value))
        return stale

    assert results([spawn(user, seed) for seed in range(6)]) == [[]] * 6


STEP = st.one_of(
    st.tuples(st.just("set"), st.integers(0, 5), st.integers(0, 99)),
    st.tuples(st.just("load"), st.integers(0, 5), st.integers(0, 99)),
    st.tuples(st.sampled_from(["get", "delete", "expire"]), st.integers(0, 5)),
    st.tuples(st.just("advance"), st.integers(0, 6)),
    st.tuples(st.just("clear")),
)


@given(steps=st.lists(STEP, max_size=60), max_size=st.sampled_from([None, 0, 1, 3]), policy=st.sampled_from(["s3fifo", "lru"]))
def test_one_thread_sees_a_dict_that_forgets(steps: list[Any], max_size: int | None, policy: str) -> None:
    """Whatever is found is what was last put in and not invalidated; without a limit, all of it is found."""
    clock = ManualClock()
    cache = new_cache(max_size=max_size, policy=policy, ttl=5, clock=clock)
    model: dict[int, tuple[int, float]] = {}

    def fresh(key: int) -> int | None:
        value, expires = model.get(key, (None, 0.0))
        return value if expires > clock() else None

    for name, *arguments in steps:
        known = fresh(arguments[0]) if arguments else None
        possible = {known} if max_size is None else {known, None}  # it may have been evicted
        if name == "advance":
            clock.advance(arguments[0])
        elif name == "clear":
            cache.clear()
            model.clear()
        elif name == "set":
            cache.set(*arguments)
            model[arguments[0]] = (arguments[1], clock() + 5)
        elif name == "load":
            key, value = arguments
            misses = cache.stats().miss_count
            found = cache.get(key, lambda value=value: value)
            if cache.stats().miss_count > misses:
                assert None in possible
                assert found == value
                model[key] = (value, clock() + 5)
            else:
                assert found == known
        elif name == "get":
            assert cache.get(arguments[0]) in possible
        else:
            assert getattr(cache, name)(arguments[0]) in {value is not None for value in possible}
            model.pop(arguments[0], None)
        assert len(cache) <= (math.inf if max_size is None else max_size)
        assert len(cache._store.policy) == len(cache)
