"""A circuit breaker: after a few failures in a row, something is left alone for a while."""

import math

from otel_perfopt._core.backoff import Backoff

__all__ = ("Breaker",)


class Breaker:
    """Decides whether something that keeps failing is to be tried.

    It opens at the `threshold`-th failure in a row. When its time is over, one call is let through; if that fails as well, the
    time doubles, with back-off. Calls that had begun before it opened may fail as they like.

    Args:
        threshold: the failures in a row that open it.
        backoff: how long it stays open.

    >>> breaker = Breaker(threshold=2, backoff=Backoff(1.0, 60.0))
    >>> for _ in range(2):
    ...     breaker.failed(now=10.0, spread=1.0)
    >>> breaker.is_open, breaker.allows(10.5), breaker.allows(11.0), breaker.allows(11.0)
    (True, False, True, False)
    >>> breaker.succeeded()
    >>> breaker.is_open, breaker.allows(11.0)
    (False, True)
    """

    __slots__ = ("_backoff", "_failures", "_is_tried", "_retry_at", "_threshold")

    def __init__(self, *, threshold: int, backoff: Backoff) -> None:
        self._threshold = threshold
        self._backoff = backoff
        self._failures = 0
        self._is_tried = False
        self._retry_at = -math.inf

    @property
    def is_open(self) -> bool:
        """Whether it lets nothing through but a trial."""
        return self._failures >= self._threshold

    def allows(self, now: float) -> bool:
        """Whether to try now; while it is open, only one caller each time is told to."""
        if not self.is_open:
            return True
        if now < self._retry_at:
            return False
        self._is_tried = True
        self._retry_at = now + self._backoff.limit  # in case that the caller never tells how it went
        return True

    def wait(self, now: float) -> float:
        """Return the seconds until the next trial; 0 if it is closed."""
        return max(0.0, self._retry_at - now) if self.is_open else 0.0

    def failed(self, now: float, *, spread: float) -> None:
        """Note a failure; `spread` is a random number from 0 to 1."""
        if self.is_open and not self._is_tried:
            return  # not that of a trial
        self._is_tried = False
        self._failures += 1
        if self.is_open:
            self._retry_at = now + self._backoff.delay(self._failures - self._threshold + 1, spread=spread)

    def succeeded(self) -> None:
        """Note a success."""
        self._failures = 0
        self._is_tried = False
