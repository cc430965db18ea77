"""The lazy loader: a value that is loaded at its first use, once for everybody."""

import time
from collections.abc import Awaitable, Callable
from typing import Any, Generic, Self, TypeVar, overload

from otel_perfopt.durations import Duration
from otel_perfopt.lazy.state import EMPTY, Options, State

__all__ = ("LazyLoader", "create_lazy_loader")

T = TypeVar("T")
V = TypeVar("V")


class LazyLoader(Generic[T]):
    """A value that is loaded when somebody asks for it, once for all threads, tasks and event loops.

    A plain function runs in the thread of the caller who comes first, or in a worker thread, with the context copied, if that
    is a coroutine; it may then return an awaitable. A coroutine function runs in a task of its own, which survives the
    cancellation of any caller and is cancelled when the last one is gone. Whoever asks meanwhile waits for the same load.

    A loader that is copied or pickled starts anew: the copy has the same options, and loads for itself.

    Args:
        load: makes the value; called without arguments. None is a value.
        error_ttl: how long an error is raised again before the next attempt, in seconds, as a `timedelta`, or as a string such
            as ``"30s"``; None until `reset`, 0 not at all.
        ttl: how long a value counts before it is loaded again; None for ever.
        name: names it in metrics and spans; the module and the qualified name of `load` by default.
        clock: returns monotonic seconds; for tests.

    Raises:
        TypeError: `load` cannot be called, or yields.
        ConfigurationError: an option has a value that cannot work.

    >>> model = LazyLoader(lambda: print("loading") or {"weights": [1, 2]})
    >>> model.loaded
    False
    >>> model.get()["weights"], model.get()["weights"]
    loading
    ([1, 2], [1, 2])
    """

    __slots__ = ("__weakref__", "_load", "_state")

    @overload
    def __init__(
        self: "LazyLoader[V]",
        load: Callable[[], Awaitable[V]],
        *,
        error_ttl: Duration | None = None,
        ttl: Duration | None = None,
        name: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None: ...
    @overload
    def __init__(
        self,
        load: Callable[[], T],
        *,
        error_ttl: Duration | None = None,
        ttl: Duration | None = None,
        name: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None: ...
    def __init__(
        self,
        load: Callable[[], Any],
        *,
        error_ttl: Duration | None = None,
        ttl: Duration | None = None,
        name: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._load = load
        self._state = State(Options.checked(load, error_ttl=error_ttl, ttl=ttl, name=name, clock=clock))

    @classmethod
    def _around(cls, load: Callable[[], Any], state: State) -> Self:
        made = cls.__new__(cls)
        made._load = load
        made._state = state
        return made

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}: {'loaded' if self.loaded else 'not loaded'}>"

    @property
    def name(self) -> str:
        """What it is called in metrics and spans."""
        return self._state.name

    @property
    def loaded(self) -> bool:
        """Whether a value is there; not before it was loaded, nor after its time is over, and not if there is an error."""
        return self._state.is_loaded

    def get(self) -> T:
        """Return the value; load it if it is missing.

        Raises:
            ReentrantLoad: waiting for the load would never end, because it is the load itself that asks.
            TypeError: there is no value yet, and `load` is a coroutine function; use `get_async`.
            Exception: whatever `load` raised, with the traceback that it had then, for as long as `error_ttl` says.
        """
        value: T = self._state.value
        if value is EMPTY:
            value = self._state.get(self._load)
        return value

    async def get_async(self) -> T:
        """Return the value; load it if it is missing, without blocking the event loop.

        Errors: see `get`. `LoadCancelled` is raised when the load was cancelled, but not by those who wait for it.
        """
        value: T = self._state.value
        if value is EMPTY:
            value = await self._state.get_async(self._load)
        return value

    def reset(self) -> None:
        """Forget the value or the error, so that the next caller loads anew.

        A load that is in progress goes on for those who wait for it already; nobody else gets its outcome.
        """
        self._state.reset()

    def __reduce__(self) -> Any:
        return _restore, (type(self), self._load, self._state.options)


def _restore(cls: type[LazyLoader[Any]], load: Callable[[], Any], options: Options) -> LazyLoader[Any]:
    return cls._around(load, State(options))


@overload
def create_lazy_loader(load: Callable[[], Awaitable[T]]) -> LazyLoader[T]: ...
@overload
def create_lazy_loader(load: Callable[[], T]) -> LazyLoader[T]: ...
def create_lazy_loader(load: Callable[[], Any]) -> LazyLoader[Any]:
    """Return a `LazyLoader` for `load`, with the options of the specification: value and error stay until it is reset.

    Args:
        load: makes the value; a plain function or a coroutine function without arguments.

    >>> answer = create_lazy_loader(lambda: 42)
    >>> answer.get(), answer.loaded
    (42, True)
    """
    return LazyLoader(load)
