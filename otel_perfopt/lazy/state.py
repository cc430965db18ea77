"""What is behind a lazy value: nothing, a value or an error, and the load in progress.

The state does not know what makes the value; whoever wants it brings that along. So the state of an instance's method need
not keep the instance alive.
"""

import inspect
import math
import threading
import weakref
from asyncio import AbstractEventLoop
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Any, Final, Self

from typing_extensions import override

from otel_perfopt._core.flight import Failed, Flights, Loaded
from otel_perfopt._core.once import Kept, Once
from otel_perfopt.durations import Duration, to_seconds
from otel_perfopt.errors import ConfigurationError
from otel_perfopt.single_flight import Load, Request, SingleFlight, Unawaited, call_async, finished, is_coroutine_function
from otel_perfopt.single_flight.job import Job
from otel_perfopt.telemetry import instruments
from otel_perfopt.telemetry.lazies import observed_lazy
from otel_perfopt.telemetry.wrapping import label_of

__all__ = ("EMPTY", "Options", "State")

_INSTEAD = "await loader.get_async()"


class Empty(Enum):
    """Stands for a value that is not there, for None is a value."""

    EMPTY = "empty"


EMPTY: Final = Empty.EMPTY


@dataclass(frozen=True, slots=True)
class Options:
    """The options of a lazy value; see `LazyLoader`. Durations are in seconds."""

    name: str
    error_ttl: float | None
    ttl: float | None
    clock: Callable[[], float]

    @classmethod
    def checked(
        cls, load: Any, *, error_ttl: Duration | None, ttl: Duration | None, name: str | None, clock: Callable[[], float]
    ) -> Self:
        """Return the options, unless something is wrong with them or with the function that loads.

        Raises:
            TypeError: it is no function, or one that yields.
            ConfigurationError: an option has a value that cannot work.
        """
        if not callable(load):
            raise TypeError(f"a lazy value is made by a function without arguments, not by {load!r}")
        if _yields(load):
            raise TypeError(f"what {label_of(load)}() yields can be read only once: return a list or a tuple instead")
        if name is not None and (not isinstance(name, str) or not name.strip()):
            raise ConfigurationError(f"name={name!r}: a lazy value needs a name, such as 'settings'; its metrics carry it")
        return cls(name or label_of(load), _seconds(error_ttl, "error_ttl", allow_zero=True), _seconds(ttl, "ttl"), clock)


class State(SingleFlight[Request, Load]):
    """One lazy value.

    Attributes:
        options: what it was made with.
        name: its name, in metrics and spans.
        value: what a warm `get` returns; EMPTY while there is no value that holds for ever.
    """

    __slots__ = ("__weakref__", "_clock", "_flights", "_lock", "_once", "name", "options", "value")

    def __init__(self, options: Options) -> None:
        self.options = options
        self.name = options.name
        self.value: Any = EMPTY
        self._clock = options.clock
        self._once = Once(ttl=options.ttl, error_ttl=options.error_ttl)
        self._flights: Flights[Load] = Flights()
        # Reentrant: a collection of garbage under the lock may run a finalizer that uses this value.
        self._lock = threading.RLock()
        _live.add(self)

    @property
    def is_loaded(self) -> bool:
        """Whether a value is there."""
        return isinstance(self._once.find(self._clock()), Loaded)

    def get(self, loader: Callable[[], Any]) -> Any:
        """Return the value, or load it."""
        found = self._once.find(self._clock())
        if isinstance(found, Loaded):
            return found.value
        if found is None and is_coroutine_function(loader):
            raise TypeError(
                f"{self._owner}: {label_of(loader)}() is a coroutine function, which a synchronous call cannot wait for; "
                f"use '{_INSTEAD}'"
            )
        del found
        return self._share(Request(None, loader))

    async def get_async(self, loader: Callable[[], Any]) -> Any:
        """Return the value, or load it without blocking the event loop."""
        found = self._once.find(self._clock())
        if isinstance(found, Loaded):
            return found.value
        del found
        return await self._share_async(Request(None, loader))

    def reset(self) -> None:
        """Forget the value or the error, and forbid a load that is in progress to keep its outcome."""
        with self._lock:
            self._flights.ground_all()
            garbage = self._replace(None)
        del garbage  # without the lock: dropping values may run user code

    @override
    def _answer(self, request: Request) -> Loaded | Failed | None:
        return self._once.find(self._clock())

    @override
    def _new_load(self, request: Request, loop: AbstractEventLoop | None, job: Job | None) -> Load:
        return Load(request, loop, job)

    @override
    @observed_lazy()
    def _load(self, loader: Callable[[], Any]) -> Any:
        return finished(loader(), owner=self._owner, instead=_INSTEAD)

    @override
    @observed_lazy()
    async def _load_async(self, loader: Callable[[], Any], job: Job | None) -> Any:
        return await call_async(loader, job)

    @override
    def _prepare(self, load: Load, outcome: Loaded | Failed) -> Kept | None:
        is_misuse = isinstance(outcome, Failed) and isinstance(outcome.error, Unawaited)
        return None if is_misuse else self._once.date(outcome, self._clock())

    @override
    def _keep(self, prepared: Kept) -> object:
        return self._replace(prepared)

    def _replace(self, kept: Kept | None) -> object:
        """Change what is kept, under the lock; the caller drops what it returns after releasing it."""
        garbage = self.value
        self.value = kept.outcome.value if kept and isinstance(kept.outcome, Loaded) and kept.expires == math.inf else EMPTY
        return garbage, self._once.keep(kept)

    @property
    def _owner(self) -> str:
        return f"lazy value {self.name!r}"

    @override
    def _title(self, key: Hashable) -> str:
        return self._owner

    @override
    def _context(self) -> dict[str, Any]:
        return {"lazy": self.name}

    def reset_after_fork(self) -> None:
        """Forget the load in progress, which is the parent's; the value stays."""
        self._lock = threading.RLock()
        self._flights = Flights()


def _yields(load: Callable[..., Any]) -> bool:
    while isinstance(load, partial):
        load = load.func
    return inspect.isgeneratorfunction(load) or inspect.isasyncgenfunction(load)


def _seconds(value: Duration | None, option: str, *, allow_zero: bool = False) -> float | None:
    try:
        return None if value is None else to_seconds(value, option=option, allow_zero=allow_zero)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(str(error)) from None


_live: "weakref.WeakSet[State]" = weakref.WeakSet()


def _reset_all_after_fork() -> None:
    for state in list(_live):
        state.reset_after_fork()


instruments.on_fork(_reset_all_after_fork)
