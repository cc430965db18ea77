"""Processors that nobody knows any more: what is queued is done, and then they go."""

import asyncio
import gc
import weakref
from typing import Any

import pytest

from otel_perfopt.batch import AsyncBatchProcessor, BatchProcessor
from otel_perfopt.telemetry import names
from otel_perfopt.telemetry.batches import BATCHES
from otel_perfopt.testing import ManualClock
from tests.batch.support import TIMEOUT, Coroutine, double, settle


def test_a_forgotten_processor_does_what_is_queued(name: str) -> None:
    """It lives until then, and no longer."""
    clock = ManualClock()
    processor = BatchProcessor[int, int](name, double, clock=clock)
    future, gone = processor.add(1), weakref.ref(processor)
    workers = processor._workers
    del processor
    gc.collect()
    clock.advance(1)
    assert future.result(TIMEOUT) == 2
    assert workers.wait(TIMEOUT)
    gc.collect()
    assert gone() is None
    (reading,) = [r for r in BATCHES.observe(names.BATCH_ITEMS) if r.attributes[names.BATCH_NAME] == name]
    assert reading.value == 1


def test_a_processor_without_work_is_gone_with_its_last_reference() -> None:
    """Although a timer is still set, an hour from now; no collection of garbage is needed."""
    gc.collect()
    gc.disable()
    try:
        processor = BatchProcessor[int, int]("test", double, batch_size=1, batch_timeout="1h", max_queue=5)
        future = processor.add(1)
        later = processor.add(2, timeout="1h")
        assert (future.result(TIMEOUT), later.result(TIMEOUT)) == (2, 4)
        workers, gone = processor._workers, weakref.ref(processor)
        assert processor.flush()
        del processor
        assert workers.wait(TIMEOUT)
        assert gone() is None
    finally:
        gc.enable()


def test_a_forgotten_processor_of_a_loop_does_what_is_queued() -> None:
    """The loop's timer keeps it until then."""

    async def main() -> None:
        clock = ManualClock()
        processor = AsyncBatchProcessor[int, int]("test", Coroutine(), clock=clock, max_queue=10)
        future, gone = processor.add(1), weakref.ref(processor)
        del processor
        gc.collect()
        clock.advance(1)
        assert await future == 2
        await settle()
        gc.collect()
        assert gone() is None

    asyncio.run(main())


@pytest.mark.parametrize("is_loop", [False, True], ids=["threads", "loop"])
def test_an_error_keeps_nothing_alive(is_loop: bool) -> None:
    """Neither the items nor the other callers' futures, and without a collection of garbage."""

    class Item:
        pass

    def fail(_: list[Item]) -> list[Any]:
        raise ValueError("no")

    async def fail_async(_: list[Item]) -> list[Any]:
        raise ValueError("no")

    def in_threads() -> "weakref.ref[Item]":
        with BatchProcessor("test", fail, batch_size=1) as processor:
            item = Item()
            assert isinstance(processor.add(item).exception(TIMEOUT), ValueError)
        assert processor._workers.wait(TIMEOUT)
        return weakref.ref(item)

    async def in_loop() -> "weakref.ref[Item]":
        async with AsyncBatchProcessor("test", fail_async, batch_size=1) as processor:
            item = Item()
            future = processor.add(item)
            await asyncio.wait([future])
            assert isinstance(future.exception(), ValueError)
            await settle()
        return weakref.ref(item)

    gc.collect()
    gc.disable()
    try:
        gone = asyncio.run(in_loop()) if is_loop else in_threads()
        assert gone() is None
    finally:
        gc.enable()


def test_a_finalizer_may_add_items() -> None:
    """Wherever it runs, under the processor's own lock for instance."""
    processor = BatchProcessor[Any, Any]("test", double, batch_size=2)

    class Late:
        def __mul__(self, number: int) -> int:
            return number

        __rmul__ = __mul__

        def __del__(self) -> None:
            processor.add(1)

    with processor._lock:
        Late()
        assert processor.stats().queue_size == 1
    for _ in range(20):
        processor.add(Late())
    while processor.stats().item_count < 41:  # each item adds another one when its batch has ended
        assert processor.flush(timeout=TIMEOUT)
    assert processor.close()
