"""Counts, and histogram cells against numpy and `math.fsum`."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from otel_perfopt._core.cells import Counts, Histogram

Samples = NDArray[np.float64]
GROWTH = 2.0 ** (1 / 2**Histogram.SCALE)  # from one bound of a bucket to the next

DISTRIBUTIONS: dict[str, Callable[[np.random.Generator], Samples]] = {
    "lognormal": lambda random: random.lognormal(-6.0, 1.5, 20_000),
    "uniform": lambda random: random.uniform(0.5, 9.5, 20_000),
    "exponential": lambda random: random.exponential(0.02, 20_000),
    "bimodal": lambda random: np.concatenate([random.normal(0.001, 0.0001, 15_000), random.normal(2.0, 0.1, 5_000)]),
    "constant": lambda random: np.full(1000, 0.037),
    "tiny": lambda random: random.uniform(1e-9, 4e-9, 1000),
    "exactly the smallest": lambda random: np.full(10, 1e-9),
    "huge": lambda random: random.lognormal(600.0, 5.0, 1000),
    "zeros": lambda random: np.zeros(100),
    "mostly zeros": lambda random: np.concatenate([np.zeros(900), random.exponential(1.0, 100)]),
    "a single value": lambda random: np.array([0.125]),
    "two values": lambda random: np.array([1e-6, 1e6]),
    "powers of two": lambda random: 2.0 ** random.integers(-20, 20, 500).astype(np.float64),
}

durations = st.lists(st.floats(0.0, 1e6), max_size=60)


def samples_of(name: str) -> list[float]:
    """The values of a distribution, the same ones every time."""
    values: list[float] = DISTRIBUTIONS[name](np.random.default_rng(11)).tolist()
    return values


def histogram_of(values: list[float]) -> Histogram:
    """A histogram of these values."""
    histogram = Histogram()
    histogram.observe(values)
    return histogram


def contents(histogram: Histogram) -> tuple[object, ...]:
    """Everything in a histogram but the rounding error of its sum; buckets by index."""
    buckets = {index: count for index, count in enumerate(histogram.buckets, histogram.offset) if count}
    return histogram.count, histogram.minimum, histogram.maximum, histogram.zeros, buckets


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_count_sum_and_extremes_are_exact(name: str) -> None:
    """They are the same as of the values themselves, the sum rounded only once."""
    values = samples_of(name)
    histogram = Histogram()
    for start in range(0, len(values), 128):
        histogram.observe(values[start : start + 128])
    assert (histogram.count, histogram.total) == (len(values), math.fsum(values))
    assert (histogram.minimum, histogram.maximum) == (min(values), max(values))


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_percentiles_are_within_one_percent(name: str) -> None:
    """The 50th, 95th and 99th percentile are close to numpy's; the 0th and the 100th are exact."""
    values = samples_of(name)
    histogram = histogram_of(values)
    for fraction in (0.5, 0.95, 0.99):
        expected = float(np.quantile(values, fraction, method="inverted_cdf"))
        assert histogram.percentile(fraction) == pytest.approx(expected, rel=0.01, abs=0.0)
    assert (histogram.percentile(0.0), histogram.percentile(1.0)) == (min(values), max(values))


@given(durations.filter(bool), st.floats(0.0, 1.0))
def test_percentile_of_any_values(values: list[float], fraction: float) -> None:
    """A percentile is within 0.6 % of a value that is there, or below the smallest duration that is told from zero."""
    expected = float(np.quantile(values, fraction, method="inverted_cdf"))
    assert histogram_of(values).percentile(fraction) == pytest.approx(expected, rel=0.006, abs=Histogram.TINY)


def test_nothing_observed() -> None:
    """An empty histogram has no percentiles, replays nothing, and adds nothing to another."""
    histogram = Histogram()
    histogram.observe([])
    assert math.isnan(histogram.percentile(0.5))
    assert list(histogram.replay()) == []
    other = histogram_of([1.0])
    other.merge(histogram)
    assert contents(other) == contents(histogram_of([1.0]))


