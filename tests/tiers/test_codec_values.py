"""Values of the standard library: what goes in comes back, equal and of the same type in every part, or is refused by name."""

import dataclasses
import enum
import math
import pickle
import subprocess
import sys
import zoneinfo
from collections import Counter, OrderedDict, UserDict, defaultdict, deque, namedtuple
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any
from uuid import UUID, uuid1, uuid4
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_perfopt.errors import Unencodable
from otel_perfopt.tiers.codec import Codec

CODEC: Codec[Any] = Codec()
ZONES = [None, UTC, timezone(timedelta(hours=-3, minutes=30)), timezone(timedelta(seconds=61, microseconds=7), "odd")]
NAMED_ZONES = [ZoneInfo("Europe/Berlin"), ZoneInfo("America/New_York")]


def again(value: Any) -> Any:
    """What comes back."""
    return CODEC.decode(CODEC.encode(value))


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal and of one type in every part; NaN is the same as NaN."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return len(one) == len(other) and all(
            same(a, b) and same(x, y) for (a, x), (b, y) in zip(one.items(), other.items(), strict=True)
        )
    if isinstance(one, list | tuple | deque):
        sizes = (len(one), getattr(one, "maxlen", None)) == (len(other), getattr(other, "maxlen", None))
        return sizes and all(map(same, one, other))
    if isinstance(one, set | frozenset):
        return len(one) == len(other) and all(any(same(a, b) for b in other) for a in one)
    if isinstance(one, float):
        return repr(one) == repr(other)  # the sign of zero, and NaN
    if isinstance(one, complex):
        return same(one.real, other.real) and same(one.imag, other.imag)
    if isinstance(one, Decimal):
        return bool(one.as_tuple() == other.as_tuple())
    if isinstance(one, datetime | time):
        alike = (one.replace(tzinfo=None), one.fold) == (other.replace(tzinfo=None), other.fold)
        return bool(alike) and same(one.tzinfo, other.tzinfo)
    if isinstance(one, timezone):
        return (one, one.tzname(None)) == (other, other.tzname(None))
    return bool(one == other)


@st.composite
def moments(draw: st.DrawFn, kind: st.SearchStrategy[Any]) -> Any:
    """Dates with times, or times, in no time zone or in one, and on either side of a change of the clocks."""
    return draw(kind).replace(fold=draw(st.integers(0, 1)), tzinfo=draw(st.sampled_from(ZONES + NAMED_ZONES)))


NATIVE = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary()
HASHABLE = (
    NATIVE
    | st.integers()
    | st.integers(-(2**200), 2**200)
    | st.text(st.characters())
    | st.text(st.characters(categories=["Cs", "Lu"]))
    | st.complex_numbers()
    | st.decimals(allow_nan=False)
    | st.fractions()
    | st.uuids()
    | st.dates()
    | st.timedeltas()
    | moments(st.datetimes())
    | moments(st.times())
)
KEYS = st.recursive(HASHABLE, lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3), max_leaves=5)
LEAVES = HASHABLE | st.decimals() | st.binary().map(bytearray) | st.sampled_from([*ZONES, *NAMED_ZONES])


def containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """All containers."""
    lists = st.lists(inner, max_size=4)
    mappings: st.SearchStrategy[Any] = st.dictionaries(st.text(), inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3)
    queues: st.SearchStrategy[Any] = st.builds(deque, lists, st.none() | st.integers(0, 5))
    return (
        lists
        | lists.map(tuple)
        | mappings
        | mappings.map(OrderedDict)
        | mappings.map(Counter)
        | queues
        | st.sets(KEYS, max_size=3)
        | st.frozensets(KEYS, max_size=3)
    )


@given(st.recursive(LEAVES, containers, max_leaves=12))
def test_everything_comes_back_as_it_was(value: Any) -> None:
    """Types, values, order, time zones, the sign of zero and NaN survive, however deep."""
    assert same(again(value), value)


@given(st.recursive(NATIVE, lambda inner: st.lists(inner) | st.dictionaries(NATIVE, inner), max_leaves=12))
def test_what_msgpack_has_comes_back_as_it_was(value: Any) -> None:
    """The short way for plain data changes nothing, either."""
    assert same(again(value), value)


