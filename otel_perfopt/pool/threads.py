"""The pool for threads."""

import inspect
import threading
import time
import weakref
from collections.abc import Callable
from contextvars import Context
from functools import partial
from sys import _getframe, maxsize
from threading import get_ident
from types import FrameType, TracebackType
from typing import Any, Literal, Self, TypeVar

from otel_perfopt._core.slots import Job, Waiter
from otel_perfopt.durations import Duration
from otel_perfopt.pool.base import BasePool, Grip, live
from otel_perfopt.pool.housekeeping import Steps, act_on
from otel_perfopt.pool.options import CLOSE_TIMEOUT, Options, seconds
from otel_perfopt.pool.resource import Resource
from otel_perfopt.registry import Place, calling_place
from otel_perfopt.telemetry import clocks, lifecycle
from otel_perfopt.telemetry.background import NoThread, Workers
from otel_perfopt.telemetry.clocks import Clock
from otel_perfopt.telemetry.pools import observed_create, observed_wait
from otel_perfopt.unset import UNSET, Unset

__all__ = ("Lease", "ResourcePool")

R = TypeVar("R")


class Lease(Grip[R]):
    """A resource for the length of a ``with`` block; `ResourcePool.lease` makes it."""

    __slots__ = ()

    _pool: "ResourcePool[R]"

    def __enter__(self) -> R:
        if self.slot is not None:
            raise RuntimeError(f"this lease of pool {self._pool.name!r} is in use; call lease() for each with block")
        pool = self._pool
        try:
            if not pool._take(self, get_ident(), _getframe(1)):
                pool._wait(self, _getframe(1))
        except BaseException:
            pool._abandon(self)
            raise
        return self.value

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._pool._let_go(self)


