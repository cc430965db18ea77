"""Loading what is missing: one load per key, whose value is stored unless an invalidation came meanwhile."""

import reprlib
from asyncio import AbstractEventLoop
from collections.abc import Callable, Hashable
from typing import Any

from typing_extensions import override

from otel_perfopt._core.flight import Failed, Flights, Loaded, Outcome
from otel_perfopt._core.policies import Entry
from otel_perfopt.cache.load import Load, Request
from otel_perfopt.cache.memory import MemoryTier
from otel_perfopt.single_flight import SingleFlight, call_async, finished, is_coroutine_function
from otel_perfopt.single_flight.job import Job
from otel_perfopt.telemetry import names
from otel_perfopt.telemetry.caches import observed_load
from otel_perfopt.telemetry.family import Gauges

__all__ = ("Loading",)

_GAUGES: Gauges = {
    names.CACHE_LOAD_IN_FLIGHT: lambda cache: len(cache._flights),
    names.CACHE_LOAD_WAITERS: lambda cache: cache._load_waiters(),
}
_INSTEAD = "await cache.get_async(key, loader)"


class Loading(MemoryTier, SingleFlight[Request, Load]):
    """A memory tier that loads what it lacks.

    Args: see `Cache`.
    """

    def __init__(self, name: str, **options: Any) -> None:
        self._flights: Flights[Load] = Flights()
        super().__init__(name, gauges=_GAUGES, **options)

    def _get_or_load(self, request: Request) -> Any:
        """Return the value of a key that was not found fresh: load it, or wait for whoever loads it."""
        _check_callable(request.loader)
        if is_coroutine_function(request.loader):
            raise TypeError(
                f"cache {self.name!r}: the loader is a coroutine function, which a synchronous call cannot wait for; "
                f"use '{_INSTEAD}'"
            )
        self._check_ttl(request.ttl)
        return self._share(request)

    async def _get_or_load_async(self, request: Request) -> Any:
        """Do what `_get_or_load` does, without blocking the loop."""
        _check_callable(request.loader)
        self._check_ttl(request.ttl)
        return await self._share_async(request)

    @override
    def _answer(self, request: Request, *, first: bool) -> Outcome | None:
        entry = self._fresh(request.key)
        if entry is not None:
            return Loaded(self._hit(entry) if first else entry.value)
        if first:
            self._counts.misses += 1
        return None

    @override
    def _new_load(self, request: Request, loop: AbstractEventLoop | None, job: Job | None) -> Load:
        group = None if request.owner is None else self._owners.group(request.owner)
        return Load(request, group, loop, job)

    @override
    @observed_load()
    def _load(self, loader: Callable[[], Any]) -> Any:
        return finished(loader(), owner=f"cache {self.name!r}", instead=_INSTEAD)

    @override
    @observed_load()
    async def _load_async(self, loader: Callable[[], Any], job: Job | None) -> Any:
        return await call_async(loader, job)

    @override
    def _prepare(self, load: Load, outcome: Loaded | Failed) -> Entry | None:
        try:
            return self._entry(load.key, outcome.value, load.ttl, load.group) if isinstance(outcome, Loaded) else None
        finally:
            del load  # see `SingleFlight`: a weigher may raise

    @override
    def _keep(self, prepared: Entry) -> object:
        return self._put(prepared)

    @override
    def _title(self, key: Hashable) -> str:
        return f"{reprlib.repr(key)} in cache {self.name!r}"

    @override
    def _context(self) -> dict[str, Any]:
        return {"cache": self.name}

    def _load_waiters(self) -> int:
        with self._lock:
            return self._flights.waiting

    def _reset_after_fork(self) -> None:
        super()._reset_after_fork()
        self._flights = Flights()


def _check_callable(loader: object) -> None:
    if not callable(loader):
        raise TypeError(f"loader={loader!r} must be callable without arguments")
