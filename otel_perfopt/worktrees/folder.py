"""The folder of the worktrees: who owns which name in it, and that it is gone when nobody does.

The owner of a name holds a lock on a file beside the worktree. A lock ends with its process, however that ends, and tells
containers apart that share a repository but no process numbers; a number that is used again means nothing.
"""

import itertools
import os
import re
import threading
import time
from contextlib import suppress
from pathlib import Path

from otel_perfopt.worktrees.git import WorktreeError
from otel_perfopt.worktrees.locks import free_lock, new_lock, turn

__all__ = ("Claim", "Folder")

_NAME = re.compile(r"pool-(\d+)-(\d+)-\d+")
_LOCK = ".lock"
_IGNORE = ".gitignore"
_WITH_FOLDER = b"# Made by otel-perfopt together with this folder; both go with the last worktree.\n*\n"
_IN_FOLDER = b"# Made by otel-perfopt for its worktrees; it goes with the last one.\n/.gitignore\n/pool-*\n"

_serial = itertools.count(1)


class Claim:
    """A name that this process owns, from before its worktree is made until after it is removed.

    Args:
        path: where the worktree is, or will be.
        lock: the file descriptor of the locked file; None until there is one, or where the file system knows no locks.

    Attributes:
        turn: held by the thread that makes the worktree, or removes it.
    """

    def __init__(self, path: Path, lock: int | None = None) -> None:
        self.path = path
        self.lock = lock
        self.turn = threading.RLock()

    def let_go(self) -> None:
        """Close the lock file; a forked child does this with its copy, and the parent's lock stays."""
        lock, self.lock = self.lock, None
        if lock is not None:
            os.close(lock)


class Folder:
    """The folder of the worktrees, which several processes may use.

    Args:
        path: it is made when it is needed, in a folder that exists.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._is_ours = False

    def new_claim(self) -> Claim:
        """Return the claim to a name that nobody has used; nothing is made yet."""
        pid = os.getpid()
        return Claim(self._path / f"pool-{pid}-{_start_time(pid) or time.time_ns()}-{next(_serial)}")

    def take(self, claim: Claim) -> None:
        """Make the folder, and the lock of `claim` in it.

        Raises:
            WorktreeError: the folder cannot be made or written.
        """
        try:
            with turn(self._path.parent):
                self._make()
                claim.lock = new_lock(_lock_file(claim.path))
        except OSError as error:
            raise WorktreeError(f"no worktree can be made in {self._path}: {error}", context={"root": str(self._path)}) from error

    def give_back(self, claim: Claim) -> None:
        """Give up a name whose worktree is gone; with the last name goes the folder, if it was not there before."""
        with turn(self._path.parent):
            _lock_file(claim.path).unlink(missing_ok=True)
            claim.let_go()
            self._tidy()

    def names(self) -> set[str]:
        """Return the names in the folder that look like ours, whoever owns them."""
        try:
            found = {name.removesuffix(_LOCK) for name in os.listdir(self._path)}
        except OSError:
            return set()
        return {name for name in found if is_name(name)}

    def take_over(self, name: str) -> Claim | None:
        """Return the claim to a name whose owner is gone; None if it is not."""
        path = self._path / name
        with turn(self._path.parent):
            try:
                lock = free_lock(_lock_file(path))
            except FileNotFoundError:
                return None if _is_running(name) else Claim(path)
            return None if lock is None else Claim(path, lock)

    def _make(self) -> None:
        ignore, is_new = self._path / _IGNORE, not self._path.exists()
        if ignore.exists():
            return
        try:
            if is_new:
                self._path.mkdir()
            ignore.write_bytes(_WITH_FOLDER if is_new else _IN_FOLDER)
        except BaseException:
            with suppress(OSError):
                ignore.unlink(missing_ok=True)
                if is_new:
                    self._path.rmdir()
            raise

    def _tidy(self) -> None:
        ignore = self._path / _IGNORE
        with suppress(FileNotFoundError):  # somebody was here before
            if ignore.exists():
                content = ignore.read_bytes()
                self._is_ours = content == _WITH_FOLDER
                if content == _IN_FOLDER and not self.names():
                    ignore.unlink()
            if self._is_ours and set(os.listdir(self._path)) <= {_IGNORE}:
                ignore.unlink(missing_ok=True)
                self._path.rmdir()


def is_name(name: str) -> bool:
    """Whether a worktree of that name could be ours.

    >>> is_name("pool-4711-123456-1"), is_name("pool-party")
    (True, False)
    """
    return _NAME.fullmatch(name) is not None


def _lock_file(path: Path) -> Path:
    return path.with_name(path.name + _LOCK)


def _is_running(name: str) -> bool:
    """Whether the process in the name exists, as far as can be known."""
    match = _NAME.fullmatch(name)
    pid, started = (int(number) for number in match.groups()) if match else (0, 0)
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return _start_time(pid) in {None, started}


def _start_time(pid: int) -> int | None:
    """Return when a process started, in ticks since the machine did; None where the system does not tell."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return int(status.rpartition(")")[2].split()[19])
