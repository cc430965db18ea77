"""Help for the tests of caches: threads and loops that cannot hang a test, and loaders that wait for a signal."""

import asyncio
import gc
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, Self, TypeVar

from otel_perfopt import Cache

TIMEOUT = 20.0
"""Seconds after which a wait has failed; nothing that succeeds comes near it."""

T = TypeVar("T")


def new_cache(name: str = "test", **options: Any) -> Any:
    """Make a cache; every call is the same definition, so that the name may be used again and again."""
    return Cache(name, **options)


def spawn(function: Callable[..., T], *args: Any) -> "Future[T]":
    """Call `function` in a thread of its own."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            result = function(*args)
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(result)

    threading.Thread(target=run, daemon=True).start()
    return future


def spawn_many(count: int, function: Callable[[], T]) -> "list[Future[T]]":
    """Call `function` in several threads."""
    return [spawn(function) for _ in range(count)]


def results(futures: "list[Future[T]]") -> list[T]:
    """What all the calls returned."""
    return [future.result(TIMEOUT) for future in futures]


def errors(futures: "list[Future[Any]]") -> list[BaseException | None]:
    """What each call raised."""
    return [future.exception(TIMEOUT) for future in futures]


def until(condition: Callable[[], bool]) -> None:
    """Wait for something that another thread is about to bring about and cannot signal."""
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.0005)


async def until_async(condition: Callable[[], bool]) -> None:
    """Do the same on a loop."""
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        await asyncio.sleep(0)


def until_waiting(cache: Any, waiters: int) -> None:
    """Wait until so many callers wait for loads that others have started."""
    until(lambda: cache.stats().load_waiters == waiters)


async def until_waiting_async(cache: Any, waiters: int) -> None:
    """Do the same on a loop."""
    await until_async(lambda: cache.stats().load_waiters == waiters)


def passed(event: threading.Event) -> None:
    """Wait for an event of another thread, and fail instead of hanging."""
    assert event.wait(TIMEOUT), "the event did not come"


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in a new loop, and fail instead of hanging."""

    async def bounded() -> T:
        async with asyncio.timeout(TIMEOUT):
            return await main

    return asyncio.run(bounded())


class Gate:
    """A loader that waits inside until it is opened.

    Args:
        outcome: what it returns; an exception is raised.
    """

    def __init__(self, outcome: object = "value") -> None:
        self.outcome = outcome
        self.calls = 0
        self.entered = threading.Event()
        self.opened = threading.Event()

    def __call__(self) -> Any:
        self.calls += 1
        self.entered.set()
        passed(self.opened)
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome


class AsyncGate:
    """The same as a coroutine function; opened from its own loop."""

    def __init__(self, outcome: object = "value") -> None:
        self.outcome = outcome
        self.calls = self.cancelled = 0
        self.entered = asyncio.Event()
        self.opened = asyncio.Event()

    async def __call__(self) -> Any:
        self.calls += 1
        self.entered.set()
        try:
            await self.opened.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome


class LoopThread:
    """An event loop that runs in a thread of its own."""

    def __enter__(self) -> Self:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        if not self.loop.is_closed():
            self.loop.close()

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> "Future[T]":
        """Start a coroutine on the loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def call(self, function: Callable[[], T]) -> "Future[T]":
        """Call a plain function on the loop, which it blocks."""

        async def run_it() -> T:
            return function()

        return self.submit(run_it())

    def stop(self) -> None:
        """Stop the loop, and leave its tasks where they are."""
        if self.loop.is_running():
            self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(TIMEOUT)
        assert not self._thread.is_alive(), "the loop did not stop"


@contextmanager
def no_collection() -> Iterator[None]:
    """Keep the garbage collector from running: what goes, goes by reference counts alone."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
