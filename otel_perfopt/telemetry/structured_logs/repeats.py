"""A limit on how often the same thing is told."""

from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

__all__ = ("Repeats",)

MAX_KEYS = 1000

K = TypeVar("K", bound=Hashable)


class Repeats(Generic[K]):
    """Lets a key pass so many times in an interval, and counts the rest; an interval begins with the first of its key.

    At most 1,000 keys are known at a time; what comes beyond passes. Not for several threads at once.

    Args:
        limit: how many pass.
        interval: seconds.

    >>> repeats = Repeats[str](limit=2, interval=60.0)
    >>> [repeats.admits("disk full", now) for now in (0.0, 1.0, 2.0, 3.0, 60.0)]
    [True, True, False, False, True]
    >>> list(repeats.suppressed())
    [('disk full', 2)]
    """

    def __init__(self, limit: int, interval: float) -> None:
        self._limit = limit
        self._interval = interval
        self._windows: dict[K, tuple[float, int]] = {}  # when it began, and how many came; in the order of their beginnings
        self._over: dict[K, int] = {}

    def admits(self, key: K, now: float) -> bool:
        """Whether this one may pass."""
        self.close(now)
        began, count = self._windows.get(key, (now, 0))
        if count or len(self._windows) < MAX_KEYS:
            self._windows[key] = (began, count + 1)
        return count < self._limit

    def close(self, now: float) -> None:
        """End the intervals that are over."""
        while self._windows:
            key, (began, count) = next(iter(self._windows.items()))
            if now - began < self._interval:
                return
            self._end(key, count)

    def close_all(self) -> None:
        """End all intervals, whether they are over or not."""
        for key, (_, count) in [*self._windows.items()]:
            self._end(key, count)

    def is_counting(self) -> bool:
        """Whether something was suppressed that is still to be told."""
        return bool(self._over) or any(count > self._limit for _, count in self._windows.values())

    def suppressed(self) -> Iterator[tuple[K, int]]:
        """Yield, once, what was suppressed in intervals that have ended, and how often."""
        while self._over:
            yield self._over.popitem()

    def _end(self, key: K, count: int) -> None:
        del self._windows[key]
        if count > self._limit:
            self._over[key] = self._over.get(key, 0) + count - self._limit
