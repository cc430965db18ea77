"""A tier in the memory of this process, which several caches share as if each of them were a process of its own."""

import logging
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from otel_perfopt.telemetry import background, instruments, names
from otel_perfopt.telemetry.background import NoThread
from otel_perfopt.tiers.base import Change, Found, Record, Tier, TierUsage

__all__ = ("DictTier",)

STALE = 0.0
"""When a record became stale that was made so; no clock can have been there."""

_log = logging.getLogger(names.SCOPE)


class _Mark(NamedTuple):
    """A moment of one store."""

    store: "_Store"
    serial: int


class _Store:
    """What peers share: records with the serials at which they were written, and the last serial of each kind of change."""

    def __init__(self) -> None:
        self.records: dict[bytes, tuple[Record, int]] = {}
        self.counts: dict[str, int] = {}
        self.peers: weakref.WeakSet[DictTier] = weakref.WeakSet()
        self.serial = 0
        self.gone: dict[Change, int] = {}
        self.expired: dict[bytes, int] = {}
        self.replaced: dict[bytes, int] = {}
        self.start_afresh()
        _stores.add(self)

    def start_afresh(self) -> None:
        """Take a new lock, and forget the threads; for a forked child."""
        # Reentrant: a collection of garbage under the lock may run a finalizer that uses this tier.
        self.lock = threading.RLock()
        self.told = threading.Condition(self.lock)
        for peer in list(self.peers):
            peer._is_telling = False

    def next(self) -> int:
        """Return the serial of one more change."""
        self.serial += 1
        return self.serial

    def is_gone(self, key: bytes, record: Record, since: int) -> bool:
        """Whether a record was invalidated after a serial."""
        ends = [Change(), Change(key), *(Change(tag=tag) for tag in record.tags)]
        return any(self.gone.get(end, 0) > since for end in ends)

    def valid(self, key: bytes) -> Record | None:
        """Return the record of a key, if there is one that is valid."""
        record, born = self.records.get(key, (None, 0))
        return None if record is None or self.is_gone(key, record, born) else record


