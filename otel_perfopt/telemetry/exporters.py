"""Exporters that never raise, and are made anew in every process.

Each stands before one of the SDK's. That one is made at the first export of each process, because neither the channels of
gRPC nor the connections of ``requests`` survive a fork.
"""

import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any

from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk._logs.export import LogRecordExporter, LogRecordExportResult
from opentelemetry.sdk.metrics import Counter, Histogram, ObservableCounter
from opentelemetry.sdk.metrics.export import AggregationTemporality, MetricExporter, MetricExportResult, MetricsData
from opentelemetry.sdk.metrics.view import Aggregation, ExponentialBucketHistogramAggregation
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from otel_perfopt.telemetry import instruments, outages
from otel_perfopt.telemetry.logs import get_logger
from otel_perfopt.telemetry.outages import Route
from otel_perfopt.telemetry.settings import Export, get

__all__ = ("Delivery", "LogDelivery", "MetricDelivery", "SpanDelivery", "load_exporter", "make_exporter")

LONGEST_PAUSE = 30.0
SECONDS_TO_HOLD_A_FORK = 0.5
_deliveries: "set[Delivery]" = set()


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

    After a failure batches are dropped for a while, so that attempts in vain do not slow the application down.

    Args:
        route: what goes where, for people.
        make: makes the exporter.
        holds_forks: whether a fork should wait for the end of an export.
    """

    def __init__(self, route: Route, make: Callable[[], Any], *, holds_forks: bool = False) -> None:
        self.holds_forks = holds_forks
        self._route = route
        self._make = make
        self._exporters: dict[int, Any] = {}  # by process; a parent's is kept, because its end would end the parent's calls
        self._is_closed = False
        self.start_again()
        _deliveries.add(self)

    def start_again(self) -> None:
        """Forget what went before, in a forked child."""
        self.turn = threading.Lock()
        self._is_sending = False
        self.resume()

    def resume(self) -> None:
        """Try again with the next batch."""
        self._pause = self._paused_until = 0.0

    def send(self, batch: Any, **options: Any) -> bool:
        """Export a batch, and return whether it has arrived."""
        if self._is_closed or time.monotonic() < self._paused_until:
            return False
        self._is_sending = True
        with self.turn, outages.keep_quiet() as said:
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
            self.resume()
            outages.ends(self._route)
        elif not self._is_closed:
            self._pause = min(LONGEST_PAUSE, max(1.0, 2 * self._pause))
            self._paused_until = time.monotonic() + self._pause
            outages.begins(self._route, said[-1] if said else "the exporter failed without a reason")
        return arrived

    def close(self) -> None:
        """Give up what is under way, and refuse the rest; a second time does nothing."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._is_sending:
            outages.begins(self._route, "no answer, and the process ends")
        exporter = self._exporters.get(os.getpid())
        if exporter is None:
            return
        with outages.keep_quiet(), suppress(Exception):  # it is of no use any more
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


_held: list[Delivery] = []


def _before_fork() -> None:
    """Let calls of gRPC come to their end: in a child that was forked meanwhile it never works again."""
    deadline = time.monotonic() + SECONDS_TO_HOLD_A_FORK
    _held.extend(d for d in _deliveries if d.holds_forks and d.turn.acquire(timeout=max(0.0, deadline - time.monotonic())))


def _after_fork_in_parent() -> None:
    while _held:
        _held.pop().turn.release()


def _after_fork() -> None:
    _held.clear()
    for delivery in _deliveries:
        delivery.start_again()


instruments.on_fork(_after_fork)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent)
