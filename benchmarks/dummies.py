"""Connections to nothing, each with just what its pool asks of a connection: what is measured is the pool, and no network.

`Dummy` also keeps watch: whether two have it at a time, and whether somebody has it who should not.
"""

from collections import Counter
from typing import Any, Self

__all__ = ("Dummy", "asyncpg_connection", "psycopg_connection", "redis_connection", "sqlalchemy_connection")


class Dummy:
    """Something to be pooled.

    Attributes:
        faults: where to count what must not happen; shared by all of one pool.
        users: how many have it.
        is_ended: whether it was disposed of.
    """

    def __init__(self) -> None:
        self.faults: Counter[str] = Counter()
        self.users = 0
        self.is_ended = False

    def begin(self) -> None:
        """Note that somebody has got it."""
        self.users += 1
        self.faults["two users"] += self.users > 1
        self.faults["used after its end"] += self.is_ended

    def finish(self) -> None:
        """Note that somebody is about to give it back."""
        self.faults["ended while used"] += self.is_ended
        self.users -= 1

    def end(self) -> None:
        """Dispose of it."""
        self.is_ended = True


def psycopg_connection(*, is_async: bool) -> type[Dummy]:
    """Return a class for ``connection_class=``: psycopg_pool reads its transaction status, and enters it like a transaction."""
    from psycopg.pq import TransactionStatus

    class Connection(Dummy):
        transaction_status = TransactionStatus.IDLE

        def __init__(self) -> None:
            super().__init__()
            self.pgconn = self

        def end(self) -> None:
            super().end()
            self.transaction_status = TransactionStatus.UNKNOWN

    class SyncConnection(Connection):
        @classmethod
        def connect(cls, _: str, **__: object) -> "SyncConnection":
            return cls()

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def close(self) -> None:
            self.end()

    class AsyncConnection(Connection):
        @classmethod
        async def connect(cls, _: str, **__: object) -> "AsyncConnection":
            return cls()

        async def __aenter__(self) -> Self:
            return self

        async def __aexit__(self, *_: object) -> None:
            pass

        async def close(self) -> None:
            self.end()

    return AsyncConnection if is_async else SyncConnection


def sqlalchemy_connection() -> Dummy:
    """Return a DBAPI connection: SQLAlchemy rolls it back when it is returned."""

    class Connection(Dummy):
        def rollback(self) -> None:
            pass

        def close(self) -> None:
            self.end()

    return Connection()


def asyncpg_connection() -> Dummy:
    """Return a connection for ``connect=``: asyncpg insists on a subclass of its own class, whose protocol does nothing here."""
    import asyncio

    import asyncpg

    class Protocol:
        queries_count = 0
        is_in_transaction = _is_cancelling = staticmethod(lambda: False)

    class Connection(Dummy, asyncpg.Connection):  # type: ignore[misc]
        def __init__(self) -> None:
            Dummy.__init__(self)
            config = asyncpg.connect_utils._ClientConfiguration(*[0] * len(asyncpg.connect_utils._ClientConfiguration._fields))
            settings = type("Settings", (), {"server_version": "16.0"})
            protocol: Any = Protocol()
            protocol.get_server_pid, protocol.get_settings = (lambda: 0), lambda: settings
            asyncpg.Connection.__init__(self, protocol, None, asyncio.get_running_loop(), None, config, None)

        def is_closed(self) -> bool:
            return self.is_ended

        async def close(self, *, timeout: float | None = None) -> None:  # noqa: ARG002 - the name is asyncpg's
            self.terminate()

        def terminate(self) -> None:
            self.end()
            self._cleanup()

        async def reset(self, *, timeout: float | None = None) -> None:
            pass

    return Connection()


def redis_connection(*, is_async: bool) -> type[Dummy]:
    """Return a class for ``connection_class=``: redis-py connects it, and looks for data that nobody has read."""
    import os

    class Connection(Dummy):
        def __init__(self, **_: object) -> None:
            super().__init__()
            self.pid = os.getpid()

        def should_reconnect(self) -> bool:
            return False

    class SyncConnection(Connection):
        def connect(self) -> None:
            pass

        def can_read(self) -> bool:
            return False

        def disconnect(self) -> None:
            self.end()

    class AsyncConnection(Connection):
        async def connect(self) -> None:
            pass

        async def can_read_destructive(self) -> bool:
            return False

        can_read = can_read_destructive

        async def re_auth(self) -> None:
            pass

        async def disconnect(self) -> None:
            self.end()

    return AsyncConnection if is_async else SyncConnection