@pytest.mark.parametrize(
    "value",
    [
        -(2**63) - 1,
        2**64,
        2**64 - 1,
        -1,
        -(2**127),
        255,
        -0.0,
        math.nan,
        -math.inf,
        1e-320,
        complex(-0.0, math.nan),
        Decimal("1.10"),
        Decimal("-0E+5"),
        Decimal("NaN123"),
        Decimal("sNaN"),
        Decimal("1E+999999"),
        "\ud800",
        {"\udfff": "\ud800"},
        {1: "a", "1": "b", b"1": "c", None: "d", 1.5: "e", (1,): "f", frozenset({1}): "g"},
        {True: 1},
        {1.0: {True}},
        {("a", 2**70): [(1, [2, {3}])]},
        [{"a": 1, "b": None}, {"a": 2**80, "b": (1,)}],
        [{"a": 1}, {1: 2}, {}],
        [{"a": 1}, OrderedDict(a=1)],
        (),
        ((),),
        [()],
        {},
        set(),
        frozenset(),
        deque(maxlen=0),
        deque([None], maxlen=7),
        Counter("hello"),
        OrderedDict(b=1, a=2),
        bytearray(b"\x00\xff"),
        datetime.min,
        datetime.max.replace(tzinfo=UTC),
        datetime.min.replace(tzinfo=timezone(timedelta(hours=23))),
        datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
        datetime(2025, 10, 26, 2, 30, fold=1, tzinfo=NAMED_ZONES[0]),
        datetime(2025, 10, 26, 2, 30, fold=1, tzinfo=UTC),
        time(1, 2, 3, 4, tzinfo=timezone(timedelta(0), "Zulu")),
        date.max,
        timedelta.min,
        UTC,
        uuid4(),
        uuid1(),
        Fraction(2**70, 3),
    ],
    ids=repr,
)
def test_special_values(value: Any) -> None:
    """Values that other codecs are known to change."""
    assert same(again(value), value)


class Colour(enum.Enum):
    RED = 1


class Level(enum.IntEnum):
    LOW = 1


class Name(str):
    __slots__ = ()


class Amount(float):
    __slots__ = ()


class Row(dict[str, int]):
    pass


class Strange(tzinfo):
    def utcoffset(self, when: datetime | None) -> timedelta:
        return timedelta(hours=1)

    def dst(self, when: datetime | None) -> timedelta:
        return timedelta(0)

    def tzname(self, when: datetime | None) -> str:
        return "strange"


class Equal(type):
    """A metaclass whose classes are equal to str, and have no hash."""

    def __eq__(cls, other: object) -> bool:
        return other is str


class Posing(metaclass=Equal):
    pass


@dataclasses.dataclass
class Point:
    x: int


class Packet(msgspec.Struct):
    x: int


Pair = namedtuple("Pair", "a b")  # noqa: PYI024 - a class without annotations


@pytest.mark.parametrize(
    ("part", "kind"),
    [
        (Colour.RED, "Colour"),
        (Level.LOW, "Level"),
        (Name("a"), "Name"),
        (Amount(1), "Amount"),
        (Row(a=1), "Row"),
        (Point(1), "Point"),
        (Packet(1), "Packet"),
        (Pair(1, 2), "Pair"),
        (defaultdict(list), "collections.defaultdict"),
        (UserDict(), "collections.UserDict"),
        (memoryview(b"a"), "memoryview"),
        (range(3), "range"),
        (Path("a"), type(Path("a")).__name__),
        (..., "ellipsis"),
        (int, "type"),
        (len, "builtin_function_or_method"),
        (object(), "object"),
        ((n for n in "a"), "generator"),
        ({}.keys(), "dict_keys"),
        (ValueError("a"), "ValueError"),
    ],
)
@pytest.mark.parametrize(
    ("place", "path"),
    [
        (lambda part: part, "value"),
        (lambda part: {"a": [1, {}, None, part]}, "value['a'][3]"),
        (lambda part: [{"a": 1}, {"a": part}], "value[1]['a']"),
        (lambda part: ("b", {1: part}), "value[1][1]"),
        (lambda part: {(1, 2): deque([part])}, "value[(1, 2)][0]"),
        (lambda part: OrderedDict(a=part), "value['a']"),
        (lambda part: [2**70, part], "value[1]"),
    ],
)
def test_what_would_change_is_refused(part: Any, kind: str, place: Callable[[Any], Any], path: str) -> None:
    """Never silently another type: the message names the place, the type and what to do."""
    with pytest.raises(Unencodable) as caught:
        CODEC.encode(place(part))
    message = str(caught.value)
    assert message.startswith(f"{path} is of type ")
    assert f"{kind}: declare it with value_type=, or allow signed pickles with pickle_key=" in message
    assert caught.value.code == "UNENCODABLE"
    assert isinstance(caught.value, TypeError)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({Colour.RED: 1}, r"^value\.keys\(\) is of type .*Colour"),
        ({(1, Colour.RED): 1}, r"^value\.keys\(\)\[1\] is of type .*Colour"),
        ([{(1, Colour.RED)}], r"^value\[0\]\[\.\.\.\]\[1\] is of type .*Colour"),
        ([datetime(2025, 1, 1, tzinfo=Strange())], r"^value\[0\]\.tzinfo is of type .*Strange"),
        (time(1, tzinfo=Strange()), r"^value\.tzinfo is of type .*Strange"),
        (Posing(), "^value cannot be encoded: TypeError: unhashable type: 'Equal'"),
        ([Posing()], "^value cannot be encoded: TypeError: unhashable type: 'Equal'"),
        ({"a" * 300: object()}, r"^value\['a+\.\.\.a+'\] is of type object"),
    ],
)
def test_refused_by_place(value: Any, message: str) -> None:
    """Also keys, elements of sets and time zones have a place."""
    with pytest.raises(Unencodable, match=message):
        CODEC.encode(value)


