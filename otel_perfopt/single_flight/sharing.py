"""Sharing loads: one per key at a time, for threads and event loops together.

A load belongs to its flight, not to the caller that started it. A synchronous loader runs in its caller's thread, or in the
executor when a coroutine wants its value; a coroutine function runs in a task of its caller's loop.

Where an error passes through, local variables that lead to a load are deleted: the load knows the error, the error its
traceback, and that these frames, which would keep each other until a collection of garbage.
"""

import asyncio
import threading
from abc import ABC, abstractmethod
from asyncio import AbstractEventLoop
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any, Generic, NamedTuple, NoReturn, TypeVar, cast

from otel_perfopt._core.flight import Aborted, Failed, Flights, Loaded, Outcome
from otel_perfopt.errors import LoadCancelled, ReentrantLoad
from otel_perfopt.single_flight.job import Job
from otel_perfopt.single_flight.load import Load, Request, is_coroutine_function, waiters
from otel_perfopt.single_flight.waiting import Deadline, Waits, thread_node, wait_in_loop, wait_in_thread
from otel_perfopt.telemetry.background import NoThread

__all__ = ("Plan", "Seat", "SingleFlight")

R = TypeVar("R", bound=Request)
L = TypeVar("L", bound=Load)


Plan = Loaded | tuple[Any, ...]
"""A value, or a function and its arguments; not a `partial`, which would take one more frame of the interpreter's stack."""


