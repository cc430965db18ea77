"""What storms of threads and of tasks have in common: the dice, the resources, and what is left at the end."""

import gc
import weakref
from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import TypeVar

from benchmarks.dummies import Dummy
from otel_perfopt.testing import ManualClock

__all__ = ("SIZE", "TIMEOUTS", "Outcome", "Storm", "Trouble")

SIZE = 4
TIMEOUTS = (0.0, 0.002, 0.02, 1.0, 1.0)
WAYS = {"lease": 60, "by hand": 25, "destroy": 6, "forget": 1, "resize": 0.5, "drain": 0.3, "fork": 0.2}

D = TypeVar("D", bound=Dummy)


class Trouble(Exception):
    """What goes wrong in a storm."""


@dataclass(slots=True)
class Outcome:
    """What a storm has left.

    Attributes:
        seed: what it was made from.
        operations: how many there were.
        met: what the callers got, by kind.
        faults: what must not happen, such as two users of one resource.
        hung: callers that got no answer at all.
        capacity: how many resources could be had at once afterwards.
        is_closed: whether the pool could be closed.
        left_open: resources that were not disposed of by then.
    """

    seed: int
    operations: int = 0
    met: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    hung: int = 0
    capacity: int = 0
    is_closed: bool = False
    left_open: int = 0

    def losses(self) -> list[str]:
        """Return in words what the pool has lost."""
        losses = [f"{count} x {fault}" for fault, count in sorted((+self.faults).items())]
        if self.hung:
            losses.append(f"{self.hung} callers hang")
        if self.capacity != SIZE:
            losses.append(f"lends {self.capacity} of {SIZE}" if self.capacity < SIZE else f"lends more than {SIZE}")
        if not self.is_closed:
            losses.append("close() hangs")
        elif self.left_open:
            losses.append(f"{self.left_open} left open")
        return losses


class Storm:
    """The dice, the resources and the time of a storm.

    Args:
        seed: the same seed throws the same dice.
        operations: how many there are.
        clock: None for the real time; this clock is driven on all the while, so that nobody really waits.
        patience: seconds without any progress, after which nothing is expected any more.
    """

    def __init__(self, seed: int, operations: int, *, clock: ManualClock | None = None, patience: float = 15.0) -> None:
        self.dice = Random(seed)
        self.clock = clock
        self.patience = patience
        self.outcome = Outcome(seed)
        self.is_calm = False
        self.planned = operations
        self._made: weakref.WeakSet[Dummy] = weakref.WeakSet()

    def fails(self, chance: float) -> bool:
        """Whether something goes wrong now; nothing does when the storm is over."""
        return not self.is_calm and self.dice.random() < chance

    def admit(self, dummy: D) -> D:
        """Watch over a new resource, if the factory does not fail now."""
        if self.fails(0.05):
            raise Trouble("factory")
        dummy.faults = self.outcome.faults
        self._made.add(dummy)
        return dummy

    def next_way(self, lacks: frozenset[str]) -> str | None:
        """Return what the next caller does; None when there were enough."""
        if self.outcome.operations >= self.planned:
            return None
        self.outcome.operations += 1
        (way,) = self.dice.choices([*WAYS], [*WAYS.values()])
        return "lease" if way in lacks or (way == "fork" and self.is_calm) else way

    def settle(self, *, is_closed: bool) -> Outcome:
        """Return what is left when the pool has been closed."""
        gc.collect()
        self.outcome.is_closed = is_closed
        self.outcome.left_open = sum(not dummy.is_ended for dummy in list(self._made))
        return self.outcome
