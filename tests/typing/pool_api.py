"""What type checkers know of pools. Checked by mypy --strict and pyright (strict), never run."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from sqlite3 import Connection, connect
from typing import Any, assert_type

from otel_perfopt.pool import AsyncLease, AsyncResourcePool, Lease, PoolStats, ResourcePool, get_pool, pooled


class Session:
    async def aclose(self) -> None:
        pass


def open_database() -> Connection:
    return connect(":memory:")


async def open_session() -> Session:
    return Session()


async def is_alive(_session: Session) -> bool:
    return True


databases = ResourcePool("databases", open_database)
sessions = AsyncResourcePool("sessions", open_session)
plain_sessions = AsyncResourcePool("plain sessions", Session)

with_options = ResourcePool(
    "with options",
    open_database,
    min_size=0,
    max_size=4,
    acquire_timeout="5s",
    idle_timeout=None,
    max_lifetime=timedelta(hours=1),
    validate=lambda connection: connection.total_changes,
    reset=Connection.rollback,
    dispose=Connection.close,
    max_waiting=10,
    idle_order="fifo",
    leak_after=None,
    semconv="db",
)
sessions_with_options = AsyncResourcePool("sessions with options", open_session, validate=is_alive, dispose=Session.aclose)


@pooled(databases)
def count(connection: Connection, table: str, *, fast: bool = False) -> int:
    return connection.total_changes + len(table) + fast


@pooled(sessions)
async def fetch(_session: Session, url: str) -> bytes:
    return url.encode()


@pooled("databases")
def by_name(connection: Any, table: str) -> int:
    return connection is not None and len(table)


class Store:
    @pooled(databases)
    def get(self, connection: Connection, key: int) -> str:
        return f"{connection}{key}"

    @pooled(sessions)
    async def fetch(self, _session: Session, url: str) -> bytes:
        return url.encode()


def threads() -> None:
    assert_type(databases, ResourcePool[Connection])
    assert_type(databases.lease(timeout="5s"), Lease[Connection])
    with databases.lease() as connection:
        assert_type(connection, Connection)
    with databases as same:
        assert_type(same, ResourcePool[Connection])
    resource = databases.acquire(timeout=None)
    assert_type(resource, Connection)
    databases.release(resource)
    databases.destroy(resource)
    assert_type(databases.close(timeout=5), bool)
    assert_type(databases.stats(), PoolStats)
    assert_type(databases.stats().utilization, float)
    databases.open(wait=False, timeout="1m")
    databases.release("x")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    ResourcePool("x", open_database, idle_order="random")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    ResourcePool("x", open_database, 1)  # type: ignore[call-arg, arg-type, unused-ignore]  # pyright: ignore[reportCallIssue]


async def tasks() -> None:
    # What the factory returns, or what that gives when it is awaited.
    assert_type(sessions, AsyncResourcePool[Session])
    assert_type(plain_sessions, AsyncResourcePool[Session])
    assert_type(sessions.lease(), AsyncLease[Session])
    async with sessions.lease(timeout=1) as session:
        assert_type(session, Session)
    async with sessions as same:
        assert_type(same, AsyncResourcePool[Session])
    resource = await sessions.acquire()
    assert_type(resource, Session)
    sessions.release(resource)
    assert_type(await sessions.close(), bool)
    await sessions.open()
    sessions.release("x")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def by_names() -> None:
    assert_type(get_pool("databases"), ResourcePool[Any])
    assert_type(get_pool("sessions", AsyncResourcePool), AsyncResourcePool[Any])


async def functions(store: Store) -> None:
    # Callers leave the resource out.
    assert_type(count("books"), int)
    assert_type(count(table="books", fast=True), int)
    assert_type(await fetch("https://example.org"), bytes)
    as_callable: Callable[[str], Awaitable[bytes]] = fetch
    assert_type(await as_callable(""), bytes)
    count(open_database(), "books")  # type: ignore[call-arg, arg-type]  # pyright: ignore[reportCallIssue]
    count(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    # By its name nobody knows what the pool has, and so whether the first argument or the second one is left out.
    by_name("books")  # type: ignore[no-untyped-call]
    # Methods have it after `self`.
    assert_type(store.get(1), str)
    assert_type(Store.get(store, 1), str)
    assert_type(await store.fetch(""), bytes)
    store.get("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
