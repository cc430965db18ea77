"""The options of loading: which values they take, and what is said to those who give others."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from otel_perfopt import Cache, ConfigurationError, cached
from tests.cache.callers import Clock
from tests.cache.support import new_cache, run

BAD: list[tuple[dict[str, Any], str]] = [
    ({"ttl_jitter": -0.1}, "ttl_jitter=-0.1 must be a fraction of the ttl, from 0 to less than 1"),
    ({"ttl_jitter": 1}, "ttl_jitter=1 must be a fraction"),
    ({"ttl_jitter": float("nan")}, "ttl_jitter=nan must be a fraction"),
    ({"ttl_jitter": True}, "ttl_jitter=True must be a fraction"),
    ({"ttl_jitter": "10%"}, "ttl_jitter='10%' must be a fraction"),
    ({"ttl_jitter": None}, "ttl_jitter=None must be a fraction"),
    ({"refresh_after": 0}, "refresh_after=0 has no meaning: use a positive duration, or None"),
    ({"refresh_after": 300}, "refresh_after=300 has no effect: the ttl of 300.0 is over before"),
    ({"refresh_after": "6m", "ttl": "5m"}, "refresh_after='6m' has no effect: the ttl of '5m' is over before"),
    ({"stale_for": -1}, "stale_for=-1 must be a finite number of seconds that is not negative"),
    ({"stale_for": "soon"}, "stale_for='soon' is not a duration"),
    ({"stale_for": True}, "stale_for must be seconds, a timedelta or a string such as '5m', not bool"),
    ({"stale_for": float("inf")}, "stale_for=inf must be a finite number"),
    ({"soft_timeout": 1}, "soft_timeout=1 has no effect without stale_for="),
    ({"soft_timeout": 0}, "soft_timeout=0 has no effect without stale_for="),
    ({"soft_timeout": 5, "hard_timeout": 5, "stale_for": 1}, "soft_timeout=5 must be shorter than hard_timeout=5"),
    ({"soft_timeout": "1m", "hard_timeout": 5, "stale_for": 1}, "soft_timeout='1m' must be shorter than hard_timeout=5"),
    ({"hard_timeout": 0}, "hard_timeout=0 has no meaning: use a positive duration, or None"),
    ({"hard_timeout": []}, "hard_timeout must be seconds, a timedelta or a string such as '5m', not list"),
    ({"error_ttl": -1}, "error_ttl=-1 must be a finite number of seconds that is not negative"),
    ({"error_ttl": "never"}, "error_ttl='never' is not a duration"),
    ({"ttl": 0}, "ttl=0 has no meaning"),
]


@pytest.mark.parametrize(("options", "message"), BAD, ids=[str(options) for options, _ in BAD])
def test_a_bad_value_is_refused(options: dict[str, Any], message: str) -> None:
    """When the cache is made, with the option, its value and what would work."""
    with pytest.raises(ConfigurationError) as refused:
        new_cache(**options)
    assert message in str(refused.value)
    with pytest.raises(ConfigurationError):
        cached(**options)(lambda: 1)


GOOD: list[dict[str, Any]] = [
    {"stale_for": 0, "error_ttl": 0, "ttl_jitter": 0},
    {"stale_for": None, "error_ttl": None},
    {"stale_for": "1h", "soft_timeout": 0},
    {"stale_for": timedelta(hours=1), "soft_timeout": "50ms", "hard_timeout": timedelta(seconds=5)},
    {"hard_timeout": 0.1},
    {"ttl": None, "refresh_after": "1h", "ttl_jitter": 0.5},
    {"refresh_after": 299.9, "ttl_jitter": 0.999},
]


@pytest.mark.parametrize("options", GOOD, ids=str)
def test_a_good_value_works(options: dict[str, Any]) -> None:
    """A zero where it means something, None for no limit, and durations of every kind."""
    cache = new_cache(**options)
    assert cache.get("key", lambda: "value") == run(cache.get_async("key", lambda: "wrong")) == "value"


def test_options_beside_a_given_cache_are_refused() -> None:
    """They are the cache's own."""
    with pytest.raises(ConfigurationError, match="stale_for=, error_ttl= has no effect beside cache="):
        cached(cache=new_cache(), stale_for=1, error_ttl=1)(lambda: 1)


@pytest.mark.parametrize("ttl", [0, -1, "soon", [], float("nan")])
def test_a_bad_time_of_one_entry_is_refused(ttl: Any) -> None:
    """As the option of the cache is."""
    cache = new_cache()
    calls: list[Callable[[], Any]] = [
        lambda: cache.set("key", 1, ttl=ttl),
        lambda: cache.get("key", lambda: 1, ttl=ttl),
        lambda: run(cache.get_async("key", lambda: 1, ttl=ttl)),
    ]
    for call in calls:
        with pytest.raises(ConfigurationError, match="ttl"):
            call()
    assert len(cache) == 0


def fresh_for(cache: Cache[Any, Any], clock: Clock, key: object, most: float) -> float:
    """How long an entry is fresh, on a clock of its own, to a hundredth of the most."""
    begin = clock()
    while key in cache:
        clock.advance(most / 100)
        assert clock() - begin < 1.1 * most
    return clock() - begin


def test_jitter_makes_times_shorter_and_different(clock: Clock) -> None:
    """Never longer, and never by more than the fraction."""
    cache: Cache[int, int] = new_cache(ttl=100, ttl_jitter=0.5, clock=clock)
    found = []
    for key in range(100):
        cache.set(key, key)
        found.append(fresh_for(cache, clock, key, 100))
    assert 49 < min(found) < 60
    assert 90 < max(found) < 101.5
    assert len({round(seconds) for seconds in found}) > 20


def test_jitter_goes_for_the_times_of_single_entries_too(clock: Clock) -> None:
    """And for ever stays for ever."""
    cache: Cache[Any, int] = new_cache(ttl=None, ttl_jitter=0.5, clock=clock)
    cache.set("for ever", 1)
    for key in range(30):
        cache.set(key, key, ttl=10)
    clock.advance(7.5)
    assert 0 < sum(key in cache for key in range(30)) < 30
    clock.advance("365d")
    assert "for ever" in cache


def test_without_jitter_times_are_exact(clock: Clock) -> None:
    """This is the default."""
    cache: Cache[int, int] = new_cache(ttl=100, clock=clock)
    cache.set_many({key: key for key in range(10)})
    clock.advance(99.999)
    assert all(key in cache for key in range(10))
    clock.advance(0.001)
    assert not any(key in cache for key in range(10))
