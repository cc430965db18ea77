"""What the tests of batches share: functions that can be held, and processors whose time stands still."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from otel_perfopt.batch import AsyncBatchProcessor, BatchProcessor
from otel_perfopt.testing import ManualClock

TIMEOUT = 20.0


def double(items: list[Any]) -> list[Any]:
    return [2 * item for item in items]


class Function:
    """A function that notes what it takes, and can be held until it is opened.

    Args:
        body: what it does.
        is_held: whether calls wait for `open`.
    """

    def __init__(self, body: Callable[[list[Any]], Any] = double, *, is_held: bool = False) -> None:
        self.body = body
        self.calls: list[list[Any]] = []
        self.entered = threading.Semaphore(0)
        self.gate = threading.Event()
        if not is_held:
            self.gate.set()

    def __call__(self, items: list[Any]) -> Any:
        self.calls.append(list(items))
        self.entered.release()
        assert self.gate.wait(TIMEOUT)
        return self.body(items)

    def wait_for_call(self) -> None:
        """Wait until a call has begun that nobody has waited for yet."""
        assert self.entered.acquire(timeout=TIMEOUT)

    def open(self) -> None:
        self.gate.set()


class Coroutine:
    """The same for an event loop."""

    def __init__(self, body: Callable[[list[Any]], Any] = double, *, is_held: bool = False) -> None:
        self.body = body
        self.calls: list[list[Any]] = []
        self.cancelled = 0
        self.gate = asyncio.Event()
        if not is_held:
            self.gate.set()

    async def __call__(self, items: list[Any]) -> Any:
        self.calls.append(list(items))
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return self.body(items)

    def open(self) -> None:
        self.gate.set()


async def settle() -> None:
    """Let everything happen on the loop that can happen without time or threads."""
    for _ in range(10):
        await asyncio.sleep(0)


def total(processor: BatchProcessor[Any, Any] | AsyncBatchProcessor[Any, Any]) -> int:
    """How many items a processor has counted."""
    stats = processor.stats()
    return stats.item_count + stats.failed_count


@contextmanager
def threaded(process: Callable[[list[Any]], Any], **options: Any) -> Iterator[tuple[BatchProcessor[Any, Any], ManualClock]]:
    """A processor for threads, with a clock that stands still; it is idle and closed in the end."""
    clock = ManualClock()
    processor = BatchProcessor[Any, Any]("test", process, clock=clock, **options)
    yield processor, clock
    assert processor.close()
    stats = processor.stats()
    assert (stats.queue_size, stats.waiting, stats.in_flight) == (0, 0, 0)


def looped(process: Callable[[list[Any]], Any], **options: Any) -> tuple[AsyncBatchProcessor[Any, Any], ManualClock]:
    """A processor for an event loop, with a clock that stands still."""
    clock = ManualClock()
    return AsyncBatchProcessor[Any, Any]("test", process, clock=clock, **options), clock
