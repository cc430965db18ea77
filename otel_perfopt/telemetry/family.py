"""Families of components: what all caches, or all measured operations, have counted, by name.

Counts live under the name. Each component has its own cell, so that nobody shares a counter with another thread's object;
a name's figure is the sum over its live components and over those that are gone, so it never goes backwards.
"""

import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Generic, NamedTuple, TypeVar

from otel_perfopt._core.cells import Counts
from otel_perfopt.telemetry import instruments, names
from otel_perfopt.telemetry.latency import Latency
from otel_perfopt.telemetry.names import Metric

__all__ = ("Family", "Reading", "Series")

MAX_NAMES = 1000
MAX_ERROR_TYPES = 32

C = TypeVar("C", bound=Counts)


Gauges = Mapping[Metric, Callable[[Any], float | None]]
"""For each metric that is read from a live component, how; None leaves the component out."""


class Series(NamedTuple):
    """Where a count goes: a metric, and the attributes beside the name."""

    metric: Metric
    attributes: Mapping[str, str]


class Reading(NamedTuple):
    """One observed value."""

    attributes: dict[str, str]
    value: float


@dataclass(slots=True)
class _Named(Generic[C]):
    """Everything under one name."""

    name: str
    retired: C
    live: dict[int, tuple["weakref.ref[Any]", C, Gauges]] = field(default_factory=dict)
    latencies: dict[tuple[Metric, str | None], Latency] = field(default_factory=dict)


class Family(Generic[C]):
    """All components of one kind.

    Args:
        name_attribute: the attribute that holds a component's name.
        counts: the class of the counts.
        series: for each field of the counts, where it goes.
    """

    def __init__(self, name_attribute: str, counts: type[C], *, series: Mapping[str, Series]) -> None:
        self.name_attribute = name_attribute
        self._counts = counts
        self._series: dict[Metric, list[tuple[str, Mapping[str, str]]]] = {}
        for count, (metric, attributes) in series.items():
            self._series.setdefault(metric, []).append((count, attributes))
        self._names: dict[str, _Named[C]] = {}
        self._gone: deque[tuple[_Named[C], int]] = deque()
        self._serial = 0
        # Reentrant: a collection of garbage under this lock may end in a component's finalizer.
        self._lock = threading.RLock()
        instruments.add_family(self)

    def resolve(self, name: str) -> str:
        """Return the name to report `name` under: itself, or ``other`` when there are too many names."""
        with self._lock:
            return self._named(name).name

    def join(self, name: str, component: object, gauges: Gauges = MappingProxyType({})) -> C:
        """Return fresh counts for `component`, and read its gauges until it is collected."""
        instruments.ensure_registered()
        counts = self._counts()
        with self._lock:
            named = self._named(name)
            self._serial += 1
            token, gone = self._serial, self._gone

            def retire(_: object) -> None:
                # No lock here: this runs wherever the last reference is dropped.
                gone.append((named, token))

            named.live[token] = (weakref.ref(component, retire), counts, gauges)
        return counts

    def latency(self, name: str, metric: Metric, error_type: str | None = None) -> Latency:
        """Return the latencies of `metric` under `name`; failures have an `error_type`."""
        instruments.ensure_registered()
        with self._lock:
            named = self._named(name)
            found = named.latencies.get((metric, error_type))
            if found is None:
                if error_type is not None and len(named.latencies) >= MAX_ERROR_TYPES:
                    error_type = names.ERROR_TYPE_OTHER
                attributes = {self.name_attribute: named.name}
                if error_type is not None:
                    attributes[names.ERROR_TYPE] = error_type
                found = named.latencies.setdefault((metric, error_type), Latency(attributes))
            return found

    def observe(self, metric: Metric) -> Iterator[Reading]:
        """Yield the present value of every series of `metric`."""
        counted = self._series.get(metric, ())
        for named, sums, gauges in self._snapshot(metric):
            attributes = {self.name_attribute: named}
            for count, more in counted:
                yield Reading({**attributes, **more}, getattr(sums, count))
            values = [value for gauge, component in gauges if (value := gauge(component)) is not None]
            if values:
                yield Reading(attributes, sum(values))

    def latencies(self) -> list[tuple[Metric, Latency]]:
        """Return every series of latencies with its metric."""
        with self._lock:
            return [(key[0], latency) for named in self._names.values() for key, latency in named.latencies.items()]

    def reset_after_fork(self) -> None:
        """Start again from zero with a fresh lock; the components stay."""
        self._lock = threading.RLock()
        self._gone.clear()
        for named in self._names.values():
            named.retired.reset()
            for token, (reference, counts, _) in list(named.live.items()):
                counts.reset()
                if reference() is None:
                    del named.live[token]
            for latency in named.latencies.values():
                latency.reset()

    def _named(self, name: str) -> _Named[C]:
        self._retire()
        named = self._names.get(name)
        if named is None:
            if len(self._names) >= MAX_NAMES - 1:
                name = names.OTHER
            named = self._names.setdefault(name, _Named(name, self._counts()))
        return named

    def _snapshot(self, metric: Metric) -> list[tuple[str, C, list[tuple[Callable[[Any], float | None], Any]]]]:
        """Return names with their summed counts, and the gauges of `metric` to read after the lock is released."""
        result = []
        with self._lock:
            self._retire()
            for named in self._names.values():
                sums = self._counts()
                sums.add(named.retired)
                gauges = []
                for reference, counts, readers in named.live.values():
                    sums.add(counts)
                    component = reference()
                    if component is not None and metric in readers:
                        gauges.append((readers[metric], component))
                result.append((named.name, sums, gauges))
        return result

    def _retire(self) -> None:
        while self._gone:
            named, token = self._gone.popleft()
            _, counts, _ = named.live.pop(token)
            named.retired.add(counts)
