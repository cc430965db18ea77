"""Time, size and weight: when entries go, and what is counted then."""

import math
from datetime import timedelta
from typing import Any

import pytest

from otel_perfopt import ConfigurationError
from otel_perfopt.testing import ManualClock
from tests.cache.support import new_cache

POLICIES = ["s3fifo", "lru"]


@pytest.mark.parametrize("ttl", [10, 10.0, "10s", "10000ms", timedelta(seconds=10)])
def test_an_entry_lives_exactly_its_time(ttl: Any) -> None:
    """It is fresh until just before its time is over, and not a moment longer."""
    clock = ManualClock()
    cache = new_cache(ttl=ttl, clock=clock)
    cache.set("key", 1)
    clock.advance(math.nextafter(10, 0))
    assert cache.get("key") == 1
    assert "key" in cache
    clock.advance(10 - clock())
    assert cache.get("key") is None
    assert "key" not in cache


def test_each_entry_may_have_its_own_time() -> None:
    """`ttl` of a call goes before that of the cache; None is for ever."""
    clock = ManualClock()
    cache = new_cache(ttl=10, clock=clock)
    cache.set("short", 1, ttl="1s")
    cache.set("own", 1)
    cache.set("long", 1, ttl=timedelta(minutes=1))
    cache.set("ever", 1, ttl=None)
    cache.get("loaded", lambda: 1, ttl=5)
    seen = []
    for wait in (1, 4, 5, 50, 1e12):
        clock.advance(wait)
        seen.append([key for key in ("short", "loaded", "own", "long", "ever") if key in cache])
    assert seen == [
        ["loaded", "own", "long", "ever"],
        ["own", "long", "ever"],
        ["long", "ever"],
        ["ever"],
        ["ever"],
    ]


def test_a_new_value_has_a_new_time() -> None:
    """Setting again starts the time again; reading does not."""
    clock = ManualClock()
    cache = new_cache(ttl=10, clock=clock)
    cache.set("key", 1)
    clock.advance(9)
    cache.set("key", 2)
    clock.advance(9)
    assert cache.get("key") == 2
    clock.advance(1)
    assert cache.get("key") is None


def test_the_time_of_a_load_begins_at_its_end() -> None:
    """A value is not older than the moment it was returned."""
    clock = ManualClock()
    cache = new_cache(ttl=10, clock=clock)
    cache.get("key", lambda: clock.advance(30))
    clock.advance(9)
    assert "key" in cache


def test_a_cache_without_ttl_keeps_for_ever() -> None:
    """ttl=None."""
    clock = ManualClock()
    cache = new_cache(ttl=None, clock=clock)
    cache.set("key", 1)
    clock.advance(1e15)
    assert cache.get("key") == 1


@pytest.mark.parametrize("ttl", [0, -1, "0s", math.nan, math.inf, "soon", timedelta(0), True, [], "5", ""])
def test_a_ttl_that_cannot_work_is_refused(ttl: Any) -> None:
    """By the cache as a ConfigurationError; by a call before it loads anything."""
    with pytest.raises(ConfigurationError, match="ttl"):
        new_cache(ttl=ttl)
    calls: list[int] = []
    cache = new_cache()
    with pytest.raises((TypeError, ValueError), match="ttl"):
        cache.get("key", lambda: calls.append(1), ttl=ttl)
    with pytest.raises((TypeError, ValueError), match="ttl"):
        cache.set("key", 1, ttl=ttl)
    assert (calls, len(cache)) == ([], 0)


@pytest.mark.parametrize(
    "options",
    [
        {"max_size": -1},
        {"max_size": 1.5},
        {"max_size": True},
        {"max_size": "10"},
        {"policy": "random"},
        {"policy": None},
        {"policy": []},
        {"max_weight": 5},
        {"weigher": len},
        {"max_weight": 0, "weigher": len},
        {"max_weight": math.inf, "weigher": len},
        {"max_weight": "5", "weigher": len},
        {"name": ""},
        {"name": "  "},
        {"name": 5},
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, Any]) -> None:
    """A ConfigurationError names the option."""
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        new_cache(**options)


def test_max_size_zero_keeps_nothing() -> None:
    """Every value is passed on, none is kept or counted as evicted."""
    cache = new_cache(max_size=0)
    cache.set("key", 1)
    assert cache.get("key") is None
    assert [cache.get("key", lambda: number) for number in (1, 2)] == [1, 2]  # noqa: B023 - called at once
    stats = cache.stats()
    assert (stats.size, stats.evictions_capacity, stats.miss_count) == (0, 0, 3)


@pytest.mark.parametrize("policy", POLICIES)
def test_max_size_one_keeps_the_last(policy: str) -> None:
    """The smallest cache that keeps anything."""
    cache = new_cache(max_size=1, policy=policy)
    for number in range(5):
        cache.set(number, number)
        assert cache.get(number) == number
    assert (len(cache), cache.stats().evictions_capacity) == (1, 4)


@pytest.mark.parametrize("policy", POLICIES)
def test_without_max_size_everything_stays(policy: str) -> None:
    """max_size=None."""
    cache = new_cache(max_size=None, policy=policy)
    cache.set_many({number: number for number in range(5000)})
    assert len(cache) == 5000
    assert cache.stats().max_size is None


@pytest.mark.parametrize("policy", POLICIES)
def test_a_cache_is_never_over_its_size(policy: str) -> None:
    """Not even for a moment after a set."""
    cache = new_cache(max_size=10, policy=policy)
    for number in range(200):
        cache.set(number % 37, number)
        cache.get(number % 11)
        assert len(cache) <= 10


