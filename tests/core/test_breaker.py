"""The circuit breaker, by its rules."""

from hypothesis import given
from hypothesis import strategies as st

from otel_perfopt._core.backoff import Backoff
from otel_perfopt._core.breaker import Breaker


def new_breaker(threshold: int = 3) -> Breaker:
    """Make one that waits 1, 2, 4 and at most 60 seconds."""
    return Breaker(threshold=threshold, backoff=Backoff(1.0, 60.0))


def fail(breaker: Breaker, times: int, now: float = 0.0) -> None:
    """Let that many calls fail."""
    for _ in range(times):
        breaker.failed(now, spread=1.0)


def test_a_few_failures_change_nothing() -> None:
    """Below the threshold everything is let through."""
    breaker = new_breaker()
    fail(breaker, 2)
    assert not breaker.is_open
    assert all(breaker.allows(0.0) for _ in range(3))


def test_only_failures_in_a_row_count() -> None:
    """A success between them begins the row anew."""
    breaker = new_breaker()
    for _ in range(5):
        fail(breaker, 2)
        breaker.succeeded()
    assert not breaker.is_open


def test_it_opens_and_lets_one_trial_through() -> None:
    """Nothing before the time is over, then one call."""
    breaker = new_breaker()
    fail(breaker, 3, now=10.0)
    assert breaker.is_open
    assert [breaker.allows(now) for now in (10.0, 10.99, 11.0, 11.0, 11.5)] == [False, False, True, False, False]


def test_a_trial_that_fails_doubles_the_time() -> None:
    """1, 2, 4 seconds, and a minute at most."""
    breaker, now, waits = new_breaker(), 0.0, []
    fail(breaker, 3)
    for _ in range(9):
        waits.append(breaker._retry_at - now)
        now = breaker._retry_at
        assert breaker.allows(now)
        breaker.failed(now, spread=1.0)
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_a_trial_that_succeeds_closes_it() -> None:
    """From then on it takes the whole number of failures again."""
    breaker = new_breaker()
    fail(breaker, 3)
    assert breaker.allows(1.0)
    breaker.succeeded()
    assert not breaker.is_open
    fail(breaker, 2, now=1.0)
    assert breaker.allows(1.0)


def test_a_trial_that_never_ends_does_not_close_it_for_ever() -> None:
    """After the longest time another one is let through."""
    breaker = new_breaker()
    fail(breaker, 3)
    assert breaker.allows(1.0)
    assert not breaker.allows(60.0)
    assert breaker.allows(61.0)


def test_bug_calls_that_fail_together_do_not_prolong_the_time() -> None:
    """Fifty threads are in the middle of a call when the tier goes away: it is left alone for a second, and not for a minute."""
    breaker = new_breaker()
    fail(breaker, 50)
    assert not breaker.allows(0.99)
    assert breaker.allows(1.0)


@given(st.lists(st.tuples(st.sampled_from(["ask", "fail", "succeed"]), st.floats(0, 30)), max_size=60))
def test_it_never_stays_closed_to_everybody(steps: list[tuple[str, float]]) -> None:
    """Whatever has happened, a call is let through after the longest time; and none while it is open, but for trials."""
    breaker, now = new_breaker(), 0.0
    for step, seconds in steps:
        now += seconds
        if step == "fail":
            breaker.failed(now, spread=0.5)
        elif step == "succeed":
            breaker.succeeded()
            assert breaker.allows(now)
        elif breaker.allows(now) and breaker.is_open:
            assert not breaker.allows(now)
    assert breaker.allows(now + 60.0)
