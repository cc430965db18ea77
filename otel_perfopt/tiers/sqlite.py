"""A tier in a SQLite file, which outlives the process and is shared by all processes of one machine.

What is written is written behind; what is deleted is committed before the call returns. See `sqlite_history` for what is
valid, `sqlite_writer` and `sqlite_changes` for how it is written, `sqlite_database` for the file and its connections.
"""

import os
import queue
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from otel_perfopt.durations import Duration, to_seconds
from otel_perfopt.errors import ConfigurationError, TierError
from otel_perfopt.telemetry.logs import get_logger
from otel_perfopt.tiers.base import Change, Found, Record, Tier, TierUsage
from otel_perfopt.tiers.sqlite_changes import used_bytes
from otel_perfopt.tiers.sqlite_connections import OpenFile
from otel_perfopt.tiers.sqlite_database import Database
from otel_perfopt.tiers.sqlite_history import EXPIRED, GONE, Changed, History, Waiting, is_tagged_out
from otel_perfopt.tiers.sqlite_rows import FORMAT, PROBE, READ, Meta, as_blob, as_text, make_schema, parse
from otel_perfopt.tiers.sqlite_watch import Watch
from otel_perfopt.tiers.sqlite_writer import Writer

__all__ = ("SQLiteTier",)

Mark = tuple[bytes, int]

LEAST_BYTES = 256 * 2**10
_NOTHING: tuple[Any, ...] = (None, None, None)


