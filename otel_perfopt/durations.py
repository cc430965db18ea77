"""Durations: one type for options, one function that turns it into seconds."""

import math
import re
import sys
from datetime import timedelta

__all__ = ("Duration", "to_seconds")

Duration = float | timedelta | str
"""Seconds as a number, a `timedelta`, or a string such as ``"5m"``, ``"1h30m"`` or ``"250ms"``."""

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|[smhd])\s*", re.ASCII)
_WHOLE = re.compile(rf"(?:{_PART.pattern})+", re.ASCII)


def to_seconds(value: Duration, *, option: str = "duration", allow_zero: bool = False) -> float:
    """Return `value` in seconds.

    Args:
        value: seconds, a `timedelta`, or a string of numbers with the units ``ms``, ``s``, ``m``, ``h`` and ``d``.
        option: the name of the option, for the message of an error.
        allow_zero: whether zero has a meaning for this option.

    Raises:
        TypeError: `value` is none of these types.
        ValueError: `value` is negative, not finite, not a duration, or a zero that means nothing.

    >>> to_seconds("1h30m")
    5400.0
    >>> to_seconds("250ms")
    0.25
    """
    if isinstance(value, str):
        text = value.strip().lower()
        if not _WHOLE.fullmatch(text):
            raise ValueError(f'{option}={value!r} is not a duration: write for example "5m", "1h30m" or "250ms"')
        seconds = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
    elif isinstance(value, timedelta):
        seconds = value.total_seconds()
    elif isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value) if abs(value) <= sys.float_info.max else math.inf
    else:
        raise TypeError(f"{option} must be seconds, a timedelta or a string such as '5m', not {type(value).__name__}")
    if not math.isfinite(seconds) or seconds < 0:
        raise ValueError(f"{option}={value!r} must be a finite number of seconds that is not negative")
    if seconds == 0 and not allow_zero:
        raise ValueError(f"{option}={value!r} has no meaning: use a positive duration, or None for no limit")
    return seconds