class DictTier(Tier):
    """A tier of a cache that does all that a tier has to do, with a dict.

    A cache has a tier of its own, so that a tier can tell what others have changed: use `peer` for each further cache. What is
    written can be found by peers at once; what is invalidated they are told in a background thread, as by other processes.

    Args:
        clock: returns the time of day in seconds; for tests.

    >>> tier = DictTier()
    >>> peer = tier.peer()
    >>> tier.write({b"42": Record(b"Ada", created=0.0, fresh_until=4e9, kept_until=4e9)}, tier.mark())
    >>> peer.read([b"42"]).records[b"42"].value
    b'Ada'
    >>> tier.watch(lambda change: print(change.key, "has changed"))
    >>> peer.delete([b"42"])
    True
    >>> peer.settle()
    b'42' has changed
    """

    kind = "dict"

    def __init__(self, *, clock: Callable[[], float] = time.time, _store: _Store | None = None) -> None:
        self._clock = clock
        self._store = _store or _Store()
        self._callbacks: tuple[Callable[[Change], None], ...] = ()
        self._news: deque[Change] = deque()
        self._is_telling = False
        with self._store.lock:
            self._store.peers.add(self)

    def __repr__(self) -> str:
        return f"<DictTier with {len(self._store.records)} records>"

    def peer(self) -> "DictTier":
        """Return one more tier with the same records, for one more cache."""
        return DictTier(clock=self._clock, _store=self._store)

    def settle(self, timeout: float = 10.0) -> None:
        """Return when all peers were told of what has changed until now; not from inside a callback.

        Args:
            timeout: how many seconds to wait.

        Raises:
            TimeoutError: a callback takes longer.
        """
        told, peers = self._store.told, self._store.peers
        with told:
            if not told.wait_for(lambda: not any(peer._is_telling or peer._news for peer in list(peers)), timeout):
                raise TimeoutError(f"not everybody has been told of all changes after {timeout} s: a callback takes longer")

    # the tier --------------------------------------------------------------------------------------------

    def read(self, keys: Sequence[bytes]) -> Found:
        """Return the records of some keys."""
        store, now = self._store, self._clock()
        with store.lock:
            found = {key: record for key in keys if (record := store.valid(key)) is not None and record.kept_until > now}
            return Found(found, _Mark(store, store.serial))

    def mark(self) -> _Mark:
        """Return a mark for this moment."""
        return _Mark(self._store, self._store.serial)

    def write(self, records: Mapping[bytes, Record], mark: _Mark, *, replaces: bool = False) -> None:
        """Keep records, at once; see `Tier.write`."""
        store, made = mark
        if store is not self._store:
            return  # it says nothing about what was invalidated here
        with self._changing() as changed:
            for key, record in records.items():
                if store.is_gone(key, record, made) or (store.replaced.get(key, 0) > made and not replaces):
                    continue
                is_stale = store.expired.get(key, 0) > made
                if replaces:
                    store.replaced[key] = store.next()
                    changed.append(Change(key))
                store.records[key] = record._replace(fresh_until=STALE) if is_stale else record, store.serial

    def delete(self, keys: Sequence[bytes]) -> bool:
        """Forget keys before returning; return whether there was any fresh one."""
        now = self._clock()
        with self._changing() as changed:
            was_fresh = self._any_fresh(keys, now)
            for key in keys:
                self._store.gone[Change(key)] = self._store.next()
                self._store.records.pop(key, None)
                changed.append(Change(key))
        return was_fresh

    def expire(self, keys: Sequence[bytes]) -> bool:
        """Make records stale before returning; return whether there was any fresh one."""
        store, now = self._store, self._clock()
        with self._changing() as changed:
            was_fresh = self._any_fresh(keys, now)
            for key in keys:
                store.expired[key] = store.next()
                if key in store.records:
                    record, born = store.records[key]
                    store.records[key] = record._replace(fresh_until=STALE), born
                changed.append(Change(key))
        return was_fresh

    def invalidate_tag(self, tag: str) -> None:
        """Forget all records with a tag, before returning and in constant time."""
        with self._changing() as changed:
            self._store.gone[Change(tag=tag)] = self._store.next()
            changed.append(Change(tag=tag))

    def clear(self) -> None:
        """Forget all records before returning."""
        with self._changing() as changed:
            self._store.gone[Change()] = self._store.next()
            self._store.records.clear()
            changed.append(Change())

    def watch(self, on_change: Callable[[Change], None]) -> None:
        """Have `on_change` called, in a background thread, for whatever peers invalidate from now on."""
        with self._store.lock:
            self._callbacks = (*self._callbacks, on_change)

    def add_counts(self, counts: Mapping[str, int]) -> Mapping[str, int]:
        """Add to the figures that all peers share, and return their sums."""
        with self._store.lock:
            sums = self._store.counts
            for name, count in counts.items():
                sums[name] = sums.get(name, 0) + count
            return dict(sums)

    def usage(self) -> TierUsage:
        """Return how much is in it; what can no longer be found stays until it is replaced or deleted."""
        with self._store.lock:
            records = dict(self._store.records)
        return TierUsage(len(records), sum(len(key) + len(record.value) for key, (record, _) in records.items()), None)

    def flush(self) -> None:
        """Return at once: what was written can be found."""

    def close(self) -> None:
        """Return at once: there is nothing to let go of."""

    # telling others --------------------------------------------------------------------------------------

    def _any_fresh(self, keys: Sequence[bytes], now: float) -> bool:
        return any((record := self._store.valid(key)) is not None and record.fresh_until > now for key in keys)

    @contextmanager
    def _changing(self) -> Iterator[list[Change]]:
        """Hold the lock, and then have the others told of the changes that are put into the list."""
        changed: list[Change] = []
        with self._store.lock:
            yield changed
            if not changed:
                return
            watching = [peer for peer in list(self._store.peers) if peer is not self and peer._callbacks]
            for peer in watching:
                peer._news.extend(changed)
        for peer in watching:
            peer._tell_soon()

    def _tell_soon(self) -> None:
        with self._store.lock:
            if self._is_telling:
                return
            self._is_telling = True
        try:
            background.submit(self._tell)
        except NoThread:
            self._is_telling = False  # the process ends

    def _tell(self) -> None:
        """Tell the cache what is new, one after the other and in order."""
        while True:
            with self._store.lock:
                if not self._news:
                    self._is_telling = False
                    self._store.told.notify_all()
                    return
                change = self._news.popleft()
            for callback in self._callbacks:
                try:
                    callback(change)
                except BaseException:  # noqa: BLE001 - it is the cache's, and others want to be told, too
                    _log.exception("a cache could not be told of a change in its tier")


_stores: "weakref.WeakSet[_Store]" = weakref.WeakSet()


def _after_fork() -> None:
    for store in list(_stores):
        store.start_afresh()


instruments.on_fork(_after_fork)
