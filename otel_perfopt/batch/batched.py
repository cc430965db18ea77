"""The decorator: a function of a list becomes a function of one item, whose calls go together in batches."""

import inspect
import time
import weakref
from collections.abc import Awaitable, Callable, Sequence
from functools import partial, update_wrapper
from typing import Any, overload

from typing_extensions import TypeVar

from otel_perfopt.batch.base import running
from otel_perfopt.batch.options import Dedupe, OnFull, Weigher, is_coroutine_function
from otel_perfopt.batch.processors import AsyncBatchProcessor, BatchProcessor
from otel_perfopt.batch.typing import AsyncBatchedFunction, AsyncBatchedMethod, BatchedDecorator, BatchedFunction, BatchedMethod
from otel_perfopt.durations import Duration
from otel_perfopt.errors import BatchError
from otel_perfopt.registry import Place
from otel_perfopt.telemetry.clocks import Clock
from otel_perfopt.telemetry.wrapping import label_of, plain_function

__all__ = ("batched",)

S = TypeVar("S")
T = TypeVar("T")
R = TypeVar("R")

Processor = BatchProcessor[Any, Any] | AsyncBatchProcessor[Any, Any]

_ITEM = inspect.Parameter("item", inspect.Parameter.POSITIONAL_ONLY)
_FUNCTION = inspect.Signature([_ITEM])
_METHOD = inspect.Signature([inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY), _ITEM])


@overload
def batched(function: Callable[[list[T]], Awaitable[Sequence[R | BaseException]]], /) -> AsyncBatchedFunction[T, R]: ...
@overload
def batched(function: Callable[[list[T]], Sequence[R | BaseException]], /) -> BatchedFunction[T, R]: ...
@overload
def batched(function: Callable[[S, list[T]], Awaitable[Sequence[R | BaseException]]], /) -> AsyncBatchedMethod[S, T, R]: ...
@overload
def batched(function: Callable[[S, list[T]], Sequence[R | BaseException]], /) -> BatchedMethod[S, T, R]: ...
@overload
def batched(
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
    name: str | None = None,
) -> BatchedDecorator: ...
def batched(function: Any = None, /, *, name: str | None = None, **options: Any) -> Any:
    """Make a function that takes a list of items callable with one item; calls at the same time go together in batches.

    For functions, coroutine functions and methods. Callers pass one item and get its result, or the error of its batch. A
    method has batches of its own for each instance, and keeps no instance alive; a function in a class body is a method if its
    first parameter is called ``self`` or ``cls``. A decorated function has an attribute more, ``processor``; a method has
    ``processor_of``, which takes the instance.

    Args:
        function: the function, when the decorator is used without parentheses.
        name: the name of the processor; the module and the qualified name of the function by default.
        options: those of `BatchProcessor`.

    Raises:
        TypeError: it is no function, or one that yields.
        ConfigurationError: an option has a value that cannot work.

    >>> @batched(batch_size=100, batch_timeout="5ms")
    ... def square(numbers: list[int]) -> list[int]:
    ...     return [number * number for number in numbers]
    >>> square(3)
    9
    """
    if function is None:
        return partial(batched, name=name, **options)
    if isinstance(function, classmethod | staticmethod):
        return type(function)(_decorate(function.__func__, name, options, is_method=isinstance(function, classmethod)))
    return _decorate(function, name, options, is_method=_is_method(function))


def _decorate(function: Callable[..., Any], name: str | None, options: dict[str, Any], *, is_method: bool) -> Any:
    plain = plain_function(function)
    if not callable(plain):
        raise TypeError(f"@batched decorates a function, not {function!r}; options are keywords, as in @batched(batch_size=100)")
    label = label_of(function)
    if inspect.isgeneratorfunction(plain) or inspect.isasyncgenfunction(plain):
        raise TypeError(f"@batched: {label}() yields; it must return a list with a result for each item")
    is_async = is_coroutine_function(function)
    kind: Callable[..., Any] = AsyncBatchProcessor if is_async else BatchProcessor
    build = partial(kind, name or label)
    if is_method:
        build(function, _place=None, **options)  # raises now, not at the first call, if an option cannot work
        of_pairs = {**_of_pairs(options), "_place": None}
        processors = _Processors(partial(build, _process_of_pairs(function, is_async=is_async), **of_pairs))
        call = _method_async(processors) if is_async else _method(processors)
        about: dict[str, Any] = {"processor_of": processors.of}
    else:
        processor: Any = build(function, _place=Place(label), **options)
        call = _function_async(processor) if is_async else _function(processor)
        about = {"processor": processor}
    update_wrapper(call, function)
    call.__dict__.update(about)
    call.__annotations__ = {}
    call.__signature__ = _METHOD if is_method else _FUNCTION  # type: ignore[attr-defined]
    return call


