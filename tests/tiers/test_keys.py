"""Keys as bytes: the same for two keys if and only if a dict takes them for one, in every process."""

import dataclasses
import enum
import math
import subprocess
import sys
import zoneinfo
from collections import namedtuple
from collections.abc import Hashable
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from otel_perfopt.errors import Unencodable
from otel_perfopt.tiers.keys import MAX_KEY_SIZE, encode_key

BERLIN, LONDON = ZoneInfo("Europe/Berlin"), ZoneInfo("Europe/London")
ZONES = [None, UTC, timezone(timedelta(hours=1)), timezone(timedelta(hours=-2), "odd"), BERLIN, LONDON]


class Place(NamedTuple):
    x: int
    y: int


Pair = namedtuple("Pair", "a b")  # noqa: PYI024 - a class without annotations


class Colour(enum.Enum):
    RED = 1
    CRIMSON = 1  # noqa: PIE796 - an alias
    BLUE = (1, 2)


class Other(enum.Enum):
    RED = 1


class Level(enum.IntEnum):
    LOW = 1


class Unit(enum.StrEnum):
    METRE = "m"


class Letter(str, enum.Enum):  # noqa: UP042 - the older way
    A = "a"


class Day(date, enum.Enum):
    FIRST = 2025, 1, 1


class Rights(enum.Flag):
    READ = 1
    WRITE = 2


class Bits(enum.IntFlag):
    ONE = 1
    TWO = 2


class UserId(int):
    def __int__(self) -> int:
        return 99

    __index__ = __int__


class Loud(str):
    __slots__ = ()

    def __str__(self) -> str:
        return self.upper()