def test_a_zone_without_a_name_is_refused() -> None:
    """It could not be found again."""
    paths = [Path(folder) / "Europe/Berlin" for folder in zoneinfo.TZPATH]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        pytest.skip("the system has no files of time zones: install tzdata")
    with path.open("rb") as file:
        zone = ZoneInfo.from_file(file)
    with pytest.raises(Unencodable, match=r"^value\.tzinfo is a time zone without a name: use ZoneInfo\(name\)"):
        CODEC.encode(datetime(2025, 1, 1, tzinfo=zone))


def nested(depth: int, wrap: Callable[[Any], Any]) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = wrap(value)
    return value


WRAPS: list[Callable[[Any], Any]] = [
    lambda v: [v],
    lambda v: {"a": v},
    lambda v: (v,),
    lambda v: {1: v, (): v},
    lambda v: deque([v]),
]


@pytest.mark.parametrize("wrap", [wrap for wrap in WRAPS if wrap is not WRAPS[3]])
def test_depth(wrap: Callable[[Any], Any]) -> None:
    """A hundred levels come back; more are refused, however many, and never a RecursionError."""
    assert again(nested(100, wrap)) == nested(100, wrap)
    for depth in (102, 500, 5000):
        with pytest.raises(Unencodable, match=r"is inside 100 others, or the value contains itself$"):
            CODEC.encode(nested(depth, wrap))


def test_values_that_contain_themselves_are_refused() -> None:
    """Cycles have no end."""
    items: list[Any] = [1]
    items.append(items)
    table: dict[str, Any] = {}
    table["self"] = (table,)
    for value in (items, table, [table]):
        with pytest.raises(Unencodable, match="contains itself"):
            CODEC.encode(value)


def test_little_stack_is_left() -> None:
    """Where even a flat value needs more frames than there are, that is an Unencodable, too."""

    def at(depth: int) -> Any:
        return at(depth - 1) if depth else CODEC.encode(nested(90, lambda v: (v,)))

    limit = sys.getrecursionlimit()
    frame, used = sys._getframe(), 0
    while frame is not None:
        frame, used = frame.f_back, used + 1  # type: ignore[assignment]
    with pytest.raises(Unencodable, match="RecursionError"):
        at(limit - used - 60)


def test_the_value_is_not_changed() -> None:
    """Encoding only looks."""
    value = {"a": [(1, {2}), 2**70], "b": [{"c": Decimal(1)}]}
    before = repr(value)
    CODEC.encode(value)
    assert repr(value) == before


def test_parts_are_not_shared_with_what_was_encoded() -> None:
    """Each decoding makes new objects."""
    data = CODEC.encode({"a": [1]})
    one, other = CODEC.decode(data), CODEC.decode(data)
    one["a"].append(2)
    assert other == {"a": [1]}


def test_another_process_reads_it() -> None:
    """Nothing depends on the process, such as the seed of hashes."""
    value = {"when": datetime(2025, 1, 1, tzinfo=UTC), "ids": {UUID(int=7), "a"}, "n": (2**70, Decimal("1.0"))}
    code = f"""
import pickle
from otel_perfopt.tiers.codec import Codec
print(Codec().decode({CODEC.encode(value)!r}) == pickle.loads({pickle.dumps(value)!r}))
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "True\n"
