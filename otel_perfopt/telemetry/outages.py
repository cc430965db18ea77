"""Outages of a backend: one warning for all that fails, in place of what the SDK logs for each attempt, signal and batch."""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from otel_perfopt.telemetry import instruments
from otel_perfopt.telemetry.logs import get_logger

__all__ = ("Route", "begins", "ends", "is_on", "keep_quiet", "listen")

SECONDS_BETWEEN_WARNINGS = 60.0
_EXPORTERS = (
    "opentelemetry.exporter.otlp.common.http",
    "opentelemetry.exporter.otlp.proto.grpc.exporter",
    "opentelemetry.exporter.otlp.proto.http._log_exporter",
    "opentelemetry.exporter.otlp.proto.http.metric_exporter",
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "urllib3.connectionpool",
)
_BATCHES = "opentelemetry.sdk._shared_internal"
_QUEUES = {"Span": "traces", "Log": "logs"}  # as the SDK calls them


class Route(NamedTuple):
    """Where a signal goes."""

    signal: str
    target: str


class _Outage:
    """What fails at present."""

    def __init__(self) -> None:
        self._failing: set[Route] = set()
        self._silent_until = 0.0
        self._lock = threading.Lock()

    def is_on(self) -> bool:
        return bool(self._failing)

    def begins(self, route: Route, reason: str) -> None:
        with self._lock:
            is_first = not self._failing and time.monotonic() >= self._silent_until
            self._failing.add(route)
            if is_first:
                self._silent_until = time.monotonic() + SECONDS_BETWEEN_WARNINGS
        if is_first:
            _log("warning", "telemetry cannot be delivered and is dropped", route, reason=reason)

    def ends(self, route: Route) -> None:
        if route not in self._failing:
            return
        with self._lock:
            self._failing.discard(route)
            is_last = not self._failing
        if is_last:
            _listener.hear_again()
            _log("info", "telemetry is delivered again", route)


class _Listener(logging.Filter):
    """Hears what the SDK's exporters and batches log, in place of everybody."""

    def __init__(self) -> None:
        super().__init__()
        self._routes: dict[str, Route] = {}
        self._level: int | None = None

    def add(self, route: Route) -> None:
        self._routes[route.signal] = route

    def hear_again(self) -> None:
        """Let full queues be told of again."""
        if self._level is not None:
            logging.getLogger(_BATCHES).setLevel(self._level)
            self._level = None

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep records of our exports and queues to ourselves."""
        messages: list[str] | None = getattr(_said, "messages", None)
        if messages is not None:
            messages.append(record.getMessage())
            return False
        if not (isinstance(record.msg, str) and record.msg.startswith("Queue full") and isinstance(record.args, tuple)):
            return True
        route = self._routes.get(_QUEUES.get(str(record.args[0]), "")) if record.args else None
        if route is None:
            return True
        begins(route, "the queue is full")
        if self._level is None:
            # Each call that has a span would make a record for nobody until the backend answers.
            self._level = logging.getLogger(_BATCHES).level
            logging.getLogger(_BATCHES).setLevel(logging.ERROR)
        return False


_said = threading.local()
_listener = _Listener()
_outage = _Outage()


def begins(route: Route, reason: str) -> None:
    """Warn, unless it is known that something fails."""
    _outage.begins(route, reason)


def ends(route: Route) -> None:
    """Note that something has arrived."""
    _outage.ends(route)


def is_on() -> bool:
    """Whether something fails at present."""
    return _outage.is_on()


def listen(route: Route) -> None:
    """Turn what the SDK logs about the exporter and the queue of `route` into one warning."""
    _listener.add(route)
    for name in (*_EXPORTERS, _BATCHES):
        logging.getLogger(name).addFilter(_listener)


@contextmanager
def keep_quiet() -> Iterator[list[str]]:
    """Collect what the SDK logs in this thread, instead of letting it be seen."""
    messages: list[str] = []
    _said.messages = messages
    try:
        yield messages
    finally:
        _said.messages = None


def _log(level: str, event: str, route: Route, **more: str) -> None:
    with suppress(Exception):  # the application's logging may fail in its own ways
        getattr(get_logger(), level)(event, signal=route.signal, target=route.target, **more)


def _after_fork() -> None:
    global _outage
    _outage = _Outage()
    _listener.hear_again()


instruments.on_fork(_after_fork)
