"""The connections to a SQLite file while it is open, and what can be done with one of them."""

import queue
import sqlite3
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from otel_perfopt.sqlite_files import DamagedFile, Format

__all__ = ("Connection", "OpenFile", "in_transaction", "refuse_older")

T = TypeVar("T")

READERS = 4  # connections that are kept, although nobody reads with them at the moment
PATIENCE = 1.0  # seconds that whoever closes a file waits for those who are reading


class Connection(sqlite3.Connection):
    """One that can be weakly referenced."""


class OpenFile:
    """The connections to one file."""

    def __init__(self, inode: int, writer: Connection) -> None:
        self.inode = inode
        self.writer = writer
        self.watcher: Connection | None = None
        self.idle: queue.SimpleQueue[sqlite3.Cursor] = queue.SimpleQueue()  # each on its own connection
        self.readers: weakref.WeakSet[sqlite3.Connection] = weakref.WeakSet()  # those in use included

    def give_back(self, reader: sqlite3.Cursor) -> None:
        """Keep a connection for the next one who reads, with no transaction."""
        if reader.connection.in_transaction:
            reader.connection.rollback()
        if self.idle.qsize() < READERS:
            self.idle.put(reader)
        else:
            self.discard(reader)

    def discard(self, reader: sqlite3.Cursor) -> None:
        """Close a connection."""
        reader.connection.close()
        self.readers.discard(reader.connection)

    def close(self) -> bool:
        """Close the connections; return whether all who were reading have ended within a while."""
        deadline = time.monotonic() + PATIENCE
        with suppress(queue.Empty):
            while self.readers:
                self.discard(self.idle.get(timeout=max(0.0, deadline - time.monotonic())))
        for connection in (self.watcher, self.writer):  # the writer last: it takes everything from beside the file into it
            if connection is not None:
                connection.close()
        return not self.readers


def refuse_older(connection: sqlite3.Connection, form: Format) -> None:
    """Take a file of an older version for a damaged one: what was in it can be loaded again.

    Raises:
        DamagedFile: it is one.
    """
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version < form.version:
        raise DamagedFile(f"an older version of this library has made it: its schema is {version}, known is {form.version}")


def in_transaction(writer: sqlite3.Connection, step: Callable[[sqlite3.Connection], T], patience: float) -> T:
    """Do a step in a transaction, and return its result.

    Args:
        writer: a connection.
        step: gets the connection.
        patience: how long to wait for other processes, in seconds.
    """
    if writer.in_transaction:  # Ctrl-C came even while the last one was rolled back
        writer.rollback()
    writer.execute(f"PRAGMA busy_timeout = {int(1000 * patience)}")
    try:
        writer.execute("BEGIN IMMEDIATE")
        result = step(writer)
        writer.execute("COMMIT")
    except BaseException:
        if writer.in_transaction:
            writer.rollback()
        raise
    return result
