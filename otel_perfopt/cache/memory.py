"""The memory tier of a cache: a store behind one lock, with its clock, its limits and its counts."""

import math
import threading
import weakref
from collections import deque
from collections.abc import Callable, Hashable, Iterable
from functools import partial
from numbers import Real
from typing import Any, NamedTuple

from otel_perfopt._core.policies import Entry, Policy
from otel_perfopt._core.store import Evicted, Store
from otel_perfopt._core.tags import Tags
from otel_perfopt.cache.hot import HotKey, HotKeys
from otel_perfopt.cache.lifetimes import Lifetimes
from otel_perfopt.cache.owners import Owners
from otel_perfopt.cache.sizing import SAMPLE, estimate
from otel_perfopt.cache.terms import Terms
from otel_perfopt.durations import Duration
from otel_perfopt.errors import ConfigurationError
from otel_perfopt.telemetry import background, instruments, names
from otel_perfopt.telemetry.caches import CACHES, CacheCounts
from otel_perfopt.telemetry.family import Gauges
from otel_perfopt.unset import UNSET, Unset

__all__ = ("MemoryTier", "Weigher")

MANY = 10_000  # entries
Weigher = Callable[[Any, Any], float]


_GAUGES: Gauges = {
    names.CACHE_ENTRY_COUNT: len,
    names.CACHE_ENTRY_LIMIT: lambda tier: tier.max_size,
    names.CACHE_SIZE: lambda tier: tier.memory_usage(),
}


class MemoryTier:
    """Entries in memory, and everything about them that needs no loader.

    Args: see `Cache`.
    """

    def __init__(
        self,
        name: str,
        *,
        max_size: int | None,
        policy: str,
        max_weight: float | None,
        weigher: Weigher | None,
        hot_keys: bool,
        clock: Callable[[], float],
        gauges: Gauges,
        **durations: Any,
    ) -> None:
        if not isinstance(name, str) or not name.strip():
            raise ConfigurationError(f"name={name!r}: a cache needs a name, such as 'users'; its metrics carry it")
        self.name = name
        self.max_size = _checked_size(max_size)
        self.max_weight = _checked_weight(max_weight, weigher)
        self.policy = policy
        self.clock = clock
        self._weigher = weigher
        # Reentrant: a collection of garbage under the lock may run a finalizer that uses this cache.
        self._lock = threading.RLock()
        self._lifetimes = Lifetimes.checked(durations)
        self.ttl = None if self._lifetimes.ttl == math.inf else self._lifetimes.ttl
        try:
            self._store = Store(policy, max_size=self.max_size, max_weight=self.max_weight)
        except ValueError as error:
            raise ConfigurationError(str(error)) from None
        self._owners = Owners()
        self._tags = Tags()
        self._is_changing = False
        self._postponed: deque[Callable[[], Any]] = deque()
        self._hot = HotKeys(is_on=_checked_switch("hot_keys", hot_keys))
        self._counts: CacheCounts = CACHES.join(name, self, {**_GAUGES, **gauges}, self._hot.counts)

    def _follow_forks(self) -> None:
        """Start afresh in forked children, from now on: a fork may come while another thread is still making this object."""
        _live.add(self)

    def __len__(self) -> int:
        return len(self._store)

    def __contains__(self, key: Hashable) -> bool:
        """Whether a fresh value is in memory; counts as no request."""
        return self._fresh(key) is not None

    def memory_usage(self) -> int:
        """Return the estimated bytes of all keys and values."""
        with self._lock:
            sample, count = self._store.sample(SAMPLE), len(self._store)
        return estimate(sample, count)

    def _find(self, key: Hashable) -> Entry | None:
        """Return the entry of a key, fresh or stale, unless it was invalidated."""
        entry = self._store.entries.get(key)
        return entry if entry is not None and entry.is_valid() else None

    def _fresh(self, key: Hashable) -> Entry | None:
        entry = self._find(key)
        return entry if entry is not None and entry.fresh_until > self.clock() else None

    def _stale(self, key: Hashable) -> Entry | None:
        """Return the entry that may be served if nothing better is to be had."""
        entry = self._find(key) if self._lifetimes.stale_for else None
        return entry if entry is not None and entry.kept_until > self.clock() else None

    def _hit(self, entry: Entry) -> Any:
        self._hot.hit(entry.key)
        self._store.policy.touch(entry)
        return entry.value

    def _entry(self, key: Hashable, value: Any, terms: Terms) -> Entry:
        """Make an entry; weighs the value, which is user code, so that no lock may be held."""
        weight = 1.0 if self._weigher is None else _checked_share(self._weigher(key, value), key)
        entry = terms.entry(key, value, weight)
        self._lifetimes.date(entry, self.clock(), terms.ttl)
        return entry

    def _terms(self, ttl: Duration | Unset | None = UNSET, tags: Iterable[str] = (), owner: object = None) -> Terms:
        """Return the terms of an entry whose value is about to be made; with an owner, under the lock."""
        group = None if owner is None else self._owners.group(owner)
        if not tags:
            return Terms(ttl, group, (), self._tags.now)
        with self._lock:  # two threads at once would make two of a tag, and only one would be invalidated
            return Terms(ttl, group, self._tags.find(tags), self._tags.now)

    def _put(self, entry: Entry) -> object:
        """Store an entry under the lock; the caller drops what it returns after releasing it."""
        return self._change(partial(self._put_now, entry))

    def _put_now(self, entry: Entry) -> object:
        dead = self._owners.take_dead()
        for orphan in dead:
            self._store.discard_entry(orphan)
        if not entry.is_valid():  # one of its tags was invalidated while its value was made
            return entry, dead, self._store.discard(entry.key)
        now = self.clock()
        replaced, evicted = self._store.put(entry, now)
        self._count(evicted)
        if replaced is not None and replaced.fresh_until <= now:
            self._counts.evicted_expired += 1
        return dead, replaced, evicted, self._store.take_dropped(), [self._hot.discard(orphan.key) for orphan in dead]

    def _forget_all(self) -> "Cleared":
        """Forget all entries, under the lock and in constant time; see `Cleared`."""
        cleared = Cleared(*self._store.clear(), self._store.take_dropped(), self._owners, self._hot.clear())
        self._owners = Owners()
        return cleared

    def _hot_keys(self) -> tuple[HotKey, ...]:
        """Return the hot keys as a person knows them: a method's with its instance."""
        return tuple(hot._replace(key=self._owners.told(hot.key)) for hot in self._hot.top())

    def _change(self, change: Callable[[], Any]) -> list[Any]:
        """Change the store, under the lock and in one piece.

        A collection of garbage in the middle of a change may run a finalizer that wants another one; that comes after it.

        Returns:
            What the change returned, None if it comes later; and what others returned, to be dropped with it.
        """
        if self._is_changing:
            self._postponed.append(change)
            return [None]
        self._is_changing = True
        try:
            results = [change()]
            while self._postponed:
                results.append(self._postponed.popleft()())
        except BaseException:  # Ctrl-C, or a key whose comparison raises
            self._store.rebuild()
            raise
        finally:
            self._is_changing = False
        return results

    def _count(self, evicted: Iterable[Evicted]) -> None:
        counts = self._counts
        for _, reason in evicted:
            if reason == "capacity":
                counts.evicted_capacity += 1
            elif reason == "weight":
                counts.evicted_weight += 1
            else:
                counts.evicted_expired += 1

    def __del__(self) -> None:
        owners = getattr(self, "_owners", None)
        if owners is not None:
            owners.dissolve()

    def _reset_after_fork(self) -> None:
        self._lock = threading.RLock()
        self._is_changing = False
        self._store.rebuild()
        self._hot.reset_after_fork()


