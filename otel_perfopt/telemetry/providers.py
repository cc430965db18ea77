"""The SDK's providers as `configure` makes them: each shut down by us, and each process with figures of its own."""

import os
import threading
import uuid
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import Sampler

from otel_perfopt.errors import ConfigurationError
from otel_perfopt.telemetry import instruments, lifecycle
from otel_perfopt.telemetry.bus import EventBus
from otel_perfopt.telemetry.exporters import (
    Delivery,
    LogDelivery,
    MetricDelivery,
    SpanDelivery,
    load_exporter,
    make_exporter,
)
from otel_perfopt.telemetry.outages import Route, listen
from otel_perfopt.telemetry.settings import Export, entry_point, get, refuse

__all__ = ("make",)

INSTANCE = "service.instance.id"
PID = "process.pid"


def make(signals: Sequence[str], exports: Sequence[Export], service_name: str | None) -> dict[str, Any]:
    """Return a provider for each signal, which will be shut down at exit.

    Args:
        signals: what is missing.
        exports: where these go.
        service_name: the name of the service; None for what the variables say.

    Raises:
        ConfigurationError: the SDK refuses a setting; what was made before is shut down again.
    """
    makers: dict[str, Callable[..., Any]] = {"traces": _tracer_provider, "metrics": _meter_provider, "logs": _logger_provider}
    made: dict[str, Any] = {}
    deliveries: dict[str, list[Delivery]] = {}
    try:
        named = {"service.name": service_name} if service_name else {}
        resource = ProcessResource({INSTANCE: str(uuid.uuid4()), **(Resource.create(named).attributes or {})})
        for signal in signals:
            deliveries[signal] = [_delivery(export) for export in exports if export.signal == signal and not _is_reader(export)]
            readers = [_reader(export) for export in exports if export.signal == signal and _is_reader(export)]
            made[signal] = makers[signal](resource, deliveries[signal], *readers)
    except Exception as error:
        for signal, provider in made.items():
            _close(deliveries[signal])
            provider.shutdown()
        if isinstance(error, ConfigurationError):
            raise
        raise ConfigurationError(f"OpenTelemetry refuses a setting: {error}") from error
    for signal, provider in made.items():
        lifecycle.own(provider, resume=partial(_resume, deliveries[signal]), give_up=partial(_close, deliveries[signal]))
    return made


class ProcessResource(Resource):
    """A resource that tells a forked process from its parent; older versions of the SDK do not."""

    @property
    def attributes(self) -> Mapping[str, Any]:
        """The attributes, with those of the process that asks."""
        return {**(super().attributes or {}), **_own}

    def merge(self, other: Resource) -> Resource:
        """Return a resource of the same kind."""
        return ProcessResource(super().merge(other).attributes)


_own: Mapping[str, Any] = {PID: os.getpid()}


def _after_fork() -> None:
    global _own
    _own = {PID: os.getpid(), INSTANCE: str(uuid.uuid4())}


instruments.on_fork(_after_fork)


def _tracer_provider(resource: Resource, deliveries: Sequence[Delivery]) -> TracerProvider:
    provider = TracerProvider(_sampler(), resource, shutdown_on_exit=False)
    for delivery in deliveries:
        provider.add_span_processor(BatchSpanProcessor(SpanDelivery(delivery), max_export_batch_size=_batch_size("BSP")))
    return provider


def _logger_provider(resource: Resource, deliveries: Sequence[Delivery]) -> LoggerProvider:
    provider = LoggerProvider(resource, shutdown_on_exit=False)
    provider.add_log_record_processor(EventBus())  # first: what it tells when it is shut down is exported, too
    for delivery in deliveries:
        size = _batch_size("BLRP")
        provider.add_log_record_processor(BatchLogRecordProcessor(LogDelivery(delivery), max_export_batch_size=size))
    return provider


def _meter_provider(resource: Resource, deliveries: Sequence[Delivery], *readers: MetricReader) -> MeterProvider:
    periodic = [PeriodicExportingMetricReader(MetricDelivery(delivery)) for delivery in deliveries]
    provider = MeterProvider([*periodic, *readers], resource, shutdown_on_exit=False)
    instruments.on_fork(partial(_start_from_zero, weakref.ref(provider), periodic))
    return provider


def _start_from_zero(provider: "weakref.ref[MeterProvider]", readers: Sequence[PeriodicExportingMetricReader]) -> None:
    """Give a forked child figures of its own, and fresh locks: the SDK keeps the parent's, and they may be held for ever.

    There is no public way: a reader that is added later is not shut down with its provider, and adding it takes a lock.
    """
    consumer = getattr(provider(), "_measurement_consumer", None)
    if consumer is None:
        return
    consumer._lock = threading.Lock()
    for storage in consumer._reader_storages.values():
        storage._lock = threading.RLock()
        storage._instrument_view_instrument_matches = {}
    for reader in readers:
        reader._export_lock = threading.Lock()
        reader._shutdown_event = threading.Event()


def _is_reader(export: Export) -> bool:
    """Whether this is a reader, such as that of Prometheus, rather than an exporter."""
    if export.signal != "metrics" or export.protocol is not None:
        return False
    found = export.entry_point.load()
    return isinstance(found, type) and issubclass(found, MetricReader)


def _reader(export: Export) -> MetricReader:
    try:
        reader: MetricReader = export.entry_point.load()()
    except Exception as error:
        raise ConfigurationError(f"the metrics exporter {export.entry_point.name!r} cannot start: {error}") from error
    return reader


def _delivery(export: Export) -> Delivery:
    load_exporter(export)
    route = Route(export.signal, export.endpoint or export.entry_point.name)
    listen(route)
    return Delivery(route, partial(make_exporter, export), holds_forks=export.protocol == "grpc")


def _resume(deliveries: Sequence[Delivery]) -> None:
    for delivery in deliveries:
        delivery.resume()


def _close(deliveries: Sequence[Delivery]) -> None:
    for delivery in deliveries:
        delivery.close()


def _batch_size(batch: str) -> int | None:
    """Return the size of a batch where the variables give none: half of the usual one.

    A batch is encoded in one go, beside the application, and is held beside the queue while nobody answers.
    """
    if get(f"OTEL_{batch}_MAX_EXPORT_BATCH_SIZE"):
        return None
    return min(256, int(get(f"OTEL_{batch}_MAX_QUEUE_SIZE") or 2048))


def _sampler() -> Sampler | None:
    """Return the sampler that the variable asks for; the SDK would go on without it if it is unknown."""
    wanted = get("OTEL_TRACES_SAMPLER")
    if wanted is None:
        return None
    wanted = wanted.lower()
    factory = entry_point("opentelemetry_traces_sampler", wanted, setting="OTEL_TRACES_SAMPLER").load()
    argument = get("OTEL_TRACES_SAMPLER_ARG")
    sampler = factory(float(argument or 1.0) if wanted.endswith("traceidratio") else argument)
    if not isinstance(sampler, Sampler):
        raise refuse("OTEL_TRACES_SAMPLER", wanted, "this makes no sampler")
    return sampler