# the calls ----------------------------------------------------------------------------------------------


def _function(processor: BatchProcessor[Any, Any]) -> Callable[..., Any]:
    def call(item: Any, /) -> Any:
        return _result(processor, item)

    return call


def _function_async(processor: AsyncBatchProcessor[Any, Any]) -> Callable[..., Any]:
    async def call(item: Any, /) -> Any:
        if running.get() is processor._token:
            _refuse(processor)
        return await processor.add(item)

    return call


def _method(processors: "_Processors") -> Callable[..., Any]:
    def call(instance: Any, item: Any, /) -> Any:
        return _result(processors.of(instance), (instance, item))

    return call


def _method_async(processors: "_Processors") -> Callable[..., Any]:
    async def call(instance: Any, item: Any, /) -> Any:
        processor = processors.of(instance)
        if running.get() is processor._token:
            _refuse(processor)
        return await processor.add((instance, item))

    return call


def _result(processor: BatchProcessor[Any, Any], item: Any) -> Any:
    if running.get() is processor._token:
        _refuse(processor)
    future = processor.add(item)
    try:
        return future.result()
    except BaseException:
        future.cancel()  # for an interruption of this thread; a future that has failed stays as it is
        raise
    finally:
        del future  # it knows the error, which knows this frame


def _refuse(processor: Processor) -> None:
    raise BatchError(
        f"{processor.name}() calls itself, and would wait for a batch that waits for it; call the function within, "
        f"as in {processor.name.rpartition('.')[2]}.__wrapped__([item])",
        context={"batch": processor.name},
    )


# methods ------------------------------------------------------------------------------------------------


class _Processors:
    """The processors of a method, by the identity of the instance, until that is gone.

    Their items are pairs of the instance and the item of the caller: while there is work, the instance lives.

    Args:
        build: makes a processor.
    """

    def __init__(self, build: Callable[[], Any]) -> None:
        self._build = build
        self._known: dict[int, tuple[weakref.ref[Any], Any]] = {}

    def of(self, instance: Any) -> Any:
        """Return the processor of an instance."""
        known, identity = self._known, id(instance)
        found = known.get(identity)
        if found is not None:
            if found[0]() is instance:
                return found[1]
            known.pop(identity, None)  # of a dead instance whose callback is still to come

        def forget(reference: weakref.ref[Any]) -> None:
            if known.get(identity, (None,))[0] is reference:
                known.pop(identity, None)

        return known.setdefault(identity, (weakref.ref(instance, forget), self._build()))[1]


def _process_of_pairs(method: Callable[..., Any], *, is_async: bool) -> Callable[[list[tuple[Any, Any]]], Any]:
    def process(pairs: list[tuple[Any, Any]]) -> Any:
        return method(pairs[0][0], [item for _, item in pairs])

    async def process_async(pairs: list[tuple[Any, Any]]) -> Any:
        return await method(pairs[0][0], [item for _, item in pairs])

    return process_async if is_async else process


def _of_pairs(options: dict[str, Any]) -> dict[str, Any]:
    found = dict(options)
    for option in ("weigher", "dedupe"):
        function = options.get(option)
        if function is not None:
            found[option] = partial(_of_item, function)
    return found


def _of_item(function: Callable[[Any], Any], pair: tuple[Any, Any]) -> Any:
    return function(pair[1])


def _is_method(function: Callable[..., Any]) -> bool:
    """Whether `function` is written in a class body and takes its instance or class first."""
    scope, _, _ = getattr(function, "__qualname__", "").rpartition(".")
    if not scope or scope.endswith("<locals>"):
        return False
    return next(iter(inspect.signature(function).parameters), None) in ("self", "cls")
