"""Values of a declared type, as the builtin types that they consist of, and back; msgspec knows how."""

import dataclasses
import re
import reprlib
from collections.abc import Collection, Iterable, Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any
from uuid import UUID

import msgspec

from otel_perfopt.errors import ConfigurationError, Unencodable
from otel_perfopt.tiers.errors import Refused, type_name

__all__ = ("ValueType",)

_KEPT = (bytes, bytearray, date, datetime, time, timedelta, Decimal, UUID)
_LEAVES = frozenset((type(None), bool, int, float, str, *_KEPT))


class ValueType:
    """The declared type of the values of a cache.

    Args:
        declared: whatever msgspec can convert to: a dataclass, a Struct, an enum, a TypedDict, `list[User]`, `User | None`.

    Raises:
        ConfigurationError: msgspec cannot convert to it, or to a part of it.

    Attributes:
        name: the same in every process.

    >>> ValueType(dict[str, Decimal]).name
    'dict[str, decimal.Decimal]'
    """

    def __init__(self, declared: Any) -> None:
        self.name = type_name(declared) if isinstance(declared, type) and not hasattr(declared, "__origin__") else repr(declared)
        self.name = re.sub(r" at 0x[0-9a-fA-F]+", "", self.name)
        self._declared = declared
        try:
            unknown = next(_unknown(msgspec.inspect.type_info(declared), set()), None)
        except Exception as error:
            raise ConfigurationError(f"value_type={self.name} cannot be converted by msgspec: {error}") from error
        if unknown is not None:
            raise ConfigurationError(
                f"value_type={self.name} has {type_name(unknown)} in it, which msgspec cannot make: use dataclasses, Structs, "
                "enums and builtin types, or leave value_type out and allow signed pickles with pickle_key="
            )

    def to_builtins(self, value: object) -> Any:
        """Return what `value` consists of.

        Raises:
            Unencodable: `value` is not of this type, so that something else would come back.
        """
        try:
            builtins = msgspec.to_builtins(value, builtin_types=_KEPT)
            _compare_parts([value], [self.from_builtins(builtins)], "", [None])
        except Refused as refused:
            problem = refused.describe("value")
        except Exception as error:  # noqa: BLE001 - the methods of a type may raise anything
            problem = str(error).replace("`$", "`value") or type_name(type(error))
        else:
            return builtins
        raise Unencodable(f"{problem}: it is not as value_type={self.name} says")

    def from_builtins(self, builtins: Any) -> Any:
        """Return the value that consists of `builtins`.

        Raises:
            ValidationError: there is no such value.
        """
        return msgspec.convert(builtins, self._declared, builtin_types=_KEPT)


def _unknown(info: Any, seen: set[int]) -> Iterator[type]:
    """Yield the classes inside a type that msgspec leaves to hooks."""
    if isinstance(info, tuple):
        for item in info:
            yield from _unknown(item, seen)
    elif isinstance(info, msgspec.inspect.CustomType):
        yield info.cls
    elif isinstance(info, msgspec.inspect.Type | msgspec.inspect.Field) and id(info) not in seen:
        seen.add(id(info))
        for name in info.__struct_fields__:
            yield from _unknown(getattr(info, name), seen)


def _compare(value: Any, back: Any) -> None:
    """Refuse a value for which another would come back; equality alone would let 1 pass for True, and a subclass for its base."""
    kind, other_kind = type(value), type(back)
    if kind is not other_kind:
        # An integer may stand where a float is declared, as for every type checker.
        if kind is int and other_kind is float and value == back:
            return
        raise Refused(f"is of type {type_name(kind)} and would come back as {type_name(other_kind)}")
    if kind in _LEAVES:
        if value != back:
            raise Refused(f"would come back as {reprlib.repr(back)}")
    elif isinstance(value, list | tuple):
        _compare_parts(value, back, "[{}]", range(len(value)))
    elif isinstance(value, dict):
        _compare_parts(value, back, ".keys()", value)
        _compare_parts(value.values(), back.values(), "[{!r}]", value)
    elif isinstance(value, set | frozenset):
        found = {part: part for part in back}
        _compare_parts(value, [found.get(part) for part in value], "[...]", value)
    else:
        names = _fields(kind)  # type: ignore[arg-type] # a class is hashable
        _compare_parts([getattr(value, name) for name in names], [getattr(back, name) for name in names], ".{}", names)


def _compare_parts(parts: Collection[Any], others: Collection[Any], step: str, places: Iterable[Any]) -> None:
    """Compare the parts of two values side by side; `step` says how to get to the part at one of the `places`."""
    if len(parts) != len(others):
        raise Refused(f"has {len(parts)} parts, and would come back with {len(others)}")
    for part, other, place in zip(parts, others, places, strict=True):
        if part is not other:
            try:
                _compare(part, other)
            except Refused as refused:
                raise refused.inside(step.format(place)) from None


@lru_cache(maxsize=1000)
def _fields(kind: type) -> tuple[str, ...]:
    """Return the names of the fields that a class declares."""
    if issubclass(kind, msgspec.Struct):
        return kind.__struct_fields__
    if dataclasses.is_dataclass(kind):
        return tuple(field.name for field in dataclasses.fields(kind))
    return tuple(field.name for field in kind.__attrs_attrs__)  # type: ignore[attr-defined]
