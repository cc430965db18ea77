"""Any value as what JSON has: texts, numbers, lists and dicts of moderate size, in which the secrets are masked.

Values are the application's: their methods may raise, and may never come to an end of themselves. Nothing here raises for it.
"""

import dataclasses
import datetime as dt
import decimal
import enum
import math
import pathlib
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Mapping, ValuesView
from collections.abc import Set as AbstractSet
from itertools import islice
from typing import Any

from otel_perfopt.telemetry.structured_logs.masking import MASK

__all__ = ("MORE", "Plain", "clean", "free_key", "read", "shorten")

MORE = "…"
MAX_DEPTH = 8
MAX_FIELDS = 100
MAX_KEY = 128
_COST = 8  # what a value costs beside its characters; so many short ones are as dear as a long one
_LARGEST = 2**63
_AS_TEXT = (dt.date, dt.time, dt.timedelta, decimal.Decimal, enum.Enum, pathlib.PurePath, uuid.UUID)


def clean(text: str) -> str:
    r"""Return `text` with what has no place in a text escaped: lone surrogates, and NUL, at which many programs stop reading.

    >>> print(clean("a\0b \udcff caf\xe9"))
    a\x00b \udcff café
    """
    if not text.isascii():
        text = text.encode("utf-8", "backslashreplace").decode()
    return text.replace("\0", "\\x00")


def shorten(text: str, limit: int) -> str:
    """Return `text` without its middle, with its length there, if it is longer than `limit`.

    >>> shorten("a" * 50 + "b" * 50, 8)
    'aaaaaa…[100 characters]…bb'
    """
    if len(text) <= limit:
        return text
    tail = limit // 4
    return f"{text[: limit - tail]}{MORE}[{len(text):,} characters]{MORE}{text[len(text) - tail :]}"


def read(show: Callable[[], str], kind: str) -> str:
    """Return a text that the application makes, or that it cannot be had."""
    try:
        return str.__str__(show())
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # noqa: BLE001 - what is logged never raises into whoever logs
        return f"({kind} that cannot be shown: {type(error).__name__})"


def free_key(key: str, taken: Mapping[str, Any]) -> str:
    """Return `key` with as many underscores behind it as make it differ from those that are taken."""
    while key in taken:
        key += "_"
    return key


class Plain:
    r"""Makes values plain.

    Args:
        is_secret: whether the value of a key is to be masked.
        max_length: the most characters of one value, a container with all that is in it included.

    >>> plain = Plain(lambda key: key == "password", 64)
    >>> plain.fields({"user": {"id": 7, "password": "hunter2"}, "ratio": float("nan"), 3: b"\xff"})
    {'user': {'id': 7, 'password': '***'}, 'ratio': 'nan', '3': '\\xff'}
    """

    def __init__(self, is_secret: Callable[[str], bool], max_length: int) -> None:
        self._is_secret = is_secret
        self._max_length = max_length

    def text(self, text: str) -> str:
        """Return a text that is not too long, and fit for JSON."""
        return clean(shorten(text, self._max_length))

    def fields(self, fields: Mapping[Any, Any]) -> dict[str, Any]:
        """Return the fields of a record, each within the limit of its own."""
        found: dict[str, Any] = {}
        for key, value in islice(fields.items(), MAX_FIELDS):
            name = _key(key)
            found[free_key(_short(name), found)] = MASK if value is not None and self._is_secret(name) else self.value(value)
        if len(fields) > MAX_FIELDS:
            found[free_key(MORE, found)] = _more(len(fields) - MAX_FIELDS)
        return found

    def value(self, value: Any) -> Any:
        """Return a plain value."""
        return _Walk(self._is_secret, self._max_length).plain(value, 0)


class _Walk:
    """The way through one value, which ends when there is nothing left of its limit."""

    def __init__(self, is_secret: Callable[[str], bool], limit: int) -> None:
        self._is_secret = is_secret
        self._left = limit

    def plain(self, value: Any, depth: int) -> Any:
        try:
            return self._plain(value, depth)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001 - whatever a value does when it is looked at
            return f"({type(value).__name__} that cannot be shown: {type(error).__name__})"

    def _plain(self, value: Any, depth: int) -> Any:
        self._left -= _COST
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str) and not isinstance(value, enum.Enum):
            return self._text(str.__str__(value))
        if isinstance(value, int | float) and not isinstance(value, enum.Enum):
            return self._number(value)
        if isinstance(value, bytes | bytearray | memoryview):
            return self._text(bytes(value).decode("utf-8", "backslashreplace"))
        fields = _fields(value)
        if fields is not None or isinstance(value, list | tuple | AbstractSet | deque | ValuesView):
            return self._container(value, fields, depth)
        return self._text(str(value) if isinstance(value, _AS_TEXT) else repr(value))

    def _container(self, value: Any, fields: Mapping[Any, Any] | None, depth: int) -> Any:
        if depth == MAX_DEPTH or self._left <= 0:
            return MORE
        return self._list(value, depth) if fields is None else self._dict(fields, depth)

    def _text(self, text: str) -> str:
        short = shorten(text, max(0, self._left + _COST))
        self._left -= len(short)
        return clean(short)

    def _number(self, number: float) -> Any:
        if isinstance(number, int):
            # OTLP and most stores have 64 bits.
            return int(number) if -_LARGEST <= number < _LARGEST else self._text(int.__repr__(number))
        return float(number) if math.isfinite(number) else float.__repr__(number)

    def _dict(self, fields: Mapping[Any, Any], depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        done = 0
        for key, value in self._affordable(fields.items()):
            name = _key(key)
            short = free_key(_short(name), found)
            self._left -= len(short)
            found[short] = MASK if value is not None and self._is_secret(name) else self.plain(value, depth + 1)
            done += 1
            if self._left <= 0:
                break
        if len(fields) > done:
            found[free_key(MORE, found)] = _more(len(fields) - done)
        return found

    def _list(self, values: Any, depth: int) -> list[Any]:
        if len(values) == 2 and isinstance(values, list | tuple) and self._is_named_secret(values[0]):
            return [self.plain(values[0], depth + 1), MASK]  # a header, as many libraries have it
        found = []
        for value in self._affordable(values):
            found.append(self.plain(value, depth + 1))
            if self._left <= 0:
                break
        if len(values) > len(found):
            found.append(f"{MORE} {_more(len(values) - len(found))}")
        return found

    def _affordable(self, items: Iterable[Any]) -> Iterable[Any]:
        # A copy, made in one go: other threads may change the container meanwhile.
        return tuple(islice(items, max(0, self._left) // _COST + 1))

    def _is_named_secret(self, name: Any) -> bool:
        return isinstance(name, str | bytes) and self._is_secret(_key(name))


def _fields(value: Any) -> Mapping[Any, Any] | None:
    """Return what has names in a value."""
    if isinstance(value, Mapping):
        return value
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return dict(zip(value._fields, value, strict=False))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name, MORE) for field in dataclasses.fields(value) if field.repr}
    return None


def _key(key: Any) -> str:
    if isinstance(key, str):
        return str.__str__(key)
    if isinstance(key, bytes):
        return key.decode("utf-8", "backslashreplace")
    return read(lambda: repr(key), type(key).__name__)


def _short(key: str) -> str:
    return clean(shorten(key, MAX_KEY)) or "_"  # OpenTelemetry drops a key that is empty, with a warning


def _more(number: int) -> str:
    return f"{number:,} more"
