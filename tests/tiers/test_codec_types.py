"""Values of a declared type: they come back as declared, and what is not as declared is refused."""

import dataclasses
import enum
import math
from datetime import date, datetime, timedelta
from decimal import Decimal
from types import SimpleNamespace
from typing import Annotated, Any, NamedTuple, Optional, TypedDict
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_perfopt.errors import ConfigurationError, Undecodable, Unencodable
from otel_perfopt.tiers.codec import Codec

BERLIN = ZoneInfo("Europe/Berlin")


class Role(enum.Enum):
    ADMIN = "admin"
    GUEST = "guest"


class Level(enum.IntEnum):
    LOW = 1


class Rights(enum.Flag):
    READ = 1
    WRITE = 2


class Place(NamedTuple):
    x: int
    name: str


class Options(TypedDict, total=False):
    colour: str
    size: int


@dataclasses.dataclass
class User:
    id: int
    name: str
    role: Role = Role.GUEST
    score: float = 0.0
    born: date | None = None
    tags: tuple[str, ...] = ()
    groups: frozenset[int] = frozenset()
    friends: "list[User]" = dataclasses.field(default_factory=list)
    extra: Any = None


@dataclasses.dataclass
class Admin(User):
    key: str = ""


class Order(msgspec.Struct, kw_only=True, omit_defaults=True):
    id: UUID
    total: Decimal
    at: datetime
    wait: timedelta = timedelta()
    lines: list[tuple[str, int]] = []
    prices: dict[int, Decimal] = {}
    note: str | msgspec.UnsetType = msgspec.UNSET


class Silent:
    """Without equality of its own."""


@dataclasses.dataclass(eq=False)
class Plain:
    x: int


@dataclasses.dataclass
class Loud:
    """Is something else once it was made again."""

    x: int

    def __post_init__(self) -> None:
        self.x += 1


ORDER = Order(
    id=uuid4(),
    total=Decimal("1.10"),
    at=datetime(2025, 10, 26, 2, 30, fold=1, tzinfo=BERLIN),
    lines=[("a", 2**70)],
    prices={1: Decimal(2)},
)
FRIEND = User(
    1, "a", Role.ADMIN, math.inf, date(2000, 1, 1), ("x",), frozenset({2**70}), extra={"d": Decimal("1.0"), "t": (1, UUID(int=1))}
)


@pytest.mark.parametrize(
    ("declared", "value"),
    [
        (User, User(1, "a")),
        (User, dataclasses.replace(FRIEND, friends=[FRIEND, User(2, "\ud800")])),
        (list[User], [FRIEND]),
        (dict[str, User], {"a": FRIEND}),
        (dict[UUID, User], {UUID(int=3): FRIEND}),
        (User | None, None),
        (Optional[User], FRIEND),  # noqa: UP045
        (Order, ORDER),
        (tuple[Order, ...], (ORDER, ORDER)),
        (Role, Role.ADMIN),
        (Level, Level.LOW),
        (Rights, Rights.READ | Rights.WRITE),
        (dict[Role, set[Level]], {Role.GUEST: {Level.LOW}}),
        (Place, Place(1, "a")),
        (Options, {"colour": "red"}),
        (list[Any], [1, (2, b"3"), [None]]),
        (set[tuple[int, str]], {(1, "a")}),
        (float, -0.0),
        (bytearray, bytearray(b"a")),
        (Annotated[int, msgspec.Meta(gt=0)], 5),
        (int, 2**100),
        (Admin, Admin(1, "a", key="k")),
    ],
    ids=str,
)
def test_what_is_as_declared_comes_back(declared: Any, value: Any) -> None:
    """Equal, and of the same type; for times the zone, for decimals the digits are the same."""
    codec: Codec[Any] = Codec(declared)
    back = codec.decode(codec.encode(value))
    assert back == value
    assert type(back) is type(value)
    assert repr(back) == repr(value)


def test_equality_is_not_needed() -> None:
    """A class may compare by identity."""
    codec = Codec(list[Plain])
    back = codec.decode(codec.encode([Plain(1), Plain(2)]))
    assert [(type(item), item.x) for item in back] == [(Plain, 1), (Plain, 2)]


def test_not_a_number() -> None:
    """NaN is not equal to itself, and comes back."""
    codec = Codec(dict[str, float])
    assert math.isnan(codec.decode(codec.encode({"a": math.nan}))["a"])


def test_an_integer_may_stand_for_a_float() -> None:
    """It comes back as it was declared, if it is the same number."""
    codec = Codec(User)
    back = codec.decode(codec.encode(User(1, "a", score=3)))
    assert (back.score, type(back.score)) == (3.0, float)
    with pytest.raises(Unencodable, match=r"^value\.score is of type int and would come back as float"):
        codec.encode(User(1, "a", score=2**53 + 1))


class Text(str):
    __slots__ = ()


