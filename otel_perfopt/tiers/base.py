"""What a cache asks of a tier behind its memory: a file, or a server that several processes share.

Tiers hold bytes. What they are bytes of, which errors are forgiven, and when a tier is left alone for a while, is the cache's
business; a tier only stores, finds, and never brings back what was invalidated.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

__all__ = ("Change", "Found", "Mark", "Record", "Tier", "TierUsage")

Mark = Any
"""A point in a tier's history of invalidations. Only the tier that gave it out knows what is inside."""


class Record(NamedTuple):
    """What a tier keeps of an entry.

    Attributes:
        value: the value, encoded.
        created: when it was loaded or set, in seconds since 1970.
        fresh_until: when it becomes stale, in seconds since 1970; `math.inf` for never.
        kept_until: when it can be forgotten; later than `fresh_until` for values that may be served stale.
        tags: the tags that invalidate it.
    """

    value: bytes
    created: float
    fresh_until: float
    kept_until: float
    tags: tuple[str, ...] = ()


class Found(NamedTuple):
    """What a tier answers to a request.

    Attributes:
        records: what is there, by key, stale records included; what was invalidated is not there.
        mark: stands for the moment of the answer; see `Tier.write`.
    """

    records: Mapping[bytes, Record]
    mark: Mark


class Change(NamedTuple):
    """Something that other processes have invalidated.

    Attributes:
        key: the key; None if it was not a single one.
        tag: the tag; None if it was none. Without a key and a tag, everything may have changed.
    """

    key: bytes | None = None
    tag: str | None = None


class TierUsage(NamedTuple):
    """How much is in a tier.

    Attributes:
        entries: how many records, those included that nobody can get any more and that were not swept yet.
        size: their bytes.
        max_size: the most bytes; None for no limit.
    """

    entries: int
    size: int
    max_size: int | None


class Tier(ABC):
    """A tier of a cache; for any number of threads.

    Every method may block, and raises `TierError` if the tier cannot be used at the moment.

    Attributes:
        kind: what it is called in metrics; of low cardinality.
        is_remote: whether it takes a network, so that calls do not belong on an event loop.
        is_exclusive: whether it lets only one process at a time load what it lacks, see `release`.
        on_loss: set by the cache; called with the keys of records that were set, and that the tier could not keep after all, and
            with the reason. What the tier has of these keys is older.
    """

    kind: ClassVar[str]
    is_remote: ClassVar[bool] = False
    is_exclusive: bool = False
    on_loss: Callable[[Sequence[bytes], Exception], None] | None = None

    @abstractmethod
    def read(self, keys: Sequence[bytes]) -> Found:
        """Return the records of some keys."""

    @abstractmethod
    def mark(self) -> Mark:
        """Return a mark for this moment."""

    @abstractmethod
    def write(self, records: Mapping[bytes, Record], mark: Mark, *, replaces: bool = False) -> None:
        """Keep records, soon; none that was invalidated after `mark`, here or in another process, is there afterwards.

        Args:
            records: the records by key.
            mark: taken before their values were made.
            replaces: whether other processes must not go on with the values they have, because these were set and not loaded.
        """

    def release(self, keys: Sequence[bytes]) -> None:  # noqa: B027 - most tiers have nothing to do
        """Let other processes load what was read before, was not there, and is not written after all."""

    @abstractmethod
    def delete(self, keys: Sequence[bytes]) -> bool:
        """Forget keys before returning; return whether there was any fresh one."""

    @abstractmethod
    def expire(self, keys: Sequence[bytes]) -> bool:
        """Make records stale before returning; return whether there was any fresh one."""

    @abstractmethod
    def invalidate_tag(self, tag: str) -> None:
        """Forget all records with a tag, before returning and in constant time."""

    @abstractmethod
    def clear(self) -> None:
        """Forget all records before returning."""

    @abstractmethod
    def watch(self, on_change: Callable[[Change], None]) -> None:
        """Have `on_change` called, in a background thread, for whatever other processes invalidate from now on."""

    @abstractmethod
    def add_counts(self, counts: Mapping[str, int]) -> Mapping[str, int]:
        """Add to the figures that outlive the process, and return their sums."""

    @abstractmethod
    def usage(self) -> TierUsage:
        """Return how much is in it."""

    @abstractmethod
    def flush(self) -> None:
        """Return when everything that was written before can be found by other processes."""

    @abstractmethod
    def close(self) -> None:
        """Flush, and let go of files and connections; a later call opens them again."""