def test_lru_evicts_what_was_not_used_longest() -> None:
    """A hit through get counts as use; so does one through a cached function."""
    cache = new_cache(max_size=3, policy="lru")
    cache.set_many({"a": 1, "b": 2, "c": 3})
    cache.get("a")
    cache.set("d", 4)
    assert [key for key in "abcd" if key in cache] == ["a", "c", "d"]


def test_s3fifo_keeps_what_is_asked_for_again() -> None:
    """A scan of keys that are asked for once does not push out the popular ones."""
    cache = new_cache(max_size=20)
    popular = range(10)
    for key in popular:
        cache.set(key, key)
    for scan in range(300):
        for key in popular:
            cache.get(key)
        cache.set(1000 + scan, scan)
    assert all(key in cache for key in popular)


@pytest.mark.parametrize("policy", POLICIES)
def test_weights_add_up(policy: str) -> None:
    """The sum of weights stays within the limit, and follows every change."""
    cache = new_cache(max_size=None, policy=policy, max_weight=10, weigher=lambda key, value: value)
    cache.set_many({"a": 4, "b": 4})
    assert cache.stats().weight == 8
    cache.set("a", 1)
    assert cache.stats().weight == 5
    cache.set("c", 5)
    assert (cache.stats().weight, len(cache)) == (10, 3)
    cache.set("d", 7)
    assert cache.stats().weight <= 10
    assert "d" in cache
    cache.delete("d")
    cache.set("zero", 0)
    assert cache.stats().weight == sum(cache.get(key) for key in ("a", "b", "c", "zero") if key in cache)
    cache.clear()
    assert cache.stats().weight == 0


def test_an_entry_that_is_too_heavy_is_not_kept() -> None:
    """It evicts nobody else; what its key had before is out of date, and gone."""
    cache = new_cache(max_weight=10, weigher=lambda key, value: value)
    cache.set_many({"a": 3, "b": 3})
    assert cache.get("c", lambda: 11) == 11
    assert cache.get("c", lambda: 12) == 12
    cache.set("a", 11)
    assert [key for key in "abc" if key in cache] == ["b"]
    assert cache.stats().evictions_weight == 3
    cache.set("exactly", 10)
    assert [key for key in ("a", "b", "exactly") if key in cache] == ["exactly"]


def test_evictions_are_counted_by_reason() -> None:
    """Capacity, weight, and time; deletions and replacements are none."""
    clock = ManualClock()
    cache = new_cache(max_size=3, max_weight=10, weigher=lambda key, value: value, clock=clock, ttl=10)
    for key in "abcd":
        cache.set(key, 1)
    cache.set("heavy", 9)
    clock.advance(10)
    cache.set("late", 1)
    cache.set("late", 2)
    cache.delete("late")
    stats = cache.stats()
    assert (stats.evictions_capacity, stats.evictions_weight, stats.evictions_expired) == (2, 1, 2)
    assert stats.size == 0


def test_what_has_expired_is_swept_bit_by_bit() -> None:
    """Entries nobody asks for again do not stay: every set removes up to four that have expired."""
    clock = ManualClock()
    cache = new_cache(max_size=None, ttl=10, clock=clock)
    cache.set_many({number: number for number in range(100)})
    clock.advance(10)
    for number in range(25):
        cache.set(f"new {number}", number)
    stats = cache.stats()
    assert (stats.size, stats.evictions_expired) == (25, 100)


def test_statistics_tell_the_whole_story() -> None:
    """Every request is a hit or a miss, once; membership and length are no requests."""
    cache = new_cache(max_size=5)
    assert cache.stats().hit_rate == 0
    cache.get("a")
    cache.get("a", default=1)
    cache.get("a", lambda: 1)
    for _ in range(6):
        cache.get("a")
    assert "a" in cache
    assert len(cache) == 1
    stats = cache.stats()
    assert (stats.name, stats.hit_count, stats.miss_count, stats.size, stats.max_size) == ("test", 6, 3, 1, 5)
    assert stats.hit_rate == pytest.approx(2 / 3)
    assert stats.memory_usage > 0


def test_default_is_for_missing_values_only() -> None:
    """None is a value: it is a hit, and no default stands in for it."""
    cache = new_cache()
    cache.set("key", None)
    assert cache.get("key", default="default") is None
    assert cache.get("other", default="default") == "default"
    assert cache.get("key", lambda: "never called") is None
    assert (cache.stats().hit_count, cache.stats().miss_count) == (2, 1)


def test_keys_are_compared_as_a_dict_compares_them() -> None:
    """1, 1.0 and True are one key; what cannot be a key of a dict is refused."""
    cache = new_cache()
    cache.set(1, "one")
    assert [cache.get(key) for key in (1.0, True)] == ["one", "one"]
    for step in (cache.get, cache.delete, cache.expire, cache.__contains__, lambda key: cache.set(key, 1)):
        with pytest.raises(TypeError, match="unhashable"):
            step([])


def test_the_manual_clock_goes_forward_only() -> None:
    """It stands still, takes any duration, and shows its time."""
    clock = ManualClock(5)
    clock.advance("1m")
    clock.advance(0)
    assert (clock(), clock()) == (65, 65)
    assert repr(clock) == "<ManualClock at 65.0 s>"
    with pytest.raises(ValueError, match="by=-1"):
        clock.advance(-1)
