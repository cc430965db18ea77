"""Help for the tests of pools: one text serves both kinds, and nothing sleeps.

A world has callers, a clock that stands still, resources that complain about how they are treated, and functions that wait
inside until they are let go. In one world callers are threads; in the other they are tasks of a loop that runs only while the
test waits for something, so that whatever a test does between two waits happens in one tick.
"""

import asyncio
import contextlib
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any, Self

from otel_perfopt.errors import PoolTimeout
from otel_perfopt.pool import AsyncResourcePool, ResourcePool
from otel_perfopt.testing import ManualClock
from tests.cache.support import passed, spawn, until, until_async

__all__ = ("PATIENCE", "Caller", "Step", "TaskWorld", "Thing", "ThreadWorld", "World", "raising")

PATIENCE = 5.0
"""Seconds of the manual clock for which a caller waits."""


class Thing:
    """A resource that complains when two use it, and when it is used after its end or ended while it is used."""

    def __init__(self, number: int, complaints: list[str]) -> None:
        self.number = number
        self.ends = 0
        self._users = 0
        self._complaints = complaints
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<thing {self.number}>"

    @contextlib.contextmanager
    def used(self) -> Iterator[Self]:
        """Use it for the length of a block."""
        with self._lock:
            self._users += 1
            self._expect(self._users == 1, f"is used by {self._users}")
            self._expect(not self.ends, "is used after its end")
        try:
            yield self
        finally:
            with self._lock:
                self._users -= 1

    def close(self) -> None:
        """End it."""
        with self._lock:
            self.ends += 1
            self._expect(not self._users, "was ended while it is used")
            self._expect(self.ends == 1, f"was ended {self.ends} times")

    def _expect(self, is_true: bool, complaint: str) -> None:
        if not is_true:
            self._complaints.append(f"{self!r} {complaint}")


def raising(error: BaseException) -> Callable[..., Any]:
    """Make a function that raises."""

    def fail(*_: object) -> None:
        raise error

    return fail


class Step(ABC):
    """A function of the user's, which can be held up.

    Args:
        does: what a call does in the end; may be replaced at any time.
    """

    def __init__(self, does: Callable[..., Any]) -> None:
        self.does = does
        self.calls = 0
        self._is_held = False
        self._inside: deque[Any] = deque()

    @property
    def held(self) -> int:
        """How many calls wait inside."""
        return len(self._inside)

    def hold(self) -> None:
        """Let calls wait inside from now on."""
        self._is_held = True

    def let_go(self, calls: int | None = None) -> None:
        """Let calls go on: so many, or all and those that are to come."""
        self._is_held = calls is not None
        for _ in range(len(self._inside) if calls is None else calls):
            self._inside.popleft().set()

    def _enter(self, event: type[Any]) -> Any:
        self.calls += 1
        gate = event()
        if self._is_held:
            self._inside.append(gate)
        else:
            gate.set()
        return gate

    @abstractmethod
    def __call__(self, *args: Any) -> Any:
        """Wait if it has to, and do it."""


class ThreadStep(Step):
    """A plain function."""

    def __call__(self, *args: Any) -> Any:
        passed(self._enter(threading.Event))
        return self.does(*args)


class TaskStep(Step):
    """A coroutine function."""

    async def __call__(self, *args: Any) -> Any:
        await self._enter(asyncio.Event).wait()
        return self.does(*args)


class Clock(ManualClock):
    """A clock that knows which threads have asked it for a timer."""

    def __init__(self) -> None:
        super().__init__(start=1000.0)
        self.waiting: set[int] = set()

    def after(self, seconds: float, callback: Callable[[], object]) -> None:
        super().after(seconds, callback)
        self.waiting.add(threading.get_ident())


class Caller:
    """Somebody who leases a resource, and keeps it until told to leave.

    Attributes:
        thing: what it has got.
        error: what it leaves with.
        future: what became of it.
        thread: in which it is.
    """

    def __init__(self) -> None:
        self.thing: Any = None
        self.error: BaseException | None = None
        self.future: Any = None
        self.is_over: Any = None
        self.thread = 0

    def _keep(self, thing: Any) -> Any:
        self.thing = thing
        return thing.used() if isinstance(thing, Thing) else contextlib.nullcontext()

    def _end(self) -> None:
        if self.error is not None:
            raise self.error