@given(st.lists(durations, max_size=4))
def test_merged_is_observed_together(parts: list[list[float]]) -> None:
    """Histograms merged into one are the histogram of all values."""
    merged = Histogram()
    for part in parts:
        merged.merge(histogram_of(part))
    values = [value for part in parts for value in part]
    assert contents(merged) == contents(histogram_of(values))
    assert merged.total == pytest.approx(math.fsum(values), rel=1e-15)


@given(st.lists(durations, max_size=4))
def test_observed_in_parts_is_observed_together(parts: list[list[float]]) -> None:
    """It does not matter how values are split over calls."""
    histogram = Histogram()
    for part in parts:
        histogram.observe(iter(part))
    values = [value for part in parts for value in part]
    assert contents(histogram) == contents(histogram_of(values))
    assert histogram.total == pytest.approx(math.fsum(values), rel=1e-15)


def test_a_histogram_merged_with_itself() -> None:
    """Everything counts twice."""
    histogram = histogram_of([0.0, 1.0, 1.0, 3.0])
    histogram.merge(histogram)
    assert contents(histogram) == contents(histogram_of([0.0, 1.0, 1.0, 3.0] * 2))


@given(durations, durations)
def test_take_starts_again_from_nothing(before: list[float], after: list[float]) -> None:
    """What was taken is a histogram of its own, and what comes later is not in it."""
    histogram = histogram_of(before)
    taken = histogram.take()
    histogram.observe(after)
    assert contents(taken) == contents(histogram_of(before))
    assert contents(histogram) == contents(histogram_of(after))
    taken.merge(histogram)
    assert taken.total == pytest.approx(math.fsum([*before, *after]), rel=1e-15)


def test_no_rounding_error_adds_up() -> None:
    """A million small values on top of a large one are all in the sum."""
    histogram = histogram_of([1e9])
    for _ in range(1000):
        histogram.observe([1e-8] * 1000)
    assert histogram.total == math.fsum([1e9, *[1e-8] * 1_000_000])


def test_of_is_an_exported_point() -> None:
    """A histogram can be made again from what is exported of it."""
    one = histogram_of(samples_of("mostly zeros"))
    other = Histogram.of(
        total=one.total, minimum=one.minimum, maximum=one.maximum, zeros=one.zeros, offset=one.offset, buckets=list(one.buckets)
    )
    assert contents(other) == contents(one)
    assert (other.total, other.percentile(0.95)) == (one.total, one.percentile(0.95))


@given(st.floats(1e-9, 1.7e308))
@example(1.0)
@example(1.7976931348623157e308)
@example(math.nextafter(2.0, 3.0))
def test_buckets_are_those_of_opentelemetry(value: float) -> None:
    """Bucket i holds what is above base**i, up to base**(i + 1), but for the rounding of the logarithm."""
    histogram = histogram_of([value])
    exponent = math.log2(value)
    assert histogram.offset / 64 - 1e-12 * abs(exponent) <= exponent <= (histogram.offset + 1) / 64 + 1e-12 * abs(exponent)


@pytest.mark.parametrize("power", [-29, -1, 0, 1, 10, 1023])
def test_the_upper_bound_of_a_bucket_is_inside(power: int) -> None:
    """A power of two is the largest value of its bucket; what is a little larger is in the next one."""
    assert histogram_of([2.0**power]).offset == 64 * power - 1
    assert histogram_of([2.0**power * (1 + 1e-9)]).offset == 64 * power


