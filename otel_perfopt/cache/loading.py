"""Loading what is missing: one load per key, for threads and event loops together.

A load belongs to its flight, not to the caller that started it. A synchronous loader runs in its caller's thread, or in the
executor when a coroutine wants its value; a coroutine function runs in a task of its caller's loop.
"""

import asyncio
import inspect
import reprlib
from asyncio import AbstractEventLoop
from collections.abc import Callable, Coroutine, Hashable
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn

from otel_perfopt._core.flight import Aborted, Failed, Flight, Flights, Loaded, Node, Outcome
from otel_perfopt._core.policies import Entry
from otel_perfopt.cache.executor import Job
from otel_perfopt.cache.memory import MemoryTier, Unset
from otel_perfopt.cache.waiting import Waits, loop_node, running_loop, wait_in_loop, wait_in_thread
from otel_perfopt.durations import Duration
from otel_perfopt.errors import LoadCancelled, ReentrantLoad
from otel_perfopt.telemetry import names
from otel_perfopt.telemetry.caches import observed_load
from otel_perfopt.telemetry.family import Gauges

__all__ = ("Loading", "Request", "is_coroutine_function")

_current: ContextVar["Load | None"] = ContextVar("otel_perfopt_current_load", default=None)

_GAUGES: Gauges = {
    names.CACHE_LOAD_IN_FLIGHT: lambda cache: len(cache._flights),
    names.CACHE_LOAD_WAITERS: lambda cache: cache._flights.waiting,
}


@dataclass(frozen=True, slots=True)
class Request:
    """A wish for a value.

    Attributes:
        key: the key.
        loader: what makes the value.
        ttl: how long to keep it.
        owner: the instance whose method is called; its entries go with it.
    """

    key: Hashable
    loader: Callable[[], Any]
    ttl: Duration | Unset | None
    owner: object = None


class Load(Flight):
    """A flight together with what runs it."""

    __slots__ = ("_task", "group", "job", "loop", "request")

    def __init__(self, request: Request, group: set[Entry] | None) -> None:
        super().__init__(request.key)
        self.request = request
        self.group = group
        self.loop: AbstractEventLoop | None = None
        self.job: Job | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self, work: Coroutine[Any, Any, None], on_end: Callable[[], None]) -> None:
        """Run it as a task of the running loop."""
        self.loop = asyncio.get_running_loop()
        self.waiting_for.add(loop_node(self.loop))
        self._task = self.loop.create_task(work)
        # Ends a flight whose task is cancelled before its first step, too.
        self._task.add_done_callback(lambda _: on_end())

    def cancel(self) -> None:
        """Cancel the task, from any thread; a load that runs in a thread goes on, and nobody gets its value."""
        loop, task = self.loop, self._task
        if loop is None or task is None or loop.is_closed():
            return
        if running_loop() is loop:
            task.cancel()
        else:
            loop.call_soon_threadsafe(task.cancel)

    def is_dead(self) -> bool:
        """Whether the loop that should run it is closed."""
        return self.loop is not None and self.loop.is_closed()


