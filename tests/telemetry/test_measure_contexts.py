"""Measured generators and contexts: nothing of a span outside a step, whoever takes the steps and whoever ends them."""

import asyncio
import contextvars
import gc
import logging
import sys
from collections.abc import Generator, Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from otel_perfopt import get_performance_report, measure_performance
from otel_perfopt.report import OperationRow


@pytest.fixture(autouse=True)
def nothing_leaks(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """After each test no span is current, and nothing was logged about a context or a generator."""
    with caplog.at_level(logging.DEBUG):
        yield
        gc.collect()
        assert not trace.get_current_span().get_span_context().is_valid
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


def row(name: str) -> OperationRow:
    """The operation in the report."""
    return get_performance_report().operations[name]


def current() -> str:
    """The name of the current span."""
    return getattr(trace.get_current_span(), "name", "-")


def talk(log: list[Any]) -> Generator[tuple[int, str], None, None]:
    """Numbers, and the current span inside."""
    try:
        for number in range(4):
            yield number, current()
    finally:
        log.append("closed")


async def talk_async(log: list[Any]) -> Any:
    """The same, with something to wait for at the end."""
    try:
        for number in range(4):
            await asyncio.sleep(0)
            yield number, current()
    finally:
        await asyncio.sleep(0)
        log.append("closed")


def test_two_generators_in_turns(exporter: InMemorySpanExporter, name: str) -> None:
    """Neither sees the other's span, and both have the caller's as their parent."""
    measured = measure_performance(name)(talk)
    first, second = measured([]), measured([])
    seen = [next(generator)[1] for generator in (first, second, first, second)]
    assert seen == [name] * 4
    assert current() == "-"
    first.close()
    second.close()
    assert [span.parent for span in exporter.get_finished_spans()] == [None, None]


def test_steps_in_different_contexts(exporter: InMemorySpanExporter, name: str) -> None:
    """As a server's worker threads have them; nothing leaks into any of them."""
    generator = measure_performance(name)(talk)([])
    contexts = [contextvars.copy_context() for _ in range(3)]
    assert [context.run(next, generator)[1] for context in contexts] == [name] * 3
    assert [context.run(current) for context in contexts] == ["-"] * 3
    generator.close()


def test_an_async_generator_abandoned(exporter: InMemorySpanExporter, name: str) -> None:
    """By a break, and closed by the loop's hook when it is collected as garbage."""
    log: list[Any] = []
    measured = measure_performance(name)(talk_async)

    async def main() -> None:
        async for _ in measured(log):
            break
        gc.collect()
        for _ in range(5):
            await asyncio.sleep(0)
        assert log == ["closed"]
        assert current() == "-"

    asyncio.run(main())
    assert row(name).success_count == 1
    assert len(exporter.get_finished_spans()) == 1


def test_an_async_generator_abandoned_until_the_loop_ends(exporter: InMemorySpanExporter, name: str) -> None:
    """The loop closes it, once: the generator inside is not closed beside it."""
    log: list[Any] = []
    kept: list[Any] = []
    measured = measure_performance(name)(talk_async)
    errors: list[Any] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, problem: errors.append(problem))
        for _ in range(10):
            kept.append(measured(log))
            await anext(kept[-1])

    asyncio.run(main())
    assert errors == []
    assert log == ["closed"] * 10
    assert (row(name).success_count, row(name).error_count) == (10, 0)


def test_an_async_generator_closed_by_another_task(exporter: InMemorySpanExporter, name: str) -> None:
    """In a context of its own, where nothing of the first one is attached."""
    log: list[Any] = []
    measured = measure_performance(name)(talk_async)

    async def main() -> None:
        generator = measured(log)
        await anext(generator)
        await asyncio.create_task(generator.aclose())
        assert log == ["closed"]
        assert current() == "-"

    asyncio.run(main())
    assert row(name).success_count == 1


def test_hooks_for_generators_are_left_as_they_were(name: str) -> None:
    """The loop knows of the measured generator, and only of that one."""
    hooked: list[Any] = []

    async def main() -> None:
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(firstiter=hooked.append)
        try:
            generator = measure_performance(name)(talk_async)([])
            await anext(generator)
            assert sys.get_asyncgen_hooks().firstiter == hooked.append
            assert hooked == [generator]
            await generator.aclose()
        finally:
            sys.set_asyncgen_hooks(*hooks)

    asyncio.run(main())
