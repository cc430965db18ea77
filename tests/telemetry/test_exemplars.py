"""Exemplars: a duration that is replayed to a provider names the span that it was measured in."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, TraceFlags

from otel_perfopt.telemetry.latency import Latency
from tests.backends.processes import run

SAMPLED, UNSAMPLED = TraceFlags(TraceFlags.SAMPLED), TraceFlags(TraceFlags.DEFAULT)
SERVICE = """
    import json, threading
    from opentelemetry import metrics, trace
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
    import otel_perfopt

    reader, spans, provider = InMemoryMetricReader(), InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    trace.set_tracer_provider(provider)
    metrics.set_meter_provider(MeterProvider([reader]))

    @otel_perfopt.cached(name="users")
    def user(number):
        return 1 // number

    @otel_perfopt.measure_performance("orders.total", span=True)
    def total():
        return otel_perfopt.LazyLoader(lambda: 1, name="rates").get()

    @otel_perfopt.measure_performance("orders.quick", span=False)
    def quick():
        pass

    for number in (1, 0):
        try:
            user(number)
        except ZeroDivisionError:
            pass
    total()
    quick()
    pool = otel_perfopt.ResourcePool("connections", object, min_size=0)
    with pool.lease():
        pass
    with otel_perfopt.BatchProcessor("writes", lambda items: items) as writes:
        writes.add(1).result()
    found = {}
    for resource in reader.get_metrics_data().resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics if scope.scope.name == "otel_perfopt" else ():
                for point in metric.data.data_points:
                    for exemplar in point.exemplars:
                        assert point.min <= exemplar.value <= point.max
                        found.setdefault(metric.name, []).append((exemplar.trace_id, exemplar.span_id))
    again = [
        exemplar
        for resource in reader.get_metrics_data().resource_metrics
        for scope in resource.scope_metrics if scope.scope.name == "otel_perfopt"
        for metric in scope.metrics for point in metric.data.data_points for exemplar in point.exemplars
    ]
    names = {(span.context.trace_id, span.context.span_id): span.name for span in spans.get_finished_spans()}
    print(json.dumps([{name: sorted(names[ids] for ids in exemplars) for name, exemplars in found.items()}, len(again)]))
"""


def test_a_provider_gets_the_spans_of_what_was_slow() -> None:
    """Loads, failures, creations, waits, batches and measured functions name their spans, once; one without a span names none."""
    found, again = run(SERVICE).result
    assert found == {
        "perfopt.cache.load.duration": ["load users", "load users"],
        "perfopt.lazy.load.duration": ["load rates"],
        "perfopt.operation.duration": ["orders.total"],
        "perfopt.pool.create_time": ["create connections"],
        "perfopt.pool.wait_time": ["acquire connections"],
        "perfopt.batch.duration": ["flush writes"],
    }
    assert again == 0


def span(number: int, flags: TraceFlags = SAMPLED) -> Span:
    """A span with an id of its own."""
    return NonRecordingSpan(SpanContext(number, number, is_remote=False, trace_flags=flags))


def examples(series: Latency) -> list[tuple[float, int]]:
    """What is replayed with the id of a span."""
    found: Any = [(value, series.example(value)) for value in series.replay()]
    return [(value, about.span_id) for value, about in found if about is not None]


@given(st.lists(st.floats(1e-6, 1e4), min_size=1, max_size=200))
def test_an_example_is_like_what_was_measured(values: list[float]) -> None:
    """Whatever is replayed with a span is within 1.2 % of the duration of that span, and no span comes twice."""
    series = Latency({})
    for number, value in enumerate(values, 1):
        series.record_in(value, span(number))
    found = examples(series)
    assert all(abs(values[number - 1] - value) <= 0.012 * value for value, number in found)
    assert len({number for _, number in found}) == len(found)
    assert found, "the smallest and the largest are replayed as they were"
    assert examples(series) == []


@pytest.mark.parametrize("about", [span(0), span(7, UNSAMPLED)], ids=["none", "unsampled"])
def test_a_span_that_nobody_will_find_is_no_example(about: Span) -> None:
    """Without a trace, and in one that is not sampled."""
    series = Latency({})
    series.record_in(1.0, about)
    assert examples(series) == []


def test_the_last_one_of_its_kind_is_kept() -> None:
    """A thousand durations take no more memory than one."""
    series = Latency({})
    for number in range(1, 1001):
        series.record_in(0.25, span(number))
    assert examples(series) == [(0.25, 1000)]
