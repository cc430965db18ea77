"""How a SQLite tier is written: records behind the caller's back, changes before it goes on; and at exit, all that waits."""

import math
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from otel_perfopt.errors import TierError
from otel_perfopt.telemetry import background, clocks, instruments, lifecycle
from otel_perfopt.telemetry.background import NoThread
from otel_perfopt.telemetry.logs import get_logger
from otel_perfopt.tiers.base import Record
from otel_perfopt.tiers.sqlite_changes import Transaction
from otel_perfopt.tiers.sqlite_database import Database
from otel_perfopt.tiers.sqlite_history import Changed
from otel_perfopt.tiers.sqlite_pending import Pending
from otel_perfopt.tiers.sqlite_watch import Watch

__all__ = ("Writer",)

WANTED = 10_000  # keys that are known to have been read lately, and so have a second chance
RETRY = 1.0  # seconds at least until what could not be written is tried again


class Writer:
    """Writes what is pending; lives until everything is written, also if nobody knows its tier any more.

    Args:
        database: the file.
        watch: told of every transaction.
        max_bytes: how many bytes there may be; None for any number.
        delay: how long a record may wait, in seconds.
        clock: the time of day.
    """

    def __init__(
        self, database: Database, watch: Watch, *, max_bytes: int | None, delay: float, clock: Callable[[], float]
    ) -> None:
        self._database = database
        self._watch = watch
        self._max_bytes = max_bytes
        self._delay = delay
        self._clock = clock
        self._has_warned = False
        self._wanted: set[bytes] = set()
        self.pending = Pending()
        self._start_afresh()
        with _lock:
            _live.add(self)

    def _start_afresh(self) -> None:
        # Reentrant: a collection of garbage in the middle of a transaction may run a finalizer that uses this cache.
        self._settling = threading.RLock()
        self._is_settling = False
        self._armed = math.inf  # the delay of the timer
        self.number = int.from_bytes(os.urandom(7), "big")  # a forked child is another one

    def start_afresh_after_fork(self) -> None:
        """Leave what was waiting to the parent; but nobody may be given what a failed change concerns, here either."""
        changes = self.pending.changes
        self.pending = Pending()
        self.pending.owe(changes)
        self._start_afresh()
        self._watch.start_afresh_after_fork(self.number)

    def was_read(self, key: bytes) -> None:
        """Give a key a second chance when room is made."""
        if len(self._wanted) < WANTED:
            self._wanted.add(key)

    def put(self, records: Mapping[bytes, Record], mark: tuple[bytes, int], *, replaces: bool) -> None:
        """Write records soon; at once, if more than the disk can take is waiting.

        Raises:
            TierError: that failed, and what waited is lost.
        """
        self.pending.put(records, mark, replaces=replaces)
        if self.pending.is_too_much():
            self._flush_or_drop()
        else:
            self._arm(0.0 if self.pending.is_much() else self._delay)

    def change_soon(self, changes: Sequence[Changed]) -> None:
        """Make changes; nobody in this process is given what they concern."""
        self.pending.owe(changes)
        self._arm(self._delay)

    def change(self, changes: Sequence[Changed]) -> bool:
        """Make changes, and return whether they concerned any fresh record.

        Raises:
            TierError: they could not be made yet; nobody in this process is given what they concern.
        """
        owed = self.pending.owe(changes)
        try:
            self.settle()
        except TierError as error:
            if getattr(error.__cause__, "sqlite_errorcode", None) != sqlite3.SQLITE_FULL:
                raise
            self.settle(only_changes=True)  # to delete takes next to no room
        return any(each.was_fresh for each in owed)

    def settle(self, *, only_changes: bool = False, limit: float | None = None) -> None:
        """Write what is pending: first the records, so that changes concern these, too.

        Args:
            only_changes: whether the records go on waiting.
            limit: how long to wait for other processes, in seconds; None for as long as usual.

        Raises:
            TierError: it could not be written yet.
        """
        with self._settling:
            if self._is_settling:  # a finalizer in the middle of the loop below, which has yet to look at the changes
                return
            try:
                self._is_settling = True
                while self._settle_once(only_changes=only_changes, limit=limit):
                    pass
            finally:
                self._is_settling = False
        self._has_warned = False

    def _settle_once(self, *, only_changes: bool, limit: float | None) -> bool:
        self._armed = math.inf  # not before: while one waits for the lock above, no other need be on its way
        records, changes = self.pending.snapshot()
        if only_changes:
            records = {}
        if not records and not changes:
            return False

        def settle(connection: sqlite3.Connection) -> Transaction:
            transaction = Transaction(connection, self.number, self._clock())
            if records:
                transaction.write(records, self._max_bytes, self._wanted)
            transaction.change(changes)
            transaction.finish()
            return transaction

        done = self._database.write(settle, limit=limit)
        self.pending.settle(records, changes, done.fresh)
        self._watch.passed(done.before.mark, done.meta.mark)
        if len(self._wanted) >= WANTED:
            self._wanted.clear()
        return bool(self.pending.changes)

    def _arm(self, delay: float) -> None:
        if delay < self._armed:
            try:
                self._armed = delay
                clocks.after(self._clock, delay, partial(_flush_soon, self))
            except BaseException:
                self.disarm()  # there may be a timer or not; one too many does no harm
                raise

    def disarm(self) -> None:
        """Forget the timer; the next write sets one."""
        self._armed = math.inf

    def flush_behind(self) -> None:
        """Write what is pending, or try again later."""
        try:
            self.settle()
        except TierError as error:
            if not self._has_warned:
                self._has_warned = True
                get_logger().warning("a cache file cannot be written; what waits is tried again", reason=str(error))
            self._arm(max(self._delay, RETRY))

    def _flush_or_drop(self) -> None:
        try:
            self.settle()
        except TierError:
            dropped = self.pending.drop()
            get_logger().warning("a cache file cannot be written; too much is waiting, and was dropped", records=dropped)
            raise

    def close(self, limit: float | None = None) -> None:
        """Write what is pending, and let go of the file.

        Args:
            limit: how long to wait for other processes, in seconds; None for as long as usual.

        Raises:
            TierError: it could not be written.
        """
        try:
            self.settle(limit=limit)
        finally:
            self._database.close()


def _flush_soon(writer: Writer) -> None:
    """Run in the timer thread, which must not wait for a disk."""
    try:
        background.submit(writer.flush_behind)
    except NoThread:
        writer.disarm()  # the next write arms it, or the exit flushes it


def _all() -> list[Writer]:
    with _lock:
        return list(_live)


def _close_at_exit(limit: float) -> None:
    end = time.monotonic() + limit
    for writer in _all():
        try:
            writer.close(max(0.0, end - time.monotonic()))
        except TierError as error:
            get_logger().warning("what was waiting for a cache file is lost", reason=str(error))


def _after_fork() -> None:
    global _lock
    _lock = threading.RLock()
    for writer in _all():
        writer.start_afresh_after_fork()


_lock = threading.RLock()
_live: "weakref.WeakSet[Writer]" = weakref.WeakSet()
instruments.on_fork(_after_fork)
lifecycle.before_exit(_close_at_exit)
