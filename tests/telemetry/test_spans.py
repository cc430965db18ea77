"""Spans: around loads and measured calls, with the right parents, and never in the caller's way."""

import asyncio
import contextvars
import gc
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from opentelemetry import context, trace
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode

from otel_perfopt import Cache, get_performance_report, measure_performance, traced
from otel_perfopt.telemetry import names, spans


@pytest.fixture(autouse=True)
def nothing_leaks(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """After each test no span is current, and nothing was logged about a context."""
    with caplog.at_level(logging.DEBUG, "opentelemetry"):
        yield
        assert not trace.get_current_span().get_span_context().is_valid
    assert [record.getMessage() for record in caplog.records if "context" in record.getMessage()] == []


def outer(name: str = "outer") -> Any:
    """A span of the application's own, as the current one."""
    return spans.tracer().start_as_current_span(name)


def finished(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    """The spans that have ended, by name."""
    ended = exporter.get_finished_spans()
    found = {span.name: span for span in ended}
    assert len(found) == len(ended)
    return found


def is_child(span: ReadableSpan, parent: ReadableSpan) -> bool:
    """Whether `parent` is the parent of `span`."""
    assert parent.context is not None
    return span.parent is not None and span.parent.span_id == parent.context.span_id


def test_a_load_has_a_span(exporter: InMemorySpanExporter, name: str) -> None:
    """Named after the cache, under the caller's; a hit has none."""
    cache, inside = Cache(name), list[Any]()
    with outer():
        cache.get(1, lambda: inside.append(trace.get_current_span().name))  # type: ignore[attr-defined]
        cache.get(1)
        cache.get(2)
    load, caller = finished(exporter)[f"load {name}"], finished(exporter)["outer"]
    assert len(exporter.get_finished_spans()) == 2
    assert is_child(load, caller)
    assert dict(load.attributes or {}) == {names.CACHE_NAME: name}
    assert (load.kind, load.status.status_code, load.events, load.links) == (SpanKind.INTERNAL, StatusCode.UNSET, (), ())
    assert load.instrumentation_scope is not None
    assert load.instrumentation_scope.name == names.SCOPE
    assert inside == [f"load {name}"]


def test_a_load_that_fails(exporter: InMemorySpanExporter, name: str) -> None:
    """The status is an error with its text, there is an error type, and no span event."""
    cache = Cache(name)
    with pytest.raises(ZeroDivisionError):
        cache.get(1, lambda: 1 / 0)
    load = finished(exporter)[f"load {name}"]
    assert load.status.status_code is StatusCode.ERROR
    assert load.status.description == "ZeroDivisionError: division by zero"
    assert dict(load.attributes or {}) == {names.CACHE_NAME: name, names.ERROR_TYPE: "ZeroDivisionError"}
    assert load.events == ()


@pytest.mark.parametrize("loader", ["coroutine", "function"])
def test_loads_of_coroutines(exporter: InMemorySpanExporter, name: str, loader: str) -> None:
    """The parent is the caller that started the load, not one that joined, also when the loader runs in another thread."""
    cache, seen = Cache(name), list[Any]()

    async def main() -> None:
        joined = asyncio.Event()

        async def load_async() -> int:
            await joined.wait()
            return load()

        def load() -> int:
            seen.append(trace.get_current_span())
            return 1

        async def call(label: str) -> None:
            with outer(label):
                await cache.get_async(1, load_async if loader == "coroutine" else load)

        calls = [asyncio.create_task(call(label)) for label in ("first", "second")]
        await asyncio.sleep(0)
        joined.set()
        await asyncio.gather(*calls)

    asyncio.run(main())
    found = finished(exporter)
    assert set(found) == {"first", "second", f"load {name}"}
    assert is_child(found[f"load {name}"], found["first"])
    assert [span.name for span in seen] == [f"load {name}"]


class Unreadable(Exception):
    """An error without a text."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    ("error", "description"),
    [
        (Unreadable(), f"{__name__}.Unreadable: (its text cannot be read)"),
        (FileNotFoundError("no file \udcff"), "FileNotFoundError: no file ?"),
        (KeyboardInterrupt(), "KeyboardInterrupt: "),
        (asyncio.CancelledError(), "asyncio.exceptions.CancelledError: "),
    ],
)
def test_odd_errors(exporter: InMemorySpanExporter, error: BaseException, description: str) -> None:
    """Every error has a type and a description that can be exported, and reaches the caller as it was."""

    @traced("odd")
    def fail() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        fail()
    assert caught.value is error
    assert finished(exporter)["odd"].status.description == description
    assert (finished(exporter)["odd"].attributes or {})[names.ERROR_TYPE] == description.partition(":")[0]


def test_measured_functions_have_spans(exporter: InMemorySpanExporter, name: str) -> None:
    """Named after the operation; without span= there is none."""
    inner = measure_performance(f"{name}-inner", lambda: 1 / 0)
    silent = measure_performance(f"{name}-silent", lambda: trace.get_current_span().name, span=False)  # type: ignore[attr-defined]

    @measure_performance(name)
    def operation() -> object:
        with pytest.raises(ZeroDivisionError):
            inner()  # type: ignore[no-untyped-call]  # of a lambda
        return silent()  # type: ignore[no-untyped-call]  # of a lambda

    assert operation() == name
    found = finished(exporter)
    assert set(found) == {name, f"{name}-inner"}
    assert is_child(found[f"{name}-inner"], found[name])
    assert dict(found[name].attributes or {}) == {names.OPERATION_NAME: name}
    assert dict(found[f"{name}-inner"].attributes or {}) == {
        names.OPERATION_NAME: f"{name}-inner",
        names.ERROR_TYPE: "ZeroDivisionError",
    }
    assert found[f"{name}-inner"].events == ()


def test_concurrent_coroutines_keep_their_spans_apart(exporter: InMemorySpanExporter, name: str) -> None:
    """Each task has its own current span, and its own parent."""

    @measure_performance(name)
    async def operation() -> Any:
        before = trace.get_current_span()
        await asyncio.sleep(0)
        assert trace.get_current_span() is before
        return before

    async def main() -> list[Any]:
        return await asyncio.gather(*(operation() for _ in range(5)))

    inside = asyncio.run(main())
    assert len({span.get_span_context().span_id for span in inside}) == 5
    assert len(exporter.get_finished_spans()) == 5


def test_spans_that_are_not_sampled(record_spans: Callable[..., InMemorySpanExporter], name: str) -> None:
    """Nothing is exported; what the function starts inside is not sampled either, and figures are complete."""
    exporter = record_spans(sampler=ALWAYS_OFF)
    measured = measure_performance(name, lambda: trace.get_current_span().get_span_context())
    inside = measured()  # type: ignore[no-untyped-call]  # of a lambda
    assert inside.is_valid
    assert not inside.trace_flags.sampled
    assert exporter.get_finished_spans() == ()
    assert get_performance_report().operations[name].count == 1


def test_without_a_provider_no_context_is_attached(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """That would be most of the cost of a span that nobody records."""
    monkeypatch.setattr(spans, "_tracer", trace.NoOpTracer())
    monkeypatch.setattr(context, "attach", pytest.fail)
    cache = Cache(name)
    assert cache.get(1, lambda: 2) == 2
    assert measure_performance(name, lambda: 3)() == 3

    @measure_performance(name)
    def generator() -> Iterator[int]:
        yield 4

    @measure_performance(name)
    async def async_generator() -> AsyncIterator[int]:
        yield 5

    @traced("x")
    async def coroutine() -> int:
        return 6

    async def main() -> list[int]:
        return [*generator(), *[item async for item in async_generator()], await coroutine()]

    assert asyncio.run(main()) == [4, 5, 6]


def test_without_an_sdk_a_remote_parent_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A trace that came with a request goes on to whom the function asks."""
    monkeypatch.setattr(spans, "_tracer", trace.NoOpTracer())
    remote = trace.SpanContext(1, 2, is_remote=True)
    parent = trace.set_span_in_context(trace.NonRecordingSpan(remote))
    inside = contextvars.copy_context()

    def run() -> trace.SpanContext:
        token = context.attach(parent)
        try:
            return traced("x")(lambda: trace.get_current_span().get_span_context())()
        finally:
            context.detach(token)

    assert inside.run(run) == remote


class FailingProcessor(SpanProcessor):
    """Raises wherever it is called."""

    def __init__(self, where: str) -> None:
        self.where = where

    def on_start(self, span: Span, parent_context: Any = None) -> None:
        """Raise, or not."""
        if self.where == "start":
            raise RuntimeError("no spans today")

    def on_end(self, span: ReadableSpan) -> None:
        """Raise, or not."""
        if self.where == "end":
            raise RuntimeError("no spans today")


@pytest.mark.parametrize("where", ["start", "end"])
def test_a_failing_processor_never_reaches_the_caller(monkeypatch: pytest.MonkeyPatch, name: str, where: str) -> None:
    """Results, errors and figures are what they would be without spans."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(FailingProcessor(where))
    monkeypatch.setattr(spans, "_tracer", provider.get_tracer("x"))
    cache = Cache(name)
    assert cache.get(1, lambda: 2) == 2
    assert measure_performance(name, lambda: 3)() == 3
    with pytest.raises(ZeroDivisionError):
        measure_performance(name, lambda: 1 / 0)()

    @measure_performance(name)
    def generator() -> Iterator[int]:
        yield 4

    assert list(generator()) == [4]
    assert get_performance_report().operations[name].count == 3
    assert get_performance_report().caches[name].loads.count == 1


def test_a_coroutine_closed_in_another_context(exporter: InMemorySpanExporter, name: str) -> None:
    """As it happens when a loop is gone and its tasks are collected: nothing to detach there, and nothing is logged."""

    @measure_performance(name)
    async def operation() -> None:
        await asyncio.Future[None]()

    async def never() -> None:
        await operation()

    loop = asyncio.new_event_loop()
    coroutine = never()
    contextvars.copy_context().run(loop.run_until_complete, asyncio.sleep(0))
    with outer() as mine:
        own = contextvars.Context()
        asyncio._set_running_loop(loop)
        try:
            own.run(coroutine.send, None)
        finally:
            asyncio._set_running_loop(None)
        coroutine.close()
        assert trace.get_current_span() is mine
    loop.close()
    assert finished(exporter)[name].status.status_code is StatusCode.ERROR
    assert get_performance_report().operations[name].errors == {"GeneratorExit": 1}


def test_a_coroutine_closed_in_its_own_context(exporter: InMemorySpanExporter, name: str) -> None:
    """What was current before is current again."""

    @traced(name)
    async def operation() -> None:
        await asyncio.sleep(0)

    with outer() as mine:
        coroutine: Any = operation()
        coroutine.send(None)
        assert trace.get_current_span() is not mine
        coroutine.close()
        assert trace.get_current_span() is mine
    assert set(finished(exporter)) == {name, "outer"}


def test_the_tracer_follows_a_provider_set_later(script: Callable[..., Any]) -> None:
    """Also after it was used; a forked or re-configured process looks it up again."""
    code = """
import json
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
import otel_perfopt
cache = otel_perfopt.Cache("users")
cache.get(1, lambda: 1)
exporter, provider = InMemorySpanExporter(), TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
cache.get(2, lambda: 1)
otel_perfopt.measure_performance("work", lambda: 1)()
print(json.dumps([[span.name, span.instrumentation_scope.name] for span in exporter.get_finished_spans()]))"""
    assert script(code) == [["load users", "otel_perfopt"], ["work", "otel_perfopt"]]


def test_a_span_in_a_thread(exporter: InMemorySpanExporter, name: str) -> None:
    """Threads do not inherit the context; the load of another thread has no parent, and joins nobody's trace."""
    cache = Cache(name)
    with outer():
        thread = threading.Thread(target=cache.get, args=(1, lambda: 1))
        thread.start()
        thread.join()
    assert finished(exporter)[f"load {name}"].parent is None
    gc.collect()
