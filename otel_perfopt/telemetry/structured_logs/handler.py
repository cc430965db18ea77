"""The handler: each record becomes one line and one log record of OpenTelemetry, and nothing of that reaches who has logged."""

import logging
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple, TextIO

from otel_perfopt.telemetry import background, clocks, instruments
from otel_perfopt.telemetry.clocks import Clock
from otel_perfopt.telemetry.structured_logs.collecting import EVENT, collect, identity_of
from otel_perfopt.telemetry.structured_logs.console import to_text
from otel_perfopt.telemetry.structured_logs.masking import SECRETS, Secrets
from otel_perfopt.telemetry.structured_logs.options import LogOptions
from otel_perfopt.telemetry.structured_logs.otlp import Outlet
from otel_perfopt.telemetry.structured_logs.plain import Plain
from otel_perfopt.telemetry.structured_logs.presets import LINES, to_json
from otel_perfopt.telemetry.structured_logs.record import Record, Service
from otel_perfopt.telemetry.structured_logs.repeats import Repeats

__all__ = ("LineHandler",)

MAX_DEPTH = 3
_MAX_TEXT = 1000

_depth = threading.local()


class _Repeated(NamedTuple):
    """What two warnings have in common that are the same; the hash tells texts apart that differ behind their beginning."""

    logger: str
    level: int
    level_name: str
    text: str
    hash: int


class LineHandler(logging.Handler):
    """Writes records in the fields of a preset, and hands them to OpenTelemetry.

    What an application's objects do when they are shown happens without a lock; a line is written in one call, under the lock.

    Args:
        options: how.
        service: what logs.
        bound: returns what is bound in the current context, for every record.
        clock: tells the time in seconds, for the limit on repetitions.
    """

    def __init__(
        self,
        options: LogOptions,
        service: Service,
        *,
        bound: Callable[[], Mapping[str, Any]] = dict,
        clock: Clock = time.monotonic,
    ) -> None:
        super().__init__()
        self._options = options
        self._service = service
        self._bound = bound
        self._clock = clock
        secrets = Secrets(() if options.secrets is None else (*SECRETS, *options.secrets))
        self._plain = Plain(secrets.has, options.max_length)
        self._outlet = Outlet() if options.otlp else None
        self.start_again()
        _handlers.add(self)

    def start_again(self) -> None:
        """Forget what was told, in a forked child."""
        self._repeats = Repeats[_Repeated](self._options.repeat_limit or 0, self._options.seconds)
        self._is_waiting = False

    def handle(self, record: logging.LogRecord) -> bool:
        """Write a record, unless it was told often enough; never raises for it."""
        depth = getattr(_depth, "now", 0)
        if depth >= MAX_DEPTH or (depth and _is_of_export(record)):  # showing a value logs the value, and so on
            return False
        _depth.now = depth + 1
        try:
            return self._handle(record, self._outlet if depth == 0 else None)
        except Exception as error:  # noqa: BLE001 - logging never raises into user code
            self._write(Record(time.time(), logging.ERROR, "ERROR", __name__, f"a record is lost: {type(error).__name__}"))
            return False
        finally:
            _depth.now = depth

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record."""
        self.handle(record)

    def tell_suppressed(self, *, everything: bool = False) -> None:
        """Write how often warnings were suppressed in intervals that are over; with `everything` also in those that run."""
        now = self._clock()
        self.acquire()
        try:
            if everything:
                self._repeats.close_all()
            else:
                self._repeats.close(now)
            told = list(self._repeats.suppressed())
        finally:
            self.release()
        for (logger, level, level_name, text, _), count in told:
            clean = self._plain.text
            facts = {"suppressed": count}
            self._tell(Record(time.time(), level, clean(level_name), clean(logger), clean(text), facts), self._outlet)

    def _handle(self, record: logging.LogRecord, outlet: Outlet | None) -> bool:
        kept = self.filter(record)
        if not kept:
            return False
        record = kept if isinstance(kept, logging.LogRecord) else record  # since Python 3.12 a filter may replace it
        if not self._admits(record):
            return False
        self._tell(collect(record, self._bound(), self._plain), outlet, is_from_structlog=hasattr(record, EVENT))
        return True

    def _admits(self, record: logging.LogRecord) -> bool:
        if self._options.repeat_limit is None or record.levelno < logging.WARNING:
            return True
        text = identity_of(record)
        key = _Repeated(str(record.name), record.levelno, str(record.levelname), text[:_MAX_TEXT], hash(text))
        now = self._clock()
        self.acquire()
        try:
            admitted = self._repeats.admits(key, now)
            starts = not admitted and not self._is_waiting
            self._is_waiting = self._is_waiting or starts
        finally:
            self.release()
        if starts:
            self._tell_later()
        return admitted

    def _tell_later(self) -> None:
        clocks.after(self._clock, self._options.seconds, lambda: background.submit(self._tell_in_time))

    def _tell_in_time(self) -> None:
        self.tell_suppressed()
        self.acquire()
        try:
            self._is_waiting = goes_on = self._repeats.is_counting()
        finally:
            self.release()
        if goes_on:
            self._tell_later()

    def _tell(self, record: Record, outlet: Outlet | None, *, is_from_structlog: bool = False) -> None:
        self._write(record)
        if outlet is not None:
            with suppress(Exception):  # what processors raise; the line is written
                outlet.emit(record, is_from_structlog=is_from_structlog)

    def _write(self, record: Record) -> None:
        """Write a line; if nobody can read it any more, that is nobody's business here."""
        stream = sys.stderr if self._options.stream is None else self._options.stream
        with suppress(Exception):
            line = self._line(record, stream) + "\n"
            self.acquire()
            try:
                stream.write(line)
                stream.flush()
            finally:
                self.release()

    def _line(self, record: Record, stream: TextIO) -> str:
        encoding = getattr(stream, "encoding", None) or "utf-8"
        preset = LINES.get(self._options.preset)
        if preset is not None:
            is_unicode = encoding.lower().replace("_", "-") in {"utf-8", "utf8"}
            return to_json(preset.render(record, self._service), ascii_only=not is_unicode)
        text = to_text(record, colours=stream.isatty() and "NO_COLOR" not in os.environ)
        return text.encode(encoding, "backslashreplace").decode(encoding)


def _is_of_export(record: logging.LogRecord) -> bool:
    """Whether OpenTelemetry tells of a record that it is handed, such as that all is shut down."""
    return record.levelno < logging.WARNING and str(record.name).startswith("opentelemetry.")


_handlers: "weakref.WeakSet[LineHandler]" = weakref.WeakSet()


def _after_fork() -> None:
    for handler in tuple(_handlers):
        handler.start_again()


instruments.on_fork(_after_fork)
