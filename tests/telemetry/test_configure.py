"""`configure` sets up what is missing, respects what is there, and refuses what cannot work."""

from socket import create_server
from typing import Any

import pytest

from tests.backends.processes import run

START = """
import json
from opentelemetry import _logs, metrics, trace
from otel_perfopt import ConfigurationError, cached, emit, get_performance_report, measure_performance, subscribe
from otel_perfopt.telemetry.configure import configure, shutdown

def providers():
    return [trace.get_tracer_provider(), metrics.get_meter_provider(), _logs.get_logger_provider()]
"""
SDK = """
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
"""
WRONG_VARIABLES = {
    "OTEL_TRACES_EXPORTER": "carrier-pigeon",
    "OTEL_METRICS_EXPORTER": "otlp,none",
    "OTEL_LOGS_EXPORTER": "prometheus",
    "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json",
    "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": "udp",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "ftp://localhost",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://",
    "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "http://localhost:port",
    "OTEL_EXPORTER_OTLP_TIMEOUT": "soon",
    "OTEL_EXPORTER_OTLP_COMPRESSION": "zip",
    "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION": "deflate",
    "OTEL_EXPORTER_OTLP_CERTIFICATE": "/nowhere/ca.pem",
    "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "sometimes",
    "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION": "none",
    "OTEL_METRIC_EXPORT_INTERVAL": "0",
    "OTEL_METRIC_EXPORT_TIMEOUT": "nan",
    "OTEL_BSP_MAX_QUEUE_SIZE": "many",
    "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "4096",
    "OTEL_BLRP_SCHEDULE_DELAY": "-1",
    "OTEL_TRACES_SAMPLER": "now_and_then",
    "OTEL_METRICS_EXEMPLAR_FILTER": "never",
    "OTEL_RESOURCE_ATTRIBUTES": "team",
    "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "-5",
    "OTEL_EXPORTER_PROMETHEUS_PORT": "94640",
}


def result(code: str, **variables: str) -> Any:
    """What the code prints last, after the usual imports, without a word on stderr."""
    ended = run(START + (SDK if "Provider(" in code else "") + code, variables=variables)
    assert not ended.errors
    return ended.result


@pytest.mark.parametrize("name", WRONG_VARIABLES)
def test_a_wrong_variable_is_named(name: str) -> None:
    """The error names the variable and its value, and nothing is set up."""
    code = """
before = providers()
try:
    configure()
except ConfigurationError as error:
    print(json.dumps([str(error), all(one is other for one, other in zip(before, providers()))]))
"""
    message, untouched = result(code, **{name: WRONG_VARIABLES[name]})
    assert name in message
    assert WRONG_VARIABLES[name] in message
    assert untouched


def test_a_wrong_ratio_is_named() -> None:
    """The argument of the sampler is checked where it has a meaning."""
    code = "try: configure()\nexcept ConfigurationError as error: print(json.dumps(error.context))"
    found = result(code, OTEL_TRACES_SAMPLER="traceidratio", OTEL_TRACES_SAMPLER_ARG="2")
    assert found == {"setting": "OTEL_TRACES_SAMPLER_ARG", "value": "2"}


@pytest.mark.parametrize(
    ("arguments", "setting"),
    [
        ("exporter='zipkin'", "exporter='zipkin'"),
        ("exporter='ftp://localhost'", "exporter='ftp://localhost'"),
        ("exporter=7", "exporter=7"),
        ("spans='all'", "spans='all'"),
        ("service_name=' '", "service_name=' '"),
        ("meter_provider=object()", "meter_provider="),
        ("tracer_provider=7", "tracer_provider=7"),
    ],
)
def test_a_wrong_argument_is_named(arguments: str, setting: str) -> None:
    """The error names the argument and its value."""
    code = f"try: configure({arguments})\nexcept ConfigurationError as error: print(json.dumps(str(error)))"
    assert setting in result(code)