class Cleared(NamedTuple):
    """What a cache held before it was cleared."""

    entries: dict[Hashable, Entry]
    policy: Policy
    due: list[object]
    dropped: list[object]
    owners: Owners
    hot: object

    def let_go(self) -> None:
        """Drop it; much of it in a worker, and bit by bit, because that takes a while and holds the interpreter."""
        if len(self.entries) > MANY:
            try:
                background.submit(self._let_go)
            except background.NoThread:
                self._let_go()
        else:
            self._let_go()

    def _let_go(self) -> None:
        self.owners.dissolve()
        while self.entries:
            self.entries.popitem()
        while len(self.policy):
            self.policy.evict()
        while self.due:
            self.due.pop()


def _checked_switch(option: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise ConfigurationError(f"{option}={value!r} must be True or False")
    return value


def _checked_size(max_size: int | None) -> int | None:
    if max_size is not None and (not isinstance(max_size, int) or isinstance(max_size, bool) or max_size < 0):
        raise ConfigurationError(f"max_size={max_size!r} must be a count of entries, 0 to keep nothing, or None for no limit")
    return max_size


def _checked_weight(max_weight: float | None, weigher: Weigher | None) -> float | None:
    if (max_weight is None) != (weigher is None):
        given, missing = ("max_weight", "weigher") if weigher is None else ("weigher", "max_weight")
        raise ConfigurationError(f"{given}= has no effect without {missing}=; give both or neither")
    if max_weight is not None and not (_is_number(max_weight) and max_weight > 0):
        raise ConfigurationError(f"max_weight={max_weight!r} must be a positive number, or None for no limit")
    return max_weight


def _checked_share(weight: float, key: Hashable) -> float:
    if not (_is_number(weight) and weight >= 0):
        raise ValueError(f"the weigher returned {weight!r} for key {key!r}: a weight is a number that is not negative")
    return float(weight)


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


_live: "weakref.WeakSet[MemoryTier]" = weakref.WeakSet()


def _reset_all_after_fork() -> None:
    for tier in list(_live):
        tier._reset_after_fork()


instruments.on_fork(_reset_all_after_fork)