class ResourcePool(BasePool[R]):
    """A pool of resources for threads.

    Resources are created when they are needed, behind the callers, and given to those who wait in strict order. A resource can
    be any object; it is told from others by its identity, and nothing is written onto it. What a pool counts is in the
    ``perfopt.pool.*`` metrics. Close it when it is not needed any more, or use it as a context manager.

    Args:
        name: names the pool in metrics, spans and `get_pool`.
        factory: called without arguments in a background thread, returns a new resource.
        min_size: resources that are kept even if nobody uses them; the first are created at the first use, or by `open`.
        max_size: the most resources.
        acquire_timeout: how long a caller waits at most, for creation and validation, too; None for ever, 0 not at all.
        idle_timeout: how long a resource that is not needed for `min_size` stays idle; None for ever.
        max_lifetime: how long a resource lives at most, up to a tenth less at random; None for ever. It is never ended while
            somebody holds it.
        validate: called with a resource before somebody gets it; if it returns something false or raises, the resource is
            replaced. New resources are not validated.
        reset: called with a resource after it was returned, before somebody else gets it; if it raises, it is replaced.
        dispose: called with a resource that has to go; by default its own ``destroy`` or ``close``, if it has one.
        max_waiting: the most callers that wait for others to return something; more are refused at once. None for no limit.
        idle_order: ``"lifo"`` takes the resource that was returned last, so that others can become idle; ``"fifo"`` takes turns.
        leak_after: after how long a resource that nobody returns is reported in the log, once for each lease; None for never.
        semconv: ``"db"`` for the ``db.client.connection.*`` metrics of the semantic conventions, ``"perfopt"`` for our own.
        clock: returns monotonic seconds; for tests.

    Raises:
        ConfigurationError: an option has a value that cannot work.
        TypeError: `factory` is a coroutine function.

    >>> import sqlite3
    >>> connect = lambda: sqlite3.connect(":memory:", check_same_thread=False)
    >>> with ResourcePool("books", connect, max_size=4) as pool, pool.lease() as connection:
    ...     connection.execute("select 6 * 7").fetchone()
    (42,)
    """

    def __init__(
        self,
        name: str,
        factory: Callable[[], R],
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
        for option, function in (("factory", factory), ("validate", validate), ("reset", reset), ("dispose", dispose)):
            if inspect.iscoroutinefunction(function):
                raise TypeError(f"{option}={function!r} is a coroutine function; use AsyncResourcePool")
        options = Options.checked(locals())
        super().__init__(name, factory, options, clock, _place or calling_place(1))
        self._workers = self._new_workers()

    def lease(self, *, timeout: Duration | Unset | None = UNSET) -> Lease[R]:
        """Return a context manager that acquires a resource and returns it, whatever happens in between.

        Args and errors: see `acquire`.
        """
        return Lease(self, timeout)

    def acquire(self, *, timeout: Duration | Unset | None = UNSET) -> R:
        """Return a resource, to be given to `release` or `destroy`; prefer `lease`.

        Args:
            timeout: how long to wait at most; the pool's `acquire_timeout` by default, None for ever, 0 not at all.

        Raises:
            PoolTimeout: there was none in time; the message tells who holds what, and the cause is the factory's last error.
            PoolFull: too many callers wait already.
            PoolClosed: the pool is closed, or was closed meanwhile.
            Exception: the factory's own, as long as it has never succeeded.
        """
        lease = Lease(self, timeout)
        lease.__enter__()
        return self._hand_out(lease, _getframe(1))

    def open(self, *, wait: bool = True, timeout: Duration | Unset | None = UNSET) -> None:
        """Create the first `min_size` resources now rather than at the first use.

        Args:
            wait: whether to wait until they are there.
            timeout: how long to wait at most; the pool's `acquire_timeout` by default.

        Raises:
            PoolTimeout: they were not there in time; the cause is the factory's last error.
            PoolClosed: the pool is closed.
            Exception: the factory's own, as long as it has never succeeded.
        """
        patience = self._seconds(timeout)
        self._open()
        if wait and not self._wait_until(self._is_filled, patience):
            raise self._timed_out(patience, get_ident())

    def close(self, *, timeout: Duration | None = CLOSE_TIMEOUT) -> bool:
        """End the pool: callers who wait get `PoolClosed`, and every resource is disposed of, when it is returned at the latest.

        Args:
            timeout: how long to wait for that at most; None for ever, 0 not at all.

        Returns:
            Whether everything was returned and disposed of in time; if not, the log says who holds what.
        """
        patience = seconds("timeout", timeout, allow_zero=True)
        self._close()
        return self._wait_until(self._core.is_empty, patience) or self._tell_left_open()

    def __enter__(self) -> Self:
        self.open(wait=False)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    @observed_wait
    def _wait(self, grip: Grip[R], frame: FrameType) -> Resource:
        barrier = threading.Lock()
        barrier.acquire()
        waiter: Waiter[Resource] = Waiter(partial(_release, barrier))
        start = self._clock()
        try:
            try:
                patience = self._patience(grip)
                self._join(waiter)
                if patience > 0:
                    clocks.block(self._clock, patience, barrier)
                return self._accept(waiter, grip, get_ident(), frame, start)
            finally:
                self._leave(waiter)
        except BaseException:
            self._leave(waiter)  # once more: an interruption may have come before the first, and who has left has left
            raise

    def _wait_until(self, condition: Callable[[], bool], timeout: float) -> bool:
        """Block until a change of the state makes `condition` true; return whether it did in time."""
        end = self._clock() + timeout
        barrier = threading.Lock()
        barrier.acquire()
        wake = partial(_release, barrier)
        self._watchers.append(wake)
        try:
            while not condition() and self._clock() < end:
                clocks.block(self._clock, end - self._clock(), barrier)
            return condition()
        finally:
            self._watchers.remove(wake)

    @observed_create
    def _make(self, slot: Resource) -> Any:
        return slot.made_in_span(self._factory())

    def _start(self, job: Job) -> None:
        def run() -> None:
            Context().run(_drive, self._steps(job))

        lifecycle.get_ready()
        try:
            self._workers.submit(run)
        except NoThread:  # the interpreter is shutting down, or the system has no thread left
            run()

    def _after(self, delay: float, act: Callable[[Self], object]) -> None:
        clocks.after(self._clock, delay, partial(act_on, weakref.ref(self), act))

    def _new_workers(self) -> Workers:
        # Each resource has at most one job. What hangs while it is disposed of has left the pool, and must be in nobody's way.
        return Workers(f"otel-perfopt-{self.name}", maxsize)

    def _reset_after_fork(self) -> None:
        super()._reset_after_fork()
        self._workers = self._new_workers()


def _drive(steps: Steps) -> None:
    """Do a job: call what it asks for."""
    reply: Callable[[], Callable[[], Any]] = partial(next, steps)
    try:
        while True:
            call = reply()
            try:
                reply = partial(steps.send, _finished(call()))
            except BaseException as error:  # noqa: BLE001 - the job knows what to do about it
                reply = partial(steps.throw, error)
    except StopIteration:
        pass


def _finished(result: Any) -> Any:
    if inspect.isawaitable(result):
        raise TypeError(f"{result!r} must be awaited; use AsyncResourcePool")
    return result


def _release(barrier: threading.Lock) -> None:
    try:
        barrier.release()
    except RuntimeError:
        pass  # somebody else has done it


def _close_at_exit(timeout: float) -> None:
    """Close every pool for threads; the resources of the others can only be ended on loops that do not run any more."""
    closing = [pool for pool in list(live) if isinstance(pool, ResourcePool) and not pool.is_closed]
    end = time.monotonic() + timeout
    for pool in closing:
        pool._close()
    for pool in closing:
        pool.close(timeout=max(0.0, end - time.monotonic()))


lifecycle.before_exit(_close_at_exit)
