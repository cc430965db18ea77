"""This library's pools in a storm."""

from typing import Any

from benchmarks.dummies import Dummy
from benchmarks.storm.outcome import SIZE, Trouble
from benchmarks.storm.tasks import AsyncPool, TaskStorm
from benchmarks.storm.threads import Pool, ThreadStorm
from otel_perfopt import AsyncResourcePool, PoolClosed, PoolFull, PoolTimeout, ResourcePool

__all__ = ("Ours", "OursAsync")


def options(storm: ThreadStorm | TaskStorm, *, hooks: bool) -> dict[str, Any]:
    """Return the options that both kinds of pools have."""
    options: dict[str, Any] = {
        "max_size": SIZE,
        "max_waiting": 26,
        "idle_timeout": 2.0,
        "max_lifetime": 5.0,
        "dispose": Dummy.end,
    }
    if hooks:
        options |= {"validate": storm.check, "reset": storm.reset}
    if storm.clock is not None:
        options["clock"] = storm.clock
    return options


class Ours(Pool):
    lacks: frozenset[str] = frozenset()

    def __init__(self, storm: ThreadStorm, *, hooks: bool = False) -> None:
        self.refusals = (Trouble, PoolTimeout, PoolFull, PoolClosed)
        if storm.clock is not None:
            self.lacks = frozenset(["fork"])  # nobody drives the clock in the child
        self.pool: ResourcePool[Dummy] = ResourcePool("storm", lambda: storm.make(Dummy), **options(storm, hooks=hooks))

    def lease(self, timeout: float) -> Any:
        return self.pool.lease(timeout=timeout)

    def acquire(self, timeout: float) -> Dummy:
        return self.pool.acquire(timeout=timeout)

    def release(self, held: Dummy) -> None:
        self.pool.release(held)

    def destroy(self, held: Dummy) -> None:
        self.pool.destroy(held)

    def resize(self, size: int) -> None:
        self.pool.resize(size)

    def drain(self) -> None:
        self.pool.drain()

    def close(self) -> None:
        assert self.pool.close(timeout=None)


class OursAsync(AsyncPool):
    lacks = frozenset(["fork"])

    def __init__(self, storm: TaskStorm, *, hooks: bool = False) -> None:
        self.refusals = (Trouble, PoolTimeout, PoolFull, PoolClosed)
        factory = lambda: storm.make(Dummy)  # noqa: E731
        self.pool: AsyncResourcePool[Dummy] = AsyncResourcePool("storm", factory, **options(storm, hooks=hooks))

    async def open(self) -> None:
        await self.pool.open(wait=False)

    def lease(self, timeout: float) -> Any:
        return self.pool.lease(timeout=timeout)

    async def acquire(self, timeout: float) -> Dummy:
        return await self.pool.acquire(timeout=timeout)

    async def release(self, held: Dummy) -> None:
        self.pool.release(held)

    async def destroy(self, held: Dummy) -> None:
        self.pool.destroy(held)

    async def resize(self, size: int) -> None:
        self.pool.resize(size)

    async def drain(self) -> None:
        self.pool.drain()

    async def close(self) -> None:
        assert await self.pool.close(timeout=None)
