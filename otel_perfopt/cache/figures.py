"""Figures of a cache that outlive the process: what is counted here is added to what a persistent tier remembers."""

import threading
from collections.abc import Callable, Mapping

from otel_perfopt.cache.guard import Guard

__all__ = ("LifetimeFigures",)


class LifetimeFigures:
    """The lifetime figures of one cache.

    Args:
        guard: the tier that remembers them.
        count: returns what was counted in this process.
    """

    def __init__(self, guard: Guard, count: Callable[[], Mapping[str, int]]) -> None:
        self._guard = guard
        self._count = count
        self._saved: Mapping[str, int] = {}
        self._lock = threading.RLock()

    def read(self) -> Mapping[str, int]:
        """Return the figures of all processes, this one included; empty if the tier is away."""
        with self._lock:
            saved = self._guard.add_counts({})
            return {} if saved is None else _sum(saved, self._news(self._count()))

    def save(self) -> None:
        """Have the tier remember what was counted since the last time."""
        with self._lock:
            counted = self._count()
            news = {figure: number for figure, number in self._news(counted).items() if number}
            if news and self._guard.add_counts(news) is not None:
                self._saved = counted

    def reset_after_fork(self) -> None:
        """Begin at zero, as the counts do."""
        self._lock = threading.RLock()
        self._saved = {}

    def _news(self, counted: Mapping[str, int]) -> dict[str, int]:
        return {figure: number - self._saved.get(figure, 0) for figure, number in counted.items()}


def _sum(some: Mapping[str, int], others: Mapping[str, int]) -> dict[str, int]:
    return {figure: some.get(figure, 0) + others.get(figure, 0) for figure in (*others, *some)}
