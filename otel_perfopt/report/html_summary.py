"""The top of the HTML report: everything in a few sentences and large figures."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from otel_perfopt.report.html_batches import items_of
from otel_perfopt.report.html_words import duration, percent
from otel_perfopt.report.model import BatchRow, CacheRow, LazyRow, PerformanceReport, PoolRow
from otel_perfopt.report.words import many, number, size

__all__ = ("Tile", "lead", "tiles")


@dataclass(frozen=True, slots=True)
class Tile:
    """A large figure: the text, its meaning, the report's value and what to think of it."""

    text: str
    meaning: str
    value: float
    tone: str = ""


def lead(report: PerformanceReport) -> list[str]:
    """Return the whole report in a few sentences; there is one about lazy loads only if there is nothing else."""
    said = []
    if report.caches:
        said.append(_of_caches(report.caches, report.summary.cache_hit_rate))
    if report.pools:
        said.append(_of_pools(report.pools))
    if report.batches:
        said.append(_of_batches(report.batches))
    if report.operations:
        said.append(_of_operations(report))
    if report.lazy_loads and not said:
        said.append(_of_lazy_loads(report.lazy_loads))
    return said or ["Nothing was cached or measured yet."]


def tiles(report: PerformanceReport) -> Iterator[Tile]:
    """Yield the large figures."""
    summary, caches = report.summary, report.caches.values()
    if caches:
        yield Tile(percent(summary.cache_hit_rate), "cache hit rate", summary.cache_hit_rate, "accent")
        requests = sum(row.request_count for row in caches)
        yield Tile(number(requests), "cache requests", requests)
        memory = sum(row.memory_usage for row in caches)
        yield Tile(size(memory), "in cached values", memory)
    if report.pools:
        acquires = sum(row.acquires for row in report.pools.values())
        yield Tile(number(acquires), "acquires of resources", acquires)
    if report.batches:
        items = sum(map(items_of, report.batches.values()))
        yield Tile(number(items), "items in batches", items)
    if report.operations:
        yield Tile(number(summary.total_operations), "calls", summary.total_operations)
        yield Tile(duration(summary.total_duration), "spent in calls", summary.total_duration)
    if any((report.caches, report.pools, report.batches, report.lazy_loads, report.operations)):
        failures = sum(_all_failures(report))
        yield Tile(number(failures), "failures", failures, "bad" if failures else "")


def _of_caches(rows: Mapping[str, CacheRow], hit_rate: float) -> str:
    requests = sum(row.request_count for row in rows.values())
    if not requests:
        return f"{many(len(rows), 'cache')} had no request yet."
    stale = sum(row.stale_count for row in rows.values())
    more = f"; {number(stale)} more got a stale answer" if stale else ""
    return f"{percent(hit_rate)} of {many(requests, 'cache request')} were answered from the cache{more}."


def _of_pools(rows: Mapping[str, PoolRow]) -> str:
    acquires = sum(row.acquires for row in rows.values())
    if not acquires:
        return f"{many(len(rows), 'pool')} had no caller yet."
    got = f"{many(acquires, 'caller')} got a resource"
    known = [row.waited for row in rows.values() if row.waited is not None]
    if not known:
        return f"{got}."
    return f"{got}; {f'{sum(known):,} of them' if any(known) else 'none'} had to wait."


def _of_batches(rows: Mapping[str, BatchRow]) -> str:
    flushes = sum(sum(row.flushes.values()) for row in rows.values())
    if not flushes:
        return f"{many(len(rows), 'batch processor')} had no batch yet."
    failed = sum(sum(row.item_errors.values()) for row in rows.values())
    items = sum(map(items_of, rows.values()))
    return f"{many(items, 'item')} went through {many(flushes, 'batch', 'batches')}; {_failures(failed)}."


def _of_operations(report: PerformanceReport) -> str:
    failed = sum(row.error_count for row in report.operations.values())
    took = f"{many(report.summary.total_operations, 'call')} took {duration(report.summary.total_duration)} in all"
    return f"{took}; {_failures(failed)}."


def _of_lazy_loads(rows: Mapping[str, LazyRow]) -> str:
    loads = sum(row.loads.count for row in rows.values())
    failed = sum(sum(row.load_errors.values()) for row in rows.values())
    took = f"{many(loads, 'lazy load')} took {duration(sum(row.loads.total for row in rows.values()))} in all"
    return f"{took}; {failed:,} more failed." if failed else f"{took}; none failed."


def _failures(failed: int) -> str:
    return f"{failed:,} of them failed" if failed else "none failed"


def _all_failures(report: PerformanceReport) -> Iterator[int]:
    yield from (row.error_count for row in report.operations.values())
    yield from (row.timeouts + row.rejected for row in report.pools.values())
    errors = [
        *(row.load_errors for row in report.caches.values()),
        *(errors for row in report.caches.values() for errors in row.tier_errors.values()),
        *(row.create_errors for row in report.pools.values()),
        *(row.item_errors for row in report.batches.values()),
        *(row.load_errors for row in report.lazy_loads.values()),
    ]
    yield from (sum(by_type.values()) for by_type in errors)
