"""Threads that want the same value at the same time: one of them loads it."""

import asyncio
import gc
import threading
import traceback
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from otel_perfopt import Cache, ReentrantLoad, cached
from tests.cache.support import (
    TIMEOUT,
    Gate,
    errors,
    new_cache,
    passed,
    results,
    spawn,
    spawn_many,
    until_waiting,
)

CALLERS = 12
INTERRUPTIONS = [KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError]


def together(cache: Cache, gate: Gate) -> Any:
    """Have twelve threads get one key while the load is in progress, then let it end."""
    futures = spawn_many(CALLERS, lambda: cache.get("key", gate))
    until_waiting(cache, CALLERS - 1)
    gate.opened.set()
    return futures


@pytest.mark.parametrize("value", ["value", None, 0, ()])
def test_callers_share_one_load(value: object) -> None:
    """Twelve callers of a missing key cost one load, and all get its value, whatever it is."""
    cache, gate = new_cache(), Gate(value)
    assert results(together(cache, gate)) == [value] * CALLERS
    assert gate.calls == 1
    assert cache.get("key", gate) == value
    assert gate.calls == 1


def test_every_request_counts_once() -> None:
    """A caller that joins a load counts as one miss, and everybody after it as one hit."""
    cache, gate = new_cache(), Gate()
    results(together(cache, gate))
    cache.get("key", gate)
    stats = cache.stats()
    assert (stats.miss_count, stats.hit_count) == (CALLERS, 1)
    assert (stats.loads_in_flight, stats.load_waiters) == (0, 0)


def test_callers_share_one_error() -> None:
    """Twelve callers of a load that fails get its error; it is not kept, and the next caller loads again."""
    cache, gate = new_cache(), Gate(OSError("down"))
    assert errors(together(cache, gate)) == [gate.outcome] * CALLERS
    assert gate.calls == 1
    assert "key" not in cache
    assert cache.get("key", lambda: "up") == "up"


def test_a_later_load_raises_its_own_error() -> None:
    """A load that fails twice raises its present error each time."""
    cache = new_cache()
    for text in ("first", "second"):
        with pytest.raises(OSError, match=text):
            cache.get("key", partial(_fail, text))


def _fail(text: str) -> None:
    raise OSError(text)


def test_a_shared_error_does_not_grow_a_traceback() -> None:
    """However many callers raise an error, each sees the loader's frames once."""
    cache, gate = new_cache(), Gate(OSError("down"))
    for error in errors(together(cache, gate)):
        assert error is not None
        frames = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
        assert frames.count("__call__") == 1, frames
        assert len(frames) < 12, frames


def test_the_leaders_traceback_reaches_the_loader() -> None:
    """The innermost frame of an error is the loader's, the outermost the caller's."""
    with pytest.raises(OSError, match="x") as info:
        new_cache().get("key", lambda: _fail("x"))
    names = [entry.name for entry in info.traceback]
    assert (names[0], names[-1]) == ("test_the_leaders_traceback_reaches_the_loader", "_fail")


@pytest.mark.parametrize("interruption", INTERRUPTIONS)
def test_an_interrupted_leader_takes_nobody_along(interruption: type[BaseException]) -> None:
    """Who runs the load gets an exit or interruption; those who wait load again, and get a value."""
    cache = new_cache()
    gate = Gate(interruption())
    leader = spawn(cache.get, "key", gate)
    passed(gate.entered)
    second = Gate("second")
    second.opened.set()
    followers = spawn_many(5, lambda: cache.get("key", second))
    until_waiting(cache, 5)
    gate.opened.set()
    assert isinstance(leader.exception(TIMEOUT), interruption)
    assert results(followers) == ["second"] * 5
    assert (gate.calls, second.calls) == (1, 1)
    assert cache.stats().miss_count == 6


