"""Batch processors: callers add one item each, a function takes many at once, and every caller gets the result of its own."""

import asyncio
import math
import time
from asyncio.events import _get_running_loop
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self

from opentelemetry.context import get_current
from typing_extensions import TypeVar

from otel_perfopt._core.batch import Entry
from otel_perfopt.batch.loops import LoopProcessor
from otel_perfopt.batch.options import Dedupe, OnFull, Options, Weigher, is_coroutine_function, seconds
from otel_perfopt.batch.threads import ThreadProcessor, busy
from otel_perfopt.durations import Duration
from otel_perfopt.registry import Place, calling_place
from otel_perfopt.telemetry.clocks import Clock
from otel_perfopt.unset import UNSET, Unset

__all__ = ("AsyncBatchProcessor", "BatchProcessor")

T = TypeVar("T", default=Any)
R = TypeVar("R", default=Any)


class BatchProcessor(ThreadProcessor[T, R]):
    """Collects items from any threads, and hands them to a function in batches.

    A batch is due when there are `batch_size` items, when they weigh `max_weight`, or when its first item has waited
    `batch_timeout`. The function runs in a worker thread, in an empty context; what it raises, all callers of that batch get.

    Args:
        name: names the processor in metrics, spans and `get_batch_processor`.
        process: takes a list of items and returns their results in the same order. An exception among the results fails
            only its item.
        batch_size: the most items of a batch; None for no limit.
        batch_timeout: how long the first item of a batch waits until the batch is due, in seconds, as a `timedelta` or as a
            string such as ``"50ms"``; 0 not to wait for others at all.
        max_concurrent: the most batches that run at once.
        max_queue: the most items that wait for a batch; None for no limit.
        on_full: what an item does that finds no room: ``"wait"`` for it, in the order of coming; ``"raise"`` `QueueFull`; or
            ``"drop_oldest"``: the item that has waited longest fails with `QueueFull`.
        weigher: takes an item and returns its weight. Goes with `max_weight`.
        max_weight: the most weight of a batch, in the weigher's unit; a heavier item has a batch of its own.
        dedupe: takes an item and returns its key; items with equal keys that wait at the same time become one.
        clock: returns monotonic seconds; for tests.

    Raises:
        ConfigurationError: an option has a value that cannot work.
        TypeError: `process` cannot be called, or is a coroutine function.

    >>> with BatchProcessor("squares", lambda numbers: [number * number for number in numbers]) as squares:
    ...     futures = [squares.add(number) for number in (1, 2, 3)]
    >>> [future.result() for future in futures]
    [1, 4, 9]
    """

    def __init__(
        self,
        name: str,
        process: Callable[[list[T]], Sequence[R | BaseException]],
        *,
        batch_size: int | None = 10,
        batch_timeout: Duration = 0.1,
        max_concurrent: int = 1,
        max_queue: int | None = None,
        on_full: OnFull = "wait",
        weigher: Weigher | None = None,
        max_weight: float | None = None,
        dedupe: Dedupe | None = None,
        clock: Clock = time.monotonic,
        _place: Place | Unset | None = UNSET,
    ) -> None:
        if is_coroutine_function(process):
            raise TypeError(f"batch processor {name!r}: the function is a coroutine function; use AsyncBatchProcessor")
        options = Options(
            batch_size=batch_size,
            batch_timeout=batch_timeout,
            max_concurrent=max_concurrent,
            max_queue=max_queue,
            on_full=on_full,
            weigher=weigher,
            max_weight=max_weight,
            dedupe=dedupe,
        )
        super().__init__(name, process, options, clock, calling_place(1) if _place is UNSET else _place)

    def add(self, item: T, *, timeout: Duration | None = None) -> "Future[R]":
        """Add an item; the future gets its result, and can be cancelled until its batch begins.

        While the queue is full, this blocks with ``on_full="wait"``.

        Args:
            item: the item.
            timeout: how long the caller waits for the result, from now on; then the future fails with `BatchTimeout`, which
                is raised here if there was no room so long. None for no limit.

        Raises:
            BatchClosed: the processor is closed.
            BatchTimeout: there was no room within `timeout`.
            QueueFull: there is no room, and ``on_full="raise"``, or the function itself would have to make it.
        """
        future: Future[R] = Future()
        if self._is_simple and timeout is None:
            entry, limit = Entry(item, future, self.clock(), get_current()), math.inf
        else:
            entry, limit = self._entry(item, future, timeout)
        with self._lock:
            has_work = self._accept(entry, limit)
            busy.add(self)
        if has_work or not self._batch_timeout:
            self._dispatch()
        elif not self._is_armed or timeout is not None:
            self._arm()
        if entry.is_waiting:
            self._wait_for_room(entry, limit)
        return future

    def flush(self, *, timeout: Duration | None = None) -> bool:
        """Make everything due that has been added so far, and wait until it is done.

        Args:
            timeout: how long to wait at most; what is left then is still done later. None for no limit.

        Returns:
            Whether everything was done in time.

        Raises:
            BatchError: it is the function that calls this, and would wait for itself.
        """
        limit = math.inf if timeout is None else seconds("timeout", timeout, allow_zero=True)
        return self._wait_until(self._flush(), limit)

    def close(self, *, timeout: Duration | None = None) -> bool:
        """Take no more items, and wait until those that were added are done; more than once does no harm.

        Args:
            timeout: how long to wait at most; what is left then fails with `BatchClosed`. None for no limit.

        Returns:
            Whether everything was done in time.

        Raises:
            BatchError: it is the function that calls this, and would wait for itself.
        """
        limit = math.inf if timeout is None else seconds("timeout", timeout, allow_zero=True)
        is_done = self._wait_until(self._flush(close=True), limit)
        if not is_done:
            self._give_up()
        return is_done

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()


