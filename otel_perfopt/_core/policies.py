"""Eviction policies: which entry goes when room is needed.

S3-FIFO after Yang et al., "FIFO queues are all you need for cache eviction" (SOSP 2023), and LRU. Both take constant time
per step, and a hit on S3-FIFO changes nothing but a small counter of the entry. A policy does not know its capacity: the
store asks for a victim when it is over a limit.
"""

import math
from collections import OrderedDict
from collections.abc import Hashable
from typing import Any, Protocol

__all__ = ("POLICIES", "Entry", "Lru", "Policy", "S3Fifo", "make_policy")

MAX_FREQUENCY = 3


class Entry:
    """One cached value.

    Attributes:
        key: the key.
        value: the value; never replaced, a new value is a new entry.
        expires: until when it is handed out without another question, on the store's clock.
        fresh_until: until when it is fresh; later than `expires` if it should be refreshed before that.
        kept_until: until when it is worth keeping; later than `fresh_until` if it may be served stale.
        frequency: hits since it was last moved, at most 3; for S3-FIFO.
        weight: its share of ``max_weight``, and of the policy's queues.
        group: the set of entries that become stale together, or None.
        queue: the number of the policy's queue that it stands in, or 0.
    """

    __slots__ = ("expires", "frequency", "fresh_until", "group", "kept_until", "key", "queue", "serial", "value", "weight")

    def __init__(self, key: Hashable, value: Any, expires: float, weight: float = 1.0, group: "set[Entry] | None" = None) -> None:
        self.key = key
        self.value = value
        self.expires = self.fresh_until = self.kept_until = expires
        self.frequency = 0
        self.weight = weight
        self.group = group
        self.queue = 0
        self.serial = 0

    def is_valid(self) -> bool:
        """Whether nothing that it depends on was invalidated."""
        return True

    def make_stale(self) -> None:
        """Let its time be over; it may still be served stale."""
        self.expires = self.fresh_until = -math.inf

    def invalidate(self) -> None:
        """Let nobody get it any more."""
        self.expires = self.fresh_until = self.kept_until = -math.inf


class Policy(Protocol):
    """What the store asks of a policy."""

    def add(self, entry: Entry, key_hash: int) -> None:
        """Take a new entry; `key_hash` recognises a key that was evicted not long ago."""

    def touch(self, entry: Entry) -> None:
        """Note a hit; may be called for an entry that has just left."""

    def discard(self, entry: Entry) -> None:
        """Forget an entry."""

    def evict(self, *, by_weight: bool = False) -> Entry:
        """Choose an entry and forget it; the policy must not be empty.

        Args:
            by_weight: whether room is needed for weight, and not for one more entry.
        """
        ...

    def __len__(self) -> int: ...


class _Queue:
    """Entries in order, with their total weight."""

    __slots__ = ("_number", "entries", "weight")

    def __init__(self, number: int) -> None:
        self.entries: OrderedDict[Entry, None] = OrderedDict()
        self.weight = 0.0
        self._number = number

    def push(self, entry: Entry) -> None:
        self.entries[entry] = None
        self.weight += entry.weight
        entry.queue = self._number  # not the queue itself: entry and queue would keep each other alive

    def pop(self) -> Entry:
        entry, _ = self.entries.popitem(last=False)
        self._let_go(entry)
        return entry

    def remove(self, entry: Entry) -> None:
        del self.entries[entry]
        self._let_go(entry)

    def _let_go(self, entry: Entry) -> None:
        # No rounding error outlives the entries.
        self.weight = self.weight - entry.weight if self.entries else 0.0
        entry.queue = 0


class S3Fifo:
    """A small queue for newcomers, a main queue for what was asked for again, and the ghosts of what left the small one.

    One-hit wonders leave through the small queue without pushing out what is popular. The small queue holds a tenth of the
    entries, or of their weight; an entry with two hits there moves to the main queue, and so does a newcomer whose ghost is
    remembered. Until something has to go, newcomers fill both queues, as in the authors' later implementation: if all of them
    began in the small one, the first evictions would lose most of a loop that fits.
    """

    SMALL_SHARE = 0.1
    PROMOTE_AT = 2

    def __init__(self) -> None:
        self._small = _Queue(1)
        self._main = _Queue(2)
        self._ghosts: OrderedDict[int, None] = OrderedDict()
        self._filling = True

    def __len__(self) -> int:
        return len(self._small.entries) + len(self._main.entries)

    def add(self, entry: Entry, key_hash: int) -> None:
        """Take a new entry, into the main queue if it left not long ago."""
        returning = self._ghosts.pop(key_hash, self) is None
        filling_main = self._filling and len(self._small.entries) > self.SMALL_SHARE * len(self)
        (self._main if returning or filling_main else self._small).push(entry)

    def touch(self, entry: Entry) -> None:
        """Note a hit."""
        if entry.frequency < MAX_FREQUENCY:
            entry.frequency += 1

    def discard(self, entry: Entry) -> None:
        """Forget an entry, and leave no ghost."""
        if entry.queue:
            (self._small if entry.queue == 1 else self._main).remove(entry)

    def evict(self, *, by_weight: bool = False) -> Entry:
        """Choose the victim: the oldest newcomer without two hits, or the oldest of the main queue without any left."""
        small, main = self._small, self._main
        self._filling = False
        while True:
            small_part, main_part = (small.weight, main.weight) if by_weight else (len(small.entries), len(main.entries))
            if small.entries and (not main.entries or main_part <= (1 - self.SMALL_SHARE) * (small_part + main_part)):
                entry = small.pop()
                if entry.frequency < self.PROMOTE_AT:
                    self._remember(entry)
                    return entry
                entry.frequency = 0
                main.push(entry)
            else:
                entry = main.pop()
                if entry.frequency == 0:
                    return entry
                entry.frequency -= 1
                main.push(entry)

    def _remember(self, entry: Entry) -> None:
        # Hashes instead of keys: a collision only misjudges a newcomer, and keys of evicted entries are let go.
        self._ghosts[hash(entry.key)] = None
        while len(self._ghosts) > max(1, int((1 - self.SMALL_SHARE) * len(self))):
            self._ghosts.popitem(last=False)


class Lru:
    """The least recently used entry goes first.

    Attributes:
        move_up: does what `touch` does, but raises KeyError for an entry that has just left.
    """

    def __init__(self) -> None:
        self._queue = _Queue(1)
        self.move_up = self._queue.entries.move_to_end

    def __len__(self) -> int:
        return len(self._queue.entries)

    def add(self, entry: Entry, key_hash: int) -> None:  # noqa: ARG002 - LRU keeps no ghosts
        """Take a new entry as the most recently used."""
        self._queue.push(entry)

    def touch(self, entry: Entry) -> None:
        """Make the entry the most recently used."""
        try:
            self.move_up(entry)
        except KeyError:
            pass  # it left between the caller's look-up and now

    def discard(self, entry: Entry) -> None:
        """Forget an entry."""
        if entry.queue:
            self._queue.remove(entry)

    def evict(self, *, by_weight: bool = False) -> Entry:  # noqa: ARG002 - the order is the same for both
        """Return the least recently used entry."""
        return self._queue.pop()


POLICIES: dict[str, type[S3Fifo] | type[Lru]] = {"s3fifo": S3Fifo, "lru": Lru}


def make_policy(name: str) -> Policy:
    """Return a new policy by its name.

    Raises:
        ValueError: no policy has this name.
    """
    try:
        return POLICIES[name]()
    except (KeyError, TypeError):
        raise ValueError(f"policy={name!r} is not known: choose one of {', '.join(map(repr, POLICIES))}") from None
