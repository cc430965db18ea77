"""What batches tell: metrics, and spans that are linked with those of the callers in both directions."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import StatusCode

from otel_perfopt.batch import AsyncBatchProcessor, BatchProcessor
from otel_perfopt.telemetry import instruments, names, spans
from otel_perfopt.telemetry.batches import BATCHES, BatchCounts, observed_batch
from tests.batch.support import TIMEOUT, Function, double

Exported = dict[str, list[ReadableSpan]]


@pytest.fixture
def requests() -> trace.Tracer:
    """The tracer of an application, whose spans go where the library's go."""
    return spans.tracer()


def by_name(exporter: InMemorySpanExporter) -> Exported:
    found: Exported = {}
    for span in exporter.get_finished_spans():
        found.setdefault(span.name, []).append(span)
    return found


def ids(these: Iterable[ReadableSpan]) -> list[int]:
    return sorted(span.context.span_id for span in these)


def links(span: ReadableSpan) -> list[int]:
    return sorted(link.context.span_id for link in span.links)


# spans --------------------------------------------------------------------------------------------------


def follow(exporter: InMemorySpanExporter, processor: str) -> None:
    """Check that two requests can be followed to their batch, and back."""
    found = by_name(exporter)
    (flush,) = found[f"flush {processor}"]
    assert flush.parent is None
    assert dict(flush.attributes or {}) == {
        "perfopt.batch.name": processor,
        "perfopt.batch.size": 3,
        "perfopt.batch.flush.reason": "size",
    }
    assert links(flush) == ids(found["request"])
    assert len(found["request"]) == 2
    for request in found["request"]:
        assert links(request) == ids([flush])
        assert request.context.trace_id != flush.context.trace_id
    (inner,) = found["query"]
    assert inner.parent is not None
    assert inner.parent.span_id == flush.context.span_id


def test_one_request_followed_through_submit_flush_and_result(
    exporter: InMemorySpanExporter, requests: trace.Tracer, name: str
) -> None:
    """For threads: two requests add three items; the batch is a root of its own."""

    def query(items: list[int]) -> list[int]:
        with requests.start_as_current_span("query"):
            return double(items)

    with BatchProcessor(name, query, batch_size=3) as processor, requests.start_as_current_span("request"):
        futures = [processor.add(1), processor.add(2)]
        with requests.start_as_current_span("request"):
            futures.append(processor.add(3))
            assert [future.result(TIMEOUT) for future in futures] == [2, 4, 6]
    follow(exporter, name)


def test_one_request_followed_through_submit_flush_and_result_on_a_loop(
    exporter: InMemorySpanExporter, requests: trace.Tracer, name: str
) -> None:
    """For tasks."""

    async def query(items: list[int]) -> list[int]:
        with requests.start_as_current_span("query"):
            await asyncio.sleep(0)
            return double(items)

    async def request(processor: AsyncBatchProcessor[int, int], *items: int) -> list[int]:
        with requests.start_as_current_span("request"):
            return list(await asyncio.gather(*[processor.add(item) for item in items]))

    async def main() -> None:
        async with AsyncBatchProcessor(name, query, batch_size=3) as processor:
            found = await asyncio.gather(request(processor, 1, 2), request(processor, 3))
        assert list(found) == [[2, 4], [6]]

    asyncio.run(main())
    follow(exporter, name)


def test_a_plain_function_of_a_loop_has_the_span_of_its_batch(
    exporter: InMemorySpanExporter, requests: trace.Tracer, name: str
) -> None:
    """It runs in a worker, and its own spans are inside."""

    def query(items: list[int]) -> list[int]:
        with requests.start_as_current_span("query"):
            return double(items)

    async def main() -> None:
        async with AsyncBatchProcessor(name, query, batch_size=1) as processor:
            await processor.add(1)

    asyncio.run(main())
    found = by_name(exporter)
    assert found["query"][0].parent.span_id == found[f"flush {name}"][0].context.span_id  # type: ignore[union-attr]


def test_a_request_that_has_ended_is_linked_to_but_not_changed(
    exporter: InMemorySpanExporter, requests: trace.Tracer, name: str
) -> None:
    """Fire and forget: its span cannot get a link any more, and nobody complains."""
    with BatchProcessor(name, double) as processor:
        with requests.start_as_current_span("request"):
            processor.add(1)
        processor.flush()
    found = by_name(exporter)
    assert links(found[f"flush {name}"][0]) == ids(found["request"])
    assert links(found["request"][0]) == []


def test_at_most_128_links(exporter: InMemorySpanExporter, requests: trace.Tracer, name: str) -> None:
    """The SDK would drop the oldest ones; every request gets its own link all the same."""
    with BatchProcessor(name, double, batch_size=200) as processor:
        open_spans = []
        for number in range(200):
            span = requests.start_span("request")
            open_spans.append(span)
            with trace.use_span(span):
                future = processor.add(number)
        future.result(TIMEOUT)
        for span in open_spans:
            span.end()
    found = by_name(exporter)
    (flush,) = found[f"flush {name}"]
    assert len(flush.links) == 128
    assert all(links(request) == ids([flush]) for request in found["request"])


