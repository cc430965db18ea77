"""The same figures at the application's own provider, although it is set late."""

from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from otel_perfopt import cached


@cached(name="squares")
def square(number: int) -> int:
    """Return the square of a number."""
    return number * number


def main() -> None:
    square(1), square(1)  # before any provider is set: delivered all the same

    reader, spans = InMemoryMetricReader(), InMemorySpanExporter()
    metrics.set_meter_provider(MeterProvider([reader]))
    tracers = TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(spans))
    trace.set_tracer_provider(tracers)
    square(2)

    print("spans:", [span.name for span in spans.get_finished_spans()])
    data = reader.get_metrics_data()
    for metric in (m for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics) if data else ():
        for point in metric.data.data_points:
            figure = getattr(point, "value", None) if hasattr(point, "value") else f"{point.count} recorded"
            print(f"{metric.name:32} {dict(point.attributes or {})} {figure}")


if __name__ == "__main__":
    main()
