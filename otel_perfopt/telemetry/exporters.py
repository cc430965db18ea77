"""Exporters that never raise, say once that a backend does not answer, and are made anew in every process.

Each stands before one of the SDK's. That one is made at the first export of each process, because neither the channels of
gRPC nor the connections of ``requests`` survive a fork.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import Any

from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk._logs.export import LogRecordExporter, LogRecordExportResult
from opentelemetry.sdk.metrics import Counter, Histogram, ObservableCounter
from opentelemetry.sdk.metrics.export import AggregationTemporality, MetricExporter, MetricExportResult, MetricsData
from opentelemetry.sdk.metrics.view import Aggregation, ExponentialBucketHistogramAggregation
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from otel_perfopt.telemetry import instruments
from otel_perfopt.telemetry.logs import get_logger
from otel_perfopt.telemetry.settings import Export, get

__all__ = ("Delivery", "LogDelivery", "MetricDelivery", "SpanDelivery", "listen", "load_exporter", "make_exporter")

SECONDS_BETWEEN_WARNINGS = 60.0
SECONDS_TO_HOLD_A_FORK = 0.5
_TALKATIVE = (
    "opentelemetry.exporter.otlp.common.http",
    "opentelemetry.exporter.otlp.proto.grpc.exporter",
    "opentelemetry.exporter.otlp.proto.http._log_exporter",
    "opentelemetry.exporter.otlp.proto.http.metric_exporter",
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "urllib3.connectionpool",
)
_BATCHES = "opentelemetry.sdk._shared_internal"


def load_exporter(export: Export) -> None:
    """Import everything that exporting needs; a fork while another thread imports it would leave the child without it."""
    export.entry_point.load()
    for name in {"http/protobuf": ("requests", "netrc", "encodings.idna"), "grpc": ("grpc._channel",)}.get(
        export.protocol or "", ()
    ):
        with suppress(ImportError):  # what the first request imports today
            import_module(name)
    get_logger()


def make_exporter(export: Export) -> Any:
    """Return a new exporter of the SDK."""
    options: dict[str, Any] = {}
    if export.endpoint is not None:
        options["endpoint"] = export.endpoint
    own = get(f"OTEL_EXPORTER_OTLP_{export.signal.upper()}_COMPRESSION")
    if export.protocol == "grpc" and (own or get("OTEL_EXPORTER_OTLP_COMPRESSION") or "").lower() == "none":
        # The exporter does not know the word.
        options["compression"] = import_module("grpc").Compression.NoCompression
    return export.entry_point.load()(**options)


class Delivery:
    """Hands batches to an exporter, one at a time, whose failures go no further than a warning.

    Args:
        signal: what is exported.
        target: where to, for people.
        make: makes the exporter.
        holds_forks: whether a fork should wait for the end of an export.
    """

    def __init__(self, signal: str, target: str, make: Callable[[], Any], *, holds_forks: bool = False) -> None:
        self.signal = signal
        self.target = target
        self._make = make
        self._exporters: dict[int, Any] = {}  # by process; a parent's is kept, because its end would end the parent's calls
        self._is_sending = self._is_closed = False
        self.turn = threading.Lock()
        if holds_forks:
            _holding_forks.append(self)

    def send(self, batch: Any, **options: Any) -> bool:
        """Export a batch, and return whether it has arrived."""
        if self._is_closed:
            return False
        self._is_sending = True
        with self.turn, _listening() as said:
            try:
                exporter = self._exporters.get(os.getpid())
                if exporter is None:
                    exporter = self._exporters[os.getpid()] = self._make()
                arrived = getattr(exporter.export(batch, **options), "name", "SUCCESS") == "SUCCESS"
            except Exception as error:  # noqa: BLE001 - whatever an exporter raises
                arrived = False
                said.append(f"{type(error).__name__}: {error}")
            finally:
                self._is_sending = False
        if arrived:
            _outage.ends(self)
        elif not self._is_closed:
            _outage.begins(self, said[-1] if said else "the exporter failed without a reason")
        return arrived

    def close(self) -> None:
        """Give up what is under way, and refuse the rest; a second time does nothing."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._is_sending:
            _outage.begins(self, "no answer, and the process ends")
        exporter = self._exporters.get(os.getpid())
        if exporter is None:
            return
        with _listening(), suppress(Exception):  # it is of no use any more
            exporter.shutdown()


