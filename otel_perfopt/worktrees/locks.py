"""Locks between processes: of files, which end with the process that holds them, and of folders, for a few operations."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from otel_perfopt.telemetry import instruments

try:
    import fcntl
except ImportError:  # not POSIX; GitWorktrees says so
    pass

__all__ = ("free_lock", "new_lock", "turn")

_threads = threading.RLock()
_folders: list[int] = []


@contextmanager
def turn(folder: Path) -> Iterator[None]:
    """Keep out all other threads, and all other processes that take their turn by the same folder."""
    with _threads:
        _end_turn()  # of a call that was interrupted in a bad moment: its lock would keep out this one for ever
        _folders.append(os.open(folder, os.O_RDONLY))
        with suppress(OSError):  # some network file systems do not lock folders
            fcntl.flock(_folders[-1], fcntl.LOCK_EX)
        try:
            yield
        finally:
            _end_turn()


def _end_turn() -> None:
    while _folders:
        with suppress(OSError):
            fcntl.flock(_folders[-1], fcntl.LOCK_UN)  # before it is forgotten: an interrupt may come between any two steps
        os.close(_folders.pop())


def new_lock(file: Path) -> int | None:
    """Make a locked file, and return its descriptor; None, and no file, where the file system knows no locks."""
    lock = os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    if _is_locked(lock):
        return lock
    file.unlink()
    return None


def free_lock(file: Path) -> int | None:
    """Lock a file that nobody has locked, and return its descriptor; None if somebody has, or may have.

    Raises:
        FileNotFoundError: there is no such file.
    """
    try:
        lock = os.open(file, os.O_RDWR)
    except PermissionError:
        return None  # another user's
    return lock if _is_locked(lock) else None


def _is_locked(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        return False
    return True


def _after_fork() -> None:
    global _threads
    _threads = threading.RLock()
    while _folders:
        os.close(_folders.pop())  # a copy; unlocking it would unlock the parent's


instruments.on_fork(_after_fork)
