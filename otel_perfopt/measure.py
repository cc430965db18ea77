"""Measuring operations: how often, how long, how many failed, and with which change of memory."""

import inspect
import math
import sys
import time
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from types import TracebackType
from typing import Any, TypeVar, cast, overload

from otel_perfopt.durations import Duration, to_seconds
from otel_perfopt.errors import ConfigurationError, MissingExtra
from otel_perfopt.telemetry import instruments, names, spans
from otel_perfopt.telemetry.operations import Operation, operation
from otel_perfopt.telemetry.spans import Traced
from otel_perfopt.telemetry.wrapping import Wrapper, label_of, plain_function

__all__ = ("measure_performance", "record_performance_metric")

F = TypeVar("F", bound=Callable[..., Any])

MAX_DURATION = 1e9


@overload
def measure_performance(name: F, /) -> F: ...
@overload
def measure_performance(name: str, fn: F, /, *, span: bool = True, track_memory: bool = False) -> F: ...
@overload
def measure_performance(name: str | None = None, /, *, span: bool = True, track_memory: bool = False) -> Callable[[F], F]: ...
def measure_performance(name: Any = None, fn: Any = None, /, *, span: bool = True, track_memory: bool = False) -> Any:
    """Measure every call of a function: its duration, whether it failed and how, and a span.

    For functions, coroutine functions, generators, asynchronous generators and methods. A generator is measured from its first
    step to its end; its duration is the time spent inside it, without what its consumer does between the steps.

    Args:
        name: the name of the operation; the module and the qualified name of the function by default.
        fn: the function, when this is called as ``measure_performance("name", fn)``.
        span: whether each call is a span, too.
        track_memory: whether the change of the process's resident memory is noted; needs the extra ``memory``.

    Returns:
        The measured function; it keeps its name, its signature and its type, and can be pickled by name.

    Raises:
        ConfigurationError: the name is empty.
        MissingExtra: `track_memory` without psutil.
        TypeError: it is no function, or the name is no string.

    >>> @measure_performance("orders.total")
    ... def total(prices):
    ...     return sum(prices)
    >>> total([1, 2])
    3
    """
    if fn is None and not (name is None or isinstance(name, str)):
        name, fn = None, name
    if fn is None:
        return lambda function: _measured(function, name, span=span, track_memory=track_memory)
    return _measured(fn, name, span=span, track_memory=track_memory)


def record_performance_metric(
    name: str,
    duration: Duration,
    *,
    success: bool = True,
    error_type: str | None = None,
    memory_delta: float | None = None,
) -> None:
    """Note an operation that was measured elsewhere.

    Args:
        name: the name of the operation.
        duration: how long it took, in seconds, as a `timedelta` or as a string; at most a thousand million seconds.
        success: whether it succeeded.
        error_type: how it failed: a class of exceptions or an error code, of low cardinality.
        memory_delta: the change of memory in bytes.

    Raises:
        ValueError: the name is empty, the duration is negative, not finite or too long, the change of memory is not finite, or a
            success has an error type.
        TypeError: an argument has another type.

    >>> record_performance_metric("import", 0.25, success=False, error_type="TimeoutError")
    """
    _check_name(name)
    seconds = to_seconds(duration, option="duration", allow_zero=True)
    if seconds > MAX_DURATION:
        raise ConfigurationError(f"duration={duration!r} is more than thirty years; is it in seconds?")
    if error_type is not None and not isinstance(error_type, str):
        raise TypeError(f"error_type={error_type!r} must be a string, such as 'TimeoutError'")
    if memory_delta is not None and not math.isfinite(memory_delta):
        raise ConfigurationError(f"memory_delta={memory_delta!r} must be a finite number of bytes")
    if success and error_type is not None:
        raise ConfigurationError(f"error_type={error_type!r} belongs to success=False")
    record = operation(name)
    latency = record.success if success else record.failure(error_type or names.ERROR_TYPE_OTHER)
    latency.record(seconds)
    if memory_delta is not None:
        record.add_memory_delta(memory_delta)


def _check_name(name: object) -> None:
    if not isinstance(name, str):
        raise TypeError(f"name={name!r}: the name of an operation is a string, such as 'orders.total'")
    if not name.strip():
        raise ConfigurationError(f"name={name!r}: an operation needs a name, such as 'orders.total'")


def _measured(function: F, name: str | None, *, span: bool, track_memory: bool) -> F:
    plain = plain_function(function)
    if not callable(plain):
        raise TypeError(f"measure_performance measures a function, not {function!r}")
    if name is None:
        name = label_of(function)
    _check_name(name)
    if track_memory:
        _resident_memory()  # raises now, not at the first call, if psutil is missing
    meter = _Meter(operation(name), span=span, track_memory=track_memory)
    if inspect.isasyncgenfunction(plain):
        wrapper: Any = meter.wrap_async_generator
    elif inspect.isgeneratorfunction(plain):
        wrapper = meter.wrap_generator
    elif inspect.iscoroutinefunction(plain):
        wrapper = meter.wrap_coroutine
    else:
        wrapper = meter.wrap_function
    return cast("F", Wrapper(function, wrapper()))


_clock = time.perf_counter


