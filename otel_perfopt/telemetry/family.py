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
from otel_perfopt.telemetry.latency import BUFFER, Latency
from otel_perfopt.telemetry.names import Metric

__all__ = ("Family", "Reading", "Series", "Tally")

MAX_NAMES = 1000
MAX_ERROR_TYPES = 32

C = TypeVar("C", bound=Counts)


Gauge = Callable[[Any], float | Mapping[str, float] | None]
Gauges = Mapping[Metric, Gauge]
"""For each metric that is read from a live component, how; None leaves the component out, and a mapping has a value for each
value of the metric's second attribute."""


class Series(NamedTuple):
    """Where a count goes: a metric, and the attributes beside the name."""

    metric: Metric
    attributes: Mapping[str, str]


class Reading(NamedTuple):
    """One observed value."""

    attributes: dict[str, str]
    value: float


@dataclass(slots=True)
class Tally:
    """A count with attributes of its own; add to `n`.

    Attributes:
        attributes: its attributes.
        n: the count.
    """

    attributes: dict[str, str]
    n: int = 0


@dataclass(slots=True)
class _Named(Generic[C]):
    """Everything under one name.

    Attributes:
        name: what it is reported as.
        retired: the counts of those that are gone, and which of them was added last; one tuple, so that it changes in one step.
        live: the others, with their counts and gauges.
        latencies: by metric and error type.
        tallies: by metric and the values of its attributes.
    """

    name: str
    retired: tuple[C, int]
    live: dict[int, tuple["weakref.ref[Any]", C, Gauges]] = field(default_factory=dict)
    latencies: dict[tuple[Metric, str | None], Latency] = field(default_factory=dict)
    tallies: dict[tuple[Any, ...], Tally] = field(default_factory=dict)


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
        self._gauged: set[Metric] = set()
        for count, (metric, attributes) in series.items():
            self._series.setdefault(metric, []).append((count, attributes))
        self._names: dict[str, _Named[C]] = {}
        self._gone: deque[tuple[_Named[C], int]] = deque()
        self._serial = 0
        # Reentrant: a collection of garbage under this lock may run a finalizer that uses a component or reads a report. Hence
        # walks go over copies (even list(items()) may be interrupted), and nothing is retired inside a walk or a retirement.
        self._lock = threading.RLock()
        self._is_walking = False
        instruments.add_family(self)

    def resolve(self, name: str) -> str:
        """Return the name to report `name` under: itself, or ``other`` when there are too many names."""
        with self._lock:
            return self._named(name).name

    def join(self, name: str, component: object, gauges: Gauges = MappingProxyType({}), counts: C | None = None) -> C:
        """Return the counts of `component`, fresh ones if it brings none, and read its gauges until it is collected."""
        instruments.ensure_registered()
        counts = self._counts() if counts is None else counts
        with self._lock:
            named = self._named(name)
            self._gauged.update(gauges)
            self._serial += 1
            token, gone = self._serial, self._gone

            def retire(_: object) -> None:
                # No lock here: this runs wherever the last reference is dropped.
                gone.append((named, token))

            named.live[token] = (weakref.ref(component, retire), counts, gauges)
        return counts

    def latency(self, name: str, metric: Metric, error_type: str | None = None, *, size: int = BUFFER) -> Latency:
        """Return the latencies of `metric` under `name`; failures have an `error_type`."""
        instruments.ensure_registered()
        with self._lock:
            named = self._named(name)
            found = named.latencies.get((metric, error_type))
            if found is None:
                if error_type is not None:
                    error_type = names.ERROR_TYPE_OTHER if len(named.latencies) >= MAX_ERROR_TYPES else names.clean(error_type)
                attributes = {self.name_attribute: named.name}
                if error_type is not None:
                    attributes[names.ERROR_TYPE] = error_type
                found = named.latencies.setdefault((metric, error_type), Latency(attributes, size))
            return found

    def tally(self, name: str, metric: Metric, attributes: Mapping[str, str]) -> Tally:
        """Return the count of `metric` under `name` with these attributes, whose values are not known beforehand."""
        instruments.ensure_registered()
        with self._lock:
            named = self._named(name)
            found = named.tallies.get((metric, *attributes.values()))
            if found is None:
                told = {attribute: names.clean(value) for attribute, value in attributes.items()}
                if names.ERROR_TYPE in told and len(named.tallies) >= MAX_ERROR_TYPES:
                    told[names.ERROR_TYPE] = names.ERROR_TYPE_OTHER
                tally = Tally({self.name_attribute: named.name, **told})
                found = named.tallies.setdefault((metric, *told.values()), tally)
            return found

    def observe(self, metric: Metric) -> Iterator[Reading]:
        """Yield the present value of every series of `metric`."""
        for tally in self._tallies(metric):
            yield Reading(tally.attributes, tally.n)
        counted = self._series.get(metric, ())
        if not counted and metric not in self._gauged:
            return
        for name, sums, gauges in self._snapshot(metric):
            attributes = {self.name_attribute: name}
            for count, more in counted:
                yield Reading({**attributes, **more}, getattr(sums, count))
            totals: dict[str | None, float] = {}
            for gauge, component in gauges:
                for part, value in _read(gauge, component):
                    totals[part] = totals.get(part, 0) + value
            for part, total in totals.items():
                yield Reading(attributes if part is None else {**attributes, metric.attributes[1]: part}, total)

    def latencies(self) -> list[tuple[Metric, Latency]]:
        """Return every series of latencies with its metric."""
        with self._lock:
            found = self._names.copy().values()
            return [(key[0], latency) for named in found for key, latency in named.latencies.copy().items()]

    def reset_after_fork(self) -> None:
        """Start again from zero with a fresh lock; the components stay."""
        self._lock = threading.RLock()
        self._is_walking = False
        self._gone.clear()
        for named in self._names.values():
            named.retired = (self._counts(), 0)
            for token, (reference, counts, _) in list(named.live.items()):
                counts.reset()
                if reference() is None:
                    del named.live[token]
            for latency in named.latencies.values():
                latency.reset()
            for tally in named.tallies.values():
                tally.n = 0

    def _named(self, name: str) -> _Named[C]:
        self._retire()
        name = names.clean(name)
        named = self._names.get(name)
        if named is None:
            if len(self._names) >= MAX_NAMES - 1:
                name = names.OTHER
            named = self._names.setdefault(name, _Named(name, (self._counts(), 0)))
        return named

    def _tallies(self, metric: Metric) -> list[Tally]:
        with self._lock:
            found = self._names.copy().values()
            return [tally for named in found for key, tally in named.tallies.copy().items() if key[0] is metric]

    def _snapshot(self, metric: Metric) -> list[tuple[str, C, list[tuple[Gauge, Any]]]]:
        """Return names with their summed counts, and the gauges of `metric` to read after the lock is released."""
        result = []
        with self._lock:
            self._retire()
            outer, self._is_walking = self._is_walking, True
            try:
                for named in self._names.copy().values():
                    sums, last = self._counts(), named.retired[1]
                    sums.add(named.retired[0])
                    gauges = []
                    for token, (reference, counts, readers) in named.live.copy().items():
                        if token != last:
                            sums.add(counts)
                        if metric in readers:
                            gauges.append((readers[metric], reference()))
                    result.append((named.name, sums, gauges))
            finally:
                self._is_walking = outer
        return result

    def _retire(self) -> None:
        """Add the counts of components that are gone to those of their name; an interruption loses and repeats nothing."""
        if self._is_walking:
            return
        self._is_walking = True
        try:
            for _ in range(len(self._gone)):  # not what goes meanwhile: that could be without end
                named, token = self._gone[0]
                retired, last = named.retired
                if token in named.live and token != last:
                    merged = self._counts()
                    merged.add(retired)
                    merged.add(named.live[token][1])
                    named.retired = (merged, token)
                named.live.pop(token, None)
                self._gone.popleft()
        finally:
            self._is_walking = False


def _read(gauge: Gauge, component: Any) -> list[tuple[str | None, float]]:
    try:
        value = None if component is None else gauge(component)
        if value is None:
            return []
        return [*value.items()] if isinstance(value, Mapping) else [(None, value)]
    except Exception:  # noqa: BLE001 - it may run user code, and the readings of the others count
        return []
