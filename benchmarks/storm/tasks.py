"""A storm of tasks."""

import asyncio
import gc
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from benchmarks.dummies import Dummy
from benchmarks.storm.outcome import SIZE, TIMEOUTS, Outcome, Storm, Trouble

__all__ = ("AsyncPool", "TaskStorm")

D = TypeVar("D", bound=Dummy)


class AsyncPool(ABC):
    """A pool for tasks, by the operations of a storm; see `Pool`."""

    lacks: frozenset[str]
    refusals: tuple[type[BaseException], ...]

    @abstractmethod
    def lease(self, timeout: float) -> Any: ...
    @abstractmethod
    async def acquire(self, timeout: float) -> Any: ...
    @abstractmethod
    async def release(self, held: Any) -> None: ...
    @abstractmethod
    async def destroy(self, held: Any) -> None: ...
    @abstractmethod
    async def close(self) -> None: ...

    async def open(self) -> None:  # noqa: B027 - most have nothing to do
        """Begin."""

    def dummy(self, held: Any) -> Any:
        """Return the resource behind what `acquire` has returned."""
        return held

    async def resize(self, size: int) -> None:
        raise NotImplementedError

    async def drain(self) -> None:
        raise NotImplementedError


class TaskStorm(Storm):
    """Tasks that use a pool all at once, and are cancelled at any point; also while they return what they have."""

    async def make(self, kind: Callable[[], D]) -> D:
        """Make a resource, sometimes slowly."""
        await self._pass(4)
        return self.admit(kind())

    async def check(self, dummy: Dummy) -> bool:
        """Validate a resource."""
        await self._pass(2)
        if self.fails(0.02):
            raise Trouble("validator")
        return not dummy.is_ended and not self.fails(0.02)

    async def reset(self, _: Dummy) -> None:
        """Reset a resource."""
        await self._pass(2)
        if self.fails(0.03):
            raise Trouble("reset")

    def run(self, make_pool: "Callable[[TaskStorm], AsyncPool]", *, callers: int = 32) -> Outcome:
        """Let the storm rage over a pool, and return what is left."""
        return asyncio.run(self._run(make_pool, callers))

    async def _run(self, make_pool: "Callable[[TaskStorm], AsyncPool]", callers: int) -> Outcome:
        pool = make_pool(self)
        ticker = asyncio.create_task(self._tick())
        await pool.open()
        self.outcome.hung = await self._unfinished(*[self._call(pool) for _ in range(callers)])
        self.is_calm = True
        await self._unfinished(self._count(pool))
        self.planned += self.planned // 10 if "close" not in pool.lacks else 0
        left = await self._unfinished(self._close(pool), *[self._call(pool) for _ in range(callers)])
        await asyncio.sleep(0.1)  # some pools end what is left in tasks that close() does not wait for
        ticker.cancel()
        return self.settle(is_closed=left == 0)

    async def _tick(self) -> None:
        while self.clock is not None:
            self.clock.advance(0.0002)
            await asyncio.sleep(0)

    async def _pass(self, most: int) -> None:
        """Let others run, some times or not at all."""
        for _ in range(self.dice.randint(0, most)):
            await asyncio.sleep(0)

    async def _call(self, pool: AsyncPool) -> None:
        while (way := self.next_way(pool.lacks)) is not None:
            try:
                fate = self.dice.random()
                if fate < 0.6:
                    await self._do(way, pool, is_doomed=False)
                else:
                    await self._cancelled(self._do(way, pool, is_doomed=fate < 0.7), is_doomed=fate < 0.7)
            except pool.refusals as error:
                way = type(error).__name__
                await self._pass(20)  # or those who are refused at once make most of the storm
            except asyncio.CancelledError:
                way = "cancelled"
            except BaseException as error:
                self.outcome.faults[f"{type(error).__name__}: {error}"] += 1
            self.outcome.met[way] += 1

    async def _cancelled(self, call: Coroutine[Any, Any, None], *, is_doomed: bool) -> None:
        """Do something in a task that is cancelled at some point, perhaps twice, unless it does that itself."""
        task = asyncio.create_task(call)
        for _ in range(0 if is_doomed else self.dice.choice((1, 1, 2))):
            await self._pass(7)
            task.cancel()
        await asyncio.wait([task])
        await task

    async def _do(self, way: str, pool: AsyncPool, *, is_doomed: bool) -> None:
        timeout = self.dice.choice(TIMEOUTS)
        if way == "lease":
            async with pool.lease(timeout) as dummy:
                await self._use(dummy, is_doomed=is_doomed)
        elif way == "resize":
            await pool.resize(self.dice.randint(1, SIZE + 2))
        elif way == "drain":
            await pool.drain()
        elif way == "forget":
            await self.dice.choice((pool.acquire, lambda timeout: pool.lease(timeout).__aenter__()))(timeout)
        else:
            held = await pool.acquire(timeout)
            try:
                await self._use(pool.dummy(held), is_doomed=is_doomed)
            finally:
                await (pool.destroy if way == "destroy" else pool.release)(held)

    async def _use(self, dummy: Dummy, *, is_doomed: bool) -> None:
        dummy.begin()
        try:
            await self._pass(3)
            if self.dice.random() < 0.03:
                raise Trouble("body")
        finally:
            dummy.finish()
            task = asyncio.current_task()
            if is_doomed and task is not None:
                task.cancel()  # which reaches it where it waits next: while it returns the resource, if that waits

    async def _count(self, pool: AsyncPool) -> None:
        """Find out how many resources can be had at once."""
        if "resize" not in pool.lacks:
            await pool.resize(SIZE)
        held: list[Any] = []
        end = time.monotonic() + self.patience
        while len(held) <= SIZE and time.monotonic() < end:
            try:
                held.append(await pool.acquire(0.05 if len(held) < SIZE else 1.0))
            except pool.refusals:
                if len(held) == SIZE:
                    break
        self.outcome.capacity = len(held)
        for each in held:
            await pool.release(each)

    async def _close(self, pool: AsyncPool) -> None:
        """Close the pool in the middle of the last operations."""
        while self.outcome.operations < self.planned * 0.95:
            await self._pass(2)
        await pool.close()

    async def _unfinished(self, *calls: Coroutine[Any, Any, None]) -> int:
        """Do all this; return how much of it is not done when nothing has happened for long."""
        running = {asyncio.create_task(call) for call in calls}
        seen, since = self._progress(), time.monotonic()
        while running and time.monotonic() - since < self.patience:
            _, running = await asyncio.wait(running, timeout=0.5)
            if self._progress() == seen:
                gc.collect()  # what was forgotten may be part of a cycle, and in a large process collections are rare
            else:
                seen, since = self._progress(), time.monotonic()
        return len(running)

    def _progress(self) -> tuple[int, int]:
        return self.outcome.operations, self.outcome.met.total()
