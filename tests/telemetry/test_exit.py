"""Nothing is lost at a normal exit, and nothing that hangs holds it up for long."""

import pytest

from tests.backends.processes import run
from tests.backends.receivers import HttpBackend, Listener

IMPORT = """
from otel_perfopt import emit, emit_aggregated, measure_performance
"""
PROVIDERS = """
from opentelemetry import _logs, metrics, trace
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
traces, logs = TracerProvider(), LoggerProvider()
traces.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
logs.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter()))
trace.set_tracer_provider(traces)
_logs.set_logger_provider(logs)
metrics.set_meter_provider(MeterProvider([PeriodicExportingMetricReader(OTLPMetricExporter())]))
"""
CONFIGURE = """
from otel_perfopt.telemetry.configure import configure
configure()
"""
WORK = """
total = measure_performance("orders.total", sum)
for _ in range(1000):
    total([1])
"""
EVENTS = """
emit("order.paid")
emit_aggregated("cart.changed", {"component": "shop"})
"""
ORDERS = {
    "configured first": [IMPORT, CONFIGURE, WORK, EVENTS],
    "configured after use": [IMPORT, WORK, CONFIGURE, EVENTS],
    "library first": [IMPORT, PROVIDERS, WORK, EVENTS],
    "provider first": [PROVIDERS, IMPORT, WORK, EVENTS],
    "provider after use": [IMPORT, WORK, PROVIDERS, EVENTS],
    "own providers and configure": [PROVIDERS, IMPORT, CONFIGURE, WORK, EVENTS],
}


def calls(http: HttpBackend) -> float:
    """The calls of the operation that have arrived, over all processes."""
    return sum(point.value for point in http.points if point.metric == "perfopt.operation.duration")


@pytest.mark.parametrize("order", ORDERS)
def test_nothing_is_lost(order: str) -> None:
    """The last spans, latencies and events are delivered, whoever was there first; at once, with no interval over."""
    with HttpBackend() as http:
        ended = run("\n".join([*ORDERS[order], "print()"]), backend=http)
    assert not ended.errors
    assert calls(http) == 1000
    assert len([span for span in http.spans if span.name == "orders.total"]) == (0 if "after use" in order else 1000)
    events = [record.event for record in http.records]
    assert events.count("order.paid") == events.count("cart.changed") == 1


def test_derived_events_are_told_at_exit() -> None:
    """What was counted in the last seconds is an event, too."""
    with HttpBackend() as http:
        run(f"{IMPORT}{CONFIGURE}{WORK}print()", backend=http)
    (event,) = [record for record in http.records if record.event == "performance.metric"]
    assert event.attributes["count"] == 1000


def test_threads_that_go_on_after_the_main_one() -> None:
    """What threads do when the main thread has ended is delivered."""
    code = f"""
{IMPORT}{CONFIGURE}
import threading

def work():
    threading.main_thread().join()
    {WORK.strip().replace(chr(10), chr(10) + "    ")}
    {EVENTS.strip().replace(chr(10), chr(10) + "    ")}

threading.Thread(target=work).start()
print()
"""
    with HttpBackend() as http:
        run(code, backend=http)
    assert calls(http) == 1000
    assert len([span for span in http.spans if span.name == "orders.total"]) == 1000
    assert {"order.paid", "cart.changed"} <= {record.event for record in http.records}


def test_an_error_that_ends_the_process() -> None:
    """An uncaught error and `sys.exit` are normal exits."""
    code = f"{IMPORT}{CONFIGURE}{WORK}{EVENTS}\nimport sys\nsys.excepthook = lambda *_: print()\nsys.exit(0)"
    with HttpBackend() as http:
        run(code, backend=http)
    assert calls(http) == 1000


def test_more_than_the_time_is_enough_for() -> None:
    """Counts are delivered, although not all latencies can be in the time there is; the exit takes no longer."""
    code = f"""
{IMPORT}{CONFIGURE}
from otel_perfopt import cached
square = cached(name="squares")(lambda number: number)
total = measure_performance("orders.total", sum, span=False)
for _ in range(1_000_000):
    total([1])
square(1), square(1)
print()
"""
    with HttpBackend() as http:
        ended = run(code, backend=http)
    assert 0 < calls(http) <= 1_000_000
    assert [p.value for p in http.points if p.attributes.get("perfopt.cache.result") == "hit"] == [1]
    assert ended.exit_seconds < 10


