"""Pools for threads and for tasks: leases, errors that say who holds what, replacement, and an orderly end."""

import asyncio
import sqlite3
from concurrent.futures import ThreadPoolExecutor

from otel_perfopt import AsyncResourcePool, PoolTimeout, ResourcePool, pooled


def connect() -> sqlite3.Connection:
    """Open a database; pooled connections go from thread to thread."""
    print("connecting")
    return sqlite3.connect(":memory:", check_same_thread=False)


books = ResourcePool("books", connect, min_size=0, max_size=2, reset=sqlite3.Connection.rollback)


@pooled(books)
def answer(connection: sqlite3.Connection, factor: int) -> int:
    """Ask a database; callers leave the connection out."""
    return int(connection.execute("select 6 * ?", [factor]).fetchone()[0])


def threads() -> None:
    with ThreadPoolExecutor(8) as executor:
        answers = list(executor.map(answer, range(20)))
    assert answers == [6 * factor for factor in range(20)]
    stats = books.stats()
    assert stats.acquires == 20
    assert 1 <= stats.total_created <= 2
    print(f"20 calls in 8 threads, {stats.total_created} connections or fewer than there are threads")

    with books.lease(), books.lease():
        try:
            books.acquire(timeout="10ms")
        except PoolTimeout as error:
            holders = [holder["holder"] for holder in error.context["holders"]]
    assert holders == ["thread 'MainThread'"] * 2
    print("all were in use, and the error said by whom:", *holders)
    assert books.close()


class Session:
    """Something that must be closed, and that can break."""

    def __init__(self) -> None:
        self.is_open = True

    async def aclose(self) -> None:
        """Close it."""
        self.is_open = False


async def tasks() -> None:
    async with AsyncResourcePool("sessions", Session, max_size=3, validate=lambda session: session.is_open) as sessions:

        async def call() -> Session:
            async with sessions.lease() as session:
                await asyncio.sleep(0.001)
                return session

        used = await asyncio.gather(*[call() for _ in range(30)])
        assert len(set(used)) <= 3
        impatient = asyncio.create_task(call())
        await asyncio.sleep(0)
        impatient.cancel()  # wherever it is: what it had is back in the pool

        for session in set(used):
            session.is_open = False  # the server has hung up
        async with sessions.lease() as fresh:
            assert fresh not in used
        print(f"30 tasks shared {len(set(used))} sessions; broken ones are replaced before somebody gets them")
    assert not fresh.is_open


def main() -> None:
    threads()
    asyncio.run(tasks())


if __name__ == "__main__":
    main()
