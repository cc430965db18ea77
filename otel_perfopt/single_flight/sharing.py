"""Sharing loads: one per key at a time, for threads and event loops together.

A load belongs to its flight, not to the caller that started it. A synchronous loader runs in its caller's thread, or in the
executor when a coroutine wants its value; a coroutine function runs in a task of its caller's loop.

Where an error passes through, local variables that lead to a load are deleted: the load knows the error, the error its
traceback, and that these frames, which would keep each other until a collection of garbage.
"""

import asyncio
import inspect
import threading
from abc import ABC, abstractmethod
from asyncio import AbstractEventLoop
from collections.abc import Callable, Hashable
from contextvars import copy_context
from functools import partial
from typing import Any, Generic, NoReturn, TypeVar

from otel_perfopt._core.flight import Aborted, Failed, Flights, Loaded, Outcome
from otel_perfopt.errors import LoadCancelled, ReentrantLoad
from otel_perfopt.single_flight.job import Job
from otel_perfopt.single_flight.load import Load, Request, current_load, is_coroutine_function, waiters
from otel_perfopt.single_flight.waiting import Waits, wait_in_loop, wait_in_thread

__all__ = ("SingleFlight", "Unawaited", "call_async", "finished")

R = TypeVar("R", bound=Request)
L = TypeVar("L", bound=Load)


