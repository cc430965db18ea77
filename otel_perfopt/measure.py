"""Measuring operations: how often, how long, how many failed, and with which change of memory."""

import inspect
import time
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar, cast, overload

import wrapt
from opentelemetry import context, trace

from otel_perfopt.durations import Duration, to_seconds
from otel_perfopt.errors import ConfigurationError, MissingExtra
from otel_perfopt.telemetry import instruments, names, spans
from otel_perfopt.telemetry.operations import Operation, operation
from otel_perfopt.telemetry.spans import Traced

__all__ = ("measure_performance", "record_performance_metric")

F = TypeVar("F", bound=Callable[..., Any])


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
        MissingExtra: `track_memory` without psutil.

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
        duration: how long it took, in seconds, as a `timedelta` or as a string.
        success: whether it succeeded.
        error_type: how it failed: a class of exceptions or an error code, of low cardinality.
        memory_delta: the change of memory in bytes.

    Raises:
        ValueError: the duration is negative or not finite, or a success has an error type.

    >>> record_performance_metric("import", 0.25, success=False, error_type="TimeoutError")
    """
    seconds = to_seconds(duration, option="duration", allow_zero=True)
    if success and error_type is not None:
        raise ConfigurationError(f"error_type={error_type!r} belongs to success=False")
    record = operation(name)
    latency = record.success if success else record.failure(error_type or names.ERROR_TYPE_OTHER)
    latency.record(seconds)
    if memory_delta is not None:
        record.memory_deltas.append(memory_delta)


class _BoundMeasured(wrapt.BoundFunctionWrapper):  # type: ignore[misc, type-arg, unused-ignore]
    """A measured method of an instance; pickled as the instance and the name."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        return getattr, (self._self_instance, self.__name__)


class _Measured(wrapt.FunctionWrapper):  # type: ignore[misc, type-arg, unused-ignore]
    """A measured function; pickled and copied by its qualified name, as functions are."""

    __bound_function_wrapper__ = _BoundMeasured

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.__qualname__


def _measured(function: F, name: str | None, *, span: bool, track_memory: bool) -> F:
    plain = getattr(function, "__func__", function)  # of a classmethod or staticmethod
    if not callable(plain):
        raise TypeError(f"measure_performance measures a function, not {function!r}")
    if name is None:
        name = f"{plain.__module__}.{plain.__qualname__}"
    if not name.strip():
        raise ConfigurationError(f"name={name!r}: an operation needs a name, such as 'orders.total'")
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
    return cast("F", _Measured(function, wrapper()))


_clock = time.perf_counter


class _Meter:
    """Makes the wrappers for one operation."""

    def __init__(self, operation: Operation, *, span: bool, track_memory: bool) -> None:
        self._operation = operation
        self._span = span
        self._track_memory = track_memory
        self._attributes = {names.OPERATION_NAME: operation.name}

    def wrap_function(self) -> Callable[..., Any]:
        """Return the wrapper for a plain function."""
        record, fail, around = self._operation.success.record, self._fail, self._around

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
        record, fail, around = self._operation.success.record, self._fail, self._around

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
                except GeneratorExit:
                    with run:
                        generator.close()
                    raise
                except BaseException as error:  # noqa: BLE001 - what the consumer throws is the generator's to handle
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
        resume: Callable[[Any], Any] = generator.asend
        payload: Any = None
        try:
            while True:
                with run:
                    item = await resume(payload)
                try:
                    payload = yield item
                    resume = generator.asend
                except GeneratorExit:
                    with run:
                        await generator.aclose()
                    raise
                except BaseException as error:  # noqa: BLE001 - what the consumer throws is the generator's to handle
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
        self._operation.failure(names.error_type(error)).record(seconds)

    @contextmanager
    def _tracked(self) -> Iterator[None]:
        before = _resident_memory()
        with Traced(self._operation.name, self._attributes) if self._span else nullcontext():
            yield
        self._operation.memory_deltas.append(_resident_memory() - before)

    def _around(self) -> AbstractContextManager[Any]:
        return self._tracked() if self._track_memory else Traced(self._operation.name, self._attributes)


class _Run:
    """One run of a generator: entered for each step, so that neither the clock nor the span runs while it is suspended."""

    def __init__(self, meter: _Meter) -> None:
        self._meter = meter
        self._seconds = 0.0
        self._memory = _resident_memory() if meter._track_memory else 0
        self._span = spans.tracer().start_span(meter._operation.name, attributes=meter._attributes) if meter._span else None

    def __enter__(self) -> None:
        self._token = None if self._span is None else context.attach(trace.set_span_in_context(self._span))
        self._start = _clock()

    def __exit__(self, *_: object) -> None:
        self._seconds += _clock() - self._start
        if self._token is not None:
            context.detach(self._token)

    def end(self, error: BaseException | None = None) -> None:
        """Record the run."""
        meter = self._meter
        if error is None:
            meter._operation.success.record(self._seconds)
            if meter._track_memory:
                meter._operation.memory_deltas.append(_resident_memory() - self._memory)
        else:
            meter._fail(self._seconds, error)
        if self._span is not None:
            if error is not None:
                spans.fail(self._span, error)
            self._span.end()


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
    return cast("int", _process.memory_info().rss)


def _after_fork() -> None:
    global _process
    _process = None


instruments.on_fork(_after_fork)
