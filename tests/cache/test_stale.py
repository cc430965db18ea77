"""Fail-safe: an expired value is served while its load fails, not longer than `stale_for`, and the load is not hammered."""

import logging
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from otel_perfopt import Cache, cached
from otel_perfopt.cache.lifetimes import RETRY_AFTER
from otel_perfopt.telemetry import instruments, names
from otel_perfopt.testing import ManualClock
from tests.cache.callers import Callers, Clock, Source, as_coroutine
from tests.cache.support import TIMEOUT, Gate, new_cache, no_collection, passed, results, run, spawn, spawn_many, until_waiting

BROKEN = ConnectionError("the source is down")


def stale_cache(clock: Clock, **options: Any) -> Any:
    """Make a cache with one value whose time is over."""
    cache = new_cache(**{"ttl": 60, "stale_for": 3600, "clock": clock, **options})
    cache.set("key", "old")
    clock.advance(61)
    return cache


def test_bug_expire_did_not_begin_the_time_of_a_stale_value() -> None:
    """A value that would be fresh for ever is stale from `expire` on, and not longer than it may be."""
    clock = ManualClock()
    cache = new_cache(ttl=None, stale_for=60, clock=clock)

    def fails() -> str:
        raise OSError("no")

    cache.set("key", "old")
    cache.expire("key")
    clock.advance(59)
    assert cache.get("key", fails) == "old"
    clock.advance(1)
    with pytest.raises(OSError, match="no"):
        cache.get("key", fails)


def test_an_old_value_is_served_while_the_load_fails(callers: Callers, clock: Clock) -> None:
    """It counts as stale, the loader is left alone for about ten seconds, and its next value is kept."""
    cache, source = stale_cache(clock), Source(BROKEN)
    assert [callers.get(cache, source) for _ in range(3)] == ["old"] * 3
    assert source.calls == 1
    clock.advance(0.8 * RETRY_AFTER - 0.01)
    assert callers.get(cache, source) == "old"
    assert source.calls == 1
    clock.advance(0.2 * RETRY_AFTER + 0.02)
    assert callers.get(cache, source) == "old"
    assert source.calls == 2
    source.outcome = "new"
    clock.advance(RETRY_AFTER)
    assert [callers.get(cache, source) for _ in range(2)] == ["new"] * 2
    assert source.calls == 3
    stats = cache.stats()
    assert (stats.stale_count, stats.miss_count, stats.hit_count) == (5, 1, 1)


def test_without_an_old_value_a_failure_is_an_error(callers: Callers, clock: Clock) -> None:
    """And nothing holds the next attempt up."""
    cache, source = new_cache(ttl=60, stale_for=3600, clock=clock), Source(BROKEN)
    assert [callers.error(cache, source) for _ in range(2)] == [BROKEN, BROKEN]
    assert source.calls == 2
    assert cache.stats().stale_count == 0


def test_an_old_value_is_served_for_so_long_and_no_longer(callers: Callers, clock: Clock) -> None:
    """The window begins when the value expires."""
    cache, source = stale_cache(clock, stale_for=100), Source(BROKEN)
    clock.advance(98.9)
    assert callers.get(cache, source) == "old"
    clock.advance(0.2)
    assert callers.error(cache, source) is BROKEN


def test_without_the_option_nothing_stale_is_served(callers: Callers, clock: Clock) -> None:
    """This is the default."""
    assert callers.error(stale_cache(clock, stale_for=0), Source(BROKEN)) is BROKEN


def test_none_serves_it_for_ever(callers: Callers, clock: Clock) -> None:
    """As long as it is in memory."""
    cache = stale_cache(clock, stale_for=None)
    clock.advance("365d")
    assert callers.get(cache, Source(BROKEN)) == "old"


def test_none_is_a_value_that_can_be_stale(callers: Callers, clock: Clock) -> None:
    """Like any other."""
    cache = stale_cache(clock)
    cache.set("key", None)
    clock.advance(61)
    assert callers.get(cache, Source(BROKEN)) is None
    assert cache.stats().stale_count == 1


def test_a_stale_value_needs_a_loader(clock: Clock) -> None:
    """Whoever does not say how to load it, is told that it is not there."""
    cache = stale_cache(clock)
    assert cache.get("key", default="nothing") == "nothing"
    assert "key" not in cache
    assert not cache.delete("key")


def test_an_exit_is_not_hidden(clock: Clock) -> None:
    """`SystemExit` and `KeyboardInterrupt` are no failures of the source; the stale value stays."""
    cache = stale_cache(clock)
    for exit_ in (SystemExit("bye"), KeyboardInterrupt()):
        assert spawn(cache.get, "key", Source(exit_)).exception(TIMEOUT) is exit_
    assert spawn(cache.get, "key", Source(BROKEN)).result(TIMEOUT) == "old"