def test_an_exporter_that_cannot_start_is_named() -> None:
    """Such as one that is to listen where somebody else does."""
    code = "try: configure()\nexcept ConfigurationError as error: print(json.dumps(str(error)))"
    with create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        message = result(
            code,
            OTEL_METRICS_EXPORTER="prometheus",
            OTEL_EXPORTER_PROMETHEUS_HOST="127.0.0.1",
            OTEL_EXPORTER_PROMETHEUS_PORT=port,
        )
    assert "'prometheus' cannot start" in message
    assert "Address already in use" in message


def test_wrong_variables_do_not_matter_when_disabled() -> None:
    """With OTEL_SDK_DISABLED nothing is looked at and nothing set up; the report works."""
    code = """
before = providers()
configure()
total = measure_performance("total", sum)
total([1])
same = all(one is other for one, other in zip(before, providers()))
print(json.dumps([same, get_performance_report().operations["total"].count]))
"""
    assert result(code, OTEL_SDK_DISABLED="true", OTEL_TRACES_EXPORTER="carrier-pigeon") == [True, 1]


def test_twice_is_harmless() -> None:
    """A second call makes nothing new, not even a thread."""
    code = """
import threading
configure(exporter="none")
first, threads = providers(), threading.active_count()
configure(exporter="none")
configure(service_name="other")
print(json.dumps([all(one is other for one, other in zip(first, providers())), threading.active_count() - threads]))
"""
    assert result(code) == [True, 0]


def test_from_many_threads() -> None:
    """Whoever calls first has set it up for all."""
    code = """
import threading
threads = [threading.Thread(target=lambda: configure(exporter="none")) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(json.dumps([type(provider).__name__ for provider in providers()]))
"""
    assert result(code) == ["TracerProvider", "MeterProvider", "LoggerProvider"]


def test_providers_passed_in() -> None:
    """They become the global ones, and the library's telemetry appears there, what came before included."""
    code = """
reader, spans, heard = InMemoryMetricReader(), InMemorySpanExporter(), []
traces, meters, logs = TracerProvider(), MeterProvider([reader]), LoggerProvider()
traces.add_span_processor(SimpleSpanProcessor(spans))
total = measure_performance("total", sum)
total([1])
for _ in range(2):
    configure(tracer_provider=traces, meter_provider=meters, logger_provider=logs)
assert providers() == [traces, meters, logs]
total([1])
scopes = reader.get_metrics_data().resource_metrics[0].scope_metrics
(point,) = [m.data.data_points[0] for scope in scopes for m in scope.metrics if m.name == "perfopt.operation.duration"]
with subscribe("job.done", heard.append):
    logs.get_logger("jobs").emit(event_name="job.done")
print(json.dumps([point.count, [span.name for span in spans.get_finished_spans()], len(heard)]))
"""
    assert result(code) == [2, ["total"], 1]


def test_providers_that_are_set_already() -> None:
    """They are used as they are, and the rest is made."""
    code = """
reader, meters = InMemoryMetricReader(), None
meters = MeterProvider([reader])
metrics.set_meter_provider(meters)
configure(exporter="none", meter_provider=meters)
measure_performance("total", sum)([1])
names = {m.name for r in reader.get_metrics_data().resource_metrics for s in r.scope_metrics for m in s.metrics}
print(json.dumps([providers()[1] is meters, type(providers()[0]).__name__, "perfopt.operation.duration" in names]))
"""
    assert result(code) == [True, "TracerProvider", True]


def test_another_provider_than_the_global_one() -> None:
    """OpenTelemetry's globals cannot be replaced, so this is an error; nothing is changed."""
    code = """
metrics.set_meter_provider(MeterProvider())
before = providers()
try:
    configure(meter_provider=MeterProvider())
except ConfigurationError as error:
    print(json.dumps([error.context["setting"], all(one is other for one, other in zip(before, providers()))]))
"""
    assert result(code) == ["meter_provider", True]


