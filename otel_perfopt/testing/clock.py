"""A clock for tests: it stands still until it is told to go on."""

import heapq
import itertools
import math
import threading
from collections.abc import Callable

from otel_perfopt.durations import Duration, to_seconds

__all__ = ("ManualClock",)


class ManualClock:
    """A clock that stands still until it is told to go on; for the option ``clock=``.

    What waits by this clock, such as the deadline of a pool or the timeout of a batch, is due when `advance` comes to it.

    Args:
        start: the seconds that it shows at first.

    >>> from otel_perfopt import Cache
    >>> clock = ManualClock()
    >>> weather = Cache("weather", ttl="5m", clock=clock)
    >>> weather.set("Oslo", "snow")
    >>> clock.advance("4m59s")
    >>> weather.get("Oslo")
    'snow'
    >>> clock.advance(1)
    >>> "Oslo" in weather
    False
    """

    def __init__(self, start: float = 0.0) -> None:
        self._now = start
        self._due: list[tuple[float, int, Callable[[], object]]] = []
        self._serial = itertools.count()
        self._lock = threading.RLock()

    def __call__(self) -> float:
        """Return what the clock shows, in seconds."""
        return self._now

    def __repr__(self) -> str:
        return f"<ManualClock at {self._now} s>"

    def after(self, seconds: float, callback: Callable[[], object]) -> None:
        """Have `callback` called by `advance` when so many seconds have passed.

        >>> clock = ManualClock()
        >>> clock.after(5, lambda: print("five seconds have passed"))
        >>> clock.advance(10)
        five seconds have passed
        """
        if seconds < math.inf:
            with self._lock:
                heapq.heappush(self._due, (self._now + seconds, next(self._serial), callback))

    def advance(self, by: Duration) -> None:
        """Let time pass.

        Args:
            by: how long, in seconds, as a `timedelta`, or as a string such as ``"5m"``.

        Raises:
            ValueError: `by` is negative; time does not go back.
        """
        end = self._now + to_seconds(by, option="by", allow_zero=True)
        while (callback := self._next(end)) is not None:
            callback()  # without the lock: it may ask for the next one

    def _next(self, end: float) -> Callable[[], object] | None:
        """Go on to the next callback that is due by `end`, or to `end`."""
        with self._lock:
            if self._due and self._due[0][0] <= end:
                due, _, callback = heapq.heappop(self._due)
                self._now = max(self._now, due)
                return callback
            self._now = max(self._now, end)
            return None
