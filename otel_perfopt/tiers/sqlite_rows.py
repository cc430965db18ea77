"""What is in the tables of a SQLite tier, and how it becomes bytes with checksums and back."""

import json
import os
import sqlite3
import struct
import zlib
from typing import NamedTuple

from otel_perfopt.sqlite_files import DamagedFile, Format
from otel_perfopt.tiers.base import Record

__all__ = ("FORMAT", "PROBE", "READ", "Meta", "as_blob", "as_text", "make_head", "make_schema", "parse", "parse_head")

FORMAT = Format("cache file", application_id=0x6F747063, version=2)  # "otpc"

READ = "SELECT m.packed, e.head, e.value FROM meta m LEFT JOIN entries e ON e.key = ? WHERE m.id = 1"
"""What is needed of a key, in one statement and so of one moment; in few columns, for each has its price."""

PROBE = """
SELECT id, packed, cursor, since FROM meta; SELECT id, key, head, value FROM entries; SELECT tag, serial FROM tags;
SELECT serial, writer, kind, key, tag FROM changes; SELECT name, value FROM counts;
"""

_SCHEMA = f"""
PRAGMA page_size = 8192;
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS meta (id INTEGER PRIMARY KEY, packed BLOB NOT NULL, cursor INTEGER NOT NULL, since INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS entries (id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, head BLOB NOT NULL, value BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS tags (tag BLOB PRIMARY KEY, serial INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS changes (
    serial INTEGER PRIMARY KEY, writer INTEGER NOT NULL, kind INTEGER NOT NULL, key BLOB, tag BLOB
);
CREATE TABLE IF NOT EXISTS counts (name BLOB PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT OR IGNORE INTO meta VALUES (1, x'{{packed}}', 0, 0);
PRAGMA application_id = {FORMAT.application_id};
PRAGMA user_version = {FORMAT.version};
COMMIT;
"""  # noqa: S608 - no words of others
_META = struct.Struct("<8sqqI")  # which file, serial, serial of the last tag, checksum
_HEAD = struct.Struct("<dddq")  # times, serial; then the tags, and the checksum
_TAGS, _CHECKSUM = _HEAD.size, 4  # bytes before the tags, and of the checksum
_BARE = _TAGS + _CHECKSUM  # bytes of a head without tags
_SEAL = 32  # bytes at the end of a value, which the codec's seal is among
_SOUND = 0x2144DF1C  # the CRC32 of anything that has its own CRC32 behind it


class Meta(NamedTuple):
    """The state of a file.

    Attributes:
        packed: the state as it is stored.
        mark: tells this file from one that was in its place before, and has the serial of the last change.
        tagged: the serial of the last invalidation of a tag.
    """

    packed: bytes
    mark: tuple[bytes, int]
    tagged: int

    @classmethod
    def of(cls, file: bytes, serial: int, tagged: int) -> "Meta":
        """Return a state with its checksum."""
        packed = _META.pack(file, serial, tagged, 0)[:-_CHECKSUM]
        return cls(packed + zlib.crc32(packed).to_bytes(_CHECKSUM, "little"), (file, serial), tagged)

    @classmethod
    def parse(cls, packed: object) -> "Meta":
        """Return what is stored.

        Raises:
            DamagedFile: it was not stored like this.
        """
        if isinstance(packed, bytes) and len(packed) == _META.size:
            file, serial, tagged, checksum = _META.unpack(packed)
            if zlib.crc32(packed[:-_CHECKSUM]) == checksum:
                return cls(packed, (file, serial), tagged)
        raise DamagedFile("the state of the cache file is damaged")

    @classmethod
    def read(cls, connection: sqlite3.Connection) -> "Meta":
        """Return the state of this moment.

        Raises:
            DamagedFile: there is none.
        """
        row = connection.execute("SELECT packed FROM meta WHERE id = 1").fetchone()
        return cls.parse(row and row[0])

    @property
    def file(self) -> bytes:
        """What tells this file from others."""
        return self.mark[0]

    @property
    def serial(self) -> int:
        """The serial of the last change."""
        return self.mark[1]


def make_head(key: bytes, record: Record, born: int) -> bytes:
    """Return what is stored beside a value.

    Args:
        key: the key.
        record: what the value belongs to.
        born: the serial of the last change when it is written.
    """
    value, created, fresh_until, kept_until, tags = record
    head = _HEAD.pack(created, fresh_until, kept_until, born) + (json.dumps(tags).encode() if tags else b"")
    return head + zlib.crc32(key + value[-_SEAL:] + head).to_bytes(_CHECKSUM, "little")


def parse(key: bytes, head: bytes, value: bytes) -> tuple[Record, int] | None:
    """Return a record and the serial it was born with; None if it was not stored like this."""
    try:
        if zlib.crc32(key + value[-_SEAL:] + head) != _SOUND:
            return None
        created, fresh_until, kept_until, born = _HEAD.unpack_from(head)
        tags = tuple(json.loads(head[_TAGS:-_CHECKSUM])) if len(head) > _BARE else ()
    except (TypeError, ValueError, struct.error):  # no bytes at all, say
        return None
    # Not by the constructor of Record, which a read would spend much of its time in.
    return tuple.__new__(Record, (value, created, fresh_until, kept_until, tags)), born


def parse_head(head: bytes) -> tuple[Record, int] | None:
    """Do the same without the value, and so without the checksum."""
    try:
        created, fresh_until, kept_until, born = _HEAD.unpack_from(head)
        tags = tuple(json.loads(head[_TAGS:-_CHECKSUM])) if len(head) > _BARE else ()
    except (TypeError, ValueError, struct.error):
        return None
    return Record(b"", created, fresh_until, kept_until, tags), born


def make_schema() -> str:
    """Return what makes the tables of a new file."""
    return _SCHEMA.format(packed=Meta.of(os.urandom(8), 0, 0).packed.hex())


def as_blob(text: str) -> bytes:
    """Return any text as bytes; SQLite takes no lone surrogates."""
    return text.encode("utf-8", "surrogatepass")


def as_text(blob: bytes) -> str:
    """Return what `as_blob` has made bytes of."""
    return blob.decode("utf-8", "surrogatepass")
