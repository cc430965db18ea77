"""Single flight: at most one load per key, and the questions that decide who waits, who stores and who must not wait.

A flight is one load in progress. It never lives among the entries, which may be evicted. Callers are parties to a flight: they
join, they leave, and whoever is last may want the load cancelled. An invalidation grounds a flight: those who
already wait still get its value, nobody new does, and nothing of it is stored.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, TypeVar

__all__ = ("ABSENT", "Aborted", "Failed", "Flight", "Flights", "Loaded", "Node", "Outcome")


@dataclass(frozen=True, slots=True)
class Loaded:
    """There is a value.

    Attributes:
        value: the value.
        source: where it comes from; None for the loader itself.
    """

    value: Any
    source: str | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """The load raised; every party gets this error, with the traceback that it had then."""

    error: Exception
    traceback: TracebackType | None


@dataclass(frozen=True, slots=True)
class Aborted:
    """The load ended without an answer: cancelled, interrupted, or its loop is gone. Parties may try again."""

    error: BaseException | None = None


class _Absent:
    def __repr__(self) -> str:
        return "ABSENT"


ABSENT: Any = _Absent()
"""The value of a load that has found nothing: whoever can load it otherwise tries again."""

Outcome = Loaded | Failed | Aborted


class Node:
    """Something that can wait for others: a flight, or an event loop that a synchronous call blocks."""

    __slots__ = ("__weakref__", "waiting_for")

    def __init__(self) -> None:
        self.waiting_for: set[Node] = set()

    def waits_for(self, node: "Node") -> bool:
        """Whether this waits for `node`, however indirectly, or is it."""
        seen: set[Node] = set()
        pending: list[Node] = [self]
        while pending:
            current = pending.pop()
            if current is node:
                return True
            if current not in seen:
                seen.add(current)
                pending.extend(current.waiting_for)
        return False


class Flight(Node):
    """One load in progress.

    Attributes:
        key: what is loaded.
        parties: how many callers want the outcome.
        goes_on: whether it is wanted even if nobody waits for it.
        grounded: whether an invalidation forbids to store the value.
        outcome: None while it is in progress.
    """

    __slots__ = ("_wakers", "goes_on", "grounded", "key", "outcome", "parties")

    def __init__(self, key: Hashable) -> None:
        super().__init__()
        self.key = key
        self.parties = 1
        self.goes_on = False
        self.grounded = False
        self.outcome: Outcome | None = None
        self._wakers: list[Callable[[], None]] = []

    def on_done(self, waker: Callable[[], None]) -> bool:
        """Have `waker` called at the end; False if the end has already come."""
        if self.outcome is not None:
            return False
        self._wakers.append(waker)
        return True

    def leave(self) -> bool:
        """One party goes; True if nobody wants the load any more, and it is still in progress."""
        self.parties -= 1
        return self.parties == 0 and self.outcome is None and not self.goes_on

    def end(self, outcome: Outcome) -> None:
        """Note the outcome."""
        self.outcome = outcome
        self.waiting_for.clear()

    def take_wakers(self) -> list[Callable[[], None]]:
        """Return whom to wake, once."""
        wakers, self._wakers = self._wakers, []
        return wakers


F = TypeVar("F", bound=Flight)


class Flights(Generic[F]):
    """The flights of one cache, by key."""

    def __init__(self) -> None:
        self._open: dict[Hashable, F] = {}
        self._running: set[F] = set()

    def __len__(self) -> int:
        return len(self._running)

    @property
    def waiting(self) -> int:
        """How many callers wait for a load that another caller started."""
        return sum(max(0, flight.parties - 1) for flight in list(self._running))

    def find(self, key: Hashable) -> F | None:
        """Return the flight that a caller who comes now may join."""
        return self._open.get(key)

    def start(self, flight: F) -> None:
        """Let others find this flight."""
        self._open[flight.key] = flight
        self._running.add(flight)

    def finish(self, flight: F, outcome: Outcome) -> bool:
        """End a flight, and return whether its value may be stored; a second end changes nothing."""
        if flight.outcome is not None:
            return False
        self._running.discard(flight)
        flight.end(outcome)
        self._hide(flight)
        return not flight.grounded

    def ground(self, key: Hashable) -> None:
        """Forbid the flight of `key`, if there is one, to store its value, and hide it from newcomers."""
        flight = self._open.pop(key, None)
        if flight is not None:
            flight.grounded = True

    def ground_flight(self, flight: F) -> None:
        """Ground exactly this flight."""
        flight.grounded = True
        self._hide(flight)

    def ground_all(self) -> None:
        """Ground every flight."""
        for flight in list(self._open.values()):
            flight.grounded = True
        self._open.clear()

    def _hide(self, flight: F) -> None:
        if self._open.get(flight.key) is flight:
            self._open.pop(flight.key, None)  # comparing keys may have run code that has removed it
