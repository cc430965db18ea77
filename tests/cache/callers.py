"""Callers of every kind, so that one test holds for all of them, and a clock that tells who waits by it."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any

from otel_perfopt.testing import ManualClock
from tests.cache.support import TIMEOUT, Gate, LoopThread, spawn, until

KINDS = ("thread", "loop", "worker")
"""A thread; a coroutine with a coroutine function as its loader; a coroutine with a plain function, which a worker runs."""


class Clock(ManualClock):
    """A manual clock that tells how many timers it has set, one for each caller that waits by it."""

    @property
    def timers(self) -> int:
        """How many timers have not come yet."""
        return len(self._due)

    def until_set(self, timers: int) -> None:
        """Wait until there are so many timers."""
        until(lambda: self.timers == timers)


class Callers:
    """Callers of one kind.

    Args:
        kind: one of `KINDS`.
        loop: where those live who are coroutines.
    """

    def __init__(self, kind: str, loop: LoopThread) -> None:
        self.kind = kind
        self._loop = loop

    def ask(self, cache: Any, loader: Callable[[], Any], key: object = "key", **options: Any) -> "Future[Any]":
        """Ask for a key, and do not wait for the answer."""
        if self.kind == "thread":
            return spawn(partial(cache.get, key, loader, **options))
        return self._loop.submit(cache.get_async(key, loader if self.kind == "worker" else as_coroutine(loader), **options))

    def get(self, cache: Any, loader: Callable[[], Any], key: object = "key", **options: Any) -> Any:
        """Ask for a key, and return its value."""
        return self.ask(cache, loader, key, **options).result(TIMEOUT)

    def error(self, cache: Any, loader: Callable[[], Any], key: object = "key", **options: Any) -> BaseException | None:
        """Ask for a key, and return what that raised."""
        return self.ask(cache, loader, key, **options).exception(TIMEOUT)


def as_coroutine(loader: Callable[[], Any]) -> Callable[[], Any]:
    """Return a coroutine function that does what `loader` does, and does not block the loop if that is a gate."""

    async def load() -> Any:
        if not isinstance(loader, Gate):
            return loader()
        loader.calls += 1
        loader.entered.set()
        while not loader.opened.is_set():  # noqa: ASYNC110 - another thread opens it
            await asyncio.sleep(0.0005)
        if isinstance(loader.outcome, BaseException):
            raise loader.outcome
        return loader.outcome

    return load


class Source:
    """A loader that returns or raises what it is told to, and counts.

    Args:
        outcome: what it returns; an exception is raised.
    """

    def __init__(self, outcome: object = "new") -> None:
        self.outcome = outcome
        self.calls = 0

    def __call__(self) -> Any:
        self.calls += 1
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome
