"""The library's own in-memory metric reader: it tells the whole story inside the process, whatever provider is set.

It sits on a private meter provider, so that nobody's Views change it and nobody's measurements become slower. Histograms
are not recorded a second time: the reader makes their points from the cells.
"""

import inspect
import threading
import time
from collections.abc import Iterator
from typing import Any

from opentelemetry.sdk.metrics import (
    AlwaysOffExemplarFilter,
    MeterProvider,
    ObservableCounter,
    ObservableGauge,
    ObservableUpDownCounter,
)
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Buckets,
    ExponentialHistogram,
    ExponentialHistogramDataPoint,
    Gauge,
    InMemoryMetricReader,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from otel_perfopt._core.cells import Histogram
from otel_perfopt.telemetry import instruments, names
from otel_perfopt.telemetry.family import MAX_NAMES

__all__ = ("CellReader", "read_metrics")


class CellReader(InMemoryMetricReader):
    """An in-memory reader whose data includes the histograms of the library, as exponential ones."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        options: dict[str, Any] = {}
        if "cardinality_limits" in inspect.signature(InMemoryMetricReader).parameters:
            # Names are limited by the families; an overflow series here would lose some of them.
            options["cardinality_limits"] = dict.fromkeys(
                (ObservableCounter, ObservableUpDownCounter, ObservableGauge), 100 * MAX_NAMES
            )
        super().__init__(**options)

    def get_metrics_data(self) -> MetricsData:
        """Collect now; cumulative figures since the start of the process."""
        # Never wait for another collection: this may be a finalizer inside it, or hold a cache's lock that it waits for.
        if not self._turn.acquire(blocking=False):
            return _metrics_data([])
        try:
            collected = super().get_metrics_data()
        finally:
            self._turn.release()
        return _metrics_data(
            [
                metric
                for resource in (collected.resource_metrics if collected else ())
                for scope in resource.scope_metrics
                for metric in scope.metrics
            ]
        )


def _metrics_data(numbers: list[Metric]) -> MetricsData:
    # With OTEL_SDK_DISABLED the provider collects nothing; the cells are there all the same.
    metrics = [*(numbers or _numbers()), *_histograms()]
    scope = ScopeMetrics(InstrumentationScope(names.SCOPE), metrics, "")
    return MetricsData([ResourceMetrics(Resource({}), [scope], "")])


def _numbers() -> Iterator[Metric]:
    """Yield counters, up-down counters and gauges, as the SDK would collect them."""
    now = time.time_ns()
    for row in names.METRICS:
        points = [
            NumberDataPoint(reading.attributes, instruments.counting_since(), now, reading.value)
            for reading in instruments.observe(row)
            if row.kind != "histogram"
        ]
        if points:
            data = (
                Gauge(points)
                if row.kind == "gauge"
                else Sum(points, AggregationTemporality.CUMULATIVE, is_monotonic=row.kind == "counter")
            )
            yield Metric(row.name, row.description, row.unit, data)


def _histograms() -> Iterator[Metric]:
    """Yield the histograms, from the cells."""
    now = time.time_ns()
    points: dict[names.Metric, list[ExponentialHistogramDataPoint]] = {}
    for row, latency in instruments.latencies():
        histogram = latency.snapshot()
        if histogram.count:
            points.setdefault(row, []).append(_point(histogram, latency.attributes, now))
    for row, found in points.items():
        yield Metric(row.name, row.description, row.unit, ExponentialHistogram(found, AggregationTemporality.CUMULATIVE))


def _point(histogram: Histogram, attributes: dict[str, str], now: int) -> ExponentialHistogramDataPoint:
    return ExponentialHistogramDataPoint(
        attributes=attributes,
        start_time_unix_nano=instruments.counting_since(),
        time_unix_nano=now,
        count=histogram.count,
        sum=histogram.total,
        scale=histogram.SCALE,
        zero_count=histogram.zeros,
        positive=Buckets(histogram.offset, histogram.buckets.tolist()),
        negative=Buckets(0, []),
        flags=0,
        min=histogram.minimum,
        max=histogram.maximum,
    )


_reader: CellReader | None = None
_lock = threading.Lock()


def read_metrics() -> MetricsData:
    """Return all metrics of the library, collected now."""
    global _reader
    if _reader is None and _lock.acquire(blocking=False):
        try:
            reader = CellReader()
            provider = MeterProvider(
                [reader], resource=Resource({}), shutdown_on_exit=False, exemplar_filter=AlwaysOffExemplarFilter()
            )
            instruments.observe_all_with(provider.get_meter(names.SCOPE), replay=False)
            _reader = reader
        finally:
            _lock.release()
    return _metrics_data([]) if _reader is None else _reader.get_metrics_data()


def _after_fork() -> None:
    """Give the child a reader of its own: the locks inside the parent's may be held for ever."""
    global _reader, _lock
    _reader, _lock = None, threading.Lock()


instruments.on_fork(_after_fork)
