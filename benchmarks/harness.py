"""Contestants side by side: every round in a fresh process, slices of all contestants in turn, one ratio per round.

A ratio within a round compares what ran in the same milliseconds, so that a busy machine slows both sides; a fresh process
per round has its own hash seed and memory layout. Nothing is subtracted: both sides pay for the same loop.
"""

import gc
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeVar

__all__ = ("Benchmark", "Build", "Contestant", "Result", "Round", "Slice", "Spread", "Turn", "rotated", "run_round", "timed")

SLICES = 15

T = TypeVar("T")

Clock = Callable[[], float]
Slice = Callable[[], float]
"""Does the thing for a moment and returns its cost, such as the seconds of one operation."""


@dataclass(frozen=True, slots=True)
class Turn:
    """Which round it is, and how much to do in it.

    Attributes:
        number: the round, from 0.
        slices: how often each contestant has its turn.
        quick: whether only to show that it runs.
    """

    number: int = 0
    slices: int = SLICES
    quick: bool = False

    def count(self, full: int) -> int:
        """Return how often to do something that is worth doing `full` times."""
        return max(1, full // 50) if self.quick else full


Build = Callable[[Turn], Slice]


@dataclass(frozen=True, slots=True)
class Contestant:
    """One way to do the thing.

    Attributes:
        name: for the table.
        build: imports what it needs, prepares, and returns the slice.
        package: what to install for it; empty for what is always there.
    """

    name: str
    build: Build
    package: str = ""


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One row of the table: the first contestant is the library, the second what it is compared with, then its peers.

    Attributes:
        name: for ``--only``.
        title: for people.
        contestants: the library, the base, the peers.
        limit: the most that is promised; None if nothing is.
        measure: what the limit is about: the library's cost per the base's, in time or in bytes, its cost, or its distance from
            the base.
        collect_garbage: whether the garbage collector runs meanwhile, as it should where garbage is made.
        rounds: how many rounds there are; None for as many as asked for.
        slices: how often each contestant has its turn in a round; None for the usual number.
    """

    name: str
    title: str
    contestants: tuple[Contestant, ...]
    limit: float | None = None
    measure: Literal["ratio", "seconds", "points", "bytes"] = "ratio"
    collect_garbage: bool = False
    rounds: int | None = None
    slices: int | None = None


@dataclass(frozen=True, slots=True)
class Round:
    """What one round found.

    Attributes:
        costs: the median slice of each contestant.
        missing: those that could not take part, and why.
    """

    costs: dict[str, float]
    missing: dict[str, str] = field(default_factory=dict)


class Spread(NamedTuple):
    """The middle and the ends of some figures."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, figures: Iterable[float]) -> "Spread":
        """Return the spread of at least one figure."""
        values = sorted(figures)
        return cls(statistics.median(values), values[0], values[-1])


@dataclass(frozen=True, slots=True)
class Result:
    """All rounds of a benchmark."""

    benchmark: Benchmark
    rounds: tuple[Round, ...]

    @property
    def missing(self) -> dict[str, str]:
        """Those that could not take part, and why."""
        return {name: reason for found in self.rounds for name, reason in found.missing.items()}

    def took_part(self) -> list[str]:
        """Return the contestants that took part in every round."""
        return [c.name for c in self.benchmark.contestants if all(c.name in found.costs for found in self.rounds)]

    def cost(self, name: str) -> Spread:
        """Return the costs of a contestant over the rounds."""
        return Spread.of(found.costs[name] for found in self.rounds)

    def compared(self, name: str) -> Spread:
        """Return how a contestant compares with the base, round by round: a ratio, or a distance in points."""
        base = self.benchmark.contestants[1].name
        pairs = [(found.costs[name], found.costs[base]) for found in self.rounds]
        if self.benchmark.measure == "points":
            return Spread.of(100 * (ours - theirs) for ours, theirs in pairs)
        return Spread.of(ours / theirs for ours, theirs in pairs)

    def holds(self) -> bool | None:
        """Whether the library is within the limit; None if there is none, or if somebody is missing."""
        ours, base = (contestant.name for contestant in self.benchmark.contestants[:2])
        limit = self.benchmark.limit
        if limit is None or not {ours, base}.issubset(self.took_part()):
            return None
        if self.benchmark.measure == "seconds":
            return self.cost(ours).median <= limit
        if self.benchmark.measure == "points":
            _, low, high = self.compared(ours)
            return max(-low, high) <= limit
        return self.compared(ours).median <= limit


def run_round(benchmark: Benchmark, turn: Turn) -> Round:
    """Let all contestants have their slices in turn, and return the median slice of each."""
    slices, missing = _prepare(benchmark.contestants, turn)
    costs: dict[str, list[float]] = {name: [] for name in slices}
    gc.collect()
    if not benchmark.collect_garbage:
        gc.disable()
    try:
        for number in range(turn.slices):
            for name in rotated(list(slices), turn.number + number):
                costs[name].append(slices[name]())
    finally:
        gc.enable()
    return Round({name: statistics.median(found) for name, found in costs.items()}, missing)


def _prepare(contestants: Iterable[Contestant], turn: Turn) -> tuple[dict[str, Slice], dict[str, str]]:
    slices, missing = {}, {}
    for contestant in contestants:
        try:
            run = contestant.build(turn)
            if turn.slices > 1:
                run()  # warms up: caches are filled, code is specialised
        except Exception as error:
            if not contestant.package:
                raise
            command = f"pip install {contestant.package}"
            missing[contestant.name] = command if isinstance(error, ModuleNotFoundError) else f"failed: {error}"
        else:
            slices[contestant.name] = run
    return slices, missing


def rotated(items: Sequence[T], by: int) -> list[T]:
    """Return the items with another one at the front for each `by`.

    >>> rotated("abc", 1)
    ['b', 'c', 'a']
    """
    start = by % len(items) if items else 0
    return [*items[start:], *items[:start]]


def timed(lap: Callable[[], object], *, laps: int, operations: int, clock: Clock = time.thread_time) -> Slice:
    """Return a slice that runs `lap`, which does `operations`, `laps` times; its cost is the time of one operation.

    The time is the thread's CPU time: on a busy machine it does not count what others do meanwhile.
    """

    def run() -> float:
        start = clock()
        for _ in range(laps):
            lap()
        return (clock() - start) / (laps * operations)

    return run