def test_callers_without_a_span_have_no_links(exporter: InMemorySpanExporter, name: str) -> None:
    with BatchProcessor(name, double, batch_size=1) as processor:
        processor.add(1).result(TIMEOUT)
    assert links(by_name(exporter)[f"flush {name}"][0]) == []


def test_callers_that_nobody_records_have_no_links(exporter: InMemorySpanExporter, name: str) -> None:
    """There would be nothing to follow."""
    unsampled = TracerProvider(sampler=ALWAYS_OFF, resource=Resource({}), shutdown_on_exit=False).get_tracer("application")
    with BatchProcessor(name, double, batch_size=1) as processor, unsampled.start_as_current_span("request"):
        processor.add(1).result(TIMEOUT)
    assert links(by_name(exporter)[f"flush {name}"][0]) == []


def test_items_that_share_a_call_are_all_linked(exporter: InMemorySpanExporter, requests: trace.Tracer, name: str) -> None:
    with BatchProcessor(name, double, dedupe=lambda item: item) as processor:
        for _ in range(2):
            with requests.start_as_current_span("request"):
                processor.add(1)
        processor.flush()
    found = by_name(exporter)
    (flush,) = found[f"flush {name}"]
    assert links(flush) == ids(found["request"])
    assert flush.attributes is not None
    assert flush.attributes["perfopt.batch.size"] == 1


def test_a_batch_that_fails_is_a_failed_span(exporter: InMemorySpanExporter, name: str) -> None:
    """Also one with the wrong number of results."""
    functions: list[Callable[[list[int]], Any]] = [lambda _: 1 / 0, lambda _: []]
    for function in functions:
        with BatchProcessor(name, function, batch_size=1) as processor:
            processor.add(1).exception(TIMEOUT)
    division, count = by_name(exporter)[f"flush {name}"]
    assert (division.status.status_code, count.status.status_code) == (StatusCode.ERROR, StatusCode.ERROR)
    assert division.attributes is not None
    assert count.attributes is not None
    assert division.attributes["error.type"] == "ZeroDivisionError"
    assert count.attributes["error.type"] == "otel_perfopt.errors.BatchError"


def test_spans_can_be_switched_off(exporter: InMemorySpanExporter, requests: trace.Tracer, name: str) -> None:
    spans.switch(on=False)
    try:
        with BatchProcessor(name, double, batch_size=1) as processor, requests.start_as_current_span("request"):
            processor.add(1).result(TIMEOUT)
    finally:
        spans.switch(on=True)
    found = by_name(exporter)
    assert list(found) == ["request"]
    assert links(found["request"][0]) == []


