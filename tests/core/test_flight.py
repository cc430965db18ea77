"""Flights against a model, and who waits for whom against brute force."""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from otel_perfopt._core.flight import Aborted, Failed, Flight, Flights, Loaded, Node, Outcome

KEYS = range(4)
OUTCOMES: list[Outcome] = [Loaded(None), Loaded(1), Failed(ValueError("no"), None), Aborted(), Aborted(KeyboardInterrupt())]


@dataclass
class Known:
    """What the model knows about one flight."""

    key: int
    flight: Flight
    parties: int = 1
    grounded: bool = False
    outcome: Outcome | None = None
    wakers: list[Callable[[], None]] = field(default_factory=list)


class FlightsMachine(RuleBasedStateMachine):
    """Drives the flights of one cache and a list of them in step."""

    def __init__(self) -> None:
        super().__init__()
        self.flights: Flights[Flight] = Flights()
        self.known: list[Known] = []
        self.open: dict[int, Known] = {}

    def any(self, data: st.DataObject, *, with_parties: bool = False) -> Known:
        """One of the flights so far, perhaps long over."""
        return data.draw(st.sampled_from([known for known in self.known if known.parties or not with_parties]))

    def hide(self, known: Known) -> None:
        """Let nobody join any more."""
        if self.open.get(known.key) is known:
            del self.open[known.key]

    @rule(key=st.sampled_from(KEYS))
    def board(self, key: int) -> None:
        """A caller joins the flight that it finds, or starts one."""
        found = self.flights.find(key)
        if key in self.open:
            assert found is self.open[key].flight
            found.parties += 1
            self.open[key].parties += 1
        else:
            assert found is None
            self.start(key)

    def start(self, key: int) -> None:
        """Start a flight."""
        flight = Flight(key)
        self.flights.start(flight)
        self.open[key] = Known(key, flight)
        self.known.append(self.open[key])

    @precondition(lambda self: any(known.parties for known in self.known))
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        """A caller goes; the last one learns that nobody wants the outcome of a load that still runs."""
        known = self.any(data, with_parties=True)
        known.parties -= 1
        assert known.flight.leave() is (known.parties == 0 and known.outcome is None)

    @precondition(lambda self: self.known)
    @rule(data=st.data())
    def subscribe(self, data: st.DataObject) -> None:
        """Somebody wants to be woken at the end, if it has not come yet."""
        known = self.any(data)

        def wake() -> None:
            raise AssertionError("a state machine calls nobody")

        assert known.flight.on_done(wake) is (known.outcome is None)
        if known.outcome is None:
            known.wakers.append(wake)

    @precondition(lambda self: self.known)
    @rule(data=st.data(), outcome=st.sampled_from(OUTCOMES))
    def finish(self, data: st.DataObject, outcome: Outcome) -> None:
        """The first end counts: it says whether the value may be stored, and whom to wake, once."""
        known = self.any(data)
        may_store = known.outcome is None and not known.grounded
        assert self.flights.finish(known.flight, outcome) is may_store
        if known.outcome is None:
            known.outcome = outcome
            self.hide(known)
        assert known.flight.take_wakers() == known.wakers
        known.wakers = []

    @rule(key=st.sampled_from(KEYS))
    def ground(self, key: int) -> None:
        """A key is invalidated."""
        self.flights.ground(key)
        known = self.open.pop(key, None)
        if known is not None:
            known.grounded = True

    @precondition(lambda self: self.known)
    @rule(data=st.data())
    def ground_flight(self, data: st.DataObject) -> None:
        """One flight is not wanted any more; a newer one of its key is not concerned."""
        known = self.any(data)
        self.flights.ground_flight(known.flight)
        known.grounded = True
        self.hide(known)

    @rule()
    def ground_all(self) -> None:
        """Everything is invalidated."""
        self.flights.ground_all()
        for known in self.open.values():
            known.grounded = True
        self.open.clear()

    @invariant()
    def agrees(self) -> None:
        """What runs, who waits and what may be joined agree with the model."""
        running = [known for known in self.known if known.outcome is None]
        assert len(self.flights) == len(running)
        assert self.flights.waiting == sum(max(0, known.parties - 1) for known in running)
        for key in KEYS:
            assert self.flights.find(key) is (self.open[key].flight if key in self.open else None)
        for known in self.known:
            flight = known.flight
            assert (flight.parties, flight.grounded, flight.outcome) == (known.parties, known.grounded, known.outcome)


@pytest.mark.slow
@pytest.mark.timeout(400)  # a failure is made small before it is shown, which takes its time
def test_flights_and_model_agree() -> None:
    """Whatever happens, in whichever order, flights can be joined, stored and counted as the model says."""
    run_state_machine_as_test(FlightsMachine)


def reachable(count: int, edges: set[tuple[int, int]]) -> set[tuple[int, int]]:
    """All pairs of which the second can be reached from the first, by closing the relation step by step."""
    closed = {(node, node) for node in range(count)} | edges
    for middle in range(count):
        into = [start for start, end in closed if end == middle]
        closed |= {(start, end) for start in into for begin, end in closed if begin == middle}
    return closed


@given(st.sets(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=16))
def test_waits_for_is_reachability(edges: set[tuple[int, int]]) -> None:
    """A node waits for itself and for whatever can be reached from it, in any graph, with cycles or without."""
    nodes = [Node() for _ in range(8)]
    for start, end in edges:
        nodes[start].waiting_for.add(nodes[end])
    pairs = {(i, j) for i, one in enumerate(nodes) for j, other in enumerate(nodes) if one.waits_for(other)}
    assert pairs == reachable(8, edges)


def test_a_long_chain_is_no_recursion() -> None:
    """Thousands of loads that wait for each other do not exhaust the stack."""
    nodes = [Node() for _ in range(10_000)]
    for node, following in pairwise(nodes):
        node.waiting_for.add(following)
    assert nodes[0].waits_for(nodes[-1])
    assert not nodes[-1].waits_for(nodes[0])


def test_the_end_of_a_flight_ends_its_waiting() -> None:
    """A flight that is over waits for nobody, whatever it waited for."""
    flights: Flights[Flight] = Flights()
    one, other = Flight("one"), Flight("other")
    one.waiting_for.add(other)
    other.waiting_for.add(one)
    flights.start(one)
    flights.finish(one, Aborted())
    assert not one.waits_for(other)
    assert other.waits_for(one)


def test_a_grounded_flight_keeps_its_parties() -> None:
    """Those who joined before an invalidation get the outcome; who comes after it starts a new flight of the same key."""
    flights: Flights[Flight] = Flights()
    old, new = Flight("key"), Flight("key")
    flights.start(old)
    flights.ground("key")
    assert flights.find("key") is None
    flights.start(new)
    assert flights.finish(old, Loaded("old")) is False
    assert flights.find("key") is new
    assert flights.finish(new, Loaded("new")) is True
    assert (old.outcome, new.outcome, len(flights)) == (Loaded("old"), Loaded("new"), 0)
