"""Values as msgpack, with an extension code for each type of the standard library that msgpack does not have.

What is packed comes back equal and of the same type, all the way down, or is refused. No bytes can name a class or a function.
"""

import reprlib
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from itertools import chain
from operator import index
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

from msgspec.msgpack import Decoder, Encoder, Ext

from otel_perfopt.errors import Unencodable
from otel_perfopt.tiers.errors import Refused, type_name

__all__ = ("MAX_DEPTH", "pack", "unpack")

MAX_DEPTH = 100
"""How many containers may stand in each other."""

_PLAIN = frozenset((type(None), bool, int, float, str, bytes))
_ALWAYS_PLAIN = _PLAIN - {int, str}  # msgpack's integers have 64 bits, and its text is UTF-8
_DICT = frozenset((dict,))


class _Shape(NamedTuple):
    """How values of a type are taken apart, and put together from the same parts."""

    code: int
    parts: Callable[[Any], Iterable[Any]]
    build: Callable[[list[Any]], Any]


def _pairs(parts: list[Any]) -> Iterator[tuple[Any, Any]]:
    flat = iter(parts)
    return zip(flat, flat, strict=True)


def _flat(mapping: dict[Any, Any]) -> Iterable[Any]:
    return chain.from_iterable(mapping.items())


def _of_datetime(value: datetime) -> Iterable[Any]:
    return value.replace(tzinfo=None).isoformat(), value.fold, value.tzinfo


def _of_time(value: time) -> Iterable[Any]:
    return value.replace(tzinfo=None).isoformat(), value.fold, value.tzinfo


def _of_timezone(value: timezone) -> Iterable[Any]:
    offset, name = value.utcoffset(None), value.tzname(None)
    return offset, None if name == timezone(offset).tzname(None) else name


def _of_zone(value: ZoneInfo) -> Iterable[Any]:
    if value.key is None:
        raise Refused("is a time zone without a name: use ZoneInfo(name)")
    return (value.key,)


def _to_timezone(parts: list[Any]) -> timezone:
    offset, name = parts
    return timezone(offset) if name is None else timezone(offset, name)


