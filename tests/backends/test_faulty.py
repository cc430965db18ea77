"""Backends that refuse, hang, are overloaded or talk nonsense: user code sees nothing of it, and the process ends in time."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest

from tests.backends.processes import run
from tests.backends.receivers import Babbler, GrpcBackend, HttpBackend, Listener, grpc

WORK = """
    import gc, json, logging, requests, tracemalloc
    import opentelemetry.exporter.otlp.proto.grpc.trace_exporter, opentelemetry.exporter.otlp.proto.http.trace_exporter
    from otel_perfopt import emit, measure_performance
    from otel_perfopt.telemetry.configure import configure
    from otel_perfopt.telemetry.logs import get_logger

    logging.basicConfig(level=logging.INFO)
    get_logger()
    configure(service_name="shop")

    @measure_performance("orders.total")
    def total(prices):
        return sum(prices)

    tracemalloc.start()
    for number in range(4000):
        assert total([number, 1]) == number + 1
        emit("order.paid", {"amount": number, "currency": "EUR"})
    gc.collect()
    print(json.dumps(tracemalloc.get_traced_memory()[0]))
"""
FAULTS: dict[str, tuple[str, Callable[[], AbstractContextManager[Any]]]] = {
    "refuses": ("http/protobuf", lambda: Listener(accepting=False)),
    "refuses-grpc": ("grpc", lambda: Listener(accepting=False)),
    "hangs": ("http/protobuf", Listener),
    "hangs-grpc": ("grpc", Listener),
    "overloaded": ("http/protobuf", lambda: HttpBackend(*[503] * 1000)),
    "overloaded-grpc": ("grpc", lambda: GrpcBackend(grpc.StatusCode.UNAVAILABLE)),
    "asks-to-wait": ("http/protobuf", lambda: HttpBackend(*[429] * 1000, headers=[("Retry-After", "100")])),
    "exhausted-grpc": ("grpc", lambda: GrpcBackend(grpc.StatusCode.RESOURCE_EXHAUSTED)),
    "knows-no-metrics": ("http/protobuf", lambda: HttpBackend(*[404] * 1000)),
    "knows-no-metrics-grpc": ("grpc", lambda: GrpcBackend(grpc.StatusCode.UNIMPLEMENTED)),
    "babbles": ("http/protobuf", Babbler),
    "babbles-grpc": ("grpc", Babbler),
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_dead_backend_is_not_noticed(fault: str, capsys: pytest.CaptureFixture[str]) -> None:
    """No exception, at most 10 MB held, one warning, and an exit that takes no longer than 5 seconds or so."""
    protocol, make = FAULTS[fault]
    with make() as backend:
        ended = run(WORK, OTEL_EXPORTER_OTLP_ENDPOINT=backend.endpoint, OTEL_EXPORTER_OTLP_PROTOCOL=protocol)
    with capsys.disabled():
        print(f"\n{fault}: {ended.result / 1e6:.1f} MB held, exit in {ended.exit_seconds:.1f} s", end=" ")
    assert ended.result <= 10e6
    (line,) = ended.errors.splitlines()
    assert line.startswith("WARNING:otel_perfopt:")
    assert "telemetry cannot be delivered" in line
    assert backend.endpoint in line
    assert ended.exit_seconds < 10


@pytest.mark.slow
def test_a_short_process_warns_too() -> None:
    """A backend that hangs is told of at the exit at the latest."""
    code = """
        import logging
        from otel_perfopt import emit
        from otel_perfopt.telemetry.configure import configure
        logging.basicConfig()
        configure()
        emit("order.paid")
        print()
    """
    with Listener() as backend:
        ended = run(code, OTEL_EXPORTER_OTLP_ENDPOINT=backend.endpoint)
    (line,) = ended.errors.splitlines()
    assert "the process ends" in line
    assert ended.exit_seconds < 10


def test_a_backend_that_comes_back() -> None:
    """The end of an outage is told once, and what comes then is delivered."""
    code = """
        import logging, sys
        from opentelemetry._logs import get_logger_provider
        from otel_perfopt import emit
        from otel_perfopt.telemetry import exporters
        from otel_perfopt.telemetry.configure import configure

        logging.basicConfig(level=logging.INFO)
        configure()
        for number in range(5):
            emit(f"number.{number}")
            get_logger_provider().force_flush()
            if number == 2:
                for delivery in exporters._deliveries:
                    delivery.resume()  # instead of waiting for the end of its pause
        print()
    """
    with HttpBackend(404) as backend:
        ended = run(code, backend=backend, OTEL_TRACES_EXPORTER="none", OTEL_METRICS_EXPORTER="none")
    warning, info = ended.errors.splitlines()
    assert warning.startswith("WARNING:otel_perfopt:")
    assert "Not Found" in warning
    assert info.startswith("INFO:otel_perfopt:")
    assert {record.event for record in backend.records} == {"number.3", "number.4"}


RAISING = """
    import logging
    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import MetricExporter, PeriodicExportingMetricReader
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
    from otel_perfopt import emit, get_performance_report, measure_performance
    from otel_perfopt.telemetry.configure import configure

    logging.disable()

    class Raising(MetricExporter):
        def export(self, *args, **kwargs):
            raise RuntimeError("no")
        shutdown = force_flush = export

    traces, logs, metrics = TracerProvider(), LoggerProvider(), MeterProvider([PeriodicExportingMetricReader(Raising(), 50)])
    traces.add_span_processor(SimpleSpanProcessor(Raising()))
    traces.add_span_processor(BatchSpanProcessor(Raising(), schedule_delay_millis=10))
    logs.add_log_record_processor(SimpleLogRecordProcessor(Raising()))
    configure(tracer_provider=traces, logger_provider=logs, meter_provider=metrics)
    total = measure_performance("total", sum)
    for _ in range(100):
        assert total([1, 2]) == 3
        emit("order.paid")
    print(get_performance_report().operations["total"].count)
"""


def test_exporters_that_raise() -> None:
    """Exporters of the application's own providers may raise whatever they do, also at the exit."""
    assert run(RAISING).result == 100
