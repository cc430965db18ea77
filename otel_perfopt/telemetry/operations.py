"""The telemetry of measured operations: one record per name, shared by all functions that report under it."""

import threading
from collections import deque

from otel_perfopt._core.cells import Counts
from otel_perfopt.telemetry import instruments, names
from otel_perfopt.telemetry.family import Family, Gauges
from otel_perfopt.telemetry.latency import Latency

__all__ = ("OPERATIONS", "Operation", "operation", "operations")

MAX_MEMORY_DELTAS = 100


class OperationCounts(Counts):
    """Operations have no counts beside those of their histograms."""

    __slots__ = ()


OPERATIONS = Family(names.OPERATION_NAME, OperationCounts, series={})


class Operation:
    """What is known of the operations of one name.

    Attributes:
        name: the name that they are reported under.
        success: the durations of those that succeeded.
    """

    __slots__ = ("__weakref__", "_memory_deltas", "name", "success")

    def __init__(self, name: str) -> None:
        self.name = name
        self.success: Latency = OPERATIONS.latency(name, names.OPERATION_DURATION)
        self._memory_deltas: deque[float] | None = None  # of the few that are tracked

    def failure(self, error_type: str) -> Latency:
        """Return the durations of those that failed in this way."""
        return OPERATIONS.latency(self.name, names.OPERATION_DURATION, error_type)

    @property
    def memory_deltas(self) -> list[float]:
        """The last 100 changes of resident memory, in bytes."""
        return list(self._memory_deltas or ())

    def add_memory_delta(self, delta: float) -> None:
        """Note a change of resident memory in bytes."""
        if self._memory_deltas is None:
            with _lock:
                if self._memory_deltas is None:
                    self._memory_deltas = deque(maxlen=MAX_MEMORY_DELTAS)
        self._memory_deltas.append(delta)

    def mean_memory_delta(self) -> float | None:
        """Return the mean of the memory deltas; None if there are none."""
        deltas = self.memory_deltas
        return sum(deltas) / len(deltas) if deltas else None

    def reset(self) -> None:
        """Forget the memory deltas; for a forked child."""
        self._memory_deltas = None


_operations: dict[str, Operation] = {}
_lock = threading.RLock()
_GAUGES: Gauges = {names.OPERATION_MEMORY_DELTA: lambda operation: operation.mean_memory_delta()}


def operation(name: str) -> Operation:
    """Return the one record of `name`."""
    global _operations
    # The family's lock is never taken under this one: a finalizer that runs under the family's may want a record, too.
    reported = OPERATIONS.resolve(name)
    found = _operations.get(reported)
    if found is None:
        made = Operation(reported)
        with _lock:
            found = _operations.get(reported, made)
            if found is made:
                _operations = {**_operations, reported: made}
        if found is made:
            OPERATIONS.join(reported, found, _GAUGES)
    return found


def operations() -> list[Operation]:
    """Return all records."""
    return list(_operations.values())  # this dict is replaced, never changed


def _after_fork() -> None:
    global _lock
    _lock = threading.RLock()
    for found in _operations.values():
        found.reset()


instruments.on_fork(_after_fork)
