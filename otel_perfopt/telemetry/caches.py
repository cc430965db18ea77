"""The telemetry of caches: their counts, and decorators that put them on the methods of any cache class."""

import inspect
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeVar, cast

import wrapt
from opentelemetry.trace import Span

from otel_perfopt._core.cells import Counts
from otel_perfopt.telemetry import names
from otel_perfopt.telemetry.family import Family, Series
from otel_perfopt.telemetry.spans import Traced

__all__ = ("CACHES", "CacheCounts", "observed_cache", "observed_load")

F = TypeVar("F", bound=Callable[..., Any])


class CacheCounts(Counts):
    """What one cache has counted."""

    __slots__ = (
        "clears",
        "deletes",
        "evicted_capacity",
        "evicted_expired",
        "evicted_weight",
        "expiries",
        "hits",
        "misses",
    )

    clears: int
    deletes: int
    evicted_capacity: int
    evicted_expired: int
    evicted_weight: int
    expiries: int
    hits: int
    misses: int


CACHES = Family(
    names.CACHE_NAME,
    CacheCounts,
    series={
        "hits": Series(names.CACHE_REQUESTS, {names.CACHE_RESULT: "hit", names.CACHE_TIER: names.MEMORY_TIER}),
        "misses": Series(names.CACHE_REQUESTS, {names.CACHE_RESULT: "miss"}),
        "evicted_capacity": Series(names.CACHE_EVICTIONS, {names.EVICTION_REASON: "capacity"}),
        "evicted_weight": Series(names.CACHE_EVICTIONS, {names.EVICTION_REASON: "weight"}),
        "evicted_expired": Series(names.CACHE_EVICTIONS, {names.EVICTION_REASON: "expired"}),
        "deletes": Series(names.CACHE_INVALIDATIONS, {names.INVALIDATION_REASON: "delete"}),
        "expiries": Series(names.CACHE_INVALIDATIONS, {names.INVALIDATION_REASON: "expire"}),
        "clears": Series(names.CACHE_INVALIDATIONS, {names.INVALIDATION_REASON: "clear"}),
    },
)


class _Load(Traced):
    """Spans and times one load."""

    __slots__ = ("_cache", "_start")

    def __init__(self, cache: str) -> None:
        super().__init__(f"load {cache}", {names.CACHE_NAME: cache})
        self._cache = cache

    def __enter__(self) -> Span:
        span = super().__enter__()
        self._start = time.perf_counter()
        return span

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        seconds = time.perf_counter() - self._start
        super().__exit__(kind, error, traceback)
        failure = None if error is None else names.error_type(error)
        CACHES.latency(self._cache, names.CACHE_LOAD_DURATION, failure).record(seconds)


def observed_load(name: str | None = None) -> Callable[[F], F]:
    """Decorate the function or method that loads a cache's missing values: a span ``load {name}`` and its duration.

    Args:
        name: the name of the cache; None for the attribute ``name`` of the instance that the method is called on.

    >>> @observed_load("users")
    ... def load_user(number):
    ...     return {"number": number}
    >>> load_user(7)
    {'number': 7}
    """

    def decorate(function: F) -> F:
        if inspect.iscoroutinefunction(function):

            async def wrapper_async(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
                with _Load(name or instance.name):
                    return await wrapped(*args, **kwargs)

            return cast("F", wrapt.FunctionWrapper(function, wrapper_async))

        def wrapper(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
            with _Load(name or instance.name):
                return wrapped(*args, **kwargs)

        return cast("F", wrapt.FunctionWrapper(function, wrapper))

    return decorate


def _is_something(result: object) -> bool:
    return result is not None


def observed_cache(name: str, *, is_hit: Callable[[Any], bool] = _is_something) -> Callable[[F], F]:
    """Decorate the look-up function of a cache that is not this library's: its hits and misses count in the same metrics.

    Args:
        name: the name of the cache.
        is_hit: tells from what the look-up returned whether it was a hit; not None by default.

    >>> store = {"a": 1}
    >>> look_up = observed_cache("letters")(lambda key: store.get(key))
    >>> look_up("a"), look_up("b")
    (1, None)
    """

    def decorate(function: F) -> F:
        def count(result: Any) -> Any:
            if is_hit(result):
                counts.hits += 1
            else:
                counts.misses += 1
            return result

        async def wrapper_async(wrapped: Any, _: Any, args: Any, kwargs: Any) -> Any:
            return count(await wrapped(*args, **kwargs))

        def wrapper(wrapped: Any, _: Any, args: Any, kwargs: Any) -> Any:
            return count(wrapped(*args, **kwargs))

        observed = wrapt.FunctionWrapper(function, wrapper_async if inspect.iscoroutinefunction(function) else wrapper)
        counts = CACHES.join(name, observed)  # read for as long as the decorated function lives
        return cast("F", observed)

    return decorate
