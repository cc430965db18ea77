"""Captures: what the library tells in a block, whatever else listens, and nobody else notices."""

import json
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import StatusCode

from otel_perfopt import (
    BatchProcessor,
    Cache,
    ResourcePool,
    emit,
    emit_aggregated,
    measure_performance,
    record_performance_metric,
    subscribe,
    traced,
)
from otel_perfopt.telemetry import spans
from otel_perfopt.testing import Captured, capture
from tests.cache.support import passed, results, spawn_many
from tests.testing.support import exit_code_of_child, forks

REQUESTS = "perfopt.cache.requests"


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A name for a component that no other test uses."""
    return str(request.node.nodeid).replace("::", ".")


@pytest.fixture
def cache(name: str) -> Cache[int, int]:
    """A cache of its own."""
    return Cache(name)


Provide = Callable[..., InMemorySpanExporter]


@pytest.fixture
def provide(monkeypatch: pytest.MonkeyPatch) -> Provide:
    """Set a provider for the library alone, and return where its spans go."""

    def provide(**options: Any) -> InMemorySpanExporter:
        exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False, resource=Resource({}), **options)
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        monkeypatch.setattr(spans, "_tracer", provider.get_tracer("otel_perfopt"))
        return exporter

    return provide


def in_a_process(code: str) -> Any:
    """What code prints in a process of its own, as JSON."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    env["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(code)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def names_of(found: Any) -> list[str]:
    """The names of spans or events."""
    return [each.name for each in found]


# metrics -----------------------------------------------------------------------------------------------


def test_counters_are_told_as_changes(cache: Cache[int, int], name: str) -> None:
    """What was before and what comes after is not in it."""
    cache.get(1, lambda: 1)
    with capture() as captured:
        assert captured.metric(REQUESTS, name=name) == 0
        cache.get(1)
        assert captured.metric(REQUESTS, name=name) == 1
        cache.get(2, lambda: 2)
        cache.get(2)
    cache.get(1)
    assert captured.metric(REQUESTS, name=name) == 3
    assert captured.metric(REQUESTS, name=name, result="hit") == 2
    assert captured.metric(REQUESTS, name=name, result="miss") == 1
    assert isinstance(captured.metric(REQUESTS, name=name), int)


def test_attributes_can_be_written_out(cache: Cache[int, int], name: str) -> None:
    """Or be the end of it; None is for those that do not have it."""
    with capture() as captured:
        cache.get(1, lambda: 1)
        cache.get(1)
    for written in ("perfopt.cache.name", "perfopt_cache_name", "cache_name", "name"):
        assert captured.metric(REQUESTS, **{written: name}) == 2
    assert captured.metric(REQUESTS, name=name, tier="memory") == 1
    assert captured.metric(REQUESTS, name=name, tier=None) == 1
    assert captured.metric(REQUESTS, name=f"{name}!") == 0


def test_without_attributes_all_are_added_up(name: str) -> None:
    """Over all caches."""
    with capture() as captured:
        for number in range(3):
            Cache[int, int](f"{name} {number}").get(1)
    assert captured.metric(REQUESTS) == 3


def test_histograms_are_counted_and_added_up(name: str) -> None:
    """Failures have an error type."""
    record_performance_metric(name, 1.0)
    with capture() as captured:
        record_performance_metric(name, 2.0)
        record_performance_metric(name, 0.0)
        record_performance_metric(name, 3.0, success=False, error_type="ValueError")
    record_performance_metric(name, 4.0)
    duration = "perfopt.operation.duration"
    assert (captured.metric(duration, name=name), captured.total(duration, name=name)) == (3, 5.0)
    assert captured.metric(duration, name=name, error_type="ValueError") == 1
    assert captured.total(duration, name=name, error_type=None) == 2.0


def test_what_goes_up_and_down_is_told_as_it_is(cache: Cache[int, int], name: str) -> None:
    """At the moment, and later as it was in the end."""
    cache.set(1, 1)
    with capture() as captured:
        assert captured.metric("perfopt.cache.entry.count", name=name) == 1
        cache.set(2, 2)
        assert captured.metric("perfopt.cache.entry.count", name=name) == 2
    cache.clear()
    assert captured.metric("perfopt.cache.entry.count", name=name) == 2
    assert captured.total("perfopt.cache.entry.limit", name=name) == 1000