class World(ABC):
    """What the tests of both kinds of pools have in common."""

    kind: type[Any]
    abandoned: type[BaseException]
    """What a caller gets who is made to give up."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.complaints: list[str] = []
        self.steps: list[Step] = []
        self.things: list[Thing] = []
        self.factory = self.step(self.make)
        self.pools: list[Any] = []
        self.callers: list[Caller] = []

    def make(self) -> Thing:
        """Make a resource."""
        self.things.append(Thing(len(self.things), self.complaints))
        return self.things[-1]

    def new_caller(self) -> Caller:
        """Make a caller, who leaves when the world ends at the latest."""
        self.callers.append(Caller())
        return self.callers[-1]

    def pool(self, **options: Any) -> Any:
        """Make a pool, of things if not told otherwise; every call is the same definition."""
        options = {"name": "things", "factory": self.factory, "min_size": 0, "max_size": 1, "clock": self.clock, **options}
        self.pools.append(self.kind(options.pop("name"), options.pop("factory"), **options))
        return self.pools[-1]

    def filled(self, **options: Any) -> Any:
        """Make a pool whose resources are all there, and idle."""
        pool = self.pool(**options)
        for caller in [self.served(self.lease(pool)) for _ in range(pool.max_size)]:
            self.leave(caller)
        self.until(lambda: pool.stats().available == pool.max_size)
        return pool

    @contextlib.contextmanager
    def borrowed(self, pool: Any) -> Iterator[Any]:
        """Acquire a resource by hand for the length of a block."""
        thing = self.do(pool.acquire)
        try:
            yield thing
        finally:
            self.call(pool.release, thing)

    def line(self, pool: Any, callers: int, **options: Any) -> list[Caller]:
        """Let callers stand in line, one after the other."""
        before = pool.stats().waiting
        line = []
        for number in range(callers):
            line.append(self.lease(pool, **options))
            self.until(lambda number=number: pool.stats().waiting == before + number + 1)  # type: ignore[misc]
            self.until(lambda: self.is_asleep(line[-1]))
        return line

    def served(self, caller: Caller) -> Caller:
        """Wait until a caller has got a resource; raise what it got instead."""
        self.until(lambda: caller.thing is not None or caller.future.done())
        if caller.thing is None:
            caller.future.result()
        return caller

    def leave(self, caller: Caller, error: BaseException | None = None) -> BaseException | None:
        """Let a caller go, perhaps with an error, and return what came out of it."""
        caller.error = error
        caller.is_over.set()
        return self.outcome(caller)

    def outcome(self, caller: Caller) -> BaseException | None:
        """Wait until a caller has ended, and return its error."""
        self.until(caller.future.done)
        try:
            caller.future.result()
        except BaseException as error:
            return error
        return None

    def abandon(self, *callers: Caller) -> None:
        """Let callers give up who wait."""
        self.begin_to_abandon(*callers)
        assert all(isinstance(self.outcome(caller), self.abandoned) for caller in callers)

    def in_time(self, condition: Callable[[], bool], within: float = 60.0, step: float = 0.5) -> None:
        """Let time pass by and by until something has come about."""
        for _ in range(int(within / step)):
            self.settle()
            if condition():
                return
            self.clock.advance(step)
        self.until(condition)

    def assert_full(self, pool: Any) -> None:
        """The whole capacity can be used, and everybody gets something else."""
        callers = [self.lease(pool, timeout=None) for _ in range(pool.max_size)]
        self.in_time(lambda: all(caller.thing is not None for caller in callers))
        assert len({id(caller.thing) for caller in callers}) == pool.max_size
        for caller in callers:
            assert self.leave(caller) is None

    def finish(self) -> None:
        """Close everything; nothing may have been treated badly, and nothing be left."""
        for step in self.steps:
            step.let_go()
        for caller in self.callers:
            caller.is_over.set()
        for pool in self.pools:
            assert self.close(pool, timeout=None), pool
        assert not self.complaints
        assert [thing for thing in self.things if not thing.ends] == []

    @abstractmethod
    def step(self, does: Callable[..., Any]) -> Step:
        """Make a function of the user's."""

    @abstractmethod
    def lease(self, pool: Any, **options: Any) -> Caller:
        """Let somebody lease a resource."""

    @abstractmethod
    def is_asleep(self, caller: Caller) -> bool:
        """Whether a caller in line has set its alarm."""

    @abstractmethod
    def begin_to_abandon(self, *callers: Caller) -> None:
        """Make callers give up, who have not noticed yet."""

    @abstractmethod
    def until(self, condition: Callable[[], bool]) -> None:
        """Wait for something that others bring about."""

    @abstractmethod
    def settle(self) -> None:
        """Let others get on."""

    @abstractmethod
    def start(self, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Begin to call something that waits, such as `close`, and return its future."""

    @abstractmethod
    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call something that does not wait where callers are, such as `release`."""

    def do(self, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Call something that waits, and wait for it."""
        future = self.start(function, *args, **options)
        self.until(future.done)
        return future.result()

    def close(self, pool: Any, **options: Any) -> Any:
        """Close a pool."""
        return self.do(pool.close, **options)


class ThreadWorld(World):
    """Callers are threads."""

    kind = ResourcePool
    abandoned = PoolTimeout

    def step(self, does: Callable[..., Any]) -> Step:
        self.steps.append(ThreadStep(does))
        return self.steps[-1]

    def lease(self, pool: Any, **options: Any) -> Caller:
        caller = self.new_caller()
        caller.is_over = threading.Event()

        def use() -> None:
            self.clock.waiting.discard(threading.get_ident())  # of a thread that has ended
            caller.thread = threading.get_ident()
            with pool.lease(**{"timeout": PATIENCE, **options}) as thing, caller._keep(thing):
                passed(caller.is_over)
                caller._end()

        caller.future = spawn(use)
        return caller

    def is_asleep(self, caller: Caller) -> bool:
        return caller.thread in self.clock.waiting

    def begin_to_abandon(self, *callers: Caller) -> None:
        self.clock.advance(PATIENCE)

    def until(self, condition: Callable[[], bool]) -> None:
        until(condition)

    def settle(self) -> None:
        """Wait until the workers have nothing to do but to wait in a step, or for something else that takes long."""
        time.sleep(0.001)  # callers that stand between two steps of the pool get on before ten seconds seem to have passed
        end = time.monotonic() + 0.5
        while self._busy() > 0 and time.monotonic() < end:
            time.sleep(0.0005)

    def _busy(self) -> int:
        unfinished: int = sum(pool._workers._unfinished for pool in self.pools)
        return unfinished - sum(step.held for step in self.steps)

    def start(self, function: Callable[..., Any], *args: Any, **options: Any) -> "Future[Any]":
        return spawn(lambda: function(*args, **options))

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        return function(*args)


class TaskWorld(World):
    """Callers are tasks."""

    kind = AsyncResourcePool
    abandoned = asyncio.CancelledError

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.loop = self.runner.get_loop()

    def step(self, does: Callable[..., Any]) -> Step:
        self.steps.append(TaskStep(does))
        return self.steps[-1]

    def lease(self, pool: Any, **options: Any) -> Caller:
        caller = self.new_caller()
        caller.is_over = asyncio.Event()

        async def use() -> None:
            async with pool.lease(**{"timeout": PATIENCE, **options}) as thing:
                with caller._keep(thing):
                    await caller.is_over.wait()
                    caller._end()

        caller.future = self.loop.create_task(use())
        return caller

    def is_asleep(self, caller: Caller) -> bool:
        return True

    def begin_to_abandon(self, *callers: Caller) -> None:
        for caller in callers:
            caller.future.cancel()

    def until(self, condition: Callable[[], bool]) -> None:
        self.runner.run(until_async(condition))

    def settle(self) -> None:
        async def pause() -> None:
            for _ in range(30):
                await asyncio.sleep(0)

        self.runner.run(pause())

    def start(self, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        async def call() -> Any:
            return await function(*args, **options)

        return self.loop.create_task(call())

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        async def call() -> Any:
            return function(*args)

        return self.runner.run(call())

    def finish(self) -> None:
        try:
            super().finish()
        finally:
            self.runner.close()
