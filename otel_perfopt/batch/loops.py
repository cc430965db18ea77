"""How batches run on an event loop: in a task each, while callers wait for futures of asyncio."""

import asyncio
import inspect
import math
from asyncio import AbstractEventLoop
from collections.abc import Callable
from contextvars import Context, copy_context
from functools import partial
from typing import Any

from typing_extensions import TypeVar

from otel_perfopt._core.batch import Batch, Entry
from otel_perfopt.batch.base import BaseProcessor, Outcome, running
from otel_perfopt.batch.results import results_of
from otel_perfopt.errors import BatchClosed
from otel_perfopt.telemetry import clocks
from otel_perfopt.telemetry.background import NoThread, Workers
from otel_perfopt.telemetry.batches import Flush, observed_flush

__all__ = ("LoopProcessor",)

T = TypeVar("T", default=Any)
R = TypeVar("R", default=Any)

BRIEF = 1.0  # seconds for which a timer is left alone although there is nothing to do


class LoopProcessor(BaseProcessor[T, R]):
    """What is below `AsyncBatchProcessor`."""

    _loop: AbstractEventLoop | None
    _disarm: Callable[[], object]

    def _here(self) -> AbstractEventLoop:
        """Return the running loop, and make it this processor's, if it has none that is still open."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise RuntimeError(
                f"batch processor {self.name!r}: no event loop runs in this thread; use a BatchProcessor, or "
                f"loop.call_soon_threadsafe"
            ) from None
        if loop is not self._loop:
            if self._loop is not None and not self._loop.is_closed():
                raise RuntimeError(
                    f"batch processor {self.name!r} is used by another event loop, which is not closed; have one for each loop"
                )
            self._leave_loop()
            self._loop = loop
        return loop

    def _leave_loop(self) -> None:
        """Count what a closed loop has left behind; nobody can be told."""
        for caller in [caller for entry in self._batches.everything() for caller in entry.callers()]:
            if caller.future.cancelled():
                self._count_cancelled(caller)
            elif not caller.future.done():
                self._count(BatchClosed("its event loop was closed"))
        self._start_afresh()

    # running --------------------------------------------------------------------------------------------

    def _start(self, batch: Batch[Any]) -> None:
        self._batches.begin(batch)
        work = self._run(batch, self._flush_of(batch))
        try:
            # Not create_task(context=...), which some task factories do not take.
            task = Context().run(self._here().create_task, work)
        except BaseException as error:  # noqa: BLE001 - that of a task factory; it goes to the callers
            work.close()
            self._end(batch, error)
            return
        self._tasks[batch] = task
        task.add_done_callback(partial(self._on_end, batch))
        if self._is_async:
            self._watch(batch)

    def _watch(self, batch: Batch[Any], _: object = None) -> None:
        """Cancel the call of a batch when the last caller is gone; one of those who still wait is watched at a time."""
        task = self._tasks.get(batch)
        if task is not None:
            future = batch.somebody()
            if future is None:
                task.cancel()
            else:
                future.add_done_callback(partial(self._watch, batch))

    async def _run(self, batch: Batch[Any], flush: Flush) -> None:
        try:
            self._end(batch, await self._outcome(flush))
            self._dispatch()
        finally:
            del batch  # the traceback of an error knows this frame, and the batch knows the error

    def _on_end(self, batch: Batch[Any], _: object) -> None:
        del self._tasks[batch]
        if batch in self._batches.running:  # the task was cancelled before its first step
            self._end(batch, asyncio.CancelledError())
            self._dispatch()

    def _end(self, batch: Batch[Any], outcome: Outcome) -> None:
        self._settle(batch, outcome)
        self._batches.end(batch)

    async def _outcome(self, flush: Flush) -> Outcome:
        running.set(self._token)
        try:
            return await self._call(flush)
        except BaseException as error:  # noqa: BLE001 - it is the function's, and goes to its callers
            return error

    @observed_flush
    async def _call(self, flush: Flush) -> list[Any]:
        returned = self._process(flush.items) if self._is_async else await self._in_worker(flush.items)
        if not isinstance(returned, list) and inspect.isawaitable(returned):
            returned = await returned
        return results_of(self.name, returned, flush.size)

    async def _in_worker(self, items: list[Any]) -> Any:
        """Call a plain function in a worker thread."""
        loop = asyncio.get_running_loop()
        arrived = loop.create_future()
        results: list[Any] = []
        errors: list[BaseException] = []
        context = copy_context()  # has the span of this batch

        def job() -> None:
            try:
                results.append(context.run(self._process, items))
            except BaseException as error:  # noqa: BLE001 - it is the function's, and goes to its callers
                errors.append(error)
            try:
                loop.call_soon_threadsafe(_arrive, arrived)
            except RuntimeError:
                pass  # the loop is closed, and with it whoever waited there

        try:
            self._workers.submit(job)
        except NoThread:
            job()
        await arrived
        if errors:
            raise errors.pop()
        return results.pop()

    def _clear_up(self) -> None:
        if self._batches.left or self._batches.evicted or self._waiters:
            super()._clear_up()

    # answering ------------------------------------------------------------------------------------------

    def _settle(self, batch: Batch[Any], outcome: Outcome) -> None:
        if isinstance(outcome, BaseException):
            super()._settle(batch, outcome)
            return
        count = 0
        for entry, result in zip(batch.entries, outcome, strict=True):
            if entry.followers is None and not isinstance(result, BaseException):
                try:
                    entry.future.set_result(result)
                    count += 1
                    continue
                except asyncio.InvalidStateError:
                    pass  # its caller is gone
            self._settle_entry(entry, result)
        self._counts.items += count

    def _answer(self, entry: Entry["asyncio.Future[Any]"], result: Any) -> None:
        future = entry.future
        if future.done():
            if future.cancelled():
                self._count_cancelled(entry)
        elif isinstance(result, BaseException):
            future.set_exception(_without_stop(result))
            self._count(result)
        else:
            future.set_result(result)
            self._counts.items += 1

    # waiting --------------------------------------------------------------------------------------------

    async def _wait_until(self, mark: int, limit: float) -> bool:
        """Wait until everything is done that was added before `mark`, and return whether it is."""
        loop = asyncio.get_running_loop()
        arrived = loop.create_future()
        waiter = (mark, partial(_arrive, arrived))
        self._waiters.append(waiter)
        self._wake()
        cancel = None if limit in (0, math.inf) else clocks.call_later(self.clock, loop, limit, waiter[1])
        try:
            if limit > 0:
                await arrived
        finally:
            if cancel is not None:
                cancel()
            self._waiters.remove(waiter)
        return self._batches.is_done(mark)

    # time -----------------------------------------------------------------------------------------------

    def _arm(self) -> None:
        self._is_armed = bool(self._batches.queue)
        due = self._batches.next_time()
        # A timer that nobody needs any more is mostly right for the next item. One far away would keep this processor alive.
        if self._armed <= due and (due < math.inf or self._armed - self.clock() < BRIEF):
            return
        self._disarm()
        self._armed, self._disarm = due, _nothing
        if due < math.inf:
            later = partial(clocks.call_later, self.clock, self._here(), max(0.0, due - self.clock()), self._on_time)
            self._disarm = Context().run(later)  # the timer keeps no caller's context

    def _on_time(self) -> None:
        self._armed = math.inf
        self._expire()
        self._dispatch()

    def _start_afresh(self) -> None:
        super()._start_afresh()
        self._loop = None
        self._tasks: dict[Batch[Any], asyncio.Task[None]] = {}
        self._disarm = _nothing
        self._workers = Workers(f"otel-perfopt-{self.name}", self._limits["max_concurrent"])


def _without_stop(error: BaseException) -> BaseException:
    """Return an error that an asyncio future takes."""
    if not isinstance(error, StopIteration):
        return error
    stopped = RuntimeError(f"a batch raised {error!r}, which cannot be raised into a future")
    stopped.__cause__ = error
    return stopped


def _arrive(arrived: "asyncio.Future[None]") -> None:
    if not arrived.done():
        arrived.set_result(None)


def _nothing() -> None:
    """Cancel no timer."""
