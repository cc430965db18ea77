"""Latencies: recorded at the cost of a list append, folded into a histogram off the caller's path.

Recording never waits: whoever fills the buffer folds it, unless somebody else is at it already. Design and figures of the
alternatives (a recording SDK histogram, a bounded queue, a locked cell) are in docs/telemetry.md.
"""

import threading
from collections.abc import Iterator
from math import frexp

from opentelemetry import trace
from opentelemetry.trace import Span, SpanContext

from otel_perfopt._core.cells import Histogram

__all__ = ("Latency",)

BUFFER = 64
CLOSE = 0.012  # a replayed duration is off by at most the width of a bucket


class Latency:
    """The durations of one series.

    Args:
        attributes: the attributes of the series.
        size: how many are folded at once; more are cheaper, and take more memory.

    Attributes:
        pending: durations that are not folded yet; `record` appends to it, and so may whoever cannot afford the call, and
            folds them when there are `size`.
        zeros: how many took no time at all; whoever has such a duration may add 1 instead of recording it.
    """

    __slots__ = (
        "_examples",
        "_fresh",
        "_is_folding",
        "_lock",
        "_replay",
        "_replayed",
        "_zeros",
        "attributes",
        "pending",
        "size",
        "zeros",
    )

    def __init__(self, attributes: dict[str, str], size: int = BUFFER) -> None:
        self.attributes = attributes
        self.size = size
        self.reset()

    def reset(self) -> None:
        """Forget everything and take a new lock; for a forked child."""
        self.pending: list[float] = []
        self.zeros = self._zeros = 0
        self._examples: dict[int, tuple[float, SpanContext]] = {}
        # Reentrant, because a collection of garbage inside a fold may run code that records or reads.
        self._lock = threading.RLock()
        self._is_folding = False
        # Histograms are replaced, never changed: whoever interrupts a step sees all of it or nothing.
        self._replayed = self._fresh = _NOTHING
        self._replay: Iterator[float] = iter(())

    def record(self, seconds: float) -> None:
        """Note one duration in seconds."""
        pending = self.pending
        pending.append(seconds)
        if len(pending) >= self.size:
            self.fold()

    def record_in(self, seconds: float, span: Span) -> None:
        """Note one duration, and as an exemplar the span that shows what took so long, if that is sampled."""
        about = span.get_span_context()
        if about.is_valid and about.trace_flags.sampled:
            self._examples[_octave(seconds)] = seconds, about  # the last one of each octave
        self.record(seconds)

    def record_here(self, seconds: float) -> None:
        """Note one duration that was measured in the current span."""
        self.record_in(seconds, trace.get_current_span())

    def example(self, seconds: float) -> SpanContext | None:
        """Return the span in which a duration like this replayed one was measured; each is returned once."""
        octave = _octave(seconds)
        measured, about = self._examples.get(octave, _NONE)
        if about is None or abs(measured - seconds) > CLOSE * seconds:
            return None
        self._examples.pop(octave, None)
        return about

    def fold(self) -> None:
        """Fold what is pending, unless somebody is at it."""
        if self._lock.acquire(blocking=False):
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
            pending, zeros = self.pending, self.zeros
            values = pending[:]
            if not values and zeros == self._zeros:
                return
            count = len(values)
            fresh = _copy(self._fresh)
            fresh.observe(values)
            fresh.observe_zeros(zeros - self._zeros)
            # No call may come between these, because an interruption may come with any call.
            self._fresh = fresh
            self._zeros = zeros
            del pending[:count]
        finally:
            self._is_folding = False


_NOTHING = Histogram()
_NONE: tuple[float, None] = 0.0, None


def _octave(seconds: float) -> int:
    return frexp(seconds)[1]


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
