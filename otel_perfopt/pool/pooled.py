"""The decorator that gives a function a resource for each call."""

import inspect
from collections.abc import Callable
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, cast, overload

from otel_perfopt.pool.base import BasePool
from otel_perfopt.pool.lookup import get_pool
from otel_perfopt.pool.resource import short
from otel_perfopt.pool.tasks import AsyncResourcePool
from otel_perfopt.pool.threads import ResourcePool
from otel_perfopt.telemetry.wrapping import BoundWrapper, Wrapper, label_of, plain_function

__all__ = ("pooled",)

R = TypeVar("R")
S = TypeVar("S")
T = TypeVar("T")
P = ParamSpec("P")


class _BoundPooled(BoundWrapper):
    """A decorated method as an attribute of its instance or its class."""

    @property
    def __func__(self) -> Any:
        return self._self_parent  # `inspect` asks this one for the signature of a bound method

    @property
    def __signature__(self) -> inspect.Signature:
        is_bound = getattr(self.__wrapped__, "__self__", None) is not None
        return _without(inspect.signature(self.__wrapped__), 0 if is_bound else 1)


class _Pooled(Wrapper):
    """A decorated function; its signature is that of its callers, without the resource."""

    __bound_function_wrapper__ = _BoundPooled

    @property
    def __signature__(self) -> inspect.Signature:
        signature = inspect.signature(self.__wrapped__)
        return _without(signature, 1 if next(iter(signature.parameters), "") in ("self", "cls") else 0)


def _is_method(function: Any) -> bool:
    """Whether the first argument is an instance or a class, going by its name."""
    code = getattr(function, "__code__", None)
    return code is not None and code.co_varnames[:1] in (("self",), ("cls",))


def _without(signature: inspect.Signature, position: int) -> inspect.Signature:
    parameters = list(signature.parameters.values())
    del parameters[position : position + 1]
    return signature.replace(parameters=parameters)


class Pooled(Generic[R]):
    """Decorates functions and methods that take a resource as their first argument."""

    def __init__(self, pool: BasePool[R] | str) -> None:
        self._pool = pool

    @overload
    def __call__(self, function: Callable[Concatenate[R, P], T]) -> Callable[P, T]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[S, R, P], T]) -> Callable[Concatenate[S, P], T]: ...
    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        plain, label = plain_function(function), label_of(function)
        if inspect.isgeneratorfunction(plain) or inspect.isasyncgenfunction(plain):
            raise TypeError(f"@pooled cannot serve the generator {label}(); use pool.lease() inside it")
        is_async = inspect.iscoroutinefunction(plain)
        if isinstance(self._pool, BasePool):
            _check_kind(self._pool, label, is_async=is_async)

        is_method = _is_method(plain)

        # A class method of Python 3.13 and later calls the function without binding it, with its class as the first argument.
        async def wrapper_async(wrapped: Any, owner: Any, args: Any, kwargs: Any) -> Any:
            first = 1 if owner is None and is_method else 0
            async with self._resolved(label, is_async=True).lease() as resource:
                return _used(await wrapped(*args[:first], resource, *args[first:], **kwargs), label)

        def wrapper(wrapped: Any, owner: Any, args: Any, kwargs: Any) -> Any:
            first = 1 if owner is None and is_method else 0
            with self._resolved(label, is_async=False).lease() as resource:
                return _used(wrapped(*args[:first], resource, *args[first:], **kwargs), label)

        return cast("Callable[..., Any]", _Pooled(function, wrapper_async if is_async else wrapper))

    def _resolved(self, label: str, *, is_async: bool) -> Any:
        pool = self._pool
        if isinstance(pool, str):
            pool = get_pool(pool, BasePool)
            _check_kind(pool, label, is_async=is_async)
        return pool


@overload
def pooled(pool: ResourcePool[R] | AsyncResourcePool[R]) -> Pooled[R]: ...
@overload
def pooled(pool: str) -> Pooled[Any]: ...
def pooled(pool: Any) -> Any:
    """Decorate a function or a method so that each call gets a resource, as its first argument after ``self``.

    Callers leave that argument out. The resource is returned when the call ends, whatever it ends with.

    Args:
        pool: a `ResourcePool` for functions, an `AsyncResourcePool` for coroutine functions, or the name of either, which is
            looked up at each call.

    Raises:
        TypeError: the function and the pool do not go together, or the function is a generator.

    >>> import sqlite3
    >>> books = ResourcePool("library", lambda: sqlite3.connect(":memory:", check_same_thread=False))
    >>> @pooled(books)
    ... def answer(connection, factor):
    ...     return connection.execute("select 6 * ?", [factor]).fetchone()[0]
    >>> answer(7)
    42
    >>> books.close()
    True
    """
    if not isinstance(pool, str | BasePool):
        raise TypeError(f"@pooled takes a pool or its name, not {pool!r}; write @pooled(pool)")
    return Pooled(pool)


def _used(result: Any, label: str) -> Any:
    """Return what a function returned, unless it has only begun to use the resource, which goes back now."""
    if inspect.isawaitable(result) or inspect.isgenerator(result) or inspect.isasyncgen(result):
        if inspect.iscoroutine(result):
            result.close()
        raise TypeError(f"@pooled cannot serve {label}(): it returned {short(result)}, which would use the resource later")
    return result


def _check_kind(pool: BasePool[Any], label: str, *, is_async: bool) -> None:
    kind = AsyncResourcePool if is_async else ResourcePool
    if not isinstance(pool, kind):
        what = "a coroutine function" if is_async else "a function"
        raise TypeError(f"{label}() is {what} and needs {kind.__name__}, but pool {pool.name!r} is of type {type(pool).__name__}")
