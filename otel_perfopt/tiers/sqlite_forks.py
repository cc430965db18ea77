"""What becomes of SQLite files in a fork: all of them are closed before it, and opened again when they are used.

SQLite cannot be carried across a fork, not even with new connections in the child: what it knows of a file's locks belongs to
the whole process, and the child would believe in locks that only its parent has. When the parent closes the file, it would
take the log away in which the child goes on to write.
"""

import os
import threading
import weakref
from typing import Protocol

from otel_perfopt.telemetry import instruments

__all__ = ("keep", "register")


class _Forkable(Protocol):
    def before_fork(self) -> None: ...

    def after_fork_in_parent(self) -> None: ...

    def after_fork_in_child(self) -> None: ...


def register(database: _Forkable) -> None:
    """Have `database` told of forks."""
    with _lock:
        _live.add(database)


def keep(inherited: object) -> None:
    """Keep what a child must not close, for that would take part in its parent's transactions."""
    _inherited.append(inherited)


def _all() -> list[_Forkable]:
    with _lock:
        return list(_live)


def _before() -> None:
    for database in _all():
        database.before_fork()


def _after_in_parent() -> None:
    for database in _all():
        database.after_fork_in_parent()


def _after_in_child() -> None:
    global _lock
    _lock = threading.RLock()
    for database in _all():
        database.after_fork_in_child()


_lock = threading.RLock()
_live: "weakref.WeakSet[_Forkable]" = weakref.WeakSet()
_inherited: list[object] = []
instruments.on_fork(_after_in_child)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_after_in_parent)
