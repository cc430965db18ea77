"""The distribution of durations in a report."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_perfopt import get_performance_report, record_performance_metric
from otel_perfopt._core.cells import Histogram


def histogram(values: list[float]) -> Histogram:
    made = Histogram()
    made.observe(values)
    return made


@given(st.lists(st.floats(0, 1e9), max_size=60))
def test_every_value_is_counted_in_the_bucket_that_holds_it(values: list[float]) -> None:
    """The pairs are few, ascending, and agree with the values to the bucket."""
    pairs = histogram(values).distribution()
    bounds = [bound for bound, _ in pairs]
    assert len(pairs) <= 41
    assert bounds == sorted(set(bounds))
    assert sum(count for _, count in pairs) == len(values)
    below = 0
    for bound, count in pairs:
        below += count
        # A value at a bound may be counted on either side of it, by the rounding of its logarithm.
        assert (
            sum(value < bound * (1 - 1e-9) for value in values) <= below <= sum(value <= bound * (1 + 1e-9) for value in values)
        )


def test_bounds_grow_by_one_factor() -> None:
    """Between the smallest and the largest value there is no gap, so that a chart can draw the pairs."""
    pairs = histogram([1e-6, 1.0]).distribution()
    factors = {round(later[0] / earlier[0], 6) for earlier, later in pairwise(pairs)}
    assert factors == {round(2**0.5, 6)}
    assert [count for _, count in pairs if count] == [1, 1]


@pytest.mark.parametrize(("values", "expected"), [([], []), ([0.0, 0.0], [(1e-9, 2)]), ([1.0], [(1.0, 1)])])
def test_edges(values: list[float], expected: list[tuple[float, int]]) -> None:
    """Nothing, only zeros, and a value that is a bound itself."""
    assert histogram(values).distribution() == expected


def test_the_report_has_them() -> None:
    """Every duration of an operation is in the distribution of its row."""
    for duration in (0.001, 0.001, 2.0):
        record_performance_metric("test_distribution", duration)
    row = get_performance_report().operations["test_distribution"]
    assert sum(count for _, count in row.distribution) == row.count == 3
    assert row.distribution[0][1] == 2
    assert row.distribution[-1][0] >= 2.0