def test_pools_and_batches(name: str) -> None:
    """Everything that the library counts."""
    with capture() as captured:
        with ResourcePool(name, object) as pool, pool.lease():
            assert captured.metric("perfopt.pool.count", name=name, state="used") == 1
        with BatchProcessor[int, int](name, list, batch_size=3, batch_timeout=60) as processor:
            assert [future.result(10) for future in [processor.add(n) for n in range(6)]] == list(range(6))
    assert captured.metric("perfopt.pool.acquires", name=name) == 1
    assert captured.metric("perfopt.batch.flushes", name=name, reason="size") == 2
    assert (captured.metric("perfopt.batch.size", name=name), captured.total("perfopt.batch.size", name=name)) == (2, 6.0)


def test_components_that_come_and_go(name: str) -> None:
    """What they have counted stays."""
    with capture() as captured:
        Cache[int, int](name).get(1)
        assert captured.metric(REQUESTS, name=name) == 1
    assert captured.metric(REQUESTS, name=name) == 1


def test_an_unknown_metric() -> None:
    """Near ones are told; where there are none, all of them."""
    with (
        capture() as captured,
        pytest.raises(LookupError, match=r"perfopt\.cache\.request'; there are: perfopt\.cache\.requests"),
    ):
        captured.metric("perfopt.cache.request")
    with pytest.raises(LookupError, match=r"perfopt\.batch\.duration.*perfopt\.pool\.count"):
        captured.total("xyz")


def test_an_unknown_attribute() -> None:
    """Not taken for one that no series has; a part of a word is none."""
    with capture() as captured, pytest.raises(LookupError, match=r"no attribute 'reason'; it has: perfopt\.cache\.name"):
        captured.metric(REQUESTS, reason="size")
    with pytest.raises(LookupError, match="'ame'"):
        captured.metric(REQUESTS, ame="x")


def note(seen: list[bool]) -> int:
    """A loader that notes whether there is a span."""
    seen.append(trace.get_current_span().is_recording())
    return 1


# spans -------------------------------------------------------------------------------------------------


@measure_performance("outer")
def outer(cache: Cache[int, int]) -> None:
    """Loads."""
    cache.get(1, lambda: 1)


@pytest.mark.parametrize("has_provider", [True, False])
def test_spans(cache: Cache[int, int], name: str, has_provider: bool, provide: Provide) -> None:
    """With their parents and attributes, whether or not there is a provider."""
    exporter = provide() if has_provider else None
    with capture() as captured:
        assert captured.spans == []
        outer(cache)
        load, operation = captured.spans
    outer(cache)
    assert names_of(captured.spans) == [f"load {name}", "outer"]
    assert load.parent is not None
    assert operation.context is not None
    assert (load.parent.span_id, operation.parent) == (operation.context.span_id, None)
    assert dict(load.attributes or {}) == {"perfopt.cache.name": name}
    assert load.end_time is not None
    if exporter is not None:
        assert names_of(exporter.get_finished_spans()) == [f"load {name}", "outer", "outer"]
    assert not trace.get_current_span().get_span_context().is_valid


@pytest.mark.parametrize("has_provider", [True, False])
def test_failed_spans(has_provider: bool, provide: Provide, name: str) -> None:
    """With a status and an error type."""
    if has_provider:
        provide()

    @traced(name)
    def fail() -> None:
        raise ValueError("no")

    with capture() as captured, pytest.raises(ValueError, match="no"):
        fail()
    [span] = captured.spans
    assert span.status.status_code is StatusCode.ERROR
    assert dict(span.attributes or {}) == {"error.type": "ValueError"}


@pytest.mark.parametrize("has_provider", [True, False])
def test_spans_with_links(has_provider: bool, provide: Provide, name: str) -> None:
    """Those of batches, which have no parent."""
    if has_provider:
        provide()

    with capture() as captured, BatchProcessor[int, int](name, list, batch_size=1) as processor:

        @traced("caller")
        def call() -> None:
            processor.add(1).result(10)

        call()
    found = {span.name: span for span in captured.spans}
    flush, caller = found[f"flush {name}"], found["caller"]
    assert flush.parent is None
    assert [link.context for link in flush.links] == [caller.context]


def test_a_span_under_that_of_the_application(cache: Cache[int, int], name: str, provide: Provide) -> None:
    """Which is not the library's, and not in the capture."""
    provider = TracerProvider(shutdown_on_exit=False, resource=Resource({}))
    with capture() as captured, provider.get_tracer("application").start_as_current_span("request") as request:
        cache.get(1, lambda: 1)
    [load] = captured.spans
    assert load.parent == request.get_span_context()
    assert load.name == f"load {name}"


def test_the_sampler_of_the_application_decides(cache: Cache[int, int], provide: Provide) -> None:
    """What it drops is not made up for: the trace goes on as it would."""
    provide(sampler=ALWAYS_OFF)
    seen: list[bool] = []
    with capture() as captured:
        cache.get(1, lambda: note(seen))
    assert captured.spans == []
    assert seen == [False]


