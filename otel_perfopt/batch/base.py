"""What batch processors for threads and for asyncio have in common: everything but their ways to run, to wait and to answer.

What one caller's interruption or another thread leaves undone, the next step of anybody does: each of them looks at what there
is, not at what has happened.
"""

import math
import threading
import weakref
from collections.abc import Callable, Hashable, Mapping
from contextvars import ContextVar
from functools import partial
from typing import Any, Generic, NoReturn

from opentelemetry.context import get_current
from typing_extensions import TypeVar

from otel_perfopt._core.batch import Batch, Entry
from otel_perfopt._core.batches import Batches
from otel_perfopt.batch.options import Options, check_weight, is_coroutine_function, seconds
from otel_perfopt.batch.stats import BatchStats
from otel_perfopt.durations import Duration
from otel_perfopt.errors import BatchClosed, BatchError, BatchTimeout, ConfigurationError, QueueFull
from otel_perfopt.registry import BATCH_REGISTRY, Place
from otel_perfopt.telemetry import instruments, names
from otel_perfopt.telemetry.batches import BATCHES, BatchCounts, BatchMeter, Flush
from otel_perfopt.telemetry.clocks import Clock
from otel_perfopt.telemetry.family import Gauges
from otel_perfopt.unset import UNSET

__all__ = ("BaseProcessor", "Outcome", "live", "running")

T = TypeVar("T", default=Any)
R = TypeVar("R", default=Any)

Outcome = list[Any] | BaseException
"""What came of a call: the results in the order of the items, or what the function has raised."""

CANCELLED = "cancelled"
"""The error type of items whose callers have cancelled."""

live: "weakref.WeakSet[BaseProcessor[Any, Any]]" = weakref.WeakSet()
running: ContextVar[object] = ContextVar("otel_perfopt_running_batch", default=None)
"""The token of the processor whose function the running code is a part of."""

_GAUGES: Gauges = {
    names.BATCH_QUEUE_SIZE: lambda processor: len(processor._batches.queue),
    names.BATCH_QUEUE_CAPACITY: lambda processor: processor.max_queue,
    names.BATCH_IN_FLIGHT: lambda processor: len(processor._batches.running),
}


