"""The cache: look up, load what is missing once, and forget what is not true any more."""

import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, overload

from typing_extensions import TypeVar

from otel_perfopt._core.flight import ABSENT
from otel_perfopt.cache.load import Request
from otel_perfopt.cache.loading import NO_LOADER
from otel_perfopt.cache.many import Many
from otel_perfopt.cache.memory import Weigher
from otel_perfopt.cache.stats import CacheStats
from otel_perfopt.cache.terms import checked_tags
from otel_perfopt.durations import Duration
from otel_perfopt.registry import CACHE_REGISTRY, Place, calling_place
from otel_perfopt.telemetry import names
from otel_perfopt.unset import UNSET, Unset

if TYPE_CHECKING:
    from otel_perfopt.tiers import Codec, Tier

__all__ = ("Cache", "get_cache")

K = TypeVar("K", default=Any)
V = TypeVar("V", default=Any)
D = TypeVar("D")


class Cache(Many, Generic[K, V]):
    """A cache in memory, with one load per key at a time, shared by threads and event loops.

    Keys are compared as a dict compares them (``1``, ``1.0`` and ``True`` are one key). None is a value like any other.
    Every request, eviction and load counts in the ``perfopt.cache.*`` metrics, under the cache's name.

    Args:
        name: names the cache in metrics, spans and `get_cache`.
        max_size: the most entries; 0 keeps nothing (loads are still shared), None has no limit.
        ttl: how long an entry is fresh, in seconds, as a `timedelta`, or as a string such as ``"5m"``; None for ever.
        ttl_jitter: the fraction of the ttl by which it is shortened at most, at random, so that entries that were made
            together do not expire together.
        refresh_after: from which age on a hit also loads the value anew, in the background; if that fails, the old value stays.
            None for never.
        stale_for: how long after its time an expired value may still be served, if the load fails or is slow; 0 not at all,
            None for as long as it is in memory.
        soft_timeout: how long to wait for a load when there is a stale value; that is served then, and the load goes on. None
            to wait for its end, 0 not to wait.
        hard_timeout: how long to wait for a load at most; then a stale value is served, or `LoadTimeout` is raised, and the load
            goes on. None to wait for its end. With a timeout, loads run in worker threads.
        error_ttl: how long the error of a load is raised again before the next attempt; 0 not at all, None until it is
            invalidated.
        policy: which entry goes when room is needed: ``"s3fifo"``, or ``"lru"`` for the least recently used.
        max_weight: the most weight of all entries together, in the weigher's unit; None has no limit. Goes with `weigher`.
        weigher: called with a key and its value, returns the entry's weight. An entry heavier than `max_weight` is not kept.
        value_type: the type of values in tiers, such as a dataclass; see `otel_perfopt.tiers.Codec`.
        tiers: what is behind the memory, the nearest first: each holds what the memory has no room for, and more.
        persist: whether to keep entries in a SQLite file, too, which outlives the process and is shared by all processes of the
            machine: True for ``.worktrees/.cache/<name>.db``, or the path of a file. It is the last of the tiers.
        codec: makes bytes of values for the tiers.
        unencodable: what to do with a key or a value that has no bytes: ``"raise"``, or ``"memory"`` to keep it there only.
        hot_keys: whether `stats` and the report show the keys that most requests are for; see `HotKey`. The cache then holds on
            to 64 keys at most, until they are deleted or it is cleared.
        clock: returns monotonic seconds; for tests.
        wall_clock: returns the time of day in seconds since 1970; for tests.

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
        ttl_jitter: float = 0.0,
        refresh_after: Duration | None = None,
        stale_for: Duration | None = 0.0,
        soft_timeout: Duration | None = None,
        hard_timeout: Duration | None = None,
        error_ttl: Duration | None = 0.0,
        policy: Literal["s3fifo", "lru"] = "s3fifo",
        max_weight: float | None = None,
        weigher: Weigher | None = None,
        value_type: Any = None,
        tiers: "Sequence[Tier]" = (),
        persist: bool | str | Path = False,
        codec: "Codec[V] | None" = None,
        unencodable: Literal["raise", "memory"] = "raise",
        hot_keys: bool = True,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        _place: Place | None = None,
    ) -> None:
        options = {option: value for option, value in locals().items() if option not in ("self", "_place", "__class__")}
        super().__init__(**options)
        self._labels: dict[str, int] = {}
        self._follow_forks()
        CACHE_REGISTRY.register(name, self, _place or calling_place(1), stacklevel=2)

    def __repr__(self) -> str:
        return f"<Cache {self.name!r}: {len(self)} entries, max_size={self.max_size}, ttl={self.ttl}>"

    @overload
    def get(self, key: K, loader: None = None) -> V | None: ...
    @overload
    def get(self, key: K, loader: None = None, *, default: D) -> V | D: ...
    @overload
    def get(
        self,
        key: K,
        loader: Callable[[], V],
        *,
        default: Any = None,
        ttl: Duration | Unset | None = UNSET,
        tags: Iterable[str] = (),
    ) -> V: ...
    def get(
        self,
        key: K,
        loader: Callable[[], V] | None = None,
        *,
        default: Any = None,
        ttl: Duration | Unset | None = UNSET,
        tags: Iterable[str] = (),
    ) -> Any:
        """Return the value of `key`; load it if it is missing.

        A load runs in this thread. Callers that want the same key meanwhile wait for it, in other threads and on event loops.

        Args:
            key: any hashable value.
            loader: called without arguments, returns the value. What it raises, all those who wait get; it is not kept.
            default: what to return when the value is missing and there is no loader.
            ttl: how long a loaded value is fresh; the cache's own by default, None for ever. The loader may override it, see
                `entry_options`.
            tags: the tags of a loaded value, for `invalidate_tag`.

        Raises:
            ReentrantLoad: waiting for the load would never end.
            LoadTimeout: it took longer than the hard timeout of the cache, and there is no stale value.
            TypeError: `key` is not hashable, or `loader` is a coroutine function.
        """
        entry = self._store.entries.get(key)
        if entry is not None and entry.expires > self.clock():
            return self._hit(entry)
        if loader is None:
            value = self._get_if_there(key)
            return default if value is ABSENT else value
        return self._get_or_load(Request(key, loader, ttl, checked_tags(tags)))

    @overload
    async def get_async(self, key: K, loader: None = None) -> V | None: ...
    @overload
    async def get_async(self, key: K, loader: None = None, *, default: D) -> V | D: ...
    @overload
    async def get_async(
        self,
        key: K,
        loader: Callable[[], Awaitable[V]],
        *,
        default: Any = None,
        ttl: Duration | Unset | None = UNSET,
        tags: Iterable[str] = (),
    ) -> V: ...
    @overload
    async def get_async(
        self,
        key: K,
        loader: Callable[[], V],
        *,
        default: Any = None,
        ttl: Duration | Unset | None = UNSET,
        tags: Iterable[str] = (),
    ) -> V: ...
    async def get_async(
        self,
        key: K,
        loader: Callable[[], Any] | None = None,
        *,
        default: Any = None,
        ttl: Duration | Unset | None = UNSET,
        tags: Iterable[str] = (),
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
            value = await self._get_if_there_async(key)
            return default if value is ABSENT else value
        return await self._get_or_load_async(Request(key, loader, ttl, checked_tags(tags)))

    def get_many(
        self,
        keys: Iterable[K],
        loader: Callable[[list[K]], Mapping[K, V]] | None = None,
        *,
        ttl: Duration | Unset | None = UNSET,
        tags: Iterable[str] = (),
    ) -> dict[K, V]:
        """Return the values of several keys, in their order; load those that are missing, all with one call.

        Args:
            keys: the keys.
            loader: takes the list of the missing keys, returns a mapping with their values. Keys that are loaded already for
                somebody else are not among them, and a key that the mapping lacks is not in the result.
            ttl: how long loaded values are fresh; the cache's own by default, None for ever.
            tags: the tags of loaded values.

        Errors: see `get`. Any key that cannot be had fails the call; the values of the others are kept.

        >>> squares = Cache("squares")
        >>> squares.get_many([1, 2], lambda missing: {number: number**2 for number in missing})
        {1: 1, 2: 4}
        """
        return self._get_many(Request(None, loader or NO_LOADER, ttl, checked_tags(tags)), keys)

    async def get_many_async(
        self,
        keys: Iterable[K],
        loader: Callable[[list[K]], Mapping[K, V] | Awaitable[Mapping[K, V]]] | None = None,
        *,
        ttl: Duration | Unset | None = UNSET,
        tags: Iterable[str] = (),
    ) -> dict[K, V]:
        """Do what `get_many` does, without blocking the event loop; see `get_async`."""
        return await self._get_many_async(Request(None, loader or NO_LOADER, ttl, checked_tags(tags)), keys)

    def set(self, key: K, value: V, *, ttl: Duration | Unset | None = UNSET, tags: Iterable[str] = ()) -> None:
        """Keep `value` under `key`; a load of this key that began before does not replace it.

        Args:
            key: any hashable value.
            value: any value, None included.
            ttl: how long it is fresh; the cache's own by default, None for ever.
            tags: its tags, for `invalidate_tag`.
        """
        self._set(key, value, ttl, checked_tags(tags))

    def set_many(self, values: Mapping[K, V], *, ttl: Duration | Unset | None = UNSET, tags: Iterable[str] = ()) -> None:
        """Keep each value under its key; see `set`."""
        tags = checked_tags(tags)
        for key, value in values.items():
            self._set(key, value, ttl, tags)

    def delete(self, key: K) -> bool:
        """Forget `key`, and forbid every load of it that began before to store its value.

        Returns:
            Whether there was an entry.
        """
        return self._delete(key)

    def expire(self, key: K) -> bool:
        """Make the value of `key` stale, as if its time were over; a load that began before may still store its value.

        Returns:
            Whether there was a fresh entry.
        """
        return self._expire(key)

    def invalidate_tag(self, tag: str) -> None:
        """Forget everything that has this tag, and forbid every load of it that began before to store its value.

        It takes the same time however many entries have the tag: they are dropped when they are asked for, or when room is
        needed.

        >>> prices = Cache("prices")
        >>> prices.set("apple", 3, tags=["fruit"])
        >>> prices.invalidate_tag("fruit")
        >>> "apple" in prices
        False
        """
        self._invalidate_tag(*checked_tags([tag]))

    def clear(self) -> None:
        """Forget everything, and forbid every load that began before to store its value. Counts go on.

        It takes the same time however many entries there are; many are let go of in a worker thread.
        """
        self._clear()

    def flush(self) -> None:
        """Return when the tiers behind the memory have everything that was set or loaded before."""
        self._flush()

    def close(self) -> None:
        """Flush, and let go of files and connections of the tiers; a later call opens them again."""
        self._close()

    async def set_async(self, key: K, value: V, *, ttl: Duration | Unset | None = UNSET, tags: Iterable[str] = ()) -> None:
        """Do what `set` does."""
        await self._beside_the_loop(partial(self._set, key, value, ttl, checked_tags(tags)))

    async def set_many_async(
        self, values: Mapping[K, V], *, ttl: Duration | Unset | None = UNSET, tags: Iterable[str] = ()
    ) -> None:
        """Do what `set_many` does."""
        await self._beside_the_loop(partial(self.set_many, values, ttl=ttl, tags=tags))

    async def delete_async(self, key: K) -> bool:
        """Do what `delete` does."""
        found: bool = await self._beside_the_loop(partial(self._delete, key))
        return found

    async def expire_async(self, key: K) -> bool:
        """Do what `expire` does."""
        found: bool = await self._beside_the_loop(partial(self._expire, key))
        return found

    async def invalidate_tag_async(self, tag: str) -> None:
        """Do what `invalidate_tag` does."""
        await self._beside_the_loop(partial(self._invalidate_tag, *checked_tags([tag])))

    async def clear_async(self) -> None:
        """Do what `clear` does."""
        await self._beside_the_loop(self._clear)

    async def flush_async(self) -> None:
        """Do what `flush` does."""
        await self._beside_the_loop(self._flush)

    async def aclose(self) -> None:
        """Do what `close` does."""
        await self._beside_the_loop(self._close)

    def _claim(self, label: str) -> str:
        """Return `label`, or one made from it, for a function whose keys no other function in this cache may have.

        Closures of one function share a name, as do all lambdas of a module.
        """
        with self._lock:
            number = self._labels[label] = self._labels.get(label, 0) + 1
        return label if number == 1 else f"{label}#{number}"

    def stats(self) -> CacheStats:
        """Return what this cache holds and has counted; with a persistent tier also what was counted before this process."""
        usage, counts = self.memory_usage(), self._counts
        lifetime = {} if self._figures is None else self._figures.read()
        hot_keys = self._hot_keys()
        with self._lock:
            return CacheStats(
                name=self.name,
                size=len(self._store),
                max_size=self.max_size,
                hit_count=counts.hits + sum(self._found_behind.values()),
                hits_by_tier={names.MEMORY_TIER: counts.hits, **self._found_behind},
                miss_count=counts.misses,
                stale_count=counts.stale,
                refreshes=counts.refreshes,
                memory_usage=usage,
                weight=self._store.weight,
                max_weight=self.max_weight,
                evictions_capacity=counts.evicted_capacity,
                evictions_weight=counts.evicted_weight,
                evictions_expired=counts.evicted_expired,
                loads_in_flight=len(self._flights),
                load_waiters=self._flights.waiting,
                lifetime=lifetime,
                hot_keys=hot_keys,
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
