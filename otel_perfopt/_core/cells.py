"""Cells: where counts and latencies are kept until somebody asks.

A count is a plain int on a slotted object: ``counts.hits += 1`` is one uninterrupted step under the GIL. A histogram has
OpenTelemetry's base-2 exponential buckets at a fixed scale, so that percentiles are within 0.6 % at any range of values.
"""

import math
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import repeat
from operator import mul
from typing import ClassVar, Self

__all__ = ("Counts", "Histogram")


class Counts:
    """Named ints that start at zero; a subclass lists its own in ``__slots__``, and `fields` has them and the inherited ones."""

    __slots__ = ()
    fields: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls) -> None:
        cls.fields = (*cls.fields, *cls.__dict__.get("__slots__", ()))

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
        values = sorted(values)
        if not values:
            return
        least, most = values[0], values[-1]
        start = bisect_left(values, self.TINY)
        # No loop over the values in Python: this is most of what a measurement costs.
        groups = Counter(map(math.ceil, map(mul, map(math.log2, values[start:]), repeat(float(self._PER_OCTAVE)))))
        self._add_up(values)
        self.count += len(values)
        self.minimum = min(self.minimum, least)
        self.maximum = max(self.maximum, most)
        self.zeros += start
        if groups:
            self._cover(next(iter(groups)) - 1, next(reversed(groups)) - 1)  # they come in order
            buckets, base = self.buckets, self.offset + 1
            for bound, count in groups.items():
                buckets[bound - base] += count

    def observe_zeros(self, count: int) -> None:
        """Fold in so many values that are zero."""
        if count:
            self.count += count
            self.zeros += count
            self.minimum = min(self.minimum, 0.0)
            self.maximum = max(self.maximum, 0.0)

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
        for index, count in self._groups():
            rank -= count
            if rank <= 0:
                middle = 0.0 if index is None else 2.0 ** ((index + 0.5) / self._PER_OCTAVE)
                return self._within(middle)
        return self.maximum

    def distribution(self) -> list[tuple[float, int]]:
        """Return pairs of a bound and a count: how many values are at most the bound, but larger than the bound before.

        Each bound is an eighth of an octave above the last one, or 2, 4, 8, ... times that where there would be more than 40
        of them; `TINY` comes first if there are zeros.

        >>> histogram = Histogram()
        >>> histogram.observe([0.5, 1.0, 1.01])
        >>> [(round(bound, 3), count) for bound, count in histogram.distribution() if count]
        [(0.5, 1), (1.0, 1), (1.091, 1)]
        """
        groups = [(index, count) for index, count in self._groups() if index is not None]
        pairs = [(self.TINY, self.zeros)] if self.zeros else []
        if not groups:
            return pairs
        width = self._PER_OCTAVE // 8
        while groups[-1][0] // width - groups[0][0] // width >= 40:
            width *= 2
        first = groups[0][0] // width
        counts = [0] * (groups[-1][0] // width - first + 1)
        for index, count in groups:
            counts[index // width - first] += count
        return pairs + [(self._bound((first + place + 1) * width), count) for place, count in enumerate(counts)]

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
        self._add_up([other.total, other._low])
        self.count += other.count
        self.minimum = min(self.minimum, other.minimum)
        self.maximum = max(self.maximum, other.maximum)
        self.zeros += other.zeros
        if other.buckets:
            self._cover(other.offset, other.offset + len(other.buckets) - 1)
            start = other.offset - self.offset
            for position, count in enumerate(other.buckets, start):
                self.buckets[position] += count

    def replay(self) -> Iterator[float]:
        """Yield as many values as were observed, with the same count, sum and extremes, each within its bucket.

        Another histogram that records them agrees with this one.
        """
        if self.count == 0:
            return
        if self.count == 1:
            yield self.total
            return
        yield self.minimum
        yield self.maximum
        ranges = list(self._inner_ranges())
        least = sum(lower * count for lower, _, count in ranges)
        room = sum((upper - lower) * count for lower, upper, count in ranges)
        # The observed values lay within these ranges, so one place between 0 and 1, the same in all, gives their sum.
        missing = self.total - self.minimum - self.maximum - least
        place = min(1.0, max(0.0, missing / room)) if room else 0.0
        for lower, upper, count in ranges:
            yield from repeat(min(lower + place * (upper - lower), upper), count)

    def _inner_ranges(self) -> Iterator[tuple[float, float, int]]:
        """Yield the bounds and the count of each group without one smallest and one largest observation."""
        groups = list(self._groups())
        last = len(groups) - 1
        for position, (index, count) in enumerate(groups):
            inner = count - (position == 0) - (position == last)
            if inner:
                lower, upper = (0.0, self.TINY) if index is None else (self._bound(index), self._bound(index + 1))
                yield self._within(lower), self._within(upper), inner

    def _groups(self) -> Iterator[tuple[int | None, int]]:
        """Yield the index, None for zeros, and the count of every bucket in use, the smallest first."""
        if self.zeros:
            yield None, self.zeros
        for index, count in enumerate(self.buckets, self.offset):
            if count:
                yield index, count

    def _bound(self, index: int) -> float:
        """Return the value up to which bucket ``index - 1`` goes."""
        return 2.0 ** (index / self._PER_OCTAVE) if index < 1024 * self._PER_OCTAVE else math.inf

    def _within(self, value: float) -> float:
        return min(max(value, self.minimum), self.maximum)

    def _add_up(self, values: Iterable[float]) -> None:
        """Add values to the sum, which becomes infinite when no float is large enough for it."""
        parts = [self.total, self._low, *values]
        try:
            self.total = math.fsum(parts)
            self._low = math.fsum([*parts, -self.total])
        except (OverflowError, ValueError):  # too large now, or since before
            self.total, self._low = math.inf, 0.0

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