class SpanDelivery(SpanExporter):
    """Delivers spans."""

    def __init__(self, delivery: Delivery) -> None:
        self._delivery = delivery

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Export spans."""
        return SpanExportResult.SUCCESS if self._delivery.send(spans) else SpanExportResult.FAILURE

    def shutdown(self) -> None:
        """Export nothing more."""
        self._delivery.close()

    def force_flush(self, timeout_millis: int = 30000) -> bool:  # noqa: ARG002 - nothing is kept here
        """Do nothing: nothing is kept here."""
        return True


class LogDelivery(LogRecordExporter):
    """Delivers log records."""

    def __init__(self, delivery: Delivery) -> None:
        self._delivery = delivery

    def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
        """Export log records."""
        return LogRecordExportResult.SUCCESS if self._delivery.send(batch) else LogRecordExportResult.FAILURE

    def shutdown(self) -> None:
        """Export nothing more."""
        self._delivery.close()

    def force_flush(self, timeout_millis: int = 30000) -> bool:  # noqa: ARG002 - nothing is kept here
        """Do nothing: nothing is kept here."""
        return True


class MetricDelivery(MetricExporter):
    """Delivers metrics, in the temporality and aggregation that the variables ask for."""

    def __init__(self, delivery: Delivery) -> None:
        super().__init__(preferred_temporality=_temporality(), preferred_aggregation=_aggregation())
        self._delivery = delivery

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **_: Any) -> MetricExportResult:
        """Export metrics."""
        arrived = self._delivery.send(metrics_data, timeout_millis=timeout_millis)
        return MetricExportResult.SUCCESS if arrived else MetricExportResult.FAILURE

    def shutdown(self, timeout_millis: float = 30_000, **_: Any) -> None:  # noqa: ARG002 - closing does not wait
        """Export nothing more."""
        self._delivery.close()

    def force_flush(self, timeout_millis: float = 10_000) -> bool:  # noqa: ARG002 - nothing is kept here
        """Do nothing: nothing is kept here."""
        return True


def _temporality() -> dict[type, AggregationTemporality]:
    """Return what the variable asks for; the exporter that would know is not made yet."""
    wanted = (get("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE") or "cumulative").lower()
    deltas = {"delta": (Counter, Histogram, ObservableCounter), "lowmemory": (Counter, Histogram)}.get(wanted, ())
    return dict.fromkeys(deltas, AggregationTemporality.DELTA)


def _aggregation() -> dict[type, Aggregation]:
    wanted = (get("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION") or "").lower()
    return {Histogram: ExponentialBucketHistogramAggregation()} if wanted.startswith("base2") else {}


class _Outage:
    """What fails at present; one warning for all of it."""

    def __init__(self) -> None:
        self._failing: set[Delivery] = set()
        self._silent_until = 0.0
        self._lock = threading.Lock()

    def begins(self, delivery: Delivery, reason: str) -> None:
        with self._lock:
            is_first = not self._failing and time.monotonic() >= self._silent_until
            self._failing.add(delivery)
            if is_first:
                self._silent_until = time.monotonic() + SECONDS_BETWEEN_WARNINGS
        if is_first:
            _log("warning", "telemetry cannot be delivered and is dropped", delivery, reason=reason)

    def ends(self, delivery: Delivery) -> None:
        if delivery not in self._failing:
            return
        with self._lock:
            self._failing.discard(delivery)
            is_last = not self._failing
        if is_last:
            _log("info", "telemetry is delivered again", delivery)


def _log(level: str, event: str, delivery: Delivery, **more: str) -> None:
    with suppress(Exception):  # the application's logging may fail in its own ways
        getattr(get_logger(), level)(event, signal=delivery.signal, target=delivery.target, **more)


_outage = _Outage()
_said = threading.local()


@contextmanager
def _listening() -> Iterator[list[str]]:
    """Keep to ourselves what the SDK logs in this thread meanwhile: a line per attempt, signal and batch."""
    messages: list[str] = []
    _said.messages = messages
    try:
        yield messages
    finally:
        _said.messages = None


class _Listener(logging.Filter):
    """Hears what the SDK's exporters and batches log, instead of everybody."""

    def __init__(self) -> None:
        super().__init__()
        self.queues: dict[str, Delivery] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        messages = getattr(_said, "messages", None)
        if messages is not None:
            messages.append(record.getMessage())
            return False
        if isinstance(record.msg, str) and record.msg.startswith("Queue full") and isinstance(record.args, tuple) and record.args:
            delivery = self.queues.get(str(record.args[0]))
            if delivery is not None:
                _outage.begins(delivery, "the queue is full")
                return False
        return True


_listener = _Listener()


def listen(queues: Mapping[str, Delivery]) -> None:
    """Turn what the SDK logs about these queues, by its own name for them, and about their exporters into one warning."""
    _listener.queues.update(queues)
    for name in (*_TALKATIVE, _BATCHES):
        logging.getLogger(name).addFilter(_listener)


_holding_forks: list[Delivery] = []
_held: list[Delivery] = []


def _before_fork() -> None:
    """Let calls of gRPC come to their end: in a child that was forked meanwhile it never works again."""
    deadline = time.monotonic() + SECONDS_TO_HOLD_A_FORK
    _held.extend(d for d in _holding_forks if d.turn.acquire(timeout=max(0.0, deadline - time.monotonic())))


def _after_fork_in_parent() -> None:
    while _held:
        _held.pop().turn.release()


def _after_fork() -> None:
    global _outage
    _outage = _Outage()
    _held.clear()
    for delivery in _holding_forks:
        delivery.turn = threading.Lock()


instruments.on_fork(_after_fork)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent)
