"""The telemetry of caches: their counts, and decorators that put them on the methods of any cache class."""

import inspect
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeVar, cast

from opentelemetry.trace import Span

from otel_perfopt._core.cells import Counts
from otel_perfopt.telemetry import names
from otel_perfopt.telemetry.family import Family, Series
from otel_perfopt.telemetry.spans import Traced
from otel_perfopt.telemetry.wrapping import Wrapper, label_of, plain_function

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
        cache = names.clean(cache)
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
        name: the name of the cache; None for the attribute ``name`` of the instance that the method is called on, or without
            one for the module and the qualified name of the function.

    >>> @observed_load("users")
    ... def load_user(number):
    ...     return {"number": number}
    >>> load_user(7)
    {'number': 7}
    """

    def decorate(function: F) -> F:
        label = label_of(function)

        def name_of(instance: Any) -> str:
            found = name or getattr(instance, "name", None)
            return found if isinstance(found, str) and found else label

        if inspect.iscoroutinefunction(plain_function(function)):

            async def wrapper_async(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
                with _Load(name_of(instance)):
                    return await wrapped(*args, **kwargs)

            return cast("F", Wrapper(function, wrapper_async))

        def wrapper(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
            with _Load(name_of(instance)):
                return wrapped(*args, **kwargs)

        return cast("F", Wrapper(function, wrapper))

    return decorate


def _is_something(result: object) -> bool:
    return result is not None


def observed_cache(name: str, *, is_hit: Callable[[Any], bool] = _is_something) -> Callable[[F], F]:
    """Decorate the look-up function of a cache that is not this library's: its hits and misses count in the same metrics.

    A look-up that raises a `LookupError`, as that of a dict does, is a miss; one that raises anything else counts nothing.

    Args:
        name: the name of the cache.
        is_hit: tells from what the look-up returned whether it was a hit; not None by default. If it raises, it was none.

    >>> store = {"a": 1}
    >>> look_up = observed_cache("letters")(lambda key: store.get(key))
    >>> look_up("a"), look_up("b")
    (1, None)
    """

    def decorate(function: F) -> F:
        def count(result: Any) -> Any:
            try:
                hit = is_hit(result)
            except Exception:  # noqa: BLE001 - who looks something up did not ask for telemetry
                hit = False
            if hit:
                counts.hits += 1
            else:
                counts.misses += 1
            return result

        async def wrapper_async(wrapped: Any, _: Any, args: Any, kwargs: Any) -> Any:
            try:
                result = await wrapped(*args, **kwargs)
            except LookupError:
                counts.misses += 1
                raise
            return count(result)

        def wrapper(wrapped: Any, _: Any, args: Any, kwargs: Any) -> Any:
            try:
                result = wrapped(*args, **kwargs)
            except LookupError:
                counts.misses += 1
                raise
            return count(result)

        is_async = inspect.iscoroutinefunction(plain_function(function))
        observed = Wrapper(function, wrapper_async if is_async else wrapper)
        counts = CACHES.join(name, observed)  # read for as long as the decorated function lives
        return cast("F", observed)

    return decorate
