"""The memory of a cache: entries, limits and expiry, without a lock or a clock.

`Store.entries` may be read without a lock (a plain ``dict.get``); everything else wants its caller to hold one.
"""

import heapq
import math
from collections.abc import Hashable, Iterator
from itertools import islice
from typing import Any, Literal, NamedTuple

from otel_perfopt._core.policies import Entry, Policy, make_policy

__all__ = ("Evicted", "Reason", "Store")

Reason = Literal["capacity", "weight", "expired"]
SWEEP_PER_PUT = 4


class Evicted(NamedTuple):
    """An entry that left by itself, and why."""

    entry: Entry
    reason: Reason


class Store:
    """Entries by key, at most `max_size` of them and of `max_weight` in all.

    Args:
        policy: ``"s3fifo"`` or ``"lru"``.
        max_size: the most entries; None for no limit, 0 to keep nothing.
        max_weight: the most weight; None for no limit.
    """

    def __init__(self, policy: str, *, max_size: int | None, max_weight: float | None) -> None:
        self.entries: dict[Hashable, Entry] = {}
        self.policy = make_policy(policy)
        self._policy_name = policy
        self.max_size = math.inf if max_size is None else max_size
        self.max_weight = math.inf if max_weight is None else max_weight
        self.weight = 0.0
        # Keys, not entries: an entry that has left must not be kept alive until it would have expired.
        self._due: list[Any] = []
        self._dropped: list[object] = []
        self._serial = 0

    def __len__(self) -> int:
        return len(self.entries)

    def put(self, entry: Entry, now: float) -> tuple[Entry | None, list[Evicted]]:
        """Keep `entry`, and return what its key had before and what had to go to make room.

        The caller lets go of the returned entries after it released its lock, because dropping a value may run user code.
        An entry that is heavier than `max_weight` comes straight back as evicted.
        """
        replaced = self.discard(entry.key)
        evicted = self.sweep(now, limit=SWEEP_PER_PUT)
        if self.max_size == 0:
            return replaced, evicted
        if entry.weight > self.max_weight:
            evicted.append(Evicted(entry, "weight"))
            return replaced, evicted
        while self.entries and (over := self._over(entry)):
            evicted.append(self._evict(over, now))
        if replaced is not None:
            entry.frequency = replaced.frequency
        self._insert(entry)
        return replaced, evicted

    def discard(self, key: Hashable) -> Entry | None:
        """Forget a key and return its entry, if it had one."""
        entry = self.entries.pop(key, None)
        if entry is not None:
            self.policy.discard(entry)
            self._forget(entry)
        return entry

    def discard_entry(self, entry: Entry) -> None:
        """Forget exactly this entry, not a newer one of its key."""
        if self.entries.get(entry.key) is entry:
            self.discard(entry.key)

    def clear(self) -> tuple[dict[Hashable, Entry], Policy, list[Any]]:
        """Forget everything, in constant time, and return what held it, for the caller to drop without the lock."""
        old = self.entries, self.policy, self._due
        self.entries, self.policy, self._due = {}, make_policy(self._policy_name), []
        self.weight = 0.0
        return old

    def sweep(self, now: float, *, limit: int | None = None) -> list[Evicted]:
        """Remove entries that are not worth keeping any more, the earliest first; at most `limit` of them."""
        evicted: list[Evicted] = []
        while self._due and self._due[0][0] <= now and (limit is None or len(evicted) < limit):
            due = heapq.heappop(self._due)
            self._dropped.append(due)
            entry = self._entry_of(due)
            if entry is not None:
                self.discard(entry.key)
                evicted.append(Evicted(entry, "expired"))
        return evicted

    def take_dropped(self) -> list[object]:
        """Return what holds keys that are not needed any more; dropping a key may run user code, so the caller does it."""
        dropped, self._dropped = self._dropped, []
        return dropped

    def sample(self, count: int) -> list[Entry]:
        """Return up to `count` entries, half of them the oldest and half the newest."""
        half = (count + 1) // 2
        if len(self.entries) <= count:
            return list(self.entries.values())
        return [*islice(self.entries.values(), half), *islice(reversed(self.entries.values()), count - half)]

    def rebuild(self) -> None:
        """Make everything consistent again from `entries` alone, after a fork cut another thread's step short."""
        entries, *others = self.clear()
        self._dropped.extend(others)
        for entry in entries.values():
            self._insert(entry)

    def _insert(self, entry: Entry) -> None:
        self.entries[entry.key] = entry
        self.policy.add(entry, hash(entry.key))
        self.weight += entry.weight
        if entry.group is not None:
            entry.group.add(entry)
        if entry.kept_until != math.inf:
            self._serial += 1
            entry.serial = self._serial
            heapq.heappush(self._due, (entry.kept_until, entry.serial, entry.key))
            if len(self._due) > 2 * len(self.entries) + 64:
                self._dropped.append(self._due)
                self._due = [due for due in self._due if self._entry_of(due) is not None]
                heapq.heapify(self._due)

    def _entry_of(self, due: tuple[float, int, Hashable]) -> Entry | None:
        entry = self.entries.get(due[2])
        return entry if entry is not None and entry.serial == due[1] else None

    def _evict(self, reason: Reason, now: float) -> Evicted:
        entry = self.policy.evict(by_weight=reason == "weight")
        del self.entries[entry.key]
        self._forget(entry)
        return Evicted(entry, "expired" if entry.fresh_until <= now else reason)

    def _forget(self, entry: Entry) -> None:
        self.weight -= entry.weight
        if not self.entries:
            self.weight = 0.0  # no rounding error outlives the entries
        if entry.group is not None:
            entry.group.discard(entry)

    def _over(self, newcomer: Entry) -> Reason | None:
        if len(self.entries) >= self.max_size:
            return "capacity"
        if self.weight + newcomer.weight > self.max_weight:
            return "weight"
        return None

    def __iter__(self) -> Iterator[tuple[Hashable, Any]]:
        return ((key, entry.value) for key, entry in self.entries.items())
