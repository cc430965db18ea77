"""The outcome of a load that runs once, with its flights, against a model."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

from otel_perfopt._core.flight import Failed, Flight, Flights, Loaded
from otel_perfopt._core.once import Once

TTLS = st.sampled_from([None, 1.0, 5.0])
ERROR_TTLS = st.sampled_from([None, 0.0, 1.0, 5.0])
OUTCOMES = st.one_of(st.builds(Loaded, st.sampled_from([None, 1, "x"])), st.builds(Failed, st.builds(OSError), st.none()))


class OnceMachine(RuleBasedStateMachine):
    """Loads, resets and lets time pass; the model is the last outcome that was allowed to count, and when it came."""

    @initialize(ttl=TTLS, error_ttl=ERROR_TTLS)
    def begin(self, ttl: float | None, error_ttl: float | None) -> None:
        """Make one."""
        self.once, self.flights = Once(ttl=ttl, error_ttl=error_ttl), Flights[Flight]()
        self.ttl, self.error_ttl = ttl, error_ttl
        self.now = 0.0
        self.running: list[tuple[Flight, int]] = []
        self.generation = 0
        self.last: tuple[Loaded | Failed, float] | None = None

    def expected(self) -> Loaded | Failed | None:
        """What counts now."""
        if self.last is None:
            return None
        outcome, came = self.last
        ttl = self.ttl if isinstance(outcome, Loaded) else self.error_ttl
        return outcome if ttl is None or self.now - came < ttl else None

    @precondition(lambda self: self.expected() is None and self.flights.find(None) is None)
    @rule()
    def load(self) -> None:
        """Somebody comes, nothing counts and nothing is under way: a load begins."""
        flight = Flight(None)
        self.flights.start(flight)
        self.running.append((flight, self.generation))

    @precondition(lambda self: self.running)
    @rule(data=st.data(), outcome=OUTCOMES)
    def end(self, data: st.DataObject, outcome: Loaded | Failed) -> None:
        """A load ends, perhaps after a reset, and perhaps after younger ones."""
        flight, generation = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
        kept = self.once.date(outcome, self.now)
        storable = self.flights.finish(flight, outcome)
        assert storable is (generation == self.generation)
        if storable and kept is not None:
            self.once.keep(kept)
        if storable and not (isinstance(outcome, Failed) and self.error_ttl == 0):
            self.last = outcome, self.now

    @rule()
    def reset(self) -> None:
        """Everything so far is forgotten."""
        self.flights.ground_all()
        self.once.keep(None)
        self.generation += 1
        self.last = None

    @rule(seconds=st.sampled_from([0.5, 1.0, 4.0, 100.0]))
    def pass_time(self, seconds: float) -> None:
        """Time passes."""
        self.now += seconds

    @invariant()
    def agrees(self) -> None:
        """What counts agrees with the model, and at most one load may be joined."""
        assert self.once.find(self.now) is self.expected()
        joinable = [flight for flight, generation in self.running if generation == self.generation]
        assert joinable == ([] if (found := self.flights.find(None)) is None else [found])


@pytest.mark.slow
@pytest.mark.timeout(400)  # a failure is made small before it is shown, which takes its time
def test_once_and_model_agree() -> None:
    """Whatever happens, in whichever order, the outcome of the last load counts for as long as it should."""
    run_state_machine_as_test(OnceMachine)


@given(OUTCOMES, TTLS, ERROR_TTLS, st.floats(0, 1e9))
def test_the_expiry_is_that_of_its_kind(outcome: Loaded | Failed, ttl: float | None, error_ttl: float | None, now: float) -> None:
    """Values and errors have times of their own; an error of no duration is not kept at all."""
    kept = Once(ttl=ttl, error_ttl=error_ttl).date(outcome, now)
    seconds = ttl if isinstance(outcome, Loaded) else error_ttl
    if seconds == 0:
        assert kept is None
    else:
        assert kept is not None
        assert (kept.outcome, kept.expires) == (outcome, math.inf if seconds is None else now + seconds)


def test_keeping_returns_what_was_kept() -> None:
    """So that it can be dropped where nothing is locked."""
    once = Once(ttl=None, error_ttl=None)
    first = once.date(Loaded(1), 0.0)
    assert once.keep(first) is None
    assert once.keep(None) is first
    assert once.find(0.0) is None
