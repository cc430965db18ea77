"""What a pool says about itself."""

from dataclasses import dataclass

__all__ = ("PoolStats",)


@dataclass(frozen=True, slots=True)
class PoolStats:
    """The state of one pool at one moment.

    Attributes:
        name: its name.
        total_created: resources created so far.
        available: resources that are idle.
        in_use: resources that somebody holds, and those that are being validated or reset.
        creating: resources that are being created.
        waiting: callers that wait.
        min_size: resources that are kept even if nobody uses them.
        max_size: the most resources.
        acquires: callers that got a resource so far.
        timeouts: callers that got none before their deadline so far.
        rejected: callers that were refused because too many waited.
        leaks: resources held for longer than ``leak_after``, or dropped without being released.
        destroyed: resources destroyed so far, by reason.
    """

    name: str
    total_created: int
    available: int
    in_use: int
    creating: int
    waiting: int
    min_size: int
    max_size: int
    acquires: int
    timeouts: int
    rejected: int
    leaks: int
    destroyed: dict[str, int]

    @property
    def utilization(self) -> float:
        """Resources in use per `max_size`."""
        return self.in_use / self.max_size
