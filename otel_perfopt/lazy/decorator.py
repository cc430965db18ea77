"""The decorator: a function that is called once, and a method that is called once per instance."""

import inspect
import itertools
import threading
import time
import weakref
from collections.abc import Callable, Coroutine
from functools import partial, update_wrapper
from types import MethodType
from typing import Any, Generic, Protocol, Self, overload

from typing_extensions import TypeVar

from otel_perfopt.durations import Duration
from otel_perfopt.lazy.loader import LazyLoader
from otel_perfopt.lazy.state import EMPTY, Options, State
from otel_perfopt.single_flight import is_coroutine_function
from otel_perfopt.telemetry import instruments
from otel_perfopt.telemetry.wrapping import label_of

__all__ = ("LazyDecorator", "LazyFunction", "LazyMethod", "lazy")

T = TypeVar("T")
R = TypeVar("R", default=T)
S = TypeVar("S")

_serials = itertools.count(1)


class LazyFunction(LazyLoader[T], Generic[T, R]):
    """A function that `lazy` has decorated, or a method of one instance.

    It is called as before; what it returned the first time, it returns from then on. It pickles and copies by name, as a
    function does, and a method with its instance.
    """

    def __call__(self) -> R:
        """Return the value; load it if it is missing. See `get`."""
        value: R = self._state.value
        if value is EMPTY:
            value = self._state.get(self._load)
        return value

    def __reduce__(self) -> Any:
        if isinstance(self._state, _InstanceState):
            return getattr, (self._state.instance(), self._load.__name__)
        return vars(self)["__qualname__"]


class _AsyncLazyFunction(LazyFunction[T, Coroutine[Any, Any, T]]):
    """The same for a coroutine function, which is awaited as before."""

    __call__: Any = LazyLoader.get_async


class LazyMethod(Generic[S, T, R]):
    """A method that `lazy` has decorated, seen from its class.

    Through an instance it is a `LazyFunction`; through the class it is called with the instance, so that it also works under
    `property`. The value lives and dies with the instance, in its ``__dict__``, and is not copied or pickled with it.
    """

    def __init__(self, function: Callable[[S], R], options: Options) -> None:
        self._function = function
        self._options = options
        self._bound: type[LazyFunction[Any, Any]] = _AsyncLazyFunction if is_coroutine_function(function) else LazyFunction
        self._key = f"_lazy_{getattr(function, '__name__', '')}_{next(_serials)}"
        update_wrapper(self, function)

    def __call__(self, instance: S, /) -> R:
        """Return the value of `instance`; load it if it is missing."""
        return self.__get__(instance)()

    @overload
    def __get__(self, instance: None, owner: type | None = None, /) -> Self: ...
    @overload
    def __get__(self, instance: S, owner: type | None = None, /) -> LazyFunction[T, R]: ...
    def __get__(self, instance: Any, owner: type | None = None, /) -> Any:
        """Return the value of `instance`: to call, to await or to reset."""
        if instance is None:
            return self
        try:
            state: _InstanceState | None = instance.__dict__.get(self._key)
        except AttributeError:
            raise self._has_no_room(instance) from None
        if state is None or state.instance() is not instance:
            state = self._new_state(instance)
        # Made anew at each look-up, and kept by nobody: it keeps the instance alive, as a bound method does.
        return self._bound._around(MethodType(self._function, instance), state)

    def __reduce__(self) -> Any:
        return vars(self)["__qualname__"]

    def _new_state(self, instance: Any) -> "_InstanceState":
        if isinstance(instance, type):
            raise self._has_no_room(instance)
        made, values = _InstanceState(self._options, instance), instance.__dict__
        with _lock:
            # Not with setdefault: a copy of an instance has brought the original's state along.
            found: _InstanceState | None = values.get(self._key)
            if found is None or found.instance() is not instance:
                values[self._key] = made
                return made
        return found

    def _has_no_room(self, instance: object) -> TypeError:
        what = "a class" if isinstance(instance, type) else f"{type(instance).__qualname__}"
        return TypeError(
            f"{self._options.name} keeps its value in the __dict__ of the instance, and {what} has none to write to: "
            f'add "__dict__" to its __slots__, or use @lazy on a function without arguments'
        )


