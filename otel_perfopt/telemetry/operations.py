"""The telemetry of measured operations: one record per name, shared by all functions that report under it."""

import threading
from collections import deque

from otel_perfopt._core.cells import Counts
from otel_perfopt.telemetry import instruments, names
from otel_perfopt.telemetry.family import Family
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
        memory_deltas: the last 100 changes of resident memory, in bytes.
    """

    __slots__ = ("__weakref__", "memory_deltas", "name", "success")

    def __init__(self, name: str) -> None:
        self.name = name
        self.success: Latency = OPERATIONS.latency(name, names.OPERATION_DURATION)
        self.memory_deltas: deque[float] = deque(maxlen=MAX_MEMORY_DELTAS)

    def failure(self, error_type: str) -> Latency:
        """Return the durations of those that failed in this way."""
        return OPERATIONS.latency(self.name, names.OPERATION_DURATION, error_type)

    def mean_memory_delta(self) -> float | None:
        """Return the mean of the memory deltas; None if there are none."""
        deltas = list(self.memory_deltas)
        return sum(deltas) / len(deltas) if deltas else None


_operations: dict[str, Operation] = {}
_lock = threading.RLock()


def operation(name: str) -> Operation:
    """Return the one record of `name`."""
    with _lock:
        reported = OPERATIONS.resolve(name)
        found = _operations.get(reported)
        if found is None:
            found = _operations[reported] = Operation(reported)
            OPERATIONS.join(reported, found, {names.OPERATION_MEMORY_DELTA: lambda operation: operation.mean_memory_delta()})
        return found


def operations() -> list[Operation]:
    """Return all records."""
    with _lock:
        return list(_operations.values())


def _after_fork() -> None:
    global _lock
    _lock = threading.RLock()
    for found in _operations.values():
        found.memory_deltas.clear()


instruments.on_fork(_after_fork)
