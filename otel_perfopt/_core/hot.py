"""The keys that occur most often in an endless stream, with room for a few: the Space-Saving sketch.

After Metwally, Agrawal and El Abbadi, "Efficient computation of frequent and top-k elements in data streams" (ICDT 2005). A key
that is not in the sketch takes the place of one with the least count, and begins with that count, which may be too much.
"""

from collections.abc import Hashable
from operator import attrgetter
from typing import NamedTuple

__all__ = ("Frequent", "SpaceSaving")

_count_of = attrgetter("count")


class Frequent(NamedTuple):
    """A key of the sketch.

    Attributes:
        key: the key.
        least: how often it occurred at least.
        most: how often it occurred at most.
    """

    key: Hashable
    least: int
    most: int


class _Counted:
    """A key in the sketch, its count, and with which count it began."""

    __slots__ = ("began", "count", "key")

    def __init__(self, key: Hashable, began: int) -> None:
        self.key = key
        self.count = self.began = began


class SpaceSaving:
    """Counts of the keys that occur most often.

    No count is too small, and none is too large by more than the least count. A key that has more than one in `capacity` of all
    occurrences is in the sketch.

    Args:
        capacity: the most keys.

    Attributes:
        total: all occurrences of all keys.

    >>> sketch = SpaceSaving(3)
    >>> for key in "abracadabra":
    ...     _ = sketch.add(key)
    >>> sketch.top(1)
    [Frequent(key='a', least=5, most=5)]
    """

    def __init__(self, capacity: int) -> None:
        self.total = 0
        self._capacity = capacity
        self._counted: dict[Hashable, _Counted] = {}
        self._floor = 0  # the largest count that made room
        self._least: list[_Counted] = []  # those whose count was `_floor` when all were looked at

    def __len__(self) -> int:
        return len(self._counted)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._counted

    def add(self, key: Hashable) -> Hashable:
        """Count `key`, and return the one that made room for it, if any: dropping a key may run user code."""
        dropped = None
        counted = self._counted.get(key)
        if counted is None:
            if len(self._counted) < self._capacity:
                counted = _Counted(key, self._floor)
            else:
                counted = self._evict()
                counted.began = counted.count
                dropped, counted.key = counted.key, key
            self._counted[key] = counted
        counted.count += 1
        self.total += 1
        return dropped

    def discard(self, key: Hashable) -> object:
        """Forget `key`, and return what held it; its occurrences stay in the total."""
        dropped = self._counted.pop(key, None)
        if dropped is not None:
            self._least.clear()
        return dropped

    def top(self, count: int) -> list[Frequent]:
        """Return so many keys at most, those first that surely occurred most often."""
        places = self._counted.copy().values()  # a copy, because others may be counting
        found = [Frequent(counted.key, counted.count - counted.began, counted.count) for counted in places]
        return sorted(found, key=lambda frequent: frequent.least, reverse=True)[:count]

    def _evict(self) -> _Counted:
        while True:
            while self._least:
                counted = self._least.pop()
                if counted.count == self._floor:  # it was not met again
                    del self._counted[counted.key]
                    return counted
            self._floor = min(map(_count_of, self._counted.values()))
            self._least = [counted for counted in self._counted.values() if counted.count == self._floor]