@pytest.mark.parametrize(
    ("declared", "value", "message"),
    [
        (User, None, "Expected `object`, got `null`"),
        (User, {"id": 1, "name": "a"}, r"value is of type dict and would come back as .*\.User"),
        (User, Admin(1, "a"), r"value is of type .*\.Admin and would come back as .*\.User"),
        (User, User("1", "a"), "Expected `int`, got `str` - at `value.id`"),  # type: ignore[arg-type]
        (User, User(True, "a"), "Expected `int`, got `bool` - at `value.id`"),
        (User, User(Level.LOW, "a"), r"value\.id is of type .*\.Level and would come back as int"),
        (User, User(1, Text("a")), "Encoding objects of type Text is unsupported"),
        (User, User(1, "a", tags=["x"]), r"value\.tags is of type list and would come back as tuple"),  # type: ignore[arg-type]
        (User, User(1, "a", friends=[User(1, "a"), Admin(1, "b")]), r"value\.friends\[1\] is of type .*\.Admin"),
        (User, User(1, "a", extra={"x": {1}}), r"value\.extra\['x'\] is of type set and would come back as list"),
        (User, User(1, "a", extra=[Role.GUEST]), r"value\.extra\[0\] is of type .*\.Role and would come back as str"),
        (User, User(1, "a", extra=Silent()), ".*Silent"),
        (User, User(1, "a", extra=1j), ".*complex"),
        (list[Order], [ORDER, 1], r"Expected `object`, got `int` - at `value\[1\]`"),
        (dict[str, int], {1: 1}, "Expected `str`, got `int`"),
        (dict[int, int], {Level.LOW: 1}, r"value\.keys\(\) is of type .*\.Level and would come back as int"),
        (set[int], {Level.LOW}, r"value\[\.\.\.\] is of type .*\.Level and would come back as int"),
        (Options, {"colour": "red", "other": 1}, "value has 2 parts, and would come back with 1"),
        (Loud, Loud(1), r"value\.x would come back as 3"),
        (Annotated[int, msgspec.Meta(gt=0)], 0, "Expected `int` >= 1"),
    ],
)
def test_what_is_not_as_declared_is_refused(declared: Any, value: Any, message: str) -> None:
    """Never silently something else: the message names the place and the declared type."""
    codec: Codec[Any] = Codec(declared)
    with pytest.raises(Unencodable, match=rf"^{message}.*: it is not as value_type=.* says$"):
        codec.encode(value)


def test_a_cycle_is_refused() -> None:
    """A user who is their own friend has no end."""
    user = User(1, "a")
    user.friends.append(user)
    with pytest.raises(Unencodable):
        Codec(User).encode(user)


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        (Silent, r"value_type=.*\.Silent has .*\.Silent in it, which msgspec cannot make: .* pickle_key="),
        (list[Silent], r"value_type=list\[.*\] has .*\.Silent in it"),
        (dict[str, tuple[int, Silent]], r"has .*\.Silent in it"),
        (complex, "value_type=complex has complex in it"),
        (User | Plain, "more than one dataclass"),
        (enum.Enum("Mixed", {"A": 1, "B": "b"}), "Enums must contain either all str or all int"),
        ("User", "value_type='User' cannot be converted by msgspec"),
        (5, "value_type=5 cannot be converted by msgspec"),
        (list["Nowhere"], "Nowhere"),  # type: ignore[name-defined] # noqa: F821
    ],
)
def test_types_that_cannot_be(declared: Any, message: str) -> None:
    """They are refused at once, and the message says why."""
    with pytest.raises(ConfigurationError, match=message):
        Codec(declared)


@pytest.mark.parametrize("declared", [None, Any, object])
def test_no_type_is_any_type_of_the_library(declared: Any) -> None:
    """To say nothing, and to say that it may be anything, are the same."""
    assert Codec(declared).decode(Codec().encode((1,))) == (1,)


def test_another_type_is_a_miss() -> None:
    """A file with the values of another type, or of none, gives no value."""
    data = Codec(User).encode(User(1, "a"))
    for other in (Codec(), Codec(Admin), Codec(list[User]), Codec(User | None)):
        with pytest.raises(Undecodable, match="value_type") as caught:
            other.decode(data)
        assert caught.value.reason == "type"


def test_a_type_that_changed_is_a_miss() -> None:
    """A field that is new and has no default cannot be made up."""

    def declare(**fields: Any) -> Any:
        return dataclasses.make_dataclass("Row", list(fields.items()), namespace={"__module__": "app"})

    before, after, widened = declare(a=int), declare(a=int, b=str), declare(a=int | None)
    data = Codec(before).encode(before(1))
    with pytest.raises(Undecodable, match="missing required field `b`") as caught:
        Codec(after).decode(data)
    assert caught.value.reason == "type"
    assert Codec(widened).decode(data) == widened(1)


def test_the_name_of_a_type_does_not_depend_on_the_process() -> None:
    """An address in the representation of a type is left out."""

    def codec() -> Codec[int]:
        return Codec(Annotated[int, SimpleNamespace(mark=Silent())])

    assert codec().decode(codec().encode(1)) == 1


@given(
    st.lists(
        st.builds(
            User,
            st.integers(),
            st.text(),
            st.sampled_from(Role),
            st.floats(allow_nan=False),
            st.dates() | st.none(),
            st.lists(st.text()).map(tuple),
        )
    )
)
def test_users_come_back(users: list[User]) -> None:
    """Any number of them."""
    codec = Codec(list[User])
    assert codec.decode(codec.encode(users)) == users
