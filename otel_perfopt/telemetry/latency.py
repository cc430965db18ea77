"""Latencies: recorded at the cost of a list append, folded into a histogram off the caller's path.

Recording never waits: whoever fills the buffer folds it, unless somebody else is at it already. Design and figures of the
alternatives (a recording SDK histogram, a bounded queue, a locked cell) are in docs/telemetry.md.
"""

import threading
from collections.abc import Iterator

from otel_perfopt._core.cells import Histogram

__all__ = ("Latency",)

BUFFER = 128


class Latency:
    """The durations of one series.

    Args:
        attributes: the attributes of the series.
    """

    __slots__ = ("_buffer", "_fresh", "_lock", "_replayed", "attributes")

    def __init__(self, attributes: dict[str, str]) -> None:
        self.attributes = attributes
        self.reset()

    def reset(self) -> None:
        """Forget everything and take a new lock; for a forked child."""
        self._buffer: list[float] = []
        # Reentrant, because a collection of garbage inside a fold may run code that records or reads.
        self._lock = threading.RLock()
        self._replayed = Histogram()
        self._fresh = Histogram()

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
            everything = Histogram()
            everything.merge(self._replayed)
            everything.merge(self._fresh)
        return everything

    def replay(self) -> Iterator[float]:
        """Yield values that stand for what was recorded since the last replay."""
        with self._lock:
            self._fold()
            taken = self._fresh.take()
            self._replayed.merge(taken)
        return taken.replay()

    def _fold(self) -> None:
        # Only the holder of the lock deletes, and appends go to the end: no value is lost or counted twice.
        buffer = self._buffer
        values = buffer[:]
        del buffer[: len(values)]
        self._fresh.observe(values)