class BaseProcessor(Generic[T, R]):
    """A batch processor without its ways to run, to answer and to wait.

    Args:
        name: its name.
        process: the function.
        options: the options.
        clock: returns monotonic seconds.
        place: where it is defined; None for one that cannot be found by its name.
    """

    def __init__(
        self,
        name: str,
        process: Callable[[list[T]], Any],
        options: Options,
        clock: Clock,
        place: Place | None,
    ) -> None:
        if not isinstance(name, str) or not name.strip():
            raise ConfigurationError(f"name={name!r}: a batch processor needs a name, such as 'orders'; its metrics carry it")
        if not callable(process):
            raise TypeError(f"process={process!r} must be a function that takes a list of items and returns their results")
        self.name = name
        self.max_queue = options.max_queue
        self.clock = clock
        self._process = process
        self._options = options
        self._limits: Mapping[str, Any] = options.limits()
        self._batch_timeout: float = self._limits["batch_timeout"]
        self._is_simple = options.weigher is None and options.dedupe is None and options.max_queue is None
        self._token = object()
        self._is_async = is_coroutine_function(process)
        self._on_done = partial(_note_cancelled, weakref.ref(self))
        self._start_afresh()
        self._counts: BatchCounts = BATCHES.join(name, self, _GAUGES)
        self._meter: BatchMeter | None = None
        live.add(self)
        if place is not None:
            BATCH_REGISTRY.register(name, self, place, stacklevel=3)

    def __repr__(self) -> str:
        batches = self._batches
        state = "closed" if batches.is_closed else "open"
        return f"<{type(self).__name__} {self.name!r}: {state}, {len(batches.queue)} queued, {len(batches.running)} in flight>"

    def stats(self) -> BatchStats:
        """Return what this processor holds and has counted."""
        batches, counts = self._batches, self._counts
        flushes = {field: getattr(counts, field) for field in counts.fields if field.startswith("flushes_")}
        return BatchStats(
            name=self.name,
            queue_size=len(batches.queue),
            max_queue=self.max_queue,
            waiting=len(batches.waiting),
            in_flight=len(batches.running),
            item_count=counts.items,
            failed_count=counts.failed,
            **flushes,
        )

    # what the shells bring ------------------------------------------------------------------------------

    def _start(self, batch: Batch[Any]) -> None:
        """Have a batch run."""
        raise NotImplementedError

    def _arm(self) -> None:
        """Set the timer for what is due next."""
        raise NotImplementedError

    def _answer(self, entry: Entry[Any], result: Any) -> None:
        """Give one caller a result, or an error, and count it."""
        raise NotImplementedError

    # in -------------------------------------------------------------------------------------------------

    def _entry(self, item: T, future: Any, timeout: Duration | None) -> tuple[Entry[Any], float]:
        """Return an entry, and the seconds within which its caller wants the result; runs user code."""
        limit = math.inf if timeout is None else seconds("timeout", timeout)
        weigher, dedupe = self._options.weigher, self._options.dedupe
        weight = 0.0 if weigher is None else check_weight(weigher(item), item)
        key: Hashable = UNSET
        if dedupe is not None:
            key = dedupe(item)
            hash(key)  # raises here, outside of the lock, if it has none
        if self.max_queue is not None:
            future.add_done_callback(self._on_done)
        return Entry(item, future, self.clock(), get_current(), weight, key), limit

    def _accept(self, entry: Entry[Any], limit: float) -> bool:
        """Queue an entry under the lock; return whether something may have to be done."""
        batches = self._batches
        if batches.is_closed:
            self._refuse(BatchClosed(f"batch processor {self.name!r} is closed", context={"batch": self.name}))
        if entry.key is not UNSET and batches.follow(entry):
            has_work = False
        else:
            if self.max_queue is not None and batches.is_full():
                self._make_room()
            has_work = batches.add(entry) or bool(batches.evicted)
        if limit < math.inf:
            batches.set_deadline(entry, entry.since + limit)
        return has_work

    def _make_room(self) -> None:
        if self._options.on_full == "drop_oldest":
            self._batches.evict()
        elif self._options.on_full == "raise" or self._cannot_wait():
            self._refuse(self._queue_full("was refused"))

    def _cannot_wait(self) -> bool:
        """Whether to wait for room would block what makes room."""
        return False

    def _refuse(self, error: BaseException) -> NoReturn:
        self._count(error)
        raise error

    def _queue_full(self, what: str) -> QueueFull:
        return QueueFull(
            f"batch processor {self.name!r}: an item {what}, because {self.max_queue} wait already",
            context={"batch": self.name, "max_queue": self.max_queue},
        )

    # out ------------------------------------------------------------------------------------------------

    def _dispatch(self) -> None:
        """Do everything that has to be done now."""
        try:
            while self._batches.queue and (batch := self._take()) is not None:
                self._start(batch)
            self._clear_up()
        except BaseException:
            with self._lock:
                self._batches.put_back()
            self._arm()
            raise
        self._arm()

    def _take(self) -> Batch[Any] | None:
        with self._lock:
            return self._batches.take(self.clock())

    def _flush_of(self, batch: Batch[Any]) -> Flush:
        """Count a batch that begins, and return what its call needs."""
        with self._lock:  # several batches may begin at once, in threads of their own
            self._counts.flushed(batch.reason)
        if self._meter is None:
            self._meter = BatchMeter(self.name)
        entries = batch.entries
        callers = entries if self._options.dedupe is None else [caller for entry in entries for caller in entry.callers()]
        contexts = {id(caller.context): caller.context for caller in callers if caller.context}
        items = [entry.item for entry in entries]
        waited = self.clock() - entries[0].since
        return Flush(self._meter, items, len(items), batch.reason, waited, contexts.values())

    def _settle(self, batch: Batch[Any], outcome: Outcome) -> None:
        """Give every caller of a batch what came of it."""
        results = [outcome] * len(batch.entries) if isinstance(outcome, BaseException) else outcome
        for entry, result in zip(batch.entries, results, strict=True):
            self._settle_entry(entry, result)

    def _settle_entry(self, entry: Entry[Any], result: Any) -> None:
        for caller in entry.callers():
            self._answer(caller, result)

    def _clear_up(self) -> None:
        """Answer those whose items have left the queue without a batch, and wake those who wait."""
        batches = self._batches
        with self._lock:
            left, batches.left = batches.left, []
            evicted = batches.evicted[:]
        for entry in (*left, *evicted):
            for caller in entry.callers():  # those who have left need no answer; they are counted
                self._answer(caller, self._queue_full("was dropped for a newer one"))
        with self._lock:
            if evicted:
                batches.evicted = [entry for entry in batches.evicted if not entry.is_gone()]
            self._wake()

    def _expire(self) -> None:
        """Answer those whose time is over."""
        while True:
            with self._lock:
                entry = self._batches.expired(self.clock())
                self._batches.gone += entry is not None
            if entry is None:
                return
            self._answer(entry, self._timeout_of(entry))

    def _timeout_of(self, entry: Entry[Any]) -> BatchTimeout:
        return BatchTimeout(
            f"batch processor {self.name!r}: no result after {self.clock() - entry.since:.3f} s",
            context={"batch": self.name},
        )

    # the end --------------------------------------------------------------------------------------------

    def _flush(self, *, close: bool = False) -> int:
        """Make everything due that has been added; return a mark to wait for."""
        if running.get() is self._token:
            raise BatchError(
                f"batch processor {self.name!r}: its function cannot wait for its own batches to end, which wait for it",
                context={"batch": self.name},
            )
        with self._lock:
            if close:
                self._is_simple = False
                self._batches.is_closed = True
            mark = self._batches.flush()
        self._dispatch()
        return mark

    def _give_up(self) -> None:
        """Answer everybody who still waits for a processor that is closed."""
        with self._lock:
            entries = list(self._batches.everything())
        for entry in entries:
            for caller in entry.callers():
                error = BatchClosed(
                    f"batch processor {self.name!r} was closed before this item had its result; give close() a longer timeout",
                    context={"batch": self.name},
                )
                self._answer(caller, error)
        with self._lock:
            self._batches.clear()
        self._clear_up()

    def _wake(self) -> None:
        """Wake, under the lock, those whose wait is over."""
        for mark, wake in self._waiters[:]:
            if self._batches.is_done(mark):
                wake()

    def _start_afresh(self) -> None:
        """Forget everything that waits or runs, and who waits for it; what is closed stays closed."""
        # Reentrant: a collection of garbage under the lock may run a finalizer that adds an item.
        self._lock = threading.RLock()
        was_closed = getattr(self, "_batches", None) is not None and self._batches.is_closed
        self._batches: Batches[Any] = Batches(**self._limits)
        self._batches.is_closed = was_closed
        self._waiters: list[tuple[int, Callable[[], object]]] = []
        self._armed = math.inf  # when the timer is due
        self._is_armed = False  # whether it is right for the first item of the queue

    # counting -------------------------------------------------------------------------------------------

    def _count(self, error: BaseException | None) -> None:
        if error is None:
            self._counts.items += 1
        else:
            self._count_failure(names.error_type(error))

    def _count_cancelled(self, entry: Entry[Any]) -> bool:
        """Count a caller that has cancelled, and return whether that was not done before."""
        if entry.is_counted:
            return False
        entry.is_counted = True
        self._count_failure(CANCELLED)
        return True

    def _count_failure(self, error_type: str) -> None:
        self._counts.failed += 1
        BATCHES.tally(self.name, names.BATCH_ITEMS, {names.ERROR_TYPE: error_type}).n += 1


def _note_cancelled(processor: "weakref.ref[BaseProcessor[Any, Any]]", future: Any) -> None:
    """Look for room if a caller has cancelled."""
    found = processor()
    if found is not None and future.cancelled():
        with found._lock:
            found._batches.gone += 1
            is_wanted = bool(found._batches.waiting)
        if is_wanted:
            found._dispatch()


def _after_fork() -> None:
    for processor in list(live):
        processor._start_afresh()


instruments.on_fork(_after_fork)
