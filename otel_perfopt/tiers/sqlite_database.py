"""The connections of a SQLite tier: several to read with, one to write with, and one that notices changes.

A file is opened at the first use, and again when another one has taken its place. A damaged one is set aside, once per call.
Everything is closed before a fork, see `sqlite_forks`.
"""

import os
import queue
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from otel_perfopt import sqlite_files
from otel_perfopt.errors import ConfigurationError, TierError
from otel_perfopt.sqlite_files import DamagedFile, Format, is_damage
from otel_perfopt.telemetry import background
from otel_perfopt.telemetry.background import NoThread
from otel_perfopt.telemetry.logs import get_logger
from otel_perfopt.tiers import sqlite_forks
from otel_perfopt.tiers.sqlite_connections import Connection, OpenFile, in_transaction, refuse_older

__all__ = ("Database",)

T = TypeVar("T")

PATIENCE = 1.0  # seconds that a fork waits for those who are using the file
SETTINGS = """
PRAGMA synchronous = NORMAL;
PRAGMA secure_delete = OFF;
PRAGMA cache_size = -16000;
PRAGMA journal_size_limit = 4194304;
"""


class Database:
    """A file that several threads read and write, see above.

    Args:
        path: the file.
        form: how the library knows it.
        make_schema: returns what makes the tables of a new file, and what must come before these.
        probe: fails if the tables are not there.
        timeout: how long to wait for other writers, in seconds.
        gitignore: whether to keep a new file out of git.
    """

    def __init__(
        self, path: Path, form: Format, make_schema: Callable[[], str], probe: str, *, timeout: float, gitignore: bool
    ) -> None:
        self.path = path
        self._form = form
        self._make_schema = make_schema
        self._probe = probe
        self._timeout = timeout
        self._gitignore = gitignore
        self._inode: int | None = None
        self._file: OpenFile | None = None
        self._is_closed_well = True
        self._is_in_use = False
        self._is_lost = False
        self._is_writing = False
        self._make_locks()
        sqlite_forks.register(self)

    def _make_locks(self) -> None:
        # Reentrant, because a collection of garbage may close another cache, or this one.
        self._opening = threading.RLock()
        self._writing = threading.RLock()

    @property
    def file(self) -> OpenFile | None:
        """What is open at the moment."""
        return self._file

    @property
    def is_open(self) -> bool:
        """Whether it was opened, and not closed since; for a fork, and when it is damaged, it is closed for a moment only."""
        return self._is_in_use

    def check(self) -> None:
        """Refuse a file that is there and belongs to something else; what else may be wrong with it shows when it is used.

        Raises:
            ConfigurationError: it does.
        """
        address = f"file:{quote(str(self.path))}?mode=ro"  # nothing is made
        with suppress(sqlite3.Error), closing(sqlite3.connect(address, uri=True, isolation_level=None, timeout=0)) as connection:
            self._form.check(connection, self.path)

    def read(self, step: Callable[..., T], *arguments: Any) -> T:
        """Do a step with a connection, and return its result; others read and write meanwhile.

        Raises:
            TierError: the file cannot be used.
        """
        result: T = self._carefully(self._read, step, arguments)
        return result

    def write(self, step: Callable[[sqlite3.Connection], T], *, limit: float | None = None) -> T:
        """Do a step in a transaction, when all others have ended.

        Args:
            step: gets the connection.
            limit: how long to wait for other processes, in seconds; None for as long as usual.

        Raises:
            TierError: the file cannot be used; nothing is changed.
        """
        result: T = self._carefully(self._write, step, limit)
        return result

    def version(self) -> tuple[object, int]:
        """Return what differs whenever anybody may have written.

        Raises:
            TierError: the file cannot be used.
        """
        return self._carefully(self._version)

    def close(self) -> None:
        """Close everything; the next use opens it again."""
        self._is_in_use = False
        self._close()

    def _close(self) -> None:
        with self._writing, self._opening:
            file = self._file
            if file is not None and not file.writer.in_transaction:  # else a finalizer is in the middle of this thread's
                self._file = None
                self._is_closed_well = file.close()

    # using the file -------------------------------------------------------------------------------------

    def _carefully(self, use: Callable[..., T], *arguments: Any) -> T:
        """Use the file; once more, a new one, if this one turns out to be damaged."""
        try:
            try:
                return use(*arguments)
            except sqlite3.Error as error:
                if not is_damage(error):
                    raise
                self._set_aside(str(error))
            return use(*arguments)
        except (OSError, sqlite3.Error, ConfigurationError) as error:
            raise self._error(str(error)) from error

    def _read(self, step: Callable[..., T], arguments: tuple[Any, ...]) -> T:
        file = self._file or self._open()
        try:
            reader = file.idle.get_nowait()
        except queue.Empty:
            with self._opening:  # not while somebody closes everything
                file = self._file or self._open()
                connection = self._connect()
                file.readers.add(connection)
                reader = connection.cursor()
        try:
            return step(reader.connection, *arguments)
        finally:
            file.give_back(reader)

    def _write(self, step: Callable[[sqlite3.Connection], T], limit: float | None) -> T:
        with self._writing:
            if self._is_writing:
                raise self._error("this thread is in the middle of writing to it")  # in a finalizer; nobody else gets here
            try:
                self._is_writing = True
                self._look_for_another_file()
                file = self._file or self._open()
                return in_transaction(file.writer, step, self._timeout if limit is None else min(limit, self._timeout))
            finally:
                self._is_writing = False

    def _version(self) -> tuple[object, int]:
        with self._writing, self._opening:
            self._look_for_another_file()
            file = self._file or self._open()
            if file.watcher is None:
                file.watcher = self._connect()
            return file, file.watcher.execute("PRAGMA data_version").fetchone()[0]

    def _look_for_another_file(self) -> None:
        """Let go of a file that another process has set aside, or that somebody has removed."""
        file = self._file
        if file is not None:
            try:
                is_there = os.stat(self.path).st_ino == file.inode
            except FileNotFoundError:
                is_there = False
            if not is_there:
                self._close()

    def _open(self) -> OpenFile:
        if self._is_lost:
            raise self._error("it was in use when this process was forked")
        self._is_in_use = True
        with self._opening:
            if self._file is None:
                self._file = self._open_now()
            return self._file

    def _open_now(self) -> OpenFile:
        writer = self._connect_only()
        try:
            self._inode = os.stat(self.path).st_ino
            # Before the file is in WAL mode, so that whose it is stands in the file itself, and not beside it.
            if self._form.check(writer, self.path):
                writer.executescript(self._make_schema())
            refuse_older(writer, self._form)
            with suppress(sqlite3.OperationalError):  # another connection is about to do the same, or reads
                writer.execute("PRAGMA journal_mode = WAL")
            self._set_up(writer)
        except BaseException:
            writer.close()
            raise
        return OpenFile(self._inode, writer)

    def _connect(self) -> Connection:
        connection = self._connect_only()
        try:
            self._set_up(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _connect_only(self) -> Connection:
        return sqlite_files.connect(self.path, timeout=self._timeout, gitignore=self._gitignore, factory=Connection)

    def _set_up(self, connection: Connection) -> None:
        connection.text_factory = bytes  # there is no text, unless there is damage
        try:
            connection.executescript(f"{SETTINGS}{self._probe}")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_ERROR:  # the tables are not those that were made
                raise DamagedFile(str(error)) from error
            raise

    def _set_aside(self, reason: str) -> None:
        with self._writing, self._opening:
            inode = self._inode
            self._close()
        aside = sqlite_files.set_aside(self.path, inode)
        if aside is not None:
            _warn(f"a damaged {self._form.owner} was set aside", aside, reason)

    def _error(self, reason: str) -> TierError:
        return TierError(f"the {self._form.owner} {str(self.path)!r} cannot be used: {reason}", context={"path": str(self.path)})

    def __del__(self) -> None:
        if getattr(self, "_file", None) is not None:
            self._close()

    # forking --------------------------------------------------------------------------------------------

    def before_fork(self) -> None:
        """Close everything, and let nobody open it; `after_fork_in_parent` must follow."""
        if self._writing.acquire(timeout=PATIENCE) and self._opening.acquire(timeout=PATIENCE):
            self._close()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        for lock in (self._opening, self._writing):
            with suppress(RuntimeError):  # somebody has it, who was too slow for the fork
                lock.release()

    def after_fork_in_child(self) -> None:
        """Start afresh."""
        self._make_locks()
        self._is_writing = False
        # Nothing of it may be closed here: that would take part in its parent's transactions.
        if self._file is not None:
            sqlite_forks.keep(self._file)
            self._file, self._is_lost = None, True
        self._is_lost |= not self._is_closed_well


def _warn(message: str, path: Path, reason: str) -> None:
    """Log something, in another thread: handlers are other people's code, and this one may hold a lock."""
    with suppress(NoThread):
        background.submit(lambda: get_logger().warning(message, path=str(path), reason=reason))
