"""The types that type checkers see in place of a cached function; at run time it is a plain function."""

from collections.abc import Callable, Coroutine, Hashable
from typing import Any, ClassVar, Concatenate, Generic, Never, ParamSpec, Protocol, TypeVar, overload

from otel_perfopt.cache.cache import Cache

__all__ = ("CachedDecorator", "CachedFunction", "CachedMethod", "KeyFunction")

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
S = TypeVar("S")
V = TypeVar("V")

KeyFunction = (
    Callable[[Any], Hashable]
    | Callable[[Any, Any], Hashable]
    | Callable[[Any, Any, Any], Hashable]
    | Callable[[Any, Any, Any, Any], Hashable]
)
"""Makes the key of a call from its arguments. Spelled out so that pyright knows the parameters of a lambda."""


class _CacheAttribute:
    """The type of ``.cache``: its values are what the function returns, or what its coroutine does."""

    @overload
    def __get__(
        self,
        instance: "CachedFunction[..., Coroutine[Any, Any, V]] | CachedMethod[..., Coroutine[Any, Any, V]]",
        owner: type,
        /,
    ) -> Cache[Any, V]: ...
    @overload
    def __get__(self, instance: "CachedFunction[..., V] | CachedMethod[..., V]", owner: type, /) -> Cache[Any, V]: ...
    def __get__(self, instance: object, owner: type, /) -> Cache[Any, Any]:
        """Return the cache of `instance`."""
        raise NotImplementedError


class CachedMethod(Generic[P, R_co]):
    """A cached function bound to an instance or a class: the type of ``obj.method``, and of a cached class method."""

    __name__: str
    __qualname__: str
    cache: ClassVar[_CacheAttribute]
    """The cache behind the method, shared by all instances."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Return the cached result for these arguments, or compute it."""
        raise NotImplementedError

    def invalidate(self, instance: object, /, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Forget the result for `instance` and these arguments: a bound method does not add its instance here."""
        raise NotImplementedError


class CachedFunction(Generic[P, R_co]):
    """A cached function: ``CachedFunction[[int], str]`` takes an `int` and returns a `str`."""

    __name__: str
    __qualname__: str
    cache: ClassVar[_CacheAttribute]
    """The cache behind the function."""

    @property
    def __wrapped__(self) -> Callable[P, R_co]:
        """The function without its cache."""
        raise NotImplementedError

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Return the cached result for these arguments, or compute it."""
        raise NotImplementedError

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Forget the result for these arguments; return whether there was one."""
        raise NotImplementedError

    # Type checkers drop @classmethod and @staticmethod around a callable object, so binding is decided here, by the
    # type of the first parameter. The order matters. `self` is a Callable and not a CachedFunction as mypy compares the
    # parameters of a Callable only. The `Never` lines are for mypy, which cannot bind a bare `-> Self` or `-> T`.

    # 1. Through a class: class method -> Self | static method(object or type) | class method | everything else.
    @overload
    def __get__(  # type: ignore[misc]
        self: "Callable[Concatenate[type[Any], ...], Never]", instance: None, owner: type[S], /
    ) -> CachedMethod[..., S]: ...
    @overload
    def __get__(  # type: ignore[misc]
        self: "Callable[Concatenate[type[object], ...], Any]", instance: None, owner: type, /
    ) -> "CachedFunction[P, R_co]": ...
    @overload
    def __get__(  # type: ignore[misc]
        self: "Callable[Concatenate[type[S], Q], R]", instance: None, owner: type[S], /
    ) -> CachedMethod[Q, R]: ...
    @overload
    def __get__(self, instance: None, owner: type, /) -> "CachedFunction[P, R_co]": ...

    # 2. Through an instance: generic method | method -> Self | static method(object) | class method | method | rest.
    @overload
    def __get__(  # type: ignore[misc]
        self: "Callable[Concatenate[S, ...], Never]", instance: S, owner: type | None = None, /
    ) -> CachedMethod[..., Any]: ...
    @overload
    def __get__(  # type: ignore[misc]
        self: "Callable[Concatenate[Any, ...], Never]", instance: S, owner: type | None = None, /
    ) -> CachedMethod[..., S]: ...
    @overload
    def __get__(  # type: ignore[misc]
        self: "Callable[Concatenate[object, ...], Any]", instance: object, owner: type | None = None, /
    ) -> "CachedFunction[P, R_co]": ...
    @overload
    def __get__(  # type: ignore[misc]
        self: "Callable[Concatenate[type[S], Q], R]", instance: S, owner: type | None = None, /
    ) -> CachedMethod[Q, R]: ...
    @overload
    def __get__(self: "Callable[Concatenate[S, Q], R]", instance: S, owner: type | None = None, /) -> CachedMethod[Q, R]: ...
    @overload
    def __get__(self, instance: object, owner: type | None = None, /) -> "CachedFunction[P, R_co]": ...
    def __get__(self, instance: object, owner: type | None = None, /) -> Any:
        """Bind the function, as Python does."""
        raise NotImplementedError


class CachedDecorator(Protocol):
    """What ``cached(...)`` with options returns."""

    def __call__(self, fn: Callable[P, R], /) -> CachedFunction[P, R]:
        """Return the cached form of `fn`."""
        ...
