"""What a SQLite tier has not written yet: records, which can wait, and changes that failed and must not be forgotten."""

import threading
from collections.abc import Collection, Iterable, Mapping

from otel_perfopt.tiers.base import Record
from otel_perfopt.tiers.sqlite_history import EXPIRED, GONE, KEEP, STALE, Changed, Waiting, ends_of

__all__ = ("Pending",)

MANY, LARGE = 1_000, 8 * 2**20  # records, and their bytes, that are not kept waiting
TOO = 8  # so many times as many, and whoever brings more has to wait


class Owed:
    """What becomes of a change; whichever thread makes it, the one that has asked for it looks here.

    Attributes:
        was_fresh: whether it concerned a fresh record.
    """

    __slots__ = ("was_fresh",)

    def __init__(self) -> None:
        self.was_fresh = False


class Pending:
    """Records and changes that wait for a transaction; for any number of threads.

    A change stays here until it is committed. While it does, because the file is locked or the disk is full, nobody in this
    process is given what it concerns.
    """

    def __init__(self) -> None:
        # Reentrant: a collection of garbage under the lock may run a finalizer that uses this cache.
        self._lock = threading.RLock()
        self._size = 0
        self.records: dict[bytes, Waiting] = {}
        self.changes: dict[Changed, Owed] = {}

    def is_much(self, times: int = 1) -> bool:
        """Whether the records should be written now."""
        return len(self.records) >= times * MANY or self._size >= times * LARGE

    def is_too_much(self) -> bool:
        """Whether there may be no more records."""
        return self.is_much(TOO)

    def put(self, records: Mapping[bytes, Record], mark: tuple[bytes, int], *, replaces: bool) -> None:
        """Add records; a later one takes the place of an earlier one, but what was loaded never that of what was set."""
        with self._lock:
            for key, record in records.items():
                old = self.records.get(key)
                if old is not None and old.replaces and not replaces:
                    continue
                self.records[key] = Waiting(record, mark, replaces)
                self._size += len(record.value) - (len(old.record.value) if old is not None else 0)

    def owe(self, changes: Iterable[Changed]) -> list[Owed]:
        """Add changes; too many become one of everything."""
        with self._lock:
            # Never an older one of the same change: that may just have been committed, and what came after it is still there.
            owed = {change: Owed() for change in changes}
            self.changes.update(owed)
            if len(self.changes) > KEEP:
                self.changes = {Changed(GONE): Owed()}
        return list(owed.values())

    def snapshot(self) -> tuple[dict[bytes, Waiting], dict[Changed, Owed]]:
        """Return what there is."""
        with self._lock:
            return dict(self.records), dict(self.changes)

    def settle(self, records: Mapping[bytes, Waiting], changes: Mapping[Changed, Owed], fresh: Collection[bytes]) -> None:
        """Take out what was written, but nothing that has come meanwhile.

        Args:
            records: what was written.
            changes: what was changed.
            fresh: the keys of fresh records that were.
        """
        with self._lock:
            for key, item in records.items():
                if self.records.get(key) is item:
                    del self.records[key]
                    self._size -= len(item.record.value)
            for change, owed in changes.items():
                owed.was_fresh = change.key in fresh
                if self.changes.get(change) is owed:
                    del self.changes[change]

    def drop(self) -> int:
        """Give up all records, and return how many; the keys that were set must at least lose what they had before."""
        with self._lock:
            dropped, self.records, self._size = self.records, {}, 0
            self.owe(Changed(GONE, key) for key, item in dropped.items() if item.replaces)
        return len(dropped)

    def clear(self) -> None:
        """Give up all records, because everything is to go."""
        with self._lock:
            self.records, self._size = {}, 0

    def judge(self, key: bytes, record: Record) -> Record | None:
        """Return a record as it may be given away, in view of the changes; None if it may not."""
        if not self.changes:
            return record
        if any(end in self.changes for end in ends_of(key, record)):
            return None
        return record._replace(fresh_until=STALE) if Changed(EXPIRED, key) in self.changes else record
