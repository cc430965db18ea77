"""Clearing: in constant time, for everybody from then on, and without a stop for what is let go of."""

import gc
import threading
import weakref
from typing import Any

import pytest

from otel_perfopt import cached
from otel_perfopt.cache.load import Request
from otel_perfopt.cache.memory import MANY
from otel_perfopt.telemetry import background
from tests.cache.callers import Callers, Clock, Source
from tests.cache.support import (
    TIMEOUT,
    Gate,
    new_cache,
    no_collection,
    passed,
    results,
    run,
    spawn,
    spawn_many,
    until,
    until_waiting,
)
from tests.cache.test_tags import steps


class Value:
    """Something that can be referred to weakly."""


@pytest.mark.parametrize("policy", ["s3fifo", "lru"])
def test_it_takes_as_many_steps_for_ten_entries_as_for_many(policy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes time is done by a worker."""
    submitted: list[Any] = []
    monkeypatch.setattr(background, "submit", submitted.append)
    counts = set()
    with no_collection():
        for entries in (2 * MANY, 4 * MANY):
            cache = new_cache(max_size=None, policy=policy)
            cache.set_many({number: Value() for number in range(entries)})
            last = weakref.ref(cache.get(entries - 1))
            counts.add(steps(cache.clear))
            assert len(cache) == 0
            assert last() is not None
            submitted.pop()()
            assert last() is None
    assert len(counts) == 1


def test_many_values_die_in_a_worker() -> None:
    """The caller goes on meanwhile, and the cache works."""
    cache, gate = new_cache(max_size=None), Gate()
    threads: list[threading.Thread] = []

    class Slow:
        def __del__(self) -> None:
            threads.append(threading.current_thread())
            gate()

    cache.set(0, Slow())
    cache.set_many(dict.fromkeys(range(1, 2 * MANY), 1))
    cache.clear()
    passed(gate.entered)
    assert (len(cache), cache.get("key", lambda: "new")) == (0, "new")
    gate.opened.set()
    until(lambda: len(threads) == 1)
    assert threads[0].name.startswith("otel-perfopt")


def test_few_values_die_at_once() -> None:
    """In the caller's thread, before `clear` returns, also without a thread to be had."""
    with no_collection():
        cache, values = new_cache(), [Value() for _ in range(100)]
        cache.set_many(dict(enumerate(values)))
        references = [weakref.ref(value) for value in values]
        del values
        cache.clear()
        assert not any(reference() for reference in references)


def test_many_values_without_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """At exit, the caller lets go of them."""

    def refuse(_: object) -> None:
        raise background.NoThread("none left")

    monkeypatch.setattr(background, "submit", refuse)
    with no_collection():
        cache = new_cache(max_size=None)
        cache.set_many({number: Value() for number in range(MANY + 1)})
        reference = weakref.ref(cache.get(0))
        cache.clear()
        assert reference() is None


@pytest.mark.parametrize("entries", [10, MANY + 10])
def test_finalizers_may_use_the_cache(entries: int) -> None:
    """All of it, from whichever thread they run in."""
    done: list[int] = []

    class Nosy:
        def __init__(self, number: int) -> None:
            self.number = number

        def __del__(self) -> None:
            if self.number < 10:
                cache.get("other")
                cache.set("again", 1)
                cache.get("load", lambda: 1, tags=["tag"])
                cache.invalidate_tag("tag")
                cache.delete("again")
                cache.clear()
                done.append(self.number)

    cache: Any = new_cache(max_size=None)
    for number in range(entries):
        cache.set(number, Nosy(number))
    cache.clear()
    until(lambda: len(done) == 10)
    assert cache.get("key", lambda: "new") == "new"
    assert len(cache._store.policy) == len(cache)


def test_loads_that_began_before_are_not_kept(callers: Callers, others: Callers) -> None:
    """Those who wait get their values; those who come after load anew."""
    cache, gates = new_cache(), [Gate(number) for number in range(3)]
    asked = [callers.ask(cache, gate, key=number) for number, gate in enumerate(gates)]
    for gate in gates:
        passed(gate.entered)
    asked.append(others.ask(cache, Source("wrong"), key=0))
    until_waiting(cache, 1)
    cache.clear()
    assert others.get(cache, lambda: "new", key=1) == "new"
    for gate in gates:
        gate.opened.set()
    assert results(asked) == [0, 1, 2, 0]
    assert [key for key in range(3) if key in cache] == [1]
    assert cache.get(1) == "new"


def test_what_was_cleared_is_not_served_stale(callers: Callers, clock: Clock) -> None:
    """A known trap: the old value is back as soon as the next load fails."""
    cache, source = new_cache(ttl=60, stale_for=None, clock=clock), Source(ConnectionError())
    cache.set("key", "old")
    clock.advance(61)
    assert callers.get(cache, source) == "old"
    cache.clear()
    assert callers.error(cache, source) is source.outcome


def test_bug_entries_of_dead_instances_waited_for_a_garbage_collection(clock: Clock) -> None:
    """Those of living instances went at once; an instance that had died just before kept its own in a circle."""

    class Shop:
        @cached(clock=clock)
        def price(self, article: str) -> Value:
            del article
            return Value()

    cache: Any = Shop.price.cache
    with no_collection():
        for _ in range(3):
            one, two = Shop(), Shop()
            values = [weakref.ref(shop.price("tea")) for shop in (one, two)]
            del two
            cache.clear()
            assert [value() for value in values] == [None, None]
            value = one.price("tea")
            assert one.price("tea") is value
            reference = weakref.ref(value)
            del one, value
            Shop().price("fish")
            assert reference() is None


def test_a_load_of_a_method_that_is_cleared_meanwhile(clock: Clock) -> None:
    """Its instance dies later, and nothing of it is left."""
    gate = Gate("value")

    class Shop:
        @cached(clock=clock)
        def price(self) -> Any:
            return gate()

    shop = Shop()
    asked = spawn(shop.price)
    passed(gate.entered)
    cache: Any = Shop.price.cache
    cache.clear()
    gate.opened.set()
    assert asked.result(TIMEOUT) == "value"
    assert len(cache) == 0
    assert shop.price() == "value"
    reference = weakref.ref(shop)
    del shop, asked
    gc.collect()
    assert reference() is None
    assert not any(entry.fresh_until > clock() for entry in cache._store.entries.values())


def test_limits_hold_afterwards() -> None:
    """Counts of entries, of weight and of what is evicted begin anew or go on."""
    cache = new_cache(max_size=3, max_weight=10, weigher=lambda _, value: value)
    for _ in range(3):
        cache.set_many({"a": 5, "b": 5})
        assert cache.stats().weight == 10
        cache.clear()
        assert cache.stats().weight == 0
        cache.set_many(dict.fromkeys(range(5), 1))
        assert len(cache) == 3
        cache.clear()
    assert cache.stats().evictions_capacity == 6


def test_many_threads_clear_and_fill_at_once() -> None:
    """The store and its policy agree in the end."""
    cache = new_cache(max_size=50)

    def work() -> None:
        for number in range(300):
            cache.set(number % 70, number)
            cache.get(number % 30, lambda: 1)
            if number % 40 == 0:
                cache.clear()

    results(spawn_many(6, work))
    assert len(cache._store.policy) == len(cache) == cache.stats().weight <= 50


def test_the_asynchronous_twin() -> None:
    """It does the same."""
    cache = new_cache()
    cache.set("key", 1)
    run(cache.clear_async())
    assert "key" not in cache


def test_bug_a_dropped_cache_left_the_entries_of_dead_instances_behind() -> None:
    """The same when the whole cache goes."""

    class Owner:
        pass

    with no_collection():
        cache, owner = new_cache(), Owner()
        value = weakref.ref(cache._share(Request("key", Value, owner=owner)))
        del owner
        assert value() is not None
        del cache
        assert value() is None
