"""The queue: a table in SQLite. A job is taken by one thread, and done when its result is written with it."""

import json
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from opentelemetry import context, propagate

from otel_perfopt import ResourcePool

MAX_ATTEMPTS = 3
SCHEMA = """
    CREATE TABLE IF NOT EXISTS jobs (
        number INTEGER PRIMARY KEY, amounts TEXT, trace TEXT, attempts INTEGER DEFAULT 0, state TEXT DEFAULT 'waiting', total REAL
    );
    CREATE INDEX IF NOT EXISTS jobs_by_state ON jobs (state, number);
"""
TAKE = """
    UPDATE jobs SET state = 'taken', attempts = attempts + 1
    WHERE number = (SELECT number FROM jobs WHERE state = 'waiting' ORDER BY number LIMIT 1)
    RETURNING number, amounts, trace, attempts
"""


@dataclass(frozen=True)
class Job:
    """A bill to add up.

    Attributes:
        number: tells it from others.
        amounts: what it consists of, by currency.
        trace: leads to the trace of whoever asked for it.
        attempts: how often it was tried, this time included.
    """

    number: int
    amounts: dict[str, float]
    trace: dict[str, str]
    attempts: int = 1

    @property
    def context(self) -> context.Context:
        """The context in which the job was asked for."""
        return propagate.extract(self.trace)


@dataclass(frozen=True)
class Result:
    """What came of a job: a total, or None if it failed."""

    job: Job
    total: float | None

    @property
    def state(self) -> str:
        """What the job is now: done, or to be tried again, or given up."""
        return "done" if self.total is not None else "waiting" if self.job.attempts < MAX_ATTEMPTS else "failed"


def connect(path: Path) -> sqlite3.Connection:
    """Open the database. A pooled connection goes from thread to thread, but has one user at a time."""
    connection = sqlite3.connect(path, timeout=10.0, check_same_thread=False)
    with closing(connection.cursor()) as cursor:
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.executescript(SCHEMA)
    return connection


class Jobs:
    """All jobs, whatever their state.

    Args:
        path: the SQLite file.
        connections: the most connections.
    """

    def __init__(self, path: Path, *, connections: int = 8) -> None:
        self.connections = ResourcePool("jobs", partial(connect, path), max_size=connections)

    def close(self) -> None:
        """Close all connections."""
        self.connections.close()

    def add(self, bills: Iterable[dict[str, float]]) -> None:
        """Ask for bills to be added up, in the trace of the caller."""
        trace: dict[str, str] = {}
        propagate.inject(trace)
        rows = [(json.dumps(amounts), json.dumps(trace)) for amounts in bills]
        with self.connections.lease() as connection, connection, closing(connection.cursor()) as cursor:
            cursor.executemany("INSERT INTO jobs (amounts, trace) VALUES (?, ?)", rows)

    def take(self) -> Job | None:
        """Take the job that has waited longest; None if none waits."""
        with self.connections.lease() as connection, connection, closing(connection.cursor()) as cursor:
            row = cursor.execute(TAKE).fetchone()
            return Job(row[0], json.loads(row[1]), json.loads(row[2]), row[3]) if row else None

    def finish(self, results: list[Result]) -> list[str]:
        """Write many results in one transaction, and return what became of the jobs."""
        rows = [(result.state, result.total, result.job.number) for result in results]
        with self.connections.lease() as connection, connection, closing(connection.cursor()) as cursor:
            cursor.executemany("UPDATE jobs SET state = ?, total = ? WHERE number = ? AND state = 'taken'", rows)
        return [result.state for result in results]

    def recover(self) -> int:
        """Let jobs wait again that were taken by a process that is gone, and return how many; before work begins."""
        with self.connections.lease() as connection, connection, closing(connection.cursor()) as cursor:
            return cursor.execute("UPDATE jobs SET state = 'waiting', attempts = attempts - 1 WHERE state = 'taken'").rowcount

    def count(self) -> dict[str, int]:
        """Return how many jobs there are in each state."""
        with self.connections.lease() as connection, closing(connection.cursor()) as cursor:
            return dict(cursor.execute("SELECT state, count(*) FROM jobs GROUP BY state ORDER BY state").fetchall())
