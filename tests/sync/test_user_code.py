"""Code of users, run by a cache: never under its lock, and what it raises concerns one call only."""

import gc
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from otel_perfopt import ReentrantLoad
from tests.cache.support import TIMEOUT, Gate, errors, new_cache, passed, spawn, spawn_many, until_waiting


class Dying:
    """A value whose finalizer has another thread use the cache, and waits for it."""

    def __init__(self, cache: Any, deaths: list[str], how: str = "") -> None:
        self.cache, self.deaths, self.how = cache, deaths, how

    def __del__(self) -> None:
        spawn(self.cache.set, "from a finalizer", 1).result(TIMEOUT)
        self.deaths.append(self.how)


LEAVING: dict[str, Callable[[Any, Any], Any]] = {
    "replaced": lambda cache, _: cache.set("key", None),
    "deleted": lambda cache, _: cache.delete("key"),
    "cleared": lambda cache, _: cache.clear(),
    "evicted": lambda cache, _: [cache.set(number, None) for number in range(4)],
    "replaced by a load": lambda cache, _: (cache.expire("key"), cache.get("key", lambda: None)),
    "swept": lambda cache, clock: (clock.advance(400), cache.set("other", None)),
    "too heavy": lambda cache, _: cache.set("key", 99),
}


@pytest.mark.parametrize("policy", ["s3fifo", "lru"])
@pytest.mark.parametrize("how", LEAVING)
def test_values_die_without_the_lock(how: str, policy: str) -> None:
    """A value that leaves, however it leaves, may use the cache from another thread in its finalizer."""
    from otel_perfopt.testing import ManualClock

    clock, deaths = ManualClock(), list[str]()
    cache = new_cache(
        max_size=2, policy=policy, clock=clock, max_weight=10, weigher=lambda _, value: value if type(value) is int else 1
    )
    cache.set("key", Dying(cache, deaths, how))
    LEAVING[how](cache, clock)
    assert deaths == [how]


def test_values_of_dead_instances_die_without_the_lock() -> None:
    """The same for what a method returned, whose instance is gone."""
    from otel_perfopt import cached

    deaths: list[str] = []

    class Owner:
        @cached
        def method(self) -> Dying:
            return Dying(Owner.method.cache, deaths)

    owner = Owner()
    owner.method()
    del owner
    assert deaths == []
    Owner().method()
    assert deaths[:1] == [""]
    Owner.method.cache.clear()


def test_a_weigher_may_use_the_cache() -> None:
    """It runs without the lock: another thread can use the cache meanwhile."""
    cache = new_cache(max_weight=100, weigher=lambda key, value: spawn(lambda: len(cache)).result(TIMEOUT) + 1)
    cache.set("a", 1)
    cache.get("b", lambda: 2)
    assert cache.stats().weight == 3


@pytest.mark.parametrize("weight", [ValueError("no"), -1, float("nan"), float("inf"), "heavy", None, True])
def test_a_bad_weigher_fails_its_call_only(weight: object) -> None:
    """What a weigher raises, or an impossible weight, goes to the caller; the cache works on."""

    def weigh(key: object, value: object) -> Any:
        if key != "bad":
            return 1
        if isinstance(weight, Exception):
            raise weight
        return weight

    cache = new_cache(max_weight=5, weigher=weigh)
    cache.set("good", 1)
    with pytest.raises(ValueError, match=r"no|weight"):
        cache.set("bad", 1)
    with pytest.raises(ValueError, match=r"no|weight"):
        cache.get("bad", lambda: 1)
    assert cache.get("good") == 1
    assert cache.get("new", lambda: 2) == 2
    assert (len(cache), cache.stats().weight, cache.stats().loads_in_flight) == (2, 2, 0)


def test_a_weigher_that_raises_reaches_everybody_who_waits() -> None:
    """Callers that share a load share the error of its weigher, and none hangs."""

    def weigh(key: object, value: object) -> float:
        raise OSError("scales are broken")

    cache, gate = new_cache(max_weight=5, weigher=weigh), Gate()
    futures = spawn_many(4, lambda: cache.get("key", gate))
    until_waiting(cache, 3)
    gate.opened.set()
    assert [str(error) for error in errors(futures)] == ["scales are broken"] * 4


def test_a_key_whose_comparison_raises_fails_its_call_only() -> None:
    """An `__eq__` that raises in the middle of a change leaves the cache in order."""

    class Hostile:
        hostile = False

        def __hash__(self) -> int:
            return 1

        def __eq__(self, other: object) -> bool:
            if Hostile.hostile:
                raise OSError("incomparable")
            return self is other

    cache = new_cache(max_size=2)
    cache.set(Hostile(), 1)
    Hostile.hostile = True
    steps: list[Callable[[], Any]]
    steps = [lambda: cache.set(Hostile(), 2), lambda: cache.get(Hostile(), lambda: 3), lambda: cache.delete(Hostile())]
    for step in steps:
        with pytest.raises(OSError, match="incomparable"):
            step()
    Hostile.hostile = False
    for number in range(5):
        cache.set(number, number)
    assert len(cache) == 2
    assert cache.stats().loads_in_flight == 0


