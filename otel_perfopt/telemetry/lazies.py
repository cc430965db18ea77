"""The telemetry of lazy loads: a span and a duration, put on by a decorator."""

from collections.abc import Callable
from typing import Any, TypeVar

from typing_extensions import override

from otel_perfopt._core.cells import Counts
from otel_perfopt.telemetry import names
from otel_perfopt.telemetry.family import Family
from otel_perfopt.telemetry.latency import Latency
from otel_perfopt.telemetry.spans import Timed
from otel_perfopt.telemetry.wrapping import label_of, name_of, wrap_in

__all__ = ("LAZIES", "observed_lazy")

F = TypeVar("F", bound=Callable[..., Any])


class LazyCounts(Counts):
    """Lazy loads have no counts beside those of their histogram."""

    __slots__ = ()


LAZIES = Family(names.LAZY_NAME, LazyCounts, series={})


class _Load(Timed):
    """Spans and times one load."""

    __slots__ = ("_lazy",)

    def __init__(self, name: str) -> None:
        self._lazy = LAZIES.resolve(name)
        super().__init__(f"load {self._lazy}", {names.LAZY_NAME: self._lazy})

    @override
    def latency(self, error: BaseException | None) -> Latency:
        return LAZIES.latency(self._lazy, names.LAZY_LOAD_DURATION, None if error is None else names.error_type(error))


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
        return wrap_in(function, lambda instance, _: _Load(name or name_of(instance, label)))

    return decorate
