"""What it costs to ask for a lazy value that is there, beside `functools` and a plain attribute; without limits."""

import asyncio
import functools
import time
from collections.abc import Callable
from typing import Any

from benchmarks.harness import Benchmark, Build, Contestant, Slice, Turn, timed

__all__ = ("BENCHMARKS",)

CALLS = 5_000
LAPS = 4

Value = dict[str, int]


def load() -> Value:
    return {"value": 1}


class Plain:
    def __init__(self) -> None:
        self.value = load()

    def method(self) -> Value:
        return self.value

    @functools.cached_property
    def cached(self) -> Value:
        return load()


# the ways to ask, each in its loop ------------------------------------------------------------------


def get(thing: Any) -> None:
    for _ in range(CALLS):
        thing.get()


def call(thing: Callable[[], Value]) -> None:
    for _ in range(CALLS):
        thing()


def call_method(thing: Any) -> None:
    for _ in range(CALLS):
        thing.method()


def read_cached(thing: Any) -> None:
    for _ in range(CALLS):
        thing.cached  # noqa: B018 - reading it is the point


def read_value(thing: Any) -> None:
    for _ in range(CALLS):
        thing.value  # noqa: B018 - reading it is the point


# the things that are asked --------------------------------------------------------------------------


def loader(**options: Any) -> Any:
    from otel_perfopt.lazy import LazyLoader

    return LazyLoader(load, **options)


def lazy_function() -> Callable[[], Value]:
    from otel_perfopt.lazy import lazy

    return lazy(load)


def lazy_method() -> Any:
    from otel_perfopt.lazy import lazy

    class Service:
        @lazy
        def method(self) -> Value:
            return load()

    return Service()


def asking(ask: Callable[[Any], None], make: Callable[[], Any]) -> Build:
    """Return the slice of asking something that is loaded by the first lap."""

    def build(turn: Turn) -> Slice:
        thing = make()
        ask(thing)
        return timed(lambda: ask(thing), laps=turn.count(LAPS), operations=CALLS)

    return build


def awaiting(make: Callable[[], Callable[[], Any]]) -> Build:
    """Return the slice of awaiting in one loop."""

    def build(turn: Turn) -> Slice:
        ask, laps = make(), turn.count(LAPS)

        async def run() -> float:
            await ask()
            start = time.thread_time()
            for _ in range(laps * CALLS):
                await ask()
            return (time.thread_time() - start) / (laps * CALLS)

        return lambda: asyncio.run(run())

    return build


async def coroutine() -> Value:
    return VALUE


VALUE = load()
CACHED_PROPERTY = Contestant("functools.cached_property", asking(read_cached, Plain))
ATTRIBUTE = Contestant("a plain attribute", asking(read_value, Plain))
METHOD = Contestant("a method that returns an attribute", asking(call_method, Plain))

BENCHMARKS = (
    Benchmark(
        "lazy-get",
        "LazyLoader.get(), loaded",
        (
            Contestant("otel_perfopt", asking(get, loader)),
            CACHED_PROPERTY,
            ATTRIBUTE,
            METHOD,
            Contestant("otel_perfopt, with a ttl", asking(get, lambda: loader(ttl=3600.0))),
        ),
    ),
    Benchmark(
        "lazy-function",
        "a function under @lazy, loaded",
        (
            Contestant("otel_perfopt", asking(call, lazy_function)),
            Contestant("functools.cache", asking(call, lambda: functools.cache(load))),
        ),
    ),
    Benchmark(
        "lazy-method",
        "a method under @lazy, loaded",
        (Contestant("otel_perfopt", asking(call_method, lazy_method)), CACHED_PROPERTY, METHOD),
    ),
    Benchmark(
        "lazy-async",
        "await LazyLoader.get_async(), loaded",
        (
            Contestant("otel_perfopt", awaiting(lambda: loader().get_async)),
            Contestant("a coroutine function that returns", awaiting(lambda: coroutine)),
        ),
    ),
)
