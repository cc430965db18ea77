"""The history of a SQLite tier: what was invalidated, in which order, and what is therefore not valid any more.

Serials decide, and no clock: each change has the next one. A record that was made before a change of its own key, of one of
its tags or of everything may not be kept. Only the last changes are remembered one by one; what is older than these may not
be kept either.
"""

import sqlite3
from collections.abc import Iterable
from typing import NamedTuple

from otel_perfopt.tiers.base import Change, Record
from otel_perfopt.tiers.sqlite_rows import Meta, as_blob, as_text

__all__ = (
    "EXPIRED",
    "GONE",
    "KEEP",
    "REPLACED",
    "STALE",
    "Changed",
    "History",
    "Waiting",
    "changes_of_others",
    "ends_of",
    "is_tagged_out",
)

KEEP = 10_000
"""How many changes are remembered."""

GONE, EXPIRED, REPLACED = range(3)
"""What becomes of a key, a tag or everything: it is forgotten, it is stale, or it was set again."""

STALE = 0.0
"""When a record became stale that was made so; no clock can have been there."""


class Changed(NamedTuple):
    """A change; without a key and a tag, of everything."""

    kind: int
    key: bytes | None = None
    tag: str | None = None


def ends_of(key: bytes, record: Record) -> list[Changed]:
    """Return the changes after which a record is forgotten."""
    return [Changed(GONE), Changed(GONE, key), *(Changed(GONE, tag=tag) for tag in record.tags)]


class Waiting(NamedTuple):
    """A record that is to be written.

    Attributes:
        record: the record.
        mark: when its value was made.
        replaces: whether it was set, and not loaded.
    """

    record: Record
    mark: tuple[bytes, int]
    replaces: bool


class History:
    """The changes since the oldest of some records was made.

    Args:
        connection: in a transaction.
        meta: the state of the file.
        waiting: the records.
    """

    def __init__(self, connection: sqlite3.Connection, meta: Meta, waiting: Iterable[Waiting]) -> None:
        self._meta = meta
        self._last: dict[Changed, int] = {}
        since = min((item.mark[1] for item in waiting), default=meta.serial)
        if since < meta.serial:
            rows = connection.execute("SELECT serial, kind, key, tag FROM changes WHERE serial > ? ORDER BY serial", (since,))
            for serial, kind, key, tag in rows:
                self._last[Changed(kind, key, None if tag is None else as_text(tag))] = serial

    def judge(self, key: bytes, item: Waiting) -> Record | None:
        """Return the record as it may be kept; None if it may not."""
        file, made = item.mark
        if file != self._meta.file or made < self._meta.serial - KEEP:
            return None
        if not self._last:
            return item.record
        ends = ends_of(key, item.record)
        if not item.replaces:  # of two that were set, the one that is written last is kept, and everybody agrees
            ends.append(Changed(REPLACED, key))
        if any(self._last.get(end, made) > made for end in ends):
            return None
        is_stale = self._last.get(Changed(EXPIRED, key), made) > made
        return item.record._replace(fresh_until=STALE) if is_stale else item.record


def is_tagged_out(connection: sqlite3.Connection, record: Record, born: int) -> bool:
    """Whether one of its tags was invalidated after a record was written."""
    statement = "SELECT 1 FROM tags WHERE tag = ? AND serial > ?"
    return any(connection.execute(statement, (as_blob(tag), born)).fetchone() for tag in record.tags)


def changes_of_others(connection: sqlite3.Connection, since: tuple[bytes, int] | None, writer: int) -> tuple[Meta, list[Change]]:
    """Return the state, and what others than `writer` have changed since a mark; None for one that nobody knows."""
    connection.execute("BEGIN")
    meta = Meta.read(connection)
    if since is None or since[0] != meta.file or since[1] < meta.serial - KEEP:
        return meta, [Change()]
    rows = connection.execute("SELECT key, tag FROM changes WHERE serial > ? AND writer != ? ORDER BY serial", (since[1], writer))
    return meta, [Change(key, None if tag is None else as_text(tag)) for key, tag in rows]