def test_a_tracer_that_fails_is_not_the_functions_business(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    class Broken:
        def start_span(self, *_: Any, **__: Any) -> Any:
            raise OSError

    monkeypatch.setattr(spans, "_tracer", Broken())
    with BatchProcessor(name, double, batch_size=1) as processor:
        assert processor.add(1).result(TIMEOUT) == 2


def test_spans_of_others_that_take_no_links(exporter: InMemorySpanExporter, name: str) -> None:
    class Odd(trace.NonRecordingSpan):
        def is_recording(self) -> bool:
            return True

        def add_link(self, *_: Any, **__: Any) -> None:
            raise OSError

    request = Odd(trace.SpanContext(1, 2, is_remote=False))
    with BatchProcessor(name, double, batch_size=1) as processor, trace.use_span(request):
        assert processor.add(1).result(TIMEOUT) == 2
    assert links(by_name(exporter)[f"flush {name}"][0]) == [2]


# metrics ------------------------------------------------------------------------------------------------


def test_metrics(service: Callable[..., Any], name: str) -> None:
    """Every row of the table: items by error type, flushes by reason, sizes, durations, waits, and what there is now."""
    collected = service()
    function = Function(lambda items: [ValueError("no") if item == 3 else item for item in items], is_held=True)
    processor = BatchProcessor(name, function, batch_size=2, max_queue=5, on_full="raise")
    futures: list[Future[Any]] = [processor.add(number) for number in range(5)]
    function.wait_for_call()
    now = collected.collect()
    assert now.values(names.BATCH_QUEUE_SIZE, name) == {"": 3}
    assert now.values(names.BATCH_QUEUE_CAPACITY, name) == {"": 5}
    assert now.values(names.BATCH_IN_FLIGHT, name) == {"": 1}
    futures[4].cancel()
    function.open()
    processor.flush()
    processor.add(5)
    processor.flush()
    processor.close()
    then = collected.collect()
    assert then.values(names.BATCH_QUEUE_SIZE, name) == {"": 0}
    assert then.values(names.BATCH_IN_FLIGHT, name) == {"": 0}
    assert then.values(names.BATCH_ITEMS, name) == {"": 4, "ValueError": 1, "cancelled": 1}
    assert then.values(names.BATCH_FLUSHES, name) == {"size": 2, "manual": 1, "close": 0, "timeout": 0, "weight": 0}
    assert then.total(names.BATCH_SIZE, name) == (3, 5)
    assert then.total(names.BATCH_DURATION, name)[0] == 3
    assert then.total(names.BATCH_WAIT_TIME, name)[0] == 3
    assert tuple(then.points(names.BATCH_SIZE, name)[0].explicit_bounds) == names.ITEMS


def test_a_failed_batch_has_an_error_type(service: Callable[..., Any], name: str) -> None:
    collected = service()

    def fail(_: list[int]) -> list[int]:
        raise OSError

    with BatchProcessor(name, fail, batch_size=3) as processor:
        for number in range(3):
            processor.add(number)
    found = collected.collect()
    assert found.values(names.BATCH_ITEMS, name) == {"": 0, "OSError": 3}
    (point,) = [point for point in found.points(names.BATCH_DURATION, name) if point.count]
    assert point.attributes["error.type"] == "OSError"


def test_counts_outlive_the_processor(service: Callable[..., Any], name: str) -> None:
    """And are summed over processors of one name."""
    collected = service()
    for _ in range(2):
        with BatchProcessor(name, double, batch_size=1) as processor:
            processor.add(1)
        del processor
    assert collected.collect().values(names.BATCH_ITEMS, name) == {"": 2}


def test_batches_that_begin_at_once_all_count(service: Callable[..., Any], name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers of one processor begin batches at the same time; the counting waits between its reading and its writing."""
    collected = service()
    turn = threading.Barrier(4)

    def count(counts: Any, reason: str) -> None:
        before = getattr(counts, f"flushes_{reason}")
        with contextlib.suppress(threading.BrokenBarrierError):
            turn.wait(0.05)  # all four would read before the first writes
        setattr(counts, f"flushes_{reason}", before + 1)

    monkeypatch.setattr(BatchCounts, "flushed", count)
    with BatchProcessor(name, double, batch_size=1, max_concurrent=4) as processor:
        for number in range(4):
            processor.add(number)
    assert collected.collect().values(names.BATCH_FLUSHES, name)["size"] == 4


def test_error_types_are_limited() -> None:
    """A new class for every error makes no new series for every error."""
    for number in range(100):
        BATCHES.tally("many errors", names.BATCH_ITEMS, {names.ERROR_TYPE: f"Error{number}"}).n += 1
    all_of_them = [r for r in BATCHES.observe(names.BATCH_ITEMS) if r.attributes[names.BATCH_NAME] == "many errors"]
    found = [reading for reading in all_of_them if names.ERROR_TYPE in reading.attributes]
    assert len(found) == 33
    assert sum(reading.value for reading in found) == 100
    assert max(found, key=lambda reading: reading.value).attributes[names.ERROR_TYPE] == "_OTHER"


# other people's batches ---------------------------------------------------------------------------------


def test_observed_batch(service: Callable[..., Any], exporter: InMemorySpanExporter, name: str) -> None:
    """Duration, size, items and a span, for functions and methods of any kind."""
    collected = service()

    @observed_batch(name)
    def query(keys: list[int]) -> list[Any]:
        return [key or KeyError(key) for key in keys]

    @observed_batch(name)
    async def query_async(keys: list[int]) -> list[Any]:
        return query.__wrapped__(keys)  # type: ignore[no-any-return, attr-defined]

    class Loader:
        @observed_batch(name)
        def load(self, keys: list[int]) -> None:
            """One that returns nothing."""

        @observed_batch(name)
        async def fail(self, keys: list[int]) -> None:
            raise OSError("no answer")

    query([1, 0, 2])
    asyncio.run(query_async(keys=[0, 1]))
    Loader().load([1, 2])
    with pytest.raises(OSError, match="no answer"):
        asyncio.run(Loader().fail([1, 2]))
    found = collected.collect()
    assert found.values(names.BATCH_ITEMS, name) == {"": 5, "KeyError": 2, "OSError": 2}
    assert found.total(names.BATCH_SIZE, name) == (4, 9)
    assert found.total(names.BATCH_DURATION, name)[0] == 4
    assert len(by_name(exporter)[f"flush {name}"]) == 4


def test_observed_batch_without_a_size(name: str) -> None:
    """A function that takes no batch is called all the same."""
    observed: Callable[..., Any] = observed_batch(name)(lambda items=None: items)
    assert observed() is None
    assert list(observed(iter([1]))) == [1]
    values = [r.value for r in instruments.observe(names.BATCH_ITEMS) if r.attributes[names.BATCH_NAME] == name]
    assert sum(values) == 0


def test_exporters_see_the_spans_of_the_global_provider(record_spans: Callable[..., InMemorySpanExporter], name: str) -> None:
    """The flush span obeys the limits and samplers of whichever provider there is."""
    exporter = record_spans(sampler=ALWAYS_OFF)
    application = InMemorySpanExporter()
    provider = TracerProvider(resource=Resource({}), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(application))
    span = provider.get_tracer("application").start_as_current_span("request")
    with BatchProcessor(name, double, batch_size=1) as processor, span:
        assert processor.add(1).result(TIMEOUT) == 2
    assert exporter.get_finished_spans() == ()
    (request,) = application.get_finished_spans()
    assert links(request) == []  # there is nothing to follow
