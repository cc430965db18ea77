"""Loading what is missing: one load per key, whose value is stored unless an invalidation came meanwhile."""

import reprlib
from asyncio import AbstractEventLoop
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from typing_extensions import override

from otel_perfopt._core.flight import ABSENT, Aborted, Failed, Flights, Loaded, Outcome
from otel_perfopt._core.policies import Entry
from otel_perfopt.cache.failures import Failures
from otel_perfopt.cache.lifetimes import checked_seconds
from otel_perfopt.cache.load import Load, Request
from otel_perfopt.cache.memory import MemoryTier
from otel_perfopt.cache.terms import Terms
from otel_perfopt.errors import LoadTimeout, ReentrantLoad
from otel_perfopt.single_flight import Deadline, SingleFlight, Unawaited, call_async, finished, is_coroutine_function
from otel_perfopt.single_flight.job import Job
from otel_perfopt.single_flight.sharing import Plan
from otel_perfopt.single_flight.waiting import running_loop
from otel_perfopt.telemetry import names
from otel_perfopt.telemetry.background import NoThread
from otel_perfopt.telemetry.caches import observed_load, observed_refresh
from otel_perfopt.telemetry.family import Gauges
from otel_perfopt.telemetry.logs import mention
from otel_perfopt.unset import UNSET

__all__ = ("NO_LOADER", "Loading")

_GAUGES: Gauges = {
    names.CACHE_LOAD_IN_FLIGHT: lambda cache: len(cache._flights),
    names.CACHE_LOAD_WAITERS: lambda cache: cache._load_waiters(),
}
_INSTEAD = "await cache.get_async(key, loader)"
_STALE = "stale"
_WARN_EVERY = 60.0


def NO_LOADER(*_: object) -> Any:  # noqa: N802 - a constant, called by nobody
    """Stands for a loader in requests that have none."""


