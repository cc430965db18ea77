"""Delays between attempts."""

from hypothesis import given
from hypothesis import strategies as st

from otel_perfopt._core.backoff import Backoff

SPREADS = st.floats(0, 1)


@given(st.integers(1, 10_000), SPREADS)
def test_delays_grow_to_the_limit(failures: int, spread: float) -> None:
    """From half of the whole delay to all of it; the whole doubles until it is the limit, however many failures there are."""
    backoff = Backoff(0.02, 10.0)
    whole = backoff.delay(failures, spread=1.0)
    assert whole == min(10.0, 0.02 * 2.0 ** min(failures - 1, 100))
    assert whole / 2 <= backoff.delay(failures, spread=spread) <= whole
    assert whole <= backoff.delay(failures + 1, spread=1.0) <= 10.0
