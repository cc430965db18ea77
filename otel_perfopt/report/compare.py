"""Two reports compared: what became better or worse, by how much, and what is too little to say.

A time has changed if it differs by more than 5 %. A rate has changed if chance alone would hardly make the difference, and
the rarer of its two outcomes differs by more than 5 %. Stale answers, evictions and timeouts are counted per request.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from otel_perfopt.report.model import BatchRow, CacheRow, LazyRow, OperationRow, PerformanceReport, PoolRow

__all__ = ("Change", "Comparison", "Figure", "compare")

T = TypeVar("T")

NOISE = 0.05
FEW = 20
BY_CHANCE = 3.0  # standard deviations that chance alone rarely makes

_SAMPLES = {"p99": 100}  # below that, a percentile is as good as the maximum


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure in both reports.

    Attributes:
        name: what it is, such as ``"hit rate"``.
        kind: "rate", "time" or "count".
        before: its first value; None if it had none.
        after: its second value; None if it has none.
        verdict: "better", "worse", "same", "few" for too few samples, or "" for what is neither good nor bad, such as a count.
    """

    name: str
    kind: str
    before: float | None
    after: float | None
    verdict: str

    @property
    def change(self) -> float | None:
        """The difference, of a time or count relative to the value before; None where there is none."""
        if self.before is None or self.after is None:
            return None
        if self.kind == "rate":
            return self.after - self.before
        return self.after / self.before - 1 if self.before else None

    @property
    def weight(self) -> float:
        """How large a change is, whatever its direction; 0 for one that does not matter."""
        if self.verdict not in {"better", "worse"} or self.before is None or self.after is None:
            return 0.0
        if self.kind == "rate":
            return max(_ratio(self.before, self.after), _ratio(1 - self.before, 1 - self.after))
        return _ratio(self.before, self.after, 1e-9)


@dataclass(frozen=True, slots=True)
class Change:
    """A component in both reports.

    Attributes:
        kind: "cache", "pool", "batch", "lazy load" or "operation".
        name: its name.
        figures: its figures.
    """

    kind: str
    name: str
    figures: tuple[Figure, ...]

    @property
    def weight(self) -> float:
        """The largest weight of its figures."""
        return max(figure.weight for figure in self.figures)


