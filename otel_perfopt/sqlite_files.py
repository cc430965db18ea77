"""What the SQLite files of this library have in common: who may read them, whose they are, and what becomes of damaged ones."""

import itertools
import os
import sqlite3
import threading
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, TypeVar

from otel_perfopt.errors import ConfigurationError
from otel_perfopt.telemetry import instruments

__all__ = ("DamagedFile", "Format", "connect", "is_damage", "set_aside")

C = TypeVar("C", bound=sqlite3.Connection)

_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class DamagedFile(sqlite3.DatabaseError):
    """Something is in a file that this library would not have written."""


class Format(NamedTuple):
    """How the library knows a file of its own.

    Attributes:
        owner: what the file is for, in the words of an error.
        application_id: in the header of the file.
        version: the newest schema that is known.
    """

    owner: str
    application_id: int
    version: int

    def check(self, connection: sqlite3.Connection, path: Path) -> bool:
        """Return whether the file is new.

        Raises:
            ConfigurationError: it belongs to something else, or to a newer version of this library.
        """
        connection.execute("BEGIN")  # so that all three are of one moment: another process may be making the tables
        names = ("application_id", "user_version")
        application_id, version = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names)
        is_new = not application_id and not version and not connection.execute("SELECT 1 FROM sqlite_master").fetchone()
        connection.execute("COMMIT")
        if application_id != self.application_id and not is_new:
            raise ConfigurationError(f"path={str(path)!r} is a database of something else; give the {self.owner} its own")
        if version > self.version:
            raise ConfigurationError(
                f"path={str(path)!r} was written by a newer version of this library: its schema is {version}, known is "
                f"{self.version}. Update the library, or use another file"
            )
        return is_new


def connect(path: Path, *, timeout: float, gitignore: bool, factory: type[C]) -> C:
    """Open a file; make it first, for its owner only, with the folders above it, if it is not there.

    Args:
        path: the file.
        timeout: how long to wait for other writers, in seconds.
        gitignore: whether to keep a new file out of git, because it is in somebody's working tree.
        factory: the class of the connection, which any thread may use.
    """
    with _lock:
        # SQLite would let the umask decide who may read it. And the lock: closing this descriptor takes away the locks that
        # other connections of this process have on the file, so there must not be any.
        if not path.exists():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if gitignore:
                path.with_name(".gitignore").write_text("*\n", encoding="utf-8")
            with suppress(FileExistsError):
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        return factory(path, timeout=timeout, isolation_level=None, check_same_thread=False)


def is_damage(error: Exception) -> bool:
    """Whether an error says that the file is damaged."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the lowest byte; the others say more about it
    return isinstance(error, DamagedFile) or code in _DAMAGED


def set_aside(path: Path, inode: int | None) -> Path | None:
    """Rename a damaged file and what belongs to it; return its new name, or None if somebody else has done so meanwhile."""
    with _lock, suppress(FileNotFoundError):
        if os.stat(path).st_ino == inode:
            names = (Path(f"{path}.damaged-{number}") for number in itertools.count(1))
            aside = next(name for name in names if not name.exists())
            for suffix in ("-wal", "-shm", ""):
                with suppress(FileNotFoundError):
                    os.rename(f"{path}{suffix}", f"{aside}{suffix}")
            return aside
    return None


def _after_fork() -> None:
    global _lock
    _lock = threading.RLock()


_lock = threading.RLock()
instruments.on_fork(_after_fork)
