"""The OpenTelemetry Collector with the settings of `integrations/collector/`, between a service and its backends."""

import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.backends.jaeger import Jaeger
from tests.backends.processes import run
from tests.backends.programs import program
from tests.backends.receivers import HttpBackend
from tests.backends.servers import Server, free_port, wait_for

SETTINGS = Path(__file__).resolve().parents[2] / "integrations" / "collector" / "collector.yaml"
SERVICE = """
    import json
    from opentelemetry import trace
    from otel_perfopt import cached, configure, emit, shutdown

    configure()

    @cached(name="users")
    def user(number):
        return number

    with trace.get_tracer("web").start_as_current_span("GET /user") as span:
        for number in (1, 1, 2):
            user(number)
        emit("user.shown", {"number": 2})
    print(json.dumps([shutdown(), format(span.get_span_context().trace_id, "032x")]))
"""


@dataclass(frozen=True)
class Collector:
    """A Collector that runs.

    Attributes:
        endpoints: where it takes telemetry, by protocol.
        metrics: where Prometheus finds the metrics.
        logs: what gets the logs, in the place of Loki.
    """

    endpoints: dict[str, str]
    metrics: str
    logs: HttpBackend


@pytest.fixture(scope="module")
def collector(jaeger: Jaeger, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    """A Collector in front of Jaeger."""
    ports = {name: free_port() for name in ("OTLP_GRPC", "OTLP_HTTP", "METRICS", "HEALTH")}
    at = {name: f"127.0.0.1:{port}" for name, port in ports.items()}
    with HttpBackend() as logs:
        variables = {**at, "TRACES": jaeger.otlp_grpc, "LOGS": logs.endpoint}
        command = [program("otelcol"), "--config", SETTINGS]
        folder = tmp_path_factory.mktemp("collector")
        with Server(command, ready=f"http://{at['HEALTH']}", folder=folder, variables=variables):
            endpoints = {"grpc": f"http://{at['OTLP_GRPC']}", "http/protobuf": f"http://{at['OTLP_HTTP']}"}
            yield Collector(endpoints, f"http://{at['METRICS']}/metrics", logs)


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_each_signal_goes_where_it_belongs(protocol: str, collector: Collector, jaeger: Jaeger) -> None:
    """Spans to Jaeger, metrics where Prometheus looks, events to the store of logs, each once and with the same trace."""
    service = f"collected-{protocol.partition('/')[0]}"
    variables = {"OTEL_SERVICE_NAME": service, "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoints[protocol]}
    arrived, trace_id = run(SERVICE, variables=variables, OTEL_EXPORTER_OTLP_PROTOCOL=protocol).result
    assert arrived
    spans = jaeger.trace(trace_id, lambda spans: len(spans) > 2)
    assert sorted(span.name for span in spans) == ["GET /user", "load users", "load users"]
    assert {span.resource["service.name"] for span in spans} == {service}

    def hits() -> list[str]:
        with urllib.request.urlopen(collector.metrics) as page:
            lines = page.read().decode().splitlines()
        return [line for line in lines if line.startswith("perfopt_cache_requests_total{") and f'job="{service}"' in line]

    def shown() -> list[str]:
        return [each.event for each in collector.logs.records if each.resource["service.name"] == service]

    assert sorted(float(line.rpartition(" ")[2]) for line in wait_for(hits)) == [0, 1, 2]  # stale, hit, miss
    collector.logs.wait_for(lambda: "user.shown" in shown())
    assert shown().count("user.shown") == 1


def test_the_compose_file_mounts_these_settings() -> None:
    """Who has Docker gets the same file."""
    assert f"./{SETTINGS.name}:" in (SETTINGS.parent / "compose.yaml").read_text()
