"""Keys of entries as bytes: the same in every process, and the same for two keys if and only if a dict takes them for one.

So 1, 1.0 and True have the same bytes, as have a named tuple and a tuple, and two equal moments in different time zones.
"""

import math
from collections.abc import Callable, Hashable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, Flag
from fractions import Fraction
from hashlib import blake2b
from typing import Any, cast
from uuid import UUID
from zoneinfo import ZoneInfo

from msgspec.msgpack import Encoder, Ext

from otel_perfopt.errors import Unencodable
from otel_perfopt.tiers.errors import Refused, type_name

__all__ = ("MAX_KEY_SIZE", "encode_key")

MAX_KEY_SIZE = 255
"""The most bytes of a key; longer ones become a digest."""

_DIGEST = b"\xc1"  # no msgpack starts with it
_MAX_EXPONENT = 5000
_MICROSECOND = timedelta(microseconds=1)
_PLAIN = frozenset((str, int, bytes, type(None)))

# The codes are in files: a code never gets another meaning.
_INTEGER, _TEXT, _RATIO, _INFINITY, _COMPLEX = 1, 2, 3, 4, 5
_SET, _ENUM, _ID, _DATE, _TIMEDELTA = 6, 7, 8, 9, 10
_LOCAL_TIME, _TIME, _LOCAL_MOMENT, _MOMENT, _UNCLEAR_MOMENT = 11, 12, 13, 14, 15

_encode = Encoder().encode


def encode_key(key: Hashable) -> bytes:
    """Return the bytes of a key, at most `MAX_KEY_SIZE` of them.

    Args:
        key: None, a number, a text, bytes, a date or time, a UUID, a member of an enum, or a tuple or frozenset of such keys.

    Raises:
        Unencodable: other processes would have no equal key, or it equals nothing, such as NaN; the message says which part.

    >>> encode_key(("user", 7)) == encode_key(("user", 7.0))
    True
    >>> encode_key("7") == encode_key(7)
    False
    """
    kind = type(key)
    try:
        if kind is str or kind is int or (kind is tuple and _PLAIN.issuperset(map(type, cast("tuple[Any, ...]", key)))):
            data = _encode(key)
        else:
            data = _encode_any(key)
    except (OverflowError, UnicodeEncodeError):
        data = _encode_any(key)
    return data if len(data) <= MAX_KEY_SIZE else _DIGEST + blake2b(data, digest_size=32).digest()


def _encode_any(key: Any) -> bytes:
    try:
        return _encode(_canonical(key))
    except Refused as refused:
        raise Unencodable(refused.describe("key")) from None
    except Exception as error:
        raise Unencodable(f"key cannot be encoded: {type_name(type(error))}: {error}") from error


def _canonical(key: Any) -> Any:
    """Return what stands for `key` and for everything that equals it; msgspec writes it in one way only."""
    kind = type(key)
    rule = _RULES.get(kind) or _inherited_rule(kind)
    if rule is None:
        raise Refused(f"is of type {type_name(kind)}, which no other process has: make a key of texts, numbers and tuples")
    return rule(key)


def _inherited_rule(kind: type) -> Callable[[Any], Any] | None:
    """Return the rule of the type that `kind` takes its equality from, as named tuples and the members of an IntEnum do."""
    for base in kind.__mro__:
        if base in _RULES and _compares_as(kind, base):
            return _RULES[base]
    if issubclass(kind, Enum) and kind.__eq__ is object.__eq__ and kind.__hash__ is Enum.__hash__:
        return _of_member
    return None


def _compares_as(kind: type, base: type) -> bool:
    return kind.__eq__ is base.__eq__ and kind.__hash__ is base.__hash__


def _extension(code: int, content: Any) -> Ext:
    return Ext(code, _encode(content))


# A subclass may give its conversions another meaning, so all of these call the methods of the type itself.


def _of_text(key: str) -> Any:
    text = str.__str__(key)
    try:
        text.encode()
    except UnicodeEncodeError:
        return Ext(_TEXT, text.encode("utf-8", "surrogatepass"))
    return text