class Loading(MemoryTier, SingleFlight[Request, Load]):
    """A memory tier that loads what it lacks.

    Args: see `Cache`.
    """

    def __init__(self, name: str, **options: Any) -> None:
        self._flights: Flights[Load] = Flights()
        super().__init__(name, gauges=_GAUGES, **options)
        self._failures = Failures(self._lifetimes)
        self._remembers_failures = self._lifetimes.error_ttl > 0 or self._lifetimes.stale_for > 0
        self._is_simple = self._lifetimes.is_plain  # whether an entry whose time is over has to be loaded
        self._runs_behind = self._lifetimes.has_timeouts
        self._has_more = False  # whether there are tiers behind the memory
        self._warned = -_WARN_EVERY

    def _get_or_load(self, request: Request) -> Any:
        """Return the value of a key that was not found at first sight: load it, or wait for whoever loads it."""
        self._check(request)
        self._refuse_coroutines(request.loader)
        return self._get_or_share(request)

    def _get_or_share(self, request: Request) -> Any:
        """Do what `_get_or_load` does, with a request that is known to be right."""
        entry = self._fresh(request.key)
        if entry is not None:
            self._refresh_if_due(entry, request)
            return self._hit(entry)
        return self._share(request)

    async def _get_or_load_async(self, request: Request) -> Any:
        """Do what `_get_or_load` does, without blocking the loop."""
        self._check(request)
        entry = self._fresh(request.key)
        if entry is not None:
            self._refresh_if_due(entry, request, running_loop())
            return self._hit(entry)
        return await self._share_async(request)

    def _get_if_there(self, key: Hashable) -> Any:
        """Return the value of a key, or ABSENT."""
        entry = self._fresh(key)
        if entry is not None:
            return self._hit(entry)
        if not self._has_more:
            self._counts.misses += 1
            self._hot.other(key)
            return ABSENT
        try:
            return self._share(Request(key, NO_LOADER))
        except ReentrantLoad:  # it is being loaded by whoever asks
            return ABSENT

    async def _get_if_there_async(self, key: Hashable) -> Any:
        """Do what `_get_if_there` does, without blocking the loop."""
        if not self._has_more or self._fresh(key) is not None:
            return self._get_if_there(key)
        try:
            return await self._share_async(Request(key, NO_LOADER))
        except ReentrantLoad:
            return ABSENT

    def _refresh_if_due(self, entry: Any, request: Request, loop: AbstractEventLoop | None = None) -> None:
        """Start to load the value of a fresh entry anew, if it is old enough."""
        now = self.clock()
        with self._lock:
            if entry.expires > now or not entry.is_valid() or entry.fresh_until <= now:
                return
            entry.expires = min(entry.fresh_until, self._lifetimes.put_off(now))  # until then hits ask no question
        try:
            if self._start_unattended(replace(request, is_refresh=True), loop):
                self._counts.refreshes += 1
        except NoThread:
            pass  # the process ends, or the system has no thread left; the value is fresh for now

    @override
    def _answer(self, request: Request) -> Loaded | Failed | None:
        entry = self._fresh(request.key)
        if entry is not None:
            self._store.policy.touch(entry)
            return Loaded(entry.value, names.MEMORY_TIER)
        if not self._remembers_failures:
            return None
        stale = self._stale(request.key)
        failure = self._failures.find(request.key, self.clock(), has_stale=stale is not None)
        if failure is None:
            return None
        return failure.value if stale is None else Loaded(stale.value, _STALE)

    @override
    def _settle(self, request: Request, outcome: Outcome, *, at_once: bool) -> Outcome:
        source = outcome.source if isinstance(outcome, Loaded) else None
        if request.loader is NO_LOADER:
            if isinstance(outcome, Failed) or source == _STALE:
                outcome, source = Loaded(ABSENT), None
        elif isinstance(outcome, Failed) and not isinstance(outcome.error, Unawaited):
            stale = self._stale(request.key)
            if stale is not None:
                outcome, source = Loaded(stale.value, _STALE), _STALE
        if source == names.MEMORY_TIER and at_once:
            self._hot.hit(request.key)
            return outcome
        self._hot.other(request.key)
        if source == _STALE:
            self._counts.stale += 1
        else:
            self._counts.misses += 1
        return outcome

    @override
    def _deadline(self, request: Request) -> Deadline | None:
        return self._deadline_of((request.key,)) if self._runs_behind else None

    def _deadline_of(self, keys: Sequence[Hashable]) -> Deadline:
        """Return when to stop waiting: at the soft timeout if there is something else for every key."""
        soft, hard = self._lifetimes.soft_timeout, self._lifetimes.hard_timeout
        if any(self._stale(key) is None for key in keys):
            return Deadline(self.clock, hard)
        return Deadline(self.clock, min(soft, hard), at_most=hard)

    @override
    def _too_late(self, request: Request, deadline: Deadline) -> Outcome:
        stale = self._stale(request.key)
        if stale is not None:
            return Loaded(stale.value, _STALE)
        if deadline.prolong():  # the stale value has been invalidated meanwhile, or its time is over
            return Aborted()
        message = (
            f"loading {self._title(request.key)} took longer than {self._lifetimes.hard_timeout:g} s; it goes on, and is kept"
        )
        return Failed(LoadTimeout(message, context=self._context()), None)

    @override
    def _new_load(self, request: Request, loop: AbstractEventLoop | None, job: Job | None) -> Load:
        return Load(request, self._terms(request.ttl, request.tags, request.owner), loop, job)

    @override
    def _joinable(self, key: Hashable) -> Load | None:
        load = super()._joinable(key)
        if load is None or load.terms.is_valid(self._tags.now):
            return load
        self._abandon(load)
        return None

    @override
    def _moment(self) -> int:
        return self._tags.now

    @override
    def _holds(self, load: Load, since: int) -> bool:
        is_absent = isinstance(load.outcome, Loaded) and load.outcome.value is ABSENT
        return not is_absent and load.terms.is_valid(since)

    @override
    def _plan(self, load: Load) -> Plan:
        found = self._look_behind((load,)).get(load.key) if self._has_more else None
        if found is None and load.loader is NO_LOADER:
            return Loaded(ABSENT)
        return found or (self._refresh if load.is_refresh else self._load, load.loader)

    @override
    async def _plan_async(self, load: Load) -> Plan:
        found = (await self._look_behind_async((load,))).get(load.key) if self._has_more else None
        if found is None and load.loader is NO_LOADER:
            return Loaded(ABSENT)
        return found or (self._refresh_async if load.is_refresh else self._load_async, load.loader, load.job)

    def _look_behind(self, loads: Sequence[Load]) -> Mapping[Hashable, Loaded]:  # noqa: ARG002 - for tiers
        """Return what need not be loaded, because a tier behind the memory has it."""
        return {}

    async def _look_behind_async(self, loads: Sequence[Load]) -> Mapping[Hashable, Loaded]:
        """Do what `_look_behind` does, without waiting for a network on the loop."""
        return self._look_behind(loads)

    @override
    @observed_load()
    def _load(self, loader: Callable[[], Any]) -> Any:
        return finished(loader(), owner=f"cache {self.name!r}", instead=_INSTEAD)

    @override
    @observed_load()
    async def _load_async(self, loader: Callable[[], Any], job: Job | None) -> Any:
        return await call_async(loader, job)

    @observed_refresh
    def _refresh(self, loader: Callable[[], Any]) -> Any:
        return finished(loader(), owner=f"cache {self.name!r}", instead=_INSTEAD)

    @observed_refresh
    async def _refresh_async(self, loader: Callable[[], Any], job: Job | None) -> Any:
        return await call_async(loader, job)

    @override
    def _prepare(self, load: Load, outcome: Loaded | Failed) -> Callable[[], object] | None:
        try:
            terms = load.terms
            if terms.added:
                with self._lock:
                    terms.tags += self._tags.find(terms.added)
            if isinstance(outcome, Loaded):
                if outcome.value is ABSENT:
                    return None
                return self._to_keep(self._entry(load.key, outcome.value, terms), terms)
            self._tell_failure(load, outcome.error)
            if not self._remembers_failures or isinstance(outcome.error, Unawaited):
                return None
            now = self.clock()
            return partial(self._failures.keep, self._failures.entry(load.key, outcome, terms, now), now)
        finally:
            del load, outcome  # see `SingleFlight`: a weigher may raise

    @override
    def _put_now(self, entry: Entry) -> object:
        return super()._put_now(entry), self._failures.forget(entry.key)

    def _to_keep(self, entry: Entry, terms: Terms, *, replaces: bool = False) -> Callable[[], object]:  # noqa: ARG002
        """Return what keeps an entry, under the lock.

        Args:
            entry: the entry.
            terms: what it was made with.
            replaces: whether its value was set, and not loaded.
        """
        return partial(self._put, entry)

    @override
    def _keep(self, prepared: Callable[[], object]) -> object:
        return prepared()

    def _tell_failure(self, load: Load, error: Exception) -> None:
        """Warn, once a minute, of failures that nobody sees, because older values are served."""
        is_hidden = load.is_refresh or self._stale(load.key) is not None
        if is_hidden and (now := self.clock()) >= self._warned + _WARN_EVERY:
            self._warned = now
            mention("warning", "a load failed, and its older value is served", cache=self.name, error=error)

    def _refuse_coroutines(self, loader: Callable[..., Any]) -> None:
        if is_coroutine_function(loader):
            raise TypeError(
                f"cache {self.name!r}: the loader is a coroutine function, which a synchronous call cannot wait for; "
                f"use '{_INSTEAD}'"
            )

    def _check(self, request: Request) -> None:
        if not callable(request.loader):
            raise TypeError(f"loader={request.loader!r} must be callable without arguments")
        if request.ttl is not UNSET:
            checked_seconds("ttl", request.ttl)

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
