"""How long values and errors count, and what a reset does to them and to a load in progress."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from otel_perfopt.lazy import LazyLoader, lazy
from otel_perfopt.testing import ManualClock
from tests.cache.support import TIMEOUT, Gate, passed, results, run, spawn, spawn_many
from tests.lazy.support import cancelled, in_progress, until_waiting, until_waiting_async


class Source:
    """Gives one thing after another; an exception is raised."""

    def __init__(self, *things: object) -> None:
        self.things = list(things)

    def __call__(self) -> Any:
        thing = self.things.pop(0)
        if isinstance(thing, BaseException):
            raise thing
        return thing


def got(loader: LazyLoader[Any]) -> Any:
    """What the next caller gets: a value, or the error that it is."""
    try:
        return loader.get()
    except Exception as error:
        return error


async def got_async(loader: LazyLoader[Any]) -> Any:
    """The same, for a coroutine."""
    try:
        return await loader.get_async()
    except Exception as error:
        return error


either = pytest.mark.parametrize("get", [got, lambda loader: asyncio.run(got_async(loader))], ids=["thread", "task"])


@either
@pytest.mark.parametrize("ttl", [10, 10.0, timedelta(seconds=10), "10s"])
def test_a_value_is_loaded_again_after_its_time(get: Callable[[Any], Any], ttl: Any) -> None:
    """The time begins with the end of the load."""
    clock = ManualClock()
    loader: LazyLoader[int] = LazyLoader(Source(1, 2), ttl=ttl, clock=clock)
    assert get(loader) == 1
    clock.advance(9.999)
    assert (get(loader), loader.loaded) == (1, True)
    clock.advance(0.001)
    assert not loader.loaded
    assert (get(loader), loader.loaded) == (2, True)


@either
def test_by_default_an_error_stays_until_it_is_reset(get: Callable[[Any], Any]) -> None:
    """As the specification has it; there is no value all the while."""
    error, clock = OSError("down"), ManualClock()
    loader: LazyLoader[str] = LazyLoader(Source(error, "up"), clock=clock)
    assert get(loader) is error
    clock.advance("365d")
    assert get(loader) is error
    assert not loader.loaded
    loader.reset()
    assert get(loader) == "up"


@either
def test_an_error_that_is_not_kept(get: Callable[[Any], Any]) -> None:
    """The next caller tries again."""
    errors = OSError("down"), OSError("still down")
    loader: LazyLoader[str] = LazyLoader(Source(*errors, "up"), error_ttl=0)
    assert [get(loader) for _ in range(4)] == [*errors, "up", "up"]


@either
def test_an_error_that_is_kept_for_a_while(get: Callable[[Any], Any]) -> None:
    """And the value after it for ever."""
    error, clock = OSError("down"), ManualClock()
    loader: LazyLoader[str] = LazyLoader(Source(error, "up"), error_ttl="5s", clock=clock)
    assert get(loader) is error
    clock.advance(4.999)
    assert get(loader) is error
    clock.advance(0.001)
    assert get(loader) == "up"
    clock.advance("365d")
    assert get(loader) == "up"


def test_an_error_replaces_a_value_whose_time_is_over() -> None:
    """And is replaced by the next value."""
    error, clock = OSError("down"), ManualClock()
    loader: LazyLoader[int] = LazyLoader(Source(1, error, 2), ttl=10, error_ttl=5, clock=clock)
    found = []
    for _ in range(4):
        found.append(got(loader))
        clock.advance(5)
    assert found == [1, 1, error, 2]


def test_a_reset_loads_again() -> None:
    """Once for each reset that is followed by a call."""
    loader: LazyLoader[int] = LazyLoader(Source(1, 2, 3))
    assert (loader.get(), loader.get()) == (1, 1)
    loader.reset()
    assert not loader.loaded
    assert loader.get() == 2
    loader.reset()
    loader.reset()
    assert loader.get() == 3


@pytest.mark.parametrize("outcome", ["old", OSError("old")], ids=str)
def test_a_reset_during_a_load_in_a_thread(outcome: object) -> None:
    """Who waits already gets the outcome; it is not kept, and who comes after the reset starts a new load at once."""
    old, new = Gate(outcome), Gate("new")
    gates = iter((old, new))
    loader: LazyLoader[str] = LazyLoader(lambda: next(gates)())
    before = spawn_many(3, lambda: got(loader))
    until_waiting(loader, 2)
    loader.reset()
    after = spawn_many(3, lambda: got(loader))
    passed(new.entered)
    old.opened.set()
    assert results(before) == [outcome] * 3
    assert not loader.loaded
    new.opened.set()
    assert results(after) == ["new"] * 3
    assert (loader.get(), old.calls, new.calls) == ("new", 1, 1)


def test_a_reset_during_a_load_that_ends_last() -> None:
    """The old load does not replace the value of the new one."""
    old, new = Gate("old"), Gate("new")
    gates = iter((old, new))
    loader: LazyLoader[str] = LazyLoader(lambda: next(gates)())
    before = spawn(loader.get)
    passed(old.entered)
    loader.reset()
    new.opened.set()
    assert loader.get() == "new"
    old.opened.set()
    assert before.result(TIMEOUT) == "old"
    assert loader.get() == "new"


def test_a_reset_during_a_load_in_a_task() -> None:
    """The same for coroutines; a waiter that is cancelled later cancels nothing of the new load."""

    async def main() -> None:
        gates = [asyncio.Event(), asyncio.Event()]
        calls: list[int] = []

        async def load() -> str:
            number = len(calls)
            calls.append(number)
            await gates[number].wait()
            return ("old", "new")[number]

        loader = LazyLoader(load)
        before = [asyncio.create_task(loader.get_async()) for _ in range(3)]
        await until_waiting_async(loader, 2)
        loader.reset()
        after = [asyncio.create_task(loader.get_async()) for _ in range(3)]
        await until_waiting_async(loader, 4)
        await cancelled(before[0])
        gates[0].set()
        assert await asyncio.gather(*before[1:]) == ["old"] * 2
        assert not loader.loaded
        gates[1].set()
        assert await asyncio.gather(*after) == ["new"] * 3
        assert (loader.get(), len(calls), in_progress(loader)) == ("new", 2, 0)

    run(main())


def test_a_load_may_reset_its_own_loader() -> None:
    """Its value reaches its caller, and is not kept."""
    source = Source(1, 2)

    @lazy
    def value() -> int:
        value.reset()
        return int(source())

    assert (value(), value.loaded, value()) == (1, False, 2)
