"""Latencies: recorded at the cost of a list append, folded into a histogram off the caller's path.

Recording never waits: whoever fills the buffer folds it, unless somebody else is at it already. Design and figures of the
alternatives (a recording SDK histogram, a bounded queue, a locked cell) are in docs/telemetry.md.
"""

import threading
from collections.abc import Iterator

from otel_perfopt._core.cells import Histogram

__all__ = ("Latency",)

BUFFER = 64


class Latency:
    """The durations of one series.

    Args:
        attributes: the attributes of the series.
    """

    __slots__ = ("_buffer", "_fresh", "_is_folding", "_lock", "_replay", "_replayed", "attributes")

    def __init__(self, attributes: dict[str, str]) -> None:
        self.attributes = attributes
        self.reset()

    def reset(self) -> None:
        """Forget everything and take a new lock; for a forked child."""
        self._buffer: list[float] = []
        # Reentrant, because a collection of garbage inside a fold may run code that records or reads.
        self._lock = threading.RLock()
        self._is_folding = False
        # Histograms are replaced, never changed: whoever interrupts a step sees all of it or nothing.
        self._replayed = self._fresh = _NOTHING
        self._replay: Iterator[float] = iter(())

    def record(self, seconds: float) -> None:
        """Note one duration in seconds."""
        buffer = self._buffer
        buffer.append(seconds)
        if len(buffer) >= BUFFER and self._lock.acquire(blocking=False):
            try:
                self._fold()
            finally:
                self._lock.release()

    def snapshot(self) -> Histogram:
        """Return a copy of everything recorded so far."""
        with self._lock:
            self._fold()
            replayed, fresh = self._replayed, self._fresh
            everything = _copy(replayed)
            everything.merge(fresh)
        return everything

    def replay(self) -> Iterator[float]:
        """Yield values that stand for what was recorded since the last replay; one that was cut short goes on first."""
        yield from _rest(self._replay)
        with self._lock:
            if self._is_folding:
                return
            self._fold()
            self._is_folding = True  # nothing may be folded into what is taken
            try:
                taken = self._fresh
                replayed, replay = _copy(self._replayed), taken.replay()
                replayed.merge(taken)
                self._replayed, self._fresh, self._replay = replayed, _NOTHING, replay
            finally:
                self._is_folding = False
        yield from _rest(replay)

    def _fold(self) -> None:
        # Only the holder of the lock deletes, and appends go to the end: no value is lost or counted twice.
        if self._is_folding:
            return
        self._is_folding = True
        try:
            buffer = self._buffer
            values = buffer[:]
            if not values:
                return
            count = len(values)
            fresh = _copy(self._fresh)
            fresh.observe(values)
            # No call may come between these two, because an interruption may come with any call.
            self._fresh = fresh
            del buffer[:count]
        finally:
            self._is_folding = False


_NOTHING = Histogram()


def _copy(histogram: Histogram) -> Histogram:
    copy = Histogram()
    for name in Histogram.__slots__:
        setattr(copy, name, getattr(histogram, name))
    copy.buckets = histogram.buckets[:]
    return copy


def _rest(values: Iterator[float]) -> Iterator[float]:
    """Yield what is left of `values`, and leave them as they are when closed early."""
    for value in values:  # noqa: UP028 - yield from would close them
        yield value
