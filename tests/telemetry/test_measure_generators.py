"""Measuring generators: they behave as before, and only the time inside them counts."""

import asyncio
import gc
import inspect
import logging
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from otel_perfopt import get_performance_report, measure, measure_performance
from otel_perfopt.report import OperationRow


@pytest.fixture(autouse=True)
def nothing_leaks(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """After each test no span is current, and nothing was logged about a context or a generator."""
    with caplog.at_level(logging.DEBUG):
        yield
        gc.collect()
        assert not trace.get_current_span().get_span_context().is_valid
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Stop the clock; returns what sets it forward."""
    now = [100.0]
    monkeypatch.setattr(measure, "_clock", lambda: now[0])

    def forward(seconds: float) -> None:
        now[0] += seconds

    return forward


def row(name: str) -> OperationRow:
    """The operation in the report."""
    return get_performance_report().operations[name]


def current() -> str:
    """The name of the current span."""
    return getattr(trace.get_current_span(), "name", "-")


class Boom(Exception):
    """Thrown into generators."""


def talk(log: list[Any]) -> Generator[Any, Any, str]:
    """A generator that answers what it is sent and survives what is thrown."""
    received: Any = None
    try:
        for number in range(4):
            try:
                received = yield number, received, current()
            except Boom as error:
                log.append(repr(error))
                received = "thrown"
        return "the end"
    finally:
        log.append("closed")


async def talk_async(log: list[Any]) -> Any:
    """The same, asynchronously."""
    received: Any = None
    try:
        for number in range(4):
            await asyncio.sleep(0)
            try:
                received = yield number, received, current()
            except Boom as error:
                log.append(repr(error))
                received = "thrown"
    finally:
        await asyncio.sleep(0)
        log.append("closed")


def conversation(generator: Generator[Any, Any, str]) -> list[Any]:
    """What comes out of a generator that is sent to and thrown at."""
    said: list[Any] = [next(generator), generator.send("a"), generator.throw(Boom("x"))]
    said.append(next(generator))
    with pytest.raises(StopIteration) as stop:
        generator.send("last")
    said.append(stop.value.value)
    with pytest.raises(StopIteration):
        next(generator)
    return said


def test_a_generator_talks_as_before(exporter: InMemorySpanExporter, name: str) -> None:
    """send, throw and the return value; the span is current inside and nowhere else."""
    logs: list[list[Any]] = [[], []]
    measured = measure_performance(name)(talk)
    assert inspect.isgeneratorfunction(measured)
    expected = conversation(talk(logs[0]))
    said = conversation(measured(logs[1]))
    assert [(*each[:2],) if isinstance(each, tuple) else each for each in said] == [
        (*each[:2],) if isinstance(each, tuple) else each for each in expected
    ]
    assert logs[0] == logs[1] == ["Boom('x')", "closed"]
    assert [each[2] for each in said[:4]] == [name] * 4
    assert (row(name).count, row(name).success_count) == (1, 1)
    assert [span.name for span in exporter.get_finished_spans()] == [name]


def test_an_async_generator_talks_as_before(exporter: InMemorySpanExporter, name: str) -> None:
    """asend, athrow and the end."""
    measured = measure_performance(name)(talk_async)
    assert inspect.isasyncgenfunction(measured)

    async def conversation_async(generator: Any) -> list[Any]:
        said = [await anext(generator), await generator.asend("a"), await generator.athrow(Boom("x")), await anext(generator)]
        assert current() == "-"
        with pytest.raises(StopAsyncIteration):
            await generator.asend("last")
        with pytest.raises(StopAsyncIteration):
            await anext(generator)
        return said

    logs: list[list[Any]] = [[], []]
    expected = asyncio.run(conversation_async(talk_async(logs[0])))
    said = asyncio.run(conversation_async(measured(logs[1])))
    assert [each[:2] for each in said] == [each[:2] for each in expected]
    assert logs[0] == logs[1] == ["Boom('x')", "closed"]
    assert [each[2] for each in said] == [name] * 4
    assert row(name).success_count == 1
    assert [span.name for span in exporter.get_finished_spans()] == [name]


def test_only_the_time_inside_counts(exporter: InMemorySpanExporter, name: str, clock: Callable[[float], None]) -> None:
    """Not what the consumer does between the steps."""

    @measure_performance(name)
    def numbers() -> Iterator[int]:
        for number in range(3):
            clock(1)
            yield number
        clock(1)

    @measure_performance(f"{name}-async")
    async def numbers_async() -> AsyncIterator[int]:
        for number in range(3):
            clock(1)
            yield number
        clock(1)

    async def main() -> None:
        async for _ in numbers_async():
            clock(50)

    made = numbers()
    clock(1000)
    for _ in made:
        clock(50)
    asyncio.run(main())
    assert (row(name).count, row(name).total_duration) == (1, 4)
    assert (row(f"{name}-async").count, row(f"{name}-async").total_duration) == (1, 4)


@pytest.mark.parametrize("way", ["close", "break", "throw GeneratorExit"])
def test_closed_early(exporter: InMemorySpanExporter, name: str, way: str) -> None:
    """Its finally block runs, and it has succeeded."""
    log: list[Any] = []
    generator = measure_performance(name)(talk)(log)
    next(generator)
    if way == "close":
        generator.close()
    elif way == "break":
        del generator
        gc.collect()
    else:
        with pytest.raises(GeneratorExit):
            generator.throw(GeneratorExit)
    assert log == ["closed"]
    assert (row(name).success_count, row(name).error_count) == (1, 0)
    assert len(exporter.get_finished_spans()) == 1


def test_a_generator_that_was_never_started(exporter: InMemorySpanExporter, name: str) -> None:
    """It did not run, and counts nothing."""
    log: list[Any] = []
    measured, measured_async = measure_performance(name)(talk), measure_performance(name)(talk_async)
    measured(log).close()
    asyncio.run(measured_async(log).aclose())
    assert log == []
    assert name not in get_performance_report().operations
    with pytest.raises(TypeError):
        measured(1, 2, 3)  # type: ignore[call-arg, arg-type]
    assert exporter.get_finished_spans() == ()


def test_the_value_of_a_close(name: str) -> None:
    """What a generator returns when it is closed, since Python 3.13; None before."""

    def generator() -> Generator[int, None, str]:
        try:
            yield 1
        except GeneratorExit:
            return "closed"
        return "ended"

    def close(function: Any) -> Any:
        made = function()
        next(made)
        return made.close()

    assert close(measure_performance(name)(generator)) == close(generator)


class Stubborn:
    """Functions that yield although they are told to close."""

    @staticmethod
    def generator() -> Iterator[int]:
        """Yield once too often."""
        try:
            yield 1
        except GeneratorExit:
            yield 2

    @staticmethod
    async def async_generator() -> AsyncIterator[int]:
        """Yield once too often."""
        try:
            yield 1
        except GeneratorExit:
            yield 2


def test_a_generator_that_ignores_its_end(name: str) -> None:
    """The error is Python's own, and the generator goes on, as without measuring."""
    generator: Any = measure_performance(name)(Stubborn.generator)()
    next(generator)
    with pytest.raises(RuntimeError, match="ignored GeneratorExit"):
        generator.close()
    assert list(generator) == []
    generator = measure_performance(name)(Stubborn.generator)()
    next(generator)
    assert generator.throw(GeneratorExit) == 2
    generator.close()

    async def main() -> None:
        made: Any = measure_performance(name)(Stubborn.async_generator)()
        await anext(made)
        with pytest.raises(RuntimeError, match="ignored GeneratorExit"):
            await made.aclose()

    asyncio.run(main())
    assert row(name).error_count == 0


def test_a_measured_context_manager(name: str) -> None:
    """What is raised in its block comes out of it, GeneratorExit and StopIteration as well."""

    @contextmanager
    @measure_performance(name)
    def manager(*, swallows: bool) -> Iterator[int]:
        try:
            yield 1
        except BaseException:
            if not swallows:
                raise

    for error in (GeneratorExit(), StopIteration(), Boom(), KeyboardInterrupt()):
        with pytest.raises(type(error)) as caught, manager(swallows=False):
            raise error
        assert caught.value is error
        with manager(swallows=True):
            raise error
    assert row(name).count == 8


@pytest.mark.parametrize("error", [Boom("x"), KeyboardInterrupt(), StopIteration("x")])
def test_errors_of_generators(exporter: InMemorySpanExporter, name: str, error: BaseException) -> None:
    """Raised inside or thrown in and let out: the same as without measuring, and one failure."""

    def inside() -> Iterator[int]:
        yield 1
        raise error

    def thrown() -> Iterator[int]:
        yield 1

    kind = RuntimeError if isinstance(error, StopIteration) else type(error)
    measured: Any = measure_performance(name)(inside)()
    next(measured)
    with pytest.raises(kind):
        next(measured)
    measured = measure_performance(name)(thrown)()
    next(measured)
    with pytest.raises(kind):
        measured.throw(error)
    assert sum(row(name).errors.values()) == row(name).count == 2
    assert [span.status.is_ok for span in exporter.get_finished_spans()] == [False, False]


def test_errors_of_async_generators(name: str) -> None:
    """A cancellation reaches it, and StopAsyncIteration thrown in comes out as Python has it."""

    @measure_performance(name)
    async def waits() -> Any:
        yield 1
        await asyncio.Future[None]()

    async def main() -> None:
        generator = waits()
        await anext(generator)
        task = asyncio.ensure_future(anext(generator))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        generator = waits()
        await anext(generator)
        with pytest.raises(RuntimeError, match="raised StopAsyncIteration"):
            await generator.athrow(StopAsyncIteration())

    asyncio.run(main())
    assert row(name).errors == {"asyncio.exceptions.CancelledError": 1, "RuntimeError": 1}


def test_yield_from(name: str) -> None:
    """A measured generator inside another one passes everything on."""

    def outer(log: list[Any]) -> Generator[Any, Any, Any]:
        return (yield from measure_performance(name)(talk)(log))

    log: list[Any] = []
    assert conversation(outer(log))[-1] == "the end"
    assert log == ["Boom('x')", "closed"]


def test_memory_of_generators(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the first step to the end."""
    sizes = iter([1000, 100, 250, 1])
    monkeypatch.setattr(measure, "_resident_memory", lambda: next(sizes))
    measured = measure_performance(name, track_memory=True)(talk)
    list(measured([]))
    assert row(name).memory_deltas == [150]