class Folded(str):
    """Compares in a way of its own."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return self.lower() == other

    __hash__ = str.__hash__


@dataclasses.dataclass(frozen=True)
class Point:
    x: int


class Strange(tzinfo):
    """Its clocks are changed all the time."""

    def utcoffset(self, when: datetime | None) -> timedelta:
        return timedelta(hours=when.fold if when else 0)

    def dst(self, when: datetime | None) -> timedelta:
        return timedelta(0)

    def tzname(self, when: datetime | None) -> str:
        return "strange"


SMALL = st.integers(-2, 3)
MEMBERS = [*Colour, *Other, *Level, *Unit, *Letter, *Day, *Rights, Rights.READ | Rights.WRITE, *Bits, Bits.ONE | Bits.TWO]
# Close together, so that equal keys of different types come up.
NUMBERS = (
    SMALL
    | SMALL.map(float)
    | SMALL.map(Decimal)
    | SMALL.map(Fraction)
    | SMALL.map(complex)
    | SMALL.map(UserId)
    | st.booleans()
    | st.builds(Fraction, SMALL, st.sampled_from([1, 2, 4, 3]))
    | st.sampled_from(
        [0.5, 0.1, Decimal("0.1"), Decimal("0.50"), Fraction(1, 10), Fraction(0.1), Decimal(0.1), 0.5 + 0j, 0.5 + 1j]  # noqa: RUF032 - exactly that float
    )
    | st.sampled_from([-0.0, Decimal("-0"), Decimal("0E+9999999"), complex(0.0, -0.0), complex(0, 1), complex(-0.0, 1)])
    | st.sampled_from([math.inf, -math.inf, Decimal("Infinity"), complex(math.inf, 0), complex(0, math.inf), 1e300, int(1e300)])
    | st.sampled_from([2**63, 2**64 - 1, 2**64, float(2**64), -(2**63), -(2**63) - 1, Decimal(2**64), Decimal("1E+20"), 10**20])
    | st.integers()
    | st.floats(allow_nan=False)
    | st.decimals(allow_nan=False)
    | st.fractions()
)
TEXTS = (
    st.sampled_from(["", "a", "m", "A", "1", "\ud800", b"", b"a", b"1", Loud("a"), "x" * 300, b"x" * 300])
    | st.text()
    | st.binary()
)
HOURS = st.integers(0, 3)
MOMENTS = st.builds(
    lambda day, hour, minute, fold, zone: datetime(2025, day[0], day[1], hour, minute, fold=fold, tzinfo=zone),
    st.sampled_from([(10, 26), (3, 30), (1, 1)]),  # the clocks are changed on two of them
    HOURS,
    st.sampled_from([0, 30]),
    st.integers(0, 1),
    st.sampled_from(ZONES),
)
TIMES = st.one_of(
    MOMENTS,
    MOMENTS.map(datetime.timetz),
    MOMENTS.map(datetime.date),
    st.datetimes(timezones=st.sampled_from(ZONES)),
    st.builds(timedelta, SMALL),
    st.builds(timedelta, hours=st.sampled_from([24, 25])),
)
LEAVES = NUMBERS | TEXTS | TIMES | st.sampled_from(MEMBERS) | st.none() | SMALL.map(lambda n: UUID(int=n + 2))
KEYS: st.SearchStrategy[Any] = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.frozensets(inner, max_size=3) | st.builds(Pair, inner, inner),
    max_leaves=4,
)


@given(KEYS, KEYS)
@example(1, True)
def test_equal_keys_and_no_others_have_equal_bytes(one: Any, other: Any) -> None:
    """As a dict sees it."""
    assert (encode_key(one) == encode_key(other)) == (one == other)
    assert encode_key(one) == encode_key(one)
    assert len(encode_key(one)) <= MAX_KEY_SIZE


@given(NUMBERS, NUMBERS)
def test_numbers(one: Any, other: Any) -> None:
    """Whatever their types are."""
    assert (encode_key((one, "a")) == encode_key((other, "a"))) == (one == other)


@given(TIMES, TIMES)
def test_times(one: Any, other: Any) -> None:
    """In whatever time zones, and where the clocks are changed."""
    assert (encode_key(one) == encode_key(other)) == (one == other)


@pytest.mark.parametrize(
    "keys",
    [
        (1, 1.0, True, Decimal(1), Decimal("1.00"), Fraction(1), complex(1), Level.LOW, Bits.ONE),
        (0.5, Decimal("0.5"), Fraction(1, 2), complex(0.5)),
        (0, -0.0, False, Decimal("-0E-7")),
        ("m", Unit.METRE),
        ("a", Letter.A, Loud("a")),
        ((1, 2), Pair(1, 2), Place(True, 2)),
        (frozenset({1, 2, "a"}), frozenset({"a", 2.0, True})),
        (Colour.RED, Colour.CRIMSON),
        (date(2025, 1, 1), Day.FIRST),
        (
            datetime(2025, 1, 1, 12, tzinfo=UTC),
            datetime(2025, 1, 1, 13, tzinfo=BERLIN),
            datetime(2025, 1, 1, 12, fold=1, tzinfo=LONDON),
        ),
        (datetime(2025, 10, 26, 2, 30, tzinfo=BERLIN), datetime(2025, 10, 26, 2, 30, fold=1, tzinfo=BERLIN)),
        (datetime(2025, 1, 1), datetime(2025, 1, 1, fold=1)),
        (time(12, tzinfo=UTC), time(13, tzinfo=timezone(timedelta(hours=1)))),
        (math.inf, Decimal("inf"), complex(math.inf, 0)),
        (2**70, float(2**70), Decimal(2**70)),
        (b"a", b"a"),
    ],
    ids=lambda keys: repr(keys[0]),
)
def test_one_key(keys: tuple[Hashable, ...]) -> None:
    """A dict holds one entry for all of these."""
    assert len(set(keys)) == 1
    assert len({encode_key(key) for key in keys}) == 1
    assert len({encode_key((key, None)) for key in keys}) == 1


@pytest.mark.parametrize(
    "keys",
    [
        (1, "1", b"1", (1,), frozenset({1}), ((1,),), Colour.RED, Other.RED, UUID(int=1), timedelta(1), None, "None", ()),
        (date(2025, 1, 1), datetime(2025, 1, 1), datetime(2025, 1, 1, tzinfo=UTC), "2025-01-01", time(0), time(0, tzinfo=UTC)),
        (("a", "b"), ("ab",), ("a", ("b",)), (("a",), "b"), "ab", ("a", "b", None)),
        (0.1, Decimal("0.1"), Fraction(1, 3), 1j, 1 + 1j),
        (Rights.READ, Rights.WRITE, Rights.READ | Rights.WRITE, Rights(0), 1, 2, 3, 0),
        ("x" * 300, "x" * 301, b"x" * 300, ("x" * 300,), "\ud800", "\ud801"),
        (2**64, 2**64 + 1, -(2**64), math.inf, -math.inf),
        (
            datetime(2025, 10, 26, 2, 30, tzinfo=BERLIN),
            datetime(2025, 10, 26, 0, 30, tzinfo=UTC),
            datetime(2025, 10, 26, 1, 30, tzinfo=UTC),
        ),
    ],
    ids=repr,
)
def test_different_keys(keys: tuple[Hashable, ...]) -> None:
    """A dict holds an entry for each of these."""
    assert len(set(keys)) == len(keys)
    assert len({encode_key(key) for key in keys}) == len(keys)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (math.nan, "^key is NaN, which does not even equal itself$"),
        (Decimal("NaN"), "^key is NaN"),
        (complex(0, math.nan), "^key is NaN"),
        (("a", (1, math.nan)), r"^key\[1\]\[1\] is NaN"),
        (frozenset({("a", math.nan)}), r"^key\[\.\.\.\]\[1\] is NaN"),
        (Point(1), r"^key is of type .*\.Point, which no other process has: make a key of texts, numbers and tuples$"),
        (("a", object()), r"^key\[1\] is of type object,"),
        (Folded("a"), r"^key is of type .*\.Folded,"),
        (int, "^key is of type type,"),
        (len, "^key is of type builtin_function_or_method,"),
        (range(3), "^key is of type range,"),
        (Path("a"), "^key is of type pathlib"),
        ([1], "^key is of type list,"),
        (Decimal("1E+5001"), "^key has the exponent 5001, and the limit is 5000$"),
        (Decimal("1E-999999"), "^key has the exponent -999999"),
        (datetime(2025, 1, 1, tzinfo=Strange()), "^key is at a change of the clocks, in a time zone without a name"),
    ],
    ids=repr,
)
def test_what_is_no_key_elsewhere(key: Any, message: str) -> None:
    """What another process could not find, or nobody, is refused; the message names the part."""
    with pytest.raises(Unencodable, match=message):
        encode_key(key)


def test_a_zone_without_a_name() -> None:
    """It matters only where the clocks are changed."""
    paths = [Path(folder) / "Europe/Berlin" for folder in zoneinfo.TZPATH]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        pytest.skip("the system has no files of time zones: install tzdata")
    with path.open("rb") as file:
        zone = ZoneInfo.from_file(file)
    assert encode_key(datetime(2025, 1, 1, tzinfo=zone)) == encode_key(datetime(2025, 1, 1, tzinfo=BERLIN))
    with pytest.raises(Unencodable, match="change of the clocks"):
        encode_key(datetime(2025, 10, 26, 2, 30, tzinfo=zone))


def test_nested_without_end() -> None:
    """Too deep is an Unencodable."""
    key: Any = "a"
    for _ in range(5000):
        key = (key,)
    with pytest.raises(Unencodable, match="RecursionError"):
        encode_key(key)


def test_size() -> None:
    """Short keys are as they are, long ones a digest that no short one can be."""
    assert len(encode_key("x" * 253)) == MAX_KEY_SIZE
    assert len(encode_key("x" * 254)) == 33
    assert encode_key("x" * 254)[0] == 0xC1
    assert len({encode_key("x" * size) for size in range(600)}) == 600


def test_the_bytes_stay() -> None:
    """Entries of earlier releases can be found: these bytes never change."""
    key = ("user", 7, 1.5, frozenset({"b", "a"}), Colour.RED, UUID(int=1), datetime(2025, 1, 1, tzinfo=UTC), 2**70)
    assert encode_key(key).hex() == (
        "98a47573657207c70303920302c7090692c402a161c402a162c7220792bc74657374732e74696572732e746573745f6b6579732e"
        "436f6c6f7572a3524544d80800000000000000000000000000000001c7090ecf00e2ea98b9382000c70901400000000000000000"
    )


def test_other_processes() -> None:
    """The seed of hashes makes no difference."""
    code = """
from otel_perfopt.tiers.keys import encode_key
print(encode_key((frozenset({"a", "b", ("c", 1), None, 2.5}), "x")).hex())
"""
    found = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(found) == 1