def _of_int(key: int) -> Any:
    number = int.__int__(key)
    if -(2**63) <= number < 2**64:
        return number
    return Ext(_INTEGER, number.to_bytes(number.bit_length() // 8 + 1, signed=True))


def _of_ratio(numerator: int, denominator: int) -> Any:
    if denominator == 1:
        return _of_int(numerator)
    return _extension(_RATIO, [_of_int(numerator), _of_int(denominator)])


def _of_float(key: float) -> Any:
    number = float.__float__(key)
    if math.isinf(number):
        return _extension(_INFINITY, number > 0)
    if math.isnan(number):
        raise Refused("is NaN, which does not even equal itself")
    return _of_ratio(*number.as_integer_ratio())


def _of_decimal(key: Decimal) -> Any:
    _, _, exponent = Decimal.as_tuple(key)
    if isinstance(exponent, str):
        return _of_float(Decimal.__float__(key))
    if Decimal.__eq__(key, 0):
        return 0
    if abs(exponent) > _MAX_EXPONENT:
        raise Refused(f"has the exponent {exponent}, and the limit is {_MAX_EXPONENT}")
    return _of_ratio(*Decimal.as_integer_ratio(key))


def _of_complex(key: complex) -> Any:
    number = complex.__complex__(key)
    real, imaginary = _of_float(number.real), _of_float(number.imag)
    return _extension(_COMPLEX, [real, imaginary]) if number.imag else real


def _of_tuple(key: tuple[Any, ...]) -> Any:
    parts: list[Any] = []
    for part in tuple.__iter__(key):
        try:
            parts.append(_canonical(part))
        except Refused as refused:
            raise refused.inside(f"[{len(parts)}]") from None
    return parts


def _of_frozenset(key: frozenset[Any]) -> Any:
    try:
        return _extension(_SET, sorted(_encode(_canonical(part)) for part in frozenset.__iter__(key)))
    except Refused as refused:
        raise refused.inside("[...]") from None


def _of_member(key: Enum) -> Any:
    # Flags that were combined have no name of their own.
    value = _canonical(key._value_) if isinstance(key, Flag) else key._name_
    return _extension(_ENUM, [_of_text(type_name(type(key))), value])


def _of_time(key: time) -> Any:
    offset = key.replace(fold=0).utcoffset()
    since = timedelta(hours=key.hour, minutes=key.minute, seconds=key.second, microseconds=key.microsecond)
    if offset is None:
        return _extension(_LOCAL_TIME, since // _MICROSECOND)
    return _extension(_TIME, (since - offset) // _MICROSECOND)


def _of_datetime(key: datetime) -> Any:
    early = key.replace(fold=0)
    offset = early.utcoffset()
    local = (early.replace(tzinfo=None) - datetime.min) // _MICROSECOND
    if offset is None:
        return _extension(_LOCAL_MOMENT, local)
    if key.replace(fold=1).utcoffset() == offset:
        return _extension(_MOMENT, local - offset // _MICROSECOND)
    # The clocks are changed here: Python takes it for unequal to every moment of another time zone, and both sides of the
    # change for equal.
    if not isinstance(key.tzinfo, ZoneInfo) or key.tzinfo.key is None:
        raise Refused("is at a change of the clocks, in a time zone without a name: use UTC, or ZoneInfo(name)")
    return _extension(_UNCLEAR_MOMENT, [local, key.tzinfo.key])


_RULES: dict[type, Callable[[Any], Any]] = {
    str: _of_text,
    int: _of_int,
    tuple: _of_tuple,
    type(None): lambda key: key,
    bytes: lambda key: b"".join((key,)),
    float: _of_float,
    Decimal: _of_decimal,
    Fraction: lambda key: _of_ratio(*Fraction.as_integer_ratio(key)),
    complex: _of_complex,
    frozenset: _of_frozenset,
    UUID: lambda key: Ext(_ID, key.bytes),
    date: lambda key: _extension(_DATE, date.toordinal(key)),
    time: _of_time,
    datetime: _of_datetime,
    timedelta: lambda key: _extension(_TIMEDELTA, key // _MICROSECOND),
}