class _Meter:
    """Makes the wrappers for one operation."""

    def __init__(self, operation: Operation, *, span: bool, track_memory: bool) -> None:
        self._operation = operation
        self._span = span
        self._track_memory = track_memory
        self._attributes = {names.OPERATION_NAME: operation.name}
        success = operation.success
        self._record = success.record_here if span else success.record

    def wrap_function(self) -> Callable[..., Any]:
        """Return the wrapper for a plain function."""
        record, fail, around = self._record, self._fail, self._around

        def measure(wrapped: Any, _: Any, args: Any, kwargs: Any) -> Any:
            start = _clock()
            try:
                result = wrapped(*args, **kwargs)
            except BaseException as error:
                fail(_clock() - start, error)
                raise
            record(_clock() - start)
            return result

        def measure_more(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
            with around():
                return measure(wrapped, instance, args, kwargs)

        return measure_more if self._span or self._track_memory else measure

    def wrap_coroutine(self) -> Callable[..., Any]:
        """Return the wrapper for a coroutine function."""
        record, fail, around = self._record, self._fail, self._around

        async def measure(wrapped: Any, _: Any, args: Any, kwargs: Any) -> Any:
            start = _clock()
            try:
                result = await wrapped(*args, **kwargs)
            except BaseException as error:
                fail(_clock() - start, error)
                raise
            record(_clock() - start)
            return result

        async def measure_more(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
            with around():
                return await measure(wrapped, instance, args, kwargs)

        return measure_more if self._span or self._track_memory else measure

    def wrap_generator(self) -> Callable[..., Any]:
        """Return the wrapper for a generator function."""
        return lambda wrapped, _, args, kwargs: self._drive(wrapped(*args, **kwargs))

    def wrap_async_generator(self) -> Callable[..., Any]:
        """Return the wrapper for an asynchronous generator function."""
        return lambda wrapped, _, args, kwargs: self._drive_async(wrapped(*args, **kwargs))

    def _drive(self, generator: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
        run = _Run(self)
        resume: Callable[[Any], Any] = generator.send
        payload: Any = None
        try:
            while True:
                with run:
                    item = resume(payload)
                try:
                    payload = yield item
                    resume = generator.send
                except BaseException as error:  # noqa: BLE001 - it is the generator's to handle, GeneratorExit as well
                    resume, payload = generator.throw, error
        except StopIteration as stop:
            run.end()
            return stop.value
        except GeneratorExit:
            run.end()
            raise
        except BaseException as error:
            run.end(error)
            raise

    async def _drive_async(self, generator: AsyncGenerator[Any, Any]) -> AsyncGenerator[Any, Any]:
        run = _Run(self)
        resume: Callable[[Any], Any] = partial(_first_step, generator)
        payload: Any = None
        try:
            while True:
                with run:
                    item = await resume(payload)
                try:
                    payload = yield item
                    resume = generator.asend
                except BaseException as error:  # noqa: BLE001 - it is the generator's to handle, GeneratorExit as well
                    resume, payload = generator.athrow, error
        except StopAsyncIteration:
            run.end()
        except GeneratorExit:
            run.end()
            raise
        except BaseException as error:
            run.end(error)
            raise

    def _fail(self, seconds: float, error: BaseException) -> None:
        self._operation.failure(names.error_type(error)).record_here(seconds)

    @contextmanager
    def _tracked(self) -> Iterator[None]:
        before = _resident_memory()
        with Traced(self._operation.name, self._attributes) if self._span else nullcontext():
            yield
        self._operation.add_memory_delta(_resident_memory() - before)

    def _around(self) -> AbstractContextManager[Any]:
        return self._tracked() if self._track_memory else Traced(self._operation.name, self._attributes)


def _first_step(generator: AsyncGenerator[Any, Any], _: None) -> Any:
    """Start `generator` without telling the event loop of it, which would close it while the one around it does, too."""
    hooks = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(None, None)
    try:
        return generator.asend(None)
    finally:
        sys.set_asyncgen_hooks(*hooks)


class _Run:
    """One run of a generator: entered for each step, so that neither the clock nor the span runs while it is suspended."""

    def __init__(self, meter: _Meter) -> None:
        self._meter = meter
        self._seconds = 0.0
        self._memory = _resident_memory() if meter._track_memory else 0
        self._span = spans.start(meter._operation.name, meter._attributes) if meter._span else None

    def __enter__(self) -> None:
        self._token = None if self._span is None else spans.attach(self._span)
        self._start = _clock()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._seconds += _clock() - self._start
        if self._span is not None:
            spans.detach(self._token, self._span, error)

    def end(self, error: BaseException | None = None) -> None:
        """Record the run."""
        meter = self._meter
        if error is None:
            meter._operation.success.record(self._seconds)
            if meter._track_memory:
                meter._operation.add_memory_delta(_resident_memory() - self._memory)
        else:
            meter._fail(self._seconds, error)
        if self._span is not None:
            spans.end(self._span, error)


_process: Any = None


def _resident_memory() -> int:
    """Return the resident memory of this process in bytes."""
    global _process
    if _process is None:
        try:
            import psutil  # noqa: PLC0415 - an extra, imported by those who ask for it
        except ModuleNotFoundError as error:
            raise MissingExtra(
                "track_memory=True needs psutil: pip install 'otel-perfopt[memory]'", context={"extra": "memory"}
            ) from error
        _process = psutil.Process()
    try:
        return cast("int", _process.memory_info().rss)
    except Exception:  # noqa: BLE001 - the system may refuse to tell; the caller's function ran all the same
        return 0


def _after_fork() -> None:
    global _process
    _process = None


instruments.on_fork(_after_fork)