def test_an_exit_asked_for_on_a_loop_is_not_hidden(clock: Clock) -> None:
    """It stops the loop, as it would without a cache."""
    cache = stale_cache(clock)
    for loader in (Source(SystemExit("bye")), as_coroutine(Source(SystemExit("bye")))):
        with pytest.raises(SystemExit, match="bye"):
            run(cache.get_async("key", loader))
    assert run(cache.get_async("key", Source(BROKEN))) == "old"


def test_a_mistake_of_the_caller_is_not_hidden(clock: Clock) -> None:
    """A loader of the wrong kind is an error, and no reason to serve old values or to hold the next attempt up."""

    async def load() -> str:
        return "new"

    cache = stale_cache(clock)
    for loader in (load, lambda: load()):
        with pytest.raises(TypeError, match="get_async"):
            cache.get("key", loader)
    assert cache.get("key", lambda: "new") == "new"
    assert cache.stats().stale_count == 0


def test_all_who_wait_for_a_failing_load_get_the_old_value(callers: Callers, others: Callers, clock: Clock) -> None:
    """One call, whoever started it."""
    cache, gate = stale_cache(clock), Gate(BROKEN)
    asked = [callers.ask(cache, gate)]
    passed(gate.entered)
    asked += [others.ask(cache, gate) for _ in range(3)]
    until_waiting(cache, 3)
    gate.opened.set()
    assert results(asked) == ["old"] * 4
    assert (gate.calls, cache.stats().stale_count) == (1, 4)


INVALIDATIONS: dict[str, Callable[[Any], Any]] = {
    "delete": lambda cache: cache.delete("key"),
    "clear": lambda cache: cache.clear(),
    "tag": lambda cache: cache.invalidate_tag("tag"),
}


@pytest.mark.parametrize("how", INVALIDATIONS)
@pytest.mark.parametrize("when", ["before", "during", "after a failure"])
def test_what_was_invalidated_is_not_served(how: str, when: str, callers: Callers, clock: Clock) -> None:
    """Not even stale, whether it was invalidated while fresh, while stale, or while the load failed."""
    cache, gate = new_cache(ttl=60, stale_for=3600, clock=clock), Gate(BROKEN)
    cache.set("key", "old", tags=["tag"])
    if when == "before":
        INVALIDATIONS[how](cache)
    clock.advance(61)
    if when == "after a failure":
        assert callers.get(cache, Source(BROKEN)) == "old"
        INVALIDATIONS[how](cache)
    asked = callers.ask(cache, gate)
    passed(gate.entered)
    if when == "during":
        INVALIDATIONS[how](cache)
    gate.opened.set()
    assert asked.exception(TIMEOUT) is BROKEN
    assert callers.get(cache, lambda: "new") == "new"


def test_expire_keeps_the_value_for_fail_safe(callers: Callers, clock: Clock) -> None:
    """The next caller loads; if that fails, the old value is better than none."""
    cache, source = new_cache(ttl=60, stale_for=3600, clock=clock), Source(BROKEN)
    cache.set("key", "old")
    assert cache.expire("key")
    assert "key" not in cache
    assert not cache.expire("key")
    assert callers.get(cache, source) == "old"
    assert source.calls == 1
    cache.expire("key")  # somebody wants a new value, and not in ten seconds
    source.outcome = "new"
    assert callers.get(cache, source) == "new"


def test_expire_without_fail_safe_leaves_nothing_to_serve(callers: Callers, clock: Clock) -> None:
    """It is then the same as a delete for whoever reads."""
    cache = new_cache(ttl=60, clock=clock)
    cache.set("key", "old")
    assert cache.expire("key")
    assert callers.error(cache, Source(BROKEN)) is BROKEN


def test_a_load_that_began_before_an_expiry_is_kept(callers: Callers, clock: Clock) -> None:
    """`expire` says that a value is old, not that it is wrong."""
    cache, gate = stale_cache(clock), Gate("new")
    asked = callers.ask(cache, gate)
    passed(gate.entered)
    cache.expire("key")
    gate.opened.set()
    assert asked.result(TIMEOUT) == "new"
    assert cache.get("key") == "new"


def test_a_set_ends_the_pause(callers: Callers, clock: Clock) -> None:
    """The failure of an older value says nothing about a newer one."""
    cache, source = stale_cache(clock), Source(BROKEN)
    assert callers.get(cache, source) == "old"
    cache.set("key", "set", ttl=1)
    clock.advance(2)
    assert callers.get(cache, source) == "set"
    assert source.calls == 2


def test_failures_of_one_key_do_not_hold_up_another(callers: Callers, clock: Clock) -> None:
    """The pause is each key's own."""
    cache = stale_cache(clock)
    callers.get(cache, Source(BROKEN))
    assert callers.get(cache, lambda: "other", key="other") == "other"


