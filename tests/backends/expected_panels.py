"""What each query of each panel answers, by the reports at the beginning and at the end of a time: both say the same.

A figure belongs to the names that it is labelled with. Rates are what was added in the time, per second. Of a percentile, a
report knows in which bucket of the histogram it lies, or between which.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from otel_perfopt.telemetry.names import SECONDS

__all__ = ("PANELS", "SOME", "Facts", "Figures", "requests")

Figures = dict[frozenset[str], Any]
BOUNDS = (0.0, *SECONDS)
DB = "database"


@dataclass(frozen=True)
class Within:
    """Equal to whatever lies between two bounds."""

    low: float
    high: float

    def __eq__(self, value: object) -> bool:
        return isinstance(value, float) and self.low <= value <= self.high * 1.000001

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True)
class Facts:
    """Two reports, as dicts, and the seconds between them."""

    before: Any
    after: Any
    seconds: float

    def now(self, kind: str, *path: str) -> Figures:
        """Figures at the end."""
        return dict(_figures(self.after[kind], path))

    def added(self, kind: str, *path: str) -> Figures:
        """By how much figures grew."""
        before = dict(_figures(self.before[kind], path))
        return {names: value - before.get(names, 0.0) for names, value in _figures(self.after[kind], path)}

    def rate(self, figures: Figures) -> Figures:
        """What was added, per second."""
        return {names: near(value / self.seconds) for names, value in figures.items()}


def _figures(rows: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[tuple[frozenset[str], float]]:
    for name, row in rows.items():
        value = row
        for step in path:
            value = value[step]
        yield from _leaves(frozenset([name]), value)


def _leaves(names: frozenset[str], value: Any) -> Iterator[tuple[frozenset[str], float]]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _leaves(names | {name}, inner)
    else:
        yield names, float(value or 0)


def near(value: float) -> Any:
    """Equal to a value but for the millisecond by which a window is longer than the time between its first and last sample."""
    return pytest.approx(value, rel=2e-3)


def one(value: Any) -> Figures:
    """A figure without names."""
    return {frozenset(): value}


def total(figures: Figures) -> float:
    """The sum."""
    return float(sum(figures.values()))


def plus(*figures: Figures) -> Figures:
    """Several added up, by the name of the component alone."""
    result: Figures = {}
    components = {names for each in figures for names in each if len(names) == 1}
    for names, value in (item for each in figures for item in each.items()):
        key = next((short for short in components if short <= names), names)
        result[key] = result.get(key, 0.0) + value
    return result


def per(parts: Figures, wholes: Figures) -> Figures:
    """Each part per whole."""
    return {names: near(parts.get(names, 0.0) / whole) for names, whole in wholes.items() if whole}


def ratio(part: Figures, whole: Figures) -> Figures:
    """All parts per all wholes."""
    return one(near(total(part) / total(whole)))


def without(figures: Figures, *names: str) -> Figures:
    """Those of the others."""
    return {key: value for key, value in figures.items() if not key & set(names)}


def only(figures: Figures, *names: str) -> Figures:
    """Those of some."""
    return {key: value for key, value in figures.items() if key & set(names)}


def named(figures: Figures, name: str) -> Figures:
    """With one more name."""
    return {key | {name}: value for key, value in figures.items()}


def between(seconds: float, longest: float) -> Within:
    """The buckets from that of one duration to that of another."""
    low, high = bisect_left(BOUNDS, seconds), min(bisect_left(BOUNDS, longest), len(BOUNDS) - 1)
    return Within(BOUNDS[max(0, low - 1)], BOUNDS[high])


def percentiles(kind: str, durations: str, errors: str = "", *, only_of: str = "") -> Callable[[Facts], Figures]:
    """Where all percentiles lie: between the shortest and the longest; how long failures took, a report does not say."""

    def figures(facts: Facts) -> Figures:
        found = {}
        succeeded, failed = facts.added(kind, durations, "count"), facts.added(kind, errors) if errors else {}
        for name, row in facts.after[kind].items():
            has_failed = any(count for names, count in failed.items() if name in names)
            if (succeeded[frozenset([name])] or has_failed) and (name == only_of if only_of else name != DB):
                shortest, longest = (0.0, BOUNDS[-1]) if has_failed else (row[durations]["min"], row[durations]["max"])
                found[frozenset([name])] = between(shortest, longest)
        return found

    return figures


def requests(facts: Facts) -> Figures:
    """Look-ups."""
    return plus(*(facts.added("caches", f"{result}_count") for result in ("hit", "miss", "stale")))


def results(facts: Facts) -> Figures:
    """Look-ups by result."""
    found = [named(facts.added("caches", f"{result}_count"), result) for result in ("hit", "miss", "stale")]
    return facts.rate(found[0] | found[1] | found[2])


def load_time(facts: Facts) -> Within:
    """Seconds in loads, per second; those of failures, which a report does not say, are short here."""
    seconds = total(facts.added("caches", "loads", "total")) / facts.seconds
    return Within(seconds * 0.99, seconds * 1.2)


def loads(facts: Facts) -> Figures:
    """Loads, failed ones included."""
    return plus(facts.added("caches", "loads", "count"), facts.added("caches", "load_errors"))


def time_spared(facts: Facts) -> Figures:
    """The hits of each cache in loads of its own mean length; failures, which a report does not time, make the mean shorter."""
    hits, seconds, number = facts.added("caches", "hit_count"), facts.added("caches", "loads", "total"), loads(facts)
    spared = total({name: hits[name] * seconds[name] / count for name, count in number.items() if count}) / facts.seconds
    return one(Within(spared * 0.99, spared * 1.2))


def items(facts: Facts) -> Figures:
    """Items, failed ones included."""
    return plus(facts.added("batches", "item_count"), facts.added("batches", "item_errors"))


def sizes(report: Any) -> Figures:
    """Items in batches so far."""
    return {frozenset([name]): row["mean_size"] * row["waits"]["count"] for name, row in report["batches"].items()}


def sizes_added(facts: Facts) -> Figures:
    """Items in batches."""
    before = sizes(facts.before)
    return {names: value - before[names] for names, value in sizes(facts.after).items()}


def flushes(facts: Facts) -> Figures:
    """Batches."""
    return facts.added("batches", "waits", "count")


def limited(facts: Facts, kind: str, used: str, limit: str) -> Figures:
    """Figures per limit, where there is one."""
    limits = facts.now(kind, limit)
    return {names: near(value / limits[names]) for names, value in facts.now(kind, used).items() if limits[names]}


def operation(percentile: str) -> Callable[[Facts], Figures]:
    """The bucket of a percentile of the durations, which are the same each time."""
    return lambda facts: {
        names: between(value, value)
        for names, value in facts.now("operations", f"{percentile}_duration").items()
        if names & {"order", "round"}
    }


def lazy_loads(facts: Facts) -> Figures:
    """Lazy loads, failed ones included."""
    return plus(facts.now("lazy_loads", "loads", "count"), facts.now("lazy_loads", "load_errors"))


PANELS: dict[str, Callable[[Facts], Figures]] = {
    "overview: Alerts": lambda _: one(1.0),
    "overview: Cache hit ratio": lambda f: ratio(f.added("caches", "hit_count"), requests(f)),
    "overview: Fullest pool": lambda f: one(max(f.now("pools", "utilization").values())),
    "overview: Waiting items": lambda f: one(total(f.now("batches", "queue_size"))),
    "overview: Calls": lambda f: one(near(total(f.added("operations", "count")) / f.seconds)),
    "overview: Errors": lambda f: ratio(f.added("operations", "error_count"), f.added("operations", "count")),
    "overview: Hit ratio": lambda f: per(f.added("caches", "hit_count"), requests(f)),
    "overview: Load latency, p95": percentiles("caches", "loads", "load_errors"),
    "overview: Operations, p95": operation("p95"),
    "overview: Pool use per limit": lambda f: f.now("pools", "utilization"),
    "overview: Batch queue per limit": lambda f: limited(f, "batches", "queue_size", "max_queue"),
    "overview: Items": lambda f: f.rate(items(f)),
    "caches: Hit ratio": lambda f: ratio(f.added("caches", "hit_count"), requests(f)),
    "caches: Look-ups": lambda f: one(near(total(requests(f)) / f.seconds)),
    "caches: Time in loads": lambda f: one(load_time(f)),
    "caches: Time spared": time_spared,
    "caches: Hit ratio by cache": lambda f: per(f.added("caches", "hit_count"), requests(f)),
    "caches: Look-ups by result": results,
    "caches: Hits by tier": lambda f: f.rate(f.added("caches", "hits_by_tier")),
    "caches: Load latency": percentiles("caches", "loads", "load_errors"),
    "caches: Spread of load durations": lambda f: named(one(near(total(loads(f)))), "+Inf"),
    "caches: Failed loads": lambda f: f.rate(f.added("caches", "load_errors")),
    "caches: Loads under way and their waiters": lambda f: f.now("caches", "loads_in_flight"),
    "caches: Loads under way and their waiters: B": lambda f: f.now("caches", "load_waiters"),
    "caches: Refreshes": lambda f: f.rate(f.added("caches", "refreshes")),
    "caches: Entries per limit": lambda f: limited(f, "caches", "size", "max_size"),
    "caches: Memory": lambda f: f.now("caches", "memory_usage"),
    "caches: Evictions": lambda f: f.rate(f.added("caches", "evictions")),
    "caches: Invalidations": lambda f: f.rate(f.added("caches", "invalidations")),
    "caches: Failed calls of tiers": lambda f: f.rate(f.added("caches", "tier_errors")),
    "caches: Breakers": lambda f: {frozenset([name, tier]): 1.0 for name in f.after["caches"] for tier in _open(f, name)},
    "pools: Fullest pool": lambda f: one(max(f.now("pools", "utilization").values())),
    "pools: Callers waiting": lambda f: one(total(f.now("pools", "waiting"))),
    "pools: Acquires": lambda f: one(near(total(f.added("pools", "acquires")) / f.seconds)),
    "pools: Leaks": lambda f: one(near(total(f.added("pools", "leaks")))),
    "pools: Use per limit": lambda f: without(f.now("pools", "utilization"), DB),
    "pools: Waiting callers": lambda f: without(f.now("pools", "waiting"), DB),
    "pools: Timeouts and refusals": lambda f: f.rate(f.added("pools", "timeouts")),
    "pools: Timeouts and refusals: B": lambda f: f.rate(f.added("pools", "rejected")),
    "pools: Wait time": percentiles("pools", "waits"),
    "pools: Use time": percentiles("pools", "uses"),
    "pools: Spread of wait times": lambda f: named(one(near(total(without(f.added("pools", "waits", "count"), DB)))), "+Inf"),
    "pools: Resources by state": lambda f: (
        named(without(f.now("pools", "in_use"), DB), "used") | named(without(f.now("pools", "available"), DB), "idle")
    ),
    "pools: Created and destroyed": lambda f: f.rate(f.added("pools", "total_created")),
    "pools: Created and destroyed: B": lambda f: f.rate(f.added("pools", "destroyed")),
    "pools: Creation time": percentiles("pools", "creations", "create_errors"),
    "pools: Failed creations": lambda f: f.rate(f.added("pools", "create_errors")),
    "pools: Connections in use per limit": lambda f: only(f.now("pools", "utilization"), DB),
    "pools: Pending requests and timeouts": lambda f: only(f.now("pools", "waiting"), DB),
    "pools: Pending requests and timeouts: B": lambda f: f.rate(only(f.added("pools", "timeouts"), DB)),
    "pools: Connection wait time": percentiles("pools", "waits", only_of=DB),
    "batches: Items": lambda f: one(near(total(items(f)) / f.seconds)),
    "batches: Failed items": lambda f: ratio(f.added("batches", "item_errors"), items(f)),
    "batches: Items per batch": lambda f: ratio(sizes_added(f), flushes(f)),
    "batches: Waiting items": lambda f: one(total(f.now("batches", "queue_size"))),
    "batches: Items by processor": lambda f: f.rate(items(f)),
    "batches: Batches by reason": lambda f: f.rate(f.added("batches", "flushes")),
    "batches: Mean batch size": lambda f: per(sizes_added(f), flushes(f)),
    "batches: Queue per limit": lambda f: limited(f, "batches", "queue_size", "max_queue"),
    "batches: Waiting items and batches in progress": lambda f: f.now("batches", "queue_size"),
    "batches: Waiting items and batches in progress: B": lambda f: f.now("batches", "in_flight"),
    "batches: Wait of the first item": percentiles("batches", "waits"),
    "batches: Batch duration": percentiles("batches", "durations", "batch_errors"),
    "batches: Failed items by error": lambda f: f.rate(f.added("batches", "item_errors")),
    "batches: Failed items by error: B": lambda f: f.rate(f.added("batches", "batch_errors")),
    "batches: Spread of batch sizes": lambda f: named(one(near(total(flushes(f)))), "+Inf"),
    "operations: Calls": lambda f: one(near(total(f.added("operations", "count")) / f.seconds)),
    "operations: Errors": lambda f: ratio(f.added("operations", "error_count"), f.added("operations", "count")),
    "operations: Mean duration": lambda f: ratio(f.added("operations", "total_duration"), f.added("operations", "count")),
    "operations: Calls by operation": lambda f: f.rate(f.added("operations", "count")),
    "operations: Errors by operation": lambda f: per(f.added("operations", "error_count"), f.added("operations", "count")),
    "operations: Duration": operation("p50"),
    "operations: Duration: B": operation("p95"),
    "operations: Duration: C": operation("p99"),
    "operations: Time in operations": lambda f: f.rate(f.added("operations", "total_duration")),
    "operations: Spread of durations": lambda f: named(one(near(total(f.added("operations", "count")))), "+Inf"),
    "operations: Failed calls by error": lambda f: f.rate(f.added("operations", "errors")),
    "operations: Memory per call": lambda f: f.now("operations", "avg_memory_delta"),
    "operations: Lazy loads so far": lazy_loads,
    "operations: Lazy load duration": percentiles("lazy_loads", "loads", "load_errors"),
    "operations: Failed lazy loads": lambda f: f.rate(f.added("lazy_loads", "load_errors")),
    "operations: Events": lambda f: f.rate({frozenset(["order.paid"]): 1.0, frozenset(["order.lost"]): 1.0}),
    "operations: Subscribers": lambda f: f.rate({frozenset(["order.paid"]): 1.0}),
    "operations: Subscribers: B": lambda f: f.rate({frozenset(["order.lost"]): 1.0}),
}
"""By dashboard and title; a second or third query that is not here answers like the first, for another percentile."""

SOME = ("Spread", "Operations, p95", "operations: Duration", "operations: Events", "operations: Subscribers")
"""Panels that answer more than is written here: all buckets, durations that nobody has chosen, events that come by themselves."""


def _open(facts: Facts, cache: str) -> list[str]:
    found: list[str] = facts.after["caches"][cache]["open_breakers"]
    return found
