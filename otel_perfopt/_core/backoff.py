"""Back-off: how long to wait before the next attempt at something that keeps failing."""

__all__ = ("Backoff",)


class Backoff:
    """Delays that double with every failure, up to a limit.

    Each is spread by a random number from half of it to all of it, so that many processes do not come back together.

    Args:
        first: seconds after the first failure.
        limit: the most seconds.

    >>> backoff = Backoff(0.01, 5.0)
    >>> [backoff.delay(failures, spread=1.0) for failures in (1, 2, 3, 20)]
    [0.01, 0.02, 0.04, 5.0]
    >>> backoff.delay(1, spread=0.0)
    0.005
    """

    __slots__ = ("first", "limit")

    def __init__(self, first: float, limit: float) -> None:
        self.first = first
        self.limit = limit

    def delay(self, failures: int, *, spread: float) -> float:
        """Return the seconds to wait after so many failures in a row; `spread` is a random number from 0 to 1."""
        whole = min(self.limit, self.first * 2.0 ** min(failures - 1, 64))
        return whole * (0.5 + 0.5 * spread)
