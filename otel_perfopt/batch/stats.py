"""What a batch processor says about itself."""

from dataclasses import dataclass

__all__ = ("BatchStats",)


@dataclass(frozen=True, slots=True)
class BatchStats:
    """The state of one batch processor at one moment.

    Attributes:
        name: its name.
        queue_size: items that wait for a batch.
        max_queue: the most items that may wait; None for no limit.
        waiting: callers that wait for room in the queue.
        in_flight: batches in progress.
        item_count: items whose callers got a result.
        failed_count: items whose callers got an error, or have cancelled.
        flushes_size: batches that were handed to the function because there were enough items.
        flushes_weight: those because the items weighed enough.
        flushes_timeout: those because the first item had waited long enough.
        flushes_manual: those because of a `flush`.
        flushes_close: those because of a `close`, or of the end of the process.
    """

    name: str
    queue_size: int
    max_queue: int | None
    waiting: int
    in_flight: int
    item_count: int
    failed_count: int
    flushes_size: int
    flushes_weight: int
    flushes_timeout: int
    flushes_manual: int
    flushes_close: int

    @property
    def flush_count(self) -> int:
        """Batches that were handed to the function."""
        return self.flushes_size + self.flushes_weight + self.flushes_timeout + self.flushes_manual + self.flushes_close