def test_latencies_are_handed_over_meanwhile() -> None:
    """They do not wait for a collection, which may be a minute away."""
    code = f"""
{IMPORT}
from otel_perfopt.telemetry import instruments, lifecycle
lifecycle._HAND_OVER_EVERY = 0.05
{CONFIGURE}{WORK}
import time
deadline = time.monotonic() + 30
latency = next(latency for _, latency in instruments.latencies())
while latency._replayed.count < 1000:
    assert time.monotonic() < deadline
    time.sleep(0.01)
print()
"""
    with HttpBackend() as http:
        run(code, backend=http)
    assert calls(http) == 1000


def test_shutdown_delivers_at_once() -> None:
    """After `shutdown` everything is there, and the report goes on."""
    code = f"""
{IMPORT}{CONFIGURE}{WORK}{EVENTS}
from otel_perfopt import get_performance_report
from otel_perfopt.telemetry.configure import shutdown
import os
in_time = shutdown(), shutdown()
total([1])
assert get_performance_report().operations["orders.total"].count == 1001
print(str(list(in_time)).lower(), flush=True)
os._exit(0)
"""
    with HttpBackend() as http:
        ended = run(code, backend=http)
    assert ended.result == [True, True]
    assert calls(http) == 1000
    assert "cart.changed" in {record.event for record in http.records}


def test_shutdown_delivers_what_other_providers_hold() -> None:
    """Providers of the application are flushed, and stay in use."""
    code = f"""
{PROVIDERS}{IMPORT}{CONFIGURE}{WORK}
from otel_perfopt.telemetry.configure import shutdown
shutdown()
{EVENTS}
print()
"""
    with HttpBackend() as http:
        run(code, backend=http)
    assert "order.paid" in {record.event for record in http.records}


def test_shutdown_with_a_dead_backend_takes_no_longer_than_asked() -> None:
    """The timeout holds for everything together."""
    code = f"""
{IMPORT}{CONFIGURE}{WORK}{EVENTS}
import time
from otel_perfopt.telemetry.configure import shutdown
start = time.monotonic()
in_time = shutdown(timeout="500ms")
assert not in_time
print(time.monotonic() - start)
"""
    with Listener() as backend:
        ended = run(code, OTEL_EXPORTER_OTLP_ENDPOINT=backend.endpoint)
    assert ended.result < 5
    assert ended.exit_seconds < 10


def test_shutdown_tells_whether_everything_has_arrived() -> None:
    """A backend that refuses at once is no success either."""
    code = f"""
{IMPORT}{CONFIGURE}{EVENTS}
import json, logging
from otel_perfopt.telemetry.configure import shutdown
logging.disable()
print(json.dumps(shutdown()))
"""
    with HttpBackend(*[404] * 10) as http:
        assert run(code, backend=http).result is False


def test_a_subscriber_that_hangs() -> None:
    """User code that hangs in an event at exit is left behind."""
    code = f"""
{IMPORT}
import threading
from otel_perfopt import subscribe
subscribe("cart.changed", lambda event: threading.Event().wait())
{EVENTS}
print()
"""
    if run("import sys; print(int(sys.version_info[:3] in ((3, 12, 0), (3, 12, 1))))").result:
        code = CONFIGURE + code  # these start no thread at exit; with `configure` they are there
    ended = run(
        code, OTEL_SDK_DISABLED="false", OTEL_TRACES_EXPORTER="none", OTEL_METRICS_EXPORTER="none", OTEL_LOGS_EXPORTER="none"
    )
    assert ended.exit_seconds < 10


def test_a_job_that_hangs() -> None:
    """A background job that does not end is left behind, too."""
    code = """
        import threading
        from otel_perfopt.telemetry import background
        started = threading.Event()
        background.submit(lambda: (started.set(), threading.Event().wait()))
        started.wait()
        print()
    """
    assert run(code).exit_seconds < 10


def test_background_jobs_run_side_by_side() -> None:
    """As many as there are workers, each once, also when they raise."""
    code = """
        import json, logging, threading
        from otel_perfopt.telemetry import background
        logging.disable()
        together = threading.Barrier(background.MAX_WORKERS)
        done = []

        def job(number):
            if number < background.MAX_WORKERS:
                together.wait(30)
            done.append(number)
            raise SystemExit

        for number in range(100):
            background.submit(lambda number=number: job(number))
        assert background.wait(30)
        print(json.dumps(sorted(done) == list(range(100))))
    """
    assert run(code).result is True
