"""One transaction of a SQLite tier that writes: records and changes, then room for more."""

import math
import sqlite3
from collections.abc import Iterable, Mapping

from otel_perfopt.tiers.sqlite_history import EXPIRED, GONE, KEEP, REPLACED, STALE, Changed, History, Waiting, is_tagged_out
from otel_perfopt.tiers.sqlite_rows import READ, Meta, as_blob, make_head, parse, parse_head

__all__ = ("SPARE", "Transaction", "used_bytes")

SPARE = 20  # a part in so many of the limit is made free at once
SHARE = 4  # a record may take a part in so many of the limit
_OVERHEAD = 64  # bytes of a row beside its key, which is stored twice, and its value
_SWEPT = 16  # rows that every transaction looks at, and twice as many as it writes


class Transaction:
    """What is done in a transaction that has begun.

    Args:
        connection: in a transaction.
        writer: who makes the changes.
        now: the time of day.
    """

    def __init__(self, connection: sqlite3.Connection, writer: int, now: float) -> None:
        self._connection = connection
        self._execute = connection.execute
        self._writer = writer
        self._now = now
        self.before = self.meta = Meta.read(connection)
        self.fresh: set[bytes] = set()
        """The keys of fresh records that were changed."""

    def write(self, waiting: Mapping[bytes, Waiting], max_bytes: int | None, wanted: set[bytes]) -> None:
        """Write those records that are still valid.

        Args:
            waiting: the records by key.
            max_bytes: how many bytes there may be; None for any number.
            wanted: the keys of records that were read lately; those that go are taken out.
        """
        history = History(self._connection, self.meta, waiting.values())
        room = 0.0 if max_bytes is not None else math.inf
        for key, item in waiting.items():
            record = history.judge(key, item)
            if record is None:
                continue
            if item.replaces:
                self._log(Changed(REPLACED, key))
            if max_bytes is not None and len(record.value) > max_bytes // SHARE:
                self._execute("DELETE FROM entries WHERE key = ?", (key,))
                continue
            room -= _size(key, len(record.value))
            if room < 0 and max_bytes is not None:
                room = self._make_room(_size(key, len(record.value)), max_bytes, wanted)
            head = make_head(key, record, self.meta.serial)
            self._execute("INSERT OR REPLACE INTO entries (key, head, value) VALUES (?, ?, ?)", (key, head, record.value))
        self._sweep(_SWEPT + 2 * len(waiting))

    def change(self, changes: Iterable[Changed]) -> None:
        """Make changes, so that nobody finds anymore what was before."""
        for change in changes:
            self._log(change)
            if change.tag is not None:
                self._execute("INSERT OR REPLACE INTO tags VALUES (?, ?)", (as_blob(change.tag), self.meta.serial))
                self.meta = Meta.of(self.meta.file, self.meta.serial, self.meta.serial)
            elif change.key is not None:
                self._change_one(change.kind, change.key)
            else:
                self._execute("DELETE FROM entries")
                self._execute("DELETE FROM tags")

    def finish(self) -> None:
        """Write the new state of the file."""
        if self.meta is not self.before:
            self._execute("DELETE FROM changes WHERE serial <= ?", (self.meta.serial - KEEP,))
            self._execute("UPDATE meta SET packed = ?", (self.meta.packed,))

    def _change_one(self, kind: int, key: bytes) -> None:
        _, head, value = self._execute(READ, (key,)).fetchone()
        found = parse(key, head, value)
        if found is not None and found[0].fresh_until > self._now and not is_tagged_out(self._connection, *found):
            self.fresh.add(key)
        if kind == GONE:
            self._execute("DELETE FROM entries WHERE key = ?", (key,))
        elif kind == EXPIRED and found is not None:
            record, born = found
            head = make_head(key, record._replace(fresh_until=STALE), born)
            self._execute("UPDATE entries SET head = ? WHERE key = ?", (head, key))

    def _log(self, change: Changed) -> None:
        self.meta = Meta.of(self.meta.file, self.meta.serial + 1, self.meta.tagged)
        tag = None if change.tag is None else as_blob(change.tag)
        row = (self.meta.serial, self._writer, change.kind, change.key, tag)
        self._execute("INSERT INTO changes VALUES (?, ?, ?, ?, ?)", row)

    # room -----------------------------------------------------------------------------------------------

    def _make_room(self, incoming: int, max_bytes: int, wanted: set[bytes]) -> int:
        """Delete what was written first, but give what was read lately a second chance; return how many bytes are free then.

        Rows of one age are neighbours, so that whole pages become free, which the next rows are written to.
        """
        room = max_bytes - used_bytes(self._connection) - incoming
        if room >= 0:
            return room
        rows = self._execute("SELECT id, key, length(value) FROM entries ORDER BY id")
        leaving = []
        for number, key, size in rows:
            if key in wanted:
                wanted.discard(key)
                self._execute("UPDATE entries SET id = (SELECT max(id) + 1 FROM entries) WHERE id = ?", (number,))
                continue
            leaving.append((number,))
            room += _size(key, size)
            if room >= max_bytes // SPARE:
                break
        rows.close()
        self._connection.executemany("DELETE FROM entries WHERE id = ?", leaving)
        return room

    def _sweep(self, limit: int) -> None:
        """Delete a few of the rows that nobody can get any more, and after a round the tags that were kept because of them."""
        cursor, since = self._execute("SELECT cursor, since FROM meta").fetchone()
        rows = self._execute("SELECT id, head FROM entries WHERE id > ? ORDER BY id LIMIT ?", (cursor, limit)).fetchall()
        dead = [(number,) for number, head in rows if self._is_dead(head)]
        self._connection.executemany("DELETE FROM entries WHERE id = ?", dead)
        if len(rows) < limit:
            # All that were written before the round began were looked at, and what was written later is younger than the tags.
            self._execute("DELETE FROM tags WHERE serial <= ?", (since,))
            cursor, since = 0, self.meta.serial
        else:
            cursor = rows[-1][0]
        self._execute("UPDATE meta SET cursor = ?, since = ?", (cursor, since))

    def _is_dead(self, head: bytes) -> bool:
        found = parse_head(head)
        return found is None or found[0].kept_until <= self._now or is_tagged_out(self._connection, *found)


def used_bytes(connection: sqlite3.Connection) -> int:
    """Return the bytes of the pages that something is in."""
    pages, free, size = (
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)


def _size(key: bytes, value: int) -> int:
    return 2 * len(key) + value + _OVERHEAD
