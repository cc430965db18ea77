"""The parts of a batch: what each caller has added, and what goes to the function together."""

from collections.abc import Hashable
from typing import Any, Generic, Literal, Protocol, TypeVar

from otel_perfopt.unset import UNSET

__all__ = ("Batch", "Entry", "Future", "Reason")

Reason = Literal["size", "weight", "timeout", "manual", "close"]


class Future(Protocol):
    """Where a caller gets its result."""

    def done(self) -> bool:
        """Whether there is a result, or nobody waits for one any more."""
        ...


F = TypeVar("F", bound=Future)


class Entry(Generic[F]):
    """What one caller has added.

    Args:
        item: the item.
        future: where the caller gets its result.
        since: when it was added.
        context: anything that the shell wants to know about the caller.
        weight: its weight.
        key: entries with the same key become one item of a batch; UNSET for an item of its own.

    Attributes:
        serial: entries are in the order of their serials.
        followers: later callers that get the result of this one's item.
        is_waiting: whether it waits for room in the queue.
        is_counted: whether it was counted as cancelled.
    """

    __slots__ = ("context", "followers", "future", "is_counted", "is_waiting", "item", "key", "serial", "since", "weight")

    serial: int

    def __init__(
        self, item: Any, future: F, since: float, context: Any = None, weight: float = 0.0, key: Hashable = UNSET
    ) -> None:
        self.item = item
        self.future = future
        self.since = since
        self.weight = weight
        self.key = key
        self.context = context
        self.followers: list[Entry[F]] | None = None
        self.is_waiting = self.is_counted = False

    def callers(self) -> "list[Entry[F]]":
        """Return the entries of all callers that get the result: this one and its followers."""
        return [self, *self.followers] if self.followers else [self]

    def is_gone(self) -> bool:
        """Whether no caller waits for the result any more."""
        return self.future.done() and all(follower.future.done() for follower in self.followers or ())


class Batch(Generic[F]):
    """Items that go to the function together.

    Attributes:
        entries: one for each item.
        reason: why it was due.
        serial: that of its first entry.
        is_begun: whether somebody runs it.
    """

    __slots__ = ("entries", "is_begun", "reason", "serial")

    def __init__(self, entries: list[Entry[F]], reason: Reason) -> None:
        self.entries = entries
        self.reason: Reason = reason
        self.serial = entries[0].serial
        self.is_begun = False

    def somebody(self) -> F | None:
        """Return the future of a caller that still waits; None if all are gone."""
        for entry in self.entries:
            for caller in entry.callers():
                if not caller.future.done():
                    return caller.future
        return None
