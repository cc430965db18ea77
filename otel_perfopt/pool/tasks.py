"""The pool for the tasks of an event loop."""

import asyncio
import inspect
import math
import time
import weakref
from asyncio import AbstractEventLoop, current_task
from collections.abc import Awaitable, Callable
from contextvars import Context
from functools import partial
from sys import _getframe
from threading import get_ident
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Generic, Literal, Self, TypedDict, TypeVar, Unpack, overload

from otel_perfopt._core.slots import Job, Waiter
from otel_perfopt.durations import Duration
from otel_perfopt.pool.base import BasePool, Grip
from otel_perfopt.pool.housekeeping import Steps, act_on
from otel_perfopt.pool.options import CLOSE_TIMEOUT, Options, seconds
from otel_perfopt.pool.resource import Resource
from otel_perfopt.pool.stacks import Holder
from otel_perfopt.registry import Place, calling_place
from otel_perfopt.telemetry import clocks
from otel_perfopt.telemetry.clocks import Clock
from otel_perfopt.telemetry.pools import observed_create, observed_wait
from otel_perfopt.unset import UNSET, Unset

__all__ = ("AsyncLease", "AsyncResourcePool")

R = TypeVar("R")


class _Given(TypedDict, Generic[R], total=False):
    """The options, for type checkers: none of them finds out by itself what a factory makes that may or may not be awaited."""

    min_size: int
    max_size: int
    acquire_timeout: Duration | None
    idle_timeout: Duration | None
    max_lifetime: Duration | None
    validate: Callable[[R], object] | None
    reset: Callable[[R], object] | None
    dispose: Callable[[R], object] | None
    max_waiting: int | None
    idle_order: Literal["lifo", "fifo"]
    leak_after: Duration | None
    semconv: Literal["perfopt", "db"]
    clock: Clock
    _place: Place | None


class AsyncLease(Grip[R]):
    """A resource for the length of an ``async with`` block; `AsyncResourcePool.lease` makes it."""

    __slots__ = ()

    _pool: "AsyncResourcePool[R]"

    async def __aenter__(self) -> R:
        pool = self._pool
        if self.slot is not None:
            raise RuntimeError(f"this lease of pool {pool.name!r} is in use; call lease() for each async with block")
        try:
            # Only on the thread of a loop that runs is one of its tasks current: this is faster than to ask for the running loop.
            task = current_task(pool._loop) if get_ident() == pool._thread else None
            if not pool._take(self, pool._holder() if task is None else task.get_name(), _getframe(1)):
                await pool._wait(self, _getframe(1))
        except BaseException:
            pool._abandon(self)
            raise
        return self.value

    if TYPE_CHECKING:

        async def __aexit__(
            self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
        ) -> None: ...

    else:

        def __aexit__(self, kind, error, traceback):  # noqa: ANN001, ANN204 - see above; a coroutine would cost more
            pool = self._pool
            pool._let_go(self)
            return pool._done


