"""The span and the duration of a load; nothing for a value that is there."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from otel_perfopt.lazy import LazyLoader, lazy
from otel_perfopt.telemetry import names, spans
from otel_perfopt.telemetry.lazies import observed_lazy
from tests.telemetry.conftest import Service, exporter, name, record_spans, service

__all__ = ("exporter", "name", "record_spans", "service")  # fixtures


def count_of(collected: Any, name: str, **attributes: str) -> int:
    """How many loads of a name were counted with these attributes."""
    wanted = {names.LAZY_NAME: name, **attributes}
    points = collected.points(names.LAZY_LOAD_DURATION, name)
    return sum(point.count for point in points if dict(point.attributes) == wanted)


def test_a_load_has_a_span_and_a_duration(exporter: InMemorySpanExporter, service: Callable[..., Service], name: str) -> None:
    """A child of the caller's span, and current in the load; the second call has neither."""
    application, inside = service(), list[Any]()
    loader = LazyLoader(lambda: inside.append(trace.get_current_span()), name=name)
    with spans.tracer().start_as_current_span("outer") as outer:
        loader.get()
        loader.get()
        loader.reset()
        loader.get()
    found = [span for span in exporter.get_finished_spans() if span.name != "outer"]
    assert [span.name for span in found] == [f"load {name}"] * 2 == [span.name for span in inside]
    for span in found:
        assert span.parent is not None
        assert span.parent.span_id == outer.get_span_context().span_id
        assert dict(span.attributes or {}) == {names.LAZY_NAME: name}
    assert count_of(application.collect(), name) == 2


def test_a_load_that_fails(exporter: InMemorySpanExporter, service: Callable[..., Service], name: str) -> None:
    """It has an error type; an error that is raised again is no load."""
    application = service()
    loader = LazyLoader(lambda: 1 / 0, name=name)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            loader.get()
    (span,) = exporter.get_finished_spans()
    assert (span.status.status_code, span.events) == (StatusCode.ERROR, ())
    assert (span.attributes or {})[names.ERROR_TYPE] == "ZeroDivisionError"
    assert count_of(application.collect(), name, **{names.ERROR_TYPE: "ZeroDivisionError"}) == 1
    assert count_of(application.collect(), name) == 0


@pytest.mark.parametrize("kind", ["coroutine function", "function"])
def test_loads_for_coroutines(exporter: InMemorySpanExporter, name: str, kind: str) -> None:
    """The span is current where the load runs, be it in a task or in a worker."""

    def load() -> str:
        return getattr(trace.get_current_span(), "name", "")

    async def load_async() -> str:
        return load()

    loader: LazyLoader[str] = LazyLoader(load if kind == "function" else load_async, name=name)
    assert asyncio.run(loader.get_async()) == f"load {name}"
    assert [span.name for span in exporter.get_finished_spans()] == [f"load {name}"]


def test_instances_share_the_name_of_their_method(service: Callable[..., Service]) -> None:
    """Which is that of the function, so that many instances are one series."""

    class Thing:
        @lazy
        def value(self) -> int:
            return 1

    application = service()
    for _ in range(3):
        Thing().value()
    assert count_of(application.collect(), f"{__name__}.{Thing.value.__qualname__}") == 3  # type: ignore[attr-defined]


def test_observed_lazy(exporter: InMemorySpanExporter, service: Callable[..., Service], name: str) -> None:
    """The decorator alone, for lazy values of other people's classes."""

    class Mine:
        def __init__(self) -> None:
            self.name = name

        @observed_lazy()
        def load(self) -> int:
            return 1

        @observed_lazy()
        async def load_async(self) -> int:
            return 2

    application = service()
    assert (Mine().load(), asyncio.run(Mine().load_async()), observed_lazy(name)(lambda: 3)()) == (1, 2, 3)
    assert observed_lazy()(len)([1, 2]) == 2
    assert [span.name for span in exporter.get_finished_spans()] == [*[f"load {name}"] * 3, "load builtins.len"]
    assert count_of(application.collect(), name) == 3


def test_telemetry_never_reaches_the_caller(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A tracer that fails costs the span, and nothing else."""

    class Broken:
        def start_span(self, *_: object, **__: object) -> None:
            raise RuntimeError("no spans today")

    monkeypatch.setattr(spans, "_tracer", Broken())
    assert LazyLoader(lambda: 1, name=name).get() == 1
    assert LazyLoader(lambda: 2, name="odd \udcff").get() == 2
