"""Loading what is missing: one load per key, for threads and event loops together.

A load belongs to its flight, not to the caller that started it. A synchronous loader runs in its caller's thread, or in the
executor when a coroutine wants its value; a coroutine function runs in a task of its caller's loop.

Where an error passes through, local variables that lead to a load are deleted: the load knows the error, the error its
traceback, and that these frames, which would keep each other until a collection of garbage.
"""

import asyncio
import inspect
import reprlib
from asyncio import AbstractEventLoop
from collections.abc import Callable, Hashable
from contextvars import copy_context
from functools import partial
from typing import Any, NoReturn

from otel_perfopt._core.flight import Aborted, Failed, Flights, Loaded, Outcome
from otel_perfopt._core.policies import Entry
from otel_perfopt.cache.job import Job
from otel_perfopt.cache.load import Load, Request, current_load, is_coroutine_function, waiters
from otel_perfopt.cache.memory import MemoryTier
from otel_perfopt.cache.waiting import Waits, wait_in_loop, wait_in_thread
from otel_perfopt.errors import LoadCancelled, ReentrantLoad
from otel_perfopt.telemetry import names
from otel_perfopt.telemetry.caches import observed_load
from otel_perfopt.telemetry.family import Gauges

__all__ = ("Loading",)

_GAUGES: Gauges = {
    names.CACHE_LOAD_IN_FLIGHT: lambda cache: len(cache._flights),
    names.CACHE_LOAD_WAITERS: lambda cache: cache._load_waiters(),
}