class _InstanceState(State):
    """The lazy value of one instance; a pickled or deeply copied instance has None in its place."""

    __slots__ = ("instance",)

    def __init__(self, options: Options, instance: object) -> None:
        super().__init__(options)
        self.instance = weakref.ref(instance)

    def __reduce__(self) -> Any:
        return type(None), ()


class LazyDecorator(Protocol):
    """What ``lazy(...)`` with options returns."""

    @overload
    def __call__(self, function: Callable[[], Coroutine[Any, Any, T]], /) -> LazyFunction[T, Coroutine[Any, Any, T]]: ...
    @overload
    def __call__(self, function: Callable[[], T], /) -> LazyFunction[T, T]: ...
    @overload
    def __call__(self, function: Callable[[S], Coroutine[Any, Any, T]], /) -> LazyMethod[S, T, Coroutine[Any, Any, T]]: ...
    @overload
    def __call__(self, function: Callable[[S], T], /) -> LazyMethod[S, T, T]: ...
    def __call__(self, function: Any, /) -> Any:
        """Return the lazy form of `function`."""
        ...


@overload
def lazy(function: Callable[[], Coroutine[Any, Any, T]], /) -> LazyFunction[T, Coroutine[Any, Any, T]]: ...
@overload
def lazy(function: Callable[[], T], /) -> LazyFunction[T, T]: ...
@overload
def lazy(function: Callable[[S], Coroutine[Any, Any, T]], /) -> LazyMethod[S, T, Coroutine[Any, Any, T]]: ...
@overload
def lazy(function: Callable[[S], T], /) -> LazyMethod[S, T, T]: ...
@overload
def lazy(
    *,
    error_ttl: Duration | None = None,
    ttl: Duration | None = None,
    name: str | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> LazyDecorator: ...
def lazy(
    function: Any = None,
    /,
    *,
    error_ttl: Duration | None = None,
    ttl: Duration | None = None,
    name: str | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Any:
    """Call a function without arguments once, or a method once per instance, and return its value from then on.

    For functions and coroutine functions. The decorated function is called, or awaited, as before, and has what a
    `LazyLoader` has: ``reset()``, ``loaded``, ``get()`` and ``get_async()``. Instances do not wait for each other, and are not
    kept alive. With ``@property`` above ``@lazy`` a method becomes an attribute.

    Args:
        function: the function, when the decorator is used without parentheses.
        error_ttl: how long an error is raised again before the next attempt, in seconds, as a `timedelta`, or as a string such
            as ``"30s"``; None until it is reset, 0 not at all.
        ttl: how long a value counts before the function is called again; None for ever.
        name: names it in metrics and spans; the module and the qualified name of the function by default.
        clock: returns monotonic seconds; for tests.

    Raises:
        TypeError: it is no function, it yields, or it takes arguments.
        ConfigurationError: an option has a value that cannot work.

    >>> @lazy
    ... def settings():
    ...     print("reading")
    ...     return {"debug": False}
    >>> settings() is settings(), settings.loaded
    reading
    (True, True)
    """
    if function is None:
        return partial(lazy, error_ttl=error_ttl, ttl=ttl, name=name, clock=clock)
    if isinstance(function, staticmethod):
        function = function.__func__
    options = Options.checked(function, error_ttl=error_ttl, ttl=ttl, name=name, clock=clock)
    if _takes_instance(function):
        return LazyMethod(function, options)
    kind = _AsyncLazyFunction if is_coroutine_function(function) else LazyFunction
    return update_wrapper(kind._around(function, State(options)), function)


def _takes_instance(function: Callable[..., Any]) -> bool:
    """Whether `function` needs exactly one argument, which must be an instance."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # some built-in functions have no signature
        return False
    needed = [p for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if len(needed) > 1 or any(p.kind is p.KEYWORD_ONLY for p in needed):
        raise TypeError(
            f"@lazy calls a function without arguments, or a method with its instance alone; {label_of(function)}() also takes "
            f"{', '.join(p.name for p in needed)}. Use @cached to keep a value for each argument"
        )
    return bool(needed)


_lock = threading.RLock()


def _after_fork() -> None:
    global _lock
    _lock = threading.RLock()


instruments.on_fork(_after_fork)