def test_a_clock_that_raises_fails_its_call_only() -> None:
    """The lock is released, and nothing is left behind."""
    broken = False

    def clock() -> float:
        if broken:
            raise OSError("no time")
        return 1.0

    cache = new_cache(clock=clock)
    cache.set("key", 1)
    broken = True
    steps: list[Callable[[], Any]]
    steps = [lambda: cache.get("key"), lambda: cache.get("other", lambda: 1), lambda: cache.set("key", 2)]
    for step in steps:
        with pytest.raises(OSError, match="no time"):
            step()
    broken = False
    assert spawn(cache.get, "key").result(TIMEOUT) == 1
    assert cache.get("other", lambda: 5) == 5


class Key:
    """A key whose hash function does something when it is called for a certain time."""

    countdown = 0
    action = staticmethod(lambda: None)

    def __init__(self, number: int) -> None:
        self.number = number

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Key) and other.number == self.number

    def __hash__(self) -> int:
        Key.countdown -= 1
        if Key.countdown == 0:
            Key.action()
        return self.number


STEPS: dict[str, Callable[[Any, Key], Any]] = {
    "set": lambda cache, key: cache.set(key, "set"),
    "load": lambda cache, key: cache.get(key, lambda: "loaded"),
    "delete": lambda cache, key: cache.delete(key),
    "clear": lambda cache, key: cache.clear(),
}


@pytest.mark.parametrize("policy", ["s3fifo", "lru"])
@pytest.mark.parametrize("within", STEPS)
@pytest.mark.parametrize("action", STEPS)
def test_code_in_the_middle_of_a_change_may_change_the_cache(
    within: str, action: str, policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hash function, or a finalizer run by a collection of garbage, comes at any moment; the cache stays in order."""
    *keys, last = [Key(number) for number in range(4)]
    for moment in range(1, 40):
        cache = new_cache(max_size=2, policy=policy, max_weight=3, weigher=lambda key, _: 2 if key.number == 3 else 1)
        for key in keys[:2]:
            cache.set(key, "before")
        monkeypatch.setattr(Key, "action", lambda cache=cache: [STEPS[action](cache, key) for key in keys])
        monkeypatch.setattr(Key, "countdown", moment)
        STEPS[within](cache, last)
        monkeypatch.setattr(Key, "countdown", 0)
        store = cache._store
        assert len(store.policy) == len(store.entries) <= 2
        assert store.weight == sum(entry.weight for entry in store.entries.values()) <= 3
        assert all(key is entry.key and entry.queue for key, entry in store.entries.items())
        assert cache.stats().loads_in_flight == 0


@pytest.mark.parametrize("policy", ["s3fifo", "lru"])
@pytest.mark.parametrize("threshold", [3, 7, 11])
def test_a_finalizer_may_use_the_cache_while_its_thread_changes_it(policy: str, threshold: int) -> None:
    """Garbage collected in the middle of a change may get, set, delete and clear; the cache stays in order."""
    cache = new_cache(max_size=3, policy=policy)
    ran = within = 0

    class Cyclic:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            nonlocal ran, within
            ran += 1
            within += cache._is_changing
            key = ran % 4
            steps: list[Callable[[], Any]] = [
                lambda: cache.set(key, "finalizer"),
                lambda: cache.delete(key),
                lambda: cache.get(key, lambda: "finalizer"),
                cache.clear,
            ]
            with suppress(ReentrantLoad):  # it may have come in the middle of the load of this very key
                steps[ran // 4 % 4]()

    thresholds = gc.get_threshold()
    gc.set_threshold(threshold)
    try:
        for number in range(2000):
            Cyclic()
            cache.set(number % 4, number)
            cache.get((number + 1) % 4, lambda: "loaded")
    finally:
        gc.set_threshold(*thresholds)
    gc.collect()
    assert ran == 2000
    for number in range(10):
        cache.set(number, number)
    assert len(cache) == len(cache._store.policy) == cache.stats().weight == 3
    assert cache.stats().loads_in_flight == 0


def test_memory_usage_asks_values_for_nothing_but_their_size() -> None:
    """A value that lies about its class, or cannot tell its size, does not spoil the statistics."""

    class Proxy:
        def __getattribute__(self, name: str) -> Any:
            raise RuntimeError("unbound")

    class Shy:
        def __sizeof__(self) -> int:
            raise RuntimeError("secret")

    cache = new_cache()
    cache.set_many({1: Proxy(), 2: Shy(), 3: [Proxy(), Shy()], 4: {"deep": [1] * 1000}})
    assert cache.memory_usage() > 1000


def test_the_loader_runs_without_the_lock() -> None:
    """While it runs, other threads read, write and delete."""
    cache, gate = new_cache(), Gate()
    future = spawn(cache.get, "key", gate)
    passed(gate.entered)
    spawn(cache.set, "other", 1).result(TIMEOUT)
    assert spawn(cache.get, "other").result(TIMEOUT) == 1
    assert spawn(cache.delete, "other").result(TIMEOUT)
    spawn(cache.clear).result(TIMEOUT)
    gate.opened.set()
    assert future.result(TIMEOUT) == "value"
