"""All pools that can stand in a storm; those of other libraries by the operations that they have."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from benchmarks.dummies import Dummy, asyncpg_connection, psycopg_connection, sqlalchemy_connection
from benchmarks.storm.ours import Ours, OursAsync
from benchmarks.storm.outcome import SIZE, Trouble
from benchmarks.storm.tasks import AsyncPool, TaskStorm
from benchmarks.storm.threads import Pool, ThreadStorm

__all__ = ("ASYNC_POOLS", "POOLS")

TIMEOUT = 0.02  # of pools that have one timeout for all callers


# psycopg_pool ---------------------------------------------------------------------------------------


class Psycopg(Pool):
    lacks = frozenset(["forget", "fork"])  # "a depleted pool is a sad pool"; "the pool must be created after the fork"

    def __init__(self, storm: ThreadStorm, *, hooks: bool = False) -> None:
        import psycopg_pool

        kind = psycopg_connection(is_async=False)

        class Connection(kind):  # type: ignore[valid-type, misc]
            @classmethod
            def connect(cls, _: str, **__: object) -> Dummy:
                return storm.make(cls)

        def check(connection: Dummy) -> None:
            assert storm.check(connection)

        self.refusals = (Trouble, psycopg_pool.PoolTimeout, psycopg_pool.PoolClosed)
        self.pool = psycopg_pool.ConnectionPool(
            connection_class=Connection,
            min_size=1,
            max_size=SIZE,
            check=check if hooks else None,
            reset=storm.reset if hooks else None,
            open=True,
        )

    def lease(self, timeout: float) -> Any:
        return self.pool.connection(timeout)

    def acquire(self, timeout: float) -> Any:
        return self.pool.getconn(timeout)

    def release(self, held: Any) -> None:
        self.pool.putconn(held)

    def drain(self) -> None:
        self.pool.drain()

    def close(self) -> None:
        self.pool.close()

    def destroy(self, held: Any) -> None:
        held.close()
        self.pool.putconn(held)

    def resize(self, size: int) -> None:
        self.pool.resize(1, min(size, SIZE))  # it shrinks when it is idle only: a larger pool would outlast the storm


class PsycopgAsync(AsyncPool):
    lacks = frozenset(["forget", "fork"])

    def __init__(self, storm: TaskStorm, *, hooks: bool = False) -> None:
        import psycopg_pool

        kind = psycopg_connection(is_async=True)

        class Connection(kind):  # type: ignore[valid-type, misc]
            @classmethod
            async def connect(cls, _: str, **__: object) -> Dummy:
                return await storm.make(cls)

        async def check(connection: Dummy) -> None:
            assert await storm.check(connection)

        self.refusals = (Trouble, psycopg_pool.PoolTimeout, psycopg_pool.PoolClosed)
        self.pool = psycopg_pool.AsyncConnectionPool(
            connection_class=Connection,
            min_size=1,
            max_size=SIZE,
            check=check if hooks else None,
            reset=storm.reset if hooks else None,
            open=False,
        )

    async def open(self) -> None:
        await self.pool.open()

    def lease(self, timeout: float) -> Any:
        return self.pool.connection(timeout)

    async def acquire(self, timeout: float) -> Any:
        return await self.pool.getconn(timeout)

    async def release(self, held: Any) -> None:
        await self.pool.putconn(held)

    async def drain(self) -> None:
        await self.pool.drain()

    async def close(self) -> None:
        await self.pool.close()

    async def destroy(self, held: Any) -> None:
        await held.close()
        await self.pool.putconn(held)

    async def resize(self, size: int) -> None:
        await self.pool.resize(1, min(size, SIZE))


# SQLAlchemy -----------------------------------------------------------------------------------------


class SqlAlchemy(Pool):
    lacks = frozenset(["resize", "drain", "close", "fork"])  # "dispose of the engine in the child"

    def __init__(self, storm: ThreadStorm, *, hooks: bool = False) -> None:  # noqa: ARG002 - it has none of its own
        from sqlalchemy import exc, pool

        self.refusals = (Trouble, exc.TimeoutError)
        self.pool = pool.QueuePool(lambda: storm.make(sqlalchemy_connection), pool_size=SIZE, max_overflow=0, timeout=TIMEOUT)

    def close(self) -> None:
        self.pool.dispose()

    @contextmanager
    def lease(self, timeout: float) -> Iterator[Dummy]:
        held = self.acquire(timeout)
        try:
            yield self.dummy(held)
        finally:
            held.close()

    def acquire(self, _: float) -> Any:
        return self.pool.connect()

    def dummy(self, held: Any) -> Any:
        return held.dbapi_connection

    def release(self, held: Any) -> None:
        held.close()

    def destroy(self, held: Any) -> None:
        held.invalidate()
        held.close()


class SqlAlchemyAsync(AsyncPool):
    lacks = frozenset(["resize", "drain", "forget", "close", "fork"])  # it warns that a connection was not closed

    def __init__(self, storm: TaskStorm, *, hooks: bool = False) -> None:  # noqa: ARG002
        from sqlalchemy import exc, pool, util

        self.refusals = (Trouble, exc.TimeoutError)
        self.spawn = util.greenlet_spawn
        self.pool = pool.AsyncAdaptedQueuePool(
            lambda: util.await_only(storm.make(sqlalchemy_connection)), pool_size=SIZE, max_overflow=0, timeout=TIMEOUT
        )

    @asynccontextmanager
    async def lease(self, timeout: float) -> AsyncIterator[Dummy]:
        held = await self.acquire(timeout)
        try:
            yield self.dummy(held)
        finally:
            await self.release(held)

    async def acquire(self, _: float) -> Any:
        return await self.spawn(self.pool.connect)

    def dummy(self, held: Any) -> Any:
        return held.dbapi_connection

    async def release(self, held: Any) -> None:
        await asyncio.shield(asyncio.create_task(self.spawn(held.close)))  # as AsyncConnection does

    async def destroy(self, held: Any) -> None:
        held.invalidate()
        await self.release(held)

    async def close(self) -> None:
        await self.spawn(self.pool.dispose)


# asyncpg --------------------------------------------------------------------------------------------


class Asyncpg(AsyncPool):
    lacks = frozenset(["resize", "forget", "fork"])

    def __init__(self, storm: TaskStorm, *, hooks: bool = False) -> None:
        import asyncpg

        async def connect(*_: object, **__: object) -> Dummy:
            return await storm.make(asyncpg_connection)

        async def setup(held: Any) -> None:
            assert await storm.check(held._con)

        self.refusals = (Trouble, TimeoutError, AssertionError, asyncpg.InterfaceError)  # a setup that fails is the caller's
        self.pool = asyncpg.create_pool(
            connect=connect, setup=setup if hooks else None, min_size=1, max_size=SIZE, connection_class=asyncpg.Connection
        )

    async def open(self) -> None:
        await self.pool

    async def release(self, held: Any) -> None:
        await self.pool.release(held)

    async def drain(self) -> None:
        await self.pool.expire_connections()

    async def close(self) -> None:
        await self.pool.close()

    @asynccontextmanager
    async def lease(self, timeout: float) -> AsyncIterator[Dummy]:
        async with self.pool.acquire(timeout=timeout) as held:
            yield self.dummy(held)

    async def acquire(self, timeout: float) -> Any:
        return await self.pool.acquire(timeout=timeout)

    def dummy(self, held: Any) -> Any:
        return held._con

    async def destroy(self, held: Any) -> None:
        held.terminate()
        await self.pool.release(held)


POOLS: dict[str, Callable[..., Pool]] = {"otel-perfopt": Ours, "psycopg-pool": Psycopg, "SQLAlchemy": SqlAlchemy}
ASYNC_POOLS: dict[str, Callable[..., AsyncPool]] = {
    "otel-perfopt": OursAsync,
    "psycopg-pool": PsycopgAsync,
    "SQLAlchemy": SqlAlchemyAsync,
    "asyncpg": Asyncpg,
}
