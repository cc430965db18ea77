"""A report that was saved as JSON, loaded back."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from otel_perfopt.errors import ConfigurationError
from otel_perfopt.report.model import PerformanceReport

__all__ = ("load_report", "parse_report")

MAX_BYTES = 2**28
_SIGNED = ("avg_memory_delta", "memory_deltas")
_MARKS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"\xef\xbb\xbf": "utf-8-sig"}


def load_report(path: str) -> PerformanceReport:
    """Return the report in a JSON file.

    Args:
        path: the file; "-" for the standard input.

    Raises:
        ConfigurationError: there is no such file, or it holds no report; the message says why.
    """
    try:
        if path == "-":
            data = sys.stdin.buffer.read(MAX_BYTES + 1)
        else:
            with Path(path).open("rb") as file:
                data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigurationError(f"cannot read {path!r}: {reason}") from error
    return parse_report(data, source="the standard input" if path == "-" else path)


def parse_report(data: bytes, *, source: str = "the JSON") -> PerformanceReport:
    """Return the report of what `PerformanceReport.to_json` gave; keys of later versions are ignored.

    Args:
        data: UTF-8, or UTF-16 with a byte order mark.
        source: where it comes from, for messages.

    Raises:
        ConfigurationError: it is not the JSON of a report; the message says where it is not.

    >>> parse_report(b'{"summary": {}, "operations": {}, "caches": {}}').summary.total_operations
    0
    """
    if len(data) > MAX_BYTES:
        raise ConfigurationError(f"{source} is larger than {MAX_BYTES // 2**20} MiB: no report is")
    if not data.strip(b"\x00\t\r\n \xef\xbb\xbf\xff\xfe"):
        raise ConfigurationError(f"{source} is empty: save a report with report.to_json()")
    try:
        encoding = next((encoding for mark, encoding in _MARKS.items() if data.startswith(mark)), "utf-8")
        report = msgspec.json.decode(data.decode(encoding), type=PerformanceReport)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"{source} is not a report of otel-perfopt: {error}") from error
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise ConfigurationError(f"{source} is not JSON: {error}") from error
    for key, value in _figures("", report.to_dict()):
        if value < 0 and key not in _SIGNED:
            raise ConfigurationError(f"{source} is not a report of otel-perfopt: `{key}` is {value}, less than zero")
    return report


def _figures(key: str, value: Any) -> Iterator[tuple[str, float]]:
    """Yield every number with the key that it is under."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _figures(name, item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _figures(key, item)
    elif isinstance(value, int | float):
        yield key, value