def test_many_threads_at_once_call_a_broken_source_once(clock: Clock) -> None:
    """Those who come later are in the pause."""
    cache, source = stale_cache(clock), Source(BROKEN)
    assert results(spawn_many(12, lambda: cache.get("key", source))) == ["old"] * 12
    assert source.calls == 1


def test_a_short_ttl_makes_the_pause_shorter(callers: Callers, clock: Clock) -> None:
    """A value that is fresh for a second may be tried again after a second."""
    cache, source = new_cache(ttl=1, stale_for=60, clock=clock), Source(BROKEN)
    cache.set("key", "old")
    clock.advance(2)
    callers.get(cache, source)
    clock.advance(1)
    callers.get(cache, source)
    assert source.calls == 2


def test_pauses_are_spread(clock: Clock) -> None:
    """So that keys which failed together are not tried again together."""
    cache = new_cache(ttl=60, stale_for=3600, clock=clock)
    for key in range(50):
        cache.set(key, "old")
    clock.advance(61)
    source = Source(BROKEN)
    for key in range(50):
        cache.get(key, source)
    clock.advance(0.9 * RETRY_AFTER)
    for key in range(50):
        cache.get(key, source)
    assert 50 < source.calls < 100


def test_a_decorated_function_and_method(clock: Clock) -> None:
    """They take the options of the cache."""
    source = Source("old")

    @cached(ttl=60, stale_for=3600, clock=clock)
    def function(number: int) -> Any:
        return number, source()

    class Service:
        @cached(ttl=60, stale_for=3600, clock=clock)
        def method(self, number: int) -> Any:
            return number, source()

    service = Service()
    assert (function(1), service.method(1)) == ((1, "old"), (1, "old"))
    source.outcome = BROKEN
    clock.advance(61)
    assert (function(1), service.method(1)) == ((1, "old"), (1, "old"))
    assert function.cache.stats().stale_count == Service.method.cache.stats().stale_count == 1
    function.invalidate(1)
    Service.method.invalidate(service, 1)
    for call in (function, service.method):
        with pytest.raises(ConnectionError):
            call(1)


def test_the_stale_count_is_a_result_of_requests(clock: Clock, request: pytest.FixtureRequest) -> None:
    """Requests are hits, misses and stale ones, each counted once."""
    name = request.node.nodeid
    cache: Cache[str, str] = Cache(name, ttl=60, stale_for=3600, clock=clock)
    cache.get("key", lambda: "old")
    cache.get("key")
    clock.advance(61)
    for _ in range(3):
        cache.get("key", Source(BROKEN))
    counted = {
        reading.attributes[names.CACHE_RESULT]: reading.value
        for reading in instruments.observe(names.CACHE_REQUESTS)
        if reading.attributes[names.CACHE_NAME] == name
    }
    assert counted == {"hit": 1, "miss": 1, "stale": 3}


def test_a_hidden_failure_is_logged_once_a_minute(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody else would hear of it."""
    cache = stale_cache(clock)

    def lines() -> int:
        return sum("older value is served" in record.getMessage() for record in caplog.records)

    with caplog.at_level(logging.WARNING, "otel_perfopt"):
        for _ in range(2):
            cache.get("key", Source(BROKEN))
            clock.advance(RETRY_AFTER)
        assert lines() == 1
        assert "the source is down" in caplog.text
        clock.advance(60)
        cache.get("key", Source(BROKEN))
        assert lines() == 2


def test_a_failure_that_somebody_sees_is_not_logged(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """The caller decides what to make of it."""
    with caplog.at_level(logging.WARNING, "otel_perfopt"), pytest.raises(ConnectionError):
        new_cache(stale_for=60, clock=clock).get("key", Source(BROKEN))
    assert not caplog.records


class Unspeakable(Exception):
    """An error that cannot be shown."""

    def __repr__(self) -> str:
        raise RuntimeError("no words")


def test_bug_an_error_that_cannot_be_shown_broke_fail_safe(callers: Callers, clock: Clock) -> None:
    """The line in the log is for nobody's good if it takes the value away."""
    cache = stale_cache(clock)
    assert callers.get(cache, Source(Unspeakable())) == "old"
    assert cache.stats().loads_in_flight == 0


def test_bug_a_hidden_failure_kept_everything_that_its_traceback_knew(clock: Clock) -> None:
    """For the pause, it is enough to know that there was one."""

    class Value:
        pass

    seen: list[weakref.ref[Value]] = []

    def load() -> None:
        value = Value()
        seen.append(weakref.ref(value))
        raise ConnectionError

    cache = stale_cache(clock)
    with no_collection():
        assert cache.get("key", load) == "old"
        assert seen[0]() is None