@given(durations)
@example([0.0] * 5)
@example([1.0, 1.0, 1.0, 1.01])
@example([0.0, 0.0, 1e-6, 1e6])
@example([1e-10, 5e-10, 9e-10, 1.0])
def test_replay_agrees_with_what_was_observed(values: list[float]) -> None:
    """The same count, extremes and sum, and, in order of size, every value in the bucket of the one it stands for."""
    replayed = list(histogram_of(values).replay())
    assert len(replayed) == len(values)
    if not values:
        return
    assert (min(replayed), max(replayed)) == (min(values), max(values))
    assert math.fsum(replayed) == pytest.approx(math.fsum(values), rel=1e-9, abs=1e-300)
    for sent, seen in zip(sorted(replayed), sorted(values), strict=True):
        assert sent == pytest.approx(seen, rel=GROWTH - 1 + 1e-9, abs=Histogram.TINY)


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_replay_of_a_distribution(name: str) -> None:
    """Sums agree to a billionth for thousands of values, and percentiles stay where they were."""
    values = samples_of(name)
    histogram = histogram_of(values)
    again = histogram_of(list(histogram.replay()))
    assert (again.count, again.minimum, again.maximum) == (len(values), min(values), max(values))
    assert again.total == pytest.approx(histogram.total, rel=1e-9)
    for fraction in (0.5, 0.95, 0.99):
        assert again.percentile(fraction) == pytest.approx(histogram.percentile(fraction), rel=0.012)


def test_bug_replay_lost_part_of_the_sum_at_the_extremes() -> None:
    """Values that are pushed against the smallest or the largest one do not take their share of the sum with them."""
    for values in ([0.0, 9e-10, 9e-10, 9e-10], [1e-10, 9e-10, 1e-9, 1e-9], [0.5, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 5.0, 5.0]):
        assert math.fsum(histogram_of(values).replay()) == pytest.approx(math.fsum(values), rel=1e-9)


def test_bug_a_value_that_is_refused_counted_all_the_same() -> None:
    """A value that is no number leaves the histogram as it was."""
    histogram = histogram_of([1.0, 2.0])
    with pytest.raises(OverflowError):
        histogram.observe([3.0, math.inf])
    assert contents(histogram) == contents(histogram_of([1.0, 2.0]))
    assert histogram.total == 3.0


def test_bug_a_sum_beyond_all_floats_raised() -> None:
    """Such a sum is infinite, whatever else happens; extremes and percentiles are still right."""
    histogram = histogram_of([1e308, 1.5e308])
    histogram.observe([1.0])
    histogram.merge(histogram_of([1.7e308, 1.7e308]))
    assert (histogram.total, histogram.count) == (math.inf, 5)
    assert histogram.percentile(0.5) == pytest.approx(1.5e308, rel=0.006)
    replayed = list(histogram.replay())
    assert (len(replayed), min(replayed), max(replayed)) == (5, 1.0, 1.7e308)
    assert all(math.isfinite(value) for value in replayed)


class Requests(Counts):
    """Two counts."""

    __slots__ = ("hits", "misses")
    hits: int
    misses: int


class MoreRequests(Requests):
    """One count more."""

    __slots__ = ("stale",)
    stale: int


class SameRequests(Requests):
    """No count of its own, but attributes that are none."""

    note = "text"


def test_counts_start_at_zero_add_up_and_reset() -> None:
    """Counts are plain ints."""
    one, other = Requests(), Requests()
    one.hits += 2
    other.hits += 3
    other.misses += 1
    one.add(other)
    assert (one.hits, one.misses, other.hits) == (5, 1, 3)
    one.reset()
    assert (one.hits, one.misses) == (0, 0)


def test_bug_inherited_counts_were_left_out() -> None:
    """A subclass of a subclass has the counts of both."""
    assert Requests.fields == SameRequests.fields == ("hits", "misses")
    assert MoreRequests.fields == ("hits", "misses", "stale")
    counts = MoreRequests()
    counts.add(counts)
    assert (counts.hits, counts.misses, counts.stale) == (0, 0, 0)


def test_counts_have_no_other_attributes() -> None:
    """A misspelt count is an error and not a new count."""
    with pytest.raises(AttributeError):
        Requests().hit = 1  # type: ignore[attr-defined]