def test_spans_can_be_turned_off() -> None:
    """With `spans="off"` no span is made, whatever provider is there; metrics go on."""
    code = """
spans = InMemorySpanExporter()
traces = TracerProvider()
traces.add_span_processor(SimpleSpanProcessor(spans))
configure(spans="off", tracer_provider=traces, exporter="none")

@cached(name="squares")
def square(number):
    return number * number

@measure_performance("steps")
def steps():
    yield 1

square(2)
list(steps())
none = len(spans.get_finished_spans())
configure(spans="auto")
square(3)
report = get_performance_report()
print(json.dumps([none, [span.name for span in spans.get_finished_spans()], report.operations["steps"].count]))
"""
    assert result(code) == [0, ["load squares"], 1]


def test_the_resource() -> None:
    """The name of the service is the argument's or the variable's; each process has an identity."""
    code = """
import os
configure(exporter="none"{arguments})
found = [dict(getattr(provider, "resource", None).attributes) for provider in (providers()[0], providers()[2])]
assert found[0] == found[1]
assert found[0]["service.instance.id"]
assert found[0]["process.pid"] == os.getpid()
print(json.dumps([found[0]["service.name"], found[0].get("team")]))
"""
    variables = {"OTEL_SERVICE_NAME": "from-variable", "OTEL_RESOURCE_ATTRIBUTES": "team=blue"}
    assert result(code.replace("{arguments}", ""), **variables) == ["from-variable", "blue"]
    assert result(code.replace("{arguments}", ", service_name='shop'"), **variables) == ["shop", "blue"]


def test_the_console() -> None:
    """Everything can be printed."""
    code = "configure(exporter='console')\nmeasure_performance('total', sum)([1])\nemit('order.paid')\nshutdown()"
    ended = run(START + code)
    assert not ended.errors
    for expected in ('"name": "total"', '"perfopt.operation.duration"', '"event_name": "order.paid"'):
        assert expected in ended.out


def test_readers_of_other_packages() -> None:
    """A metric reader that is installed as an exporter, such as that of Prometheus, is used as a reader."""
    pytest.importorskip("opentelemetry.exporter.prometheus")
    code = """
configure()
measure_performance("total", sum)([1])
from prometheus_client import generate_latest
print(json.dumps("perfopt_operation_duration_seconds_count" in generate_latest().decode()))
"""
    variables = {"OTEL_METRICS_EXPORTER": "prometheus", "OTEL_TRACES_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none"}
    assert result(code, **variables) is True


def test_the_port_tells_the_protocol() -> None:
    """4318 is OTLP over HTTP wherever nothing else is said."""
    code = """
from otel_perfopt.telemetry import settings
def spoken(exporter=None):
    return [[export.protocol, export.endpoint] for export in settings.exports(exporter)][0]
print(json.dumps([spoken(), spoken("http://collector:4318"), spoken("http://collector:4318/"), spoken("https://collector:4317")]))
"""
    assert result(code) == [
        ["grpc", "http://localhost:4317"],
        ["http/protobuf", "http://collector:4318/v1/traces"],
        ["http/protobuf", "http://collector:4318/v1/traces"],
        ["grpc", "https://collector:4317"],
    ]
    assert result(code, OTEL_EXPORTER_OTLP_PROTOCOL="grpc")[1] == ["grpc", "http://collector:4318"]


def test_importing_configures_nothing() -> None:
    """Importing the library loads no SDK and starts, opens and sets nothing."""
    code = """
import json, os, sys, threading
before = set(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else set()
import otel_perfopt, otel_perfopt.telemetry.configure
after = set(os.listdir("/proc/self/fd")) if before else set()
loaded = [name for name in ("grpc", "google.protobuf", "requests", "opentelemetry.sdk") if name in sys.modules]
print(json.dumps([loaded, threading.active_count(), len(after - before)]))
"""
    ended = run(code)
    assert ended.result == [[], 1, 0]
