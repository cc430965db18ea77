"""The telemetry of batches: their counts, and decorators that put it on the functions that take them."""

import inspect
import logging
from collections.abc import Callable, Collection, Iterable
from typing import Any, NamedTuple, TypeVar, cast

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span
from opentelemetry.util.types import AttributeValue
from typing_extensions import override

from otel_perfopt._core.cells import Counts
from otel_perfopt.telemetry import names
from otel_perfopt.telemetry.family import Family, Series
from otel_perfopt.telemetry.latency import Latency
from otel_perfopt.telemetry.spans import Timed, start
from otel_perfopt.telemetry.wrapping import Wrapper, plain_function, wrap_in

__all__ = ("BATCHES", "BatchCounts", "BatchMeter", "Flush", "observed_batch", "observed_flush")

F = TypeVar("F", bound=Callable[..., Any])

MAX_LINKS = 128
REASONS = ("size", "weight", "timeout", "manual", "close")

_log = logging.getLogger(names.SCOPE)


class BatchCounts(Counts):
    """What one batch processor has counted; `failed` is told by error type, and here only summed."""

    __slots__ = ("failed", "items", *(f"flushes_{reason}" for reason in REASONS))

    failed: int
    items: int

    def flushed(self, reason: str) -> None:
        """Count a batch that is handed to the function."""
        field = f"flushes_{reason}"
        setattr(self, field, getattr(self, field) + 1)


BATCHES = Family(
    names.BATCH_NAME,
    BatchCounts,
    series={
        "items": Series(names.BATCH_ITEMS, {}),
        **{f"flushes_{reason}": Series(names.BATCH_FLUSHES, {names.FLUSH_REASON: reason}) for reason in REASONS},
    },
)


class BatchMeter:
    """Where the latencies of one name go; made when the first batch is there.

    Args:
        name: the name of the processor.
    """

    __slots__ = ("_duration", "batch", "size", "span", "wait_time")

    def __init__(self, name: str) -> None:
        self.batch = names.clean(name)
        self.span = f"flush {self.batch}"
        self.size = BATCHES.latency(name, names.BATCH_SIZE)
        self.wait_time = BATCHES.latency(name, names.BATCH_WAIT_TIME)
        self._duration = BATCHES.latency(name, names.BATCH_DURATION)

    def duration(self, error: BaseException | None) -> Latency:
        """Return where to record how long a call took."""
        if error is None:
            return self._duration
        return BATCHES.latency(self.batch, names.BATCH_DURATION, names.error_type(error))


class Flush(NamedTuple):
    """One call of a processor's function. It knows nothing of the callers' futures, which know the error of a call that fails.

    Attributes:
        meter: that of the processor.
        items: what the function takes.
        size: how many these were; the list is the function's to change.
        reason: why the batch was due.
        waited: seconds that the first item has waited.
        contexts: those in which the items were added.
    """

    meter: BatchMeter
    items: list[Any]
    size: int
    reason: str
    waited: float
    contexts: Collection[Context]


class _Call(Timed):
    """Spans and times one call of a function that takes a batch."""

    __slots__ = ("_meter",)

    def __init__(self, meter: BatchMeter, attributes: dict[str, AttributeValue]) -> None:
        super().__init__(meter.span, {names.BATCH_NAME: meter.batch, **attributes})
        self._meter = meter

    @override
    def latency(self, error: BaseException | None) -> Latency:
        return self._meter.duration(error)


class _Flush(_Call):
    """The same for a processor's own call: the span is a root, linked with those of the callers in both directions."""

    __slots__ = ("_contexts",)

    def __init__(self, flush: Flush) -> None:
        super().__init__(flush.meter, {names.BATCH_SIZE.name: flush.size, names.FLUSH_REASON: flush.reason})
        self._contexts = flush.contexts
        flush.meter.size.record(flush.size)
        flush.meter.wait_time.record(max(0.0, flush.waited))

    @override
    def _start(self) -> Span:
        callers = _callers(self._contexts)
        span = start(self._name, self._attributes, links=callers[:MAX_LINKS])
        if callers and span.is_recording():
            _link_back(callers, span)
        return span


def observed_flush(method: F) -> F:
    """Decorate the method of a processor that calls its function; it takes a `Flush`."""
    return wrap_in(method, lambda _, args: _Flush(*args))


def observed_batch(name: str) -> Callable[[F], F]:
    """Decorate a function that takes a batch, and is not called by this library: it counts in the same metrics.

    The batch is the first argument of the function or the method. What it returns is left alone: an exception among the
    results counts as a failed item, and one that the function raises fails all of its items.

    Args:
        name: the name of the batches.

    >>> @observed_batch("squares")
    ... def squares(numbers):
    ...     return [number * number for number in numbers]
    >>> squares([1, 2, 3])
    [1, 4, 9]
    """

    def decorate(function: F) -> F:
        async def wrapper_async(wrapped: Any, _: Any, args: Any, kwargs: Any) -> Any:
            size = _size_of(args, kwargs)
            try:
                with timed(size):
                    results = await wrapped(*args, **kwargs)
            except BaseException as error:
                fail(size, error)
                raise
            count(size, results)
            return results

        def wrapper(wrapped: Any, _: Any, args: Any, kwargs: Any) -> Any:
            size = _size_of(args, kwargs)
            try:
                with timed(size):
                    results = wrapped(*args, **kwargs)
            except BaseException as error:
                fail(size, error)
                raise
            count(size, results)
            return results

        def timed(size: int | None) -> _Call:
            if size is None:
                return _Call(meter, {})
            meter.size.record(size)
            return _Call(meter, {names.BATCH_SIZE.name: size})

        def fail(size: int | None, error: BaseException) -> None:
            BATCHES.tally(name, names.BATCH_ITEMS, {names.ERROR_TYPE: names.error_type(error)}).n += size or 0

        def count(size: int | None, results: Any) -> None:
            failures = [each for each in results if isinstance(each, BaseException)] if isinstance(results, list | tuple) else ()
            for failure in failures:
                fail(1, failure)
            counts.items += (size or 0) - len(failures)

        is_async = inspect.iscoroutinefunction(plain_function(function))
        observed = Wrapper(function, wrapper_async if is_async else wrapper)
        meter = BatchMeter(name)
        counts = BATCHES.join(name, observed)  # read for as long as the decorated function lives
        return cast("F", observed)

    return decorate


def _size_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> int | None:
    try:
        return len(next(iter((*args, *kwargs.values()))))
    except Exception:  # noqa: BLE001 - no argument, or one without a length; the function will say
        return None


def _callers(contexts: Iterable[Context]) -> list[Span]:
    """Return the callers' spans that somebody will see, each once."""
    found: dict[int, Span] = {}
    for context in contexts:
        span = trace.get_current_span(context)
        about = span.get_span_context()
        if about.is_valid and (about.trace_flags.sampled or span.is_recording()):
            found.setdefault(about.span_id, span)
    return list(found.values())


def _link_back(callers: Iterable[Span], span: Span) -> None:
    about = span.get_span_context()
    for caller in callers:
        try:
            if caller.is_recording():
                caller.add_link(about)
        except Exception:  # noqa: BLE001 - an instrumentation's own kind of span; the batch goes on without the link
            _log.debug("a link to %r could not be added", span, exc_info=True)
