"""What the tests of telemetry share: providers that nobody else sees, and processes of their own."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from otel_perfopt.telemetry import instruments, names, spans

Script = Callable[..., Any]


@pytest.fixture
def script() -> Script:
    """Run code in a fresh process and return what it prints last, as JSON; keyword arguments are environment variables."""

    def run(code: str, *, timeout: float = 50, **variables: str) -> Any:
        env = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "PYTHON"))}
        env |= {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **variables}
        process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            out, errors = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # its children, too
            out, errors = process.communicate()
            pytest.fail(f"still running after {timeout} s\n{out}{errors}", pytrace=False)
        if process.returncode != 0:
            pytest.fail(f"exit code {process.returncode}\n{out}{errors}", pytrace=False)
        assert not errors, errors
        return json.loads(out.splitlines()[-1])

    return run


class Collected:
    """What a reader has collected about one component."""

    def __init__(self, data: Any) -> None:
        self.metrics = {
            metric.name: metric
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def points(self, metric: names.Metric | str, component: str | None = None) -> list[Any]:
        """The points of a metric; of one component, or all."""
        found = self.metrics.get(metric if isinstance(metric, str) else metric.name)
        points = [] if found is None else list(found.data.data_points)
        return [point for point in points if component is None or component in (point.attributes or {}).values()]

    def values(self, metric: names.Metric, component: str) -> dict[str, float]:
        """The values of a metric, by the attributes beside the name."""
        return {
            ",".join(value for key, value in sorted(point.attributes.items()) if not key.endswith(".name")): point.value
            for point in self.points(metric, component)
        }

    def total(self, metric: names.Metric, component: str) -> tuple[int, float]:
        """The count and the sum of a histogram over all error types."""
        points = self.points(metric, component)
        return sum(point.count for point in points), sum(point.sum for point in points)


class Service:
    """A meter provider as an application has one, with this library's instruments, but not the global one."""

    def __init__(self, *readers: Any, views: Any = (), **options: Any) -> None:
        self.readers = readers or (InMemoryMetricReader(),)
        self.provider = MeterProvider([*self.readers], resource=Resource({}), views=views, shutdown_on_exit=False, **options)
        instruments.observe_all_with(self.provider.get_meter(names.SCOPE), replay=True)

    def collect(self, reader: int = 0) -> Collected:
        """What a reader has to say."""
        return Collected(self.readers[reader].get_metrics_data())


@pytest.fixture
def service() -> Iterator[Callable[..., Service]]:
    """Make services; what other tests have recorded is not replayed to them."""
    made: list[Service] = []

    def make(*readers: Any, **options: Any) -> Service:
        if not made:
            for _, latency in instruments.latencies():
                for _ in latency.replay():
                    pass
        made.append(Service(*readers, **options))
        return made[-1]

    yield make
    for each in made:
        each.provider.shutdown()


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A name for a component that no other test uses."""
    return str(request.node.nodeid).replace("::", ".")


@pytest.fixture
def record_spans(monkeypatch: pytest.MonkeyPatch) -> Callable[..., InMemorySpanExporter]:
    """Let the library's spans go to an exporter, without setting the global provider; takes the options of a provider."""

    def record(**options: Any) -> InMemorySpanExporter:
        exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False, resource=Resource({}), **options)
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        monkeypatch.setattr(spans, "_tracer", provider.get_tracer(names.SCOPE))
        return exporter

    return record


@pytest.fixture
def exporter(record_spans: Callable[..., InMemorySpanExporter]) -> InMemorySpanExporter:
    """Where the spans of this test go."""
    return record_spans()
