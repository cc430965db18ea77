"""Spans, metrics and events arrive at a real OTLP backend, under the names of the table and with the report's figures."""

import subprocess
import sys
import textwrap
from typing import Any

import pytest

from otel_perfopt.telemetry import names
from tests.backends.processes import environment, run
from tests.backends.receivers import GrpcBackend, HttpBackend

SERVICE = """
    import json
    from otel_perfopt import cached, emit, emit_aggregated, get_performance_report, measure_performance
    from otel_perfopt.telemetry.configure import configure

    configure(service_name="shop")

    @cached(name="squares", max_size=3)
    def square(number):
        if number < 0:
            raise ValueError(number)
        return number * number

    @measure_performance("orders.total")
    def total(prices):
        return sum(prices)

    for number in [1, 1, 2, 3, 4, 5, -1]:
        try:
            square(number)
        except ValueError:
            pass
    for _ in range(5):
        total([1])
    try:
        total(None)
    except TypeError:
        pass
    emit("order.paid", {"amount": 3})
    for size in (2, 5):
        emit_aggregated("cart.changed", {"component": "shop", "items": size})
    report = get_performance_report()
    cache, operation = report.caches["squares"], report.operations["orders.total"]
    print(json.dumps([cache.hit_count, cache.miss_count, cache.size, operation.count, operation.total_duration]))
"""


def value(backend: Any, metric: names.Metric, **attributes: str) -> Any:
    """The last value of the one series with these attributes."""
    wanted = {names.__dict__[key]: value for key, value in attributes.items()}
    (point,) = [p for key, p in backend.last(metric.name).items() if wanted.items() <= dict(key).items()]
    return point


def test_figures_equal_the_report(backend: HttpBackend | GrpcBackend) -> None:
    """What arrives is what the report says, signal by signal."""
    hits, misses, size, calls, seconds = run(SERVICE, backend=backend).result

    assert value(backend, names.CACHE_REQUESTS, CACHE_NAME="squares", CACHE_RESULT="hit").value == hits == 1
    assert value(backend, names.CACHE_REQUESTS, CACHE_NAME="squares", CACHE_RESULT="miss").value == misses == 6
    assert value(backend, names.CACHE_ENTRY_COUNT, CACHE_NAME="squares").value == size == 3
    durations = backend.last(names.OPERATION_DURATION.name).values()
    assert sum(point.value for point in durations) == calls == 6
    assert [point.value for point in durations if point.attributes.get(names.ERROR_TYPE) == "TypeError"] == [1]
    assert sum(point.total for point in durations) == pytest.approx(seconds, rel=1e-9)

    assert [span.name for span in backend.spans].count("load squares") == 6
    assert [span.name for span in backend.spans].count("orders.total") == 6
    assert {span.scope for span in backend.spans} == {"otel_perfopt"}
    assert [s.attributes[names.ERROR_TYPE] for s in backend.spans if names.ERROR_TYPE in s.attributes] == [
        "ValueError",
        "TypeError",
    ]

    events = {record.event: record.attributes for record in backend.records}
    assert events["order.paid"] == {"amount": 3}
    assert events["cart.changed"]["count"] == 2
    assert events["cache.hit"] == {"cache": "squares", "count": 1}
    assert events["performance.metric"]["count"] == 6
    assert {record.resource["service.name"] for record in backend.records} == {"shop"}


def test_metrics_are_those_of_the_table(backend: HttpBackend | GrpcBackend) -> None:
    """Nothing arrives that is not in the table, with no attributes but the table's."""
    run(SERVICE, backend=backend)
    table = {metric.name: metric for metric in names.METRICS}
    ours = [point for point in backend.points if point.metric.startswith("perfopt.")]
    assert len({point.metric for point in ours}) > 8
    for point in ours:
        assert set(point.attributes) <= set(table[point.metric].attributes)


def test_metrics_arrive_while_the_process_runs(backend: HttpBackend | GrpcBackend) -> None:
    """The interval is the variable's; nobody has to wait for the exit."""
    code = """
        import sys
        from otel_perfopt import measure_performance
        from otel_perfopt.telemetry.configure import configure

        configure()
        measure_performance("op", lambda: None)()
        print("ready", flush=True)
        sys.stdin.read()
    """
    variables = {"OTEL_METRIC_EXPORT_INTERVAL": "100", "OTEL_BSP_SCHEDULE_DELAY": "100", "OTEL_SERVICE_NAME": "shop"}
    env = environment(backend, variables)
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], env=env, stdin=subprocess.PIPE) as process:
        try:
            backend.wait_for(lambda: backend.last(names.OPERATION_DURATION.name) and backend.spans)
            assert process.poll() is None
        finally:
            process.communicate(timeout=30)
    assert {point.resource["service.name"] for point in backend.points} == {"shop"}


def test_variables_of_a_signal() -> None:
    """Each signal can have its own protocol and endpoint, or none."""
    with HttpBackend() as http, GrpcBackend() as grpc:
        run(
            SERVICE,
            OTEL_EXPORTER_OTLP_TRACES_PROTOCOL="http/protobuf",
            OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=f"{http.endpoint}/v1/traces",
            OTEL_EXPORTER_OTLP_COMPRESSION="gzip",
            OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=grpc.endpoint,
            OTEL_LOGS_EXPORTER="none",
        )
    assert http.spans
    assert not http.points
    assert grpc.points
    assert not grpc.spans
    assert not http.records
    assert not grpc.records


def test_temporality_and_aggregation() -> None:
    """The variables for metrics hold."""
    with HttpBackend() as http:
        ended = run(
            SERVICE,
            backend=http,
            OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE="delta",
            OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION="base2_exponential_bucket_histogram",
            OTEL_EXPORTER_OTLP_COMPRESSION="none",
        )
    assert sum(point.value for point in http.points if point.metric == names.OPERATION_DURATION.name) == 6
    assert not ended.errors


def test_no_compression_over_grpc() -> None:
    """The word "none" is understood, although the SDK's exporter does not know it."""
    with GrpcBackend() as grpc:
        assert not run(SERVICE, backend=grpc, OTEL_EXPORTER_OTLP_COMPRESSION="none").errors
    assert grpc.spans


def test_an_endpoint_as_exporter(backend: HttpBackend | GrpcBackend) -> None:
    """`exporter="http://..."` stands for the variable."""
    code = SERVICE.replace('"shop")', f'"shop", exporter="{backend.endpoint}")')
    run(code, OTEL_EXPORTER_OTLP_PROTOCOL=backend.protocol, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9")
    assert backend.spans
    assert backend.points
    assert backend.records


def test_sampling() -> None:
    """The sampler is the variable's."""
    with HttpBackend() as http:
        run(SERVICE, backend=http, OTEL_TRACES_SAMPLER="traceidratio", OTEL_TRACES_SAMPLER_ARG="0")
    assert not http.spans
    assert http.points
