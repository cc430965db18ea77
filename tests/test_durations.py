"""Durations: everything that is one, and why the rest is not."""

import math
import sys
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_perfopt.durations import Duration, to_seconds


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (1, 1.0),
        (0.25, 0.25),
        (5e-324, 5e-324),
        (sys.float_info.max, sys.float_info.max),
        (10**300, 1e300),
        (timedelta(minutes=1, milliseconds=5), 60.005),
        (timedelta.max, timedelta.max.total_seconds()),
        ("250ms", 0.25),
        ("5s", 5.0),
        ("5m", 300.0),
        ("2h", 7200.0),
        ("1d", 86400.0),
        ("1h30m", 5400.0),
        ("30m1h", 5400.0),
        ("1d2h3m4s5ms", 93784.005),
        ("1.5h", 5400.0),
        ("0.5ms", 0.0005),
        ("007s", 7.0),
        ("5M", 300.0),
        ("250 MS", 0.25),
        ("  5m  ", 300.0),
        ("1h 30m", 5400.0),
        ("1 h\t30 m", 5400.0),
        ("5m\r\n", 300.0),
        ("1h\r\n30m\r\n", 5400.0),
    ],
)
def test_durations(value: Duration, seconds: float) -> None:
    """Numbers, timedeltas and strings become seconds."""
    converted = to_seconds(value)
    assert converted == seconds
    assert type(converted) is float


@pytest.mark.parametrize(
    "value",
    [
        "", " ", "5", "m", "5x", "5 minutes", "five", "-5m", "+5m", "1,5h", ".5s", "5.s", "1e3s", "1 0m", "5m!", "5m-1s", "nan",
        "inf", "infinity", "P1D", "1:30", "\u0665m", "5m\x00",
    ],
)  # fmt: skip
def test_strings_that_are_no_durations(value: str) -> None:
    """The message names the option, the value, and what to write instead."""
    with pytest.raises(ValueError, match="is not a duration") as caught:
        to_seconds(value, option="ttl", allow_zero=True)
    assert str(caught.value) == f'ttl={value!r} is not a duration: write for example "5m", "1h30m" or "250ms"'


@pytest.mark.parametrize(
    "value",
    [
        -1, -0.001, -(10**400), timedelta(microseconds=-1), math.nan, math.inf, -math.inf,
        pytest.param(10**400, id="an int beyond all floats"),
        pytest.param("9" * 400 + "s", id="a string beyond all floats"),
        pytest.param("9" * 308 + "d", id="days beyond all floats"),
        pytest.param(f"1{'0' * 308}s1{'0' * 308}s", id="a sum beyond all floats"),
    ],
)  # fmt: skip
def test_durations_that_are_negative_or_not_finite(value: Duration) -> None:
    """They are refused with their value, and with no other error than ValueError."""
    with pytest.raises(ValueError, match="must be a finite number of seconds that is not negative") as caught:
        to_seconds(value, option="timeout", allow_zero=True)
    assert str(caught.value).startswith(f"timeout={value!r} ")


@pytest.mark.parametrize("value", [0, 0.0, -0.0, "0s", "0ms", "0h0m", "0.000s", timedelta()])
def test_zero(value: Duration) -> None:
    """Zero is refused with the reason, unless the option has a meaning for it."""
    assert to_seconds(value, allow_zero=True) == 0.0
    with pytest.raises(ValueError, match="has no meaning") as caught:
        to_seconds(value, option="ttl")
    assert str(caught.value) == f"ttl={value!r} has no meaning: use a positive duration, or None for no limit"


@pytest.mark.parametrize("value", [None, True, False, b"5m", [5], Decimal(5), 5j, object])
def test_other_types(value: Any) -> None:
    """The message names the option, what it may be, and the type that was given."""
    with pytest.raises(TypeError) as caught:
        to_seconds(value, option="ttl", allow_zero=True)
    assert str(caught.value) == f"ttl must be seconds, a timedelta or a string such as '5m', not {type(value).__name__}"


def test_the_option_has_a_name_anyway() -> None:
    """Without `option`, messages speak of a duration."""
    with pytest.raises(ValueError, match=r"^duration=-1 must be"):
        to_seconds(-1)


UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


@given(
    st.lists(st.tuples(st.integers(0, 9999), st.sampled_from(sorted(UNITS))), min_size=1, max_size=5), st.sampled_from(["", " "])
)
def test_any_sum_of_units(parts: list[tuple[int, str]], space: str) -> None:
    """A string is the sum of its parts, whichever they are, in any order and number."""
    text = space.join(f"{number}{space}{unit}" for number, unit in parts)
    milliseconds = sum(number * UNITS[unit] for number, unit in parts)
    assert to_seconds(text, allow_zero=True) == pytest.approx(milliseconds / 1000, rel=1e-12)


@given(st.text(max_size=12))
def test_any_text_is_a_duration_or_a_value_error(text: str) -> None:
    """No text leads to another error, or to a number that is not finite or is negative."""
    try:
        seconds = to_seconds(text, allow_zero=True)
    except ValueError:
        return
    assert math.isfinite(seconds)
    assert seconds >= 0
