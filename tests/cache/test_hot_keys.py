"""Hot keys: which keys most requests are for, however they are made, at no cost for whoever does not want to know."""

import asyncio
import gc
import os
import random
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from otel_perfopt import ConfigurationError, HotKey, cached
from otel_perfopt.cache import hot
from otel_perfopt.testing import DictTier
from tests.cache.support import new_cache, no_collection, results, run, spawn, spawn_many
from tests.cache.tier_support import Site
from tests.interruptions import interrupted_at
from tests.sync.test_fork import PRELUDE, run_script

ROUNDS = 300 * hot.MEAN_DISTANCE
"""Requests that make about three hundred samples."""


@pytest.fixture(autouse=True)
def chance(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same distances in every run."""
    monkeypatch.setattr(hot, "chance", random.Random(1))


def shares(cache: Any) -> dict[Any, float]:
    """The shares of the hot keys."""
    return {each.key: each.share for each in cache.stats().hot_keys}


def check(cache: Any) -> None:
    """Of all requests, six of ten were for "hot", three for "warm", and one was for any other key."""
    first, second, *others = cache.stats().hot_keys
    requests = cache.stats().hit_count + cache.stats().miss_count + cache.stats().stale_count
    assert (first.key, second.key) == ("hot", "warm")
    assert first.share == pytest.approx(0.6, abs=0.1)
    assert second.share == pytest.approx(0.3, abs=0.1)
    assert first.requests == round(first.share * requests)
    assert all(each.share < 0.05 for each in others)


def keys() -> Iterator[Any]:
    """Keys of requests, in a pattern whose length divides the mean distance of samples but for every tenth."""
    pattern = ["hot"] * 6 + ["warm"] * 3
    for number in range(ROUNDS // 10):
        yield from pattern
        yield number % 1000


# requests of every kind -------------------------------------------------------------------------------------


async def ask_async(cache: Any) -> None:
    """Ask as coroutines do."""
    for key in keys():
        await cache.get_async(key, lambda: "value")


async def ask_many_async(cache: Any) -> None:
    """Ask for each key as the only one of many."""
    for key in keys():
        await cache.get_many_async([key], lambda missing: dict.fromkeys(missing, "value"))


ASKING: dict[str, Callable[[Any], Any]] = {
    "get": lambda cache: [cache.get(key, lambda: "value") for key in keys()],
    "get and set": lambda cache: [cache.get(key) or cache.set(key, "value") for key in keys()],
    "get_many": lambda cache: [cache.get_many([key], lambda missing: dict.fromkeys(missing, "value")) for key in keys()],
    "get_async": lambda cache: run(ask_async(cache)),
    "get_many_async": lambda cache: run(ask_many_async(cache)),
}


@pytest.mark.parametrize("way", ASKING)
def test_requests_of_every_kind(way: str) -> None:
    """Of a thousand keys, two are hot; nearly all requests are hits."""
    cache = new_cache(max_size=None)
    ASKING[way](cache)
    check(cache)


@pytest.mark.parametrize("policy", ["s3fifo", "lru"])
def test_functions(policy: Any) -> None:
    """The key of a function with one parameter is its argument."""

    @cached(policy=policy, max_size=2000)
    def load(key: object) -> str:
        return f"value of {key}"

    for key in keys():
        load(key)
    check(load.cache)


def test_coroutine_functions() -> None:
    """The same."""

    @cached(max_size=2000)
    async def load(key: object) -> str:
        return f"value of {key}"

    async def main() -> None:
        for key in keys():
            await load(key)

    asyncio.run(main())
    check(load.cache)


@pytest.mark.parametrize(
    "ask",
    [lambda cache, key: cache.get(key), lambda cache, key: cache.get_many([key]), lambda cache, key: cache.get(key, lambda: 1)],
)
def test_misses_weigh_as_much_as_hits(ask: Callable[[Any, Any], Any]) -> None:
    """Three of four requests are for keys that are not kept, or are not there."""
    cache = new_cache(max_weight=2, weigher=lambda key, _: 1 if key == "kept" else 3)
    cache.set("kept", "value")
    for number in range(ROUNDS):
        ask(cache, "kept" if number % 4 == 0 else "missed")
    assert cache.stats().hit_count == ROUNDS // 4
    assert shares(cache) == pytest.approx({"missed": 0.75, "kept": 0.25}, abs=0.1)


def test_stale_answers_and_hits_behind_the_memory_are_requests(clock: Any) -> None:
    """Whoever answers."""

    def broken() -> Any:
        raise ConnectionError

    cache = new_cache(ttl=10, stale_for=None, error_ttl=None, clock=clock)
    cache.set("stale", 1)
    clock.advance(11)
    behind = new_cache("behind", max_size=0, tiers=[DictTier()])
    behind.set("kept", 1)
    for _ in range(10 * hot.MEAN_DISTANCE):
        cache.get("stale", broken)
        behind.get("kept")
    assert cache.stats().stale_count == behind.stats().hits_by_tier["dict"] == 10 * hot.MEAN_DISTANCE
    assert [each.key for each in (*cache.stats().hot_keys, *behind.stats().hot_keys)] == ["stale", "kept"]


# what is sampled ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("period", [2, 4, 16, 32])
def test_bug_a_period_hides_no_key(period: int) -> None:
    """Every 128th request of a pattern whose length divides 128 would always be for the same key."""

    @cached
    def load(key: int) -> int:
        return key

    for number in range(2 * ROUNDS):
        load(number % period)
    found = shares(load.cache)
    assert len(found) == min(period, hot.TOP)
    assert max(found.values()) < 2.5 / period


def test_keys_that_are_all_as_frequent_are_not_hot() -> None:
    """Thousands of keys, one after the other: none has a share worth looking at."""

    @cached(max_size=None)
    def load(key: int) -> int:
        return key

    for number in range(ROUNDS):
        load(number % 5000)
    assert all(share < 0.02 for share in shares(load.cache).values())


def test_nothing_is_shown_before_a_key_was_met_three_times() -> None:
    """The first request is no more likely to be sampled than any other."""
    cache = new_cache()
    assert cache.stats().hot_keys == ()
    for number in range(3 * hot.MEAN_DISTANCE):
        cache.get(number, lambda: 1)
    assert cache.stats().hot_keys == ()


def test_the_sketch_is_small() -> None:
    """However many keys there are; ten are shown."""
    cache = new_cache(max_size=None)
    for number in range(30):
        cache.set(number, number)
    for number in range(ROUNDS):
        cache.get(number % 30 if number % 2 else number + 1000, lambda: 1)
    assert len(cache._hot._sketch) == hot.CAPACITY
    assert len(cache.stats().hot_keys) == hot.TOP
    assert [each.requests for each in cache.stats().hot_keys] == sorted(shares_of(cache), reverse=True)


def shares_of(cache: Any) -> list[int]:
    """The requests for the hot keys."""
    return [each.requests for each in cache.stats().hot_keys]


def test_the_distance_of_samples_is_right_on_average() -> None:
    """It decides what a sample costs; the numbers that a program takes from `random` are not touched."""
    random.seed(5)
    expected = random.random()
    random.seed(5)
    cache = new_cache()
    cache.set("key", 1)
    for _ in range(ROUNDS):
        cache.get("key")
    assert cache._hot._sketch.total == pytest.approx(300, rel=0.1)
    assert random.random() == expected


def test_a_tuple_can_be_read_by_name() -> None:
    """It is exported beside the stats."""
    assert HotKey("a", 5, 0.5)._asdict() == {"key": "a", "requests": 5, "share": 0.5}


# methods and shared caches -----------------------------------------------------------------------------------


class Shop:
    """Has cached methods."""

    @cached
    def price(self, article: str) -> int:
        """Return a price."""
        return len(article)

    @cached
    def name(self) -> str:
        """Return the name."""
        return "shop"


def test_methods_show_their_instance() -> None:
    """In place of its identity, so that the key can be used; also if it is all that there is."""
    shop, other = Shop(), Shop()
    for number in range(ROUNDS):
        shop.price("tea" if number % 2 else "cocoa")
        other.price("tea")
        shop.name()
    found = shares(Shop.price.cache)
    assert found == pytest.approx({(other, "tea"): 0.5, (shop, "tea"): 0.25, (shop, "cocoa"): 0.25}, abs=0.1)
    assert shares(Shop.name.cache) == {shop: 1.0}
    assert all(Shop.price.invalidate(*key) for key in found)
    assert shares(Shop.price.cache) == {}


def test_hot_keys_keep_no_instance() -> None:
    """What was sampled of one that is gone goes with its entries."""
    price: Any = cached(Shop.price.__wrapped__)
    shop: Any = type("Other", (), {"price": price})()
    with no_collection():
        for _ in range(5 * hot.MEAN_DISTANCE):
            shop.price("tea")
        assert len(price.cache.stats().hot_keys) == 1
        dying = weakref.ref(shop)
        del shop
        assert dying() is None
    assert len(price.cache._hot._sketch) == 1
    price.cache.set("any", 1)
    assert len(price.cache._hot._sketch) == 0


def test_caches_that_functions_share() -> None:
    """The name of the function comes first, and then the instance of a method."""
    cache = new_cache()

    @cached(cache=cache)
    def double(number: int) -> int:
        return 2 * number

    class Place:
        @cached(cache=cache)
        def method(self, number: int) -> int:
            return number

    place = Place()
    for _ in range(ROUNDS):
        double(7)
        place.method(8)
    names = [f"{function.__module__}.{function.__qualname__}" for function in (double.__wrapped__, Place.method.__wrapped__)]
    assert shares(cache) == pytest.approx({(names[0], 7): 0.5, (names[1], place, 8): 0.5}, abs=0.1)


# what is forgotten -------------------------------------------------------------------------------------------


class Key:
    """A key that can be watched."""


@pytest.mark.parametrize(
    "forget",
    [
        lambda cache, key: cache.delete(key),
        lambda cache, key: run(cache.delete_async(key)),
        lambda cache, _: cache.clear(),
        lambda cache, _: run(cache.clear_async()),
    ],
)
def test_nothing_holds_a_key_that_is_forgotten(forget: Callable[[Any, Any], Any]) -> None:
    """Also one that has left the memory for lack of room."""
    cache = new_cache(max_size=1, ttl=None)
    gone, other = Key(), Key()
    for _ in range(10 * hot.MEAN_DISTANCE):
        cache.get(gone, lambda: 1)
        cache.get(other, lambda: 1)
    assert set(shares(cache)) == {gone, other}
    forget(cache, gone)
    assert gone not in shares(cache)
    dying = weakref.ref(gone)
    del gone
    gc.collect()
    assert dying() is None


def test_the_others_keep_their_shares_when_one_is_deleted() -> None:
    """They are shares of all requests, those for the deleted one included."""
    cache = new_cache()
    for number in range(ROUNDS):
        cache.get(number % 2, lambda: 1)
    before = shares(cache)
    cache.delete(0)
    assert shares(cache) == {1: before[1]}


def test_a_clear_begins_anew() -> None:
    """Requests before it do not count; the counts of the cache go on."""
    cache = new_cache()
    for _ in range(ROUNDS):
        cache.get("old", lambda: 1)
    cache.clear()
    for _ in range(ROUNDS):
        cache.get("new", lambda: 1)
    (only,) = cache.stats().hot_keys
    assert only == HotKey("new", ROUNDS, 1.0)
    assert cache.stats().hit_count == 2 * ROUNDS - 2


def test_what_another_process_deletes_is_forgotten() -> None:
    """As far as a tier tells of it."""
    site = Site()
    (ours, _), (theirs, _) = site.cache(), site.cache()
    ours.set("key", 1)
    for _ in range(5 * hot.MEAN_DISTANCE):
        ours.get("key")
    assert list(shares(ours)) == ["key"]
    theirs.delete("key")
    site.settle()
    assert shares(ours) == {}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_child_begins_anew() -> None:
    """With an empty sketch, although the parent was about to use it, and with counts at zero."""
    script = """
cache = Cache("parent")
cache.set("key", 1)
for _ in range(1000):
    cache.get("key")
assert [each.key for each in cache.stats().hot_keys] == ["key"]
cache._hot._is_in_use = True

def check():
    assert cache.stats().hot_keys == () and cache.stats().hit_count == 0
    for _ in range(1000):
        cache.get("key")
    (only,) = cache.stats().hot_keys
    assert only == ("key", 1000, 1.0), only
    assert cache.stats().hit_count == 1000

in_child(check)
print(cache.stats().hit_count)
"""
    assert run_script(PRELUDE + script) == "1000\n"


# off ---------------------------------------------------------------------------------------------------------


def test_off() -> None:
    """Nothing is sampled, and the function that stands in for a cached one knows nothing of it."""
    cache = new_cache(hot_keys=False)
    for number in range(ROUNDS):
        cache.get(number % 2, lambda: 1)
    cache.delete(0)
    assert (cache.stats().hot_keys, cache._hot._sketch.total, cache.stats().hit_count) == ((), 0, ROUNDS - 2)
    made: list[Any] = [cached(hot_keys=is_on)(lambda number: number) for is_on in (True, False)]
    on, off = made
    assert "_cached_sample" in on.__code__.co_names
    assert "_cached_sample" not in off.__code__.co_names
    for _ in range(1000):
        off(7)
    assert (off.cache.stats().hot_keys, off.cache.stats().hit_count) == ((), 999)


@pytest.mark.parametrize("value", [None, 1, "no"])
def test_other_choices_are_refused(value: Any) -> None:
    """With the option, the value and the choice."""
    with pytest.raises(ConfigurationError, match=f"hot_keys={value!r} must be True or False"):
        new_cache(hot_keys=value)
    with pytest.raises(ConfigurationError, match="hot_keys="):
        cached(hot_keys=value)(lambda number: number)


# nothing goes wrong -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_on", [True, False])
def test_hits_are_counted_exactly(is_on: bool) -> None:
    """By the generated function and by the cache, in several threads at once, and while somebody looks."""

    @cached(hot_keys=is_on)
    def load(key: object) -> str:
        return str(key)

    load(1)

    def ask() -> None:
        for _ in range(10_000):
            load(1)
            load.cache.get(1)

    asking = spawn_many(4, ask)
    while not all(each.done() for each in asking):
        load.cache.stats()
    results(asking)
    assert (load.cache.stats().hit_count, load.cache.stats().miss_count) == (80_000, 1)
    assert shares(load.cache) == ({1: 1.0} if is_on else {})


def test_threads_sample_and_delete_at_once() -> None:
    """The sketch stays within its limits, and what was deleted last is not in it."""
    cache = new_cache(max_size=None)

    def ask(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(10_000):
            key = chance.randrange(500)
            cache.get(key, lambda: 1)
            if key % 7 == 0:
                cache.delete(key)

    results([spawn(ask, seed) for seed in range(4)])
    assert len(cache._hot._sketch) <= hot.CAPACITY
    for key in range(500):
        cache.delete(key)
    assert len(cache._hot._sketch) == 0


class Odd:
    """A key that compares as it likes."""

    def __init__(self) -> None:
        self.is_angry = False

    def __hash__(self) -> int:
        return 1

    def __eq__(self, other: object) -> bool:
        if self.is_angry:
            raise ValueError("not with me")
        return self is other


def test_keys_that_refuse_to_be_compared_disturb_nobody() -> None:
    """A hit compares no keys but its own; if a sample cannot, the sketch starts anew."""
    cache, odd, other = new_cache(), Odd(), Odd()
    for _ in range(5 * hot.MEAN_DISTANCE):
        cache.get(odd, lambda: 1)
    cache.delete(other)
    cache._hot._sketch.add(odd)
    odd.is_angry = True
    for _ in range(3 * hot.MEAN_DISTANCE):
        cache._hot.hit(other)
    odd.is_angry = False
    assert odd not in shares(cache)
    for _ in range(5 * hot.MEAN_DISTANCE):
        cache._hot.hit("fine")
    assert "fine" in shares(cache)
    odd.is_angry = True
    assert cache._hot.discard(other) is not None  # without an error


def test_a_finalizer_may_come_in_the_midst_of_it() -> None:
    """Like any code that runs there: its requests are no samples, and what it deletes is forgotten."""
    cache = new_cache()
    cache.set("from inside", 1)
    meddled = 0

    class Meddling:
        def __eq__(self, other: object) -> bool:
            nonlocal meddled
            if not meddled:
                meddled = 2 * hot.MEAN_DISTANCE
                for _ in range(meddled):
                    cache.get("from inside")
                cache.delete("deleted")
            return self is other

        def __hash__(self) -> int:
            return hash("deleted")

    cache._hot._sketch.add("deleted")
    while not meddled:
        cache._hot.hit(Meddling())
    assert "from inside" not in cache._hot._sketch
    assert "deleted" not in cache._hot._sketch
    for _ in range(5 * hot.MEAN_DISTANCE):
        cache.get("from inside")
    assert list(shares(cache)) == ["from inside"]


def test_bug_what_is_deleted_while_another_key_is_forgotten_is_forgotten_too() -> None:
    """It waited for the next sample."""
    cache = new_cache()

    class Meddling:
        def __eq__(self, other: object) -> bool:
            cache._hot.discard("second")
            return other == "first"

        def __hash__(self) -> int:
            return hash("first")

    cache._hot._sketch.add("first")
    cache._hot._sketch.add("second")
    assert cache._hot.discard(Meddling())
    assert len(cache._hot._sketch) == 0


def hit_until_sampled(cache: Any) -> None:
    """Count twice the mean distance of hits, even if the first sample is interrupted."""
    for left in range(2 * hot.MEAN_DISTANCE, 0, -1):
        try:
            cache._hot.hit("new")
        except KeyboardInterrupt:
            for _ in range(left - 1):
                cache._hot.hit("new")
            raise


STEPS: dict[str, Callable[[Any], Any]] = {"sample": hit_until_sampled, "discard": lambda cache: cache._hot.discard(5)}


@pytest.mark.parametrize("step", STEPS)
def test_a_step_may_be_interrupted_anywhere(step: str) -> None:
    """In the sketch, that is, because what is around it is one step each: samples are taken afterwards, and hits counted."""
    line, more = 0, True
    with no_collection():
        while more:
            line += 1
            cache = new_cache()
            for key in range(hot.CAPACITY):
                cache._hot._sketch.add(key)
            more = bool(interrupted_at(line, partial(STEPS[step], cache), ("_core/hot.py",)))
            for _ in range(20 * hot.MEAN_DISTANCE):
                cache._hot.hit("later")
            assert "later" in shares(cache)
            assert cache.stats().hit_count == (22 if step == "sample" else 20) * hot.MEAN_DISTANCE
            assert len(cache._hot._sketch) <= hot.CAPACITY
    assert line > 4, "nothing was interrupted"
