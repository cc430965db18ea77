"""How records look in Redis, and what says which of them are valid.

Little-endian, with doubles for all numbers: whole ones up to 2**53 are exact, and Lua knows no others. A record is its terms, its
tags and its value. The terms: ``born`` and ``seq`` of the mark that it was made after; and when the value was made, when it
becomes stale and until when it is kept, in seconds of Redis's clock.
"""

import struct
from typing import NamedTuple

from otel_perfopt.tiers import Record

__all__ = ("HEAD", "MOMENT", "Head", "Mark", "pack_tags", "pack_terms", "parse")

HEAD = struct.Struct("<4d")
MOMENT = struct.Struct("<5d")  # a head, and the time
_TERMS = struct.Struct("<5d")
_ORDER = struct.Struct("<3dB3d")
_SIZE = struct.Struct("<I")


class Mark(NamedTuple):
    """A moment in the history of a namespace.

    Attributes:
        born: which life of it; another one begins when Redis has lost its data.
        seq: the number of the last change.
        time: when that was, in seconds of Redis's clock.
    """

    born: int
    seq: int
    time: float


class Head(NamedTuple):
    """What says whether a record is valid.

    Attributes:
        born: which life of the namespace it is.
        seq: the number of the last change.
        cleared: the number of the last change of everything.
        tagged: the number of the last change of a tag.
    """

    born: float
    seq: float
    cleared: float
    tagged: float


def pack_tags(tags: tuple[str, ...]) -> bytes:
    """Return the tags of a record, as bytes."""
    encoded = [tag.encode("utf-8", "surrogatepass") for tag in tags]
    return _SIZE.pack(len(encoded)) + b"".join(_SIZE.pack(len(tag)) + tag for tag in encoded)


def pack_terms(record: Record, mark: Mark, now: float, longest: float, *, replaces: bool) -> bytes:
    """Return what a record is to be kept with.

    Args:
        record: the record.
        mark: the moment before its value was made.
        now: the time of day, by the clock that the record's times are of.
        longest: the most seconds to keep it.
        replaces: whether it was set, and not loaded.
    """
    fresh_for = min(record.fresh_until - now, longest)
    keep_for = min(record.kept_until - now, longest)
    return _ORDER.pack(mark.born, mark.seq, mark.time, replaces, now - record.created, fresh_for, keep_for)


def parse(data: bytes, head: Head, ahead: float) -> tuple[Record, float] | None:
    """Return a record and the number of its mark; None if it was invalidated, unless that was by a tag, or is no record.

    Args:
        data: what Redis has.
        head: the head, read with it.
        ahead: the seconds by which the clock of this process is ahead of Redis's.
    """
    try:
        born, made, created, fresh_until, kept_until = _TERMS.unpack_from(data)
        if born != head.born or made < head.cleared:
            return None
        tags, position = _unpack_tags(data)
    except (struct.error, UnicodeDecodeError):
        return None
    return Record(data[position:], created + ahead, fresh_until + ahead, kept_until + ahead, tags), made


def _unpack_tags(data: bytes) -> tuple[tuple[str, ...], int]:
    """Return the tags of a record, and where its value begins."""
    (count,) = _SIZE.unpack_from(data, _TERMS.size)
    position = _TERMS.size + _SIZE.size
    tags: list[str] = []
    for _ in range(count):
        (size,) = _SIZE.unpack_from(data, position)
        position += _SIZE.size + size
        tags.append(data[position - size : position].decode("utf-8", "surrogatepass"))
    return tuple(tags), position
