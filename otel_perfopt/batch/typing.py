"""The types that type checkers see in place of a batched function; at run time it is a plain function."""

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Generic, Protocol, Self, TypeVar, overload

from otel_perfopt.batch.processors import AsyncBatchProcessor, BatchProcessor

__all__ = ("AsyncBatchedFunction", "AsyncBatchedMethod", "BatchedDecorator", "BatchedFunction", "BatchedMethod")

C = TypeVar("C")
S = TypeVar("S")
T = TypeVar("T")
R = TypeVar("R")


class BatchedFunction(Generic[T, R]):
    """A batched function: takes one item and returns its result."""

    __name__: str
    __qualname__: str
    processor: BatchProcessor[T, R]
    """The processor behind the function."""

    @property
    def __wrapped__(self) -> Callable[[list[T]], Sequence[R | BaseException]]:
        """The function without its batches."""
        raise NotImplementedError

    def __call__(self, item: T, /) -> R:
        """Return the result of this item, when its batch has run."""
        raise NotImplementedError


class AsyncBatchedFunction(Generic[T, R]):
    """A batched coroutine function: takes one item and returns its result."""

    __name__: str
    __qualname__: str
    processor: AsyncBatchProcessor[T, R]
    """The processor behind the function."""

    @property
    def __wrapped__(self) -> Callable[[list[T]], Awaitable[Sequence[R | BaseException]]]:
        """The function without its batches."""
        raise NotImplementedError

    def __call__(self, item: T, /) -> Coroutine[Any, Any, R]:
        """Return the result of this item, when its batch has run."""
        raise NotImplementedError


class BatchedMethod(Generic[S, T, R]):
    """A batched method: ``obj.method(item)`` returns the item's result."""

    __name__: str
    __qualname__: str

    @property
    def __wrapped__(self) -> Callable[[S, list[T]], Sequence[R | BaseException]]:
        """The method without its batches."""
        raise NotImplementedError

    def __call__(self, instance: S, item: T, /) -> R:
        """Return the result of this item, when its batch has run."""
        raise NotImplementedError

    def processor_of(self, instance: S, /) -> BatchProcessor[T, R]:
        """Return the processor of an instance."""
        raise NotImplementedError

    # Type checkers drop @classmethod around a callable object, so binding is decided here, by the type of the first parameter.
    @overload
    def __get__(self: "BatchedMethod[type[C], T, R]", instance: None, owner: type[C], /) -> Callable[[T], R]: ...
    @overload
    def __get__(self, instance: None, owner: type, /) -> Self: ...
    @overload
    def __get__(self: "BatchedMethod[type[C], T, R]", instance: C, owner: type | None = None, /) -> Callable[[T], R]: ...
    @overload
    def __get__(self, instance: S, owner: type | None = None, /) -> Callable[[T], R]: ...
    def __get__(self, instance: Any, owner: type | None = None, /) -> Any:
        """Bind the method, as Python does."""
        raise NotImplementedError


class AsyncBatchedMethod(Generic[S, T, R]):
    """A batched coroutine method: ``await obj.method(item)`` returns the item's result."""

    __name__: str
    __qualname__: str

    @property
    def __wrapped__(self) -> Callable[[S, list[T]], Awaitable[Sequence[R | BaseException]]]:
        """The method without its batches."""
        raise NotImplementedError

    def __call__(self, instance: S, item: T, /) -> Coroutine[Any, Any, R]:
        """Return the result of this item, when its batch has run."""
        raise NotImplementedError

    def processor_of(self, instance: S, /) -> AsyncBatchProcessor[T, R]:
        """Return the processor of an instance."""
        raise NotImplementedError

    # Type checkers drop @classmethod around a callable object, so binding is decided here, by the type of the first parameter.
    @overload
    def __get__(
        self: "AsyncBatchedMethod[type[C], T, R]", instance: None, owner: type[C], /
    ) -> Callable[[T], Coroutine[Any, Any, R]]: ...
    @overload
    def __get__(self, instance: None, owner: type, /) -> Self: ...
    @overload
    def __get__(
        self: "AsyncBatchedMethod[type[C], T, R]", instance: C, owner: type | None = None, /
    ) -> Callable[[T], Coroutine[Any, Any, R]]: ...
    @overload
    def __get__(self, instance: S, owner: type | None = None, /) -> Callable[[T], Coroutine[Any, Any, R]]: ...
    def __get__(self, instance: Any, owner: type | None = None, /) -> Any:
        """Bind the method, as Python does."""
        raise NotImplementedError


class BatchedDecorator(Protocol):
    """What ``batched(...)`` with options returns."""

    @overload
    def __call__(
        self, function: Callable[[list[T]], Awaitable[Sequence[R | BaseException]]], /
    ) -> AsyncBatchedFunction[T, R]: ...
    @overload
    def __call__(self, function: Callable[[list[T]], Sequence[R | BaseException]], /) -> BatchedFunction[T, R]: ...
    @overload
    def __call__(
        self, function: Callable[[S, list[T]], Awaitable[Sequence[R | BaseException]]], /
    ) -> AsyncBatchedMethod[S, T, R]: ...
    @overload
    def __call__(self, function: Callable[[S, list[T]], Sequence[R | BaseException]], /) -> BatchedMethod[S, T, R]: ...
    def __call__(self, function: Any, /) -> Any:
        """Return the batched form of a function."""
        ...
