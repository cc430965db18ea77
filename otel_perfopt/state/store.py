"""The store of states: a table in one SQLite file, in which a batch of changes is one transaction."""

import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from otel_perfopt import sqlite_files
from otel_perfopt.durations import Duration, to_seconds
from otel_perfopt.errors import ConfigurationError, PerfOptError
from otel_perfopt.telemetry.logs import get_logger

__all__ = ("UNWRITABLE", "State", "StateStore", "dumps")

T = TypeVar("T")

State = Mapping[str, Any]
"""What is known of a task, as JSON would hold it."""

PATH = ".worktrees/.state/state.db"
UNWRITABLE = (TypeError, ValueError, RecursionError, sqlite3.DataError)
"""What is raised for a value that JSON or SQLite cannot hold."""

_FORMAT = sqlite_files.Format("state store", application_id=0x6F747066, version=1)  # "otpf"
_SCHEMA = f"""
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS task_state (task_id TEXT PRIMARY KEY, state TEXT NOT NULL, updated_at REAL NOT NULL);
PRAGMA application_id = {_FORMAT.application_id};
PRAGMA user_version = {_FORMAT.version};
COMMIT;
"""


class StateStore:
    """A table of tasks and their states in one SQLite file, for any number of threads and processes.

    The file is opened for each call and closed after it: nothing has to be closed, and a forked child has nothing of its
    parent's. (Only a child that is forked while another thread is just writing is told by SQLite that the file is locked.)
    A damaged file is set aside with a warning; one that belongs to something else is left alone.

    Args:
        path: the file; made at the first write, for its owner only, with the folders above it.
        timeout: how long to wait for other writers, in seconds, as a `timedelta`, or as a string such as ``"5s"``.
        clock: returns the time of day in seconds; for tests.

    Raises:
        ConfigurationError: the timeout is no duration.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     store = StateStore(f"{folder}/state.db")
    ...     written = store.write({"compile": {"status": "started"}})
    ...     written = store.write({"compile": {"files": 12}})
    ...     print(store.get("compile"))
    {'status': 'started', 'files': 12}
    """

    def __init__(
        self, path: str | os.PathLike[str] = PATH, *, timeout: Duration = 5.0, clock: Callable[[], float] = time.time
    ) -> None:
        self.path = Path(path).absolute()
        self._is_default = path == PATH
        self._clock = clock
        try:
            self._timeout = to_seconds(timeout, option="timeout", allow_zero=True)
        except (TypeError, ValueError) as error:
            raise ConfigurationError(str(error)) from None

    def __repr__(self) -> str:
        return f"<StateStore {str(self.path)!r}>"

    def get(self, task_id: str) -> State | None:
        """Return the state of a task; None if there is none.

        Raises:
            PerfOptError: the file cannot be read.
            ValueError: the row of this task is damaged.
            ConfigurationError: the file belongs to something else, or to a newer version of this library.
        """
        try:
            os.stat(self.path)
        except FileNotFoundError:
            return None
        except OSError:
            pass  # to be told by whoever opens it
        return self._carefully(lambda connection: _read(connection, task_id))

    def write(self, changes: Mapping[str, Mapping[str, Any]]) -> dict[str, State | Exception]:
        """Change the states of tasks, all in one transaction.

        Args:
            changes: for each task, the keys that change.

        Returns:
            For each task its whole state, or why just this one could not be written.

        Raises:
            PerfOptError: nothing could be written.
            ConfigurationError: the file belongs to something else, or to a newer version of this library.
        """

        def write_all(connection: sqlite3.Connection) -> dict[str, State | Exception]:
            connection.execute("BEGIN IMMEDIATE")
            return {task_id: self._write_one(connection, task_id, new) for task_id, new in changes.items()}

        return self._carefully(write_all)

    def _write_one(self, connection: sqlite3.Connection, task_id: str, changes: Mapping[str, Any]) -> State | Exception:
        try:
            state = {**(_read(connection, task_id) or {}), **changes}
            connection.execute(
                "INSERT INTO task_state VALUES (?, ?, ?) "
                "ON CONFLICT (task_id) DO UPDATE SET state = excluded.state, updated_at = excluded.updated_at",
                (task_id, dumps(state), self._clock()),
            )
        except UNWRITABLE as error:
            return ValueError(f"the state of task {task_id!r} could not be written: {error}")
        return state

    def _carefully(self, step: Callable[[sqlite3.Connection], T], *, is_retry: bool = False) -> T:
        """Do a step with a connection; once more, in a new file, if this one turns out to be damaged."""
        inode = None
        try:
            with self._connected() as connection:
                inode = os.stat(self.path).st_ino
                self._prepare(connection)
                return step(connection)
        except (OSError, sqlite3.Error) as error:
            if is_retry or not sqlite_files.is_damage(error):
                raise PerfOptError(
                    f"the state store {str(self.path)!r} cannot be used: {error}",
                    code="STATE_STORE",
                    context={"path": str(self.path)},
                ) from error
        aside = sqlite_files.set_aside(self.path, inode)
        if aside is not None:
            get_logger().warning("a damaged state store was set aside", path=str(aside))
        return self._carefully(step, is_retry=True)

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        connection = sqlite_files.connect(
            self.path, timeout=self._timeout, gitignore=self._is_default, factory=sqlite3.Connection
        )
        with closing(connection), connection:
            yield connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        """Make a new file ours, and refuse one that belongs to somebody else."""
        is_new = _FORMAT.check(connection, self.path)
        with suppress(sqlite3.OperationalError):  # another connection is about to do the same, or reads
            connection.execute("PRAGMA journal_mode = WAL")
        if is_new:
            connection.executescript(_SCHEMA)


def _read(connection: sqlite3.Connection, task_id: str) -> dict[str, Any] | None:
    row = connection.execute("SELECT state FROM task_state WHERE task_id = ?", (task_id,)).fetchone()
    if row is None:
        return None
    try:
        return dict(json.loads(row[0]))
    except (TypeError, ValueError) as error:
        raise ValueError(f"its row is damaged: {row[0]!r:.40}") from error


def dumps(value: Mapping[str, Any]) -> str:
    """Return `value` as JSON; raises one of `UNWRITABLE` for what JSON cannot hold."""
    if not isinstance(value, Mapping):
        raise TypeError(f"a state is a mapping, not {value!r}")
    # Not msgspec, which would write a NaN as null and a set as a list.
    return json.dumps(dict(value), allow_nan=False)