class SingleFlight(ABC, Generic[R, L]):
    """Something whose callers share loads.

    A subclass knows what is there already, and what becomes of what was loaded. Methods that are called under the lock run no
    code of the user.

    Attributes:
        name: what it is called in messages.
    """

    __slots__ = ()

    name: str
    _runs_behind: bool = False  # whether loads for synchronous callers run in a worker, so that callers may stop waiting
    _lock: threading.RLock
    _flights: Flights[L]

    @abstractmethod
    def _answer(self, request: R) -> Loaded | Failed | None:
        """Return the outcome for which nothing has to be loaded, if there is one; under the lock."""

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

    def _plan(self, load: L) -> "Plan":
        """Return what calls the loader in this thread, or what need not be loaded after all."""
        return self._load, load.loader

    async def _plan_async(self, load: L) -> "Plan":
        """Return what calls the loader on this loop, or what need not be loaded after all."""
        return self._load_async, load.loader, load.job

    def _settle(self, request: R, outcome: Outcome, *, at_once: bool) -> Outcome:  # noqa: ARG002
        """Return what a caller gets in the end; called once for each request.

        Args:
            request: what was wanted.
            outcome: what came of it; `Aborted` if the caller gives up.
            at_once: whether that was found at the first attempt.
        """
        return outcome

    def _deadline(self, request: R) -> Deadline | None:  # noqa: ARG002
        """Return when a caller stops waiting for a load, which then runs in a worker; None for never."""
        return None

    def _too_late(self, request: R, deadline: Deadline) -> Outcome:
        """Return the outcome for a caller whose deadline is over, while the load goes on; `Aborted` to wait longer."""
        raise NotImplementedError(request, deadline)

    def _holds(self, load: L, since: int) -> bool:  # noqa: ARG002
        """Whether the outcome of a load holds for a caller who joined it at that moment."""
        return True

    def _moment(self) -> int:
        """Return what tells the moments of `_holds` apart; under the lock."""
        return 0

    def _share(self, request: R) -> Any:
        """Return the value of a request: load it, or wait for whoever loads it."""
        outcome: Outcome = Aborted()
        attempts = 0
        try:
            try:
                deadline = self._deadline(request)  # one for all attempts
                while isinstance(outcome, Aborted):
                    # Again, if whoever ran it was interrupted or cancelled, which is not this caller's business.
                    attempts += 1
                    outcome = self._attempt(request, deadline)
            finally:
                outcome = self._settle(request, outcome, at_once=attempts == 1)
            if isinstance(outcome, Failed):
                raise outcome.error.with_traceback(outcome.traceback)
            return cast("Loaded", outcome).value
        finally:
            del outcome

    async def _share_async(self, request: R) -> Any:
        """Do what `_share` does, without blocking the loop."""
        outcome: Outcome = Aborted()
        attempts = 0
        try:
            try:
                deadline = self._deadline(request)
                while isinstance(outcome, Aborted):
                    attempts += 1
                    outcome = await self._attempt_async(request, deadline)
            finally:
                outcome = self._settle(request, outcome, at_once=attempts == 1)
            if isinstance(outcome, Failed):
                raise outcome.error.with_traceback(outcome.traceback)
            return cast("Loaded", outcome).value
        finally:
            del outcome

    def _attempt(self, request: R, deadline: Deadline | None) -> Outcome:
        """Load in this thread, or wait for whoever loads."""
        seat, runs = None, False
        try:
            seat = self._board(request)
            if not isinstance(seat, Seat):
                return seat
            load, mine = seat.load, seat.is_mine
            with Waits(waiters(blocks_loop=True, blocks_thread=not mine or self._runs_behind), load) as can_end:
                if not can_end:
                    self._refuse(load)
                if mine and not self._runs_behind:
                    return self._run(load)
                if mine:
                    self._start_behind(load)
                    runs = True
                limited = deadline is not None and not deadline.is_endless
                wait_in_thread(partial(self._subscribe, load), partial(load.look_after, limited=limited), deadline)
                outcome = self._outcome_of(seat, request, deadline)
        except BaseException:
            if isinstance(seat, Seat):
                self._leave(seat.load, mine=seat.is_mine and not runs)
            raise
        finally:
            seat = load = None
            del seat, load
        if mine and isinstance(outcome, Aborted) and outcome.error is not None:
            self._tell_cancelled(request.key, outcome)
        return outcome

    async def _attempt_async(self, request: R, deadline: Deadline | None) -> Outcome:
        """Load in a task of this loop, or wait for whoever loads."""
        loop = asyncio.get_running_loop()
        job = None if is_coroutine_function(request.loader) else Job(request.loader)
        seat = self._board(request, loop=loop, job=job)
        if not isinstance(seat, Seat):
            return seat
        load, mine = seat.load, seat.is_mine
        try:
            with Waits(waiters(), load) as can_end:
                if not can_end:
                    self._refuse(load)
                if mine:
                    load.start(loop, self._drive(load), partial(self._finish, load, Aborted()))
                elsewhere = load.loop is not None and load.loop is not loop
                await wait_in_loop(partial(self._subscribe, load), load.can_end if elsewhere else None, deadline)
                outcome = self._outcome_of(seat, request, deadline)
                mine = mine and load.outcome is outcome  # not if it goes on, while this caller tries again
        except BaseException:
            self._leave(load, mine=mine and load.task is None)
            raise
        finally:
            del seat, load
        if mine and isinstance(outcome, Aborted):
            self._tell_cancelled(request.key, outcome)
        return outcome

    def _board(self, request: R, *, loop: AbstractEventLoop | None = None, job: Job | None = None) -> "Seat[L] | Loaded | Failed":
        """Join the load in progress, or start one, unless there is an answer already."""
        started: L | None = None
        try:
            with self._lock:
                answer = self._answer(request)
                if answer is not None:
                    return answer
                load = self._joinable(request.key)
                if load is not None:
                    load.parties += 1
                    return Seat(load, is_mine=False, since=self._moment())
                load = started = self._new_load(request, loop, job)
                if self._runs_behind and loop is None:
                    load.job = job or Job(partial(self._run_behind, load))
                elif loop is None:
                    load.waiting_for.add(thread_node())
                self._flights.start(load)
                return Seat(load, is_mine=True, since=self._moment())
        except BaseException:
            if started is not None:  # interrupted on the way out; nobody would run it
                self._finish(started, Aborted())
            raise

    def _start_behind(self, load: L) -> None:
        try:
            load.start_behind()
        except NoThread:  # the process ends; this thread does it
            load.look_after()

    def _start_unattended(self, request: R, loop: AbstractEventLoop | None = None) -> bool:
        """Start a load that nobody waits for, unless one is in progress, and return whether it did."""
        job = None if loop is None or is_coroutine_function(request.loader) else Job(request.loader)
        started: L | None = None
        try:
            with self._lock:
                if self._joinable(request.key) is not None:
                    return False
                load = started = self._new_load(request, loop, job)
                load.parties = 0
                load.goes_on = True
                if loop is None:
                    load.job = Job(partial(self._run_behind, load))
                self._flights.start(load)
            if loop is None:
                load.start_behind()
            else:
                load.start(loop, self._drive(load), partial(self._finish, load, Aborted()))
        except BaseException:
            if started is not None:  # nobody would run it
                self._finish(started, Aborted())
            raise
        return True

    def _joinable(self, key: Hashable) -> L | None:
        load = self._flights.find(key)
        if load is None or (load.outcome is None and load.can_end()):
            return load
        self._abandon(load)
        return None

    def _run(self, load: L) -> Outcome:
        """Run a load in this thread."""
        load.waiting_for.add(thread_node())
        entered = load.enter()
        try:
            plan = self._plan(load)
            return self._end(load, plan if isinstance(plan, Loaded) else Loaded(plan[0](*plan[1:])))
        except Exception as error:  # noqa: BLE001 - it goes to everybody, this caller included
            return self._end(load, Failed(error, error.__traceback__))
        finally:
            for variable, token in entered:
                variable.reset(token)
            del load

    def _run_behind(self, load: L) -> None:
        """Run a load in a worker; the outcome is the flight's."""
        try:
            self._run(load)
        except BaseException as error:  # noqa: BLE001 - an exit goes to the caller that started the load
            self._finish(load, Aborted(error))
        finally:
            del load

    async def _drive(self, load: L) -> None:
        """Run a load as a task; the outcome is the flight's, so that the task itself does not fail."""
        load.enter()  # in the context of this task
        try:
            plan = await self._plan_async(load)
            self._end(load, plan if isinstance(plan, Loaded) else Loaded(await plan[0](*plan[1:])))
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

    def _outcome_of(self, seat: "Seat[L]", request: R, deadline: Deadline | None) -> Outcome:
        """Return the outcome of a load that was waited for; one that cannot end is left to its loop."""
        load = seat.load
        if load.outcome is not None:
            return load.outcome if seat.is_mine or self._holds(load, seat.since) else Aborted()
        if deadline is not None and not deadline.left():
            load.goes_on = True
            self._leave(load)
            return self._too_late(request, deadline)
        self._abandon(load)
        self._leave(load)
        return Aborted()

    def _tell_cancelled(self, key: Hashable, outcome: Aborted) -> NoReturn:
        """Tell the caller that started a load what ended it."""
        try:
            if not isinstance(outcome.error, asyncio.CancelledError | None):
                raise outcome.error
            raise LoadCancelled(
                f"the load of {self._title(key)} was cancelled from inside", context=self._context()
            ) from outcome.error
        finally:
            del outcome

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


class Seat(NamedTuple, Generic[L]):
    """A caller's place in a load.

    Attributes:
        load: the load.
        is_mine: whether the caller has to start it.
        since: the moment when the caller came.
    """

    load: L
    is_mine: bool
    since: int
