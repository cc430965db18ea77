"""How batches run in threads: in workers of the processor's own, while callers wait for futures of `concurrent.futures`."""

import inspect
import logging
import math
import threading
import time
import weakref
from concurrent.futures import Future, InvalidStateError
from contextvars import Context
from functools import partial
from typing import Any

from typing_extensions import TypeVar

from otel_perfopt._core.batch import Batch, Entry
from otel_perfopt.batch.base import BaseProcessor, Outcome, live, running
from otel_perfopt.batch.results import results_of
from otel_perfopt.telemetry import background, clocks, instruments, lifecycle, names
from otel_perfopt.telemetry.background import NoThread, Workers
from otel_perfopt.telemetry.batches import Flush, observed_flush

__all__ = ("ThreadProcessor", "busy")

T = TypeVar("T", default=Any)
R = TypeVar("R", default=Any)

RETRY = 1.0  # seconds until a timer tries again, when there was no thread for what it has to do

busy: "set[ThreadProcessor[Any, Any]]" = set()
"""The processors that have something to do; they live until it is done, also if nobody knows them any more."""

_log = logging.getLogger(names.SCOPE)


class ThreadProcessor(BaseProcessor[T, R]):
    """What is below `BatchProcessor`."""

    # running --------------------------------------------------------------------------------------------

    def _start(self, batch: Batch[Any]) -> None:
        try:
            self._workers.submit(partial(self._work, batch))
        except NoThread:
            self._work(batch)  # this thread is all there is

    def _work(self, batch: Batch[Any] | None) -> None:
        """Run a batch, and then what is due."""
        while batch is not None:
            with self._lock:
                is_mine = self._batches.begin(batch)
            if is_mine:
                self._run(batch)
            batch = self._take()
            self._clear_up()
            self._arm()

    def _run(self, batch: Batch[Any]) -> None:
        try:
            batch.entries = [entry for entry in batch.entries if self._claim(entry)]
            if batch.entries:
                context = Context()  # callbacks of futures are under way in it, too, and must not wait for this processor
                context.run(self._settle, batch, context.run(self._outcome, self._flush_of(batch)))
        finally:
            with self._lock:
                self._batches.end(batch)
            del batch  # the traceback of an error knows this frame, and the batch knows the error

    def _outcome(self, flush: Flush) -> Outcome:
        running.set(self._token)
        try:
            return self._call(flush)
        except BaseException as error:  # noqa: BLE001 - it is the function's, and goes to its callers
            return error

    @observed_flush
    def _call(self, flush: Flush) -> list[Any]:
        returned = self._process(flush.items)
        if inspect.iscoroutine(returned):
            returned.close()
            raise TypeError(f"the function of batch processor {self.name!r} returned a coroutine; use AsyncBatchProcessor")
        return results_of(self.name, returned, flush.size)

    # answering ------------------------------------------------------------------------------------------

    def _claim(self, entry: Entry["Future[Any]"]) -> bool:
        """Return whether any caller still waits for this item; from now on they cannot cancel."""
        waiting = False
        for caller in entry.callers():
            if not caller.future.done() and caller.future.set_running_or_notify_cancel():
                waiting = True
            else:
                self._answer(caller, None)
        return waiting

    def _answer(self, entry: Entry["Future[Any]"], result: Any) -> None:
        future = entry.future
        error = result if isinstance(result, BaseException) else None
        try:
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)
        except InvalidStateError:
            if future.cancelled() and self._count_cancelled(entry):
                _notify_cancelled(future)
            return
        except BaseException:  # noqa: BLE001 - the future has its result, and so shall the others
            _log.exception("a callback of a future of batch processor %r asked for an exit", self.name)
        self._count(error)

    def _cannot_wait(self) -> bool:
        return running.get() is self._token

    # waiting --------------------------------------------------------------------------------------------

    def _wait_for_room(self, entry: Entry["Future[Any]"], limit: float) -> None:
        """Block until the entry is in the queue.

        Raises:
            BatchTimeout: it was not, in time.
            BatchClosed: the processor was closed, and `close` has given up.
        """
        barrier = threading.Lock()
        barrier.acquire()
        try:
            with self._lock:
                self._blocked[entry] = barrier
                self._wake()
            clocks.block(self.clock, limit, barrier)
        except BaseException:
            entry.future.cancel()
            raise
        finally:
            with self._lock:
                self._blocked.pop(entry, None)
        if entry.is_waiting:
            self._answer(entry, self._timeout_of(entry))
            error = entry.future.exception()
            if error is not None:
                raise error

    def _wait_until(self, mark: int, limit: float) -> bool:
        """Block until everything is done that was added before `mark`, and return whether it is."""
        barrier = threading.Lock()
        barrier.acquire()
        waiter = (mark, partial(_release, barrier))
        try:
            with self._lock:
                self._waiters.append(waiter)
                self._wake()
            if limit > 0:
                clocks.block(self.clock, limit, barrier)
        finally:
            with self._lock:
                self._waiters.remove(waiter)
        with self._lock:
            return self._batches.is_done(mark)

    def _wake(self) -> None:
        super()._wake()
        for entry, barrier in list(self._blocked.items()):
            if not entry.is_waiting or entry.future.done():
                _release(barrier)
        if self._batches.is_idle():
            busy.discard(self)

    # time -----------------------------------------------------------------------------------------------

    def _arm(self) -> None:
        try:
            with self._lock:
                self._is_armed = bool(self._batches.queue)
                due = self._batches.next_time()
                if self._armed <= due:
                    return
                self._armed = due
            # Not under the lock: a finalizer that runs under the timers' may want ours.
            clocks.after(self.clock, max(0.0, due - self.clock()), partial(_tick, weakref.ref(self), due))
        except BaseException:
            self._is_armed, self._armed = False, math.inf  # there may be a timer or not; one too many does no harm
            raise

    def _on_time(self, due: float) -> None:
        with self._lock:
            if self._armed <= due:
                self._armed = math.inf
        self._expire()
        self._dispatch()

    def _start_afresh(self) -> None:
        super()._start_afresh()
        self._workers = Workers(f"otel-perfopt-{self.name}", self._limits["max_concurrent"])
        self._blocked: dict[Entry[Any], threading.Lock] = {}


def _tick(processor: "weakref.ref[ThreadProcessor[Any, Any]]", due: float) -> None:
    """Run in the timer thread, which must not run the callbacks of futures."""
    found = processor()
    if found is not None:
        try:
            background.submit(partial(found._on_time, due))
        except NoThread:
            clocks.after(found.clock, RETRY, partial(_tick, processor, due))


def _release(barrier: threading.Lock) -> None:
    try:
        barrier.release()
    except RuntimeError:
        pass  # whoever was blocked is free already


def _notify_cancelled(future: "Future[Any]") -> None:
    """Tell those who wait for several futures at once that this one is over."""
    try:
        future.set_running_or_notify_cancel()
    except (InvalidStateError, RuntimeError):
        pass  # they know


def _drain(limit: float) -> None:
    """Close all processors, because the process ends."""
    end = time.monotonic() + limit
    processors = [processor for processor in list(live) if isinstance(processor, ThreadProcessor)]
    for processor, mark in [(processor, processor._flush(close=True)) for processor in processors]:
        if not processor._wait_until(mark, max(0.0, end - time.monotonic())):
            processor._give_up()


instruments.on_fork(busy.clear)
lifecycle.before_exit(_drain)