class SingleFlight(ABC, Generic[R, L]):
    """Something whose callers share loads.

    A subclass knows what is there already, and what becomes of what was loaded. Methods that are called under the lock run no
    code of the user.

    Attributes:
        name: what it is called in messages.
    """

    __slots__ = ()

    name: str
    _lock: threading.RLock
    _flights: Flights[L]

    @abstractmethod
    def _answer(self, request: R, *, first: bool) -> Outcome | None:
        """Return the outcome for which nothing has to be loaded, if there is one; under the lock.

        Args:
            request: what is wanted.
            first: whether this request asks for the first time.
        """

    @abstractmethod
    def _new_load(self, request: R, loop: AbstractEventLoop | None, job: Job | None) -> L:
        """Make a load; under the lock."""

    @abstractmethod
    def _load(self, loader: Callable[[], Any]) -> Any:
        """Call a loader in this thread; see `finished`."""

    @abstractmethod
    async def _load_async(self, loader: Callable[[], Any], job: Job | None) -> Any:
        """Call a loader on this loop, or in the job; see `call_async`."""

    @abstractmethod
    def _prepare(self, load: L, outcome: Loaded | Failed) -> Any:
        """Return what to keep of an outcome, None for nothing; without the lock, because user code may run."""

    @abstractmethod
    def _keep(self, prepared: Any) -> object:
        """Keep what was prepared; under the lock.

        Returns:
            What is not needed any more; it is dropped after the lock is released, because that may run user code.
        """

    @abstractmethod
    def _title(self, key: Hashable) -> str:
        """Return what is loaded, for messages."""

    @abstractmethod
    def _context(self) -> dict[str, Any]:
        """Return the context of errors."""

    def _share(self, request: R) -> Any:
        """Return the value of a request: load it, or wait for whoever loads it."""
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

    async def _share_async(self, request: R) -> Any:
        """Do what `_share` does, without blocking the loop."""
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
                        f"the load of {self._title(request.key)} was cancelled from inside", context=self._context()
                    ) from outcome.error
            finally:
                del outcome

    def _attempt(self, request: R, *, first: bool) -> Outcome:
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

    async def _attempt_async(self, request: R, *, first: bool) -> tuple[Outcome, bool]:
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
        self, request: R, *, first: bool, loop: AbstractEventLoop | None = None, job: Job | None = None
    ) -> tuple[L | None, bool, Outcome]:
        """Join the load in progress, or start one, unless the value has come meanwhile.

        Returns:
            The load, whether the caller has to run it, and the outcome if there is no load.
        """
        started: L | None = None
        try:
            with self._lock:
                answer = self._answer(request, first=first)
                if answer is not None:
                    return None, False, answer
                load = self._joinable(request.key)
                if load is not None:
                    load.parties += 1
                    return load, False, Aborted()
                load = started = self._new_load(request, loop, job)
                self._flights.start(load)
            return load, True, Aborted()
        except BaseException:
            if started is not None:  # interrupted on the way out; nobody would run it
                self._finish(started, Aborted())
            raise

    def _joinable(self, key: Hashable) -> L | None:
        load = self._flights.find(key)
        if load is None or (load.outcome is None and load.can_end()):
            return load
        self._abandon(load)
        return None

    def _run(self, load: L) -> Outcome:
        """Run a load in this thread."""
        token = current_load.set(load.ticket)
        try:
            return self._end(load, Loaded(self._load(load.loader)))
        except Exception as error:  # noqa: BLE001 - it goes to everybody, this caller included
            return self._end(load, Failed(error, error.__traceback__))
        finally:
            current_load.reset(token)
            del load

    async def _drive(self, load: L) -> None:
        """Run a load as a task; the outcome is the flight's, so that the task itself does not fail."""
        current_load.set(load.ticket)
        try:
            self._end(load, Loaded(await self._load_async(load.loader, load.job)))
        except Exception as error:  # noqa: BLE001 - it goes to those who wait
            self._end(load, Failed(error, error.__traceback__))
        except BaseException as error:
            self._finish(load, Aborted(error))
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise  # to the loop, which stops; others go to the caller that started the load
        finally:
            del load

    def _end(self, load: L, outcome: Loaded | Failed) -> Outcome:
        """End a load that has run, and return its outcome."""
        try:
            return self._finish(load, outcome, self._prepare(load, outcome))
        finally:
            del load

    def _finish(self, load: L, outcome: Outcome, prepared: Any = None) -> Outcome:
        """End a load with `outcome`, unless it has ended, and return it; keep what was prepared unless that is forbidden."""
        try:
            with self._lock:
                storable = self._flights.finish(load, outcome)
                garbage = self._keep(prepared) if storable and prepared is not None else None
        finally:
            for wake in load.take_wakers():
                wake()
        del garbage  # only now, without the lock: dropping values may run user code
        return outcome

    def _subscribe(self, load: L, waker: Callable[[], None]) -> bool:
        with self._lock:
            return load.on_done(waker)

    def _outcome_of(self, load: L) -> Outcome:
        """Return the outcome of a load that was waited for; one that cannot end is left to its loop."""
        if load.outcome is None:
            self._abandon(load)
            self._leave(load)
        return load.outcome or Aborted()

    def _abandon(self, load: L) -> None:
        """Let nobody join a load that has ended or cannot end, and let nobody wait for one whose loop is closed."""
        with self._lock:
            self._flights.ground_flight(load)
        if load.loop is not None and load.loop.is_closed():
            self._finish(load, Aborted())

    def _leave(self, load: L, *, mine: bool = False) -> None:
        """Take a caller off who will not wait any longer; the last one cancels the load, and its runner ends it."""
        if mine:
            self._finish(load, Aborted())
        with self._lock:
            last = load.leave()
            if last:
                self._flights.ground_flight(load)
        if last:
            load.cancel()

    def _refuse(self, load: L) -> NoReturn:
        raise ReentrantLoad(
            f"loading {self._title(load.key)} would wait for itself: the load, or the event loop that runs it, is waiting for "
            f"this call. Load it before, or await get_async() on the loop",
            context=self._context(),
        )


class Unawaited(TypeError):
    """A loader returned an awaitable to a caller who cannot await it; that caller is wrong, and not the loader."""


def finished(value: Any, *, owner: str, instead: str) -> Any:
    """Return what a loader returned to a synchronous caller, who cannot wait for an awaitable.

    Args:
        value: what it returned.
        owner: whose load it is, for the message.
        instead: what to call instead if that is an awaitable.

    Raises:
        Unawaited: it is one.
    """
    if inspect.isawaitable(value):
        if inspect.iscoroutine(value):
            value.close()
        raise Unawaited(f"{owner}: the loader returned an awaitable to a synchronous call; use '{instead}'")
    return value


async def call_async(loader: Callable[[], Any], job: Job | None) -> Any:
    """Await a coroutine function, or have a worker do the job."""
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
