"""A log record as it is written: plain, and the same for every library that it may come from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

__all__ = ("Failure", "Place", "Record", "Service", "severity_number")


class Failure(NamedTuple):
    """An exception that was logged.

    Attributes:
        type: its class, with its module unless it is built in.
        message: its text.
        stack: the traceback as Python prints it, with those of its causes and of its group.
    """

    type: str
    message: str
    stack: str


class Place(NamedTuple):
    """Where in the source code something was logged."""

    file: str
    line: int
    function: str


class Service(NamedTuple):
    """What logs: the resource of OpenTelemetry, as far as lines show it; None for what is not known."""

    name: str | None = None
    version: str | None = None
    environment: str | None = None
    project: str | None = None  # of Google Cloud


@dataclass(frozen=True, slots=True)
class Record:
    """A record whose texts and values are plain.

    Attributes:
        time: seconds since the epoch.
        level: by the numbers of `logging`.
        level_name: such as ``"WARNING"``.
        logger: its name.
        message: the text.
        attributes: what was logged with it, and what is bound in the context.
        failure: the exception.
        place: where it was logged.
        trace_id: of the current span; 0 for none.
        span_id: the same.
        trace_flags: the same.
    """

    time: float
    level: int
    level_name: str
    logger: str
    message: str
    attributes: Mapping[str, Any] = field(default_factory=dict)
    failure: Failure | None = None
    place: Place | None = None
    trace_id: int = 0
    span_id: int = 0
    trace_flags: int = 0


def severity_number(level: int) -> int:
    """Return OpenTelemetry's severity for a level of `logging`: four of them for each ten.

    >>> [severity_number(level) for level in (5, 10, 20, 25, 30, 40, 50, 70)]
    [4, 5, 9, 12, 13, 17, 21, 24]
    """
    tens, rest = divmod(max(0, min(level, 59)), 10)
    return 1 + 4 * tens + min(rest, 3)
