"""Threads that want a lazy value at the same time: one of them loads it."""

import asyncio
import gc
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from otel_perfopt.errors import ConfigurationError
from otel_perfopt.lazy import LazyLoader, create_lazy_loader, lazy
from tests.cache.support import TIMEOUT, Gate, errors, no_collection, passed, results, spawn, spawn_many
from tests.lazy.support import in_progress, until_waiting

CALLERS = 8


def fail() -> None:
    """A load that always fails."""
    raise OSError("down")


@pytest.mark.parametrize("value", ["value", None, 0, ()])
def test_eight_threads_load_once_and_not_eight_times(value: object) -> None:
    """As with functools.cached_property of 3.12 and functools.cache; None is a value like any other."""
    gate = Gate(value)
    loader = LazyLoader(gate)
    futures = spawn_many(CALLERS, loader.get)
    until_waiting(loader, CALLERS - 1)
    assert not loader.loaded
    gate.opened.set()
    assert results(futures) == [value] * CALLERS
    assert (loader.get(), loader.loaded, gate.calls) == (value, True, 1)


def test_waiters_get_the_value_and_not_none() -> None:
    """As with a single flight whose waiters get None, and whose key returns None for ever."""
    gate = Gate("value")
    loader = LazyLoader(gate)
    leader, follower = spawn(loader.get), spawn(loader.get)
    until_waiting(loader, 1)
    gate.opened.set()
    assert (leader.result(TIMEOUT), follower.result(TIMEOUT), loader.get()) == ("value",) * 3


def test_nothing_is_loaded_before_somebody_asks() -> None:
    """Neither by making the loader, nor by looking at it."""
    loader = create_lazy_loader(fail)
    assert not loader.loaded
    assert repr(loader) == f"<LazyLoader '{__name__}.fail': not loaded>"
    loader.reset()
    assert not loader.loaded


def test_callers_share_one_error() -> None:
    """Who waits for a load that fails gets its error."""
    gate = Gate(OSError("down"))
    loader = LazyLoader(gate, error_ttl=0)
    futures = spawn_many(CALLERS, loader.get)
    until_waiting(loader, CALLERS - 1)
    gate.opened.set()
    assert errors(futures) == [gate.outcome] * CALLERS
    assert gate.calls == 1


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError])
def test_an_interrupted_load_poisons_nothing(interruption: type[BaseException]) -> None:
    """Who runs the load gets an exit or interruption; those who wait load again, and it is not kept as an error is."""
    first, second = Gate(interruption()), Gate("second")
    gates = iter((first, second))
    loader = LazyLoader(lambda: next(gates)())
    leader = spawn(loader.get)
    passed(first.entered)
    followers = spawn_many(3, loader.get)
    until_waiting(loader, 3)
    second.opened.set()
    first.opened.set()
    assert isinstance(leader.exception(TIMEOUT), interruption)
    assert results(followers) == ["second"] * 3
    assert (first.calls, second.calls, in_progress(loader)) == (1, 1, 0)


def test_a_kept_error_keeps_its_traceback() -> None:
    """Raised again a hundred times, and by threads at once, it shows the frames of the load once, and no others."""
    loader = LazyLoader(fail)
    depths = set()
    for _ in range(100):
        with pytest.raises(OSError, match="down") as info:
            loader.get()
        names = [frame.name for frame in traceback.extract_tb(info.value.__traceback__)]
        assert (names[0], names[-1], names.count("fail")) == (test_a_kept_error_keeps_its_traceback.__name__, "fail", 1)
        depths.add(len(names))
    assert max(depths) < 15
    assert len(depths) <= 2  # the first one comes a shorter way
    found = errors(spawn_many(CALLERS, loader.get))
    assert all(error is info.value for error in found)
    with pytest.raises(OSError, match="down") as info:
        loader.get()
    assert len(traceback.extract_tb(info.value.__traceback__)) in depths


def test_stop_iteration_is_an_error_like_others() -> None:
    """A load that calls next() on something empty raises StopIteration to all, and to coroutines as RuntimeError."""
    loader: LazyLoader[Any] = LazyLoader(lambda: next(iter(())))
    with pytest.raises(StopIteration):
        loader.get()
    with pytest.raises(RuntimeError, match="StopIteration"):
        asyncio.run(loader.get_async())


def test_a_coroutine_function_is_refused_in_time() -> None:
    """A synchronous call cannot wait for a coroutine: it says what to call, and leaves no coroutine behind."""

    async def load() -> int:
        return 1

    class Loader:
        async def __call__(self) -> int:
            return 1

    loads: list[Callable[[], Any]] = [load, partial(load), Loader(), lambda: load()]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for each in loads:
            loader = LazyLoader(each, error_ttl=0)
            with pytest.raises(TypeError, match="get_async"):
                loader.get()
            assert asyncio.run(loader.get_async()) == 1
            assert loader.get() == 1  # a value that is there can be had by anybody
        gc.collect()


def test_a_value_goes_without_a_collection_of_garbage() -> None:
    """When its loader goes, and when it is forgotten."""

    class Value:
        gone = 0

        def __del__(self) -> None:
            Value.gone += 1

    with no_collection():
        loader = LazyLoader(Value)
        loader.get()
        loader.reset()
        assert Value.gone == 1
        loader.get()
        asyncio.run(loader.get_async())
        del loader
        assert Value.gone == 2


def test_a_finalizer_may_use_the_loader_that_drops_it() -> None:
    """Values are dropped without the lock, so that what runs then may come back, also from another thread."""

    class Value:
        def __del__(self) -> None:
            seen.append(spawn(lambda: loader.loaded).result(TIMEOUT))

    seen: list[bool] = []
    loader: LazyLoader[Any] = LazyLoader(Value)
    loader.get()
    loader.reset()
    loader = LazyLoader(int)
    assert seen == [False]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"ttl": 0}, "ttl=0 has no meaning"),
        ({"ttl": -1}, "ttl=-1"),
        ({"ttl": "soon"}, "'soon' is not a duration"),
        ({"ttl": []}, "ttl must be seconds"),
        ({"error_ttl": -1}, "error_ttl=-1"),
        ({"error_ttl": float("inf")}, "error_ttl=inf"),
        ({"name": " "}, "name=' '"),
        ({"name": 3}, "name=3"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, Any], says: str) -> None:
    """At once, with the option and its value."""
    for make in (LazyLoader, lambda load, **options: lazy(**options)(load)):
        with pytest.raises(ConfigurationError, match=says):
            make(int, **options)


def test_what_cannot_load_is_refused() -> None:
    """Something that cannot be called, and a generator, which can be read only once."""

    def generator() -> Iterator[int]:
        yield 1

    for make in (LazyLoader[Any], lazy):
        with pytest.raises(TypeError, match="not by 3"):
            make(3)  # type: ignore[call-overload]
        with pytest.raises(TypeError, match="read only once"):
            make(partial(generator))


def test_a_thread_that_comes_after_the_end_loads_nothing() -> None:
    """It looked before the value was there, and joins nothing that is over."""
    calls: list[int] = []

    def load() -> str:
        calls.append(threading.get_ident())
        return "value"

    loader = LazyLoader(load)
    barrier = threading.Barrier(CALLERS, timeout=TIMEOUT)

    def call() -> str:
        barrier.wait()
        return loader.get()

    assert results(spawn_many(CALLERS, call)) == ["value"] * CALLERS
    assert len(calls) == 1
