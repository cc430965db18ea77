"""Help for the tests of those who use this library."""

from otel_perfopt.durations import Duration, to_seconds

__all__ = ("ManualClock",)


class ManualClock:
    """A clock that stands still until it is told to go on; for the option ``clock=``.

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

    def __call__(self) -> float:
        """Return what the clock shows, in seconds."""
        return self._now

    def __repr__(self) -> str:
        return f"<ManualClock at {self._now} s>"

    def advance(self, by: Duration) -> None:
        """Let time pass.

        Args:
            by: how long, in seconds, as a `timedelta`, or as a string such as ``"5m"``.

        Raises:
            ValueError: `by` is negative; time does not go back.
        """
        self._now += to_seconds(by, option="by", allow_zero=True)
