"""What the state machine of a pool deals with: places for resources, callers, and things to do."""

import math
from collections.abc import Callable
from typing import Any, Generic, Literal, NamedTuple, TypeVar

__all__ = ("Hold", "Job", "Reason", "Slot", "State", "Waiter")

State = Literal["create", "ready", "check", "reset", "gone"]
"""Where in its life a resource is. Three of these stand for a job of the same name; what is ready is idle or lent."""

Reason = Literal["idle", "lifetime", "invalid", "reset", "requested", "lost", "drain", "resize", "close"]
"""Why a resource is destroyed."""


class Slot:
    """A place for one resource.

    Args:
        number: of this slot, never used again.

    Attributes:
        state: where in its life the resource is.
        value: the resource; absent while somebody holds it, if its collection can be noticed.
        expires: when it has to go at the latest; in the past if it has to go at its next return.
        reason: why it has to go then.
        idle_since: when it was last returned, or its creation was begun.
        lease: the number of its last lease.
        missing: since when, and since which lease, it has been neither idle nor lent.
        is_started: whether somebody is at the job that the state stands for.
    """

    __slots__ = ("expires", "idle_since", "is_started", "lease", "missing", "number", "reason", "state", "value")

    def __init__(self, number: int) -> None:
        self.number = number
        self.state: State = "create"
        self.value: Any = None
        self.expires = math.inf
        self.reason: Reason = "lifetime"
        self.idle_since = 0.0
        self.lease = 0
        self.missing: tuple[float, int] | None = None
        self.is_started = False


S = TypeVar("S", bound=Slot)


class Hold(Generic[S]):
    """Somebody's hold on a slot.

    Attributes:
        slot: the slot; None before and after.
        lease: the number of the lease.
    """

    __slots__ = ("lease", "slot")

    slot: S | None
    lease: int


class Waiter(Hold[S]):
    """A caller in the line.

    Args:
        wake: called when there is a slot or an error, perhaps twice; must not be user code.

    Attributes:
        error: why it gets nothing.
        is_fresh: whether the resource was created for it.
    """

    __slots__ = ("error", "is_fresh", "wake")

    def __init__(self, wake: Callable[[], object]) -> None:
        self.wake = wake
        self.slot = None
        self.error: BaseException | None = None
        self.is_fresh = False


class Job(NamedTuple):
    """Something that the shell has to do."""

    kind: Literal["create", "check", "reset", "dispose"]
    slot: Any
