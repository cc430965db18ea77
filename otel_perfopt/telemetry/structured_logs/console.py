"""A record for people: the time, the level, the message and the rest, with colours where somebody can see them."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from otel_perfopt.telemetry.structured_logs.record import Record

__all__ = ("to_text",)

_RESET, _DIM, _BOLD = "\x1b[0m", "\x1b[2m", "\x1b[1m"
_COLOURS = ((40, "\x1b[31m"), (30, "\x1b[33m"), (20, "\x1b[32m"), (0, "\x1b[36m"))


def to_text(record: Record, *, colours: bool) -> str:
    """Return a record as one line; a traceback follows on lines of its own, each with a bar before it.

    >>> print(to_text(Record(0.0, 30, "WARNING", "shop", "slow", {"seconds": 2}), colours=False).split(" ", 1)[1])
    WARNING  shop: slow seconds=2
    """

    def paint(colour: str, text: str) -> str:
        return f"{colour}{text}{_RESET}" if colours else text

    clock = datetime.fromtimestamp(record.time).astimezone().strftime("%H:%M:%S.%f")[:-3]
    level = next(colour for least, colour in _COLOURS if record.level >= least or not least)
    words = [
        paint(_DIM, clock),
        paint(level, f"{_visible(record.level_name):8}"),
        f"{paint(_DIM, _visible(record.logger) + ':')} {paint(_BOLD, _visible(record.message))}",
        *(f"{paint(_DIM, _visible(key) + '=')}{_visible(text)}" for key, text in _texts(record.attributes)),
    ]
    if record.trace_id:
        words.append(paint(_DIM, f"trace_id={record.trace_id:032x}"))
    lines = [" ".join(words)]
    if record.failure is not None:
        lines += [f"  {paint(_DIM, '|')} {_visible(line)}" for line in record.failure.stack.splitlines()]
    return "\n".join(lines)


def _texts(attributes: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        (
            key,
            value
            if isinstance(value, str) and value.isprintable() and " " not in value
            else json.dumps(value, ensure_ascii=False),
        )
        for key, value in attributes.items()
    ]


def _visible(text: str) -> str:
    """Return `text` with what would move or colour the terminal escaped."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