def test_a_value_found_at_the_second_attempt_is_no_hit() -> None:
    """A request that was counted as a miss and tries again is not counted once more."""
    cache, gate = new_cache(), Gate(KeyboardInterrupt())
    leader = spawn(cache.get, "key", gate)
    passed(gate.entered)
    follower = spawn(cache.get, "key", lambda: "never called")
    until_waiting(cache, 1)
    cache.set("key", "set")
    gate.opened.set()
    assert isinstance(leader.exception(TIMEOUT), KeyboardInterrupt)
    assert follower.result(TIMEOUT) == "set"
    assert (cache.stats().miss_count, cache.stats().hit_count) == (2, 0)


def test_stop_iteration_is_an_error_like_others() -> None:
    """A loader that calls next() on something empty raises StopIteration to all."""
    cache, gate = new_cache(), Gate(StopIteration("empty"))
    assert errors(together(cache, gate)) == [gate.outcome] * CALLERS


def test_loads_of_different_keys_run_at_the_same_time() -> None:
    """A load holds nobody up who wants another key."""
    cache = new_cache()
    gates = [Gate(number) for number in range(4)]
    futures = [spawn(cache.get, number, gate) for number, gate in enumerate(gates)]
    for gate in gates:
        passed(gate.entered)
    for gate in reversed(gates):
        gate.opened.set()
    assert results(futures) == [0, 1, 2, 3]


def test_a_cache_that_keeps_nothing_still_shares_loads() -> None:
    """With max_size=0 callers share a load, and the next one loads again."""
    cache, gate = new_cache(max_size=0), Gate()
    assert results(together(cache, gate)) == ["value"] * CALLERS
    cache.get("key", gate)
    assert (gate.calls, len(cache)) == (2, 0)


def test_a_coroutine_function_is_refused_in_time() -> None:
    """A synchronous call cannot wait for a coroutine: it says what to call, and leaves no coroutine behind."""

    async def load() -> int:
        return 1

    class Loader:
        async def __call__(self) -> int:
            return 1

    cache = new_cache()
    loaders: list[Callable[[], Any]] = [load, partial(load), Loader(), partial(Loader()), lambda: load()]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for loader in loaders:
            with pytest.raises(TypeError, match="get_async"):
                cache.get("key", loader)
        gc.collect()
    assert cache.stats().loads_in_flight == 0


def test_loading_what_is_being_loaded_is_refused() -> None:
    """A loader that asks for its own key gets ReentrantLoad instead of waiting for itself."""
    cache = new_cache()
    with pytest.raises(ReentrantLoad, match="would wait for itself") as info:
        cache.get("key", lambda: cache.get("key", lambda: 1))
    assert info.value.context == {"cache": "test"}
    assert cache.get("key", lambda: 2) == 2


def test_recursion_over_other_keys_is_fine() -> None:
    """A recursive cached function computes every step once."""
    calls = []

    @cached
    def fibonacci(number: int) -> int:
        calls.append(number)
        return number if number < 2 else fibonacci(number - 1) + fibonacci(number - 2)

    assert fibonacci(60) == 1548008755920
    assert len(calls) == 61


def test_a_circle_of_two_threads_is_refused_once() -> None:
    """Two loads that want each other's value: one gets ReentrantLoad, and no thread hangs."""
    first, second = new_cache("first"), new_cache("second")
    barrier = threading.Barrier(2, timeout=TIMEOUT)
    refusals = []

    def crosswise(other: Any) -> Callable[[], str]:
        def load() -> str:
            barrier.wait()
            try:
                return f"saw {other.get('key', lambda: 'never called')}"
            except ReentrantLoad as error:
                refusals.append(error)
                return "refused"

        return load

    futures = [spawn(first.get, "key", crosswise(second)), spawn(second.get, "key", crosswise(first))]
    assert sorted(results(futures)) == ["refused", "saw refused"]
    assert len(refusals) == 1


def test_a_circle_of_many_threads_is_refused() -> None:
    """The same with eight loads in a ring."""
    cache, size = new_cache(), 8
    barrier = threading.Barrier(size, timeout=TIMEOUT)

    def load(number: int) -> int:
        barrier.wait()
        try:
            return 1 + int(cache.get((number + 1) % size, lambda: 0))
        except ReentrantLoad:
            return 0

    futures = [spawn(cache.get, number, partial(load, number)) for number in range(size)]
    assert sorted(results(futures)) == list(range(size))
