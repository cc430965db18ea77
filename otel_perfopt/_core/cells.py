"""Cells: where counts and latencies are kept until somebody asks.

A count is a plain int on a slotted object: ``counts.hits += 1`` is one uninterrupted step under the GIL. A histogram has
OpenTelemetry's base-2 exponential buckets at a fixed scale, so that percentiles are within 0.6 % at any range of values.
"""

import math
from array import array
from collections.abc import Iterable, Iterator
from typing import ClassVar, Self

__all__ = ("Counts", "Histogram")


class Counts:
    """Named ints that start at zero; a subclass lists them in ``__slots__`` and in ``fields``."""

    __slots__ = ()
    fields: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls) -> None:
        cls.fields = tuple(cls.__slots__)

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Set every count to zero."""
        for field in self.fields:
            setattr(self, field, 0)

    def add(self, other: Self) -> None:
        """Add the counts of another object of the same class."""
        for field in self.fields:
            setattr(self, field, getattr(self, field) + getattr(other, field))


class Histogram:
    """Count, sum, extremes and buckets of non-negative numbers.

    Bucket ``i`` holds the values in ``(base**i, base**(i + 1)]`` with ``base = 2**(2**-SCALE)``, as in the exponential
    histogram of the OpenTelemetry metrics data model. Values below `TINY` count as zeros.
    """

    SCALE: ClassVar[int] = 6
    TINY: ClassVar[float] = 1e-9
    _PER_OCTAVE: ClassVar[int] = 2**SCALE

    __slots__ = ("_low", "buckets", "count", "maximum", "minimum", "offset", "total", "zeros")

    def __init__(self) -> None:
        self.count = 0
        self.total = 0.0
        self._low = 0.0  # what `total` lost by rounding
        self.minimum = math.inf
        self.maximum = -math.inf
        self.zeros = 0
        self.offset = 0
        self.buckets: array[int] = array("Q")

    @classmethod
    def of(cls, *, total: float, minimum: float, maximum: float, zeros: int, offset: int, buckets: Iterable[int]) -> "Histogram":
        """Return a histogram with these contents, such as those of an exported data point of the same scale."""
        histogram = cls()
        histogram.buckets = array("Q", buckets)
        histogram.offset, histogram.zeros = offset, zeros
        histogram.count = zeros + sum(histogram.buckets)
        histogram.total, histogram.minimum, histogram.maximum = total, minimum, maximum
        return histogram

    def observe(self, values: Iterable[float]) -> None:
        """Fold values in."""
        values = list(values)
        if not values:
            return
        self.count += len(values)
        exact = [self.total, self._low, *values]
        self.total = math.fsum(exact)
        self._low = math.fsum([*exact, -self.total])
        self.minimum = min(self.minimum, *values)
        self.maximum = max(self.maximum, *values)
        log2, per_octave, tiny = math.log2, self._PER_OCTAVE, self.TINY
        indexes = [math.ceil(log2(value) * per_octave) - 1 for value in values if value >= tiny]
        self.zeros += len(values) - len(indexes)
        if indexes:
            self._cover(min(indexes), max(indexes))
            buckets, offset = self.buckets, self.offset
            for index in indexes:
                buckets[index - offset] += 1

    def percentile(self, fraction: float) -> float:
        """Return the value that `fraction` of the observations do not exceed, within 0.6 %; NaN if there are none.

        Args:
            fraction: from 0 to 1, such as 0.99.
        """
        if not self.count:
            return math.nan
        rank = max(1, math.ceil(fraction * self.count))
        if rank >= self.count:
            return self.maximum
        if rank == 1:
            return self.minimum
        for value, count in self._groups():
            rank -= count
            if rank <= 0:
                return min(max(value, self.minimum), self.maximum)
        return self.maximum

    def take(self) -> "Histogram":
        """Return everything observed so far as a histogram of its own, and start again from nothing."""
        taken = Histogram()
        for name in self.__slots__:
            setattr(taken, name, getattr(self, name))
        self.__init__()  # type: ignore[misc]
        return taken

    def merge(self, other: "Histogram") -> None:
        """Add what another histogram has observed."""
        if not other.count:
            return
        parts = [self.total, self._low, other.total, other._low]
        self.count += other.count
        self.total = math.fsum(parts)
        self._low = math.fsum([*parts, -self.total])
        self.minimum = min(self.minimum, other.minimum)
        self.maximum = max(self.maximum, other.maximum)
        self.zeros += other.zeros
        if other.buckets:
            self._cover(other.offset, other.offset + len(other.buckets) - 1)
            start = other.offset - self.offset
            for position, count in enumerate(other.buckets, start):
                self.buckets[position] += count

    def replay(self) -> Iterator[float]:
        """Yield as many values as were observed, with the same count, sum and extremes, each within its bucket or near it.

        Another histogram that records them agrees with this one.
        """
        if self.count == 0:
            return
        if self.count == 1:
            yield self.total
            return
        yield self.minimum
        yield self.maximum
        inner = self.count - 2
        if inner == 0:
            return
        left_over = max(0.0, self.total - self.minimum - self.maximum)
        estimate = math.fsum(value * count for value, count in self._inner_groups())
        scale = left_over / estimate if estimate else 0.0
        sent = 0.0
        for value, count in self._inner_groups():
            # The last one takes what rounding left, so that sums agree.
            for _ in range(count):
                inner -= 1
                scaled = min(max(value * scale, self.minimum), self.maximum)
                yield scaled if inner else min(max(left_over - sent, self.minimum), self.maximum)
                sent += scaled

    def _inner_groups(self) -> Iterator[tuple[float, int]]:
        """Yield the groups without one smallest and one largest observation."""
        groups = [[value, count] for value, count in self._groups()]
        groups[0][1] -= 1
        groups[-1][1] -= 1
        return ((value, int(count)) for value, count in groups if count)

    def _groups(self) -> Iterator[tuple[float, int]]:
        """Yield a representative value and a count for every bucket in use, the smallest first."""
        if self.zeros:
            yield 0.0, self.zeros
        for index, count in enumerate(self.buckets, self.offset):
            if count:
                yield 2.0 ** ((index + 0.5) / self._PER_OCTAVE), count

    def _cover(self, first: int, last: int) -> None:
        """Make room for the buckets from `first` to `last`."""
        if not self.buckets:
            self.offset = first
        if first < self.offset:
            self.buckets = array("Q", bytes(8 * (self.offset - first))) + self.buckets
            self.offset = first
        missing = last - self.offset + 1 - len(self.buckets)
        if missing > 0:
            self.buckets.extend(array("Q", bytes(8 * missing)))
