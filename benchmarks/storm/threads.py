"""A storm of threads."""

import gc
import os
import signal
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from typing import Any, TypeVar

from benchmarks.dummies import Dummy
from benchmarks.storm.outcome import SIZE, TIMEOUTS, Outcome, Storm, Trouble

__all__ = ("Pool", "ThreadStorm")

D = TypeVar("D", bound=Dummy)

CHILD_HAS_PARENTS = 3
CHILD_HAS_NOTHING = 4


class Pool(ABC):
    """A pool for threads, by the operations of a storm.

    Attributes:
        lacks: the ways of callers about which the pool promises nothing.
        refusals: what callers may get instead of a resource, beside the troubles of a storm.
    """

    lacks: frozenset[str]
    refusals: tuple[type[BaseException], ...]

    @abstractmethod
    def lease(self, timeout: float) -> AbstractContextManager[Dummy]: ...
    @abstractmethod
    def acquire(self, timeout: float) -> Any: ...
    @abstractmethod
    def release(self, held: Any) -> None: ...
    @abstractmethod
    def destroy(self, held: Any) -> None: ...
    @abstractmethod
    def close(self) -> None: ...

    def dummy(self, held: Any) -> Any:
        """Return the resource behind what `acquire` has returned."""
        return held

    def resize(self, size: int) -> None:
        raise NotImplementedError

    def drain(self) -> None:
        raise NotImplementedError


class ThreadStorm(Storm):
    """Threads that use a pool all at once."""

    def make(self, kind: Callable[[], D]) -> D:
        """Make a resource, sometimes slowly."""
        time.sleep(self.dice.choice((0, 0, 0, 0.0005)))
        return self.admit(kind())

    def check(self, dummy: Dummy) -> bool:
        """Validate a resource."""
        if self.fails(0.02):
            raise Trouble("validator")
        return not dummy.is_ended and not self.fails(0.02)

    def reset(self, _: Dummy) -> None:
        """Reset a resource."""
        time.sleep(0)
        if self.fails(0.03):
            raise Trouble("reset")

    def run(self, make_pool: "Callable[[ThreadStorm], Pool]", *, callers: int = 16) -> Outcome:
        """Let the storm rage over a pool, and return what is left."""
        pool, stopped, interval = make_pool(self), threading.Event(), sys.getswitchinterval()
        ticker = threading.Thread(target=self._tick, args=(stopped,), daemon=True)
        ticker.start()
        sys.setswitchinterval(1e-5)  # threads take turns in the middle of everything
        try:
            self.outcome.hung = self._unfinished(*[lambda: self._call(pool)] * callers)
            self.is_calm = True
            self._unfinished(lambda: self._count(pool))
            self.planned += self.planned // 10 if "close" not in pool.lacks else 0
            left = self._unfinished(lambda: self._close(pool), *[lambda: self._call(pool)] * callers)
            return self.settle(is_closed=left == 0)
        finally:
            sys.setswitchinterval(interval)
            stopped.set()
            ticker.join()

    def _tick(self, stopped: threading.Event) -> None:
        while self.clock is not None and not stopped.wait(0.0002):
            self.clock.advance(0.001)

    def _call(self, pool: Pool) -> None:
        while (way := self.next_way(pool.lacks)) is not None:
            try:
                self._do(way, pool)
            except pool.refusals as error:
                way = type(error).__name__
            except BaseException as error:
                self.outcome.faults[f"{type(error).__name__}"] += 1
            self.outcome.met[way] += 1

    def _do(self, way: str, pool: Pool) -> None:
        timeout = self.dice.choice(TIMEOUTS)
        if way == "lease":
            with pool.lease(timeout) as dummy:
                self._use(dummy)
        elif way == "resize":
            pool.resize(self.dice.randint(1, SIZE + 2))
        elif way == "drain":
            pool.drain()
        elif way == "fork":
            self._fork(pool)
        elif way == "forget":
            self.dice.choice((pool.acquire, lambda timeout: pool.lease(timeout).__enter__()))(timeout)
        else:
            held = pool.acquire(timeout)
            try:
                self._use(pool.dummy(held))
            finally:
                (pool.destroy if way == "destroy" else pool.release)(held)

    def _use(self, dummy: Dummy) -> None:
        dummy.begin()
        try:
            if self.dice.random() < 0.3:
                time.sleep(0)
            if self.dice.random() < 0.03:
                raise Trouble("body")
        finally:
            dummy.finish()

    def _fork(self, pool: Pool) -> None:
        """Fork, and see whether the child has a pool of its own."""
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(int(self.patience) + 1)  # ends a child that hangs
            self.is_calm = True
            parents = [*self._made]
            with suppress(BaseException):
                pool.resize(SIZE)
                held = [pool.dummy(pool.acquire(self.patience)) for _ in range(SIZE)]
                os._exit(CHILD_HAS_PARENTS if any(each in parents for each in held) else 0)
            os._exit(CHILD_HAS_NOTHING)
        _, status = os.waitpid(child, 0)
        if status:
            faults = {CHILD_HAS_PARENTS: "the parent's in a child", CHILD_HAS_NOTHING: "nothing in a child"}
            self.outcome.faults[faults.get(os.waitstatus_to_exitcode(status), "a child that hangs")] += 1

    def _count(self, pool: Pool) -> None:
        """Find out how many resources can be had at once."""
        if "resize" not in pool.lacks:
            pool.resize(SIZE)
        held: list[Any] = []
        end = time.monotonic() + self.patience
        while len(held) <= SIZE and time.monotonic() < end:
            try:
                held.append(pool.acquire(0.05 if len(held) < SIZE else 1.0))
            except pool.refusals:
                if len(held) == SIZE:
                    break
        self.outcome.capacity = len(held)
        for each in held:
            pool.release(each)

    def _close(self, pool: Pool) -> None:
        """Close the pool in the middle of the last operations."""
        while self.outcome.operations < self.planned * 0.95:
            time.sleep(0.0005)
        pool.close()

    def _unfinished(self, *functions: Callable[[], object]) -> int:
        """Call each function in a thread; return how many are not done when nothing has happened for long."""
        running = [threading.Thread(target=function, daemon=True) for function in functions]
        for thread in running:
            thread.start()
        seen, since = self._progress(), time.monotonic()
        while any(thread.is_alive() for thread in running) and time.monotonic() - since < self.patience:
            next((thread for thread in running if thread.is_alive()), running[0]).join(0.05)
            if self._progress() == seen:
                gc.collect()  # what was forgotten may be part of a cycle, and in a large process collections are rare
            else:
                seen, since = self._progress(), time.monotonic()
        return sum(thread.is_alive() for thread in running)

    def _progress(self) -> tuple[int, int]:
        return self.outcome.operations, sum(list(self.outcome.met.values()))