class AsyncBatchProcessor(LoopProcessor[T, R]):
    """Collects items from the tasks of an event loop, and hands them to a function in batches.

    Does what `BatchProcessor` does, with asyncio's futures. A coroutine function runs in a task of its own, which is cancelled
    when all callers of its batch are gone; any other function runs in a worker thread. The processor belongs to the loop that
    uses it, until that is closed.

    Args: see `BatchProcessor`; ``on_full="wait"`` does not block `add`, but the item waits for room before it waits for its
        batch.

    Raises:
        ConfigurationError: an option has a value that cannot work.
        TypeError: `process` cannot be called.

    >>> async def square(numbers: list[int]) -> list[int]:
    ...     return [number * number for number in numbers]
    >>> async def main() -> list[int]:
    ...     async with AsyncBatchProcessor("squares of a loop", square) as squares:
    ...         return await asyncio.gather(*[squares.add(number) for number in (1, 2, 3)])
    >>> asyncio.run(main())
    [1, 4, 9]
    """

    def __init__(
        self,
        name: str,
        process: Callable[[list[T]], Awaitable[Sequence[R | BaseException]] | Sequence[R | BaseException]],
        *,
        batch_size: int | None = 10,
        batch_timeout: Duration = 0.1,
        max_concurrent: int = 1,
        max_queue: int | None = None,
        on_full: OnFull = "wait",
        weigher: Weigher | None = None,
        max_weight: float | None = None,
        dedupe: Dedupe | None = None,
        clock: Clock = time.monotonic,
        _place: Place | Unset | None = UNSET,
    ) -> None:
        options = Options(
            batch_size=batch_size,
            batch_timeout=batch_timeout,
            max_concurrent=max_concurrent,
            max_queue=max_queue,
            on_full=on_full,
            weigher=weigher,
            max_weight=max_weight,
            dedupe=dedupe,
        )
        super().__init__(name, process, options, clock, calling_place(1) if _place is UNSET else _place)

    def add(self, item: T, *, timeout: Duration | None = None) -> "asyncio.Future[R]":
        """Add an item; the future gets its result. A plain function: there is no task for each item.

        Args:
            item: the item.
            timeout: how long the caller waits for the result, from now on; then the future fails with `BatchTimeout`. None for
                no limit.

        Raises:
            BatchClosed: the processor is closed.
            QueueFull: there is no room, and ``on_full="raise"``.
            RuntimeError: no event loop runs here, or another one uses the processor.
        """
        loop = _get_running_loop()
        if loop is None or loop is not self._loop:
            loop = self._here()
        future: asyncio.Future[R] = loop.create_future()
        if self._is_simple and timeout is None:
            has_work = self._batches.add(Entry(item, future, self.clock(), get_current()))
        else:
            has_work = self._accept(*self._entry(item, future, timeout))
        if has_work:
            self._dispatch()
        elif not self._is_armed or timeout is not None:
            self._arm()
        return future

    async def flush(self, *, timeout: Duration | None = None) -> bool:
        """Make everything due that has been added so far, and wait until it is done; see `BatchProcessor.flush`."""
        self._here()
        limit = math.inf if timeout is None else seconds("timeout", timeout, allow_zero=True)
        return await self._wait_until(self._flush(), limit)

    async def close(self, *, timeout: Duration | None = None) -> bool:
        """Take no more items, and wait until those that were added are done; see `BatchProcessor.close`."""
        self._here()
        limit = math.inf if timeout is None else seconds("timeout", timeout, allow_zero=True)
        is_done = await self._wait_until(self._flush(close=True), limit)
        if not is_done:
            self._give_up()
            for task in list(self._tasks.values()):
                task.cancel()
        return is_done

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()