class SQLiteTier(Tier):
    """A tier of a cache in a file.

    The file is in WAL mode, which needs a file system of this machine. It is made, for its owner only, at the first use. One
    that is damaged is set aside with a warning. Of those that no longer fit, what was written first goes first, unless it was
    lately read by the process that needs the room.

    A damaged record is not there. Of its value, no more than the last 32 bytes are looked at: they have the seal by which a codec
    notices any other damage.

    A process that is killed loses the records that were still waiting, and no deletion. If the machine loses power, the last
    moments may be missing, deletions included.

    Args:
        path: the file; one for each cache.
        max_bytes: the most bytes of the file, about, with all that SQLite adds; None for no limit. Records that take more than
            a quarter of it are not kept.
        write_delay: how long a record may wait for others, to be written with them; in seconds, as a `timedelta`, or as a
            string such as ``"50ms"``.
        poll_interval: how often to look for what other processes have changed, a duration.
        timeout: how long to wait for other writers, a duration; zero for not at all.
        gitignore: whether to put a ``.gitignore`` beside a file that is made.
        clock: returns the time of day in seconds; for tests.

    Raises:
        ConfigurationError: an option makes no sense, or the file belongs to something else or to a newer version.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     tier = SQLiteTier(f"{folder}/users.db")
    ...     tier.write({b"42": Record(b"Ada", created=0.0, fresh_until=4e9, kept_until=4e9)}, tier.mark())
    ...     print(tier.read([b"42"]).records[b"42"].value, tier.delete([b"42"]), tier.read([b"42"]).records)
    ...     tier.close()
    b'Ada' True {}
    """

    kind = "sqlite"

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        max_bytes: int | None = 256 * 2**20,
        write_delay: Duration = 0.05,
        poll_interval: Duration = 0.5,
        timeout: Duration = 5.0,
        gitignore: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        try:
            self.path = Path(path).absolute()
        except FileNotFoundError:
            raise ConfigurationError(
                f"path={str(path)!r} is relative to the current folder, which is gone; give another one"
            ) from None
        self.max_bytes = _checked_bytes(max_bytes)
        self._clock = clock
        try:
            delay = to_seconds(write_delay, option="write_delay", allow_zero=True)
            interval = to_seconds(poll_interval, option="poll_interval")
            wait = to_seconds(timeout, option="timeout", allow_zero=True)
        except (TypeError, ValueError) as error:
            raise ConfigurationError(str(error)) from None
        self._database = Database(self.path, FORMAT, make_schema, PROBE, timeout=wait, gitignore=gitignore)
        self._database.check()
        self._watch = Watch(self._database, interval=interval, clock=clock)
        self._writer = Writer(self._database, self._watch, max_bytes=self.max_bytes, delay=delay, clock=clock)
        self._meta = Meta(b"", (b"", 0), 0)
        self._has_warned = False

    def __repr__(self) -> str:
        return f"<SQLiteTier {str(self.path)!r}>"

    # reading --------------------------------------------------------------------------------------------

    def read(self, keys: Sequence[bytes]) -> Found:
        """Return the records of some keys."""
        pending, file = self._writer.pending, self._database.file
        if len(keys) == 1 and file is not None and not pending.records and not pending.changes:
            found = self._read_one(file, keys[0])
            if found is not None:
                return found
        # Taken before the file is read: what is written meanwhile is in one of the two, or in both.
        waiting = {key: item for key in keys if (item := pending.records.get(key)) is not None}
        return self._database.read(self._read_all, keys, waiting)

    def _read_one(self, file: OpenFile, key: bytes) -> Found | None:
        """Read a key in one statement, which is what most calls do; return None if there is more to find out."""
        try:
            reader = file.idle.get_nowait()
        except queue.Empty:
            return None
        try:
            # A bytearray, because the driver looks for adapters of bytes.
            packed, head, value = reader.execute(READ, (bytearray(key),)).fetchone() or _NOTHING
        except BaseException as error:
            file.discard(reader)  # after Ctrl-C in the middle of a statement, its connection would go on reading the past
            if isinstance(error, sqlite3.Error):
                return None
            raise
        file.idle.put(reader)
        meta = self._meta
        if packed != meta.packed:
            return None
        if head is None:
            return Found({}, meta.mark)
        record, born = parse(key, head, value) or (None, 0)
        if record is None or record.kept_until <= self._clock() or (record.tags and born < meta.tagged):
            return None
        self._writer.was_read(key)
        return tuple.__new__(Found, ({key: record}, meta.mark))  # as in `parse`

    def _read_all(self, connection: sqlite3.Connection, keys: Sequence[bytes], waiting: Mapping[bytes, Waiting]) -> Found:
        connection.execute("BEGIN")
        meta = Meta.read(connection)
        if meta != self._meta:
            self._meta = meta
            self._watch.noticed(meta.mark)
        history = History(connection, meta, waiting.values())
        records, now = {}, self._clock()
        for key in keys:
            record = history.judge(key, waiting[key]) if key in waiting else None
            if record is None:
                record = self._stored(connection, key)
            if record is not None:
                record = self._writer.pending.judge(key, record)
            if record is not None and record.kept_until > now:
                records[key] = record
        return Found(records, meta.mark)

    def _stored(self, connection: sqlite3.Connection, key: bytes) -> Record | None:
        _, head, value = connection.execute(READ, (key,)).fetchone() or _NOTHING
        if head is None:
            return None
        found = parse(key, head, value)
        if found is None:
            self._damaged(key)
            return None
        self._writer.was_read(key)
        return None if is_tagged_out(connection, *found) else found[0]

    def _damaged(self, key: bytes) -> None:
        self._writer.change_soon([Changed(GONE, key)])
        if not self._has_warned:
            self._has_warned = True
            get_logger().warning("damaged records of a cache file are deleted", path=str(self.path))

    def mark(self) -> Mark:
        """Return a mark for this moment."""
        return self._database.read(Meta.read).mark

    # writing --------------------------------------------------------------------------------------------

    def write(self, records: Mapping[bytes, Record], mark: Mark, *, replaces: bool = False) -> None:
        """Keep records, soon; see `Tier.write`. Blocks if more than the disk can take is waiting."""
        self._writer.put(records, mark, replaces=replaces)

    def delete(self, keys: Sequence[bytes]) -> bool:
        """Forget keys before returning; return whether there was any fresh one."""
        return self._writer.change([Changed(GONE, key) for key in keys])

    def expire(self, keys: Sequence[bytes]) -> bool:
        """Make records stale before returning; return whether there was any fresh one."""
        return self._writer.change([Changed(EXPIRED, key) for key in keys])

    def invalidate_tag(self, tag: str) -> None:
        """Forget all records with a tag, before returning and in constant time."""
        self._writer.change([Changed(GONE, tag=tag)])

    def clear(self) -> None:
        """Forget all records before returning."""
        self._writer.pending.clear()
        self._writer.change([Changed(GONE)])

    def flush(self) -> None:
        """Return when everything that was written before can be found by other processes."""
        self._writer.settle()

    # the rest -------------------------------------------------------------------------------------------

    def watch(self, on_change: Callable[[Change], None]) -> None:
        """Have `on_change` called, in a background thread, for whatever other processes invalidate from now on.

        If nobody can tell what that was, because the file was damaged, say, it is called for everything.
        """
        try:
            position = self.mark()
        except TierError:
            position = None
        self._watch.start(on_change, position, self._writer.number)

    def add_counts(self, counts: Mapping[str, int]) -> Mapping[str, int]:
        """Add to the figures that outlive the process, and return their sums."""
        rows = [(as_blob(name), count) for name, count in counts.items()]

        def add(connection: sqlite3.Connection) -> dict[str, int]:
            connection.executemany(
                "INSERT INTO counts VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = value + excluded.value", rows
            )
            return _counts(connection)

        return self._database.write(add) if rows else self._database.read(_counts)

    def usage(self) -> TierUsage:
        """Return how much is in it; the bytes are those of the file's pages that are in use."""
        return TierUsage(*self._database.read(_usage), self.max_bytes)

    def close(self) -> None:
        """Flush, and let go of the file; a later call opens it again."""
        self._writer.close()


def _counts(connection: sqlite3.Connection) -> dict[str, int]:
    return {as_text(name): value for name, value in connection.execute("SELECT name, value FROM counts")}


def _usage(connection: sqlite3.Connection) -> tuple[int, int]:
    connection.execute("BEGIN")
    return connection.execute("SELECT count(*) FROM entries").fetchone()[0], used_bytes(connection)


def _checked_bytes(max_bytes: int | None) -> int | None:
    if max_bytes is not None and (not isinstance(max_bytes, int) or isinstance(max_bytes, bool) or max_bytes < LEAST_BYTES):
        raise ConfigurationError(
            f"max_bytes={max_bytes!r} must be a count of bytes, {LEAST_BYTES:,} at least, or None for no limit"
        )
    return max_bytes