class Loading(MemoryTier):
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
                f"use 'await cache.get_async(key, loader)'"
            )
        self._check_ttl(request.ttl)
        first = True
        while True:
            outcome = self._attempt(request, first=first)
            first = False
            try:
                if isinstance(outcome, Loaded):
                    return outcome.value
                if isinstance(outcome, Failed):
                    raise outcome.error.with_traceback(outcome.traceback)
            finally:
                del outcome
            # Aborted: who ran it was interrupted or cancelled, which is not this caller's business. Try again.

    async def _get_or_load_async(self, request: Request) -> Any:
        """Do what `_get_or_load` does, without blocking the loop."""
        _check_callable(request.loader)
        self._check_ttl(request.ttl)
        first = True
        while True:
            outcome, mine = await self._attempt_async(request, first=first)
            first = False
            try:
                if isinstance(outcome, Loaded):
                    return outcome.value
                if isinstance(outcome, Failed):
                    raise outcome.error.with_traceback(outcome.traceback)
                if mine and not isinstance(outcome.error, asyncio.CancelledError | None):
                    raise outcome.error
                if mine:
                    raise LoadCancelled(
                        f"the load of {reprlib.repr(request.key)} in cache {self.name!r} was cancelled from inside",
                        context={"cache": self.name},
                    ) from outcome.error
            finally:
                del outcome

    def _attempt(self, request: Request, *, first: bool) -> Outcome:
        """Load in this thread, or wait for whoever loads."""
        load, mine = None, False
        try:
            load, mine, found = self._board(request, first=first)
            if load is None:
                return found
            with Waits(waiters(blocks_loop=True, blocks_thread=not mine), load) as can_end:
                if not can_end:
                    self._refuse(load)
                if mine:
                    return self._run(load)
                wait_in_thread(partial(self._subscribe, load), load.look_after)
                return self._outcome_of(load)
        except BaseException:
            if load is not None:
                self._leave(load, mine=mine)
            raise
        finally:
            del load

    async def _attempt_async(self, request: Request, *, first: bool) -> tuple[Outcome, bool]:
        """Load in a task of this loop, or wait for whoever loads; also tell whether the load was this caller's."""
        loop = asyncio.get_running_loop()
        job = None if is_coroutine_function(request.loader) else Job(request.loader)
        load, mine, found = self._board(request, first=first, loop=loop, job=job)
        if load is None:
            return found, False
        try:
            with Waits(waiters(), load) as can_end:
                if not can_end:
                    self._refuse(load)
                if mine:
                    load.start(loop, self._drive(load), partial(self._finish, load, Aborted()))
                elsewhere = load.loop is not None and load.loop is not loop
                await wait_in_loop(partial(self._subscribe, load), load.can_end if elsewhere else None)
                return self._outcome_of(load), mine
        except BaseException:
            self._leave(load, mine=mine and load.task is None)
            raise

    def _board(
        self, request: Request, *, first: bool, loop: AbstractEventLoop | None = None, job: Job | None = None
    ) -> tuple[Load | None, bool, Outcome]:
        """Join the load in progress, or start one, unless the value has come meanwhile.

        Returns:
            The load, whether the caller has to run it, and the outcome if there is no load.
        """
        started: Load | None = None
        try:
            with self._lock:
                entry = self._fresh(request.key)
                if entry is not None:
                    return None, False, Loaded(self._hit(entry) if first else entry.value)
                if first:
                    self._counts.misses += 1
                load = self._joinable(request.key)
                if load is not None:
                    load.parties += 1
                    return load, False, Aborted()
                group = None if request.owner is None else self._owners.group(request.owner)
                load = started = Load(request, group, loop, job)
                self._flights.start(load)
            return load, True, Aborted()
        except BaseException:
            if started is not None:  # interrupted on the way out; nobody would run it
                self._finish(started, Aborted())
            raise

    def _joinable(self, key: Hashable) -> Load | None:
        load = self._flights.find(key)
        if load is None or (load.outcome is None and load.can_end()):
            return load
        self._abandon(load)
        return None

    def _run(self, load: Load) -> Outcome:
        """Run a load in this thread."""
        token = current_load.set(load.ticket)
        try:
            value = self._load(load.request.loader)
            entry = self._entry(load.key, value, load.request.ttl, load.group)
            return self._finish(load, Loaded(value), entry)
        except Exception as error:  # noqa: BLE001 - it goes to everybody, this caller included
            return self._finish(load, Failed(error, error.__traceback__))
        finally:
            current_load.reset(token)
            del load

    async def _drive(self, load: Load) -> None:
        """Run a load as a task; the outcome is the flight's, so that the task itself does not fail."""
        current_load.set(load.ticket)
        try:
            value = await self._load_async(load.request.loader, load.job)
            entry = self._entry(load.key, value, load.request.ttl, load.group)
            self._finish(load, Loaded(value), entry)
        except Exception as error:  # noqa: BLE001 - it goes to those who wait
            self._finish(load, Failed(error, error.__traceback__))
        except BaseException as error:
            self._finish(load, Aborted(error))
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise  # to the loop, which stops; others go to the caller that started the load
        finally:
            del load

    @observed_load()
    def _load(self, loader: Callable[[], Any]) -> Any:
        value = loader()
        if inspect.isawaitable(value):
            if inspect.iscoroutine(value):
                value.close()
            raise TypeError(
                f"cache {self.name!r}: the loader returned an awaitable to a synchronous call; "
                f"use 'await cache.get_async(key, loader)'"
            )
        return value

    @observed_load()
    async def _load_async(self, loader: Callable[[], Any], job: Job | None) -> Any:
        if job is None:
            return await loader()
        job.context = copy_context()  # has the span of this load
        outcome = await job.outcome()
        try:
            if not isinstance(outcome, Loaded):
                raise outcome.error or asyncio.CancelledError
            return await outcome.value if inspect.isawaitable(outcome.value) else outcome.value
        finally:
            del outcome

    def _finish(self, load: Load, outcome: Outcome, entry: Entry | None = None) -> Outcome:
        """End a load with `outcome`, unless it has ended, and return it; store the entry unless that is forbidden."""
        try:
            with self._lock:
                storable = self._flights.finish(load, outcome)
                garbage = self._put(entry) if storable and entry is not None else None
        finally:
            for wake in load.take_wakers():
                wake()
        del garbage  # only now, without the lock: dropping values may run user code
        return outcome

    def _subscribe(self, load: Load, waker: Callable[[], None]) -> bool:
        with self._lock:
            return load.on_done(waker)

    def _outcome_of(self, load: Load) -> Outcome:
        """Return the outcome of a load that was waited for; one that cannot end is left to its loop."""
        if load.outcome is None:
            self._abandon(load)
            self._leave(load)
        return load.outcome or Aborted()

    def _abandon(self, load: Load) -> None:
        """Let nobody join a load that has ended or cannot end, and let nobody wait for one whose loop is closed."""
        with self._lock:
            self._flights.ground_flight(load)
        if load.loop is not None and load.loop.is_closed():
            self._finish(load, Aborted())

    def _leave(self, load: Load, *, mine: bool = False) -> None:
        """Take a caller off who will not wait any longer; the last one cancels the load, and its runner ends it."""
        if mine:
            self._finish(load, Aborted())
        with self._lock:
            last = load.leave()
            if last:
                self._flights.ground_flight(load)
        if last:
            load.cancel()

    def _load_waiters(self) -> int:
        with self._lock:
            return self._flights.waiting

    def _refuse(self, load: Load) -> NoReturn:
        raise ReentrantLoad(
            f"loading {reprlib.repr(load.key)} in cache {self.name!r} would wait for itself: the load, or the event loop that "
            f"runs it, is waiting for this call. Load it before, or await get_async() on the loop",
            context={"cache": self.name},
        )

    def _reset_after_fork(self) -> None:
        super()._reset_after_fork()
        self._flights = Flights()


def _check_callable(loader: object) -> None:
    if not callable(loader):
        raise TypeError(f"loader={loader!r} must be callable without arguments")
