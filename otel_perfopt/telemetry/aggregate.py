"""Aggregated events: many of one kind become one event per interval.

Noting one costs its caller a copy of the attributes and a list append. An interval begins with its first event; at its end a
worker thread folds what has come and emits it as one event.
"""

import threading
from collections.abc import Mapping
from functools import partial
from typing import Any

from otel_perfopt._core.windows import Window
from otel_perfopt.durations import Duration, to_seconds
from otel_perfopt.telemetry import background, instruments, names
from otel_perfopt.telemetry.events import emit

__all__ = ("emit_aggregated", "flush_aggregated")

BUFFER = 256
MAX_KEYS = 1000
COMPONENTS = ("cache", "pool", "batch", "operation", "component")


class _Aggregate:
    """The events of one key in the interval that runs."""

    __slots__ = ("_buffer", "_interval", "_lock", "_name", "_scheduled", "_window")

    def __init__(self, name: str, interval: float) -> None:
        self._name = name
        self._interval = interval
        self._buffer: list[Mapping[str, Any]] = []
        self._window = Window()
        self._scheduled = False
        self._lock = threading.RLock()

    def add(self, attributes: Mapping[str, Any]) -> None:
        buffer = self._buffer
        buffer.append(attributes)
        # The flush lowers the flag before it takes the buffer: an event is in this flush or asks for the next.
        if not self._scheduled:
            self._schedule()
        if len(buffer) >= BUFFER and self._lock.acquire(blocking=False):
            try:
                self._fold()
            finally:
                self._lock.release()

    def flush(self) -> None:
        self._scheduled = False
        with self._lock:
            self._fold()
            window, self._window = self._window, Window()
        if window.count:
            emit(self._name, window.attributes())

    def _schedule(self) -> None:
        with self._lock:
            if self._scheduled:
                return
            self._scheduled = True
        background.after(self._interval, partial(background.submit, self.flush))

    def _fold(self) -> None:
        buffer = self._buffer
        events = buffer[:]
        del buffer[: len(events)]
        self._window.fold(events)


_aggregates: dict[tuple[str, str | None], _Aggregate] = {}
_lock = threading.RLock()


def emit_aggregated(
    name: str,
    attributes: Mapping[str, Any] | None = None,
    *,
    aggregation_key: str | None = None,
    aggregation_interval: Duration = 5.0,
) -> None:
    """Note an event; all of one key and interval are emitted as one.

    That event has a ``count``, the attributes that all agree on, and ``{name}.sum``, ``{name}.min`` and ``{name}.max`` of
    each number. What has come until the process exits is emitted then.

    Args:
        name: the name of the event.
        attributes: what is known of it.
        aggregation_key: which events are counted together; by default those of the same component, which is the attribute
            ``cache``, ``pool``, ``batch``, ``operation`` or ``component``. At most 1,000 keys are told apart.
        aggregation_interval: how long to collect, from the first event on; the first one of a key decides.

    >>> from otel_perfopt import subscribe
    >>> emit_aggregated("cart.changed", {"component": "shop", "items": 2})
    >>> with subscribe("cart.changed", lambda event: print(event.attributes["count"])):
    ...     flush_aggregated()
    1
    """
    attributes = dict(attributes) if attributes else {}
    if aggregation_key is None:
        for component in COMPONENTS:
            if component in attributes:
                aggregation_key = str(attributes[component])
                break
    aggregate = _aggregates.get((name, aggregation_key))
    if aggregate is None:
        aggregate = _open(name, aggregation_key, aggregation_interval)
    aggregate.add(attributes)


def flush_aggregated() -> None:
    """Emit now what has come in the intervals that run."""
    with _lock:
        aggregates = list(_aggregates.values())
    for aggregate in aggregates:
        aggregate.flush()


def _open(name: str, key: str | None, interval: Duration) -> _Aggregate:
    seconds = to_seconds(interval, option="aggregation_interval")
    with _lock:
        if len(_aggregates) >= MAX_KEYS and (name, key) not in _aggregates:
            key = names.OTHER
        return _aggregates.setdefault((name, key), _Aggregate(name, seconds))


def _after_fork() -> None:
    """What the parent has collected is the parent's to emit."""
    global _lock
    _lock = threading.RLock()
    _aggregates.clear()


instruments.on_fork(_after_fork)