class AsyncResourcePool(BasePool[R]):
    """A pool of resources for the tasks of one event loop.

    It behaves as `ResourcePool` does, and has the same options. `factory`, `validate`, `reset` and `dispose` may be coroutine
    functions or plain ones; both run on the event loop, in tasks of their own, so that no caller's cancellation reaches them.
    A resource's own ``destroy``, ``aclose`` or ``close`` disposes of it by default. The pool belongs to the loop of its first
    use; when that is closed, the next loop begins with an empty pool.

    Args and errors: see `ResourcePool`.

    >>> async def main():
    ...     async with AsyncResourcePool("locks", asyncio.Lock) as pool, pool.lease() as lock:
    ...         return type(lock).__name__
    >>> asyncio.run(main())
    'Lock'
    """

    _disposers = ("destroy", "aclose", "close")

    @overload
    def __init__(self, name: str, factory: Callable[[], Awaitable[R]], **options: Unpack["_Given[R]"]) -> None: ...
    @overload
    def __init__(self, name: str, factory: Callable[[], R], **options: Unpack["_Given[R]"]) -> None: ...
    def __init__(
        self,
        name: str,
        factory: Callable[[], Any],
        *,
        min_size: int = 1,
        max_size: int = 10,
        acquire_timeout: Duration | None = 30.0,
        idle_timeout: Duration | None = 300.0,
        max_lifetime: Duration | None = None,
        validate: Callable[[R], object] | None = None,
        reset: Callable[[R], object] | None = None,
        dispose: Callable[[R], object] | None = None,
        max_waiting: int | None = None,
        idle_order: Literal["lifo", "fifo"] = "lifo",
        leak_after: Duration | None = 60.0,
        semconv: Literal["perfopt", "db"] = "perfopt",
        clock: Clock = time.monotonic,
        _place: Place | None = None,
    ) -> None:
        options = Options.checked(locals())
        super().__init__(name, factory, options, clock, _place or calling_place(1))
        self._loop: AbstractEventLoop | None = None
        self._thread = 0
        self._done: asyncio.Future[None]  # for what need not wait: a coroutine that does nothing costs more
        self._tasks: set[asyncio.Task[None]] = set()

    def lease(self, *, timeout: Duration | Unset | None = UNSET) -> AsyncLease[R]:
        """Return an asynchronous context manager that acquires a resource and returns it, whatever happens in between.

        Args and errors: see `ResourcePool.acquire`.
        """
        return AsyncLease(self, timeout)

    async def acquire(self, *, timeout: Duration | Unset | None = UNSET) -> R:
        """Return a resource, to be given to `release` or `destroy`; prefer `lease`.

        Args and errors: see `ResourcePool.acquire`.
        """
        lease = AsyncLease(self, timeout)
        await lease.__aenter__()
        return self._hand_out(lease, _getframe(1))

    async def open(self, *, wait: bool = True, timeout: Duration | Unset | None = UNSET) -> None:
        """Create the first `min_size` resources now rather than at the first use.

        Args and errors: see `ResourcePool.open`.
        """
        self._bind()
        patience = self._seconds(timeout)
        self._open()
        if wait and not await self._wait_until(self._is_filled, patience):
            raise self._timed_out(patience, self._holder())

    async def close(self, *, timeout: Duration | None = CLOSE_TIMEOUT) -> bool:
        """End the pool: callers who wait get `PoolClosed`, and every resource is disposed of, when it is returned at the latest.

        Args and result: see `ResourcePool.close`.
        """
        self._bind()
        patience = seconds("timeout", timeout, allow_zero=True)
        self._close()
        return await self._wait_until(self._core.is_empty, patience) or self._tell_left_open()

    async def __aenter__(self) -> Self:
        await self.open(wait=False)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    @observed_wait
    async def _wait(self, grip: Grip[R], frame: FrameType) -> Resource:
        arrived = asyncio.get_running_loop().create_future()
        waiter: Waiter[Resource] = Waiter(partial(_arrive, arrived))
        start = self._clock()
        try:
            try:
                patience = self._patience(grip)
                self._join(waiter)
                if patience > 0:
                    await self._pause(arrived, patience)
                return self._accept(waiter, grip, self._holder(), frame, start)
            finally:
                self._leave(waiter)
        except BaseException:
            self._leave(waiter)  # once more: an interruption may have come before the first, and who has left has left
            raise

    async def _pause(self, arrived: "asyncio.Future[None]", timeout: float) -> None:
        """Suspend this task until the future is done, or for so many seconds."""
        if timeout == math.inf or arrived.done():
            await arrived
            return
        cancel = clocks.call_later(self._clock, arrived.get_loop(), timeout, partial(_arrive, arrived))
        try:
            await arrived
        finally:
            cancel()

    async def _wait_until(self, condition: Callable[[], bool], timeout: float) -> bool:
        """Suspend this task until a change of the state makes `condition` true; return whether it did in time."""
        end = self._clock() + timeout
        while not condition() and self._clock() < end:
            arrived = asyncio.get_running_loop().create_future()
            wake = partial(_arrive, arrived)
            self._watchers.append(wake)
            try:
                await self._pause(arrived, end - self._clock())
            finally:
                self._watchers.remove(wake)
        return condition()

    @observed_create
    async def _make(self, slot: Resource) -> Any:
        value = self._factory()
        return slot.made_in_span(await value if inspect.isawaitable(value) else value)

    def _start(self, job: Job) -> None:
        loop = self._loop
        if loop is None or loop.is_closed():
            return
        task = loop.create_task(_drive_async(self._steps(job)), context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _after(self, delay: float, act: Callable[[Self], object]) -> None:
        loop = self._loop
        if loop is not None:
            act_later = partial(clocks.call_later, self._clock, loop, delay, partial(act_on, weakref.ref(self), act))
            try:
                loop.call_soon_threadsafe(act_later)
            except RuntimeError:
                pass  # the loop is closed

    def _bind(self) -> None:
        """Belong to the running loop; what another loop left behind when it was closed is not ours to end.

        Raises:
            RuntimeError: the pool belongs to another loop.
        """
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            if self._loop is not None:
                if not self._loop.is_closed():
                    raise RuntimeError(f"pool {self.name!r} belongs to another event loop; make a pool for each loop")
                self._reset_after_fork()
            self._loop = loop
            self._done = loop.create_future()
            self._done.set_result(None)
        self._thread = get_ident()

    def _holder(self) -> Holder:
        """Return who asks; belong to the loop that runs here."""
        self._bind()
        task = current_task()
        return get_ident() if task is None else task.get_name()

    def _check_here(self) -> None:
        """Refuse to be used from another thread.

        Raises:
            RuntimeError: neither is the pool's loop running in this thread, nor is it at rest.
        """
        running = asyncio._get_running_loop()
        if running is not self._loop and self._loop is not None and (running is not None or self._loop.is_running()):
            raise RuntimeError(
                f"pool {self.name!r} is used outside of its event loop; call it through loop.call_soon_threadsafe()"
            )

    def _reset_after_fork(self) -> None:
        super()._reset_after_fork()
        self._loop = None
        self._thread = 0
        self._tasks = set()


async def _drive_async(steps: Steps) -> None:
    """Do a job: call what it asks for, and await what that returns."""
    reply: Callable[[], Callable[[], Any]] = partial(next, steps)
    try:
        while True:
            call = reply()
            try:
                result = call()
                reply = partial(steps.send, await result if inspect.isawaitable(result) else result)
            except BaseException as error:  # noqa: BLE001 - the job knows what to do about it
                reply = partial(steps.throw, error)
    except StopIteration:
        pass


def _arrive(arrived: "asyncio.Future[None]") -> None:
    if not arrived.done():
        arrived.set_result(None)