def test_no_spans_are_made_after_a_capture(cache: Cache[int, int]) -> None:
    """Nor by a span that began in it."""
    seen: list[bool] = []

    @traced("late")
    def late() -> None:
        with capture():
            inner = spans.start("ends later")
        spans.end(inner)
        seen.append(trace.get_current_span().is_recording())

    late()
    cache.get(1, lambda: note(seen))
    assert seen == [False, False]


def test_an_error_of_a_span_processor_hides_no_span(cache: Cache[int, int], name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The application's own troubles are not the test's."""

    class Raising(SimpleSpanProcessor):
        """Cannot take anything."""

        def on_end(self, span: Any) -> None:
            raise RuntimeError("full")

    provider = TracerProvider(shutdown_on_exit=False, resource=Resource({}))
    provider.add_span_processor(Raising(InMemorySpanExporter()))
    monkeypatch.setattr(spans, "_tracer", provider.get_tracer("otel_perfopt"))
    with capture() as captured:
        cache.get(1, lambda: 1)
    assert names_of(captured.spans) == [f"load {name}"]


# events ------------------------------------------------------------------------------------------------


def test_events() -> None:
    """Of the block, in their order, with what is known of them."""
    emit("order.before")
    with capture() as captured:
        emit("order.paid", {"amount": 3})
        assert names_of(captured.events) == ["order.paid"]
        emit("order.sent")
    emit("order.after")
    assert [(event.name, event.attributes) for event in captured.events] == [("order.paid", {"amount": 3}), ("order.sent", {})]


def test_events_that_are_told_every_few_seconds(cache: Cache[int, int], name: str) -> None:
    """Nobody has to wait for them; those of what was before are not in it."""
    cache.get(1, lambda: 1)
    emit_aggregated("cart.changed", {"component": name, "items": 1})
    with capture() as captured:
        emit_aggregated("cart.changed", {"component": name, "items": 2})
        emit_aggregated("cart.changed", {"component": name, "items": 3})
        cache.get(1)
        cache.get(1)
        assert {"cart.changed", "cache.hit"} <= set(names_of(captured.events))
    mine = {event.name: event.attributes for event in captured.events if name in event.attributes.values()}
    assert mine.keys() == {"cart.changed", "cache.hit"}
    assert mine["cache.hit"] == {"cache": name, "count": 2}
    assert (mine["cart.changed"]["count"], mine["cart.changed"]["items.sum"]) == (2, 5)


def test_other_subscribers_hear_everything(name: str) -> None:
    """Nothing is taken away from them."""
    heard: list[Any] = []
    with subscribe("cart.*", heard.append):
        emit_aggregated("cart.changed", {"component": name})
        with capture() as captured:
            emit_aggregated("cart.changed", {"component": name})
            emit("cart.sent")
    assert [event.attributes.get("count") for event in heard if event.name == "cart.changed"] == [1, 1]
    assert names_of(heard) == ["cart.changed", "cart.sent", "cart.changed"]
    assert heard[1:] == [event for event in captured.events if event.name.startswith("cart.")]


# captures ----------------------------------------------------------------------------------------------


def summary(captured: Captured, name: str) -> tuple[float, int, int]:
    """What a capture has of one name."""
    return (
        captured.metric(REQUESTS, name=name),
        names_of(captured.spans).count(f"load {name}"),
        names_of(captured.events).count(name),
    )


def test_captures_can_be_nested(cache: Cache[int, int], name: str) -> None:
    """Each has what happened in its own time."""

    def tell(key: int) -> None:
        cache.get(key, lambda: key)
        emit(name)

    with capture() as whole:
        tell(1)
        with capture() as part:
            tell(2)
        tell(3)
        assert summary(part, name) == (1, 1, 1)
    assert summary(whole, name) == (3, 3, 3)


def test_captures_can_overlap(cache: Cache[int, int], name: str) -> None:
    """In any order, also if the first one ends first."""
    first, second = capture(), capture()
    one = first.__enter__()
    cache.get(1, lambda: 1)
    other = second.__enter__()
    cache.get(2, lambda: 2)
    first.__exit__(None, None, None)
    cache.get(3, lambda: 3)
    second.__exit__(None, None, None)
    cache.get(4, lambda: 4)
    assert (summary(one, name), summary(other, name)) == ((2, 2, 0), (2, 2, 0))


def test_captures_in_threads(cache: Cache[int, int], name: str) -> None:
    """Each hears what all do meanwhile."""
    together = threading.Barrier(4)
    numbers = iter(range(4))

    def work() -> tuple[float, int, int]:
        key = next(numbers)
        with capture() as captured:
            together.wait(20)
            cache.get(key, lambda: key)
            emit(name)
            together.wait(20)
        return summary(captured, name)

    assert results(spawn_many(4, work)) == [(4, 4, 4)] * 4


def test_a_capture_ends_with_an_error(cache: Cache[int, int], name: str) -> None:
    """Which comes through, and what was told can be asked for."""
    with pytest.raises(ZeroDivisionError), capture() as captured:
        cache.get(1, lambda: 1 // 0)
    cache.get(1)
    assert summary(captured, name) == (1, 1, 0)
    assert captured.metric("perfopt.cache.load.duration", name=name, error_type="ZeroDivisionError") == 1
    assert (spans._on_end, spans._stand_in) == (None, None)


def test_repr() -> None:
    """How much there is."""
    with capture() as captured:
        emit("order.paid")
        spans.end(spans.start("one"))
    assert repr(captured).startswith("<Captured 1 spans, ")


@forks
def test_a_forked_child_counts_from_zero(cache: Cache[int, int], name: str) -> None:
    """It tells what happens in the child, and can capture itself."""
    cache.get(1, lambda: 1)

    def check() -> bool:
        cache.get(1)
        with capture() as own:
            cache.get(1)
        return (captured.metric(REQUESTS, name=name), own.metric(REQUESTS, name=name)) == (2, 1)

    with capture() as captured:
        cache.get(1)
        assert exit_code_of_child(check) == 0
    assert captured.metric(REQUESTS, name=name) == 1


def test_real_providers_are_not_disturbed() -> None:
    """They get what they would get, in the order in which an application may set them; and the capture has it, too."""
    told = in_a_process("""
        import json
        from opentelemetry import metrics, trace
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import InMemoryMetricReader
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
        from otel_perfopt import Cache
        from otel_perfopt.testing import capture

        cache = Cache("users")

        def load(key):
            cache.get(key, lambda: key)

        load(1)
        with capture() as unset:
            load(2)
            reader, exporter = InMemoryMetricReader(), InMemorySpanExporter()
            metrics.set_meter_provider(MeterProvider([reader]))
            provider = TracerProvider()
            provider.add_span_processor(SimpleSpanProcessor(exporter))
            trace.set_tracer_provider(provider)
            load(3)
        with capture() as is_set:
            load(4)
        load(5)
        loads = "perfopt.cache.load.duration"
        points = {
            metric.name: sum(getattr(point, "count", 0) or getattr(point, "value", 0) for point in metric.data.data_points)
            for scope in reader.get_metrics_data().resource_metrics[0].scope_metrics
            for metric in scope.metrics
        }
        print(json.dumps([
            points["perfopt.cache.requests"], points[loads], len(exporter.get_finished_spans()),
            [(each.metric("perfopt.cache.requests"), each.metric(loads), len(each.spans)) for each in (unset, is_set)],
        ]))
    """)
    assert told == [5, 5, 3, [[2, 2, 2], [1, 1, 1]]]


@pytest.mark.parametrize("variables", [{}, {"OTEL_SDK_DISABLED": "true"}])
def test_importing_it_loads_no_sdk(variables: dict[str, str]) -> None:
    """Nor pytest; and with the SDK switched off, a capture has metrics and events."""
    told = in_a_process(f"""
        import json, os, sys, threading
        os.environ.update({variables!r})
        import otel_perfopt.testing
        loaded = [name for name in sys.modules if name.startswith(("opentelemetry.sdk", "pytest", "_pytest", "structlog"))]
        from otel_perfopt import Cache, emit
        with otel_perfopt.testing.capture() as captured:
            Cache("users").get(1, lambda: 1)
            emit("done")
        events = [event.name for event in captured.events]
        print(json.dumps([loaded, captured.metric("perfopt.cache.requests"), len(captured.spans), events]))
    """)
    assert told == [[], 1, 0 if variables else 1, ["done", "cache.miss"]]


def test_a_call_that_lasts_longer_than_a_capture(cache: Cache[int, int], name: str) -> None:
    """Its span is nobody's, and nothing breaks."""
    entered, let_go = threading.Event(), threading.Event()

    def load() -> int:
        entered.set()
        passed(let_go)
        return 1

    with capture() as captured:
        [call] = spawn_many(1, lambda: cache.get(1, load))
        passed(entered)
    let_go.set()
    assert results([call]) == [1]
    assert captured.spans == []
