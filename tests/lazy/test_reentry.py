"""Loads that ask for themselves: an error instead of a dead-lock or an endless recursion."""

import asyncio
import contextvars
import threading
from collections.abc import Callable
from typing import Any

import pytest

from otel_perfopt import Cache
from otel_perfopt.errors import ReentrantLoad
from otel_perfopt.lazy import LazyLoader, lazy
from tests.cache.support import TIMEOUT, LoopThread, results, run, spawn


def test_a_load_that_asks_for_itself() -> None:
    """At once, in the same thread; the error says whose load it is."""
    loader: LazyLoader[int] = LazyLoader(lambda: loader.get(), name="snake", error_ttl=0)
    with pytest.raises(ReentrantLoad, match="loading lazy value 'snake' would wait for itself") as info:
        loader.get()
    assert info.value.context == {"lazy": "snake"}
    with pytest.raises(ReentrantLoad):
        run(loader.get_async())


def test_a_load_that_survives_its_own_question() -> None:
    """Who handles the error loads as if nothing had happened."""

    def load() -> str:
        with pytest.raises(ReentrantLoad):
            loader.get()
        return "value"

    loader = LazyLoader(load)
    assert loader.get() == "value"


def test_a_load_that_asks_for_itself_through_a_thread() -> None:
    """One that carries the context of the load, as the workers of the library and of asyncio do."""

    def load() -> Any:
        context = contextvars.copy_context()
        return spawn(lambda: context.run(loader.get)).result(TIMEOUT)

    loader: LazyLoader[Any] = LazyLoader(load)
    with pytest.raises(ReentrantLoad):
        loader.get()


def test_a_load_that_asks_for_itself_through_a_task() -> None:
    """Directly, in a task of its own, and with a synchronous call in a thread."""
    ways: list[Callable[[LazyLoader[Any]], Any]] = [
        lambda loader: loader.get_async(),
        lambda loader: asyncio.create_task(loader.get_async()),
        lambda loader: asyncio.to_thread(lambda: run(loader.get_async())),
    ]

    async def refused(way: Callable[[LazyLoader[Any]], Any]) -> None:
        async def load() -> Any:
            return await way(loader)

        loader: LazyLoader[Any] = LazyLoader(load)
        with pytest.raises(ReentrantLoad):
            await loader.get_async()

    for way in ways:
        run(refused(way))


def test_a_synchronous_call_on_the_loop_that_runs_the_load() -> None:
    """It would block the loop that waits for the worker's answer."""

    async def main() -> None:
        opened = threading.Event()
        loader: LazyLoader[bool] = LazyLoader(lambda: opened.wait(TIMEOUT))
        task = asyncio.create_task(loader.get_async())
        await asyncio.sleep(0)
        with pytest.raises(ReentrantLoad, match="event loop"):
            loader.get()
        opened.set()
        assert await task

    run(main())


def test_two_threads_that_want_each_others_value() -> None:
    """One of them is refused, and neither hangs."""
    barrier = threading.Barrier(2, timeout=TIMEOUT)

    def crosswise(other: Callable[[], Any]) -> Callable[[], str]:
        def load() -> str:
            barrier.wait()
            try:
                return f"saw {other()}"
            except ReentrantLoad:
                return "refused"

        return load

    one: LazyLoader[str] = LazyLoader(crosswise(lambda: two.get()))
    two: LazyLoader[str] = LazyLoader(crosswise(lambda: one.get()))
    assert sorted(results([spawn(one.get), spawn(two.get)])) == ["refused", "saw refused"]


def test_a_circle_through_a_cache() -> None:
    """Caches and lazy values know of each other's loads."""
    cache: Cache[str, Any] = Cache("circle")
    loader: LazyLoader[Any] = LazyLoader(lambda: cache.get("key", loader.get))
    with pytest.raises(ReentrantLoad, match="lazy value"):
        loader.get()
    with LoopThread() as loop, pytest.raises(ReentrantLoad):
        loop.submit(cache.get_async("key", lambda: loader.get())).result(TIMEOUT)


def test_lazy_values_may_need_each_other() -> None:
    """In one direction that is what they are for."""

    @lazy
    def settings() -> dict[str, int]:
        return {"size": 3}

    @lazy
    async def pool() -> list[int]:
        return [0] * settings()["size"]

    @lazy
    async def service() -> int:
        return len(await pool())

    assert run(service()) == 3
    assert settings.loaded
    assert pool.loaded