@dataclass(frozen=True, slots=True)
class Comparison:
    """What became of a report.

    Attributes:
        changes: what is in both, the largest change first.
        new: kinds and names of what is only in the second.
        gone: kinds and names of what is only in the first.
    """

    changes: list[Change]
    new: list[tuple[str, str]]
    gone: list[tuple[str, str]]

    def count(self, verdict: str) -> int:
        """Return how many figures have this verdict."""
        return sum(figure.verdict == verdict for change in self.changes for figure in change.figures)

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as plain dicts, lists, numbers and strings."""
        changes = [
            {
                "kind": change.kind,
                "name": change.name,
                "figures": [asdict(figure) | {"change": figure.change} for figure in change.figures],
            }
            for change in self.changes
        ]
        return {"changes": changes, "new": self.new, "gone": self.gone}

    def to_json(self, *, indent: int | None = 2) -> str:
        """Return the comparison as JSON.

        Args:
            indent: spaces per level; None for one line.
        """
        return json.dumps(self.to_dict(), indent=indent, ensure_ascii=False)


def compare(before: PerformanceReport, after: PerformanceReport) -> Comparison:
    """Return what became better or worse from one report to the other.

    >>> from otel_perfopt.report.model import Summary
    >>> nothing = PerformanceReport(Summary(), {}, {})
    >>> compare(nothing, nothing).changes
    []
    """
    changes = [
        *_changes("cache", before.caches, after.caches, _cache),
        *_changes("pool", before.pools, after.pools, _pool),
        *_changes("batch", before.batches, after.batches, _batch),
        *_changes("lazy load", before.lazy_loads, after.lazy_loads, _lazy_load),
        *_changes("operation", before.operations, after.operations, _operation),
    ]
    changes.sort(key=lambda change: (-change.weight, change.kind, change.name))
    earlier, later = _names(before), _names(after)
    return Comparison(changes, sorted(later - earlier), sorted(earlier - later))


def _changes(
    kind: str, before: Mapping[str, T], after: Mapping[str, T], figures: Callable[[T, T], Iterator[Figure]]
) -> Iterator[Change]:
    return (Change(kind, name, tuple(figures(before[name], after[name]))) for name in before if name in after)


def _names(report: PerformanceReport) -> set[tuple[str, str]]:
    rows: dict[str, Mapping[str, Any]] = {
        "cache": report.caches,
        "pool": report.pools,
        "batch": report.batches,
        "lazy load": report.lazy_loads,
        "operation": report.operations,
    }
    return {(kind, name) for kind, named in rows.items() for name in named}


def _cache(before: CacheRow, after: CacheRow) -> Iterator[Figure]:
    requests = (before.request_count, after.request_count)
    evicted = (sum(before.evictions.values()), sum(after.evictions.values()))
    yield Figure("requests", "count", *requests, "")
    yield _rate("hit rate", (before.hit_count, after.hit_count), requests, sign=1)
    yield _rate("stale", (before.stale_count, after.stale_count), requests, sign=-1)
    yield _time("load p95", (before.loads.p95, after.loads.p95), (before.loads.count, after.loads.count))
    yield _rate("evictions", evicted, requests, sign=-1)


def _pool(before: PoolRow, after: PoolRow) -> Iterator[Figure]:
    timeouts = (before.timeouts, after.timeouts)
    requests = (before.acquires + before.timeouts + before.rejected, after.acquires + after.timeouts + after.rejected)
    means = [round(row.mean_in_use, 3) if row.uses.count else None for row in (before, after)]
    yield Figure("acquires", "count", before.acquires, after.acquires, "")
    yield _time("wait p95", (before.waits.p95, after.waits.p95), (before.waits.count, after.waits.count))
    yield _time("use p95", (before.uses.p95, after.uses.p95), (before.uses.count, after.uses.count))
    yield _rate("timeouts", timeouts, requests, sign=-1)
    yield Figure("mean use", "count", means[0], means[1], "")


def _batch(before: BatchRow, after: BatchRow) -> Iterator[Figure]:
    failed = (sum(before.item_errors.values()), sum(after.item_errors.values()))
    items = (before.item_count + failed[0], after.item_count + failed[1])
    sizes = [row.mean_size if row.max_size else None for row in (before, after)]
    yield Figure("items", "count", *items, "")
    yield Figure("mean size", "count", sizes[0], sizes[1], "")
    yield _time("time p95", (before.durations.p95, after.durations.p95), (before.durations.count, after.durations.count))
    yield _time("wait p95", (before.waits.p95, after.waits.p95), (before.waits.count, after.waits.count))
    yield _rate("error rate", failed, items, sign=-1)


def _lazy_load(before: LazyRow, after: LazyRow) -> Iterator[Figure]:
    counts = (before.loads.count, after.loads.count)
    yield Figure("loads", "count", *counts, "")
    yield _time("p95", (before.loads.p95, after.loads.p95), counts)


def _operation(before: OperationRow, after: OperationRow) -> Iterator[Figure]:
    counts = (before.count, after.count)
    yield Figure("calls", "count", *counts, "")
    yield _time("mean", (before.avg_duration, after.avg_duration), counts)
    yield _time("p50", (before.p50_duration, after.p50_duration), counts)
    yield _time("p95", (before.p95_duration, after.p95_duration), counts)
    yield _time("p99", (before.p99_duration, after.p99_duration), counts)
    yield _rate("error rate", (before.error_count, after.error_count), counts, sign=-1)


def _time(name: str, values: tuple[float, float], counts: tuple[int, int]) -> Figure:
    before, after = (value if count else None for value, count in zip(values, counts, strict=True))
    verdict = "few"
    if before is not None and after is not None and min(counts) >= _SAMPLES.get(name, FEW):
        same = abs(after - before) <= NOISE * before
        verdict = "same" if same else "better" if after < before else "worse"
    return Figure(name, "time", before, after, verdict)


def _rate(name: str, parts: tuple[int, int], counts: tuple[int, int], *, sign: int) -> Figure:
    """Return a rate; `sign` is 1 if more is better."""
    before, after = (part / count if count else None for part, count in zip(parts, counts, strict=True))
    verdict = "few"
    if before is not None and after is not None and min(counts) >= FEW:
        together = min(1.0, sum(parts) / sum(counts))
        deviation = math.sqrt(together * (1 - together) * (1 / counts[0] + 1 / counts[1]))
        rarer = max(min(before, 1 - before), min(after, 1 - after))
        same = abs(after - before) <= max(BY_CHANCE * deviation, NOISE * rarer)
        verdict = "same" if same else "better" if sign * (after - before) > 0 else "worse"
    return Figure(name, "rate", before, after, verdict)


def _ratio(one: float, other: float, least: float = 0.001) -> float:
    """Return how many times one is the other, as a logarithm; below `least` all are alike."""
    low, high = sorted((max(least, one), max(least, other)))
    return math.log2(high / low)
