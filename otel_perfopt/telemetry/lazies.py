"""The telemetry of lazy loads: a span and a duration, put on by a decorator."""

import inspect
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeVar, cast

from opentelemetry.trace import Span

from otel_perfopt._core.cells import Counts
from otel_perfopt.telemetry import names
from otel_perfopt.telemetry.family import Family
from otel_perfopt.telemetry.spans import Traced
from otel_perfopt.telemetry.wrapping import Wrapper, label_of, plain_function

__all__ = ("LAZIES", "observed_lazy")

F = TypeVar("F", bound=Callable[..., Any])


class LazyCounts(Counts):
    """Lazy loads have no counts beside those of their histogram."""

    __slots__ = ()


LAZIES = Family(names.LAZY_NAME, LazyCounts, series={})


class _Load(Traced):
    """Spans and times one load."""

    __slots__ = ("_lazy", "_start")

    def __init__(self, name: str) -> None:
        name = LAZIES.resolve(name)
        super().__init__(f"load {name}", {names.LAZY_NAME: name})
        self._lazy = name

    def __enter__(self) -> Span:
        span = super().__enter__()
        self._start = time.perf_counter()
        return span

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        seconds = time.perf_counter() - self._start
        super().__exit__(kind, error, traceback)
        failure = None if error is None else names.error_type(error)
        LAZIES.latency(self._lazy, names.LAZY_LOAD_DURATION, failure).record(seconds)


def observed_lazy(name: str | None = None) -> Callable[[F], F]:
    """Decorate the function or method behind a lazy value of your own: a span ``load {name}`` and its duration.

    Args:
        name: the name of the lazy value; None for the attribute ``name`` of the instance that the method is called on, or
            without one for the module and the qualified name of the function.

    >>> @observed_lazy("settings")
    ... def read_settings():
    ...     return {"debug": False}
    >>> read_settings()
    {'debug': False}
    """

    def decorate(function: F) -> F:
        label = label_of(function)

        def name_of(instance: Any) -> str:
            found = name or getattr(instance, "name", None)
            return found if isinstance(found, str) and found else label

        if inspect.iscoroutinefunction(plain_function(function)):

            async def wrapper_async(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
                with _Load(name_of(instance)):
                    return await wrapped(*args, **kwargs)

            return cast("F", Wrapper(function, wrapper_async))

        def wrapper(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
            with _Load(name_of(instance)):
                return wrapped(*args, **kwargs)

        return cast("F", Wrapper(function, wrapper))

    return decorate
