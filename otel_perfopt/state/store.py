"""The store of states: a table in one SQLite file, in which a batch of changes is one transaction."""

import itertools
import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from otel_perfopt.durations import Duration, to_seconds
from otel_perfopt.errors import ConfigurationError, PerfOptError
from otel_perfopt.telemetry import instruments
from otel_perfopt.telemetry.logs import get_logger

__all__ = ("UNWRITABLE", "State", "StateStore", "dumps")

T = TypeVar("T")

State = Mapping[str, Any]
"""What is known of a task, as JSON would hold it."""

PATH = ".worktrees/.state/state.db"
UNWRITABLE = (TypeError, ValueError, RecursionError, sqlite3.DataError)
"""What is raised for a value that JSON or SQLite cannot hold."""

_APPLICATION_ID = 0x6F747066  # "otpf", in the header of the file
_VERSION = 1
_SCHEMA = f"""
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS task_state (task_id TEXT PRIMARY KEY, state TEXT NOT NULL, updated_at REAL NOT NULL);
PRAGMA application_id = {_APPLICATION_ID};
PRAGMA user_version = {_VERSION};
COMMIT;
"""
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


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
            if is_retry or not _is_damage(error):
                raise PerfOptError(
                    f"the state store {str(self.path)!r} cannot be used: {error}",
                    code="STATE_STORE",
                    context={"path": str(self.path)},
                ) from error
        self._set_aside(inode)
        return self._carefully(step, is_retry=True)

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        with _lock:
            # SQLite would let the umask decide who may read it. And the lock: closing this descriptor takes away the locks that
            # other connections of this process have on the file, so there must not be any.
            if not self.path.exists():
                self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                if self._is_default:  # in somebody's working tree
                    self.path.with_name(".gitignore").write_text("*\n", encoding="utf-8")
                with suppress(FileExistsError):
                    os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            connection = sqlite3.connect(self.path, timeout=self._timeout, isolation_level=None)
        with closing(connection), connection:
            yield connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        """Make a new file ours, and refuse one that belongs to somebody else."""
        connection.execute("BEGIN")  # so that all three are of one moment: another process may be making the table
        owner, version = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version"))
        is_new = not owner and not version and not connection.execute("SELECT 1 FROM sqlite_master").fetchone()
        connection.execute("COMMIT")
        if owner != _APPLICATION_ID and not is_new:
            raise ConfigurationError(f"path={str(self.path)!r} is a database of something else; give the state store its own")
        if version > _VERSION:
            raise ConfigurationError(
                f"path={str(self.path)!r} was written by a newer version of this library: its schema is {version}, known is "
                f"{_VERSION}. Update the library, or use another file"
            )
        with suppress(sqlite3.OperationalError):  # another connection is about to do the same, or reads
            connection.execute("PRAGMA journal_mode = WAL")
        if is_new:
            connection.executescript(_SCHEMA)

    def _set_aside(self, inode: int | None) -> None:
        """Rename a damaged file and what belongs to it, unless somebody else has done so meanwhile."""
        with _lock, suppress(FileNotFoundError):
            if os.stat(self.path).st_ino != inode:
                return
            number = next(n for n in itertools.count(1) if not Path(f"{self.path}.damaged-{n}").exists())
            for suffix in ("-wal", "-shm", ""):
                with suppress(FileNotFoundError):
                    os.rename(f"{self.path}{suffix}", f"{self.path}.damaged-{number}{suffix}")
        get_logger().warning("a damaged state store was set aside", path=f"{self.path}.damaged-{number}")


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


def _is_damage(error: Exception) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGED  # the lowest byte; the others say more about it


def _after_fork() -> None:
    global _lock
    _lock = threading.RLock()


_lock = threading.RLock()
instruments.on_fork(_after_fork)
