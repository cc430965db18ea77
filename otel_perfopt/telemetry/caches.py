"""The telemetry of caches: their counts, and decorators that put them on the methods of any cache class."""

import inspect
from collections.abc import Callable
from typing import Any, TypeVar, cast

from opentelemetry import trace
from opentelemetry.trace import Span
from typing_extensions import override

from otel_perfopt._core.cells import Counts
from otel_perfopt.telemetry import names
from otel_perfopt.telemetry.family import Family, Series
from otel_perfopt.telemetry.latency import Latency
from otel_perfopt.telemetry.spans import Timed, end, start
from otel_perfopt.telemetry.wrapping import Wrapper, label_of, name_of, plain_function, wrap_in

__all__ = ("CACHES", "CacheCounts", "observed_cache", "observed_load", "observed_refresh", "tell_found")

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
        "refreshes",
        "stale",
        "tag_invalidations",
    )

    clears: int
    deletes: int
    evicted_capacity: int
    evicted_expired: int
    evicted_weight: int
    expiries: int
    hits: int
    misses: int
    refreshes: int
    stale: int
    tag_invalidations: int


CACHES = Family(
    names.CACHE_NAME,
    CacheCounts,
    series={
        "hits": Series(names.CACHE_REQUESTS, {names.CACHE_RESULT: "hit", names.CACHE_TIER: names.MEMORY_TIER}),
        "misses": Series(names.CACHE_REQUESTS, {names.CACHE_RESULT: "miss"}),
        "stale": Series(names.CACHE_REQUESTS, {names.CACHE_RESULT: "stale", names.CACHE_TIER: names.MEMORY_TIER}),
        "evicted_capacity": Series(names.CACHE_EVICTIONS, {names.EVICTION_REASON: "capacity"}),
        "evicted_weight": Series(names.CACHE_EVICTIONS, {names.EVICTION_REASON: "weight"}),
        "evicted_expired": Series(names.CACHE_EVICTIONS, {names.EVICTION_REASON: "expired"}),
        "deletes": Series(names.CACHE_INVALIDATIONS, {names.INVALIDATION_REASON: "delete"}),
        "expiries": Series(names.CACHE_INVALIDATIONS, {names.INVALIDATION_REASON: "expire"}),
        "tag_invalidations": Series(names.CACHE_INVALIDATIONS, {names.INVALIDATION_REASON: "tag"}),
        "refreshes": Series(names.CACHE_REFRESHES, {}),
        "clears": Series(names.CACHE_INVALIDATIONS, {names.INVALIDATION_REASON: "clear"}),
    },
)


class _Load(Timed):
    """Spans and times one load."""

    __slots__ = ("_cache",)

    def __init__(self, cache: str, verb: str = "load") -> None:
        self._cache = names.clean(cache)
        super().__init__(f"{verb} {self._cache}", {names.CACHE_NAME: self._cache})

    @override
    def latency(self, error: BaseException | None) -> Latency:
        return CACHES.latency(self._cache, names.CACHE_LOAD_DURATION, None if error is None else names.error_type(error))


class _Refresh(_Load):
    """The same for a load that nobody waits for: the span is a root, linked to that of the request that was the reason."""

    __slots__ = ()

    def __init__(self, cache: str) -> None:
        super().__init__(cache, "refresh")

    @override
    def _start(self) -> Span:
        reason = trace.get_current_span()
        return start(self._name, self._attributes, links=[reason] if reason.get_span_context().is_valid else [])


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
        return wrap_in(function, lambda instance, _: _Load(name or name_of(instance, label)))

    return decorate


def observed_refresh(method: F) -> F:
    """Decorate the method of a cache that loads the value of a fresh entry anew: a span ``refresh {name}`` and its duration."""
    return wrap_in(method, lambda cache, _: _Refresh(cache.name))


def tell_found(cache: str, tier: str | None, begin: int) -> None:
    """Tell, with a span, that a tier behind the memory has answered; it began so many nanoseconds after 1970."""
    cache = names.clean(cache)
    end(start(f"load {cache}", {names.CACHE_NAME: cache, names.CACHE_TIER: tier or ""}, begin=begin))


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
