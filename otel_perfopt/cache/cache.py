"""The cache: look up, load what is missing once, and forget what is not true any more."""

import math
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Generic, Literal, overload

from typing_extensions import TypeVar

from otel_perfopt.cache.load import Request
from otel_perfopt.cache.loading import Loading
from otel_perfopt.cache.memory import Weigher
from otel_perfopt.cache.stats import CacheStats
from otel_perfopt.durations import Duration
from otel_perfopt.registry import CACHE_REGISTRY, Place, calling_place
from otel_perfopt.unset import UNSET, Unset

__all__ = ("Cache", "get_cache")

K = TypeVar("K", default=Any)
V = TypeVar("V", default=Any)
D = TypeVar("D")


class Cache(Loading, Generic[K, V]):
    """A cache in memory, with one load per key at a time, shared by threads and event loops.

    Keys are compared as a dict compares them (``1``, ``1.0`` and ``True`` are one key). None is a value like any other.
    Every request, eviction and load counts in the ``perfopt.cache.*`` metrics, under the cache's name.

    Args:
        name: names the cache in metrics, spans and `get_cache`.
        max_size: the most entries; 0 keeps nothing (loads are still shared), None has no limit.
        ttl: how long an entry is fresh, in seconds, as a `timedelta`, or as a string such as ``"5m"``; None for ever.
        policy: which entry goes when room is needed: ``"s3fifo"``, or ``"lru"`` for the least recently used.
        max_weight: the most weight of all entries together, in the weigher's unit; None has no limit. Goes with `weigher`.
        weigher: called with a key and its value, returns the entry's weight. An entry heavier than `max_weight` is not kept.
        clock: returns monotonic seconds; for tests.

    Raises:
        ConfigurationError: an option has a value that cannot work.

    >>> users = Cache("users", ttl="10m")
    >>> users.get(7, lambda: {"name": "Ada"})
    {'name': 'Ada'}
    >>> users.get(7)["name"], 8 in users, len(users)
    ('Ada', False, 1)
    """

    def __init__(
        self,
        name: str,
        *,
        max_size: int | None = 1000,
        ttl: Duration | None = 300.0,
        policy: Literal["s3fifo", "lru"] = "s3fifo",
        max_weight: float | None = None,
        weigher: Weigher | None = None,
        clock: Callable[[], float] = time.monotonic,
        _place: Place | None = None,
    ) -> None:
        super().__init__(name, max_size=max_size, ttl=ttl, policy=policy, max_weight=max_weight, weigher=weigher, clock=clock)
        self._labels: dict[str, int] = {}
        CACHE_REGISTRY.register(name, self, _place or calling_place(1), stacklevel=2)

    def __repr__(self) -> str:
        return f"<Cache {self.name!r}: {len(self)} entries, max_size={self.max_size}, ttl={self.ttl}>"

    @overload
    def get(self, key: K, loader: None = None) -> V | None: ...
    @overload
    def get(self, key: K, loader: None = None, *, default: D) -> V | D: ...
    @overload
    def get(self, key: K, loader: Callable[[], V], *, default: Any = None, ttl: Duration | Unset | None = UNSET) -> V: ...
    def get(
        self,
        key: K,
        loader: Callable[[], V] | None = None,
        *,
        default: Any = None,
        ttl: Duration | Unset | None = UNSET,
    ) -> Any:
        """Return the value of `key`; load it if it is missing.

        A load runs in this thread. Callers that want the same key meanwhile wait for it, in other threads and on event loops.

        Args:
            key: any hashable value.
            loader: called without arguments, returns the value. What it raises, all those who wait get; it is not kept.
            default: what to return when the value is missing and there is no loader.
            ttl: how long to keep a loaded value; the cache's own by default, None for ever.

        Raises:
            ReentrantLoad: waiting for the load would never end.
            TypeError: `key` is not hashable, or `loader` is a coroutine function.
        """
        entry = self._store.entries.get(key)
        if entry is not None and entry.expires > self.clock():
            return self._hit(entry)
        if loader is None:
            self._counts.misses += 1
            return default
        return self._get_or_load(Request(key, loader, ttl))

    @overload
    async def get_async(self, key: K, loader: None = None) -> V | None: ...
    @overload
    async def get_async(self, key: K, loader: None = None, *, default: D) -> V | D: ...
    @overload
    async def get_async(
        self, key: K, loader: Callable[[], Awaitable[V]], *, default: Any = None, ttl: Duration | Unset | None = UNSET
    ) -> V: ...
    @overload
    async def get_async(
        self, key: K, loader: Callable[[], V], *, default: Any = None, ttl: Duration | Unset | None = UNSET
    ) -> V: ...
    async def get_async(
        self,
        key: K,
        loader: Callable[[], Any] | None = None,
        *,
        default: Any = None,
        ttl: Duration | Unset | None = UNSET,
    ) -> Any:
        """Return the value of `key`; load it if it is missing, without blocking the event loop.

        A coroutine function runs in a task of its own, so that it survives the cancellation of any caller; the task is
        cancelled when the last one is gone. Any other function runs in a worker thread, with the context copied; it may
        return an awaitable.

        Args and errors: see `get`. `LoadCancelled` is raised when the loader was cancelled, but not by those who wait for it.
        """
        entry = self._store.entries.get(key)
        if entry is not None and entry.expires > self.clock():
            return self._hit(entry)
        if loader is None:
            self._counts.misses += 1
            return default
        return await self._get_or_load_async(Request(key, loader, ttl))

    def set(self, key: K, value: V, *, ttl: Duration | Unset | None = UNSET) -> None:
        """Keep `value` under `key`; a load of this key that began before does not replace it.

        Args:
            key: any hashable value.
            value: any value, None included.
            ttl: how long to keep it; the cache's own by default, None for ever.
        """
        entry = self._entry(key, value, ttl)
        with self._lock:
            self._flights.ground(key)
            garbage = self._put(entry)
        del garbage  # without the lock: dropping values may run user code

    def set_many(self, values: Mapping[K, V], *, ttl: Duration | Unset | None = UNSET) -> None:
        """Keep each value under its key; see `set`."""
        for key, value in values.items():
            self.set(key, value, ttl=ttl)

    def delete(self, key: K) -> bool:
        """Forget `key`, and forbid every load of it that began before to store its value.

        Returns:
            Whether there was an entry.
        """
        with self._lock:
            self._counts.deletes += 1
            self._flights.ground(key)
            entry, *_ = garbage = self._change(partial(self._store.discard, key))
            found = entry is not None and entry.expires > self.clock()
        del entry, garbage  # without the lock: dropping values may run user code
        return found

    def expire(self, key: K) -> bool:
        """Make the value of `key` stale, as if its time were over; a load that began before may still store its value.

        Returns:
            Whether there was a fresh entry.
        """
        with self._lock:
            self._counts.expiries += 1
            entry = self._fresh(key)
            if entry is None:
                return False
            entry.expires = -math.inf
            return True

    def clear(self) -> None:
        """Forget everything, and forbid every load that began before to store its value. Counts go on."""
        with self._lock:
            self._counts.clears += 1
            self._flights.ground_all()
            garbage = self._change(lambda: (self._store.clear(), self._store.take_dropped()))
        del garbage  # without the lock: dropping values may run user code

    async def set_async(self, key: K, value: V, *, ttl: Duration | Unset | None = UNSET) -> None:
        """Do what `set` does."""
        self.set(key, value, ttl=ttl)

    async def set_many_async(self, values: Mapping[K, V], *, ttl: Duration | Unset | None = UNSET) -> None:
        """Do what `set_many` does."""
        self.set_many(values, ttl=ttl)

    async def delete_async(self, key: K) -> bool:
        """Do what `delete` does."""
        return self.delete(key)

    async def expire_async(self, key: K) -> bool:
        """Do what `expire` does."""
        return self.expire(key)

    async def clear_async(self) -> None:
        """Do what `clear` does."""
        self.clear()

    def _claim(self, label: str) -> str:
        """Return `label`, or one made from it, for a function whose keys no other function in this cache may have.

        Closures of one function share a name, as do all lambdas of a module.
        """
        with self._lock:
            number = self._labels[label] = self._labels.get(label, 0) + 1
        return label if number == 1 else f"{label}#{number}"

    def stats(self) -> CacheStats:
        """Return what this cache holds and has counted."""
        usage, counts = self.memory_usage(), self._counts
        with self._lock:
            return CacheStats(
                name=self.name,
                size=len(self._store),
                max_size=self.max_size,
                hit_count=counts.hits,
                miss_count=counts.misses,
                memory_usage=usage,
                weight=self._store.weight,
                max_weight=self.max_weight,
                evictions_capacity=counts.evicted_capacity,
                evictions_weight=counts.evicted_weight,
                evictions_expired=counts.evicted_expired,
                loads_in_flight=len(self._flights),
                load_waiters=self._flights.waiting,
            )


def get_cache(name: str) -> Cache[Any, Any]:
    """Return the cache of this name.

    The caches of the specification (``task_specs``, ``git_info``, ``dependencies``, ``compilation``) are built at their
    first use.

    Raises:
        UnknownName: no cache has this name; the message lists the names that there are.

    >>> get_cache("git_info").max_size
    500
    """
    cache: Cache[Any, Any] = CACHE_REGISTRY.get(name)
    return cache