class Loading(MemoryTier):
    """A memory tier that loads what it lacks.

    Args: see `Cache`.
    """

    def __init__(self, name: str, **options: Any) -> None:
        self._flights: Flights[Load] = Flights()
        super().__init__(name, gauges=_GAUGES, **options)

    def _get_or_load(self, request: Request) -> Any:
        """Return the value of a key that was not found fresh: load it, or wait for whoever loads it."""
        if is_coroutine_function(request.loader):
            raise TypeError(
                f"cache {self.name!r}: the loader is a coroutine function, which a synchronous call cannot wait for; "
                f"use 'await cache.get_async(key, loader)'"
            )
        first = True
        while True:
            load, starts, value = self._board(request, count=first)
            if load is None:
                return value
            first = False
            with Waits(_waiters(blocking=True), load) as can_end:
                if not can_end:
                    self._refuse(load)
                if starts:
                    return self._run(load)
                if load.job is not None:
                    load.job.run()
                try:
                    wait_in_thread(partial(self._subscribe, load), load.is_dead)
                except BaseException:
                    self._leave(load)
                    raise
            if load.is_dead():
                self._finish(load, Aborted())
            if isinstance(load.outcome, Loaded):
                return load.outcome.value
            if isinstance(load.outcome, Failed):
                raise load.outcome.error.with_traceback(load.outcome.traceback)
            # Aborted: who ran it was interrupted or cancelled, which is not this caller's business. Try again.

    async def _get_or_load_async(self, request: Request) -> Any:
        """Do what `_get_or_load` does, without blocking the loop."""
        first = True
        while True:
            load, starts, value = self._board(request, count=first)
            if load is None:
                return value
            first = False
            with Waits(_waiters(blocking=False), load) as can_end:
                if not can_end:
                    self._refuse(load)
                try:
                    if starts:
                        load.start(self._drive(load), partial(self._finish, load, Aborted()))
                    await wait_in_loop(partial(self._subscribe, load))
                except BaseException:
                    self._leave(load)
                    raise
            if isinstance(load.outcome, Loaded):
                return load.outcome.value
            if isinstance(load.outcome, Failed):
                raise load.outcome.error.with_traceback(load.outcome.traceback)
            if starts and load.outcome is not None:
                raise LoadCancelled(
                    f"the load of {reprlib.repr(request.key)} in cache {self.name!r} was cancelled from inside",
                    context={"cache": self.name},
                ) from load.outcome.error

    def _board(self, request: Request, *, count: bool) -> tuple[Load | None, bool, Any]:
        """Join the load in progress, or start one, unless the value has come meanwhile.

        Returns:
            The load, whether the caller has to run it, and the value if there is no load.
        """
        with self._lock:
            entry = self._fresh(request.key)
            if entry is not None:
                return None, False, self._hit(entry) if count else entry.value
            if count:
                self._counts.misses += 1
            load = self._flights.find(request.key)
            if load is not None and not load.is_dead():
                load.parties += 1
                return load, False, None
            if load is not None:
                self._finish(load, Aborted())
            group = None if request.owner is None else self._owners.group(request.owner)
            load = Load(request, group)
            self._flights.start(load)
            return load, True, None

    def _run(self, load: Load) -> Any:
        """Run a load in this thread."""
        token = _current.set(load)
        try:
            value = self._load(load.request.loader)
            entry = self._entry(load.key, value, load.request.ttl, load.group)
        except Exception as error:
            self._finish(load, Failed(error, error.__traceback__))
            raise
        except BaseException as error:
            self._finish(load, Aborted(error))
            raise
        finally:
            _current.reset(token)
        self._finish(load, Loaded(value), entry)
        return value

    async def _drive(self, load: Load) -> None:
        """Run a load as a task; the outcome is the flight's, so that the task itself never fails."""
        _current.set(load)
        try:
            value = await self._load_async(load)
            entry = self._entry(load.key, value, load.request.ttl, load.group)
        except Exception as error:  # noqa: BLE001 - it goes to those who wait
            self._finish(load, Failed(error, error.__traceback__))
        except BaseException as error:
            self._finish(load, Aborted(error))
            raise
        else:
            self._finish(load, Loaded(value), entry)

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
    async def _load_async(self, load: Load) -> Any:
        loader = load.request.loader
        if is_coroutine_function(loader):
            return await loader()
        load.job = Job(loader)
        value = await load.job.result()
        return await value if inspect.isawaitable(value) else value

    def _finish(self, load: Load, outcome: Outcome, entry: Entry | None = None) -> None:
        try:
            with self._lock:
                storable = self._flights.finish(load, outcome)
                garbage = self._put(entry) if storable and entry is not None else None
        finally:
            for wake in load.take_wakers():
                wake()
        del garbage  # only now, without the lock: dropping values may run user code

    def _subscribe(self, load: Load, waker: Callable[[], None]) -> bool:
        with self._lock:
            return load.on_done(waker)

    def _leave(self, load: Load) -> None:
        """Take a caller off who will not wait any longer; the last one cancels the load."""
        with self._lock:
            last = load.leave()
            if last:
                self._flights.ground_flight(load)
        if last:
            load.cancel()

    def _refuse(self, load: Load) -> NoReturn:
        self._leave(load)
        raise ReentrantLoad(
            f"loading {reprlib.repr(load.key)} in cache {self.name!r} would wait for itself: the load, or the event loop that "
            f"runs it, is waiting for this call. Load it before, or await get_async() on the loop",
            context={"cache": self.name},
        )

    def _reset_after_fork(self) -> None:
        super()._reset_after_fork()
        self._flights = Flights()


def is_coroutine_function(function: Callable[..., Any]) -> bool:
    """Whether calling `function` makes a coroutine, as far as can be seen without calling it."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004 - looks into it


def _waiters(*, blocking: bool) -> list[Node]:
    """Return what waits while this caller waits: the load that it is part of, and the loop that it blocks."""
    waiters: list[Node] = []
    current = _current.get()
    if current is not None and current.outcome is None:
        waiters.append(current)
    if blocking and (loop := running_loop()) is not None:
        waiters.append(loop_node(loop))
    return waiters