# The codes are in files: a code never gets another meaning, and a new type gets a new one. Builders see parts that somebody
# may have made up: none of them may take a number for a size, or a text for a number with an exponent.
_SHAPES: dict[type, _Shape] = {
    tuple: _Shape(1, iter, tuple),
    set: _Shape(2, iter, set),
    frozenset: _Shape(3, iter, frozenset),
    dict: _Shape(4, _flat, lambda parts: dict(_pairs(parts))),
    OrderedDict: _Shape(5, _flat, lambda parts: OrderedDict(_pairs(parts))),
    Counter: _Shape(6, _flat, lambda parts: Counter(dict(_pairs(parts)))),
    deque: _Shape(7, lambda value: (*value, value.maxlen), lambda parts: deque(parts[:-1], parts[-1])),
    int: _Shape(
        8,
        lambda value: (value.to_bytes(value.bit_length() // 8 + 1, signed=True),),
        lambda parts: int.from_bytes(parts[0], signed=True),
    ),
    str: _Shape(
        9, lambda value: (value.encode("utf-8", "surrogatepass"),), lambda parts: parts[0].decode("utf-8", "surrogatepass")
    ),
    bytearray: _Shape(10, lambda value: (bytes(value),), lambda parts: bytearray(memoryview(parts[0]))),
    complex: _Shape(11, lambda value: (value.real, value.imag), lambda parts: complex(*parts)),
    Decimal: _Shape(12, lambda value: (str(value),), lambda parts: Decimal(parts[0])),
    Fraction: _Shape(13, lambda value: (value.numerator, value.denominator), lambda parts: Fraction(*map(index, parts))),
    UUID: _Shape(14, lambda value: (value.bytes,), lambda parts: UUID(bytes=parts[0])),
    datetime: _Shape(15, _of_datetime, lambda parts: datetime.fromisoformat(parts[0]).replace(fold=parts[1], tzinfo=parts[2])),
    date: _Shape(16, lambda value: (value.isoformat(),), lambda parts: date.fromisoformat(parts[0])),
    time: _Shape(17, _of_time, lambda parts: time.fromisoformat(parts[0]).replace(fold=parts[1], tzinfo=parts[2])),
    timedelta: _Shape(18, lambda value: (value.days, value.seconds, value.microseconds), lambda parts: timedelta(*parts)),
    timezone: _Shape(19, _of_timezone, _to_timezone),
    ZoneInfo: _Shape(20, _of_zone, lambda parts: ZoneInfo(*parts)),
}
_BUILDERS = {shape.code: shape.build for shape in _SHAPES.values()}

_encode = Encoder().encode


def pack(value: object) -> bytes:
    """Return `value` as msgpack.

    Raises:
        Unencodable: it would not come back equal and of the same type; the message says which part, and what to do.

    >>> unpack(pack({1: ("a", {b"b"})}))
    {1: ('a', {b'b'})}
    """
    try:
        try:
            return _encode(_native(value, _PLAIN, 0))
        except (OverflowError, UnicodeEncodeError):
            # Looking at every number and every text costs more than most values take.
            return _encode(_native(value, _ALWAYS_PLAIN, 0))
    except Refused as refused:
        raise Unencodable(refused.describe("value")) from None
    except Exception as error:
        raise Unencodable(f"value cannot be encoded: {type_name(type(error))}: {error}") from error


def unpack(data: bytes | memoryview) -> Any:
    """Return the value that was packed.

    Raises:
        Exception: of any type, if these are not the bytes of a packed value.
    """
    return _decode(data)


def _unpack_extension(code: int, data: memoryview) -> Any:
    return _BUILDERS[code](_decode(data))


_decode = Decoder(ext_hook=_unpack_extension).decode


def _native(value: Any, plain: frozenset[type], depth: int) -> Any:
    """Return what msgspec writes in the place of `value`: `value` itself where nothing in it is special."""
    kind = type(value)
    if kind in plain:
        return value
    if kind is list:
        if plain.issuperset(map(type, value)) or (plain is _PLAIN and _are_plain_rows(value)):
            return value
        return _native_parts(value, value, plain, depth)
    if kind is dict and plain is _PLAIN and plain.issuperset(map(type, value)):
        values = value.values()
        return value if plain.issuperset(map(type, values)) else _native_values(value, plain, depth)
    if _is_native(kind, value):
        return value
    shape = _SHAPES.get(kind)
    if shape is None:
        raise Refused(f"is of type {type_name(kind)}: declare it with value_type=, or allow signed pickles with pickle_key=")
    return Ext(shape.code, _encode(_native_parts(value, shape.parts(value), plain, depth)))


def _are_plain_rows(items: list[Any]) -> bool:
    """Whether these are dicts of plain values; what a query returns is seen through without a loop in Python."""
    if not _DICT.issuperset(map(type, items)):
        return False
    keys, values = chain.from_iterable(items), chain.from_iterable(map(dict.values, items))
    return _PLAIN.issuperset(map(type, keys)) and _PLAIN.issuperset(map(type, values))


def _is_native(kind: type, value: Any) -> bool:
    """Whether msgpack has this value of a type of which it does not have all."""
    if kind is datetime:
        return value.tzinfo is UTC and value.fold == 0
    if kind is int:
        return bool(-(2**63) <= value < 2**64)
    return kind is str and _is_utf8(value)


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _native_values(mapping: dict[Any, Any], plain: frozenset[type], depth: int) -> dict[Any, Any]:
    if depth >= MAX_DEPTH:
        raise _too_deep()
    native: dict[Any, Any] = {}
    for key, value in mapping.items():
        try:
            native[key] = _native(value, plain, depth + 1)
        except Refused as refused:
            raise refused.inside(f"[{reprlib.repr(key)}]") from None
    return native


def _native_parts(whole: Any, parts: Iterable[Any], plain: frozenset[type], depth: int) -> list[Any]:
    if depth >= MAX_DEPTH:
        raise _too_deep()
    native: list[Any] = []
    for part in parts:
        try:
            native.append(_native(part, plain, depth + 1))
        except Refused as refused:
            raise refused.inside(_step(whole, len(native))) from None
    return native


def _too_deep() -> Refused:
    return Refused(f"is inside {MAX_DEPTH} others, or the value contains itself")


def _step(whole: Any, position: int) -> str:
    """Return how to get from `whole` to the part at `position` among its parts."""
    if isinstance(whole, dict):
        return f"[{reprlib.repr(list(whole)[position // 2])}]" if position % 2 else ".keys()"
    if isinstance(whole, datetime | time):
        return ".tzinfo"
    return "[...]" if isinstance(whole, set | frozenset) else f"[{position}]"
